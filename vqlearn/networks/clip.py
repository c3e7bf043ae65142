"""CLIP's text encoder (Radford et al. 2021, section 2.4): tensors and configuration are those of transformers' class.

transformers' own `CLIPTextModel` may take its place in a pipeline. This one is here because importing that one imports
torch's compiler and takes a third of the time to the first picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlearn.arguments import real, whole
from vqlearn.networks.configuration import DEEPEST, Configuration, epsilon, one_of, optional, share, size

OF_ANY_MODEL = (  # keys of every configuration of transformers, today's and those of 2022, that no text encoder reads
    "architectures model_type torch_dtype dtype transformers_version name_or_path return_dict output_hidden_states "
    "output_attentions torchscript use_bfloat16 tf_legacy_loss pruned_heads tie_word_embeddings tie_encoder_decoder "
    "is_encoder_decoder is_decoder add_cross_attention cross_attention_hidden_size chunk_size_feed_forward "
    "finetuning_task id2label label2id problem_type task_specific_params tokenizer_class prefix "
    "decoder_start_token_id sep_token_id use_cache max_length min_length do_sample early_stopping num_beams "
    "num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty "
    "no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences return_dict_in_generate "
    "output_scores forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty "
    "suppress_tokens begin_suppress_tokens gradient_checkpointing"
)


@dataclass(frozen=True, eq=False)
class CLIPTextConfiguration(Configuration):
    """The settings of `CLIPTextEncoder`: names and defaults of transformers' `CLIPTextConfig`.

    The last three mean nothing for hidden states.
    """

    ignored: ClassVar[frozenset[str]] = frozenset(OF_ANY_MODEL.split())

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int | None = 49406
    eos_token_id: int | None = 49407
    pad_token_id: int | None = 1
    attention_dropout: float = 0.0
    projection_dim: int | None = 512
    initializer_range: float = 0.02
    initializer_factor: float = 1.0

    def __post_init__(self) -> None:
        self._check(size, "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads",
                    "max_position_embeddings")  # fmt: skip
        self._check(partial(whole, most=DEEPEST), "num_hidden_layers")
        self._check(one_of(*ACTIVATIONS), "hidden_act")
        self._check(epsilon, "layer_norm_eps")
        self._check(optional(partial(whole, least=0)), "bos_token_id", "eos_token_id", "pad_token_id")
        self._check(share, "attention_dropout")
        self._check(optional(size), "projection_dim")
        self._check(real, "initializer_range", "initializer_factor")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}"
            )

    @property
    def layers(self) -> int:
        return self.num_hidden_layers


class CLIPTextEncoder(nn.Module):
    """A causal transformer over token ids; `encoder(ids)[0]` are its last hidden states, `[B, S]` -> `[B, S, D]`.

    The arguments are the fields of `CLIPTextConfiguration`; raises ValueError for sizes that do not fit.
    """

    config_class = CLIPTextConfiguration

    def __init__(self, *sizes: Any, **settings: Any) -> None:
        super().__init__()
        self.config = config = CLIPTextConfiguration.of(*sizes, **settings)
        self.embeddings = _Embeddings(config.vocab_size, config.max_position_embeddings, config.hidden_size)
        self.encoder = _Layers(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

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
        text = json.dumps({**kind, **self.config}, indent=2, sort_keys=True)
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
    def __init__(self, config: CLIPTextConfiguration) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Layer(nn.Module):
    def __init__(self, config: CLIPTextConfiguration) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.self_attn = _Attention(width, config.num_attention_heads, config.attention_dropout)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.mlp = _FeedForward(width, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)  # [B, heads, S, D / heads]
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
