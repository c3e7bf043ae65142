"""The published denoiser: a transformer over image tokens that reads a time and a text, a class, or nothing.

Module and tensor names are those of diffusers' `Transformer2DModel` for VQ-Diffusion, so published weights
load by name. Each block is self-attention and, for text, cross-attention, both under an AdaLayerNorm over the
timestep, and a feed-forward, for classes under an AdaLayerNorm over the class (Gu et al. 2021, section 5.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATION = "geglu-approximate"  # diffusers' name for x * sigmoid(1.702 x), which is not gated
AT_ONCE = 2**23  # numbers inside a feed-forward at a time, on a CPU: 32 MB in float32
PIECE = 2**18  # numbers of an element-wise step at a time, on a CPU: they stay in its cache


KeysValues = tuple[Tensor, Tensor]  # each [B, heads, S, C / heads]
Condition = Tensor | list[KeysValues] | None


class Transformer2DModel(nn.Module):
    """Logits of p(x_0 | x_t, condition): `[B, L]` tokens, a condition and a timestep -> `[B, L, K]`.

    Arguments are diffusers' names: `num_vector_embeds` is K + 1 (the mask is the last), `sample_size` the
    side of the position grid, `num_embeds_ada_norm` the number of timesteps. `cross_attention_dim=None` reads no
    text. Ours are `feed_forward` ("linear", or "convolution" for the 3 x 3 one of the papers' smaller models) and
    `feed_forward_mult`, `num_positions` (L, where it is less than the whole grid), `num_classes` for a model of
    classes, `learnable_null_class`, whether its null class has a row of its own or is the mean of all, and `positions`,
    "sequence" for `sample_size` tokens in a row (text, music, proteins) in place of a grid.
    """

    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 88,
        num_layers: int = 1,
        cross_attention_dim: int | None = 512,
        num_vector_embeds: int = 4097,
        sample_size: int = 32,
        num_embeds_ada_norm: int = 100,
        attention_bias: bool = True,
        norm_eps: float = 1e-5,
        activation_fn: str = ACTIVATION,
        feed_forward: str = "linear",
        feed_forward_mult: float = 4,
        num_positions: int | None = None,
        num_classes: int | None = None,
        learnable_null_class: bool = False,
        positions: str = "grid",
    ):
        super().__init__()
        if feed_forward not in ("linear", "convolution"):
            raise ValueError(f"feed_forward must be 'linear' or 'convolution', got {feed_forward!r}")
        if positions not in ("grid", "sequence"):
            raise ValueError(f"positions must be 'grid' or 'sequence', got {positions!r}")
        if positions == "sequence" and (feed_forward == "convolution" or num_positions is not None):
            raise ValueError("a sequence has sample_size positions and no grid for a feed_forward of convolutions")
        if activation_fn != ACTIVATION:
            raise ValueError(f"activation_fn must be {ACTIVATION!r}, got {activation_fn!r}")
        if cross_attention_dim is not None and num_classes is not None:
            raise ValueError("a denoiser reads a text or a class: cross_attention_dim or num_classes must be None")
        if num_positions is not None and not 1 <= num_positions <= sample_size**2:
            raise ValueError(f"num_positions must lie in 1 ... {sample_size**2} (the grid), got {num_positions}")
        self.config: dict[str, Any] = {
            "_class_name": "Transformer2DModel",
            "num_attention_heads": num_attention_heads,
            "attention_head_dim": attention_head_dim,
            "num_layers": num_layers,
            "cross_attention_dim": cross_attention_dim,
            "num_vector_embeds": num_vector_embeds,
            "sample_size": sample_size,
            "num_embeds_ada_norm": num_embeds_ada_norm,
            "attention_bias": attention_bias,
            "norm_eps": norm_eps,
            "activation_fn": activation_fn,
            "norm_type": "ada_norm",
            "feed_forward": feed_forward,
            "feed_forward_mult": feed_forward_mult,
            "num_positions": num_positions,
            "num_classes": num_classes,
            "learnable_null_class": learnable_null_class,
            "positions": positions,
        }
        self.width = width = num_attention_heads * attention_head_dim
        grid = positions == "grid"
        self.num_positions = num_positions or (sample_size**2 if grid else sample_size)
        embedding = TokenEmbedding if grid else SequenceEmbedding
        self.latent_image_embedding = embedding(num_vector_embeds, width, sample_size)
        self.transformer_blocks = nn.ModuleList(Block(width, self.config) for _ in range(num_layers))
        self.norm_out = nn.LayerNorm(width)
        self.out = nn.Linear(width, num_vector_embeds - 1)  # no logit for the mask: clean images hold none

    @property
    def reads(self) -> str:
        """What the condition is: "text", "class" or "nothing"."""
        if self.config["num_classes"] is not None:
            return "class"
        return "text" if self.config["cross_attention_dim"] is not None else "nothing"

    def forward(self, x_t: Tensor, condition: Condition, timestep: Tensor, branches: int = 1) -> Tensor:
        """`condition` is a text `[B, S, D]` or what `remember` made of it, class labels int64 `[B]` (`num_classes` is
        the null class), or None. `timestep` is an int64 scalar or `[B]`, counted 0 ... T - 1 (our time t less one).

        With two `branches` (guidance) there are 2 B conditions and the logits are `[2 B, L, K]`, of all x_t under the
        first B conditions, then under the others.
        """
        conditions = condition if isinstance(condition, list) else [condition] * len(self.transformer_blocks)
        timestep = timestep.expand(len(x_t)) if timestep.ndim else timestep
        blocks: Any = self.transformer_blocks
        x = blocks[0].look(self.latent_image_embedding(x_t), timestep)  # [B, L, C], the same in all branches
        if branches > 1:  # from here on one row per branch
            x = x.repeat(branches, 1, 1)
            timestep = timestep.repeat(branches) if timestep.ndim else timestep
        x = blocks[0].read(x, conditions[0], timestep)
        for block, read in zip(blocks[1:], conditions[1:], strict=True):
            x = block(x, read, timestep)
        return self.out(self.norm_out(x))

    def remember(self, text: Tensor) -> list[KeysValues]:
        """Every block's keys and values of a text `[B, S, D]`: they are the same at all times, so once is enough."""
        blocks: Any = self.transformer_blocks
        return [block.attn2.keys_values(text) for block in blocks]


class TokenEmbedding(nn.Module):
    """A vector per code plus one per row and one per column of the grid, laid out row by row and cut to L."""

    def __init__(self, num_embeds: int, width: int, side: int):
        super().__init__()
        self.emb = nn.Embedding(num_embeds, width)
        self.height_emb = nn.Embedding(side, width)
        self.width_emb = nn.Embedding(side, width)

    def forward(self, tokens: Tensor) -> Tensor:
        position = (self.height_emb.weight[:, None] + self.width_emb.weight).flatten(0, 1)  # [side^2, C]
        return self.emb(tokens) + position[: tokens.shape[1]]


class SequenceEmbedding(nn.Module):
    """A vector per code plus one per position of a sequence of `length` tokens."""

    def __init__(self, num_embeds: int, width: int, length: int):
        super().__init__()
        self.emb = nn.Embedding(num_embeds, width)
        self.position_emb = nn.Embedding(length, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.emb(tokens) + self.position_emb.weight[: tokens.shape[1]]


class Block(nn.Module):
    """One layer: self-attention, cross-attention if a text is read, and a feed-forward."""

    def __init__(self, width: int, config: dict[str, Any]):
        super().__init__()
        steps, eps = config["num_embeds_ada_norm"], config["norm_eps"]
        heads, bias = config["num_attention_heads"], config["attention_bias"]
        self.norm1 = AdaLayerNorm(width, steps, eps)
        self.attn1 = Attention(width, width, heads, bias)
        if config["cross_attention_dim"] is not None:
            self.norm2 = AdaLayerNorm(width, steps, eps)
            self.attn2 = Attention(width, config["cross_attention_dim"], heads, bias)
        classes, null_row = config["num_classes"], config["learnable_null_class"]
        if classes is None:
            self.norm3: nn.Module = nn.LayerNorm(width, eps)
        else:
            self.norm3 = AdaLayerNorm(width, classes + null_row, eps, mean_last=not null_row)
        self.ff = FeedForward(width, config["feed_forward_mult"], config["feed_forward"] == "convolution")

    def forward(self, x: Tensor, condition: Any, timestep: Tensor) -> Tensor:
        return self.read(self.look(x, timestep), condition, timestep)

    def look(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Self-attention, which knows no condition."""
        h = self.norm1(x, timestep)
        return x + self.attn1(h, h)

    def read(self, x: Tensor, condition: Any, timestep: Tensor) -> Tensor:
        """Cross-attention, where a text is read, and the feed-forward, whose norm may be that of a class."""
        if hasattr(self, "attn2"):
            k, v = condition if isinstance(condition, tuple) else self.attn2.keys_values(condition)
            x = x + self.attn2.read(self.attn2.queries(self.norm2(x, timestep)), k, v)
        h = self.norm3(x, condition) if isinstance(self.norm3, AdaLayerNorm) else self.norm3(x)
        return x + self.ff(h)


class AdaLayerNorm(nn.Module):
    """LayerNorm whose scale and shift come from a learned table over timesteps or classes, in that order.

    With `mean_last` one index more than the table has rows means the mean of them all.
    """

    def __init__(self, width: int, rows: int, eps: float, mean_last: bool = False):
        super().__init__()
        self.emb = nn.Embedding(rows, width)
        self.linear = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, eps, elementwise_affine=False)
        self.mean_last = mean_last

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        table = self.emb.weight
        table = torch.cat([table, table.mean(0, keepdim=True)]) if self.mean_last else table
        scale, shift = self.linear(F.silu(F.embedding(index, table))).chunk(2, dim=-1)  # each [C] or [B, C]
        if index.ndim == 0:  # one for all rows: normalised, scaled and shifted in one pass
            return F.layer_norm(x, scale.shape, (1 + scale).to(x.dtype), shift.to(x.dtype), self.norm.eps)
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    """Multi-head attention of `x` `[B, L, C]` to `context` `[B, S, D]`; padding is attended to, as published."""

    def __init__(self, width: int, context_width: int, heads: int, bias: bool):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context_width, width, bias=bias)
        self.to_v = nn.Linear(context_width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.read(self.queries(x), *self.keys_values(context))

    def queries(self, x: Tensor) -> Tensor:
        """`[B, heads, L, C / heads]`."""
        return self._heads(self.to_q(x))

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Each `[B, heads, S, C / heads]`."""
        return self._heads(self.to_k(context)), self._heads(self.to_v(context))

    def read(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What queries find, `[B, L, C]`."""
        if q.requires_grad and q.device.type == "cpu":
            # On a CPU the fused kernel's backward pass takes 1.5 to 2.5 times as long as these three lines'.
            found = ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1) @ v
        else:
            found = F.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](found.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two layers with x * sigmoid(1.702 x) between, linear or 3 x 3 convolutions over the square grid of tokens."""

    def __init__(self, width: int, mult: float, convolution: bool):
        super().__init__()
        self.hidden = hidden = int(width * mult)
        self.convolution = convolution
        first, last = (
            nn.Conv2d(ins, outs, 3, padding=1) if convolution else nn.Linear(ins, outs)
            for ins, outs in ((width, hidden), (hidden, width))
        )
        self.net = nn.ModuleList([ApproximateGELU(first), nn.Identity(), last])

    def forward(self, x: Tensor) -> Tensor:
        if not self.convolution:
            return in_parts(lambda rows: self.net[2](self.net[0](rows)), x, self.hidden)
        side = round(x.shape[1] ** 0.5)
        # [B, L, C] seen as [B, C, side, side] in channels-last memory: no copy
        grid = x.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        return self.net[2](self.net[0](grid)).permute(0, 2, 3, 1).flatten(1, 2)


class ApproximateGELU(nn.Module):
    """x * sigmoid(1.702 x) after a projection; not gated, whatever "geglu-approximate" suggests."""

    def __init__(self, proj: nn.Module):
        super().__init__()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        h = self.proj(x)
        if h.requires_grad or h.device.type != "cpu" or not h.is_contiguous() or torch.compiler.is_compiling():
            return h * torch.sigmoid(1.702 * h)
        for part in h.view(-1).split(PIECE):  # the same numbers in place, a piece at a time
            part.mul_(torch.sigmoid(1.702 * part))
        return h


def in_parts(layers: Callable[[Tensor], Tensor], x: Tensor, hidden: int) -> Tensor:
    """`layers` of `x` `[B, L, C]`, which hold `hidden` numbers for each of its rows: on a CPU of some rows at a time.

    Larger memory is asked of the system at every call and given back after it, which takes longer than to fill it.
    """
    parts = math.ceil(x.shape[:-1].numel() * hidden / AT_ONCE)
    if parts < 2 or torch.is_grad_enabled() or x.device.type != "cpu":
        return layers(x)
    return torch.cat([layers(rows) for rows in x.flatten(0, 1).chunk(parts)]).view_as(x)
