"""Which masked positions a sampler writes next, and what: the draw, its exact distribution, and the order of Halton."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vqlearn.arguments import whole
from vqlearn.draws import Generators, draw, uniform, widest

LEAST = -1e30  # below every log-weight, and above that of a visible position
MOST_POSITIONS = 2**20  # of a grid


class Choice(NamedTuple):
    """Where to write, `[B, L]`, and what to draw there from, `[B, L, K]`.

    `log_weight` orders the positions: drawn without replacement in proportion to its exp if `at_random`, else the
    largest first (equal ones by position).
    """

    log_weight: Tensor
    log_p: Tensor
    at_random: bool


def write(choice: Choice, x_t: Tensor, count: Tensor, mask_id: int, generator: Generators = None) -> Tensor:
    """Draw the tokens of `count` `[B]` masked positions, chosen by weight; all pictures at once."""
    masked = x_t == mask_id
    key = choice.log_weight.to(widest(x_t.device))
    if choice.at_random:  # the largest of log-weights plus Gumbel noise are a draw without replacement
        u = uniform(x_t.shape, generator, x_t.device)
        key = key - torch.log(-torch.log1p(-u))
    chosen = _first(key, masked, count)
    return torch.where(chosen, draw(choice.log_p, generator), x_t)


def _first(key: Tensor, masked: Tensor, count: Tensor) -> Tensor:
    """Where the `count` `[B]` largest keys of masked positions are, bool `[B, L]`; of equal ones the first.

    So many are chosen as are masked, whatever the keys are: a key of `-inf` still comes before a visible position.
    """
    key = key.nan_to_num(nan=LEAST, neginf=LEAST).masked_fill(~masked, -torch.inf)
    order = key.sort(dim=-1, descending=True, stable=True)[1]
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(key.shape[1], device=key.device).expand_as(order))
    return masked & (rank < count[:, None])


def written(choice: Choice, x_t: Tensor, count: Tensor, mask_id: int) -> Tensor:
    """The distribution of `write` over all states, `[B, S]`: over which positions, and over their tokens."""
    length, masked = x_t.shape[1], x_t == mask_id
    drawn = F.pad(choice.log_p.softmax(-1), (0, 1))  # [B, L, K + 1]
    kept = F.one_hot(x_t, mask_id + 1).double()
    p = torch.zeros(len(x_t), (mask_id + 1) ** length, dtype=torch.float64)
    for subset, share in _subsets(choice, masked, count):
        if bool((share > 0).any()):
            p += share[:, None] * joint_of(torch.where(subset[:, None], drawn, kept))
    return p


def _subsets(choice: Choice, masked: Tensor, count: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The sets of positions `[L]` that can be chosen, and the probability `[B]` that exactly these are."""
    if not choice.at_random:
        chosen = _first(choice.log_weight.double(), masked, count)
        yield from ((subset, (chosen == subset).all(-1).double()) for subset in torch.unique(chosen, dim=0))
        return
    key = choice.log_weight.double().masked_fill(~masked, -torch.inf)
    weight = (key - key.amax(-1, keepdim=True).clamp(min=-1e300)).exp() * masked  # [B, L]
    total = weight.sum(-1)
    found: dict[tuple[int, ...], Tensor] = {(): torch.ones_like(total)}
    length, asked = masked.shape[1], set(count.tolist())
    for size in range(max(asked) + 1):  # a larger set is not chosen, and not asked for below
        for members in reversed([*itertools.combinations(range(length), size)]):
            if size:
                found[members] = _share(members, found, weight, total)
            if size in asked:
                subset = torch.zeros(length, dtype=torch.bool)
                subset[[*members]] = True
                yield subset, torch.where(count == size, found[members], 0.0)


def _share(members: tuple[int, ...], found: dict[tuple[int, ...], Tensor], weight: Tensor, total: Tensor) -> Tensor:
    """The probability `[B]` that exactly these are drawn: the last of them was one of them, after all the others."""
    share = torch.zeros_like(total)
    for last in members:
        others = tuple(m for m in members if m != last)
        left = total - weight[:, list(others)].sum(-1)
        share = share + found[others] * torch.where(left > 0, weight[:, last] / left.clamp(min=1e-300), 0.0)
    return share


def joint_of(marginals: Tensor) -> Tensor:
    """Independent positions `[B, L, C]` to their joint `[B, C^L]`.

    >>> joint_of(torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]))
    tensor([[0.4500, 0.0500, 0.4500, 0.0500]])
    """
    found = marginals[:, 0]
    for position in range(1, marginals.shape[1]):
        found = (found[:, :, None] * marginals[:, position, None]).flatten(1)
    return found


def halton_order(length: int) -> Tensor:
    """The positions of a square grid in the order in which a Halton sequence (bases 2, 3) first meets them, `[L]`.

    A length that is no square is a single row. Raises ValueError for what is no length.

    >>> halton_order(16)[:6].tolist()
    [6, 9, 3, 4, 14, 1]
    """
    return _met(whole("length", length, 1, MOST_POSITIONS)).clone()  # of what is kept, which stays as it is


@functools.cache
def _met(length: int) -> Tensor:
    side = math.isqrt(length)
    rows, columns = (side, side) if side * side == length else (1, length)
    seen: dict[int, None] = {}
    for number in itertools.count(1):
        row, column = int(_radical_inverse(number, 3) * rows), int(_radical_inverse(number, 2) * columns)
        seen.setdefault(row * columns + column)
        if len(seen) == length:
            break
    return torch.tensor(list(seen))


@functools.cache
def halton_rank(length: int, device: torch.device) -> Tensor:
    """The rank of each position in `halton_order`, `[L]`."""
    return halton_order(length).argsort().to(device, widest(device))


def _radical_inverse(number: int, base: int) -> float:
    """The digits of a number, mirrored at the point: 6 = 110 in base 2 becomes 0.011 = 3/8."""
    value, share = 0.0, 1.0 / base
    while number:
        value += share * (number % base)
        number, share = number // base, share / base
    return value
