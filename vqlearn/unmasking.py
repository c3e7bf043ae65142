"""Samplers that decide which positions to write next: they uncover masked ones by a rule, and leave visible ones alone.

All start from masks alone, as the public code does, uncover as many tokens by each time as the schedule's masked share
asks for, and end with the step of `ancestral` to s = 0, which fills what is left and, where the schedule has
replacement, draws every token once more.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vqlearn.arguments import real, shown, whole
from vqlearn.choices import Choice, halton_order, halton_rank, joint_of, write, written
from vqlearn.draws import Generators, send
from vqlearn.reverse import Denoiser, Evaluation, FromMasks, OnStep, follow
from vqlearn.sampling import ancestral
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import p_sample_step

__all__ = [
    "Confident", "EntropyBounded", "Halton", "HighQuality", "Purity", "Unmasking", "entropy", "halton_order",
    "per_call", "time_of_share",
]  # fmt: skip


class Unmasking(FromMasks):
    """What the samplers of this module share; each is a rule `choose(log_p_x0, x_t) -> Choice`."""

    most: int | None = None  # tokens per network evaluation and picture; None: all that a step asks for
    quota: tuple[int, ...] | None = None  # tokens per step, the last step left out; None: what the schedule asks for

    def __post_init__(self) -> None:
        """Raise ValueError for numbers of tokens that are none: with most=0 a step would never end."""
        if self.most is not None:
            object.__setattr__(self, "most", whole("most", self.most, 1, 2**31))
        if self.quota is not None:
            if not isinstance(self.quota, tuple | list):
                raise ValueError(f"quota must be a tuple of numbers of tokens, one per step, got {shown(self.quota)}")
            object.__setattr__(self, "quota", tuple(whole("each number of quota", n, 0) for n in self.quota))

    def choose(self, log_p: Tensor, x_t: Tensor) -> Choice:
        """Which positions come first, and the distribution of their tokens."""
        raise NotImplementedError

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
        """As `ancestral`; a step that asks for more than `most` tokens takes several network evaluations."""
        _check_masks(schedule)
        at_first = (x_t == schedule.mask_id).sum(-1).cpu()  # [B]; how many are left later on follows from the schedule

        def step(x_t: Tensor, t: int, s: int) -> Tensor:
            if s == 0:
                return p_sample_step(denoise(x_t, t), x_t, t, schedule, s=0, generator=generator)
            number = times.index(t)
            before = self.left(at_first, number - 1, times, schedule) if number else at_first
            ask = (before - self.left(at_first, number, times, schedule)).clamp(min=0)
            return self._reveal(denoise, x_t, t, schedule, ask, generator)

        return follow(x_t, times, step, on_step)

    def left(self, at_first: Tensor, number: int, times: list[int], schedule: MaskReplaceSchedule) -> Tensor:
        """How many of `at_first` `[B]` masks are left after step `number`: the schedule's share, to a whole number."""
        if self.quota is not None:
            if len(self.quota) < len(times) - 2:
                raise ValueError(
                    f"quota must name {len(times) - 2} numbers of tokens, one per step, got {len(self.quota)}"
                )
            return (at_first - sum(self.quota[: number + 1])).clamp(min=0)
        share = float(schedule.gamma_bar[times[number + 1]] / schedule.gamma_bar[times[0]])
        return (at_first * share).round().long()

    def _reveal(
        self,
        denoise: Denoiser,
        x_t: Tensor,
        t: int,
        schedule: MaskReplaceSchedule,
        ask: Tensor,
        generator: Generators,
    ) -> Tensor:
        """Network evaluations at t until `ask` `[B]` positions are uncovered; it is on the CPU: no wait for a GPU."""
        while bool((ask > 0).any()):
            count = per_call(ask, self.most)
            choice = self.choose(denoise(x_t, t), x_t)
            x_t = write(choice, x_t, send(count, x_t.device), schedule.mask_id, generator)
            ask = ask - count
        return x_t

    def evaluations(self, schedule: MaskReplaceSchedule, times: list[int], length: int) -> Iterator[Evaluation]:
        """Those of a run that begins with masks alone."""
        _check_masks(schedule)
        at_first = torch.tensor(length)
        before = length
        for number, (t, s) in enumerate(itertools.pairwise(times)):
            if s == 0:
                yield Evaluation(t, functools.partial(ancestral.step_law, t=t, s=0, schedule=schedule))
                return
            left = int(self.left(at_first, number, times, schedule))
            ask = torch.tensor(max(0, before - left))
            while ask > 0:
                yield Evaluation(t, functools.partial(self._distribution, left=left, mask_id=schedule.mask_id))
                ask = ask - per_call(ask, self.most)
            before = left

    def _distribution(self, log_p: Tensor, x_t: Tensor, left: int, mask_id: int) -> Tensor:
        """The distribution after one evaluation of a step by whose end `left` masks are left, `[B, (K + 1)^L]`."""
        ask = ((x_t == mask_id).sum(-1) - left).clamp(min=0)
        return written(self.choose(log_p, x_t), x_t, per_call(ask, self.most), mask_id)


def per_call(ask: Tensor, most: int | None) -> Tensor:
    """Tokens of the next evaluation, `[B]`: at most `most`, but none is made for a single token that is left.

    >>> per_call(torch.tensor([11, 6]), 5)
    tensor([5, 6])
    """
    if most is None:
        return ask
    count = ask.clamp(max=most)
    return torch.where(ask - count == 1, ask, count)


@dataclass(frozen=True)
class HighQuality(Unmasking):
    """Fewer tokens per evaluation, at random positions (Improved VQ-Diffusion, section 3.2; `prior_rule=1`)."""

    most: int | None = None
    quota: tuple[int, ...] | None = None

    def choose(self, log_p: Tensor, x_t: Tensor) -> Choice:
        return Choice(torch.zeros(x_t.shape, device=x_t.device), log_p, at_random=True)


