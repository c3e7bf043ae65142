"""Checks of notebook 06, the training objective."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import at_other_speed, redistributed, shaken
from vqlearn.course.checks.check import Check, normalised, small_schedule, then
from vqlearn.course.outcomes import Case
from vqlearn.objective import kl_divergence
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_posterior


def posteriors(x_0: int, x_t: int, p_x0: Tensor, t: int, schedule: MaskReplaceSchedule) -> tuple[Tensor, Tensor]:
    """log q(x_{t-1} | x_t, x_0) and log p(x_{t-1} | x_t), `[K + 1]` each."""
    certain = torch.zeros_like(p_x0).index_fill(0, torch.tensor(x_0), 1.0)
    tokens = torch.tensor([[x_t]])
    log_q, log_p = (q_posterior(p.log()[None, None], tokens, t, schedule)[0, 0] for p in (certain, p_x0))
    return log_q, log_p


def divergence(x_0: int, x_t: int, p_x0: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return kl_divergence(*posteriors(x_0, x_t, p_x0, t, schedule))


def reversed_divergence(x_0: int, x_t: int, p_x0: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    log_q, log_p = posteriors(x_0, x_t, p_x0, t, schedule)
    return kl_divergence(log_p, log_q)


def cross_entropy(x_0: int, x_t: int, p_x0: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    log_q, log_p = posteriors(x_0, x_t, p_x0, t, schedule)
    return -torch.where(log_q > -torch.inf, log_q.exp() * log_p, 0.0).sum()


def with_impossible_states(x_0: int, x_t: int, p_x0: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    log_q, log_p = posteriors(x_0, x_t, p_x0, t, schedule)
    return (log_q.exp() * (log_q - log_p)).sum()


PREDICTION = torch.tensor([0.05, 0.70, 0.20, 0.05]).double()


def other_prediction(case: Case, generator: Generator) -> Case:
    x_0, x_t, p_x0, *rest = at_other_speed(case, generator)
    return x_0, x_t, redistributed(p_x0, generator), *rest


step_cost = Check(
    name="step_cost",
    question="one token's term of the bound, in nats",
    solution=divergence,
    cases=[(x_0, x_t, PREDICTION, t, small_schedule()) for x_0, x_t, t in ((1, 4, 6), (0, 2, 6), (2, 2, 3), (2, 4, 1))],
    mistakes=[
        (
            "the average is over q, which knows x_0, not over the model's distribution: KL(q || p)",
            reversed_divergence,
        ),
        (
            "a state that q never takes gives 0 times infinity here: leave it out of the sum",
            with_impossible_states,
        ),
        (
            "that is the cross-entropy of the two distributions: the entropy of q is still to be taken off",
            cross_entropy,
        ),
        (
            "that is -log p(x_0 | x_t), the auxiliary term",
            lambda x_0, x_t, p_x0, t, schedule: -p_x0[x_0].log(),
        ),
        ("the sign is turned: a divergence is never negative", then(divergence, lambda value: -value)),
        ("that is in bits; the question asks for nats", then(divergence, lambda value: value / math.log(2))),
    ],
    praise="how many nats more than with x_0 known this step takes.",
    vary=other_prediction,
)


def weight(s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return (schedule.gamma_bar[t] - schedule.gamma_bar[s]) / schedule.gamma_bar[t]


CURVE = torch.linspace(0, 1, 11, dtype=torch.float64) ** 2
MASKS_ALONE = MaskReplaceSchedule(1 - CURVE, CURVE, num_codes=4)

jump_weight = Check(
    name="jump_weight",
    question="a masked token's weight on -log p(x_0 | x_t), with masks alone",
    solution=weight,
    cases=[(2, 6, MASKS_ALONE), (5, 9, MASKS_ALONE), (1, 4, MASKS_ALONE)],
    mistakes=[
        (
            "that is the chance that it was masked at s already, which costs nothing: take the rest",
            then(weight, lambda chance: 1 - chance),
        ),
        (
            "divide by gamma_bar_t: we know that the token is masked at t",
            lambda s, t, schedule: schedule.gamma_bar[t] - schedule.gamma_bar[s],
        ),
        (
            "that is gamma of the jump forward, from visible at s to masked at t",
            lambda s, t, schedule: schedule.between(s, t).gamma,
        ),
        (
            "that is one step, t - 1 to t; the jump is from t to s",
            lambda s, t, schedule: weight(t - 1, t, schedule),
        ),
        (
            "the condition is masked at t, so divide by gamma_bar_t, not gamma_bar_s",
            lambda s, t, schedule: schedule.gamma_bar[t] / schedule.gamma_bar[s] - 1,
        ),
    ],
    praise="the chance that the mask came after s.",
    vary=at_other_speed,
)


def weights(history: Tensor, *, root: bool = True, floor: float = 1e-4) -> Tensor:
    """Not normalised, the mistake of t = 1 not mended, and 0 at t = 0."""
    found = ((history + 1e-10).sqrt() if root else history + 1e-10) + floor
    found[0] = 0.0
    return found


def odds(history: Tensor, *, root: bool = True, floor: float = 1e-4) -> Tensor:
    return normalised(first_from_second(weights(history, root=root, floor=floor)))


def first_from_second(found: Tensor) -> Tensor:
    return torch.cat([found[:1], found[2:3], found[2:]])


def second_from_first(found: Tensor) -> Tensor:
    return torch.cat([found[:2], found[1:2], found[3:]])


def clean_drawn(history: Tensor) -> Tensor:
    found = first_from_second(weights(history))
    found[0] = (history[0] + 1e-10).sqrt() + 1e-4
    return normalised(found)


def counted_from_zero(history: Tensor) -> Tensor:
    found = weights(history)
    return normalised(torch.cat([found[1:2], found[1:]]))


time_odds = Check(
    name="time_odds",
    question="the probabilities of t = 0 ... T, `[T + 1]`, from the mean squares of the terms",
    solution=odds,
    cases=[
        (torch.tensor([0.01, 4.0, 0.25, 0.09, 0.0, 0.04]).double(),),
        (torch.tensor([0.01, 0.01, 1.0, 0.5, 0.2]).double(),),
    ],
    mistakes=[
        ("the history holds squares: take the root", lambda history: odds(history, root=False)),
        ("the odd line is missing: t = 1 takes the weight of t = 2", then(weights, normalised)),
        ("t = 0 is clean data and must never be drawn: its weight is 0", clean_drawn),
        ("the public code counts from 0: its entries 0 and 1 are our t = 1 and t = 2", counted_from_zero),
        (
            "the other way round: t = 1 takes the weight of t = 2",
            lambda history: normalised(second_from_first(weights(history))),
        ),
        ("probabilities sum to 1: divide by the sum", then(weights, first_from_second)),
        ("the 1e-4 is missing: a term of 0 would never be drawn again", lambda history: odds(history, floor=0.0)),
    ],
    praise="root mean squares, with a floor, and t = 1 takes the weight of t = 2.",
    vary=lambda case, generator: (shaken(case[0], generator),),
)
