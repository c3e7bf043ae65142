"""The training objective and the evidence bound, from a belief and exact quantities of the forward process.

A belief is log p(x_0 | x_t), `[B, L, K]`. All results are in nats per token unless a name says bits.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from vqlearn.reverse import Denoiser
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_log_probs, q_posterior, q_sample


def bound_terms(log_p_x0: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, schedule: MaskReplaceSchedule) -> Tensor:
    """One term of the variational bound per token, `[B, L]`, in nats (VQ-Diffusion, Eq. 4 and 5).

    For t > 1 the divergence KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); for t = 1 it is L_0, the code
    length -log p(x_0 | x_1), which the same formula gives because x_0 is then certain. `t` is an int or `[B]`.
    """
    truth = one_hot_log(x_0, schedule.num_codes, log_p_x0.dtype)
    log_q = q_posterior(truth, x_t, t, schedule)  # [B, L, K + 1]
    log_p = q_posterior(log_p_x0, x_t, t, schedule)
    return kl_divergence(log_q, log_p)


def prior_term(x_0: Tensor, schedule: MaskReplaceSchedule, dtype: torch.dtype | None = None) -> Tensor:
    """L_T = KL(q(x_T | x_0) || p(x_T)) per token, `[B, L]`, exact, in nats (VQ-Diffusion, Eq. 4)."""
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

    The auxiliary term is -log p(x_0 | x_t) with weight `auxiliary_weight` times, if `adaptive`, (1 - t/T) + 1
    with t counted from 0 as in the public code (VQ-Diffusion, Eq. 12; microsoft/VQ-Diffusion, `_train_loss`).
    `p_t` `[B]` is the probability of each t; None means uniform, 1/T. The mean over the batch is an
    unbiased estimate of the bound's sum over t, in nats per token (without L_T, which has no gradient).
    """
    steps = schedule.num_steps
    terms = bound_terms(log_p_x0, x_0, x_t, t, schedule).mean(-1)  # [B]
    nll = -log_p_x0.gather(-1, x_0[..., None])[..., 0].mean(-1)  # [B]
    weight = auxiliary_weight * (2 - torch.as_tensor(t - 1).to(nll) / steps if adaptive else 1.0)
    loss = (terms + weight * nll) / (1 / steps if p_t is None else p_t)
    return loss.mean(), terms.detach()


class TimeSampler:
    """Importance sampling of t in proportion to the root mean square of its bound term (Improved DDPM, Eq. 18).

    Until every t has been seen more than ten times it draws uniformly. t = 1 takes the weight of t = 2: its
    term is a code length on another scale than the divergences and would draw too often (the public
    code's `Lt_sqrt[0] = Lt_sqrt[1]`).
    """

    def __init__(self, num_steps: int):
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
        p = self.probabilities().to("cpu" if generator is None else generator.device)
        t = torch.multinomial(p, count, replacement=True, generator=generator)
        return t, p[t]

    def update(self, t: Tensor, terms: Tensor) -> None:
        """Remember bound terms `[B]` seen at times `[B]`, each time's running mean of squares with decay 0.9."""
        for time, term in zip(t.tolist(), terms.double().tolist(), strict=True):
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
    """Upper bound on -log2 p(x_0), in bits per token, `[B]` (VQ-Diffusion, Eq. 4): L_T + sum of L_{t-1} + L_0.

    Every t in 1 ... T is visited `samples` times; with `times` `[N]` (drawn uniformly from 1 ... T) only
    those, scaled to the whole sum: unbiased and cheaper. The expectation over x_t is estimated by draws.
    """
    every = torch.arange(1, schedule.num_steps + 1) if times is None else times
    total = torch.zeros(len(x_0), dtype=torch.float64)
    for t in every.tolist() * samples:
        x_t = q_sample(x_0, t, schedule, generator=generator)
        total += bound_terms(denoise(x_t, t), x_0, x_t, t, schedule).double().mean(-1).cpu()
    total *= schedule.num_steps / (len(every) * samples)
    total += prior_term(x_0, schedule, dtype=torch.float64).mean(-1).cpu()
    return total / math.log(2)


def kl_divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) over the last dimension; a state that q never takes costs nothing, whatever p says."""
    gap = torch.where(log_q == -torch.inf, 0.0, log_q - log_p)
    return (log_q.exp() * gap).sum(-1)


def one_hot_log(x_0: Tensor, num_codes: int, dtype: torch.dtype) -> Tensor:
    """The certain belief: 0 at x_0 and `-inf` elsewhere, `[B, L]` -> `[B, L, K]`."""
    out = torch.full((*x_0.shape, num_codes), -torch.inf, dtype=dtype, device=x_0.device)
    return out.scatter_(-1, x_0[..., None], 0.0)
