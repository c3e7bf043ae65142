"""Checks of notebook 07, sampling."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
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


def pixel_masks() -> tuple[Tensor, Tensor, Tensor]:
    wide, corner, thirds = (torch.zeros(shape, dtype=torch.bool) for shape in ((8, 16), (8, 8), (15, 9)))
    wide[2:5, 5:13], corner[3:8, 1:3], thirds[4:10, 2:4] = True, True, True
    return wide, corner, thirds


def other_pixels(case: Case, generator: Generator) -> Case:
    factor = whole(generator, 2, 5)
    shape = factor * whole(generator, 2, 4), factor * whole(generator, 5, 7)
    return redrawn(torch.zeros(shape), generator) < 0.06, factor


WIDE, CORNER, THIRDS = pixel_masks()

touched_tokens = Check(
    name="touched_tokens",
    question="which patches of a pixel mask `[H, W]` are touched, row by row",
    solution=touched,
    cases=[(WIDE, 4), (WIDE, 2), (CORNER, 4), (THIRDS, 3)],
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
    vary=other_pixels,
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


def other_jumps(case: Case, generator: Generator) -> Case:
    _, schedule = at_other_speed(case, generator)
    times = [schedule.num_steps]
    while times[-1] > 5:
        times.append(times[-1] - whole(generator, 2, 4))
    return times, schedule


masks_left = Check(
    name="masks_left",
    question="the masked share at the last time, one small step in place of each jump",
    solution=small_steps,
    cases=[
        *((times, small_schedule()) for times in ([10, 7, 4, 1], [10, 5, 1], [9, 6, 3, 2])),
        *((times, MaskReplaceSchedule.released(7, 20)) for times in ([20, 14, 8, 2], [20, 9, 4])),
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
    vary=other_jumps,
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
LARGER = MaskReplaceSchedule.from_ends(num_codes=6, num_steps=15, gamma_end=0.6)


def other_renewal(case: Case, generator: Generator) -> Case:
    x_0, x_t, _, _, _, schedule = at_other_speed(case, generator)
    s = whole(generator, 2, 4)
    x_0 = (x_0 + whole(generator, 1, 2)) % schedule.num_codes
    return x_0, x_t, number(generator, 0.05, 0.9), s, s + whole(generator, 2, 5), schedule


corrected_law = Check(
    name="corrected_law",
    question="the distribution of x_s after a step of the corrector, `[K + 1]`",
    solution=corrected,
    cases=[
        *((1, x_t, renew, 3, 7, SMALL) for x_t in (1, 2, SMALL.mask_id) for renew in (0.1, 0.6)),
        *((x_0, x_t, 0.3, 4, 9, LARGER) for x_0 in (0, 5) for x_t in (3, LARGER.mask_id)),
    ],
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


def surest(
    log_p_x0: Tensor,
    x_t: Tensor,
    count: int,
    mask_id: int,
    *,
    badness: Callable[[Tensor, Tensor], Tensor] | None = None,
    among: Callable[[Tensor, int], Tensor] | None = None,
    ranked: bool = True,
) -> Tensor:
    """The step's distribution `[B, L, K + 1]`; the options are mistakes: another order, other positions, no ranks."""
    p = log_p_x0.exp()
    order = (badness or entropy)(p, log_p_x0)
    masked = x_t == mask_id
    ranked_ones = among(x_t, mask_id) if among else masked
    positions = order.masked_fill(~ranked_ones, torch.inf).argsort(dim=-1, stable=True)
    rank = positions.argsort(-1) if ranked else positions
    written = masked & (rank < count)
    return torch.where(written[..., None], F.pad(p, (0, 1)), F.one_hot(x_t, mask_id + 1).to(p))


def entropy(p: Tensor, log_p: Tensor) -> Tensor:
    return -torch.where(p > 0, p * log_p, 0.0).sum(-1)


def without_limit(p: Tensor, log_p: Tensor) -> Tensor:
    return -(p * log_p).sum(-1)


