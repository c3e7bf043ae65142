"""Checks of notebook 08, guidance built from nothing: what guided sampling draws, one token after the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import number, whole
from vqlearn.course.checks.check import Check, normalised
from vqlearn.course.outcomes import Case


def in_order(joint: Tensor, num_codes: int) -> list[Tensor]:
    """Of each token its distribution given those before it, `[K]`, `[K, K]`, ...; 0 after an impossible beginning."""
    found = []
    for i in range(1, length_of(joint, num_codes) + 1):
        beginning = joint.view([num_codes] * i + [-1]).sum(-1)
        before = beginning.sum(-1, keepdim=True)
        found.append(torch.where(before > 0, beginning / before, 0.0))
    return found


def length_of(joint: Tensor, num_codes: int) -> int:
    return round(math.log(len(joint), num_codes))


def alone(joint: Tensor, num_codes: int) -> list[Tensor]:
    """Of each token its distribution whatever the others are, `[K]`, `[1, K]`, ..."""
    length = length_of(joint, num_codes)
    every = joint.view([num_codes] * length)
    others = [tuple(j for j in range(length) if j != i) for i in range(length)]
    return [every.sum(other).view([1] * i + [-1]) for i, other in enumerate(others)]


def one_by_one(
    conditional: Tensor,
    unconditional: Tensor,
    scale: float,
    num_codes: int,
    *,
    predictions: Callable[[Tensor, int], list[Tensor]] = in_order,
    scales: Callable[[int, float], float] = lambda i, scale: scale,
) -> Tensor:
    """What guided sampling draws, token after token; the options are mistakes: other predictions, another scale."""
    result = torch.ones((), dtype=conditional.dtype)
    pairs = zip(predictions(conditional, num_codes), predictions(unconditional, num_codes), strict=True)
    for i, (p, null) in enumerate(pairs):
        ratio = torch.where((p > 0) & (null > 0), p / null, 1.0)
        weight = p * ratio ** (scales(i, scale) - 1)
        total = weight.sum(-1, keepdim=True)
        result = result[..., None] * torch.where(total > 0, weight / total, 0.0)
    return result.flatten()


def without_null(conditional: Tensor, unconditional: Tensor, scale: float, num_codes: int) -> Tensor:
    return one_by_one(conditional, torch.ones_like(conditional), scale, num_codes)


def as_probabilities(conditional: Tensor, unconditional: Tensor, scale: float, num_codes: int) -> Tensor:
    result = torch.ones((), dtype=conditional.dtype)
    for p, null in zip(in_order(conditional, num_codes), in_order(unconditional, num_codes), strict=True):
        weight = (null + scale * (p - null)).clamp(min=0)
        result = result[..., None] * weight / weight.sum(-1, keepdim=True).clamp(min=1e-12)
    return result.flatten()


def joint_of(num_codes: int, length: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A distribution over all grids, far from independent tokens."""
    drawn = torch.rand(num_codes**length, dtype=torch.float64, generator=Generator().manual_seed(seed))
    return normalised(drawn**3 + 0.02).to(dtype)


def ruled_out(joint: Tensor, grids: slice) -> Tensor:
    left = joint.clone()
    left[grids] = 0.0
    return normalised(left)


def other_grids(case: Case, generator: Generator) -> Case:
    conditional, _, _, _ = case
    num_codes, seed = whole(generator, 2, 3), whole(generator, 0, 2**31)
    length = whole(generator, 3, 4)
    one, other = (joint_of(num_codes, length, seed + i, conditional.dtype) for i in range(2))
    return ruled_out(one, slice(0, num_codes)), other, number(generator, 1.3, 3.0), num_codes


token_by_token = Check(
    name="token_by_token",
    question="the distribution `[K^L]` that guided sampling draws, one token after the other from the first",
    solution=one_by_one,
    cases=[
        (joint_of(2, 3, 1), joint_of(2, 3, 2), 2.0, 2),
        (ruled_out(joint_of(3, 2, 3), slice(0, 3)), joint_of(3, 2, 4), 3.0, 3),
        (joint_of(2, 4, 5, torch.float32), ruled_out(joint_of(2, 4, 6, torch.float32), slice(14, 16)), 1.5, 2),
        (joint_of(4, 2, 7), joint_of(4, 2, 8), 0.5, 4),
    ],
    mistakes=[
        (
            "that is (8.2) for whole grids: each token's prediction is guided and normalised before the next is drawn",
            lambda p, null, scale, num_codes: normalised(p * torch.where(null > 0, p / null, 1.0) ** (scale - 1)),
        ),
        (
            "each token is drawn given those before it: these are guided distributions of the tokens by themselves",
            lambda *case: one_by_one(*case, predictions=alone),
        ),
        (
            "the two branches are swapped",
            lambda p, null, scale, num_codes: one_by_one(null, p, scale, num_codes),
        ),
        ("the unconditional prediction is missing: that only sharpens the conditional one", without_null),
        (
            "that guides the first token only",
            lambda *case: one_by_one(*case, scales=lambda i, scale: scale if i == 0 else 1.0),
        ),
        (
            "that is the conditional distribution, without guidance",
            lambda p, null, scale, num_codes: p.clone(),
        ),
        (
            "that counts the scale from 0 at the conditional prediction; here 1 means no guidance",
            lambda p, null, scale, num_codes: one_by_one(p, null, scale + 1, num_codes),
        ),
        ("guidance multiplies powers: extrapolate the logs, not the probabilities", as_probabilities),
    ],
    praise="guided and normalised token by token: near to (8.2) for whole grids, and not equal to it.",
    vary=other_grids,
)
