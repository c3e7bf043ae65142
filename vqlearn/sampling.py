"""Samplers that draw every position of x_s independently, given x_t."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vqlearn.arguments import real, whole
from vqlearn.draws import Generators, draw, uniform, widest
from vqlearn.guidance import keep_known
from vqlearn.reverse import Denoiser, Evaluation, OnStep, Sampler, follow, prior_sample, strided_times
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import p_sample_step, q_posterior, q_posterior_sample, q_sample

__all__ = [
    "Ancestral", "Corrector", "FirstHitting", "OfficialFast", "ancestral", "first_hitting", "official_fast",
    "official_step", "official_times", "prior_sample", "settled", "strided_times",
]  # fmt: skip


class Ancestral(Sampler):
    """The exact posterior for any stride (VQ-Diffusion, Algorithm 2): x_s is drawn from p(x_s | x_t).

    Exact for any times: the step from t to s has the marginals that the schedule says.

    >>> from vqlearn import exactness
    >>> schedule = MaskReplaceSchedule.released(num_codes=2)
    >>> denoise = exactness.oracle(exactness.markov_chain(num_codes=2, length=2, stay=0.9), schedule)
    >>> generator = torch.Generator().manual_seed(1)
    >>> ancestral(denoise, torch.tensor([[2, 2]]), schedule, [100, 50, 0], generator=generator)  # from two masks
    tensor([[0, 0]])
    """

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
        return p_sample_step(log_p_x0, x_t, t, schedule, s=s, generator=generator)

    def step_law(self, log_p_x0: Tensor, x_t: Tensor, t: int, s: int, schedule: MaskReplaceSchedule) -> Tensor:
        return q_posterior(log_p_x0.log_softmax(-1), x_t, t, schedule, s=s).exp()


class OfficialFast(Sampler):
    """The public code's skip, kept to show what is wrong with it: one ordinary step in place of each jump.

    A token that is at t is treated as if it were at s + 1, so far too few masks are uncovered on the way, and the rest
    all at once at the end. From a time that the first stride would jump over, the step is the one at that time itself,
    as in the original (`sample_fast` of microsoft/VQ-Diffusion; `official_times` gives its times, which visit 1 last).
    """

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
        skip = times[0] - times[1] - 1

        def step(x_t: Tensor, t: int, s: int) -> Tensor:
            return p_sample_step(denoise(x_t, t), x_t, official_step(t, s, skip), schedule, generator=generator)

        return follow(x_t, times, step, on_step)

    def evaluations(self, schedule: MaskReplaceSchedule, times: list[int], length: int) -> Iterator[Evaluation]:
        skip = times[0] - times[1] - 1
        for t, s in itertools.pairwise(times):
            at = official_step(t, s, skip)
            yield Evaluation(t, functools.partial(ancestral.step_law, t=at, s=at - 1, schedule=schedule))


@dataclass(frozen=True)
class Corrector(Sampler):
    """As `ancestral`, but each x_s is with probability `renew` drawn anew from q(x_s | x_0), and so predicted again.

    A mistake that has become visible is so taken back. Given x_0 the old and the new draw have the same distribution,
    so q(x_s | x_0) stays what the schedule says, for any schedule and any `renew` (in the spirit of ReMDM, Wang et al.
    2025, which does it for masking alone). `renew=0` is `ancestral`; the last step is always that of `ancestral`.
    Raises ValueError unless 0 <= renew <= 1.
    """

    renew: float = 0.1

    def __post_init__(self) -> None:
        real("renew", self.renew, 0, 1)

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
        x_0 = draw(settled(log_p_x0, x_t, t, schedule), generator)
        x_s = q_posterior_sample(x_0, x_t, t, schedule, s=s, generator=generator)
        if s == 0 or self.renew == 0:
            return x_s
        again = uniform(x_t.shape, generator, x_t.device) < self.renew
        return torch.where(again, q_sample(x_0, s, schedule, generator=generator), x_s)

    def step_law(self, log_p_x0: Tensor, x_t: Tensor, t: int, s: int, schedule: MaskReplaceSchedule) -> Tensor:
        log_p = settled(log_p_x0.log_softmax(-1), x_t, t, schedule)
        kept = q_posterior(log_p, x_t, t, schedule, s=s).exp()
        if s == 0:
            return kept
        alpha, beta, gamma = schedule.bar(s)
        anew = torch.cat([alpha * log_p.exp() + beta, gamma.expand(*x_t.shape, 1).to(log_p)], dim=-1)
        return (1 - self.renew) * kept + self.renew * anew


class FirstHitting(Sampler):
    """The distribution of `ancestral` under masking alone, with network evaluations only where a token is uncovered.

    When a masked token is uncovered does not depend on any prediction, so all of these times are drawn first, exactly
    (first-hitting sampler, Zheng et al. 2024), and the steps of `times` in which nothing happens to any picture of the
    batch are left out. Raises ValueError for a schedule with replacement.
    """

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
        _check_masking_alone(schedule)
        masked_bar = schedule.gamma_bar[times].to(x_t.device, widest(x_t.device))  # falls from time t_0 to the last
        u = uniform(x_t.shape, generator, x_t.device) * masked_bar[0]
        # Uncovered in the step to the first time at which the masked share has fallen to u or below, if there is one
        event = torch.searchsorted(-masked_bar, -u).clamp(min=1)  # [B, L], index of s
        event = torch.where((x_t == schedule.mask_id) & (event < len(times)), event, 0)
        for number in filter(None, event.unique().tolist()):
            x_0 = draw(denoise(x_t, times[number - 1]), generator)
            x_t = torch.where(event == number, x_0, x_t)
            if on_step is not None:
                on_step(number - 1, times[number], x_t)
        return x_t

    def step_law(self, log_p_x0: Tensor, x_t: Tensor, t: int, s: int, schedule: MaskReplaceSchedule) -> Tensor:
        _check_masking_alone(schedule)
        return ancestral.step_law(log_p_x0, x_t, t, s, schedule)


ancestral, official_fast, first_hitting = Ancestral(), OfficialFast(), FirstHitting()


def settled(log_p_x0: Tensor, x_t: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    """A prediction that is certain of visible tokens where the schedule has no replacement, else the one given."""
    if bool(schedule.beta_bar[t] > 0):
        return log_p_x0
    return keep_known(log_p_x0, x_t, x_t != schedule.mask_id)


def official_step(t: int, s: int, skip: int) -> int:
    """The time at which the public code's skip takes its one step back, for a jump from t to s."""
    return s + 1 if t - 1 > skip or s == 0 else t


def official_times(num_steps: int, skip: int) -> list[int]:
    """The times that the public code visits with `skip_step=skip`: T, T - 1 - skip, ..., then 1 and 0.

    For T = 100 and skip 3: [100, 96, ..., 4, 1, 0], 26 network evaluations.

    >>> official_times(10, 3)
    [10, 6, 2, 1, 0]
    """
    num_steps, skip = whole("num_steps", num_steps), whole("skip", skip, 0)
    visited = list(range(num_steps, 0, -1 - skip))
    return [*visited, *([] if visited[-1] == 1 else [1]), 0]


def _check_masking_alone(schedule: MaskReplaceSchedule) -> None:
    if bool((schedule.beta_bar > 0).any()):
        raise ValueError("first_hitting needs a schedule without replacement (beta_bar = 0); use ancestral")
