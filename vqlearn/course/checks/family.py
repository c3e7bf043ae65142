"""Checks of notebook 13, discrete diffusion since."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from vqlearn.course.checks.judge import at, judge, then
from vqlearn.schedule import MaskReplaceSchedule


def masked_term(attempt: Callable) -> None:
    """Check `attempt(p_right, s, t, schedule)`: the bound's term of a masked token under masks alone, in nats."""

    def right(p_right, s, t, schedule):
        kept_s, kept_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
        return -(kept_s - kept_t) / (1 - kept_t) * p_right.log()

    def of_visible(p_right, s, t, schedule):
        kept_s, kept_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
        return -(kept_s - kept_t) / kept_s * p_right.log()

    def not_divided(p_right, s, t, schedule):
        return -(schedule.alpha_bar[s] - schedule.alpha_bar[t]) * p_right.log()

    def still_masked(p_right, s, t, schedule):
        return -(1 - schedule.alpha_bar[s]) / (1 - schedule.alpha_bar[t]) * p_right.log()

    def both(p_right, s, t, schedule):
        value = right(p_right, s, t, schedule)
        return value + still_masked(p_right, s, t, schedule)

    mistakes: list[tuple[str, Callable]] = [
        ("that is the cross-entropy without its weight, the chance of being uncovered in this jump", both),
        ("the token is masked at t: divide by 1 - alpha_bar_t, not by alpha_bar_s", of_visible),
        ("given that it is masked at t: divide by 1 - alpha_bar_t", not_divided),
        ("that weight is the chance of staying masked; only an uncovered token costs anything", still_masked),
        ("a cost is not negative: the logarithm of a probability needs a minus", then(right, lambda value: -value)),
        ("in nats, not in bits: the natural logarithm", then(right, lambda value: value / math.log(2))),
        ("those are the shares of one step, t - 1 to t, for the jump from s to t", at(right, lambda s, t: (t - 1, t))),
    ]
    cases = [(torch.tensor(p).double(), s, t, schedule) for schedule in _masks() for p, s, t in CASES]
    judge(attempt, cases, right, mistakes, "Right: the loss of MDLM, before the limit.")


def uncover_chance(attempt: Callable) -> None:
    """Check `attempt(sigma, s, t, schedule)`: how often to uncover masked tokens if visible ones are remasked."""

    def right(sigma, s, t, schedule):
        kept_s, kept_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
        return (kept_s - (1 - sigma) * kept_t) / (1 - kept_t)

    def not_divided(sigma, s, t, schedule):
        return right(sigma, s, t, schedule) * (1 - schedule.alpha_bar[t])

    def divided_by_s(sigma, s, t, schedule):
        return not_divided(sigma, s, t, schedule) / (1 - schedule.alpha_bar[s])

    def sigma_alone(sigma, s, t, schedule):
        return right(0.0, s, t, schedule) + sigma

    def remasked_once_more(sigma, s, t, schedule):
        return (schedule.alpha_bar[s] - sigma * schedule.alpha_bar[t]) / (1 - schedule.alpha_bar[t])

    mistakes: list[tuple[str, Callable]] = [
        (
            "that is the step without remasking: what was masked again has to be made up for",
            lambda _, *rest: right(0.0, *rest),
        ),
        (
            "that is the share of all tokens; the question is about the masked ones: divide by 1 - alpha_bar_t",
            not_divided,
        ),
        ("the token is masked at t: divide by 1 - alpha_bar_t, not 1 - alpha_bar_s", divided_by_s),
        (
            "sigma is a share of the visible tokens, the answer one of the masked: they are not equally many",
            sigma_alone,
        ),
        ("a share 1 - sigma of the visible tokens stays visible", remasked_once_more),
        ("that is the chance of staying masked: take it from 1", then(right, lambda chance: 1 - chance)),
        ("those are the shares of one step, t - 1 to t, for the jump from s to t", at(right, lambda s, t: (t - 1, t))),
    ]
    cases = [
        (sigma, s, t, schedule) for schedule in _masks() for sigma, s, t in ((0.2, 3, 7), (0.1, 2, 9), (0.3, 5, 7))
    ]
    judge(attempt, cases, right, mistakes, "Right: the step of ReMDM, and of the corrector under masks alone.")


def pattern_weight(attempt: Callable) -> None:
    """Check `attempt(masked, length)`: the weight of a pattern's cross-entropy in the limit of many steps."""

    def right(masked, length):
        return math.factorial(masked - 1) * math.factorial(length - masked) / math.factorial(length)

    def of_the_number(masked, length):
        return right(masked, length) * math.comb(length, masked)

    def no_weight(masked, length):
        return math.factorial(masked) * math.factorial(length - masked) / math.factorial(length + 1)

    def of_any(masked, length):
        return 1 / math.comb(length, masked)

    mistakes: list[tuple[str, Callable]] = [
        ("that is 1/n, the weight of all patterns with n masked tokens together: share it among them", of_the_number),
        ("the weight 1/mu of the integral is missing: the power of mu is n - 1, not n", no_weight),
        (
            "that is a pattern among those with as many masks; one of its tokens comes next: divide by their number",
            of_any,
        ),
        ("every order is equally likely, but not every pattern", lambda masked, length: 2.0**-length),
        ("that weighs all orders with one term each: count them", lambda masked, length: 1 / math.factorial(length)),
        (
            "visible and masked tokens are swapped",
            lambda masked, length: (
                math.factorial(masked) * math.factorial(length - masked - 1) / math.factorial(length)
            ),
        ),
        (
            "divide by the number of all orders",
            lambda masked, length: math.factorial(masked - 1) * math.factorial(length - masked),
        ),
    ]
    cases = [(masked, length) for masked, length in ((1, 3), (2, 3), (2, 5), (4, 6))]
    judge(attempt, cases, right, mistakes, "Right: every order of the tokens counts once.")


CASES = ((0.9, 3, 7), (0.2, 4, 5), (0.5, 1, 9))


def _masks() -> list[MaskReplaceSchedule]:
    """Masks alone along two curves, K = 4, T = 10."""
    time = torch.linspace(0, 1, 11, dtype=torch.float64)
    kept = torch.cos(time * torch.pi / 2)
    return [MaskReplaceSchedule(1 - time, time, num_codes=4), MaskReplaceSchedule(kept, 1 - kept, num_codes=4)]
