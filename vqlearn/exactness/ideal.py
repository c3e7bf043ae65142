"""The ideal denoiser of the toy world: the exact q(x_0 | x_t, caption), which a network can only approach.

A patch-wise codec gives every patch of a scene its own token, so q(x_t | x_0) is a product over the background
and the objects. Given their colours, the objects' positions depend on each other in pairs only (no two touch, relations
hold, a held-out pair does not occur), so the sum over all scenes that a caption allows, up to hundreds of millions, is
a few small matrix products. A colour that the caption leaves unsaid makes one *case* for each colour it may be.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vqlearn.data import scenes
from vqlearn.data.layouts import (
    ROW,
    SPAN,
    Claims,
    CodeTable,
    claims_of,
    code_table,
    held_out_pairs,
    mention_index,
    relation_index,
)
from vqlearn.data.scenes import COLORS, RELATIONS, SAID, SHAPES, SIDES
from vqlearn.draws import widest
from vqlearn.reverse import Denoiser
from vqlearn.schedule import MaskReplaceSchedule

__all__ = ["CodeTable", "code_table", "ideal_denoiser", "ideal_prediction", "positions"]

CERTAIN = 40.0  # nats
AT_ONCE = 2**24  # numbers in the largest temporary
PAIRS = {1: [], 2: [(0, 1)], 3: [(0, 1), (0, 2), (1, 2)]}

Term = list[Tensor]  # for each pair of objects how much it weighs, [N, 2, 5, 2] by size, relation and size


class Positions(NamedTuple):
    """The P positions of one object, small ones first, and the relation of an object at one to an object at another."""

    size: Tensor  # [P], index in SIDES
    cells: tuple[Tensor, ...]  # per size, the tokens that an object covers, [P of that size, tokens]
    covers: Tensor  # [P, L], the same as float64 0 or 1
    log_weight: Tensor  # [P], log of a position's probability, up to a constant: both sizes are equally likely
    apart: Tensor  # [P, P], float64 0 or 1: at least one patch of background between them
    pair: Tensor  # [P, P], the entry of a pair in a `Term`

    def to(self, device: torch.device | str) -> Positions:
        size, cells, *rest = self
        return Positions(size.to(device), tuple(c.to(device) for c in cells), *(part.to(device) for part in rest))


@functools.cache
def positions() -> Positions:
    """All positions of the world."""
    sides = [scenes.positions_per_side(size) for size in SIDES]
    corners = [(size, *at) for size, side in enumerate(sides) for at in itertools.product(range(side), repeat=2)]
    size, row, col = torch.tensor(corners).unbind(1)
    span = torch.tensor(SPAN)[size]
    cells = []
    for which, n in enumerate(SPAN):
        inside = torch.tensor([i * ROW + j for i, j in itertools.product(range(n), repeat=2)])
        cells.append((row * ROW + col)[size == which, None] + inside)
    covers = torch.cat([torch.zeros(len(c), ROW**2, dtype=torch.float64).scatter_(1, c, 1.0) for c in cells])
    gaps = [torch.maximum(at[:, None] - (at + span), at - (at + span)[:, None]) for at in (row, col)]
    relation = relation_index(size[:, None], row[:, None], col[:, None], size, row, col)
    pair = (size[:, None] * (1 + len(RELATIONS)) + relation) * len(SIDES) + size
    log_weight = -2 * torch.tensor(sides).double().log()[size]
    return Positions(size, tuple(cells), covers, log_weight, (torch.maximum(*gaps) >= 1).double(), pair)


def ideal_denoiser(
    captions: list[str], table: CodeTable, schedule: MaskReplaceSchedule, *, split: str | None = None
) -> Denoiser:
    """`denoise(x_t, t) -> log q(x_0 | x_t, caption)`, float64 `[B, L, K]`, one caption per row, `t` an int or `[B]`.

    Exact for the scenes of a split as `scenes.sample` draws them, "train" or "test", or, where it is None, for both
    together (all scenes without an unseen colour-shape pair). Raises ValueError for a caption outside the grammar and
    for one that no scene of the split fulfils.
    """
    claims = claims_of([scenes.parse(caption) for caption in captions])

    @functools.cache
    def asked(device: torch.device) -> _Asked:
        return _ask(claims.to(device), table, split)

    def denoise(x_t: Tensor, t: int | Tensor) -> Tensor:
        here = _with_float64(x_t.device)
        p = _predict(x_t.to(here), t, asked(here), schedule, torch.float64)
        none = p == 0  # whose logarithm takes some processors ten times as long
        log_p = p.masked_fill_(none, 1).log_().masked_fill_(none, -torch.inf)
        return log_p.to(widest(x_t.device)).to(x_t.device)

    return denoise


def ideal_prediction(
    x_t: Tensor,
    t: int | Tensor,
    claims: Claims,
    table: CodeTable,
    schedule: MaskReplaceSchedule,
    *,
    split: str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """q(x_0 | x_t, caption), `[B, L, K]`, by Bayes' rule over all scenes of the split that each claim allows.

    Works on the device of `x_t` and `claims`, in float64 whatever `dtype` the result is given in; for a device without
    float64 on the CPU. Raises ValueError as `ideal_denoiser` does.
    """
    here = _with_float64(x_t.device)
    dtype = widest(x_t.device) if dtype == torch.float64 else dtype
    return _predict(x_t.to(here), t, _ask(claims.to(here), table, split), schedule, dtype).to(x_t.device)


def _with_float64(device: torch.device) -> torch.device:
    """The device itself, or the CPU if it has no float64."""
    return device if widest(device) == torch.float64 else torch.device("cpu")


def _predict(x_t: Tensor, t: int | Tensor, asked: _Asked, schedule: MaskReplaceSchedule, dtype: torch.dtype) -> Tensor:
    claims, table, split, groups = asked
    evidence = _Evidence(x_t, t, claims, table, schedule)
    found = [(group, *_weigh(group, evidence)) for group in groups]
    top = torch.full((len(x_t),), -torch.inf, dtype=torch.float64, device=x_t.device)
    for group, log_total, _ in found:
        top.scatter_reduce_(0, group.row, log_total.amax(1), "amax")
    if bool((top == -torch.inf).any()):
        row = int((top == -torch.inf).nonzero()[0])
        raise ValueError(f"caption {row} is one that no scene of {'the world' if split is None else split!r} fulfils")
    weights = [(log_total - top[group.row, None]).exp() for group, log_total, _ in found]  # each [N, G]
    total = torch.zeros_like(top)
    for (group, _, _), weight in zip(found, weights, strict=True):
        total.index_add_(0, group.row, weight.sum(1))
    out = _Tokens(evidence, schedule.num_codes, dtype)
    for (group, _, at_position), weight in zip(found, weights, strict=True):
        out.add(group, weight / total[group.row, None], at_position)
    return out.prediction()


class _Group(NamedTuple):
    """Cases of a kind, and what they say before any x_t is seen."""

    row: Tensor  # [N], of the batch
    size: Tensor  # [N, M], as in `Claims`
    codes: list[list[Tensor]]  # of each object at each size, its tokens on each background, [N, G, tokens]
    terms: list[Term]


class _Asked(NamedTuple):
    """What a batch of captions leaves open, on one device."""

    claims: Claims
    table: CodeTable
    split: str | None
    groups: list[_Group]


def _ask(claims: Claims, table: CodeTable, split: str | None) -> _Asked:
    """All that can be found before x_t is seen. Raises ValueError for a split that there is not."""
    if split not in (None, "train", "test"):
        raise ValueError(f"split must be 'train', 'test' or None (both together), got {split!r}")
    table, groups = table.to(claims.objects.device), []
    for cases in _cases(claims):
        count = cases.shape.shape[1]
        codes = [
            [table.objects[size, cases.shape[:, m], :, cases.color[:, m], : n**2] for size, n in enumerate(SPAN)]
            for m in range(count)
        ]
        groups.append(_Group(cases.row, claims.size[cases.row, :count], codes, _terms(cases, split)))
    return _Asked(claims, table, split, groups)


class _Cases(NamedTuple):
    """Captions with all colours filled in, all of as many objects and all with or all without a relation."""

    row: Tensor  # [N], of the batch
    color: Tensor  # [N, M]
    shape: Tensor  # [N, M]
    relation: Tensor | None  # [N, M], what is stated of the first object and each one, as in `Claims`


def _cases(claims: Claims) -> Iterator[_Cases]:
    """Each caption once for each choice of the colours that it leaves unsaid, some of a kind at a time."""
    device = claims.objects.device
    usual = torch.tensor([[(color, shape) not in scenes.UNSEEN_PAIRS for color in COLORS] for shape in SHAPES])
    usual = usual.to(device)
    choices = (~usual).long().argsort(dim=1, stable=True)  # [shapes, colors], those that may be first
    states = (claims.relation > 0).any(1)
    for count, said in itertools.product(PAIRS, (False, True)):
        rows = ((claims.objects == count) & (states == said)).nonzero()[:, 0]
        shape, color = claims.shape[rows, :count], claims.color[rows, :count]
        number = torch.where(color > 0, usual[shape, color - 1].long(), usual.sum(1)[shape])  # [b, M]
        each = number.prod(1)
        at = torch.arange(len(rows), device=device).repeat_interleave(each)
        left = torch.arange(len(at), device=device) - (each.cumsum(0) - each)[at]
        filled = []
        for m in range(count):
            filled.append(torch.where(color[at, m] > 0, color[at, m] - 1, choices[shape[at, m], left % number[at, m]]))
            left = left // number[at, m]
        for some in torch.arange(len(at), device=device).split(max(1, AT_ONCE // (3 * 85**2))):
            k = at[some]
            stated = claims.relation[rows[k], :count] if said else None
            yield _Cases(rows[k], torch.stack(filled, 1)[some], shape[k], stated)


class _Evidence:
    """What x_t and the captions' other words say of what is where."""

    def __init__(self, x_t: Tensor, t: int | Tensor, claims: Claims, table: CodeTable, schedule: MaskReplaceSchedule):
        shares = schedule.bar(torch.as_tensor(t).expand(len(x_t)).cpu())
        # What one right visible token adds to log q(x_t | x_0). Without replacement it is a proof; CERTAIN is as good,
        # and two objects' worth of tokens of it can still be distinguished in float64.
        ratio = torch.where(shares.beta > 0, shares.alpha / shares.beta, torch.where(shares.alpha > 0, torch.inf, 0.0))
        self.gain = torch.log1p(ratio).clamp(max=CERTAIN).to(x_t.device)  # [B]
        self.x_t, self.table, self.positions = x_t, table, positions().to(x_t.device)
        self.on_background = (x_t[:, None] == self.table.backgrounds[:, None]) * self.gain[:, None, None]  # [B, G, L]
        backgrounds = torch.arange(len(self.table.backgrounds), device=x_t.device)
        possible = (claims.background[:, None] == 0) | (claims.background[:, None] == backgrounds + 1)
        self.of_background = self.on_background.sum(-1).masked_fill(~possible, -torch.inf)  # [B, G]

    def of_object(self, group: _Group, m: int) -> Tensor:
        """log of q(x_t | object m there) / q(x_t | bare background there) and of the position's weight, `[N, G, P]`."""
        hits = []
        for code, cells in zip(group.codes[m], self.positions.cells, strict=True):
            seen = self.x_t[:, cells][group.row]  # [N, P of that size, n], code is [N, G, n]
            hits.append((seen[:, None] == code[:, :, None]).sum(-1))
        bare = (self.on_background @ self.positions.covers.T)[group.row]
        said = group.size[:, m, None]  # [N, 1]
        possible = (said == 0) | (said == self.positions.size + 1)  # [N, P]
        fit = torch.cat(hits, -1) * self.gain[group.row, None, None] - bare + self.positions.log_weight
        return fit.masked_fill(~possible[:, None], -torch.inf)


