"""The published denoiser: a transformer over image tokens that reads a time and a text, a class, or nothing.

Module and tensor names are those of diffusers' `Transformer2DModel` for VQ-Diffusion, so published weights
load by name. Each block is self-attention and, for text, cross-attention, both under an AdaLayerNorm over the
timestep, and a feed-forward, for classes under an AdaLayerNorm over the class (Gu et al. 2021, section 5.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqlearn.arguments import real, whole
from vqlearn.networks.configuration import DEEPEST, LARGEST, Configuration, epsilon, flag, one_of, optional, share, size
from vqlearn.networks.models import DenoisingModel

ACTIVATION = "geglu-approximate"  # diffusers' name for x * sigmoid(1.702 x), which is not gated
AT_ONCE = 2**23  # numbers inside a feed-forward at a time, on a CPU: 32 MB in float32
MOST_POSITIONS = 2**20
PIECE = 2**18  # numbers of an element-wise step at a time, on a CPU: they stay in its cache


KeysValues = tuple[Tensor, Tensor]  # each [B, heads, S, C / heads]
Condition = Tensor | list[KeysValues] | None


class LayersConfiguration(Configuration):
    """What the settings of a stack of attention layers have in common."""

    num_layers: int
    num_attention_heads: int
    attention_head_dim: int

    @property
    def layers(self) -> int:
        return self.num_layers

    @property
    def width(self) -> int:
        """Numbers per position, C."""
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True, eq=False)
class TransformerConfiguration(LayersConfiguration):
    """The settings of `Transformer2DModel`: diffusers' names, then our own, then what diffusers' class has besides.

    `num_vector_embeds` is K + 1 (the mask is the last), `sample_size` the side of the position grid,
    `num_embeds_ada_norm` the number of timesteps; `cross_attention_dim=None` reads no text. Ours are `feed_forward`
    ("linear", or "convolution" for the 3 x 3 one of the papers' smaller models) and `feed_forward_mult`,
    `num_positions` (L, where it is less than the whole grid), `num_classes` for a model of classes,
    `learnable_null_class`, whether its null class has a row of its own or is the mean of all, and `positions`,
    "sequence" for `sample_size` tokens in a row (text, music, proteins) in place of a grid.
    """

    _class_name: str = field(default="Transformer2DModel", init=False)
    num_attention_heads: int = 16
    attention_head_dim: int = 88
    num_layers: int = 1
    cross_attention_dim: int | None = 512
    num_vector_embeds: int = 4097
    sample_size: int = 32
    num_embeds_ada_norm: int = 100
    attention_bias: bool = True
    norm_eps: float = 1e-5  # of the norm before the feed-forward alone, as in diffusers
    activation_fn: str = ACTIVATION
    feed_forward: str = "linear"
    feed_forward_mult: float = 4
    num_positions: int | None = None
    num_classes: int | None = None
    learnable_null_class: bool = False
    positions: str = "grid"
    norm_type: str = "ada_norm"  # the published file has none, later ones say "layer_norm" and mean this
    dropout: float = 0.0
    # Each of these has one value that is implemented ...
    in_channels: int | None = None
    patch_size: int | None = None
    only_cross_attention: bool = False
    double_self_attention: bool = False
    norm_elementwise_affine: bool = True
    attention_type: str = "default"
    # ... and these mean nothing for a network of tokens
    out_channels: int | None = None
    norm_num_groups: int = 32
    use_linear_projection: bool = False
    upcast_attention: bool = False
    caption_channels: int | None = None
    interpolation_scale: float | None = None
    use_additional_conditions: bool | None = None

    def __post_init__(self) -> None:
        self._check(size, "num_attention_heads", "attention_head_dim", "num_embeds_ada_norm", "sample_size",
                    "norm_num_groups")  # fmt: skip
        self._check(
            optional(size), "cross_attention_dim", "num_positions", "num_classes", "out_channels", "caption_channels"
        )
        self._check(partial(whole, most=DEEPEST), "num_layers")
        self._check(partial(whole, least=2, most=LARGEST), "num_vector_embeds")
        self._check(epsilon, "norm_eps")
        self._check(share, "dropout")
        self._check(partial(real, least=0, most=64, above=True), "feed_forward_mult")
        self._check(optional(real), "interpolation_scale")
        self._check(flag, "attention_bias", "learnable_null_class", "use_linear_projection", "upcast_attention")
        self._check(optional(flag), "use_additional_conditions")
        self._check(one_of(ACTIVATION), "activation_fn")
        self._check(one_of("ada_norm", "layer_norm"), "norm_type")
        self._check(one_of("linear", "convolution"), "feed_forward")
        self._check(one_of("grid", "sequence"), "positions")
        self._check(one_of("default"), "attention_type")
        self._check(one_of(None), "in_channels", "patch_size")
        self._check(one_of(False), "only_cross_attention", "double_self_attention")
        self._check(one_of(True), "norm_elementwise_affine")
        self._check_together()
        object.__setattr__(self, "norm_type", "ada_norm")

    def _check_together(self) -> None:
        """Settings that are right alone and wrong beside each other."""
        grid, convolution = self.positions == "grid", self.feed_forward == "convolution"
        if not grid and (convolution or self.num_positions is not None):
            raise ValueError("a sequence has sample_size positions and no grid for a feed_forward of convolutions")
        whole("sample_size", self.sample_size, 1, math.isqrt(MOST_POSITIONS) if grid else MOST_POSITIONS)
        if self.num_positions is not None:
            whole("num_positions", self.num_positions, 1, self.sample_size**2)
            if convolution and math.isqrt(self.num_positions) ** 2 != self.num_positions:
                raise ValueError(f"num_positions must be a square for convolutions, got {self.num_positions}")
        whole("num_attention_heads * attention_head_dim", self.width, 1, LARGEST)
        if self.cross_attention_dim is not None and self.num_classes is not None:
            raise ValueError("a denoiser reads a text or a class: cross_attention_dim or num_classes must be None")


class Blocks(nn.Module):
    """A stack of layers over `width` numbers for each of L positions, which may read a text."""

    transformer_blocks: Any

    def remember(self, text: Tensor) -> list[KeysValues]:
        """Every block's keys and values of a text `[B, S, D]`: they are the same in every call, so once is enough."""
        return [block.attn2.keys_values(text) for block in self.transformer_blocks]

    def each_reads(self, condition: Condition) -> list[Any]:
        """What each block is given of a condition: its own keys and values, or what all of them are given."""
        return condition if isinstance(condition, list) else [condition] * len(self.transformer_blocks)


class Transformer2DModel(DenoisingModel, Blocks):
    """Logits of p(x_0 | x_t, condition): `[B, L]` tokens, a condition and a timestep -> `[B, L, K]`.

    The arguments are the fields of `TransformerConfiguration`, which `config` is. Raises ValueError for sizes out of
    range and for settings of diffusers' class that are not implemented, TypeError for unknown names.
    """

    config_class = TransformerConfiguration

    def __init__(self, *sizes: Any, **settings: Any) -> None:
        super().__init__()
        self.config = config = TransformerConfiguration.of(*sizes, **settings)
        self.width, grid = config.width, config.positions == "grid"
        self.num_positions = config.num_positions or (config.sample_size**2 if grid else config.sample_size)
        embedding = TokenEmbedding if grid else SequenceEmbedding
        self.latent_image_embedding = embedding(config.num_vector_embeds, config.width, config.sample_size)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm_out = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, config.num_vector_embeds - 1)  # no logit for the mask: x_0 holds none

    @property
    def num_codes(self) -> int:
        """K, the mask not counted."""
        return self.config.num_vector_embeds - 1

    @property
    def reads(self) -> str:
        """What the condition is: "text", "class" or "nothing"."""
        if self.config.num_classes is not None:
            return "class"
        return "text" if self.config.cross_attention_dim is not None else "nothing"

    def forward(self, x_t: Tensor, condition: Condition, timestep: Tensor, branches: int = 1) -> Tensor:
        """`condition` is a text `[B, S, D]` or what `remember` made of it, class labels int64 `[B]` (`num_classes` is
        the null class), or None. `timestep` is an int64 scalar or `[B]`, counted 0 ... T - 1 (our time t less one).

        With two `branches` (guidance) there are 2 B conditions and the logits are `[2 B, L, K]`, of all x_t under the
        first B conditions, then under the others.
        """
        conditions, blocks = self.each_reads(condition), self.transformer_blocks
        timestep = timestep.expand(len(x_t)) if timestep.ndim else timestep
        x = blocks[0].look(self.latent_image_embedding(x_t), timestep)  # [B, L, C], the same in all branches
        if branches > 1:  # from here on one row per branch
            x = x.repeat(branches, 1, 1)
            timestep = timestep.repeat(branches) if timestep.ndim else timestep
        x = blocks[0].read(x, conditions[0], timestep)
        for block, read in zip(blocks[1:], conditions[1:], strict=True):
            x = block(x, read, timestep)
        return self.out(self.norm_out(x))


