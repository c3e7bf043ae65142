"""The reverse process, from x_T to x_0: what a denoiser and a sampler are, and the times of a run.

A denoiser is `denoise(x_t, t) -> log_p_x0`: tokens `[B, L]` and an int to `[B, L, K]`. Samplers know no network.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqlearn.draws import Generators, uniform, uniform_codes
from vqlearn.schedule import MaskReplaceSchedule

Denoiser = Callable[[Tensor, int], Tensor]
OnStep = Callable[[int, int, Tensor], None] | None


class Evaluation(NamedTuple):
    """One network evaluation of a run, as the distribution of the state after it, for `exactness.outcome`.

    `t` is the time that the network is given, or a function of x_t `[B, L]` to int64 `[B]`, where 0 says that the row
    is finished and evaluates nothing. `law(log_p_x0, x_t)` gives what `Sampler.step_law` gives.
    """

    t: int | Callable[[Tensor], Tensor]
    law: Callable[[Tensor, Tensor], Tensor]


class Sampler:
    """What all samplers share, and the defaults for one of your own.

    A sampler is a callable `sampler(denoise, x_t, schedule, times, *, generator, on_step) -> x_0`. Define `step`, and
    the call takes it along the times; define `step_law` as well, and `exactness.outcome` measures the sampler exactly.
    A plain function with that signature is a sampler too, with the defaults of this class (`as_sampler`). Example::

        class Sharper(vqlearn.Sampler):
            def step(self, log_p_x0, x_t, t, s, schedule, *, generator=None):
                return vqlearn.p_sample_step(2 * log_p_x0, x_t, t, schedule, s=s, generator=generator)

            def step_law(self, log_p_x0, x_t, t, s, schedule):
                return vqlearn.q_posterior((2 * log_p_x0).log_softmax(-1), x_t, t, schedule, s=s).exp()
    """

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
        """Go from x_t `[B, L]` to x_0 along decreasing `times`, the first that of `x_t`, the last 0.

        After each step `on_step(number, s, x_s)` is called. Raises ValueError for times that do not fall to 0.
        """

        def step(x_t: Tensor, t: int, s: int) -> Tensor:
            return self.step(denoise(x_t, t), x_t, t, s, schedule, generator=generator)

        with torch.no_grad():
            return follow(x_t, times, step, on_step)

    def step(
        self,
        log_p_x0: Tensor,
        x_t: Tensor,
        t: int,
        s: int,
        schedule: MaskReplaceSchedule,
        *,
        generator: Generators = None,
    ) -> Tensor:
        """Draw x_s `[B, L]` from x_t and the prediction log p(x_0 | x_t) `[B, L, K]`."""
        raise NotImplementedError(f"{name_of(self)} defines neither __call__ nor step")

    def start(
        self,
        schedule: MaskReplaceSchedule,
        batch: int,
        length: int,
        *,
        generator: Generators = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw the first state, int64 `[batch, length]`; here x_T from the prior."""
        return prior_sample(schedule, batch, length, generator=generator, device=device)

    def start_law(self, schedule: MaskReplaceSchedule) -> Tensor:
        """The distribution of each position's first state, float64 `[K + 1]`; here the prior."""
        return schedule.prior()

    def times(self, schedule: MaskReplaceSchedule, count: int) -> list[int]:
        """The times of a run of `count` steps, from T down to 0; here an even stride."""
        return strided_times(schedule.num_steps, count)

    def step_law(self, log_p_x0: Tensor, x_t: Tensor, t: int, s: int, schedule: MaskReplaceSchedule) -> Tensor:
        """The distribution of x_s that a step draws from, as probabilities.

        `[B, L, K + 1]` where positions are drawn independently, else `[B, (K + 1)^L]` over all states, in the order of
        `exactness.grids`. `log_p_x0` need not sum to 1 after truncation.
        """
        raise NotImplementedError(f"{name_of(self)} does not state its distribution, it has no step_law")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def evaluations(self, schedule: MaskReplaceSchedule, times: list[int], length: int) -> Iterator[Evaluation]:
        """The network evaluations of a run; here one per step, with `step_law`."""
        for t, s in itertools.pairwise(times):
            yield Evaluation(t, functools.partial(self.step_law, t=t, s=s, schedule=schedule))


