"""Joints so small that the ideal denoiser, and the distribution that a sampler draws from, are enumerable.

A joint is the distribution of x_0 over all K^L grids, `[K^L]`, float64. The states of a run are all (K + 1)^L grids
with masks. A grid is a number in base K (or K + 1), its first position the most significant digit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vqlearn.arguments import real, whole
from vqlearn.choices import joint_of
from vqlearn.objective import kl_divergence, prior_term
from vqlearn.reverse import Denoiser, Evaluation, as_sampler, falling
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_log_probs, q_posterior

MOST = 200_000  # grids that are enumerated
CHUNK = 2**23  # numbers at once


def grids(base: int, length: int) -> Tensor:
    """All grids of `length` digits in the order of their numbers, int64 `[base^length, length]`."""
    base, length = whole("base", base), whole("length", length)
    if length * math.log(base) > math.log(MOST) + 1e-9:
        raise ValueError(f"at most {MOST} grids can be enumerated, got {base}^{length}")
    return torch.cartesian_prod(*[torch.arange(base)] * length).view(-1, length)


def numbers(grid: Tensor, base: int) -> Tensor:
    """The numbers of grids `[..., L]`."""
    powers = base ** torch.arange(grid.shape[-1] - 1, -1, -1)
    return (grid * powers).sum(-1)


def markov_chain(num_codes: int, length: int, stay: float) -> Tensor:
    """The distribution of a chain that begins uniform and keeps its code with probability `stay`, `[K^L]`.

    >>> markov_chain(num_codes=2, length=2, stay=0.9)  # of 00, 01, 10, 11
    tensor([0.4500, 0.0500, 0.0500, 0.4500], dtype=torch.float64)
    """
    x_0, stay = grids(whole("num_codes", num_codes, 2), length), real("stay", stay, 0, 1)
    same = (x_0[:, 1:] == x_0[:, :-1]).double()
    return (same * stay + (1 - same) * (1 - stay) / (num_codes - 1)).prod(-1) / num_codes


def oracle(joint: Tensor, schedule: MaskReplaceSchedule) -> Denoiser:
    """The ideal denoiser: log q(x_0^i = k | x_t) by Bayes over all grids, float64 `[B, L, K]`.

    Where x_t is impossible any prediction will do, and the joint's own marginals are given.
    """
    codes = schedule.num_codes
    length = round(math.log(len(joint), codes))
    x_0, states = grids(codes, length), grids(codes + 1, length)  # [N, L], [S, L]
    hot = F.one_hot(x_0, codes).double().flatten(1)  # [N, L K]

    @functools.lru_cache(maxsize=max(1, 2**27 // (len(states) * length * codes)))
    def table(t: int) -> Tensor:
        q = q_log_probs(torch.arange(codes)[None], t, schedule, dtype=torch.float64)[0].exp()  # [K, K + 1]
        rows = []
        for part in states.split(max(1, CHUNK // len(x_0))):
            weight = joint.expand(len(part), -1)
            for position in range(length):
                weight = weight * q[:, part[:, position]].T[:, x_0[:, position]]  # [B, N]
            total = weight.sum(-1, keepdim=True)
            rows.append(torch.where(total > 0, weight / total, joint) @ hot)
        return torch.cat(rows).view(-1, length, codes).log()

    def denoise(x_t: Tensor, t: int) -> Tensor:
        if x_t.shape[-1] != length:
            raise ValueError(f"this denoiser is that of a joint over {length} tokens, got {x_t.shape[-1]}")
        return table(t)[numbers(x_t, codes + 1)]

    return denoise


class Outcome(NamedTuple):
    """What a sampler does: the distribution of its x_0 over all grids `[K^L]`, and its mean number of evaluations."""

    law: Tensor
    calls: float


def outcome(
    sampler: Callable[..., Tensor],
    denoise: Denoiser,
    schedule: MaskReplaceSchedule,
    length: int,
    times: Sequence[int],
    *,
    start: Tensor | None = None,
) -> Outcome:
    """The exact distribution of the x_0 that a sampler draws with a denoiser, by propagating that of its states.

    Any sampler that states its `step_law` (`Sampler`) is measured, and by nothing else. `start` `[(K + 1)^L]` is the
    distribution of the first state; None is where the sampler starts. Raises NotImplementedError for a sampler that
    does not state its distribution, ValueError where what it states is none, or has another shape.

    >>> from vqlearn import MaskReplaceSchedule, ancestral
    >>> joint, schedule = markov_chain(num_codes=2, length=2, stay=0.9), MaskReplaceSchedule.released(num_codes=2)
    >>> found = outcome(ancestral, oracle(joint, schedule), schedule, 2, [100, 0])  # one evaluation: independent
    >>> found.law.round(decimals=3), found.calls
    (tensor([0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64), 1.0)
    >>> round(total_variation(found.law, joint), 3)
    0.4
    """
    sampler, states = as_sampler(sampler), grids(schedule.num_codes + 1, length)
    table = functools.cache(lambda t: denoise(states, t))  # predictions of all states, [S, L, K]
    p, calls = start, 0.0
    if p is None:
        p = joint_of(sampler.start_law(schedule).double().expand(1, length, -1))[0]
    for evaluation in sampler.evaluations(schedule, falling(times), length):
        p, share = _push(p, evaluation, table, states)
        calls += share
    return Outcome(p[(states < schedule.mask_id).all(-1)], calls)


def prior(schedule: MaskReplaceSchedule, length: int) -> Tensor:
    """The distribution of x_T over all states, `[(K + 1)^L]`."""
    return joint_of(schedule.prior().expand(1, length, -1))[0]


def sure_of_masks(schedule: MaskReplaceSchedule, length: int) -> Tensor:
    """The distribution that is certain of the grid of masks, `[(K + 1)^L]`."""
    p = torch.zeros((schedule.num_codes + 1) ** length, dtype=torch.float64)
    p[-1] = 1.0
    return p


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half of the sum of absolute differences of two distributions."""
    return float((p - q).abs().sum() / 2)


def divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) of two distributions, in nats."""
    return float(kl_divergence(p.log(), q.log()))


def bound(joint: Tensor, denoise: Denoiser, schedule: MaskReplaceSchedule) -> Tensor:
    """The evidence bound -ELBO of every grid x_0 by enumeration, in nats, `[K^L]` (VQ-Diffusion, Eq. 9).

    Its expectation over x_t is a sum over all states, so nothing is drawn. Never under -log of the probability that
    `ancestral` gives it with this denoiser over all times.
    """
    codes, length = schedule.num_codes, round(math.log(len(joint), schedule.num_codes))
    x_0, states = grids(codes, length), grids(codes + 1, length)  # [N, L], [S, L]
    certain = torch.eye(codes, dtype=torch.float64).log()[:, None].expand(-1, codes + 1, -1)  # of x_0 = 0 ... K - 1
    x_t = torch.arange(codes + 1).expand(codes, -1)  # [K, K + 1]: with each, whatever x_t can be
    total = prior_term(x_0, schedule, dtype=torch.float64).sum(-1)
    for t in range(1, schedule.num_steps + 1):
        model = q_posterior(denoise(states, t), states, t, schedule)  # [S, L, K + 1]
        truth = q_posterior(certain, x_t, t, schedule)[:, states]  # [K, S, L, K + 1]
        gap = kl_divergence(truth, model)  # of each position, by its clean code: [K, S, L]
        weight = joint_of(q_log_probs(x_0, t, schedule, dtype=torch.float64).exp())  # [N, S]
        term = sum(gap[x_0[:, position], :, position] for position in range(length))  # [N, S]
        total += torch.where(weight > 0, weight * term, 0.0).sum(-1)
    return total


# ------------------------------------------------------------------------------------------ one network evaluation


def _push(p: Tensor, evaluation: Evaluation, table: Callable[[int], Tensor], states: Tensor) -> tuple[Tensor, float]:
    """The distribution of the next state from that of this one, and the share that evaluated the network."""
    reached = p.nonzero()[:, 0]
    t = evaluation.t
    times = torch.full_like(reached, t) if isinstance(t, int) else t(states[reached])
    new = torch.zeros_like(p)
    finished = reached[times == 0]
    new[finished] = p[finished]
    for t in filter(None, times.unique().tolist()):
        for rows in reached[times == t].split(max(1, CHUNK // len(p))):
            stated = _checked(evaluation.law(table(t)[rows], states[rows]), states[rows], len(p))
            new += _mixture(p[rows], stated)
    return new, 1.0 - float(p[finished].sum())


def _mixture(weights: Tensor, p: Tensor) -> Tensor:
    """The mean of distributions `[B, S]` or `[B, L, K + 1]` with these weights, `[S]`.

    Of independent positions two halves are multiplied, which takes far less than all of their joints.
    """
    if p.ndim == 2 or p.shape[1] == 1:
        return weights @ p.flatten(1)
    half = p.shape[1] // 2
    return ((weights[:, None] * joint_of(p[:, :half])).T @ joint_of(p[:, half:])).flatten()


def _checked(p: Tensor, x_t: Tensor, count: int) -> Tensor:
    """What a sampler states, in float64; raises ValueError if it is no distribution."""
    codes = round(count ** (1 / x_t.shape[1]))
    if p.shape not in ((*x_t.shape, codes), (len(x_t), count)):
        raise ValueError(
            f"step_law must give [{len(x_t)}, {x_t.shape[1]}, {codes}] ([B, L, K + 1]) or [{len(x_t)}, {count}] "
            f"([B, (K + 1)^L]), got {list(p.shape)}"
        )
    total = p.double().sum(-1)
    if not bool(((total - 1).abs() < 1e-4).all()) or bool((p < 0).any()):
        worst = float(total.flatten()[(total - 1).abs().argmax()])
        raise ValueError(f"step_law must give probabilities that sum to 1, got a sum of {worst:.6g}; are they logs?")
    return p.double()
