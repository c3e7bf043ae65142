"""Checks of notebook 08, guidance and truncation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vqlearn.course.checks.judge import judge, share, then


def guided(attempt: Callable) -> None:
    """Check `attempt(log_p, log_p_null, scale)`: the guided belief `[K]`, normalised, in logs."""

    def right(log_p, log_p_null, scale):
        return (log_p_null + scale * (log_p - log_p_null)).log_softmax(-1)

    def unnormalised(log_p, log_p_null, scale):
        return log_p_null + scale * (log_p - log_p_null)

    def in_probabilities(log_p, log_p_null, scale):
        p, null = log_p.softmax(-1), log_p_null.softmax(-1)
        return (null + scale * (p - null)).clamp(min=0).log()

    def one_more(log_p, log_p_null, scale):
        return right(log_p, log_p_null, scale + 1)

    mistakes: list[tuple[str, Callable]] = [
        ("the sum of the logs is not normalised: subtract its logsumexp (log_softmax)", unnormalised),
        ("normalising the inputs is not enough: a product of powers has another sum", _inputs_normalised),
        (
            "the two branches are swapped: one starts at the null belief and goes towards the told one",
            lambda log_p, log_p_null, scale: right(log_p_null, log_p, scale),
        ),
        (
            "that starts at the told belief, so a scale of 1 already goes beyond it; here 1 means no guidance",
            one_more,
        ),
        ("guidance multiplies powers: extrapolate the logs, not the probabilities", in_probabilities),
        (
            "the difference to the null belief is missing: that only sharpens the told one",
            lambda log_p, log_p_null, scale: (scale * log_p).log_softmax(-1),
        ),
        ("that is the guided belief as probabilities; the answer is asked for in logs", then(right, torch.exp)),
    ]
    told, null = torch.tensor([[0.6, 0.2, 0.15, 0.05], [0.3, 0.4, 0.1, 0.2]], dtype=torch.float64).log()
    cases = [(told + 2.0, null - 1.0, scale) for scale in (0.5, 3.0)] + [(null, told, 2.0)]
    judge(attempt, cases, right, mistakes, "Right: a straight line in logs, then one normalisation.")


def _inputs_normalised(log_p, log_p_null, scale):
    log_p, log_p_null = log_p.log_softmax(-1), log_p_null.log_softmax(-1)
    return log_p_null + scale * (log_p - log_p_null)


def truncated(attempt: Callable) -> None:
    """Check `attempt(p, rate)`: the belief `[K]` with the classes that top-r truncation drops set to 0."""

    def kept(p, before_or_with, keep_first=True):
        ordered, order = p.sort(descending=True, stable=True)
        chosen = before_or_with(ordered)
        if keep_first:
            chosen[0] = True
        return torch.zeros_like(p).scatter(0, order, ordered * chosen)

    def right(p, rate):
        return kept(p, lambda ordered: ordered.cumsum(0) - ordered < rate - 1e-12)

    def with_own(p, rate):
        return kept(p, lambda ordered: ordered.cumsum(0) < rate - 1e-12)

    def with_own_or_equal(p, rate):
        return kept(p, lambda ordered: ordered.cumsum(0) <= rate + 1e-12)

    def no_first(p, rate):
        return kept(p, lambda ordered: ordered.cumsum(0) - ordered < rate - 1e-12, keep_first=False)

    def no_first_with_own(p, rate):
        return kept(p, lambda ordered: ordered.cumsum(0) < rate - 1e-12, keep_first=False)

    def no_first_with_own_or_equal(p, rate):
        return kept(p, lambda ordered: ordered.cumsum(0) <= rate + 1e-12, keep_first=False)

    def unsorted(p, rate):
        return p * ((p.cumsum(0) - p < rate - 1e-12) | (p == p.max()))

    def stays_sorted(p, rate):
        return right(p, rate).sort(descending=True)[0]

    def threshold(p, rate):
        return p * (p >= 1 - rate)

    crossing = "the class that crosses the rate is kept: what counts is the mass before it, without its own"
    mistakes: list[tuple[str, Callable]] = [
        (crossing, with_own),
        (crossing, with_own_or_equal),
        (crossing + "; and the most likely class is always kept", no_first_with_own),
        (crossing + "; and the most likely class is always kept", no_first_with_own_or_equal),
        ("the most likely class is always kept, at a rate of 0 too: something has to be drawn", no_first),
        ("the mass before a class is that of the likelier ones: sort first", unsorted),
        ("the answer is sorted: put each class back in its place", stays_sorted),
        ("you renormalised when you should not: published truncation keeps the mass as it is", then(right, share)),
        ("a fixed threshold for single classes is another rule: here their sum, from the top, counts", threshold),
        (
            "those are the classes that are dropped",
            lambda p, rate: p - right(p, rate),
        ),
    ]
    p = torch.tensor([0.1, 0.45, 0.15, 0.3], dtype=torch.float64)
    flat = torch.tensor([0.22, 0.2, 0.26, 0.32], dtype=torch.float64)
    cases = [(q, rate) for q in (p, flat) for rate in (0.5, 0.8, 0.0, 0.3)]
    judge(attempt, cases, right, mistakes, "Right: the first, and all with less than the rate before them.")


def rows_asked(attempt: Callable) -> None:
    """Check `attempt(times, scale, low, high, pictures)`: rows that the network is given in a walk."""

    def right(times, scale, low, high, pictures, *, at=slice(0, -1), guided=None, outside=1):
        guided = guided or (lambda t: low <= t <= high and scale not in (0, 1))
        return float(sum(pictures * (2 if guided(t) else outside) for t in times[at]))

    def strict(times, scale, low, high, pictures):
        return right(times, scale, low, high, pictures, guided=lambda t: low < t < high)

    mistakes: list[tuple[str, Callable]] = [
        (
            "the last time is 0, where the walk ends and the network is not asked",
            lambda *case: right(*case, at=slice(None)),
        ),
        (
            "the network is asked at t, where a step begins, not at s, where it ends",
            lambda *case: right(*case, at=slice(1, None)),
        ),
        ("outside of the interval one branch is enough", lambda *case: right(*case, outside=2)),
        ("outside of the interval the told branch is still asked", lambda *case: right(*case, outside=0)),
        (
            "that counts the batch twice at every time, and the rows of one branch are missing inside",
            lambda *case: right(*case, outside=1, guided=lambda t: False),
        ),
        (
            "a scale of 0 or 1 asks for one branch inside the interval too",
            lambda times, scale, low, high, pictures: right(
                times, scale, low, high, pictures, guided=lambda t: low <= t <= high
            ),
        ),
        ("both ends belong to the interval", strict),
        ("that counts calls; each of them has a row per picture", lambda *case: right(*case) / case[-1]),
    ]
    even, uneven = [100, 80, 60, 40, 20, 0], [100, 95, 90, 70, 30, 10, 0]
    cases = [(even, 3.0, 40, 80, 4), (uneven, 2.0, 0, 30, 3), (uneven, 1.0, 30, 100, 2), (even, 5.0, 0, 100, 1)]
    judge(attempt, cases, right, mistakes, "Right: two rows per picture where the scale bites, one elsewhere.")


def guided_law(attempt: Callable) -> None:
    """Check `attempt(told, null, scale)`: the guided law over whole grids `[N]`, for laws that may hold zeros."""

    def right(told, null, scale):
        return share(unnormalised(told, null, scale))

    def unnormalised(told, null, scale):
        inside = told > 0
        return torch.where(inside, told**scale * torch.where(inside, null, 1.0) ** (1 - scale), 0.0)

    def not_a_number(told, null, scale):
        return share(told**scale * null ** (1 - scale))

    mistakes: list[tuple[str, Callable]] = [
        ("it does not sum to 1: divide by the sum, the constant Z", unnormalised),
        ("0 to the power 1 - scale is infinite, and times 0 it is nan: a grid that the text rules out stays at 0",
         not_a_number),
        ("the two laws are swapped", lambda told, null, scale: share(null**scale * told ** (1 - scale))),
        ("the difference to the null law is missing: that only sharpens the told one",
         lambda told, null, scale: share(told**scale)),
        ("the power of the null law is 1 - scale, so that scale 0 leaves it alone: it must not be -scale",
         lambda told, null, scale: share((told / null.clamp(min=1e-300)) ** scale)),
        ("powers multiply laws: extrapolating the probabilities themselves is another thing, and goes below 0",
         lambda told, null, scale: share((null + scale * (told - null)).clamp(min=0))),
    ]  # fmt: skip
    told = torch.tensor([0.0, 0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
    null = torch.tensor([0.2, 0.2, 0.35, 0.25, 0.0], dtype=torch.float64)
    full = torch.tensor([0.1, 0.2, 0.3, 0.3, 0.1], dtype=torch.float64)
    cases = [(told, null, 3.0), (told, null, 1.5), (full, share(full**0.5), 2.0)]
    judge(attempt, cases, right, mistakes, "Right: powers of whole grids, and one sum over all of them.")
