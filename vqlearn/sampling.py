"""Walking back from x_T to x_0: every sampler of the package has the signature of `ancestral`.

A denoiser is `denoise(x_t, t) -> log_p_x0`: tokens `[B, L]` and an int to `[B, L, K]`. Samplers know no network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqlearn.guidance import keep_known
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import (
    Generators,
    draw,
    p_sample_step,
    q_posterior_sample,
    q_sample,
    uniform,
    uniform_codes,
)

Denoiser = Callable[[Tensor, int], Tensor]
OnStep = Callable[[int, int, Tensor], None] | None


def strided_times(num_steps: int, count: int, power: float = 1.0) -> list[int]:
    """`count` + 1 times from T down to 0, each the nearest whole number to an even stride, halves upwards.

    For T = 10 and 4 steps: [10, 8, 5, 3, 0]. `power` above 1 makes the strides shorter towards 0: with k steps left the
    time is T (k / count)^power, but at least k. Raises ValueError unless 1 <= count <= T and power >= 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= num_steps:
        raise ValueError(f"num_inference_steps must be a whole number from 1 to {num_steps}, got {count!r}")
    if isinstance(power, bool) or not isinstance(power, int | float) or not 1 <= power < math.inf:
        raise ValueError(f"power must be a number of at least 1, got {power!r}")
    if power == 1:
        return [(2 * num_steps * left + count) // (2 * count) for left in range(count, -1, -1)]
    return [max(left, math.floor(num_steps * (left / count) ** power + 0.5)) for left in range(count, -1, -1)]


def prior_sample(
    schedule: MaskReplaceSchedule, batch: int, length: int, *, generator: Generators = None, device="cpu"
) -> Tensor:
    """Draw x_T from the prior: masked with probability gamma_bar_T, else a code drawn uniformly; `[batch, length]`."""
    shape = (batch, length)
    u, codes = uniform(shape, generator, device), uniform_codes(schedule.num_codes, shape, generator, device)
    return torch.where(u < schedule.gamma_bar[-1].to(device), schedule.mask_id, codes)


def walk(
    x_t: Tensor, times: Iterable[int], step: Callable[[Tensor, int, int], Tensor], on_step: OnStep = None
) -> Tensor:
    """Take `step(x_t, t, s) -> x_s` along decreasing `times`, and after each call `on_step(number, s, x_s)`.

    Raises ValueError for times that do not fall to 0.
    """
    for number, (t, s) in enumerate(itertools.pairwise(falling(times))):
        x_t = step(x_t, t, s)
        if on_step is not None:
            on_step(number, s, x_t)
    return x_t


@torch.no_grad()
def ancestral(
    denoise: Denoiser,
    x_t: Tensor,
    schedule: MaskReplaceSchedule,
    times: Iterable[int],
    *,
    generator: Generators = None,
    on_step: OnStep = None,
) -> Tensor:
    """Walk x_t back along decreasing `times`, each step drawn from p(x_s | x_t) (VQ-Diffusion, Algorithm 2).

    Exact for any times: the first is the time of `x_t`, the last is 0. After each step
    `on_step(number, s, x_s)` is called. Returns x_0 `[B, L]`. Raises ValueError for times that do not fall.
    """

    def step(x_t: Tensor, t: int, s: int) -> Tensor:
        return p_sample_step(denoise(x_t, t), x_t, t, schedule, s=s, generator=generator)

    return walk(x_t, times, step, on_step)


@torch.no_grad()
def official_fast(
    denoise: Denoiser,
    x_t: Tensor,
    schedule: MaskReplaceSchedule,
    times: Iterable[int],
    *,
    generator: Generators = None,
    on_step: OnStep = None,
) -> Tensor:
    """The public code's skip, kept to show what is wrong with it: one ordinary step in place of each jump.

    A token that is at t is treated as if it were at s + 1, so far too few masks are uncovered on the way, and the rest
    all at once at the end. From a time that the first stride would jump over, the step is the one at that time itself,
    as in the original (`sample_fast` of microsoft/VQ-Diffusion; `official_times` gives its times, which visit 1 last).
    """
    times = falling(times)
    skip = times[0] - times[1] - 1

    def step(x_t: Tensor, t: int, s: int) -> Tensor:
        return p_sample_step(denoise(x_t, t), x_t, official_step(t, s, skip), schedule, generator=generator)

    return walk(x_t, times, step, on_step)


def official_step(t: int, s: int, skip: int) -> int:
    """The time at which the public code's skip takes its one step back, for a jump from t to s."""
    return s + 1 if t - 1 > skip or s == 0 else t


def official_times(num_steps: int, skip: int) -> list[int]:
    """The times that the public code visits with `skip_step=skip`: T, T - 1 - skip, ..., then 1 and 0.

    For T = 100 and skip 3: [100, 96, ..., 4, 1, 0], 26 network calls.
    """
    visited = list(range(num_steps, 0, -1 - skip))
    return [*visited, *([] if visited[-1] == 1 else [1]), 0]


@dataclass(frozen=True)
class Corrector:
    """Re-noise and re-predict: `ancestral`, but each x_s is with probability `renew` drawn anew from q(x_s | x_0).

    A mistake that has become visible is so taken back and predicted again. Given x_0 the old and the new draw have the
    same law, so q(x_s | x_0) stays what the schedule says, for any schedule and any `renew` (in the spirit of ReMDM,
    Wang et al. 2025, which does it for masking alone). `renew=0` is `ancestral`; the last step is always that of
    `ancestral`. Raises ValueError unless 0 <= renew <= 1.
    """

    renew: float = 0.1

    def __post_init__(self):
        if not (isinstance(self.renew, int | float) and 0 <= self.renew <= 1):
            raise ValueError(f"renew must lie in [0, 1], got {self.renew!r}")

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoiser,
        x_t: Tensor,
        schedule: MaskReplaceSchedule,
        times: Iterable[int],
        *,
        generator: Generators = None,
        on_step: OnStep = None,
    ) -> Tensor:
        def step(x_t: Tensor, t: int, s: int) -> Tensor:
            x_0 = draw(settled(denoise(x_t, t), x_t, t, schedule), generator)
            x_s = q_posterior_sample(x_0, x_t, t, schedule, s=s, generator=generator)
            if s == 0 or self.renew == 0:
                return x_s
            again = uniform(x_t.shape, generator, x_t.device) < self.renew
            return torch.where(again, q_sample(x_0, s, schedule, generator=generator), x_s)

        return walk(x_t, times, step, on_step)