class TokenEmbedding(nn.Module):
    """A vector per code plus one per row and one per column of the grid, laid out row by row and cut to L."""

    def __init__(self, num_embeds: int, width: int, side: int):
        super().__init__()
        self.emb = nn.Embedding(num_embeds, width)
        self.height_emb = nn.Embedding(side, width)
        self.width_emb = nn.Embedding(side, width)

    def positions(self) -> Tensor:
        """The vectors of all positions alone, `[side^2, C]`."""
        return (self.height_emb.weight[:, None] + self.width_emb.weight).flatten(0, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.emb(tokens) + self.positions()[: tokens.shape[1]]


class SequenceEmbedding(nn.Module):
    """A vector per code plus one per position of a sequence of `length` tokens."""

    def __init__(self, num_embeds: int, width: int, length: int):
        super().__init__()
        self.emb = nn.Embedding(num_embeds, width)
        self.position_emb = nn.Embedding(length, width)

    def positions(self) -> Tensor:
        """The vectors of all positions alone, `[length, C]`."""
        return self.position_emb.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.emb(tokens) + self.positions()[: tokens.shape[1]]


class Block(nn.Module):
    """One layer: self-attention, cross-attention if a text is read, and a feed-forward."""

    def __init__(self, config: TransformerConfiguration):
        super().__init__()
        width, steps, classes = config.width, config.num_embeds_ada_norm, config.num_classes
        attention = partial(Attention, width, config.num_attention_heads, config.attention_bias, config.dropout)
        self.norm1, self.attn1 = AdaLayerNorm(width, steps), attention(width)
        if config.cross_attention_dim is not None:
            self.norm2, self.attn2 = AdaLayerNorm(width, steps), attention(config.cross_attention_dim)
        if classes is None:
            self.norm3: nn.Module = nn.LayerNorm(width, config.norm_eps)
        else:
            null_row = config.learnable_null_class
            self.norm3 = AdaLayerNorm(width, classes + null_row, config.norm_eps, mean_last=not null_row)
        self.ff = FeedForward(width, config.feed_forward_mult, config.feed_forward == "convolution", config.dropout)

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

    def __init__(self, width: int, rows: int, eps: float = 1e-5, mean_last: bool = False):
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

    def __init__(self, width: int, heads: int, bias: bool, dropout: float, context_width: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context_width, width, bias=bias)
        self.to_v = nn.Linear(context_width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Dropout(dropout)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.read(self.queries(x), *self.keys_values(context))

    def queries(self, x: Tensor) -> Tensor:
        """`[B, heads, L, C / heads]`."""
        return self._heads(self.to_q(x))

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Each `[B, heads, S, C / heads]`."""
        return self._heads(self.to_k(context)), self._heads(self.to_v(context))

    def read(self, q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
        """What queries find, `[B, L, C]`; if `causal` query i of L looks at the first i of as many keys alone."""
        if q.requires_grad and q.device.type == "cpu":
            # On a CPU the fused kernel's backward pass takes 1.5 to 2.5 times as long as these lines'.
            scores = (q * q.shape[-1] ** -0.5) @ k.mT
            if causal:
                scores = scores + torch.full_like(scores[0, 0], -torch.inf).triu(1)
            found = scores.softmax(-1) @ v
        else:
            found = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.to_out[1](self.to_out[0](found.transpose(1, 2).flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two layers with x * sigmoid(1.702 x) between, linear or 3 x 3 convolutions over the square grid of tokens."""

    def __init__(self, width: int, mult: float, convolution: bool, dropout: float):
        super().__init__()
        self.hidden = hidden = int(width * mult)
        self.convolution = convolution
        first, last = (
            nn.Conv2d(ins, outs, 3, padding=1) if convolution else nn.Linear(ins, outs)
            for ins, outs in ((width, hidden), (hidden, width))
        )
        self.net = nn.ModuleList([ApproximateGELU(first), nn.Dropout(dropout), last])

    def forward(self, x: Tensor) -> Tensor:
        if not self.convolution:
            return in_parts(self._layers, x, self.hidden)
        side = round(x.shape[1] ** 0.5)
        # [B, L, C] seen as [B, C, side, side] in channels-last memory: no copy
        grid = x.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        return self._layers(grid).permute(0, 2, 3, 1).flatten(1, 2)

    def _layers(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[1](self.net[0](x)))


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
