"""The autoregressive rival of the denoiser: the same layers, causal, that predict one token after the other.

p(x) is the product over the positions, in a fixed order, of p(x_i | the tokens before it, text), as in PixelCNN (van
den Oord et al. 2016) and DALL-E (Ramesh et al. 2021). Each input is the token that was drawn last, with its position,
plus a vector of the position that comes next (as in sigma-GPT, Pannatier et al. 2024): so a network knows in any order
where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqlearn import guidance
from vqlearn.arguments import permutation, real, shown, whole
from vqlearn.draws import Generators, check_generators, draw
from vqlearn.networks.configuration import DEEPEST, LARGEST, epsilon, flag, one_of, optional, share, size
from vqlearn.networks.models import Model
from vqlearn.networks.transformer import (
    MOST_POSITIONS,
    Attention,
    Blocks,
    Condition,
    FeedForward,
    LayersConfiguration,
    SequenceEmbedding,
    TokenEmbedding,
)

Predict = Callable[[Tensor, int], Tensor]  # tokens [B, L] and a number n to log p of the n-th in the order, [B, K]


@dataclass(frozen=True, eq=False)
class AutoregressiveConfiguration(LayersConfiguration):
    """The settings of `AutoregressiveTransformer`, with the denoiser's names where it has them.

    `num_codes` is K (there is no mask), `num_positions` L, in rows of a square grid or, with `positions="sequence"`, in
    one row. `order` says which position is drawn first, second, ...; None is row by row (raster order).
    `cross_attention_dim=None` reads no text.
    """

    _class_name: str = field(default="AutoregressiveTransformer", init=False)
    num_codes: int = 4096
    num_positions: int = 1024
    num_attention_heads: int = 16
    attention_head_dim: int = 64
    num_layers: int = 1
    cross_attention_dim: int | None = 512
    attention_bias: bool = True
    norm_eps: float = 1e-5
    feed_forward_mult: float = 4
    positions: str = "grid"
    order: Sequence[int] | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self._check(partial(whole, most=LARGEST), "num_codes")
        self._check(partial(whole, most=MOST_POSITIONS), "num_positions")
        self._check(size, "num_attention_heads", "attention_head_dim")
        self._check(optional(size), "cross_attention_dim")
        self._check(partial(whole, most=DEEPEST), "num_layers")
        self._check(epsilon, "norm_eps")
        self._check(share, "dropout")
        self._check(partial(real, least=0, most=64, above=True), "feed_forward_mult")
        self._check(flag, "attention_bias")
        self._check(one_of("grid", "sequence"), "positions")
        self._check(optional(partial(permutation, length=self.num_positions)), "order")
        whole("num_attention_heads * attention_head_dim", self.width, 1, LARGEST)


class AutoregressiveTransformer(Model, Blocks):
    """Logits of p(x_i | tokens before it, condition) for all positions i: `[B, L]` tokens -> `[B, L, K]`.

    The arguments are the fields of `AutoregressiveConfiguration`, which `config` is. Raises ValueError for sizes out of
    range, TypeError for unknown names.
    """

    config_class = AutoregressiveConfiguration

    def __init__(self, *sizes: Any, **settings: Any) -> None:
        super().__init__()
        self.config = config = AutoregressiveConfiguration.of(*sizes, **settings)
        self.width, self.num_positions, self.num_codes = config.width, config.num_positions, config.num_codes
        grid = config.positions == "grid"
        side = math.isqrt(config.num_positions - 1) + 1 if grid else config.num_positions
        embedding = TokenEmbedding if grid else SequenceEmbedding
        self.latent_image_embedding = embedding(config.num_codes, config.width, side)  # of the token before
        self.next_embedding = embedding(1, config.width, side)  # of the position that is predicted
        self.transformer_blocks = nn.ModuleList(CausalBlock(config) for _ in range(config.num_layers))
        self.norm_out = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, config.num_codes)

    @property
    def reads(self) -> str:
        """What the condition is: "text" or "nothing"."""
        return "text" if self.config.cross_attention_dim is not None else "nothing"

    def forward(self, tokens: Tensor, condition: Condition = None, order: Tensor | None = None) -> Tensor:
        """Logits of every token given those before it, in one pass; laid out as the tokens, whatever the order is.

        `condition` is a text `[B, S, D]`, what `remember` made of it, or None. `order` is a permutation `[L]`, or one
        per row `[B, L]`; None is the network's own.
        """
        order = self._order(order)
        x = self._inputs(tokens, order, self._tables(), 0, self.num_positions)
        for block, read in zip(self.transformer_blocks, self.each_reads(condition), strict=True):
            x = block(x, read)
        x = torch.take_along_dim(x, order.argsort(-1)[..., None], dim=1)
        return self.out(self.norm_out(x))

    def log_prob(self, tokens: Tensor, condition: Condition = None, *, order: Tensor | None = None) -> Tensor:
        """log p(x | condition) in nats, `[B]`: exact, the sum of that of every token `[B, L]` given those before it.

        Float32, or float64 with weights in float64. Raises ValueError for tokens that are none.
        """
        if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64 or tokens.shape[1:] != (self.num_positions,):
            raise ValueError(f"tokens must be int64 [B, {self.num_positions}], got {shown(tokens)}")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.num_codes:
            raise ValueError(f"tokens must lie in 0 ... {self.num_codes - 1}, got {shown(tokens)}")
        log_p = _wide(self(tokens, condition, order)).log_softmax(-1)  # [B, L, K]
        return log_p.gather(-1, tokens[..., None])[..., 0].sum(-1)

    @torch.no_grad()
    def generate(
        self,
        condition: Condition = None,
        batch: int = 1,
        *,
        generator: Generators = None,
        on_step: Callable[[int], object] | None = None,
        **choices: Any,
    ) -> Tensor:
        """Draw `batch` rows of tokens, int64 `[batch, L]`, one position after the other.

        `choices` are the keywords of `predictor`: guidance, cache, order, temperature, top-k and top-p. One generator
        serves the batch, a list gives each row its own. `on_step(n)` is called after the n-th position. Raises
        ValueError for numbers out of range and a condition of another number of rows.
        """
        predict = self.predictor(condition, batch, **choices)
        check_generators(generator, batch)
        order = self._order(choices.get("order"))
        tokens = torch.zeros(batch, self.num_positions, dtype=torch.int64, device=self.device)
        for number in range(self.num_positions):
            drawn = draw(predict(tokens, number), generator)  # [B]
            tokens.scatter_(1, order[:, number, None].expand(batch, 1), drawn[:, None])
            if on_step is not None:
                on_step(number)
        return tokens

    @torch.no_grad()
    def predictor(
        self,
        condition: Condition = None,
        batch: int = 1,
        *,
        null: Condition = None,
        guidance_scale: float = 1.0,
        cache: bool = True,
        order: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Predict:
        """`predict(tokens [B, L], n) -> log p [B, K]` of the n-th position in the order, given those before it.

        What `generate` draws from. With `cache` every layer keeps the keys and values of the positions that it has
        seen, n is 0, 1, 2, ... in turn, and a call computes one position; without, it computes all n + 1 again. With a
        `guidance_scale` other than 1 the network reads `null` as well (`guidance.guide`). The log-probabilities are
        divided by `temperature`; then `top_p` keeps the likeliest codes that together reach this probability (Holtzman
        et al. 2020; `guidance.truncate`) and `top_k` no more than so many. What is kept is not normalised. Raises
        ValueError for numbers out of range, a condition of another number of rows, and an n that is not in turn.
        """
        batch, order, tables = whole("batch", batch), self._order(order), self._tables()
        branches = guidance.branches(guidance.scale_at(guidance_scale, 0))
        choose = _chooser(real("temperature", temperature, 0, above=True), top_k, top_p)
        read = self.each_reads(self._branches(condition, null, branches, batch))
        pasts = [Past(self.num_positions) for _ in read]

        @torch.no_grad()
        def predict(tokens: Tensor, number: int) -> Tensor:
            if cache and number != pasts[0].count:
                raise ValueError(f"with a cache positions come in turn: number {pasts[0].count} is next, got {number}")
            x = self._inputs(tokens, order, tables, number if cache else 0, number + 1)
            x = x.repeat(2, 1, 1) if branches == "both" else x
            with any_length(x.device):
                for block, given, past in zip(self.transformer_blocks, read, pasts, strict=True):
                    x = block(x, given, past if cache else None)
            log_p = _wide(self.out(self.norm_out(x[:, -1]))).log_softmax(-1)
            if branches == "both":
                log_p_null, log_p = log_p.chunk(2)
                log_p = guidance.guide(log_p, log_p_null, guidance_scale)
            return choose(log_p)

        return predict

    def _branches(self, condition: Condition, null: Condition, branches: str, batch: int) -> Condition:
        """What is read by all rows of all branches, the null one first; raises ValueError."""
        chosen = {"conditional": [condition], "unconditional": [null], "both": [null, condition]}[branches]
        if self.reads == "nothing":
            if any(one is not None for one in (condition, null)) or branches != "conditional":
                raise ValueError("this network reads nothing: condition must be None and guidance_scale 1")
            return None
        tables = []
        for name, one in zip(("null", "condition")[-len(chosen) :], chosen, strict=True):
            name = "null" if branches == "unconditional" else name
            found = self.remember(one) if isinstance(one, Tensor) else one
            if found is None or len(found[0][0]) != batch:
                what = "a text [batch, S, D], or what remember made of it"
                raise ValueError(f"{name} must be {what}, for {batch} rows, got {shown(one)}")
            tables.append(found)
        layers = [zip(*each, strict=True) for each in zip(*tables, strict=True)]  # of all branches
        return [(torch.cat(keys), torch.cat(values)) for keys, values in layers]

    def _order(self, order: Tensor | None) -> Tensor:
        """An order as a table `[1, L]` or `[B, L]`; raises ValueError for what is no permutation."""
        length, device = self.num_positions, self.out.weight.device
        own = self.config.order
        if order is None:
            return (torch.arange(length, device=device) if own is None else torch.tensor(own, device=device))[None]
        found = torch.as_tensor(order, device=device)
        every = torch.arange(length, device=device)
        if found.dtype != torch.int64 or found.shape[-1:] != (length,) or found.ndim > 2:
            raise ValueError(f"order must be int64 [{length}] or [B, {length}], got {shown(order)}")
        if not bool((found.sort(-1)[0] == every).all()):
            raise ValueError(f"order must hold each of the {length} positions 0 ... {length - 1} once")
        return found.view(-1, length)

    def _tables(self) -> tuple[Tensor, Tensor]:
        """The vectors of all positions, as the one that is predicted and as that of a token that is known."""
        wanted = self.next_embedding
        return wanted.emb.weight[0] + wanted.positions(), self.latent_image_embedding.positions()

    def _inputs(self, tokens: Tensor, order: Tensor, tables: tuple[Tensor, Tensor], first: int, last: int) -> Tensor:
        """What the layers read at the places `first` ... `last` - 1 of the order, `[B, last - first, C]`.

        It is the position to be predicted and, but at place 0, the token before it with its own position.
        """
        wanted, seen = tables
        x = wanted[order[:, first:last]]
        before = order[:, max(first - 1, 0) : last - 1].expand(len(tokens), -1)
        known = self.latent_image_embedding.emb(tokens.gather(1, before)) + seen[before]
        return x + F.pad(known, (0, 0, x.shape[1] - known.shape[1], 0))


class Past:
    """The keys and values that one layer has computed so far, in memory for all `length` positions."""

    def __init__(self, length: int):
        self.length, self.count = length, 0
        self.memory: tuple[Tensor, ...] = ()

    def extended(self, *new: Tensor) -> tuple[Tensor, ...]:
        """Keep new keys and values `[B, heads, n, C / heads]`, and give all of them."""
        if not self.memory:
            self.memory = tuple(x.new_empty(*x.shape[:2], self.length, x.shape[3]) for x in new)
        begin, self.count = self.count, self.count + new[0].shape[2]
        for kept, x in zip(self.memory, new, strict=True):
            kept[:, :, begin : self.count] = x
        return tuple(kept[:, :, : self.count] for kept in self.memory)


class CausalBlock(nn.Module):
    """One layer: causal self-attention, cross-attention if a text is read, and a feed-forward."""

    def __init__(self, config: AutoregressiveConfiguration):
        super().__init__()
        width = config.width
        attention = partial(Attention, width, config.num_attention_heads, config.attention_bias, config.dropout)
        norm = partial(nn.LayerNorm, width, config.norm_eps)
        self.norm1, self.attn1 = norm(), attention(width)
        if config.cross_attention_dim is not None:
            self.norm2, self.attn2 = norm(), attention(config.cross_attention_dim)
        self.norm3, self.ff = norm(), FeedForward(width, config.feed_forward_mult, False, config.dropout)

    def forward(self, x: Tensor, condition: Any, past: Past | None = None) -> Tensor:
        """With a `past` `x` is the one position that comes after it, else all of them from the first on."""
        h = self.norm1(x)
        k, v = self.attn1.keys_values(h)
        if past is not None:
            k, v = past.extended(k, v)
        x = x + self.attn1.read(self.attn1.queries(h), k, v, causal=past is None)
        if hasattr(self, "attn2"):
            k, v = condition if isinstance(condition, tuple) else self.attn2.keys_values(condition)
            x = x + self.attn2.read(self.attn2.queries(self.norm2(x)), k, v)
        return x + self.ff(self.norm3(x))


def any_length(device: torch.device) -> AbstractContextManager[Any]:
    """On a GPU attention without cuDNN, which makes a plan for every new length, in the time of several tokens."""
    if device.type == "cpu":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def _chooser(temperature: float, top_k: int | None, top_p: float | None) -> Callable[[Tensor], Tensor]:
    """What temperature, top-p and top-k make of log-probabilities `[..., K]`; raises ValueError for wrong numbers."""
    count = None if top_k is None else guidance.check_top_k(top_k)
    rate = 1.0 if top_p is None else real("top_p", top_p, 0, 1)

    def choose(log_p: Tensor) -> Tensor:
        log_p = log_p if temperature == 1 else (log_p / temperature).log_softmax(-1)
        log_p = guidance.truncate(log_p, rate)
        return log_p if count is None else guidance.top_k(log_p, count)

    return choose


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
