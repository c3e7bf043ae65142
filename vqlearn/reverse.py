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

from vqlearn.arguments import real, shown, whole
from vqlearn.draws import (
    Generators,
    check_generators,
    fault,
    spell_position,
    undrawable,
    uniform,
    uniform_codes,
    widest,
)
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import check_tokens

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
    the call takes it along the times (or `run`, where a run is more than one step after the other); define `step_law`
    as well, and `exactness.outcome` measures the sampler exactly. A plain function with that signature is a sampler
    too, with the defaults of this class (`as_sampler`). Example::

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

        After each step `on_step(number, s, x_s)` is called. Raises ValueError for times that do not fall to 0, for
        tokens that are none, and for a prediction of another shape or with a value that is not finite (`Checked`).
        """
        if not callable(denoise):
            raise TypeError(f"denoise must be a function (x_t, t) -> log_p_x0, got {shown(denoise)}")
        times = falling(times, schedule.num_steps)
        check_tokens(x_t, schedule, "x_t", mask_allowed=True)
        check_generators(generator, len(x_t))
        checked = Checked(denoise, schedule.num_codes)
        with torch.no_grad():
            x_0 = self.run(checked, x_t, schedule, times, generator=generator, on_step=on_step)
        checked.at_the_end()
        return x_0

    def run(
        self,
        denoise: Denoiser,
        x_t: Tensor,
        schedule: MaskReplaceSchedule,
        times: list[int],
        *,
        generator: Generators = None,
        on_step: OnStep = None,
    ) -> Tensor:
        """What the call does once its arguments are checked; the times may end before 0. Here `step` after `step`."""

        def step(x_t: Tensor, t: int, s: int) -> Tensor:
            return self.step(denoise(x_t, t), x_t, t, s, schedule, generator=generator)

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
        shape = (whole("batch", batch, 0), whole("length", length))
        return torch.full(shape, schedule.mask_id, device=device)

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

    def run(
        self, denoise: Denoiser, x_t: Tensor, schedule: MaskReplaceSchedule, times: list[int], **more: Any
    ) -> Tensor:
        return self.function(denoise, x_t, schedule, times, **more)


class Checked:
    """A denoiser whose predictions are looked at: they must be `[B, L, K]` and something that can be drawn from.

    On a CPU a value that is not finite raises ValueError at once, elsewhere `at_the_end`, so that no step waits.
    """

    def __init__(self, denoise: Denoiser, num_codes: int):
        self.denoise, self.num_codes = denoise, num_codes
        self.seen: list[tuple[int, Tensor]] = []  # times, and where nothing can be drawn, [B, L]

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        log_p = self.denoise(x_t, t)
        wanted = [*x_t.shape, self.num_codes]
        if not isinstance(log_p, Tensor) or [*log_p.shape] != wanted or not log_p.is_floating_point():
            got = f"{log_p.dtype} {[*log_p.shape]}" if isinstance(log_p, Tensor) else shown(log_p)
            raise ValueError(f"the denoiser must give floating point {wanted} ([B, L, K], classes last), got {got}")
        bad = undrawable(log_p)
        if log_p.device.type != "cpu":
            self.seen.append((t, bad))
        elif bool(bad.any()):
            where = bad.nonzero()[0].tolist()
            self._refuse(t, where, fault(log_p[where[0], where[1]]))
        return log_p

    def at_the_end(self) -> None:
        """Raise ValueError for the first value that was not finite; the only wait for a GPU."""
        if self.seen and bool(torch.stack([bad.any() for _, bad in self.seen]).any()):
            t, bad = next((t, bad) for t, bad in self.seen if bool(bad.any()))
            self._refuse(t, bad.nonzero()[0].tolist(), "is not finite")

    def _refuse(self, t: int, where: list[int], what: str) -> None:
        raise ValueError(
            f"the denoiser's prediction at t = {t} {what} at {spell_position(where)}: nothing can be drawn"
        )


def as_sampler(sampler: Callable[..., Tensor]) -> Sampler:
    """A sampler as it is, and a plain function with the defaults of `Sampler`; raises TypeError for anything else."""
    if not callable(sampler) or isinstance(sampler, type):  # a class takes settings, and gives a sampler
        raise TypeError(f"a sampler must be a callable with the signature of ancestral, got {shown(sampler)}")
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
    num_steps = whole("num_steps", num_steps)
    count, power = whole("num_inference_steps", count, 1, num_steps), real("power", power, 1)
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
    shape = (whole("batch", batch, 0), whole("length", length))
    u, codes = uniform(shape, generator, device), uniform_codes(schedule.num_codes, shape, generator, device)
    masked = schedule.gamma_bar[-1].to(device, widest(device))
    return torch.where(u < masked, schedule.mask_id, codes)


def follow(x_t: Tensor, times: list[int], step: Callable[[Tensor, int, int], Tensor], on_step: OnStep = None) -> Tensor:
    """Take `step(x_t, t, s) -> x_s` along decreasing `times`, and after each call `on_step(number, s, x_s)`."""
    for number, (t, s) in enumerate(itertools.pairwise(times)):
        x_t = step(x_t, t, s)
        if on_step is not None:
            on_step(number, s, x_t)
    return x_t


def falling(times: Iterable[int], last: int | None = None) -> list[int]:
    """The times of a run as a list of ints; raises ValueError unless they fall strictly, from at most `last` to 0."""
    found = whole_times(times, 0, last)
    if len(found) < 2 or any(s >= t for t, s in itertools.pairwise(found)) or found[-1] != 0:
        raise ValueError(f"times must fall strictly and end at 0, got {shown(found)}")
    return found


def whole_times(times: Any, least: int, last: int | None) -> list[int]:
    """Times as a list of ints, from any sequence, tensor or array; ValueError unless each is from `least` to `last`."""
    try:  # the entries of a tensor or an array are ints only after `tolist`
        given = list(times.tolist() if hasattr(times, "tolist") else times)
    except TypeError:
        raise ValueError(f"times must be a sequence of whole numbers, got {shown(times)}") from None
    return [
        whole("each of times", t.item() if isinstance(t, Tensor) and t.ndim == 0 else t, least, last) for t in given
    ]
