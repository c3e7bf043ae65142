"""Checks of notebook 12, the whole method on one page."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vqlearn.course.checks.judge import judge, small_schedule
from vqlearn.schedule import MaskReplaceSchedule


def mask_only_step(attempt: Callable) -> None:
    """Check `attempt(x_0, x_t, u, s, t, schedule)`: x_s `[L]` with masks alone, by a uniform number per token."""

    def chance(s, t, schedule):
        return 1 - schedule.gamma_bar[s] / schedule.gamma_bar[t]

    def right(x_0, x_t, u, s, t, schedule, *, uncover=chance):
        mask = schedule.mask_id
        return torch.where(x_t == mask, torch.where(u < uncover(s, t, schedule), x_0, mask), x_t)

    def with_chance(uncover):
        return lambda *case: right(*case, uncover=uncover)

    def from_above(x_0, x_t, u, s, t, schedule):
        return right(x_0, x_t, 1 - u, s, t, schedule)

    def visible_too(x_0, x_t, u, s, t, schedule):
        return torch.where(u < chance(s, t, schedule), x_0, x_t)

    def guess_rules(x_0, x_t, u, s, t, schedule):
        return torch.where(x_t == schedule.mask_id, right(x_0, x_t, u, s, t, schedule), x_0)

    def masked_again(x_0, x_t, u, s, t, schedule):
        return torch.where(u < chance(s, t, schedule), x_0, schedule.mask_id)

    forward = (
        "that is the chance of the way forward, visible at s and masked at t: the token is known to be masked at t"
    )
    divide = "divide by gamma_bar_t: we know that the token is masked at t"
    mistakes: list[tuple[str, Callable]] = [
        ("a visible token stays as it is, whatever the guess says", visible_too),
        ("a visible token stays as it is; you put the guess in its place", guess_rules),
        ("a visible token is never masked on the way back", masked_again),
        (forward, with_chance(lambda s, t, one: one.between(s, t).gamma)),
        (divide, with_chance(lambda s, t, one: one.gamma_bar[t] - one.gamma_bar[s])),
        ("that is the chance of staying masked; uncovered is the rest", with_chance(lambda *case: 1 - chance(*case))),
        ("every mask is uncovered: those that were masked at s already must stay", with_chance(lambda *case: 1.0)),
        ("the smallest u are uncovered; the law is right so, but not the order that is asked for", from_above),
    ]
    generator = torch.Generator().manual_seed(0)
    curve = torch.linspace(0, 1, 11, dtype=torch.float64) ** 2
    schedule = MaskReplaceSchedule(1 - curve, curve, num_codes=4)
    cases = []
    for s, t in ((2, 6), (6, 9), (0, 4)):
        u = torch.rand(36, dtype=torch.float64, generator=generator)
        x_t = torch.tensor([0, 1, 2, 3, 4, 4, 4, 4, 4]).repeat(4)
        cases.append((torch.arange(4).repeat(9), x_t, u, s, t, schedule))
    judge(attempt, cases, right, mistakes, "Right: visible tokens stay, and a mask goes if it came after s.")


def repaired(attempt: Callable) -> None:
    """Check `attempt(s, t, schedule)`: the chance that a wrong visible token shows the guess after a jump back."""

    def right(s, t, schedule):
        return schedule.between(s, t).beta * (schedule.alpha_bar[s] + schedule.beta_bar[s]) / schedule.beta_bar[t]

    def changed(s, t, schedule):
        alpha, beta, _ = schedule.between(s, t)
        return 1 - (alpha + beta) * schedule.beta_bar[s] / schedule.beta_bar[t]

    def kept_only(s, t, schedule):
        return schedule.between(s, t).beta * schedule.alpha_bar[s] / schedule.beta_bar[t]

    def all_codes(s, t, schedule):
        return schedule.num_codes * right(s, t, schedule)

    back = "at s the token shows x_0 if it was kept or if a replacement drew x_0 again: alpha_bar + beta_bar"
    each = "the likelihood is that of one code, beta; K * beta is that of any replacement"
    mistakes: list[tuple[str, Callable]] = [
        (back, kept_only),
        ("that counts every change, to any code; the question asks for the guess", changed),
        ("divide by the evidence q(x_t | x_0), beta_bar_t", lambda s, t, one: right(s, t, one) * one.beta_bar[t]),
        (each, all_codes),
        ("that is one step, t - 1 to t; the jump is from t to s", lambda s, t, one: right(t - 1, t, one)),
        ("that is the belief's full weight: only at s = 0 is it sure", lambda s, t, one: torch.tensor(1.0)),
    ]
    cases = [(s, t, small_schedule()) for s, t in ((3, 7), (2, 4), (5, 10))]
    judge(attempt, cases, right, mistakes, "Right: prior times likelihood at the guess, over the evidence.")
