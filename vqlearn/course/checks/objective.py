"""Checks of notebook 06, the training objective."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vqlearn.course.checks.judge import judge, small_schedule
from vqlearn.objective import kl_divergence
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_posterior


def step_cost(attempt: Callable) -> None:
    """Check `attempt(x_0, x_t, p_x0, t, schedule)`: one token's term of the bound, in nats."""

    def laws(x_0: int, x_t: int, p_x0: Tensor, t: int, schedule) -> tuple[Tensor, Tensor]:
        certain = torch.zeros_like(p_x0).index_fill(0, torch.tensor(x_0), 1.0)
        seen = torch.tensor([[x_t]])
        log_q, log_p = (q_posterior(p.log()[None, None], seen, t, schedule)[0, 0] for p in (certain, p_x0))
        return log_q, log_p

    def right(x_0, x_t, p_x0, t, schedule):
        return kl_divergence(*laws(x_0, x_t, p_x0, t, schedule))

    def reverse(x_0, x_t, p_x0, t, schedule):
        log_q, log_p = laws(x_0, x_t, p_x0, t, schedule)
        return kl_divergence(log_p, log_q)

    def cross(x_0, x_t, p_x0, t, schedule):
        log_q, log_p = laws(x_0, x_t, p_x0, t, schedule)
        return -torch.where(log_q > -torch.inf, log_q.exp() * log_p, 0.0).sum()

    def undefined(x_0, x_t, p_x0, t, schedule):
        log_q, log_p = laws(x_0, x_t, p_x0, t, schedule)
        return (log_q.exp() * (log_q - log_p)).sum()

    mistakes: list[tuple[str, Callable]] = [
        ("the average is over q, which knows x_0, not over the model's law: KL(q || p)", reverse),
        ("a state that q never takes gives 0 times infinity here: leave it out of the sum", undefined),
        ("that is the cross-entropy of the two laws: the entropy of q is still to be taken off", cross),
        ("that is -log p(x_0 | x_t), the auxiliary term", lambda x_0, x_t, p, t, one: -p[x_0].log()),
        ("the sign is turned: a divergence is never negative", lambda *case: -right(*case)),
        ("that is in bits; the question asks for nats", lambda *case: right(*case) / torch.tensor(2.0).log()),
    ]
    belief, schedule = torch.tensor([0.05, 0.70, 0.20, 0.05]).double(), small_schedule()
    cases = [(x_0, x_t, belief, t, schedule) for x_0, x_t, t in ((1, 4, 6), (0, 2, 6), (2, 2, 3), (2, 4, 1))]
    judge(attempt, cases, right, mistakes, "Right: what the step costs beyond what one who knows x_0 would pay.")


def jump_weight(attempt: Callable) -> None:
    """Check `attempt(s, t, schedule)`: a masked token's weight on -log p(x_0 | x_t), with masks alone."""

    def right(s, t, schedule):
        return (schedule.gamma_bar[t] - schedule.gamma_bar[s]) / schedule.gamma_bar[t]

    still = "that is the chance that it was masked at s already, which costs nothing: take the rest"
    mistakes: list[tuple[str, Callable]] = [
        (still, lambda s, t, one: one.gamma_bar[s] / one.gamma_bar[t]),
        (
            "divide by gamma_bar_t: we know that the token is masked at t",
            lambda s, t, one: right(s, t, one) * one.gamma_bar[t],
        ),
        (
            "that is gamma of the jump forward, from visible at s to masked at t",
            lambda s, t, one: one.between(s, t).gamma,
        ),
        ("that is one step, t - 1 to t; the jump is from t to s", lambda s, t, one: right(t - 1, t, one)),
        (
            "the condition is masked at t, so divide by gamma_bar_t, not gamma_bar_s",
            lambda s, t, one: right(s, t, one) * one.gamma_bar[t] / one.gamma_bar[s],
        ),
    ]
    curve = torch.linspace(0, 1, 11, dtype=torch.float64) ** 2
    cases = [(s, t, MaskReplaceSchedule(1 - curve, curve, num_codes=4)) for s, t in ((2, 6), (5, 9), (1, 4))]
    judge(attempt, cases, right, mistakes, "Right: the chance that the mask came after s.")


def time_odds(attempt: Callable) -> None:
    """Check `attempt(history)`: the probabilities of t = 0 ... T, `[T + 1]`, from the mean squares of the terms."""

    def right(history, *, root=True, odd=True, zero=True, floor=1e-4):
        weights = (history + 1e-10).sqrt() + floor if root else history + 1e-10 + floor
        weights[1] = weights[2] if odd else weights[1]
        weights[0] = 0.0 if zero else weights[0]
        return weights / weights.sum()

    def whole(history):
        weights = (history + 1e-10).sqrt() + 1e-4
        weights[1], weights[0] = weights[2], 0.0
        return weights

    def shifted(history):
        weights = (history + 1e-10).sqrt() + 1e-4
        weights[0] = weights[1]
        return weights / weights.sum()

    def borrowed_back(history):
        weights = (history + 1e-10).sqrt() + 1e-4
        weights[2], weights[0] = weights[1], 0.0
        return weights / weights.sum()

    mistakes: list[tuple[str, Callable]] = [
        ("the history holds squares: take the root", lambda h: right(h.clone(), root=False)),
        ("the odd line is missing: t = 1 takes the weight of t = 2", lambda h: right(h.clone(), odd=False)),
        ("t = 0 is clean data and must never be drawn: its weight is 0", lambda h: right(h.clone(), zero=False)),
        ("the public code counts from 0: its entries 0 and 1 are our t = 1 and t = 2", lambda h: shifted(h.clone())),
        ("the other way round: t = 1 takes the weight of t = 2", lambda h: borrowed_back(h.clone())),
        ("probabilities sum to 1: divide by the sum", lambda h: whole(h.clone())),
        ("the 1e-4 is missing: a term of 0 would never be drawn again", lambda h: right(h.clone(), floor=0.0)),
    ]
    cases = [
        (torch.tensor([0.01, 4.0, 0.25, 0.09, 0.0, 0.04]).double(),),
        (torch.tensor([0.01, 0.01, 1.0, 0.5, 0.2]).double(),),
    ]
    judge(
        attempt,
        cases,
        lambda history: right(history.clone()),
        mistakes,
        "Right: root mean squares, floored, with t = 1 borrowing.",
    )