def _weigh(group: _Group, evidence: _Evidence) -> tuple[Tensor, Tensor]:
    """log of the weight of each case and background, `[N, G]`, and p(position | case, background), `[N, M, G, P]`."""
    fits = torch.stack([evidence.of_object(group, m) for m in range(len(group.codes))], 1)  # [N, M, G, P]
    top = fits.amax(-1, keepdim=True)
    weight = (fits - top).exp()
    sums = torch.zeros_like(weight)
    for term in group.terms:
        tables = [(each.flatten(1)[:, evidence.positions.pair] * evidence.positions.apart)[:, None] for each in term]
        sums += torch.stack(_sums(weight.unbind(1), tables), 1)
    total = sums[:, 0].sum(-1)  # [N, G]
    log_total = total.log() + top[..., 0].sum(1) + evidence.of_background[group.row]
    return log_total, sums / torch.where(total > 0, total, 1.0)[:, None, :, None]


def _terms(cases: _Cases, split: str | None) -> list[Term]:
    """How positions weigh together, as a sum of products over pairs of objects; all terms are positive.

    A scene's relations are left unsaid if one is missing, and else with probability 1 - SAID["relation"].
    """
    pairs = PAIRS[cases.shape.shape[1]]
    legal = [_two_kinds(cases, i, j) for i, j in pairs]
    held = [_held_out(cases, i, j) for i, j in pairs]
    if split is None or not pairs:
        terms = [legal]
    elif split == "train":
        terms = [[a * (1 - h) for a, h in zip(legal, held, strict=True)]]
    else:  # the first held-out pair is the first, the second or the third
        factors = [[1 - held[k] if k < first else held[k] for k in range(first + 1)] for first in range(len(pairs))]
        terms = [_times(legal, factor) for factor in factors]
    return [_times(term, links) for term in terms for links in _links(cases)]


