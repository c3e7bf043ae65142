"""Checks of notebook 13, discrete diffusion since."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import at_other_speed, number, whole
from vqlearn.course.checks.check import Check, at_times, then
from vqlearn.course.outcomes import Case
from vqlearn.schedule import MaskReplaceSchedule

STEP = "those are the shares of one step, t - 1 to t, for the jump from s to t"


def masks_alone() -> tuple[MaskReplaceSchedule, MaskReplaceSchedule]:
    """A straight line and a cosine, with different K and T."""
    time = torch.linspace(0, 1, 11, dtype=torch.float64)
    kept = torch.cos(torch.linspace(0, torch.pi / 2, 17, dtype=torch.float64))
    return MaskReplaceSchedule(1 - time, time, num_codes=4), MaskReplaceSchedule(kept, 1 - kept, num_codes=7)


def weighted_cross_entropy(p_right: Tensor, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    kept_s, kept_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
    return -(kept_s - kept_t) / (1 - kept_t) * p_right.log()


def divided_by_visible(p_right: Tensor, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    kept_s, kept_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
    return -(kept_s - kept_t) / kept_s * p_right.log()


def not_divided(p_right: Tensor, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return -(schedule.alpha_bar[s] - schedule.alpha_bar[t]) * p_right.log()


def still_masked(p_right: Tensor, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return -(1 - schedule.alpha_bar[s]) / (1 - schedule.alpha_bar[t]) * p_right.log()


def other_chance(case: Case, generator: Generator) -> Case:
    chance, _, _, schedule = at_other_speed(case, generator)
    s = whole(generator, 1, schedule.num_steps - 4)
    return chance * number(generator, 0.4, 1.1), s, s + whole(generator, 2, 4), schedule


masked_term = Check(
    name="masked_term",
    question="the bound's term of a masked token under masks alone, in nats",
    solution=weighted_cross_entropy,
    cases=[
        (torch.tensor(p).double(), s, t, schedule)
        for schedule in masks_alone()
        for p, s, t in ((0.9, 3, 7), (0.2, 4, 5), (0.5, 1, 9))
    ],
    mistakes=[
        (
            "that is the cross-entropy without its weight, the chance of being uncovered in this jump",
            lambda p_right, s, t, schedule: -p_right.log(),
        ),
        ("the token is masked at t: divide by 1 - alpha_bar_t, not by alpha_bar_s", divided_by_visible),
        ("given that it is masked at t: divide by 1 - alpha_bar_t", not_divided),
        ("that weight is the chance of staying masked; only an uncovered token costs anything", still_masked),
        (
            "a cost is not negative: the logarithm of a probability needs a minus",
            then(weighted_cross_entropy, lambda value: -value),
        ),
        (
            "in nats, not in bits: the natural logarithm",
            then(weighted_cross_entropy, lambda value: value / math.log(2)),
        ),
        (STEP, at_times(weighted_cross_entropy, lambda s, t: (t - 1, t))),
    ],
    praise="the loss of MDLM, before the limit.",
    vary=other_chance,
)


def uncovered(sigma: float, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    kept_s, kept_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
    return (kept_s - (1 - sigma) * kept_t) / (1 - kept_t)


def of_all_tokens(sigma: float, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return uncovered(sigma, s, t, schedule) * (1 - schedule.alpha_bar[t])


def divided_by_masked_at_s(sigma: float, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return of_all_tokens(sigma, s, t, schedule) / (1 - schedule.alpha_bar[s])


uncover_chance = Check(
    name="uncover_chance",
    question="how often to uncover masked tokens if visible ones are remasked",
    solution=uncovered,
    cases=[
        (sigma, s, t, schedule) for schedule in masks_alone() for sigma, s, t in ((0.2, 3, 7), (0.1, 2, 9), (0.3, 5, 7))
    ],
    mistakes=[
        (
            "that is the step without remasking: what was masked again has to be made up for",
            lambda sigma, s, t, schedule: uncovered(0.0, s, t, schedule),
        ),
        (
            "that is the share of all tokens; the question is about the masked ones: divide by 1 - alpha_bar_t",
            of_all_tokens,
        ),
        ("the token is masked at t: divide by 1 - alpha_bar_t, not 1 - alpha_bar_s", divided_by_masked_at_s),
        (
            "sigma is a share of the visible tokens, the answer one of the masked: they are not equally many",
            lambda sigma, s, t, schedule: uncovered(0.0, s, t, schedule) + sigma,
        ),
        (
            "a share 1 - sigma of the visible tokens stays visible",
            lambda sigma, s, t, schedule: uncovered(1 - sigma, s, t, schedule),
        ),
        ("that is the chance of staying masked: take it from 1", then(uncovered, lambda chance: 1 - chance)),
        (STEP, at_times(uncovered, lambda s, t: (t - 1, t))),
    ],
    praise="the step of ReMDM, and of the corrector under masks alone.",
    vary=other_chance,
)


def weight(masked: int, length: int) -> float:
    return math.factorial(masked - 1) * math.factorial(length - masked) / math.factorial(length)


def other_pattern(case: Case, generator: Generator) -> Case:
    length = whole(generator, 3, 9)
    return whole(generator, 1, length), length


pattern_weight = Check(
    name="pattern_weight",
    question="the weight of a pattern's cross-entropy in the limit of many steps",
    solution=weight,
    cases=[(1, 3), (2, 3), (2, 5), (4, 6)],
    mistakes=[
        (
            "that is 1 / masked, the weight of all patterns with as many masks together: share it among them",
            lambda masked, length: 1 / masked,
        ),
        (
            "the weight 1/gamma_bar of the integral is missing: the power of gamma_bar is masked - 1, not masked",
            lambda masked, length: weight(masked + 1, length + 1),
        ),
        (
            "that is a pattern among those with as many masks; one of its tokens comes next: divide by their number",
            lambda masked, length: 1 / math.comb(length, masked),
        ),
        ("every order is equally likely, but not every pattern", lambda masked, length: 2.0**-length),
        ("that weights all orders with one term each: count them", lambda masked, length: 1 / math.factorial(length)),
        (
            "visible and masked tokens are swapped",
            lambda masked, length: weight(length - masked, length) if masked < length else 0.0,
        ),
        (
            "divide by the number of all orders",
            lambda masked, length: weight(masked, length) * math.factorial(length),
        ),
    ],
    praise="every order of the tokens counts once.",
    vary=other_pattern,
)
