"""Checks of notebook 12, the whole method on one page."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import at_other_speed, redrawn
from vqlearn.course.checks.check import Check, small_schedule
from vqlearn.course.outcomes import Case, Function
from vqlearn.schedule import MaskReplaceSchedule


def uncovering(chance: Function) -> Function:
    """A masked token becomes x_0 where u is below the chance, a function of s, t and the schedule."""

    def step(x_0: Tensor, x_t: Tensor, u: Tensor, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
        uncovered = (x_t == schedule.mask_id) & (u < chance(s, t, schedule))
        return torch.where(uncovered, x_0, x_t)

    return step


def exact_chance(s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return 1 - schedule.gamma_bar[s] / schedule.gamma_bar[t]


def step_back(x_0: Tensor, x_t: Tensor, u: Tensor, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    answer: Tensor = uncovering(exact_chance)(x_0, x_t, u, s, t, schedule)
    return answer


def visible_too(x_0: Tensor, x_t: Tensor, u: Tensor, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return torch.where(u < exact_chance(s, t, schedule), x_0, x_t)


def prediction_everywhere(x_0: Tensor, x_t: Tensor, u: Tensor, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return torch.where(x_t == schedule.mask_id, step_back(x_0, x_t, u, s, t, schedule), x_0)


def masked_again(x_0: Tensor, x_t: Tensor, u: Tensor, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return torch.where(u < exact_chance(s, t, schedule), x_0, schedule.mask_id)


def step_cases() -> list[tuple[Tensor, Tensor, Tensor, int, int, MaskReplaceSchedule]]:
    generator, cases = torch.Generator().manual_seed(0), []
    for codes, steps, s, t in ((4, 10, 2, 6), (4, 10, 6, 9), (4, 10, 0, 4), (6, 16, 5, 11)):
        curve = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 2
        schedule = MaskReplaceSchedule(1 - curve, curve, num_codes=codes)
        x_0, x_t = torch.arange(codes).repeat(9), torch.tensor([*range(codes), *[codes] * (9 - codes)]).repeat(codes)
        cases.append((x_0, x_t, torch.rand(len(x_0), dtype=torch.float64, generator=generator), s, t, schedule))
    return cases


def other_draws(case: Case, generator: Generator) -> Case:
    x_0, x_t, u, *rest = at_other_speed(case, generator)
    return x_0, x_t, redrawn(u, generator), *rest


mask_only_step = Check(
    name="mask_only_step",
    question="x_s `[L]` with masks alone, from a uniform number per token",
    solution=step_back,
    cases=step_cases(),
    mistakes=[
        ("a visible token stays as it is, whatever is predicted", visible_too),
        ("a visible token stays as it is; you put the prediction there instead", prediction_everywhere),
        ("a visible token is never masked in the reverse process", masked_again),
        (
            "that is the chance of the forward process, visible at s and masked at t: the token is known to be masked "
            "at t",
            uncovering(lambda s, t, schedule: schedule.between(s, t).gamma),
        ),
        (
            "divide by gamma_bar_t: we know that the token is masked at t",
            uncovering(lambda s, t, schedule: schedule.gamma_bar[t] - schedule.gamma_bar[s]),
        ),
        (
            "that is the chance of staying masked; uncovered is the rest",
            uncovering(lambda s, t, schedule: schedule.gamma_bar[s] / schedule.gamma_bar[t]),
        ),
        (
            "every mask is uncovered: those that were masked at s already must stay",
            uncovering(lambda s, t, schedule: 1.0),
        ),
        (
            "the smallest u are uncovered; the distribution is right, but not the order that is asked for",
            lambda x_0, x_t, u, *rest: step_back(x_0, x_t, 1 - u, *rest),
        ),
    ],
    praise="visible tokens stay, and a mask goes if it came after s.",
    vary=other_draws,
)


def to_prediction(s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return schedule.between(s, t).beta * (schedule.alpha_bar[s] + schedule.beta_bar[s]) / schedule.beta_bar[t]


def any_change(s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    alpha, beta, _ = schedule.between(s, t)
    return 1 - (alpha + beta) * schedule.beta_bar[s] / schedule.beta_bar[t]


def kept_only(s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return schedule.between(s, t).beta * schedule.alpha_bar[s] / schedule.beta_bar[t]


LARGER = MaskReplaceSchedule.from_ends(num_codes=6, num_steps=15, gamma_end=0.6)

repaired = Check(
    name="repaired",
    question="the chance that a wrong visible token shows the predicted code after a jump of the reverse process",
    solution=to_prediction,
    cases=[(3, 7, small_schedule()), (2, 4, small_schedule()), (5, 10, small_schedule()), (4, 13, LARGER)],
    mistakes=[
        (
            "at s the token shows x_0 if it was kept or if a replacement drew x_0 again: alpha_bar + beta_bar",
            kept_only,
        ),
        ("that counts every change, to any code; the question asks for the predicted one", any_change),
        (
            "divide by the evidence q(x_t | x_0), beta_bar_t",
            lambda s, t, schedule: to_prediction(s, t, schedule) * schedule.beta_bar[t],
        ),
        (
            "the likelihood is that of one code, beta; K * beta is that of any replacement",
            lambda s, t, schedule: schedule.num_codes * to_prediction(s, t, schedule),
        ),
        (
            "that is one step, t - 1 to t; the jump is from t to s",
            lambda s, t, schedule: to_prediction(t - 1, t, schedule),
        ),
        ("that is the whole probability: only at s = 0 is the code certain", lambda s, t, schedule: 1.0),
    ],
    praise="prior times likelihood at the predicted code, over the evidence.",
    vary=at_other_speed,
)
