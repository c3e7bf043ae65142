"""Checks of notebook 07, sampling."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import at_other_speed, number, redrawn, whole
from vqlearn.course.checks.check import Check, at_times, small_schedule, then
from vqlearn.course.outcomes import Case, Function
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import transition_matrix


def patches(mask: Tensor, factor: int) -> Tensor:
    """The pixels of each patch, `[rows, columns, factor ** 2]`."""
    rows, columns = mask.shape[0] // factor, mask.shape[1] // factor
    return mask.view(rows, factor, columns, factor).transpose(1, 2).flatten(2)


def touched(mask: Tensor, factor: int) -> Tensor:
    return patches(mask, factor).any(-1).flatten()


def pixel_masks() -> tuple[Tensor, Tensor]:
    wide, corner = torch.zeros(8, 16, dtype=torch.bool), torch.zeros(8, 8, dtype=torch.bool)
    wide[2:5, 5:13], corner[3:8, 1:3] = True, True
    return wide, corner


WIDE, CORNER = pixel_masks()

touched_tokens = Check(
    name="touched_tokens",
    question="which patches of a pixel mask `[H, W]` are touched, row by row",
    solution=touched,
    cases=[(WIDE, 4), (WIDE, 2), (CORNER, 4)],
    mistakes=[
        (
            "a token is touched if the mask touches any of its pixels, not only if it covers all of them",
            lambda mask, factor: patches(mask, factor).all(-1).flatten(),
        ),
        (
            "a token is touched by a single pixel: half of the patch is not needed",
            lambda mask, factor: (patches(mask, factor).double().mean(-1) >= 0.5).flatten(),
        ),
        (
            "that looks at one pixel of each patch, its first: any of them counts",
            lambda mask, factor: mask[::factor, ::factor].flatten(),
        ),
        (
            "rows and columns are swapped: tokens are counted row by row",
            lambda mask, factor: patches(mask, factor).any(-1).T.flatten(),
        ),
        (
            "that cuts the flat mask into runs of pixels: a patch has its pixels in `factor` different rows",
            lambda mask, factor: mask.flatten().view(-1, factor * factor).any(-1),
        ),
        ("those are the tokens that are kept", then(touched, torch.logical_not)),
    ],
    praise="one pixel is enough, and the grid is read row by row.",
    vary=lambda case, generator: (redrawn(case[0], generator) < 0.06, case[1]),
)


def rounded(to_whole: Callable[[float], int]) -> Function:
    """Times of an even stride, made whole in this way."""
    return lambda num_steps, count: [to_whole(num_steps * left / count) for left in range(count, -1, -1)]


def nearest(num_steps: int, count: int) -> list[int]:
    return [(2 * num_steps * left + count) // (2 * count) for left in range(count, -1, -1)]


def fixed_stride(num_steps: int, count: int) -> list[int]:
    stride = num_steps // count
    return [*range(num_steps, num_steps - count * stride, -stride), 0]


def other_stride(case: Case, generator: Generator) -> Case:
    num_steps = whole(generator, 10, 200)
    return num_steps, whole(generator, 2, num_steps)


even_times = Check(
    name="even_times",
    question="the `count` + 1 times of an even stride, whole numbers, halves rounded upwards",
    solution=nearest,
    cases=[(10, 4), (100, 8), (10, 3), (7, 2), (100, 100)],
    mistakes=[
        ("halves go upwards here, and Python's round takes them to the even neighbour", rounded(round)),
        ("that rounds down: take the nearest whole number", rounded(math.floor)),
        ("that rounds up: take the nearest whole number", rounded(math.ceil)),
        ("a fixed whole stride leaves a jump of another length at the end: spread the remainder", fixed_stride),
        (
            "those are the last steps of the reverse process, not all of it: the first time is num_steps, where the "
            "noise is",
            lambda num_steps, count: list(range(count, -1, -1)),
        ),
        (
            "time goes down in sampling: the first time is num_steps, the last 0",
            then(nearest, lambda times: times[::-1]),
        ),
    ],
    praise="every gap is as even as whole numbers allow.",
    vary=other_stride,
)


def small_steps(times: list[int], schedule: MaskReplaceSchedule) -> Tensor:
    share = schedule.gamma_bar[times[0]]
    for s in times[1:]:
        share = share * schedule.gamma_bar[s] / schedule.gamma_bar[s + 1]
    return share


def small_steps_at_t(times: list[int], schedule: MaskReplaceSchedule) -> Tensor:
    share = schedule.gamma_bar[times[0]]
    for t in times[:-1]:
        share = share * schedule.gamma_bar[t - 1] / schedule.gamma_bar[t]
    return share


def forward_chances(times: list[int], schedule: MaskReplaceSchedule) -> Tensor:
    share = schedule.gamma_bar[times[0]]
    for s in times[1:]:
        share = share * (1 - schedule.gamma[s + 1])
    return share


masks_left = Check(
    name="masks_left",
    question="the masked share at the last time, one small step in place of each jump",
    solution=small_steps,
    cases=[
        (times, schedule)
        for schedule in (small_schedule(), MaskReplaceSchedule.released(4, 10))
        for times in ([10, 7, 4, 1], [10, 5, 1], [9, 6, 3, 2])
    ],
    mistakes=[
        (
            "that is the exact stride, gamma_bar_s / gamma_bar_t per jump: here each jump is one small step",
            lambda times, schedule: schedule.gamma_bar[times[-1]],
        ),
        (
            "sampling does not begin with masks alone: a share of gamma_bar is masked at its first time",
            lambda times, schedule: small_steps(times, schedule) / schedule.gamma_bar[times[0]],
        ),
        ("that is one step at t, the beginning of the jump; the official step is taken at s + 1", small_steps_at_t),
        (
            "gamma is the forward chance of being masked; (7.3) asks how likely a mask was a mask before",
            forward_chances,
        ),
        (
            "that is one jump: multiply over all of them",
            lambda times, schedule: small_steps([times[0], times[-1]], schedule),
        ),
        ("that is the share that has been uncovered: take it from 1", then(small_steps, lambda share: 1 - share)),
    ],
    praise="small steps, so the masks stay where they are.",
    vary=at_other_speed,
)


def prior(x_0: int, s: int, schedule: MaskReplaceSchedule) -> Tensor:
    """q(x_s | x_0), `[K + 1]`."""
    return transition_matrix(schedule, s, 0)[:, x_0]


def posterior(x_0: int, x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    """q(x_s | x_t, x_0), `[K + 1]`."""
    return transition_matrix(schedule, t, s)[x_t] * prior(x_0, s, schedule) / prior(x_0, t, schedule)[x_t]


def corrected(x_0: int, x_t: int, renew: float, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return (1 - renew) * posterior(x_0, x_t, s, t, schedule) + renew * prior(x_0, s, schedule)


def renewed_from(fresh: Callable[[int, int, int, int, MaskReplaceSchedule], Tensor]) -> Function:
    """The corrector's step with another distribution of what is drawn anew."""
    return lambda x_0, x_t, renew, s, t, schedule: (
        (1 - renew) * posterior(x_0, x_t, s, t, schedule) + renew * fresh(x_0, x_t, s, t, schedule)
    )