class FromMasks(Sampler):
    """A sampler that starts from masks alone, whatever the schedule's prior is, as the public code does."""

    def start(
        self,
        schedule: MaskReplaceSchedule,
        batch: int,
        length: int,
        *,
        generator: Generators = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Masks alone, `[batch, length]`; nothing is drawn."""
        return torch.full((batch, length), schedule.mask_id, device=device)

    def start_law(self, schedule: MaskReplaceSchedule) -> Tensor:
        """Certainly the mask, `[K + 1]`."""
        return torch.eye(schedule.num_codes + 1, dtype=torch.float64)[schedule.mask_id]


class _Function(Sampler):
    """A plain function, or any callable, as a sampler; it may have methods of the protocol itself."""

    def __init__(self, function: Callable[..., Tensor]):
        self.function = function
        for name in ("start", "start_law", "times", "step_law", "evaluations"):
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.function(*args, **kwargs)


def as_sampler(sampler: Callable[..., Tensor]) -> Sampler:
    """A sampler as it is, and a plain function with the defaults of `Sampler`; raises TypeError for anything else."""
    if not callable(sampler):
        raise TypeError(f"a sampler must be a callable with the signature of ancestral, got {sampler!r:.60}")
    return sampler if isinstance(sampler, Sampler) else _Function(sampler)


def name_of(sampler: object) -> str:
    """What to call a sampler in a message."""
    function = sampler.function if isinstance(sampler, _Function) else sampler
    return getattr(function, "__name__", type(function).__name__)


def strided_times(num_steps: int, count: int, power: float = 1.0) -> list[int]:
    """`count` + 1 times from T down to 0, each the nearest whole number to an even stride, halves upwards.

    For T = 10 and 4 steps: [10, 8, 5, 3, 0]. `power` above 1 makes the strides shorter towards 0: with k steps left the
    time is T (k / count)^power, but at least k. Raises ValueError unless 1 <= count <= T and power >= 1.

    >>> strided_times(100, 4)
    [100, 75, 50, 25, 0]
    >>> strided_times(100, 4, power=2)
    [100, 56, 25, 6, 0]
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= num_steps:
        raise ValueError(f"num_inference_steps must be a whole number from 1 to {num_steps}, got {count!r}")
    if isinstance(power, bool) or not isinstance(power, int | float) or not 1 <= power < math.inf:
        raise ValueError(f"power must be a number of at least 1, got {power!r}")
    if power == 1:
        return [(2 * num_steps * left + count) // (2 * count) for left in range(count, -1, -1)]
    return [max(left, math.floor(num_steps * (left / count) ** power + 0.5)) for left in range(count, -1, -1)]


def prior_sample(
    schedule: MaskReplaceSchedule,
    batch: int,
    length: int,
    *,
    generator: Generators = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw x_T from the prior: masked with probability gamma_bar_T, else a code drawn uniformly; `[batch, length]`."""
    shape = (batch, length)
    u, codes = uniform(shape, generator, device), uniform_codes(schedule.num_codes, shape, generator, device)
    return torch.where(u < schedule.gamma_bar[-1].to(device), schedule.mask_id, codes)


def follow(
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


def falling(times: Iterable[int]) -> list[int]:
    """The times of a run as a list; raises ValueError unless they fall strictly and end at 0."""
    times = list(times)
    if len(times) < 2 or any(s >= t for t, s in itertools.pairwise(times)) or times[-1] != 0:
        raise ValueError(f"times must fall strictly and end at 0, got {times}")
    return times