@dataclass(frozen=True)
class Purity(Unmasking):
    """Write first where the prediction is purest (Improved VQ-Diffusion, section 3.2; `prior_rule=2`).

    Positions are drawn in proportion to max_k p(x_0 = k). With a `weight` over 0 (the paper's r) codes are drawn from
    the prediction to the power 1 + weight * purity, purity being relative to the purest position of the picture.
    """

    weight: float = 1.0
    most: int | None = None
    quota: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        real("weight", self.weight, 0)

    def choose(self, log_p: Tensor, x_t: Tensor) -> Choice:
        top = log_p.amax(-1)  # [B, L]
        purity = (top - top.amax(-1, keepdim=True)).exp()
        sharp = log_p * (1 + self.weight * purity[..., None]) if self.weight else log_p
        return Choice(top, sharp, at_random=True)


@dataclass(frozen=True)
class Confident(Unmasking):
    """Write first where the prediction is surest: parallel decoding in the manner of MaskGIT (Chang et al. 2022)."""

    most: int | None = None
    quota: tuple[int, ...] | None = None

    def choose(self, log_p: Tensor, x_t: Tensor) -> Choice:
        return Choice(log_p.amax(-1), log_p, at_random=False)


@dataclass(frozen=True)
class Halton(Unmasking):
    """Write in the order of a Halton sequence over the grid, so that the positions of one evaluation lie far apart."""

    most: int | None = None
    quota: tuple[int, ...] | None = None

    def choose(self, log_p: Tensor, x_t: Tensor) -> Choice:
        return Choice(-halton_rank(x_t.shape[1], x_t.device).expand(x_t.shape), log_p, at_random=False)


@dataclass(frozen=True)
class EntropyBounded(Unmasking):
    """As many positions at a time as their entropies allow: the surest, while all but the largest sum to <= `bound`.

    The entropies bound how much positions that are drawn independently can depend on each other (Ben-Hamu et al. 2025).
    The number of evaluations follows from the predictions, at most that of `times`; the time given to the network is
    that of the masked share.
    """

    bound: float = 0.5  # nats

    def __post_init__(self) -> None:
        real("bound", self.bound, 0)

    def choose(self, log_p: Tensor, x_t: Tensor) -> Choice:
        return Choice(-entropy(log_p), log_p, at_random=False)

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
        _check_masks(schedule)
        at_first = int((x_t == schedule.mask_id).sum(-1).max())
        for number, s in enumerate(times[1:]):
            masked = x_t == schedule.mask_id
            share = int(masked.sum(-1).max()) / max(1, at_first)
            t = time_of_share(share, schedule, times[0])
            log_p = denoise(x_t, t)
            count = self.count(log_p, masked)
            done = s == 0 or (times[-1] == 0 and bool((count >= masked.sum(-1)).all()))
            if done:
                x_t = p_sample_step(log_p, x_t, t, schedule, s=0, generator=generator)
            else:
                x_t = write(self.choose(log_p, x_t), x_t, count, schedule.mask_id, generator)
            if on_step is not None:
                on_step(number, 0 if done else t, x_t)
            if done:
                break
        return x_t

    def evaluations(self, schedule: MaskReplaceSchedule, times: list[int], length: int) -> Iterator[Evaluation]:
        """At most one per step; a grid that has no mask left is finished."""

        _check_masks(schedule)

        def time(x_t: Tensor) -> Tensor:
            shares = ((x_t == schedule.mask_id).sum(-1) / length).tolist()
            return torch.tensor([time_of_share(share, schedule, times[0]) if share else 0 for share in shares])

        def distribution(log_p: Tensor, x_t: Tensor, last: bool) -> Tensor:
            masked = x_t == schedule.mask_id
            count = self.count(log_p, masked)
            t = int(time(x_t[:1]))
            final = joint_of(ancestral.step_law(log_p, x_t, t, 0, schedule))
            done = torch.full_like(count, last, dtype=torch.bool) | (count >= masked.sum(-1))
            return torch.where(done[:, None], final, written(self.choose(log_p, x_t), x_t, count, schedule.mask_id))

        for number in range(len(times) - 1):
            yield Evaluation(time, functools.partial(distribution, last=number == len(times) - 2))

    def count(self, log_p: Tensor, masked: Tensor) -> Tensor:
        """How many positions the bound allows, `[B]`, at least one."""
        each = entropy(log_p).masked_fill(~masked, torch.inf).sort(-1)[0]  # [B, L]
        before = (
            each.masked_fill(each.isinf(), 0).cumsum(-1) - each
        )  # of all that are surer; the largest does not count
        return ((before <= self.bound) & ~each.isinf()).sum(-1).clamp(min=1)


def _check_masks(schedule: MaskReplaceSchedule) -> None:
    if not bool(schedule.gamma_bar[-1] > 0):
        raise ValueError("a sampler that uncovers masks needs a schedule with masks (gamma_bar[T] > 0); use ancestral")


def time_of_share(share: float, schedule: MaskReplaceSchedule, last: int) -> int:
    """The first time, at most `last`, by which at least this share of the masks of time `last` has appeared."""
    curve = schedule.gamma_bar.cpu() / schedule.gamma_bar[last].cpu()
    return min(last, max(1, int(torch.searchsorted(curve, torch.tensor(share, dtype=torch.float64)))))


def entropy(log_p: Tensor) -> Tensor:
    """Entropy of a prediction in nats, `[B, L, K]` -> `[B, L]`, of its mass if that is less than 1."""
    return -(log_p.exp() * log_p.clamp(min=-1e30)).sum(-1)
