"""Checks of notebook 03, the forward process."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vqlearn.course.checks.judge import judge, share, small_schedule, then
from vqlearn.schedule import MaskReplaceSchedule


def wrong_tokens(attempt: Callable) -> None:
    """Check `attempt(length, t, schedule)`: the expected number of visible tokens that are not x_0."""

    def right(length, t, schedule):
        return length * (schedule.num_codes - 1) * schedule.beta_bar[t]

    own = "a replaced token draws its own code back once in K, and is right then: K - 1 codes are wrong"
    each = "beta_bar is the chance of each single code, and there are K - 1 wrong ones"
    step = "that is what one step, t - 1 to t, replaces: the bar means from clean data"
    mistakes: list[tuple[str, Callable]] = [
        (own, lambda n, t, one: n * one.num_codes * one.beta_bar[t]),
        (each, lambda n, t, one: n * one.beta_bar[t]),
        ("that counts masked tokens too: they are not visible", lambda n, t, one: n * (1 - one.alpha_bar[t])),
        ("that is the number of masked tokens", lambda n, t, one: n * one.gamma_bar[t]),
        (step, lambda n, t, one: n * (one.num_codes - 1) * one.beta[t]),
        ("that is a share; the question asks for a number of tokens", lambda n, t, one: right(n, t, one) / n),
        ("that counts the visible tokens that are right", lambda n, t, one: n * (one.alpha_bar[t] + one.beta_bar[t])),
    ]
    schedules = (small_schedule(), MaskReplaceSchedule.paper(8, 10))
    cases = [(length, t, schedule) for schedule in schedules for length, t in ((64, 3), (64, 9), (10, 6))]
    judge(attempt, cases, right, mistakes, "Right: K - 1 codes are wrong, and each is as likely.")


def corrupt(attempt: Callable) -> None:
    """Check `attempt(x_0, u, v, t, schedule)`: x_t `[L]` by two uniform numbers per token."""

    def right(x_0, u, v, t, schedule, *, keep=None, mask=None, states=None, top=None):
        keep = schedule.alpha_bar[t] if keep is None else keep(schedule, t)
        mask = schedule.gamma_bar[t] if mask is None else mask(schedule, t)
        other = (v * (states or schedule.num_codes)).long()
        top = schedule.mask_id if top is None else top
        return torch.where(u < keep, x_0, torch.where(u < 1 - mask, other, top))

    def mask_first(x_0, u, v, t, schedule):
        other = (v * schedule.num_codes).long()
        keep, mask = schedule.alpha_bar[t], schedule.gamma_bar[t]
        return torch.where(u < keep, x_0, torch.where(u < keep + mask, schedule.mask_id, other))

    def below_gamma(x_0, u, v, t, schedule):
        other = (v * schedule.num_codes).long()
        lost = torch.where(u < schedule.gamma_bar[t], schedule.mask_id, other)
        return torch.where(u < schedule.alpha_bar[t], x_0, lost)

    def one_code(schedule, t):
        return 1 - schedule.alpha_bar[t] - schedule.beta_bar[t]

    def one_step(x_0, u, v, t, schedule):
        return right(x_0, u, v, t, schedule, keep=lambda one, t: one.alpha[t], mask=lambda one, t: one.gamma[t])

    def never_itself(x_0, u, v, t, schedule):
        other = (v * (schedule.num_codes - 1)).long()
        return _choose(x_0, u, other + (other >= x_0), t, schedule)

    def always_masked(x_0, u, v, t, schedule):
        return torch.where(u < schedule.alpha_bar[t], x_0, schedule.mask_id)

    def same_number(x_0, u, v, t, schedule):
        return right(x_0, u, u, t, schedule)

    last = "the mask is in the last gamma_bar of the interval, from 1 - gamma_bar on"
    mistakes: list[tuple[str, Callable]] = [
        (last + "; the law is right so, but not the order that is asked for", mask_first),
        (last + ", not in the first", below_gamma),
        (
            "K * beta_bar is the chance of being replaced; beta_bar is that of each single code",
            lambda *case: right(*case, mask=one_code),
        ),
        ("those are the shares of one step, t - 1 to t: the bar means from clean data", one_step),
        (
            "the replacement is one of the K codes: with K + 1 the mask is among them",
            lambda *case: right(*case, states=case[-1].num_codes + 1),
        ),
        ("the replacement is one of all K codes, x_0 itself among them", never_itself),
        ("with K - 1 the last code is never drawn", lambda *case: right(*case, states=case[-1].num_codes - 1)),
        ("the replaced tokens are missing: what is not kept is masked or replaced", always_masked),
        ("the fate and the new code need a number each: the code is floor(K v)", same_number),
        (
            "the mask is mask_id itself, not mask_id - 1, which is the last code",
            lambda *case: right(*case, top=case[-1].mask_id - 1),
        ),
    ]
    generator = torch.Generator().manual_seed(0)
    schedule = small_schedule()
    cases = []
    for t in (3, 5, 8):
        u, v = torch.rand(2, 24, dtype=torch.float64, generator=generator)
        cases.append((torch.arange(4).repeat(6), u, v, t, schedule))
    judge(attempt, cases, right, mistakes, "Right: one number for the fate, one for the code.")


def _choose(x_0, u, other, t, schedule):
    lost = torch.where(u < 1 - schedule.gamma_bar[t], other, schedule.mask_id)
    return torch.where(u < schedule.alpha_bar[t], x_0, lost)


def visible_law(attempt: Callable) -> None:
    """Check `attempt(x_0, t, schedule)`: the chances of the K codes given that the token is visible, `[K]`."""

    def joint(x_0, t, schedule):
        law = schedule.beta_bar[t].repeat(schedule.num_codes)
        law[x_0] += schedule.alpha_bar[t]
        return law

    def right(x_0, t, schedule):
        return joint(x_0, t, schedule) / (1 - schedule.gamma_bar[t])

    def exactly_kept(x_0, t, schedule):
        law = joint(x_0, t, schedule)
        law[x_0] -= schedule.beta_bar[t]
        return law / (1 - schedule.gamma_bar[t])

    def all_replaced(x_0, t, schedule):
        law = schedule.num_codes * schedule.beta_bar[t].repeat(schedule.num_codes)
        law[x_0] += schedule.alpha_bar[t]
        return law / (1 - schedule.gamma_bar[t])

    def over(chance):
        return lambda x_0, t, schedule: joint(x_0, t, schedule) / chance(schedule, t)

    back = "a replaced token can draw x_0 back: the entry at x_0 is alpha_bar + beta_bar, over the chance of visible"
    each = "beta_bar is the chance of each single code; K * beta_bar is that of all of them"
    mistakes: list[tuple[str, Callable]] = [
        ("divide by the chance of what you were told: it is visible, 1 - gamma_bar", joint),
        (back, exactly_kept),
        (back, then(exactly_kept, share)),
        (each, all_replaced),
        (each, then(all_replaced, share)),
        ("1 - gamma is what one step, t - 1 to t, leaves visible", over(lambda one, t: 1 - one.gamma[t])),
        ("visible is kept or replaced: 1 - gamma_bar, not alpha_bar", over(lambda one, t: one.alpha_bar[t])),
        ("that divides by the chance of the mask: visible is 1 - gamma_bar", over(lambda one, t: one.gamma_bar[t])),
    ]
    cases = [(x_0, t, small_schedule()) for x_0, t in ((1, 3), (3, 6), (0, 9))]
    judge(attempt, cases, right, mistakes, "Right: the law of the codes, over the chance of seeing one.")
