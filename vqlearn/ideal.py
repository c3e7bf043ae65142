"""The ideal denoiser of the toy world: the exact p(x_0 | x_t, caption), which a network can only approach.

A patch-wise codec gives every patch of a scene its own token, so q(x_t | x_0) is a product over the background
and the things. The things' places depend on each other in pairs only (no two touch, relations hold), so the sum
over all scenes that a caption allows, up to hundreds of millions, is a few small matrix products.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vqlearn import scenes
from vqlearn.sampling import Denoiser
from vqlearn.scenes import BACKGROUNDS, COLORS, GRID, RELATIONS, SHAPES, SIDES, SIZE, Claim, Scene, Thing
from vqlearn.schedule import MaskReplaceSchedule

CERTAIN = 40.0  # nats
ROW = SIZE // GRID  # tokens per row
LEAST = torch.finfo(torch.float64).min  # stands for -inf where a difference of two infinities would be NaN


class Places(NamedTuple):
    """The P places of one thing, small ones first, and what a thing at the first of two is to one at the second."""

    cells: tuple[Tensor, ...]  # per size, the tokens that a thing covers, [P of that size, tokens]
    apart: Tensor  # [P, P], float64 0 or 1: at least one patch of background between them
    relation: Tensor  # [P, P], index in RELATIONS, -1 for none


@functools.cache
def places() -> Places:
    """All places of the world."""
    cells, things = [], []
    for size, side in SIDES.items():
        corners = list(itertools.product(range((SIZE - side) // GRID + 1), repeat=2))
        inside = torch.tensor([i * ROW + j for i, j in itertools.product(range(side // GRID), repeat=2)])
        cells.append(torch.tensor([row * ROW + col for row, col in corners])[:, None] + inside)
        things += [Thing(size, "red", "circle", row * GRID, col * GRID) for row, col in corners]
    names = [None, *RELATIONS]
    apart = torch.tensor([[float(scenes.apart(a, b)) for b in things] for a in things], dtype=torch.float64)
    relation = torch.tensor([[names.index(scenes.relation_between(a, b)) - 1 for b in things] for a in things])
    return Places(tuple(cells), apart, relation)


class CodeTable(NamedTuple):
    """The token of every patch of the world under a patch-wise codec."""

    ground: Tensor  # [backgrounds]
    things: tuple[Tensor, ...]  # per size, [shapes, backgrounds, colors, tokens]


def code_table(encode: Callable[[Tensor], Tensor]) -> CodeTable:
    """Ask a codec, `encode(images) -> tokens`, for the token of every patch of the world."""
    tables = []
    for size, side in SIDES.items():
        kinds = list(itertools.product(SHAPES, BACKGROUNDS, COLORS))
        drawn = [scenes.draw(Scene(ground, (Thing(size, color, shape, GRID, GRID),))) for shape, ground, color in kinds]
        tokens = encode(scenes.to_tensor(drawn)).cpu().unflatten(1, (ROW, ROW))
        n = side // GRID
        grid = tokens[:, 1 : 1 + n, 1 : 1 + n].reshape(len(SHAPES), len(BACKGROUNDS), len(COLORS), n * n)
        tables.append(grid)
    empty = [scenes.draw(Scene(ground, ())) for ground in BACKGROUNDS]
    return CodeTable(encode(scenes.to_tensor(empty)).cpu()[:, 0], tuple(tables))


def ideal_denoiser(captions: list[str], table: CodeTable, schedule: MaskReplaceSchedule) -> Denoiser:
    """`denoise(x_t, t) -> log p(x_0 | x_t, caption)`, float64 `[B, L, K]`, one caption per row, `t` an int or `[B]`.

    Exact for scenes as `scenes.sample` draws them before they are parted into train and test, without the unseen
    pairs, except that two things may be of one kind. Raises ValueError for a caption outside the grammar.
    """
    claims = [scenes.parse(caption) for caption in captions]
    return lambda x_t, t: ideal_belief(x_t, t, claims, table, schedule).log()


def ideal_belief(
    x_t: Tensor, t: int | Tensor, claims: list[Claim], table: CodeTable, schedule: MaskReplaceSchedule
) -> Tensor:
    """p(x_0 | x_t, caption), float64 `[B, L, K]`, from Bayes' rule over all scenes that each claim allows."""
    shares = schedule.bar(torch.as_tensor(t).expand(len(x_t)))
    # What one right visible token adds to log q(x_t | x_0). Without replacement it is a proof; CERTAIN is as good, and
    # two things' worth of tokens of it can still be told apart in float64.
    ratio = torch.where(shares.beta > 0, shares.alpha / shares.beta, torch.where(shares.alpha > 0, torch.inf, 0.0))
    gain = torch.log1p(ratio).clamp(max=CERTAIN)[:, None, None]
    said_ground = torch.tensor([[claim.background in (None, name) for name in BACKGROUNDS] for claim in claims])
    on_ground = (x_t[:, None] == table.ground[:, None]) * gain  # [B, G, L]
    fit, codes = _fit(x_t, gain, on_ground, claims, table)  # [B, M, G, P, C]
    by_place = fit.logsumexp(-1)  # [B, M, G, P]
    top = by_place.amax(-1, keepdim=True).clamp(min=LEAST)
    at_place, total = _places_together((by_place - top).exp(), claims)  # [B, M, G, P], [B, G]
    log_ground = on_ground.sum(-1) + total.log() + top[..., 0].masked_fill(top[..., 0] == LEAST, 0.0).sum(1)
    p_ground = log_ground.masked_fill(~said_ground, -torch.inf).softmax(-1)  # [B, G]
    of_color = (fit - by_place[..., None].clamp(min=LEAST)).exp()  # [B, M, G, P, C], what is impossible stays 0
    p_thing = p_ground[:, None, :, None, None] * at_place[..., None] * of_color
    belief = torch.zeros(len(x_t), x_t.shape[1] * schedule.num_codes, dtype=torch.float64)
    covered = torch.zeros_like(on_ground)  # [B, G, L]
    begin = 0
    for cells, code in zip(places().cells, codes, strict=True):
        share = p_thing[:, :, :, begin : begin + len(cells)]  # [B, M, G, P, C]
        begin += len(cells)
        for cell, tokens in zip(cells.T, code.unbind(-1), strict=True):  # [P], [B, M, G, C]
            index = cell[:, None] * schedule.num_codes + tokens[..., None, :]
            belief.scatter_add_(1, index.flatten(1), share.flatten(1))
            covered.index_add_(2, cell, share.sum((1, 4)))
    index = torch.arange(x_t.shape[1]) * schedule.num_codes + table.ground[:, None]  # [G, L]
    bare = (p_ground[..., None] - covered).clamp(min=0)
    belief.index_add_(1, index.flatten(), bare.flatten(1))
    return belief.unflatten(1, (x_t.shape[1], schedule.num_codes))


