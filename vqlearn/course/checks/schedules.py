"""Checks of notebook 04, schedules."""

from __future__ import annotations

import torch
from torch import Tensor

from vqlearn.course.checks.cases import number, power
from vqlearn.course.checks.check import Check, small_schedule, then
from vqlearn.schedule import MaskReplaceSchedule


def ratios(alpha_bar: Tensor) -> Tensor:
    return after(alpha_bar[1:] / alpha_bar[:-1])


def after(steps: Tensor, first: float = 1.0) -> Tensor:
    """`first` at t = 0, then the steps."""
    return torch.cat([torch.tensor([first]).double(), steps])


LOST = "that is the chance to be lost in the step: take it from 1"
LINE = torch.linspace(0, 1, 6).double()

one_step_alpha = Check(
    name="one_step_alpha",
    question="the chance to be kept in each single step, `[T + 1]` with 1 at t = 0",
    solution=ratios,
    cases=[(1 - 0.9 * LINE,), (torch.cos(LINE * 1.5),), (small_schedule().alpha_bar,)],
    mistakes=[
        (
            "that is how much the curve falls; a chance is a ratio, of those that were still kept",
            lambda bar: after(bar[:-1] - bar[1:]),
        ),
        ("take that from 1: the share of all tokens that is lost here", lambda bar: after(1 - (bar[:-1] - bar[1:]))),
        (LOST, then(ratios, lambda alpha: 1 - alpha)),
        (LOST, lambda bar: after(1 - ratios(bar)[1:])),
        (
            "the logarithm falls by a difference, the curve by a ratio: take exp",
            lambda bar: after((bar[1:] / bar[:-1]).log()),
        ),
        ("upside down: later over earlier", lambda bar: after(bar[:-1] / bar[1:])),
        ("the bar is from clean data, the question asks for single steps", lambda bar: bar),
        (
            "shifted by one: entry t is the step from t - 1 to t, and entry 0 is 1",
            then(ratios, lambda alpha: alpha.roll(-1)),
        ),
        ("the step to t = 0 does nothing: entry 0 is 1", lambda bar: after(ratios(bar)[1:], first=0.0)),
    ],
    praise="kept until t is kept until t - 1, and then once more.",
    vary=lambda case, generator: (case[0] ** power(generator),),
)


def masked_in_the_jump(s: int, t: int, gamma_bar: Tensor) -> Tensor:
    return 1 - (1 - gamma_bar[t]) / (1 - gamma_bar[s])


RATIO = "not masked, that is the product: take the ratio of 1 - gamma_bar"
CURVES = (
    small_schedule().gamma_bar,
    MaskReplaceSchedule.paper(4, 10).gamma_bar,
    0.9 * torch.linspace(0, 1, 11).double() ** 2,
)

jump_gamma = Check(
    name="jump_gamma",
    question="the chance that a token that is unmasked at s is masked at t",
    solution=masked_in_the_jump,
    cases=[(s, t, curve) for curve in CURVES for s, t in ((2, 5), (4, 9))],
    mistakes=[
        (
            "that is the share of all tokens; count only those that were unmasked at s",
            lambda s, t, bar: bar[t] - bar[s],
        ),
        (RATIO, lambda s, t, bar: bar[t] / bar[s]),
        (RATIO, lambda s, t, bar: 1 - bar[s] / bar[t]),
        ("that is the chance to stay unmasked: take it from 1", then(masked_in_the_jump, lambda gamma: 1 - gamma)),
        ("that is from clean data; the token is known to be unmasked at s", lambda s, t, bar: bar[t]),
        ("equal strides are not equal jumps: t - s is not a time", lambda s, t, bar: bar[t - s]),
        ("that is the last step of the jump only", lambda s, t, bar: masked_in_the_jump(t - 1, t, bar)),
        (
            "the chances of the steps do not add: a later step masks only what is not masked yet",
            lambda s, t, bar: sum(masked_in_the_jump(i - 1, i, bar) for i in range(s + 1, t + 1)),
        ),
        ("divide by what is unmasked at s, not by what is masked there", lambda s, t, bar: (bar[t] - bar[s]) / bar[s]),
        ("divide by what is unmasked at s, not at t", lambda s, t, bar: (bar[t] - bar[s]) / (1 - bar[t])),
    ],
    praise="what is unmasked shrinks by a ratio.",
    vary=lambda case, generator: (*case[:2], 1 - (1 - case[2]) ** power(generator)),
)


def fixed_part(alpha_bar: Tensor, rate: float) -> Tensor:
    return rate * (1 - alpha_bar) / (1 - alpha_bar[-1])


GRID, SHORT = torch.linspace(0, 1, 9).double(), torch.linspace(0, 1, 6).double()

final_mask_rate = Check(
    name="final_mask_rate",
    question="the masked curve that takes a fixed part of what is lost, `rate` at T",
    solution=fixed_part,
    cases=[(1 - 0.8 * GRID, 0.6), (torch.cos(SHORT * 1.4), 0.5), (1 - GRID**2, 0.9)],
    mistakes=[
        (
            "it ends at rate * (1 - alpha_bar[-1]): where the curve does not reach 0, rescale",
            lambda bar, rate: rate * (1 - bar),
        ),
        (
            "a straight line keeps no fixed proportion unless alpha_bar is one too",
            lambda bar, rate: rate * torch.linspace(0, 1, len(bar)).double(),
        ),
        ("that masks everything that is lost: nothing is left for replacement", lambda bar, rate: 1 - bar),
        (
            "that is the replaced share; the question asks for the masked one",
            lambda bar, rate: 1 - bar - fixed_part(bar, rate),
        ),
        ("that falls: it is a share of the kept tokens, not of the lost ones", lambda bar, rate: rate * bar),
        ("at t = 0 nothing is masked, and not every time has the final rate", lambda bar, rate: rate + 0 * bar),
        (
            "the scale is what is lost at T, 1 - alpha_bar[-1], not alpha_bar[-1]",
            lambda bar, rate: rate * (1 - bar) / bar[-1],
        ),
    ],
    praise="a fixed part of what is lost, scaled to the end.",
    vary=lambda case, generator: (case[0] ** power(generator), case[1] * number(generator, 0.5, 1)),
)