def _times(tables: Term, factors: Term) -> Term:
    """Tables times factors, of which there may be fewer: the last pairs have none."""
    return [a * b for a, b in zip(tables, factors, strict=False)] + tables[len(factors) :]


def _kinds(cases: _Cases, i: int, j: int) -> tuple[Tensor, Tensor]:
    """Objects i and j at each size as mentions, to broadcast with a `Term`'s tables."""
    size = torch.arange(1, 1 + len(SIDES), device=cases.row.device)
    a, b = (mention_index(size, 1 + cases.color[:, m, None], cases.shape[:, m, None]) for m in (i, j))  # [N, 2]
    return a[:, :, None, None], b[:, None, None, :]


def _two_kinds(cases: _Cases, i: int, j: int) -> Tensor:
    """1 where objects i and j differ in size, colour or shape, `[N, 2, 5, 2]`."""
    a, b = _kinds(cases, i, j)
    return (a != b).double().expand(-1, -1, 1 + len(RELATIONS), -1)


def _held_out(cases: _Cases, i: int, j: int) -> Tensor:
    """1 where objects i and j are a held-out pair, `[N, 2, 5, 2]`."""
    a, b = _kinds(cases, i, j)
    relation = torch.arange(1 + len(RELATIONS), device=cases.row.device)[:, None]
    return held_out_pairs().to(cases.row.device)[a, relation, b].double()


