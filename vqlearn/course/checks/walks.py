"""Checks of notebook 07, sampling."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from vqlearn.course.checks.judge import at, judge, small_schedule
from vqlearn.sampling import strided_times
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import transition_matrix


def touched_tokens(attempt: Callable) -> None:
    """Check `attempt(mask, factor)`: which patches of a pixel mask `[H, W]` are touched, in a row."""

    def patches(mask, factor):
        rows, columns = mask.shape[0] // factor, mask.shape[1] // factor
        return mask.view(rows, factor, columns, factor).transpose(1, 2).flatten(2)  # [rows, columns, pixels]

    def right(mask, factor):
        return patches(mask, factor).any(-1).flatten()

    some = "a token is touched if the mask touches any of its pixels, not only if it covers all of them"
    mistakes: list[tuple[str, Callable]] = [
        (some, lambda mask, factor: patches(mask, factor).all(-1).flatten()),
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
        ("those are the tokens that are kept", lambda mask, factor: ~right(mask, factor)),
    ]
    wide, corner = torch.zeros(8, 16, dtype=torch.bool), torch.zeros(8, 8, dtype=torch.bool)
    wide[2:5, 5:13], corner[3:8, 1:3] = True, True
    cases = [(wide, 4), (wide, 2), (corner, 4)]
    judge(attempt, cases, right, mistakes, "Right: one pixel is enough, and the grid is read row by row.")


def even_times(attempt: Callable) -> None:
    """Check `attempt(num_steps, count)`: the `count` + 1 times of an even stride, whole numbers, halves upwards."""

    def by(rounded):
        return lambda num_steps, count: [rounded(num_steps * left / count) for left in range(count, -1, -1)]

    def fixed_stride(num_steps, count):
        return [*range(num_steps, num_steps - count * (num_steps // count), -(num_steps // count)), 0]

    consecutive = "those are the last steps of the walk, not all of it: the first time is num_steps, where the noise is"
    mistakes: list[tuple[str, Callable]] = [
        ("halves go upwards here, and Python's round takes them to the even neighbour", by(round)),
        ("that rounds down: take the nearest whole number", by(math.floor)),
        ("that rounds up: take the nearest whole number", by(math.ceil)),
        ("a fixed whole stride leaves a jump of another length at the end: spread the remainder", fixed_stride),
        (consecutive, lambda num_steps, count: list(range(count, -1, -1))),
        ("the walk goes down: the first time is num_steps, the last 0", lambda *case: strided_times(*case)[::-1]),
    ]
    cases = [(10, 4), (100, 8), (10, 3), (7, 2), (100, 100)]
    judge(attempt, cases, strided_times, mistakes, "Right: every gap is as even as whole numbers allow.")


def masks_left(attempt: Callable) -> None:
    """Check `attempt(times, schedule)`: the masked share at the last time, one small step in place of each jump."""

    def right(times, schedule):
        share = schedule.gamma_bar[times[0]]
        for s in times[1:]:
            share = share * schedule.gamma_bar[s] / schedule.gamma_bar[s + 1]
        return share

    def from_all_masks(times, schedule):
        return right(times, schedule) / schedule.gamma_bar[times[0]]

    def one_step_at_t(times, schedule):
        share = schedule.gamma_bar[times[0]]
        for t in times[:-1]:
            share = share * schedule.gamma_bar[t - 1] / schedule.gamma_bar[t]
        return share

    def forward(times, schedule):
        share = schedule.gamma_bar[times[0]]
        for s in times[1:]:
            share = share * (1 - schedule.gamma[s + 1])
        return share

    def only_last(times, schedule):
        return schedule.gamma_bar[times[0]] * schedule.gamma_bar[times[-1]] / schedule.gamma_bar[times[-1] + 1]

    mistakes: list[tuple[str, Callable]] = [
        (
            "that is the exact stride, gamma_bar_s / gamma_bar_t per jump: here each jump is one small step",
            lambda times, schedule: schedule.gamma_bar[times[-1]],
        ),
        ("the walk does not begin with masks alone: a share of gamma_bar is masked at its first time", from_all_masks),
        ("that is one step at t, the beginning of the jump; the official step is taken at s + 1", one_step_at_t),
        ("gamma is the forward chance of being masked; (7.3) asks how likely a mask was a mask before", forward),
        ("that is one jump: multiply over all of them", only_last),
        ("that is the share that has been uncovered: take it from 1", lambda *case: 1 - right(*case)),
    ]
    schedules = (small_schedule(), MaskReplaceSchedule.released(4, 10))
    cases = [(times, schedule) for schedule in schedules for times in ([10, 7, 4, 1], [10, 5, 1], [9, 6, 3, 2])]
    judge(attempt, cases, right, mistakes, "Right: small steps, so the masks stay where they are.")


def corrected_law(attempt: Callable) -> None:
    """Check `attempt(x_0, x_t, renew, s, t, schedule)`: the law of x_s after a step of the corrector, `[K + 1]`."""

    def posterior(x_0, x_t, s, t, schedule):
        prior, row = transition_matrix(schedule, s, 0)[:, x_0], transition_matrix(schedule, t, s)[x_t]
        return row * prior / transition_matrix(schedule, t, 0)[x_t, x_0]

    def right(x_0, x_t, renew, s, t, schedule):
        return (1 - renew) * posterior(x_0, x_t, s, t, schedule) + renew * transition_matrix(schedule, s, 0)[:, x_0]

    def of_x_t(x_0, x_t, renew, s, t, schedule):
        return (1 - renew) * posterior(x_0, x_t, s, t, schedule) + renew * transition_matrix(schedule, s, 0)[:, x_t]

    def at_t(x_0, x_t, renew, s, t, schedule):
        return (1 - renew) * posterior(x_0, x_t, s, t, schedule) + renew * transition_matrix(schedule, t, 0)[:, x_0]

    def to_mask(x_0, x_t, renew, s, t, schedule):
        law = (1 - renew) * posterior(x_0, x_t, s, t, schedule)
        law[-1] += renew
        return law

    def not_divided(x_0, x_t, renew, s, t, schedule):
        prior, row = transition_matrix(schedule, s, 0)[:, x_0], transition_matrix(schedule, t, s)[x_t]
        return (1 - renew) * row * prior + renew * prior

    mistakes: list[tuple[str, Callable]] = [
        (
            "the token that is noised anew is x_0, which was just drawn, not x_t",
            of_x_t,
        ),
        ("the fresh draw is from q(x_s | x_0), at the time s that the step ends at, not t", at_t),
        (
            "the two chances are swapped: renew is the share that is drawn anew",
            lambda x_0, x_t, renew, *rest: right(x_0, x_t, 1 - renew, *rest),
        ),
        (
            "nothing is drawn anew: that is the posterior alone",
            lambda x_0, x_t, renew, *rest: posterior(x_0, x_t, *rest),
        ),
        (
            "that is the average over x_t, (7.4): here x_t is known, and what is not drawn anew remembers it",
            lambda x_0, x_t, renew, s, t, schedule: transition_matrix(schedule, s, 0)[:, x_0],
        ),
        ("drawn anew does not mean masked: q(x_s | x_0) may also keep or replace it", to_mask),
        ("the posterior is not divided by q(x_t | x_0), so the law does not sum to 1", not_divided),
        ("t - 1 for s: the jump ends at s, whatever the stride", at(right, lambda s, t: (t - 1, t))),
    ]
    schedule = small_schedule()
    cases = [(1, x_t, renew, 3, 7, schedule) for x_t in (1, 2, schedule.mask_id) for renew in (0.1, 0.6)]
    judge(attempt, cases, right, mistakes, "Right: two ways to x_s, and both keep q(x_s | x_0).")