def negated(p: Tensor, log_p: Tensor) -> Tensor:
    return -entropy(p, log_p)


def everything_drawn(log_p_x0: Tensor, x_t: Tensor, count: int, mask_id: int) -> Tensor:
    return surest(log_p_x0, x_t, x_t.shape[1], mask_id)


def visible_drawn(log_p_x0: Tensor, x_t: Tensor, count: int, mask_id: int) -> Tensor:
    return surest(log_p_x0, torch.full_like(x_t, mask_id), count, mask_id)


def predictions(shape: tuple[int, int, int], seed: int, dtype: torch.dtype) -> Tensor:
    """Predictions of all degrees of certainty; one of two codes alone, and one that is less sure with a larger top."""
    generator = Generator().manual_seed(seed)
    logits = torch.randn(shape, dtype=torch.float64, generator=generator)
    logits = logits * torch.rand(shape[:2], dtype=torch.float64, generator=generator)[..., None] * 4
    least = torch.rand((), dtype=torch.float64, generator=generator) * 0.1
    logits[:, 0] = torch.tensor([0.5 - least / 5, 0.5 + least / 5, *[0.0] * (shape[2] - 2)], dtype=torch.float64).log()
    logits[:, 1] = torch.tensor([0.6 + least, *[(0.4 - least) / (shape[2] - 1)] * (shape[2] - 1)]).double().log()
    return logits.log_softmax(-1).to(dtype)


STATES = torch.tensor([[4, 4, 1, 4, 0, 4], [4, 4, 4, 4, 4, 4], [2, 3, 4, 0, 1, 2]])


def other_predictions(case: Case, generator: Generator) -> Case:
    _, x_t, _, _ = case
    batch, length, codes = whole(generator, 2, 3), x_t.shape[1] + whole(generator, 0, 2), whole(generator, 3, 6)
    states = torch.randint(2 * codes, (batch, length), generator=generator).clamp(max=codes)
    made = predictions((batch, length, codes), whole(generator, 0, 2**31), torch.float64)
    return made, states, whole(generator, 1, 3), codes


surest_first = Check(
    name="surest_first",
    question="the distribution of the next state `[B, L, K + 1]` where the `count` surest masked positions are written",
    solution=surest,
    cases=[
        (predictions((3, 6, 4), 1, torch.float64), STATES, 2, 4),
        (predictions((3, 6, 4), 2, torch.float32), STATES, 1, 4),
        (predictions((1, 5, 3), 3, torch.float64), torch.tensor([[3, 3, 0, 3, 3]]), 3, 3),
        (predictions((2, 3, 7), 4, torch.float32), torch.tensor([[7, 7, 7], [6, 7, 5]]), 2, 7),
    ],
    mistakes=[
        (
            "0 times -inf is nan: a code that is impossible adds nothing to the entropy",
            lambda *case: surest(*case, badness=without_limit),
        ),
        (
            "visible positions must not be ranked: only masked ones can be written",
            lambda *case: surest(*case, among=lambda x_t, mask_id: torch.ones_like(x_t, dtype=torch.bool)),
        ),
        ("that writes the positions with the largest entropy first", lambda *case: surest(*case, badness=negated)),
        (
            "that goes by the largest probability, which is another order than the entropy",
            lambda *case: surest(*case, badness=lambda p, log_p: -log_p.amax(-1)),
        ),
        (
            "argsort gives the positions in order; argsort of that gives the rank of each position",
            lambda *case: surest(*case, ranked=False),
        ),
        ("that writes every masked position, not `count` of them", everything_drawn),
        ("visible tokens stay as they are: only masked positions are written", visible_drawn),
        (
            "every masked position counts for the whole batch together; the ranking is within each grid",
            lambda log_p_x0, x_t, count, mask_id: surest(
                log_p_x0.flatten(0, 1)[None], x_t.flatten()[None], count, mask_id
            ).view(*x_t.shape, mask_id + 1),
        ),
    ],
    praise="the surest positions are drawn, everything else stays: the lab can enumerate it.",
    vary=other_predictions,
)