def not_divided(x_0: int, x_t: int, renew: float, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    row = transition_matrix(schedule, t, s)[x_t]
    return ((1 - renew) * row + renew) * prior(x_0, s, schedule)


SMALL = small_schedule()


def other_renewal(case: Case, generator: Generator) -> Case:
    x_0, x_t, _, *rest = at_other_speed(case, generator)
    return x_0, x_t, number(generator, 0.05, 0.9), *rest


corrected_law = Check(
    name="corrected_law",
    question="the distribution of x_s after a step of the corrector, `[K + 1]`",
    solution=corrected,
    cases=[(1, x_t, renew, 3, 7, SMALL) for x_t in (1, 2, SMALL.mask_id) for renew in (0.1, 0.6)],
    mistakes=[
        (
            "the token that is noised anew is x_0, which was just drawn, not x_t",
            renewed_from(lambda x_0, x_t, s, t, schedule: prior(x_t, s, schedule)),
        ),
        (
            "the fresh draw is from q(x_s | x_0), at the time s that the step ends at, not t",
            renewed_from(lambda x_0, x_t, s, t, schedule: prior(x_0, t, schedule)),
        ),
        (
            "the two chances are swapped: renew is the share that is drawn anew",
            lambda x_0, x_t, renew, *rest: corrected(x_0, x_t, 1 - renew, *rest),
        ),
        (
            "nothing is drawn anew: that is the posterior alone",
            lambda x_0, x_t, renew, *rest: posterior(x_0, x_t, *rest),
        ),
        (
            "that is the average over x_t, (7.4): here x_t is known, and what is not drawn anew remembers it",
            lambda x_0, x_t, renew, s, t, schedule: prior(x_0, s, schedule),
        ),
        (
            "drawn anew does not mean masked: q(x_s | x_0) may also keep or replace it",
            renewed_from(lambda x_0, x_t, s, t, schedule: torch.eye(schedule.num_codes + 1)[schedule.mask_id]),
        ),
        ("the posterior is not divided by q(x_t | x_0), so the distribution does not sum to 1", not_divided),
        ("t - 1 for s: the jump ends at s, whatever the stride", at_times(corrected, lambda s, t: (t - 1, t))),
    ],
    praise="two ways to x_s, and both keep q(x_s | x_0).",
    vary=other_renewal,
)
