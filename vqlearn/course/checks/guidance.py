"""Checks of notebook 08, guidance and truncation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import number, redistributed, redrawn, whole
from vqlearn.course.checks.check import Check, normalised, then
from vqlearn.course.outcomes import Case, Function


def unnormalised(log_p: Tensor, log_p_null: Tensor, scale: float) -> Tensor:
    return log_p_null + scale * (log_p - log_p_null)


def extrapolated(log_p: Tensor, log_p_null: Tensor, scale: float) -> Tensor:
    return unnormalised(log_p, log_p_null, scale).log_softmax(-1)


def inputs_normalised(log_p: Tensor, log_p_null: Tensor, scale: float) -> Tensor:
    return unnormalised(log_p.log_softmax(-1), log_p_null.log_softmax(-1), scale)


def in_probabilities(log_p: Tensor, log_p_null: Tensor, scale: float) -> Tensor:
    p, null = log_p.softmax(-1), log_p_null.softmax(-1)
    return (null + scale * (p - null)).clamp(min=0).log()


TEXT, NULL = torch.tensor([[0.6, 0.2, 0.15, 0.05], [0.3, 0.4, 0.1, 0.2]], dtype=torch.float64).log()


def other_branches(case: Case, generator: Generator) -> Case:
    codes = torch.zeros(whole(generator, 3, 9), dtype=case[0].dtype)
    branches = (6 * redrawn(codes, generator).to(codes) for _ in range(2))
    return *branches, number(generator, 1.3, 4.0)


def logits(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


guided = Check(
    name="guided",
    question="the guided prediction `[K]`, normalised, in logs",
    solution=extrapolated,
    cases=[
        (TEXT + 2.0, NULL - 1.0, 0.5),
        (TEXT + 2.0, NULL - 1.0, 3.0),
        (NULL, TEXT, 2.0),
        (logits(1.0, 0.5, -1.0, 2.0, 0.0, 0.3), logits(0.0, 1.0, 2.0, 1.0, -1.0, 0.5), 1.5),
    ],
    mistakes=[
        ("the sum of the logs is not normalised: subtract its logsumexp (log_softmax)", unnormalised),
        ("normalising the inputs is not enough: a product of powers has another sum", inputs_normalised),
        (
            "the two branches are swapped: one starts at the unconditional prediction and goes towards the conditional",
            lambda log_p, log_p_null, scale: extrapolated(log_p_null, log_p, scale),
        ),
        (
            "that starts at the conditional prediction and goes beyond it at a scale of 1; here 1 means no guidance",
            lambda log_p, log_p_null, scale: extrapolated(log_p, log_p_null, scale + 1),
        ),
        ("guidance multiplies powers: extrapolate the logs, not the probabilities", in_probabilities),
        (
            "the difference to the unconditional prediction is missing: that only sharpens the conditional one",
            lambda log_p, log_p_null, scale: (scale * log_p).log_softmax(-1),
        ),
        (
            "that is the guided prediction as probabilities; the answer is asked for in logs",
            then(extrapolated, torch.exp),
        ),
    ],
    praise="a straight line in logs, then one normalisation.",
    vary=other_branches,
)

ROUNDING = 1e-12  # of a cumulative sum


def mass_before(p: Tensor, rate: float) -> Tensor:
    return p.cumsum(0) - p < rate - ROUNDING


def mass_with_own(p: Tensor, rate: float) -> Tensor:
    return p.cumsum(0) < rate - ROUNDING


def mass_with_own_or_equal(p: Tensor, rate: float) -> Tensor:
    return p.cumsum(0) <= rate + ROUNDING


def keeping(rule: Callable[[Tensor, float], Tensor], *, keep_first: bool = True) -> Function:
    """Keep what a rule allows of the classes in falling order, the most likely one in any case."""

    def kept(p: Tensor, rate: float) -> Tensor:
        ordered, order = p.sort(descending=True, stable=True)
        chosen = rule(ordered, rate)
        if keep_first:
            chosen[0] = True
        return torch.zeros_like(p).scatter(0, order, ordered * chosen)

    return kept


def top_r(p: Tensor, rate: float) -> Tensor:
    answer: Tensor = keeping(mass_before)(p, rate)
    return answer


CROSSING = "the class that crosses the rate is kept: what counts is the mass before it, without its own"
ALWAYS = CROSSING + "; and the most likely class is always kept"
PREDICTIONS = (
    torch.tensor([0.1, 0.45, 0.15, 0.3], dtype=torch.float64),
    torch.tensor([0.22, 0.2, 0.26, 0.32], dtype=torch.float64),
    torch.tensor([0.08, 0.3, 0.05, 0.17, 0.22, 0.18], dtype=torch.float32),
)


def other_prediction(case: Case, generator: Generator) -> Case:
    """Another prediction, and a rate that lies in the middle between two sums, where no rounding decides."""
    p, rate = case
    codes = whole(generator, 4, 8)
    steps = torch.arange(1, codes + 1, dtype=torch.float64) + 0.5 * redrawn(torch.zeros(codes), generator)
    p = normalised(steps[torch.randperm(codes, generator=generator)]).to(p.dtype)
    ordered = p.double().sort(descending=True)[0]
    at = whole(generator, 0, codes - 2)
    return p, 0.0 if rate == 0 else float(ordered.cumsum(0)[at] - ordered[at] / 2)


truncated = Check(
    name="truncated",
    question="the prediction `[K]` with the classes that top-r truncation drops set to 0",
    solution=top_r,
    cases=[(p, rate) for p in PREDICTIONS for rate in (0.5, 0.82, 0.0, 0.33)],
    mistakes=[
        (CROSSING, keeping(mass_with_own)),
        (CROSSING, keeping(mass_with_own_or_equal)),
        (ALWAYS, keeping(mass_with_own, keep_first=False)),
        (ALWAYS, keeping(mass_with_own_or_equal, keep_first=False)),
        (
            "the most likely class is always kept, at a rate of 0 too: something has to be drawn",
            keeping(mass_before, keep_first=False),
        ),
        (
            "the mass before a class is that of the likelier ones: sort first",
            lambda p, rate: p * (mass_before(p, rate) | (p == p.max())),
        ),
        (
            "the answer is sorted: put each class back where it was",
            then(top_r, lambda p: p.sort(descending=True)[0]),
        ),
        (
            "you renormalised when you should not: published truncation keeps the mass as it is",
            then(top_r, normalised),
        ),
        (
            "a fixed threshold for single classes is another rule: here their sum, from the top, counts",
            lambda p, rate: p * (p >= 1 - rate),
        ),
        ("those are the classes that are dropped", lambda p, rate: p - top_r(p, rate)),
    ],
    praise="the first, and all with less than the rate before them.",
    vary=other_prediction,
)


def rows(
    times: list[int],
    scale: float,
    low: int,
    high: int,
    pictures: int,
    *,
    at: slice = slice(0, -1),
    branches: tuple[int, int] = (2, 1),
    guided: Callable[[int], bool] | None = None,
) -> float:
    """Rows of all network evaluations; the options are mistakes: other times, branches inside and outside, a rule."""

    def inside(t: int) -> bool:
        return low <= t <= high and scale not in (0, 1) if guided is None else guided(t)

    return float(sum(pictures * branches[0 if inside(t) else 1] for t in times[at]))


def strictly_inside(times: list[int], scale: float, low: int, high: int, pictures: int) -> float:
    return rows(times, scale, low, high, pictures, guided=lambda t: low < t < high)


def whatever_the_scale(times: list[int], scale: float, low: int, high: int, pictures: int) -> float:
    return rows(times, scale, low, high, pictures, guided=lambda t: low <= t <= high)


EVEN, UNEVEN = [100, 80, 60, 40, 20, 0], [100, 95, 90, 70, 30, 10, 0]


def unless_one(times: list[int], scale: float, low: int, high: int, pictures: int) -> float:
    return rows(times, scale, low, high, pictures, guided=lambda t: low <= t <= high and scale != 1)


def other_interval(case: Case, generator: Generator) -> Case:
    """Other times down from T, and an interval that begins at one of them and ends at another."""
    _, scale, _, _, _ = case
    times = sorted({whole(generator, 1, 80) for _ in range(whole(generator, 4, 9))} | {81, 100}, reverse=True)
    low, high = times[-1 - whole(generator, 0, 1)], times[whole(generator, 0, 2)]
    return [*times, 0], scale, min(low, high), max(low, high), whole(generator, 2, 20)


rows_asked = Check(
    name="rows_asked",
    question="the rows that the network evaluates over a whole trajectory",
    solution=rows,
    cases=[
        (EVEN, 3.0, 40, 80, 4),
        (UNEVEN, 2.0, 0, 30, 3),
        (UNEVEN, 1.0, 30, 100, 2),
        (EVEN, 5.0, 0, 100, 1),
        (UNEVEN, 0.0, 20, 90, 5),
    ],
    mistakes=[
        (
            "the last time is 0, where sampling ends and the network is not evaluated",
            lambda *case: rows(*case, at=slice(None)),
        ),
        (
            "the network is evaluated at t, where a step begins, not at s, where it ends",
            lambda *case: rows(*case, at=slice(1, None)),
        ),
        ("outside of the interval one branch is enough", lambda *case: rows(*case, branches=(2, 2))),
        (
            "outside of the interval the conditional branch is still evaluated",
            lambda *case: rows(*case, branches=(2, 0)),
        ),
        (
            "inside of the interval there are two branches, two rows per picture",
            lambda *case: rows(*case, branches=(1, 1)),
        ),
        ("a scale of 0 or 1 needs only one branch inside the interval too", whatever_the_scale),
        ("a scale of 0 is the unconditional prediction alone: it needs one branch, as a scale of 1 does", unless_one),
        ("both ends belong to the interval", strictly_inside),
        (
            "that counts network evaluations; each of them has a row per picture",
            lambda *case: rows(*case) / case[-1],
        ),
    ],
    praise="two rows per picture where guidance changes anything, one elsewhere.",
    vary=other_interval,
)


def powers(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    inside = conditional > 0
    return torch.where(inside, conditional**scale * torch.where(inside, unconditional, 1.0) ** (1 - scale), 0.0)


def guided_joint(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    return normalised(powers(conditional, unconditional, scale))


CONDITIONAL = torch.tensor([0.0, 0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
UNCONDITIONAL = torch.tensor([0.2, 0.2, 0.35, 0.25, 0.0], dtype=torch.float64)
FULL = torch.tensor([0.1, 0.2, 0.3, 0.3, 0.1], dtype=torch.float64)


def other_joints(case: Case, generator: Generator) -> Case:
    """As many zeros, among another number of grids."""
    extra = whole(generator, 1, 5)
    more = (torch.cat([p, redrawn(torch.zeros(extra), generator).to(p) / 4 + 0.1]) for p in case[:2])
    conditional, unconditional = (redistributed(normalised(p), generator) for p in more)
    return conditional, unconditional, number(generator, 1.2, 3.0)


guided_law = Check(
    name="guided_law",
    question="the guided distribution over whole grids `[N]`, for distributions that may hold zeros",
    solution=guided_joint,
    cases=[
        (CONDITIONAL, UNCONDITIONAL, 3.0),
        (CONDITIONAL, UNCONDITIONAL, 1.5),
        (FULL, normalised(FULL**0.5), 2.0),
        (normalised(torch.arange(8.0)), normalised(torch.arange(9.0, 1.0, -1.0)), 2.5),
    ],
    mistakes=[
        ("it does not sum to 1: divide by the sum, the constant Z", powers),
        (
            "0 to the power 1 - scale is infinite, and times 0 it is nan: a grid that the text rules out stays at 0",
            lambda p, null, scale: normalised(p**scale * null ** (1 - scale)),
        ),
        (
            "the two distributions are swapped",
            lambda p, null, scale: normalised(null**scale * p ** (1 - scale)),
        ),
        (
            "the unconditional distribution is missing: that only sharpens the conditional one",
            lambda p, null, scale: normalised(p**scale),
        ),
        (
            "the power of the unconditional distribution is 1 - scale, so that scale 0 leaves it alone: it must not be "
            "-scale",
            lambda p, null, scale: normalised(torch.where(p > 0, p / null, 0.0) ** scale),
        ),
        (
            "powers multiply distributions: extrapolating the probabilities themselves is something else, and goes "
            "below 0",
            lambda p, null, scale: normalised((null + scale * (p - null)).clamp(min=0)),
        ),
    ],
    praise="powers of whole grids, and one sum over all of them.",
    vary=other_joints,
)