@torch.no_grad()
def first_hitting(
    denoise: Denoiser,
    x_t: Tensor,
    schedule: MaskReplaceSchedule,
    times: Iterable[int],
    *,
    generator: Generators = None,
    on_step: OnStep = None,
) -> Tensor:
    """The law of `ancestral` under masking alone, with a network call only where a token is uncovered.

    When a masked token is uncovered does not depend on any belief, so all of these times are drawn first, exactly
    (first-hitting sampler, Zheng et al. 2024), and the steps of `times` in which nothing happens to any picture of the
    batch are left out. Raises ValueError for a schedule with replacement.
    """
    times = falling(times)
    if bool((schedule.beta_bar > 0).any()):
        raise ValueError("first_hitting needs a schedule without replacement (beta_bar = 0); use ancestral")
    masked_bar = schedule.gamma_bar[times].to(x_t.device)  # falls from time t_0 to 0
    u = uniform(x_t.shape, generator, x_t.device) * masked_bar[0]
    # Uncovered in the step to the first time at which the masked share has fallen to u or below
    event = torch.searchsorted(-masked_bar, -u).clamp(1, len(times) - 1)  # [B, L], index of s
    event = torch.where(x_t == schedule.mask_id, event, 0)
    for number in event.unique().tolist():
        if number == 0:
            continue
        x_0 = draw(denoise(x_t, times[number - 1]), generator)
        x_t = torch.where(event == number, x_0, x_t)
        if on_step is not None:
            on_step(number - 1, times[number], x_t)
    return x_t


def keeping(sampler: Callable, x_0: Tensor, known: Tensor) -> Callable:
    """A sampler that keeps the tokens of `x_0` `[B, L]` where `known` `[B, L]` is true; it draws the rest as before."""

    def kept(denoise: Denoiser, x_t: Tensor, schedule: MaskReplaceSchedule, times: Iterable[int], **more) -> Tensor:
        return sampler(lambda x, t: keep_known(denoise(x, t), x_0, known), x_t, schedule, times, **more)

    for name in ("start", "times"):
        if hasattr(sampler, name):
            setattr(kept, name, getattr(sampler, name))
    return kept


def settled(log_p_x0: Tensor, x_t: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    """A belief that is certain of visible tokens where the schedule has no replacement, else the belief itself."""
    if bool(schedule.beta_bar[t] > 0):
        return log_p_x0
    return keep_known(log_p_x0, x_t, x_t != schedule.mask_id)


def falling(times: Iterable[int]) -> list[int]:
    """The times of a walk as a list; raises ValueError unless they fall strictly and end at 0."""
    times = list(times)
    if len(times) < 2 or any(s >= t for t, s in itertools.pairwise(times)) or times[-1] != 0:
        raise ValueError(f"times must fall strictly and end at 0, got {times}")
    return times