def _links(cases: _Cases) -> list[Term]:
    """How the relations of the first object to the others weigh, as a sum of products of `[N or 1, 1, 5, 1]`."""
    count, device = cases.shape.shape[1], cases.row.device
    if count == 1:
        return [[]]
    relation = torch.arange(1 + len(RELATIONS), device=device)[:, None]
    if cases.relation is not None:
        return [[(cases.relation[:, m, None, None, None] == relation).double() for m in range(1, count)]]
    none, every = (relation == 0).double()[None, None], torch.ones(1, 1, len(relation), 1, device=device).double()
    unsaid = none + (1 - SAID["relation"]) * (1 - none)
    return [[unsaid]] if count == 2 else [[none, every], [1 - none, unsaid]]


def _sums(w: tuple[Tensor, ...], tables: list[Tensor]) -> list[Tensor]:
    """For each object and position, the weight of all placements with it there: `[N, G, P]` each."""
    if len(w) == 1:
        return list(w)
    first = w[0][..., None] * tables[0] * w[1][..., None, :]  # [N, G, P_0, P_1]
    if len(w) == 2:
        return [first.sum(-1), first.sum(-2)]
    second = tables[1] * w[2][..., None, :]  # [N, G, P_0, P_2]
    both = (first @ tables[2]) * second  # P_1 summed out
    return [both.sum(-1), (first * (second @ tables[2].mT)).sum(-2), both.sum(-2)]


class _Tokens:
    """Collects p(x_0 | x_t) of each token from where the objects are."""

    def __init__(self, evidence: _Evidence, num_codes: int, dtype: torch.dtype):
        self.evidence, self.num_codes = evidence, num_codes
        x_t, backgrounds = evidence.x_t, len(evidence.table.backgrounds)
        self.out = torch.zeros(x_t.numel() * num_codes, dtype=dtype, device=x_t.device)
        self.bare = torch.zeros(len(x_t), backgrounds, x_t.shape[1], dtype=torch.float64, device=x_t.device)

    def add(self, group: _Group, p: Tensor, at_position: Tensor) -> None:
        """Cases with their probabilities `[N, G]`, and those of positions given them `[N, M, G, P]`."""
        length = self.bare.shape[-1]
        share = p[:, None, :, None] * at_position  # [N, M, G, P]
        self.bare.index_add_(0, group.row, p[..., None] - share.sum(1) @ self.evidence.positions.covers)
        begin = 0
        for size, cells in enumerate(self.evidence.positions.cells):
            part = share[..., begin : begin + len(cells), None].expand(-1, -1, -1, -1, cells.shape[1]).to(self.out)
            begin += len(cells)
            for m in range(share.shape[1]):
                code = group.codes[m][size][:, :, None]  # [N, G, 1, n]
                index = (group.row[:, None, None, None] * length + cells) * self.num_codes + code
                self.out.index_add_(0, index.flatten(), part[:, m].flatten())

    def prediction(self) -> Tensor:
        """`[B, L, K]`."""
        batch, backgrounds, length = self.bare.shape
        out = self.out.view(batch, length, self.num_codes)
        code = self.evidence.table.backgrounds[:, None].expand(batch, backgrounds, length).mT  # [B, L, G]
        return out.scatter_add_(-1, code, self.bare.clamp(min=0).mT.to(out))
