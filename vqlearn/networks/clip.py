"""CLIP's text encoder (Radford et al. 2021, section 2.4): tensors and configuration are those of transformers' class.

transformers' own `CLIPTextModel` may take its place in a pipeline. This one is here because importing that one imports
torch's compiler and takes a third of the time to the first picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CLIPTextEncoder(nn.Module):
    """A causal transformer over token ids; `encoder(ids)[0]` are its last hidden states, `[B, S]` -> `[B, S, D]`."""

    def __init__(
        self,
        vocab_size: int = 49408,
        hidden_size: int = 512,
        intermediate_size: int = 2048,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 8,
        max_position_embeddings: int = 77,
        hidden_act: str = "quick_gelu",
        layer_norm_eps: float = 1e-5,
        bos_token_id: int | None = 49406,
        eos_token_id: int | None = 49407,
        pad_token_id: int | None = 1,
    ) -> None:
        """The names and defaults of transformers' `CLIPTextConfig`; raises ValueError for sizes that do not fit."""
        chosen = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act must be one of {', '.join(ACTIVATIONS)}, got {hidden_act!r:.60}")
        if hidden_size % num_attention_heads:
            raise ValueError(f"hidden_size {hidden_size} is no multiple of num_attention_heads {num_attention_heads}")
        self.config = SimpleNamespace(**chosen)
        self.embeddings = _Embeddings(vocab_size, max_position_embeddings, hidden_size)
        self.encoder = _Layers(self.config)
        self.final_layer_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.final_layer_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.final_layer_norm.weight.device

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """Hidden states `[B, S, D]` of ids `[B, S]`, in a tuple, as transformers' class gives them first."""
        return (self.final_layer_norm(self.encoder(self.embeddings(input_ids))),)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, which transformers' class reads."""
        from safetensors.torch import save_file

        folder, dtype = Path(folder), str(self.dtype).removeprefix("torch.")
        folder.mkdir(parents=True, exist_ok=True)
        kind = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "dtype": dtype}
        text = json.dumps({**kind, **vars(self.config)}, indent=2, sort_keys=True)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8", newline="\n")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


class _Embeddings(nn.Module):
    def __init__(self, words: int, length: int, width: int) -> None:
        super().__init__()
        self.token_embedding, self.position_embedding = nn.Embedding(words, width), nn.Embedding(length, width)

    def forward(self, ids: Tensor) -> Tensor:
        length = len(self.position_embedding.weight)
        if ids.shape[-1] > length:
            raise ValueError(f"the text encoder reads {length} tokens, got {ids.shape[-1]}")
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[-1]]


class _Layers(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Layer(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.self_attn = _Attention(width, config.num_attention_heads)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.mlp = _FeedForward(width, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # [B, heads, S, D / heads]
        return self.out_proj(found.transpose(1, 2).flatten(-2))


class _FeedForward(nn.Module):
    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.fc1, self.fc2, self.activation = nn.Linear(width, inner), nn.Linear(inner, width), ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), elementwise: CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}
