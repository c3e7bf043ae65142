"""Checks of notebook 04, schedules."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vqlearn.course.checks.judge import judge, small_schedule, then
from vqlearn.schedule import MaskReplaceSchedule


def one_step_alpha(attempt: Callable) -> None:
    """Check `attempt(alpha_bar)`: the chance to be kept in each single step, `[T + 1]` with 1 at t = 0."""

    def right(alpha_bar):
        return first(alpha_bar[1:] / alpha_bar[:-1])

    def first(steps, value=1.0):
        return torch.cat([torch.tensor([value]).double(), steps])

    mistakes: list[tuple[str, Callable]] = [
        (
            "that is how much the curve falls; a chance is a ratio, of those that were still kept",
            lambda bar: first(bar[:-1] - bar[1:]),
        ),
        ("take that from 1: the share of all tokens that is lost here", lambda bar: first(1 - (bar[:-1] - bar[1:]))),
        ("that is the chance to be lost in the step: take it from 1", then(right, lambda alpha: 1 - alpha)),
        ("that is the chance to be lost in the step: take it from 1", lambda bar: first(1 - right(bar)[1:])),
        ("upside down: later over earlier", lambda bar: first(bar[:-1] / bar[1:])),
        ("the bar is from clean data, the question asks for single steps", lambda bar: bar),
        ("shifted by one: entry t is the step from t - 1 to t, and entry 0 is 1", then(right, lambda a: a.roll(-1))),
        ("the step to t = 0 does nothing: entry 0 is 1", lambda bar: first(right(bar)[1:], 0.0)),
    ]
    line = torch.linspace(0, 1, 6).double()
    cases = [(curve,) for curve in (1 - 0.9 * line, torch.cos(line * 1.5), small_schedule().alpha_bar)]
    judge(attempt, cases, right, mistakes, "Right: kept until t is kept until t - 1, and then once more.")


def jump_gamma(attempt: Callable) -> None:
    """Check `attempt(s, t, gamma_bar)`: the chance that a token that is unmasked at s is masked at t."""

    def right(s, t, gamma_bar):
        return 1 - (1 - gamma_bar[t]) / (1 - gamma_bar[s])

    mistakes: list[tuple[str, Callable]] = [
        (
            "that is the share of all tokens; count only those that were unmasked at s",
            lambda s, t, bar: bar[t] - bar[s],
        ),
        ("not masked, that is the product: take the ratio of 1 - gamma_bar", lambda s, t, bar: bar[t] / bar[s]),
        ("not masked, that is the product: take the ratio of 1 - gamma_bar", lambda s, t, bar: 1 - bar[s] / bar[t]),
        ("that is the chance to stay unmasked: take it from 1", then(right, lambda gamma: 1 - gamma)),
        ("that is from clean data; the token is known to be unmasked at s", lambda s, t, bar: bar[t]),
        ("equal strides are not equal jumps: t - s is not a time", lambda s, t, bar: bar[t - s]),
        ("that is the last step of the jump only", lambda s, t, bar: right(t - 1, t, bar)),
        ("divide by what is unmasked at s, not by what is masked there", lambda s, t, bar: (bar[t] - bar[s]) / bar[s]),
        ("divide by what is unmasked at s, not at t", lambda s, t, bar: (bar[t] - bar[s]) / (1 - bar[t])),
    ]
    square = torch.linspace(0, 1, 11).double() ** 2
    curves = (small_schedule().gamma_bar, MaskReplaceSchedule.paper(4, 10).gamma_bar, 0.9 * square)
    cases = [(s, t, curve) for curve in curves for s, t in ((2, 5), (4, 9))]
    judge(attempt, cases, right, mistakes, "Right: what is unmasked shrinks by a ratio.")


def final_mask_rate(attempt: Callable) -> None:
    """Check `attempt(alpha_bar, rate)`: the masked curve that takes a fixed part of what is lost, `rate` at T."""

    def right(alpha_bar, rate):
        return rate * (1 - alpha_bar) / (1 - alpha_bar[-1])

    def straight(alpha_bar, rate):
        return rate * torch.linspace(0, 1, len(alpha_bar)).double()

    mistakes: list[tuple[str, Callable]] = [
        (
            "it ends at rate * (1 - alpha_bar[-1]): where the curve does not reach 0, rescale",
            lambda bar, rate: rate * (1 - bar),
        ),
        ("a straight line keeps no fixed proportion unless alpha_bar is one too", straight),
        ("that masks everything that is lost: nothing is left for replacement", lambda bar, rate: 1 - bar),
        (
            "that is the replaced share; the question asks for the masked one",
            lambda bar, rate: 1 - bar - right(bar, rate),
        ),
        ("that falls: it is a share of the kept tokens, not of the lost ones", lambda bar, rate: rate * bar),
        ("at t = 0 nothing is masked, and not every time has the final rate", lambda bar, rate: rate + 0 * bar),
        ("the scale is what is lost at T, 1 - alpha_bar[-1], not alpha_bar[-1]", lambda b, r: r * (1 - b) / b[-1]),
    ]
    line = torch.linspace(0, 1, 9).double()
    cases = [(1 - 0.8 * line, 0.6), (torch.cos(line * 1.4), 0.5), (1 - line**2, 0.9)]
    judge(attempt, cases, right, mistakes, "Right: a fixed part of what is lost, scaled to the end.")
