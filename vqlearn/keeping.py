"""Sampling given some of the tokens: a sampler's conditional distribution, for inpainting.

The known tokens are clean, and the denoiser should take them as certain. It does at a time t where nothing has been
replaced, but a schedule with replacement has taught it to doubt each visible token at the odds

    r_t = K beta_bar_t / alpha_bar_t    (replaced to kept),

which are large at early times of the reverse process. So nothing is ever replaced here: the run is that of masks alone,
whose masked share is gamma'_t = 1 - alpha_bar_t (a token that is known to be replaced tells as little as a mask), its
visible tokens are clean too, and by Bayes' rule p(x_0 | x_t) = p(x_0 | visible tokens), whatever t is. A denoiser that
is evaluated at t' instead of t gives this up to a term of order r_t', which goes to 0 with t'. Yet a trained network
has seen m masks of L only near the times with gamma_bar_t' = m / L: at t' it has seen as many with probability about
exp(-L KL(m / L || gamma_bar_t')) (Chernoff). Hence t' is the earliest time at which this costs no more than `surprise`
nats. With surprise = inf and an ideal denoiser the distribution is the exact conditional one, up to r_1 (1e-6 for the
presets) and to what the sampler itself errs by, which falls with the number of steps.

A schedule that masks nothing has no such t': the run is along the schedule itself, and early tokens are drawn beside
known ones that the denoiser doubts. So after the run unknown tokens are drawn once more, one at an evaluation and as
many as the run had steps, given all the others. Their distribution follows from a prediction, for by Bayes' rule
p(x_0^i | x_t) is in proportion to q(x_t^i | x_0^i) p(x_0^i | the other x_t). These draws are Gibbs sampling, which
leads to the conditional distribution from wherever it begins, up to the odds r_t at the time of evaluation. This is the
first time with r_t >= exp(-surprise), since a network has hardly seen a rarer replacement; with surprise = inf it is 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vqlearn import samplers
from vqlearn.arguments import shown
from vqlearn.choices import joint_of
from vqlearn.draws import Generators, draw
from vqlearn.guidance import keep_known
from vqlearn.reverse import Denoiser, Evaluation, FromMasks, OnStep, Sampler
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_likelihood, q_log_probs, q_sample
from vqlearn.unmasking import Unmasking

NEGLIGIBLE = 1e-5  # odds r_t that need no earlier time
ROUNDING = 1e-6  # of a float share


class Part(NamedTuple):
    """A part of a run in which the same tokens are known: from entry `begin` of the times to entry `end`."""

    begin: int
    end: int
    known: Tensor  # bool [B or 1, L], on the CPU


@dataclass(frozen=True, eq=False, repr=False)
class Keeping(Sampler):
    """Another sampler, given that the tokens of `x_0` are known where `known` says so (the module says how).

    `x_0` and `known` are `[B, L]`, or `[1, L]` or `[L]` for all pictures. `known` is bool, or a float in [0, 1]: the
    part of the reverse process for which the token is kept, 1 to the end, 0 not at all. A token with f in between is
    visible at the times t > (1 - f) T, is then noised to q(x_t | x_0) of masks alone, and is drawn as all others are.
    `sampler` is a name in `SAMPLERS`, a `Sampler` or a function; `surprise` is in nats. With a schedule that masks
    nothing a run takes twice as many network evaluations as it has steps.
    Raises ValueError for other shapes, codes or shares, TypeError for what is no tensor.
    """

    sampler: Any
    x_0: Tensor
    known: Tensor
    surprise: float = 5.0

    def __post_init__(self) -> None:
        x_0, known = (_rows(name, getattr(self, name)) for name in ("x_0", "known"))
        for name, value in (("sampler", samplers.find(self.sampler)), ("x_0", x_0), ("known", known)):
            object.__setattr__(self, name, value)
        if x_0.dtype != torch.int64 or not (known.dtype == torch.bool or known.is_floating_point()):
            raise ValueError(f"x_0 must be int64 and known bool or floats, got {x_0.dtype} and {known.dtype}")
        if x_0.shape[1] != known.shape[1] or (len(x_0) != len(known) and 1 not in (len(x_0), len(known))):
            raise ValueError(f"known must be for the tokens of x_0, {[*x_0.shape]}, got {[*known.shape]}")
        if known.is_floating_point() and not bool(((known >= 0) & (known <= 1)).all()):
            raise ValueError("known must hold shares of the reverse process, numbers in [0, 1]")
        if isinstance(self.surprise, bool) or not isinstance(self.surprise, int | float) or not self.surprise >= 0:
            raise ValueError(f"surprise must be a number of at least 0, got {shown(self.surprise)}")

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
        along, x_0 = masks_alone(schedule), self._codes(x_t, schedule)
        was_known = torch.zeros_like(x_t, dtype=torch.bool)
        own = type(self.sampler).__call__ is not Sampler.__call__  # a call of its own takes the place of a run
        go = self.sampler if own else self.sampler.run
        if times[0] == schedule.num_steps and _masks(schedule):
            x_t = torch.full_like(x_t, schedule.mask_id)  # at T what is visible and not known says nothing
        for part in self._parts(schedule, times):
            known, t = part.known.to(x_t.device).expand_as(x_t), times[part.begin]
            if part.begin:
                x_t = torch.where(was_known & ~known, q_sample(x_0, t, along, generator=generator), x_t)
            x_t = torch.where(known, x_0, x_t)
            given = _given(denoise, x_0, known, self._denoiser_times(part.known, schedule))
            steps = times[part.begin : part.end + 1]
            x_t = go(given, x_t, along, steps, generator=generator, on_step=_later(on_step, part.begin))
            was_known = known
        if times[-1] == 0:
            for again, t in self._again(schedule, len(times) - 1):
                log_p = beside_others(denoise(x_t, t), x_t, t, schedule)
                x_t = torch.where(again.to(x_t.device), draw(log_p, generator), x_t)
        return torch.where(was_known, x_0, x_t)

    def start(self, schedule: MaskReplaceSchedule, batch: int, length: int, **more: Any) -> Tensor:
        """The known tokens, elsewhere masks; where nothing is ever masked, codes drawn uniformly."""
        first = FromMasks() if _masks(schedule) else Sampler()
        x_t = first.start(schedule, batch, length, **more)
        known = self._known_at(schedule.num_steps, schedule).to(x_t.device)
        return torch.where(known, self._codes(x_t, schedule), x_t)

    def start_law(self, schedule: MaskReplaceSchedule) -> Tensor:
        """The distribution of each position's first state, float64 `[L, K + 1]`, of a single picture."""
        first = FromMasks() if _masks(schedule) else Sampler()
        known, eye = self._known_at(schedule.num_steps, schedule), torch.eye(schedule.num_codes + 1).double()
        return torch.where(known[0, :, None], eye[self.x_0[0].cpu()], first.start_law(schedule))

    def times(self, schedule: MaskReplaceSchedule, count: int) -> list[int]:
        found: list[int] = self.sampler.times(schedule, count)
        return found

    def evaluations(self, schedule: MaskReplaceSchedule, times: list[int], length: int) -> Iterator[Evaluation]:
        """Those of the sampler in each part; what a part releases is noised after its last one."""
        along, parts = masks_alone(schedule), self._parts(schedule, times)
        if len(parts) > 1 and isinstance(self.sampler, Unmasking):
            raise NotImplementedError("how many masks a release leaves is random: this sampler states no distribution")
        for part, after in zip(parts, [*parts[1:], None], strict=True):
            at, free = self._denoiser_times(part.known, schedule), int((~part.known[0]).sum())
            inner = list(self.sampler.evaluations(along, times[part.begin : part.end + 1], free))
            for number, one in enumerate(inner, 1):
                stated: Callable[[Tensor, Tensor], Tensor] = functools.partial(self._with_known, one.law, part.known)
                if after is not None and number == len(inner):
                    released = part.known & ~after.known
                    stated = functools.partial(self._released, stated, released, times[part.end], along)
                yield Evaluation(_at(one.t, at), stated)
        for again, t in self._again(schedule, len(times) - 1 if times[-1] == 0 else 0):
            yield Evaluation(t, functools.partial(self._drawn_again, again=again, t=t, schedule=schedule))

    def __repr__(self) -> str:
        return f"Keeping({self.sampler!r})"

    # -------------------------------------------------------------------------------------- what is known when

    def _known_at(self, t: int, schedule: MaskReplaceSchedule) -> Tensor:
        """Which tokens are known at time t, bool `[B or 1, L]`, on the CPU."""
        known = self.known.cpu()
        if known.dtype == torch.bool:
            return known
        return (known == 1) | (known.double() > 1 - t / schedule.num_steps + ROUNDING)

    def _parts(self, schedule: MaskReplaceSchedule, times: list[int]) -> list[Part]:
        known = [self._known_at(t, schedule) for t in times[:-1]]
        begins = [i for i in range(len(known)) if i == 0 or not torch.equal(known[i - 1], known[i])]
        return [Part(i, k, known[i]) for i, k in zip(begins, [*begins[1:], len(known)], strict=True)]

    def _denoiser_times(self, known: Tensor, schedule: MaskReplaceSchedule) -> list[int]:
        """For each time t the time t' at which the denoiser is evaluated, `[T + 1]`; t itself without masks."""
        if not _masks(schedule):
            return list(range(schedule.num_steps + 1))
        free = float((~known).double().mean(-1).max())  # of the picture with the fewest known tokens
        along = masks_alone(schedule).gamma_bar.cpu()
        return denoiser_times(free * along / along[-1], known.shape[1], schedule, self.surprise)

    def _again(self, schedule: MaskReplaceSchedule, count: int) -> Iterator[tuple[Tensor, int]]:
        """Where nothing is masked: which tokens are drawn once more, bool `[B or 1, L]`, one a picture, and at which t.

        Each token that is never known has its turn, and then again.
        """
        odds = (schedule.num_codes * schedule.beta_bar / schedule.alpha_bar).cpu()
        found = (odds >= max(math.exp(-self.surprise), ROUNDING**2)).nonzero()[:, 0].tolist()
        free = self.known.cpu() == 0
        rank, number = free.cumsum(-1) - 1, free.sum(-1, keepdim=True).clamp(min=1)
        for turn in range(0 if _masks(schedule) or not found else count):
            yield free & (rank == turn % number), found[0]

    def _codes(self, x_t: Tensor, schedule: MaskReplaceSchedule) -> Tensor:
        """`x_0` for the pictures of x_t, a code everywhere (0 where nothing is ever known)."""
        if self.x_0.shape[1] != x_t.shape[1] or any(len(rows) not in (1, len(x_t)) for rows in (self.x_0, self.known)):
            raise ValueError(f"x_0 and known must be for tokens {[*x_t.shape]}, got {[*self.x_0.shape]}")
        x_0 = torch.where(self.known.to(x_t.device) > 0, self.x_0.to(x_t.device), 0).expand_as(x_t)
        if x_0.device.type == "cpu" and x_0.numel() and not 0 <= int(x_0.min()) <= int(x_0.max()) < schedule.num_codes:
            raise ValueError(
                f"x_0 must hold codes 0 ... {schedule.num_codes - 1} where it is known, got values from "
                f"{int(x_0.min())} to {int(x_0.max())}"
            )
        return x_0

    # -------------------------------------------------------------------------------------- exact distributions

    def _with_known(
        self, stated: Callable[[Tensor, Tensor], Tensor], known: Tensor, log_p: Tensor, x_t: Tensor
    ) -> Tensor:
        """A step's distribution in which the known tokens are certain, `[B, L, K + 1]` or `[B, (K + 1)^L]`."""
        x_0, known = self.x_0.cpu().expand_as(x_t), known.expand_as(x_t)
        found = stated(keep_known(log_p, x_0, known), x_t)
        if found.ndim == 2:
            return found
        return torch.where(known[..., None], F.one_hot(x_0, found.shape[-1]).to(found), found)  # seen whatever x_s is

    def _drawn_again(self, log_p: Tensor, x_t: Tensor, again: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
        """The distribution after one token was drawn once more, `[B, L, K + 1]`."""
        drawn = F.pad(beside_others(log_p, x_t, t, schedule).double().softmax(-1), (0, 1))
        here = again[..., None] & ~drawn.isnan()  # as of masks, which this schedule never has
        return torch.where(here, drawn, F.one_hot(x_t, schedule.num_codes + 1).double())

    def _released(
        self,
        stated: Callable[[Tensor, Tensor], Tensor],
        released: Tensor,
        t: int,
        along: MaskReplaceSchedule,
        log_p: Tensor,
        x_t: Tensor,
    ) -> Tensor:
        """A step's distribution followed by the noise of what is released, `[B, (K + 1)^L]`."""
        found = stated(log_p, x_t).double()
        states = torch.cartesian_prod(*[torch.arange(along.num_codes + 1)] * x_t.shape[1]).view(-1, x_t.shape[1])
        noise = q_log_probs(self.x_0.cpu() * released, t, along, dtype=torch.float64).exp()  # [1, L, K + 1]
        kernel = joint_of(torch.where(released[..., None], noise, F.one_hot(states, along.num_codes + 1).double()))
        return (joint_of(found) if found.ndim == 3 else found) @ kernel


def beside_others(log_p_x0: Tensor, x_t: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    """log p(x_0 | all other tokens) of each token, unnormalised, from log p(x_0 | x_t), `[B, L, K]` both."""
    return log_p_x0 - q_likelihood(x_t, t, schedule, dtype=log_p_x0.dtype)[..., :-1]


def masks_alone(schedule: MaskReplaceSchedule) -> MaskReplaceSchedule:
    """The schedule in which what is not kept is masked, gamma' = 1 - alpha_bar; itself if it masks nothing at all."""
    if not _masks(schedule):
        return schedule
    alone = MaskReplaceSchedule(schedule.alpha_bar, 1 - schedule.alpha_bar, num_codes=schedule.num_codes)
    return alone.to(schedule.alpha_bar.device)


def denoiser_times(masked: Tensor, length: int, schedule: MaskReplaceSchedule, surprise: float) -> list[int]:
    """For each masked share the earliest time at which a denoiser can have seen it, `[N]` float64 -> N times 1 ... T.

    Of the times up to the first with gamma_bar_t >= masked it is the earliest with L KL(masked || gamma_bar_t) <=
    `surprise` (the bound of Chernoff), or the latest one whose odds r_t are negligible anyway.
    """
    m, gamma, alpha = masked[:, None], schedule.gamma_bar.cpu(), schedule.alpha_bar.cpu()
    at = torch.arange(schedule.num_steps + 1)
    usual = torch.searchsorted(gamma, m).clamp(1, schedule.num_steps)  # [N, 1]
    nats = m.xlogy(m) - m.xlogy(gamma) + (1 - m).xlogy(1 - m) - (1 - m).xlogy(1 - gamma)  # [N, T + 1]
    possible = (at == usual) | ((at < usual) & (gamma > 0) & (length * nats <= surprise))
    harmless = possible & (1 - alpha - gamma <= NEGLIGIBLE * alpha)
    latest = torch.where(harmless, at, 0).amax(-1)
    return torch.where(latest > 0, latest, possible.long().argmax(-1)).tolist()


def _given(denoise: Denoiser, x_0: Tensor, known: Tensor, times: list[int]) -> Denoiser:
    """A denoiser that sees the known tokens and is certain of them."""
    return lambda x_t, t: keep_known(denoise(torch.where(known, x_0, x_t), times[t]), x_0, known)


def _at(t: int | Callable[[Tensor], Tensor], times: list[int]) -> int | Callable[[Tensor], Tensor]:
    """The denoiser's time for an evaluation's; 0, which evaluates nothing, stays."""
    if isinstance(t, int):
        return times[t]
    table = torch.tensor([0, *times[1:]])
    return lambda x_t: table[t(x_t)]


def _later(on_step: OnStep, begin: int) -> OnStep:
    """`on_step` with the numbers of a run's later part."""
    return None if on_step is None else lambda number, s, x_s: on_step(begin + number, s, x_s)


def _masks(schedule: MaskReplaceSchedule) -> bool:
    return bool(schedule.gamma_bar[-1] > 0)


def _rows(name: str, value: Any) -> Tensor:
    """`[L]` and `[B, L]` as `[B, L]`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {shown(value)}")
    if value.ndim not in (1, 2):
        raise ValueError(f"{name} must be [L] or [B, L], got {[*value.shape]}")
    return value if value.ndim == 2 else value[None]