def _fit(
    x_t: Tensor, gain: Tensor, on_ground: Tensor, claims: list[Claim], table: CodeTable
) -> tuple[Tensor, list[Tensor]]:
    """log q(x_t | a thing there) - log q(x_t | bare ground there), `[B, M, G, P, C]`; and a thing's codes, per size.

    The codes are `[B, M, G, C, n]`. M is the largest number of things; what a claim has not got fits nowhere (`-inf`).
    """
    most = max(len(claim.things) for claim in claims)
    mentions = [[*claim.things, *[None] * (most - len(claim.things))] for claim in claims]
    shape = torch.tensor([[SHAPES.index(thing.shape) if thing else 0 for thing in row] for row in mentions])  # [B, M]
    parts, codes = [], []
    for size, cells, tokens in zip(SIDES, places().cells, table.things, strict=True):
        allowed = torch.tensor([[_colors(thing, size) for thing in row] for row in mentions])  # [B, M, C]
        code = tokens[shape]  # [B, M, G, C, n]
        hits = sum(
            (x_t[:, None, None, cell, None] == token[..., None, :]).double()
            for cell, token in zip(cells.T, code.unbind(-1), strict=True)
        )  # [B, M, G, P, C]
        fit = hits * gain[..., None, None] - on_ground[:, :, cells].sum(-1)[:, None, ..., None]
        parts.append(fit.masked_fill(~allowed[:, :, None, None], -torch.inf))
        codes.append(code)
    return torch.cat(parts, 3), codes


def _colors(thing: scenes.Mention | None, size: str) -> list[bool]:
    """Which colours a thing of this size may have under a caption's words for it; none if there is no such thing."""
    if thing is None or thing.size not in (None, size):
        return [False] * len(COLORS)
    return [thing.color in (None, color) and (color, thing.shape) not in scenes.UNSEEN_PAIRS for color in COLORS]


def _places_together(weight: Tensor, claims: list[Claim]) -> tuple[Tensor, Tensor]:
    """Each thing's law over places given the others `[B, M, G, P]`, and the sum over all placements `[B, G]`."""
    marginal, total = torch.zeros_like(weight), torch.ones_like(weight[:, 0, :, 0])
    alike = defaultdict(list)
    for row, claim in enumerate(claims):
        alike[len(claim.things), bool(claim.relations)].append(row)
    for (count, said), rows in alike.items():
        w = [weight[rows, m] for m in range(count)]  # each [b, G, P]
        sums = [torch.zeros_like(part) for part in w]
        for sign, factors in _factors([claims[row] for row in rows], count, said):
            for m, part in enumerate(_sums(w, factors)):
                sums[m] += sign * part
        total[rows] = sums[0].sum(-1)
        for m, part in enumerate(sums):
            marginal[rows, m] = part / part.sum(-1, keepdim=True)
    return marginal, total


def _factors(claims: list[Claim], count: int, said: bool) -> list[tuple[float, list[Tensor]]]:
    """How the first thing's place weighs with each other one's, as a signed sum of products of `[b, 1, P, P]`.

    A scene's relations are left unsaid if one is missing, and else with probability 1 - RELATION_SHARE.
    """
    apart, relation = places().apart, places().relation
    if count == 1:
        return [(1.0, [])]
    if not said:
        linked = (relation >= 0) * apart
        return [(1.0, [apart] * (count - 1)), (-scenes.RELATION_SHARE, [linked] * (count - 1))]
    names, factors = list(RELATIONS), []
    for other in range(1, count):
        stated = [next((names.index(name) for _, name, j in claim.relations if j == other), None) for claim in claims]
        holds = [torch.ones_like(apart) if which is None else relation == which for which in stated]
        factors.append((torch.stack(holds) * apart)[:, None])
    return [(1.0, factors)]


def _sums(w: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
    """For each thing and place, the weight of all placements with it there: `[b, G, P]` each."""
    if len(w) == 1:
        return w
    first = w[0][..., None] * factors[0] * w[1][..., None, :]  # [b, G, P_0, P_1]
    if len(w) == 2:
        return [first.sum(-1), first.sum(-2)]
    second = factors[1] * w[2][..., None, :]  # [b, G, P_0, P_2]
    apart = places().apart
    both = (first @ apart) * second  # P_1 summed out
    return [both.sum(-1), (first * (second @ apart)).sum(-2), both.sum(-2)]
