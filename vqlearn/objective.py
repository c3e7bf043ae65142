"""The training objective and the evidence bound, from a prediction and exact quantities of the forward process.

A prediction is log p(x_0 | x_t), `[B, L, K]`. All results are in nats per token unless a name says bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vqlearn.arguments import real, shown, whole
from vqlearn.draws import Draws, low_variance, uniform, uniform_codes, widest
from vqlearn.reverse import Checked, Denoiser, whole_times
from vqlearn.schedule import ROUNDING, MaskReplaceSchedule
from vqlearn.transition import check_tokens, q_log_probs, q_posterior, q_sample


def bound_terms(log_p_x0: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor | int, schedule: MaskReplaceSchedule) -> Tensor:
    """One term of the variational bound per token, `[B, L]`, in nats (VQ-Diffusion, Eq. 9).

    For t > 1 the divergence KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); for t = 1 it is L_0, the code
    length -log p(x_0 | x_1), which the same formula gives because x_0 is then certain. `t` is an int or `[B]`.
    Raises ValueError for logits (`check_mass`).
    """
    check_tokens(x_0, schedule, "x_0", mask_allowed=False)
    check_mass(log_p_x0, wait=False)
    truth = one_hot_log(x_0, schedule.num_codes, log_p_x0.dtype)
    log_q = q_posterior(truth, x_t, t, schedule)  # [B, L, K + 1]
    log_p = q_posterior(log_p_x0, x_t, t, schedule)
    return kl_divergence(log_q, log_p)


def prior_term(x_0: Tensor, schedule: MaskReplaceSchedule, dtype: torch.dtype | None = None) -> Tensor:
    """L_T = KL(q(x_T | x_0) || p(x_T)) per token, `[B, L]`, exact, in nats (VQ-Diffusion, Eq. 9)."""
    log_q = q_log_probs(x_0, schedule.num_steps, schedule, dtype=dtype)
    return kl_divergence(log_q, prior_log_probs(schedule).to(log_q))


def prior_log_probs(schedule: MaskReplaceSchedule) -> Tensor:
    """log p(x_T), `[K + 1]`, float64, see `MaskReplaceSchedule.prior`."""
    return schedule.prior().log()


def training_loss(
    log_p_x0: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    t: Tensor,
    schedule: MaskReplaceSchedule,
    *,
    p_t: Tensor | float | None = None,
    auxiliary_weight: float = 5e-4,
    adaptive: bool = True,
) -> tuple[Tensor, Tensor]:
    """The published loss: bound term plus auxiliary term, over the probability of drawing t; and the bound terms `[B]`.

    The auxiliary term is -log p(x_0 | x_t) with weight `auxiliary_weight` times, if `adaptive`, (1 - t/T) + 1 with t
    counted from 0 as in the public code (VQ-Diffusion, Eq. 12; microsoft/VQ-Diffusion, `_train_loss`). `p_t` `[B]` is
    the probability of each t; None means 1/T. The mean over the batch is an unbiased estimate of the bound's sum over
    t, in nats per token (without L_T, which has no gradient).
    """
    auxiliary_weight, steps = real("auxiliary_weight", auxiliary_weight, 0), schedule.num_steps
    terms = bound_terms(log_p_x0, x_0, x_t, t, schedule).mean(-1)  # [B]
    nll = -log_p_x0.gather(-1, x_0[..., None])[..., 0].mean(-1)  # [B]
    weight = auxiliary_weight * (2 - torch.as_tensor(t - 1).to(nll) / steps if adaptive else 1.0)
    loss = (terms + weight * nll) / (1 / steps if p_t is None else p_t)
    return loss.mean(), terms.detach()


class TimeSampler:
    """Importance sampling of t in proportion to the root mean square of its bound term (Improved DDPM, Eq. 18).

    Until every t has been seen more than ten times it draws uniformly. t = 1 takes the weight of t = 2: its term is a
    code length on another scale than the divergences, drawn too often (the public code's `Lt_sqrt[0] = Lt_sqrt[1]`).
    """

    def __init__(self, num_steps: int):
        num_steps = whole("num_steps", num_steps)
        self.history, self.counts = torch.zeros(num_steps + 1, dtype=torch.float64), torch.zeros(num_steps + 1)

    def probabilities(self) -> Tensor:
        """p(t) for t = 0 ... T, `[T + 1]` with entry 0 zero, float64."""
        ready = bool((self.counts[1:] > 10).all())
        weights = (self.history + 1e-10).sqrt() + 1e-4 if ready else torch.ones_like(self.history)
        if ready and len(weights) > 2:
            weights[1] = weights[2]
        weights[0] = 0.0
        return weights / weights.sum()

    def sample(self, count: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Times `[count]` in 1 ... T and their probabilities, on the generator's device."""
        device = "cpu" if generator is None else generator.device
        p = self.probabilities().to(device, widest(device))
        t = torch.multinomial(p, whole("count", count), replacement=True, generator=generator)
        return t, p[t]

    def update(self, t: Tensor, terms: Tensor) -> None:
        """Remember bound terms `[B]` seen at times `[B]`, each time's running mean of squares with decay 0.9."""
        for time, term in zip(t.tolist(), terms.cpu().double().tolist(), strict=True):
            self.history[time] = 0.9 * self.history[time] + 0.1 * term**2
            self.counts[time] += 1

    def state_dict(self) -> dict[str, Tensor]:
        return {"history": self.history, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.history.copy_(state["history"])
        self.counts.copy_(state["counts"])


@torch.no_grad()
def evidence_bound(
    denoise: Denoiser,
    x_0: Tensor,
    schedule: MaskReplaceSchedule,
    *,
    samples: int = 1,
    times: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Upper bound on -log2 p(x_0), in bits per token, `[B]` (VQ-Diffusion, Eq. 9): L_T + sum of L_{t-1} + L_0.

    Every t in 1 ... T is visited `samples` times; with `times` `[N]` (drawn uniformly from 1 ... T) only those, scaled
    to the whole sum: unbiased and cheaper. The mean over x_t is estimated by draws. ValueError for logits, NaN and inf.
    """
    last = schedule.num_steps
    every = whole_times(range(1, last + 1) if times is None else times, 1, last)
    samples, total = whole("samples", samples), torch.zeros(len(x_0), dtype=torch.float64)
    checked = Checked(denoise, schedule.num_codes)
    for t in every * samples:
        x_t = q_sample(x_0, t, schedule, generator=generator)
        log_p_x0 = checked(x_t, t)
        check_mass(log_p_x0)
        total += bound_terms(log_p_x0, x_0, x_t, t, schedule).cpu().double().mean(-1)
    checked.at_the_end()
    total *= last / (len(every) * samples)
    total += prior_term(x_0.cpu(), schedule, dtype=torch.float64).mean(-1)
    return total / math.log(2)


def check_mass(log_p_x0: Tensor, *, wait: bool = True) -> None:
    """Raise ValueError where a prediction sums to more than 1, as logits do that nobody has normalised.

    Less is legal: truncation leaves it, and a code length is only longer for it. Without `wait` only a CPU is asked.
    """
    if not log_p_x0.numel() or not (wait or log_p_x0.device.type == "cpu"):
        return
    most = 1e-3 if torch.finfo(log_p_x0.dtype).eps < 1e-4 else 0.1  # in half precision each log is a few percent off
    largest = log_p_x0.detach().logsumexp(-1).max()
    if not bool(largest <= most):
        rule = "log_p_x0 must be log-probabilities, which sum to 1 over the classes (less after truncation)"
        raise ValueError(f"{rule}, got a sum of {float(largest.exp()):.4g}; of logits take log_softmax(-1)")


# ------------------------------------------------------------------------------------------ continuous time


class Moment(NamedTuple):
    """The forward process at times in (0, 1], float64 `[B]` each."""

    gamma: Tensor  # what is masked
    kept: Tensor  # of the rest, what has kept its value; the K codes share 1 - kept evenly
    masking: Tensor  # the derivative of gamma
    replacing: Tensor  # -d log(kept), the rate at which an unmasked token is replaced by a uniform code


def moment(time: Tensor, schedule: MaskReplaceSchedule) -> Moment:
    """A schedule in continuous time: `gamma` and `kept` are linear from each of its T + 1 entries to the next."""
    if not isinstance(time, Tensor) or time.ndim != 1 or not time.is_floating_point():
        raise TypeError(f"time must be a tensor [B] of numbers in (0, 1], got {shown(time)}")
    steps, seen = schedule.num_steps, 1 - schedule.gamma_bar
    kept = schedule.alpha_bar / seen.clamp(min=ROUNDING)
    kept = torch.where((kept - 1).abs() < ROUNDING, 1.0, kept)
    kept = torch.where(seen > 0, kept, kept[seen > 0][-1])  # where all is masked there is nothing to keep
    step = (time * steps).ceil().long().clamp(1, steps).to(kept.device)
    part = time.to(kept) * steps - (step - 1)
    slopes = [curve[step] - curve[step - 1] for curve in (schedule.gamma_bar, kept)]
    gamma, now = (c[step - 1] + part * d for c, d in zip((schedule.gamma_bar, kept), slopes, strict=True))
    replacing = torch.where(now > 0, -steps * slopes[1] / now.clamp(min=ROUNDING**2), 0.0)
    return Moment(*(x.to(time.device, widest(time.device)) for x in (gamma, now, steps * slopes[0], replacing)))


def continuous_sample(x_0: Tensor, time: Tensor, schedule: MaskReplaceSchedule, *, generator: Draws = None) -> Tensor:
    """Draw x_t from q(x_t | x_0) at times in (0, 1] `[B]`, as `q_sample` does at t = T time; `[B, L]`."""
    gamma, kept, _, _ = (share[:, None] for share in moment(time, schedule))
    u = uniform(x_0.shape, generator, x_0.device)
    other = uniform_codes(schedule.num_codes, x_0.shape, generator, x_0.device)
    x_t = torch.where(u < (1 - gamma) * kept, x_0, other)
    return torch.where(u < 1 - gamma, x_t, schedule.mask_id)


Jumps = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def mixed_posteriors(p: Tensor, p_z: Tensor, kept: Tensor, other: Tensor) -> Tensor:
    """The mean over x_0 of q(y | x_0) / q(z | x_0) for all codes y, `[B, L, K]`: VQ-Diffusion's reverse process.

    `p` is the prediction, `p_z` `[B, L, 1]` that of z = x_t; q of x_0 is kept + other, that of any other code `other`.
    """
    return p_z * other / (kept + other) + (1 - p_z) + kept / other * p


def mixed_marginals(p: Tensor, p_z: Tensor, kept: Tensor, other: Tensor) -> Tensor:
    """The mean of q(y | x_0) over that of q(z | x_0): the reverse process of GIDD (von Ruette et al. 2025)."""
    return (other + kept * p) / (other + kept * p_z)


def continuous_terms(
    log_p_x0: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    time: Tensor,
    schedule: MaskReplaceSchedule,
    *,
    jumps: Jumps = mixed_posteriors,
) -> Tensor:
    """The bound's integrand over time in (0, 1] per token, `[B, L]`: the limit of T `bound_terms` for T to infinity.

    The reverse process jumps from x_t to y at the rate r(y) under q(. | x_t, x_0) and p(y) under the prediction, and
    the integrand is the sum over y of p - r + r log(r / p) (Campbell et al. 2022, Proposition 2). For masks alone it is
    -alpha' / (1 - alpha) times -log p(x_0) where x_t is the mask (MDLM, Sahoo et al. 2024). How a visible token
    jumps under the prediction, `jumps` says; the limit is that of `mixed_posteriors`.
    """
    check_mass(log_p_x0, wait=False)
    now = moment(time, schedule)
    masked = x_t == schedule.mask_id
    truth = one_hot_log(x_0, schedule.num_codes, log_p_x0.dtype)
    log_r, log_p = (_log_jumps(log, x_t, now.kept, schedule, jumps) for log in (truth, log_p_x0))
    gap = log_p.exp() - log_r.exp() + torch.where(log_r == -torch.inf, 0.0, log_r.exp() * (log_r - log_p))
    unmasks = torch.where(now.gamma > 0, now.masking / now.gamma.clamp(min=ROUNDING**2), 0.0)
    rate = torch.where(masked, unmasks[:, None], now.replacing[:, None] / schedule.num_codes)
    return rate.to(gap) * gap.sum(-1)


def _log_jumps(log_p: Tensor, x_t: Tensor, kept: Tensor, schedule: MaskReplaceSchedule, jumps: Jumps) -> Tensor:
    """log of the reverse rates from x_t to each code, `[B, L, K]`, each over the forward rate back; 0 for x_t itself.

    From the mask to y it is the mean of q(y | x_0), up to a factor that the prediction has no part in.
    """
    kept = kept[:, None, None].to(log_p)
    other = (1 - kept) / schedule.num_codes
    from_mask = torch.logaddexp(kept.log() + log_p, other.log())
    at_x_t = x_t.clamp(max=schedule.num_codes - 1)[..., None]
    safe = torch.where(other > 0, other, 1.0)  # without replacement no code is ever left
    p = log_p.exp()
    from_code = jumps(p, p.gather(-1, at_x_t), kept, safe).log().scatter(-1, at_x_t, 0.0)
    masked = (x_t == schedule.mask_id)[..., None]
    return torch.where(masked, from_mask, torch.where(other > 0, from_code, 0.0))


def continuous_loss(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x_0: Tensor,
    schedule: MaskReplaceSchedule,
    *,
    jumps: Jumps = mixed_posteriors,
    generator: Draws = None,
) -> Tensor:
    """An unbiased estimate of the bound in continuous time without L_T, in nats per token, `[B]`.

    Times are drawn with low variance, one from each of B equal parts of (0, 1], and `denoise` is given the step t that
    each falls in, `[B]`. With `mixed_posteriors` the discrete term L_{t-1} stands for the integral over the first step
    that replaces tokens, which is infinite for every prediction but the ideal one.
    """
    steps, count = schedule.num_steps, len(x_0)
    time = low_variance(count, generator, x_0.device)
    step = (time * steps).ceil().long().clamp(1, steps)
    replaced = (schedule.beta_bar > 0).nonzero()[:, 0].tolist()
    first = replaced[0] if replaced and jumps is mixed_posteriors else 0
    discrete = (step == first).nonzero()[:, 0]
    time[discrete] = first / steps
    x_t = continuous_sample(x_0, time, schedule, generator=generator)
    log_p_x0 = denoise(x_t, step)
    terms = continuous_terms(log_p_x0, x_0, x_t, time, schedule, jumps=jumps)
    if len(discrete):
        rows = log_p_x0[discrete], x_0[discrete], x_t[discrete]
        terms = terms.index_put((discrete,), steps * bound_terms(*rows, first, schedule))
    return terms.mean(-1)


# ------------------------------------------------------------------------------------------ distributions


def kl_divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) over the last dimension; a state that q never takes costs nothing, whatever p says."""
    gap = torch.where(log_q == -torch.inf, 0.0, log_q - log_p)
    return (log_q.exp() * gap).sum(-1)


def one_hot_log(x_0: Tensor, num_codes: int, dtype: torch.dtype) -> Tensor:
    """The certain prediction: 0 at x_0 and `-inf` elsewhere, `[B, L]` -> `[B, L, K]`."""
    out = torch.full((*x_0.shape, num_codes), -torch.inf, dtype=dtype, device=x_0.device)
    return out.scatter_(-1, x_0[..., None], 0.0)
