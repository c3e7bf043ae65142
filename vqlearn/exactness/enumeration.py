"""The exactness lab: joints so small that a perfect denoiser, and the law that a sampler really has, are enumerable.

A joint is the law of x_0 over all K^L grids, `[K^L]`, float64. States of a walk are all (K + 1)^L grids with masks. A
grid is a number in base K (or K + 1), its first position the most significant digit.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vqlearn import sampling
from vqlearn.objective import kl_divergence, prior_log_probs, prior_term
from vqlearn.sampling import Corrector, Denoiser, falling, official_step
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_log_probs, q_posterior
from vqlearn.unmasking import EntropyBounded, Unmasking, per_call, time_of_share

MOST = 200_000  # grids that are enumerated
CHUNK = 2**23  # numbers at once


def grids(base: int, length: int) -> Tensor:
    """All grids of `length` digits in the order of their numbers, int64 `[base^length, length]`."""
    if base**length > MOST:
        raise ValueError(f"at most {MOST} grids can be enumerated, got {base}^{length}")
    return torch.cartesian_prod(*[torch.arange(base)] * length).view(-1, length)


def numbers(grid: Tensor, base: int) -> Tensor:
    """The numbers of grids `[..., L]`."""
    powers = base ** torch.arange(grid.shape[-1] - 1, -1, -1)
    return (grid * powers).sum(-1)


def markov_chain(num_codes: int, length: int, stay: float) -> Tensor:
    """The law of a chain that begins uniform and keeps its code with probability `stay`, `[K^L]`."""
    x_0 = grids(num_codes, length)
    same = (x_0[:, 1:] == x_0[:, :-1]).double()
    return (same * stay + (1 - same) * (1 - stay) / (num_codes - 1)).prod(-1) / num_codes


def oracle(joint: Tensor, schedule: MaskReplaceSchedule) -> Denoiser:
    """The perfect denoiser: log p(x_0^i = k | x_t) by Bayes over all grids, float64 `[B, L, K]`.

    Where x_t is impossible any belief will do, and the joint's own marginals are given.
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
        return torch.cat(rows).unflatten(1, (length, codes)).log()

    return lambda x_t, t: table(t)[numbers(x_t, codes + 1)]


class Outcome(NamedTuple):
    """What a sampler does: the law of its x_0 over all grids `[K^L]`, and its mean number of network calls."""

    law: Tensor
    calls: float


def outcome(
    sampler: Callable,
    denoise: Denoiser,
    schedule: MaskReplaceSchedule,
    length: int,
    times: Sequence[int],
    *,
    start: Tensor | None = None,
) -> Outcome:
    """The exact law of x_0 that a sampler draws with a denoiser, by propagating the law of its states.

    Each step's law is put together from the very functions that the sampler draws with: `q_posterior`, a sampler's
    `choose`, `count` and so on. `start` `[(K + 1)^L]` is the law of the first state; None is where the pipeline begins.
    Raises ValueError for an unknown sampler.
    """
    states = grids(schedule.num_codes + 1, length)
    table = functools.cache(lambda t: denoise(states, t))  # beliefs of all states, [S, L, K]
    times = falling(times)
    if isinstance(sampler, EntropyBounded):
        return _entropy_bounded(sampler, table, schedule, states, times)
    first = sure_of_masks if isinstance(sampler, Unmasking) else prior
    law, calls = first(schedule, length) if start is None else start, 0.0
    for number in range(len(times) - 1):
        for step in _steps(sampler, table, schedule, states, number, times):
            law = _push(law, step)
            calls += 1
    return Outcome(_clean(law, states, schedule), calls)


def prior(schedule: MaskReplaceSchedule, length: int) -> Tensor:
    """The law of x_T over all states, `[(K + 1)^L]`."""
    return _joint(prior_log_probs(schedule).exp().expand(1, length, -1))[0]


def sure_of_masks(schedule: MaskReplaceSchedule, length: int) -> Tensor:
    """The law that is sure of the grid of masks, `[(K + 1)^L]`."""
    law = torch.zeros((schedule.num_codes + 1) ** length, dtype=torch.float64)
    law[-1] = 1.0
    return law


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half of the sum of absolute differences of two laws."""
    return float((p - q).abs().sum() / 2)


def divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) of two laws, in nats."""
    return float(kl_divergence(p.log(), q.log()))


def bound(joint: Tensor, denoise: Denoiser, schedule: MaskReplaceSchedule) -> Tensor:
    """The evidence bound -ELBO of every grid x_0 by enumeration, in nats, `[K^L]` (VQ-Diffusion, Eq. 4).

    Its expectation over x_t is a sum over all states, so nothing is drawn. Never under -log of the law that
    `ancestral` gives with this denoiser over all times.
    """
    length = round(math.log(len(joint), schedule.num_codes))
    x_0, states = grids(schedule.num_codes, length), grids(schedule.num_codes + 1, length)
    total = prior_term(x_0, schedule, dtype=torch.float64).sum(-1)
    for t in range(1, schedule.num_steps + 1):
        model = q_posterior(denoise(states, t), states, t, schedule)  # [S, L, K + 1]
        for number, clean in enumerate(x_0):
            weight = _joint(q_log_probs(clean[None], t, schedule, dtype=torch.float64).exp())[0]  # [S]
            certain = torch.full((1, length, schedule.num_codes), -torch.inf, dtype=torch.float64)
            certain.scatter_(-1, clean[None, :, None], 0.0)
            truth = q_posterior(certain.expand(len(states), -1, -1), states, t, schedule)
            gap = kl_divergence(truth, model).sum(-1)
            total[number] += (weight * torch.where(weight > 0, gap, 0.0)).sum()
    return total


# ------------------------------------------------------------------------------------------ the law of a step


def _steps(sampler, table, schedule, states, number, times):
    """The network calls of one step, each `rows -> [rows, S]`: a state's number to the law of the next state."""
    t, s = times[number], times[number + 1]
    if isinstance(sampler, Unmasking) and s > 0:
        yield from _unmasking_calls(sampler, table, schedule, states, number, times)
        return

    def independent(rows: Tensor) -> Tensor:
        return _joint(_marginals(sampler, table(t)[rows], states[rows], t, s, schedule, times))

    yield independent


def _marginals(sampler, log_p, x_t, t, s, schedule, times) -> Tensor:
    """The law of each position's x_s, `[B, L, K + 1]`, for samplers that draw the positions apart."""
    log_p = log_p.log_softmax(-1)  # what a truncated belief leaves is drawn from as if it were all
    if sampler is sampling.official_fast:
        step = official_step(t, s, times[0] - times[1] - 1)
        return q_posterior(log_p, x_t, step, schedule).exp()
    if isinstance(sampler, Corrector) and s > 0:
        log_p = sampling.settled(log_p, x_t, t, schedule)
        stay = q_posterior(log_p, x_t, t, schedule, s=s).exp()
        alpha, beta, gamma = schedule.bar(s)
        fresh = F.pad(alpha * log_p.exp() + beta, (0, 1), value=float(gamma))
        return (1 - sampler.renew) * stay + sampler.renew * fresh
    if sampler in (sampling.ancestral, sampling.first_hitting) or isinstance(sampler, Corrector | Unmasking):
        return q_posterior(log_p, x_t, t, schedule, s=s).exp()
    raise ValueError(f"the law of {getattr(sampler, '__name__', sampler)!r} is not known here")


def _unmasking_calls(sampler, table, schedule, states, number, times):
    t, length = times[number], torch.tensor(states.shape[1])
    masked = (states == schedule.mask_id).sum(-1)  # [S]
    left = int(sampler.left(length, number, times, schedule))
    before = int(sampler.left(length, number - 1, times, schedule)) if number else int(length)
    most = before - left  # what a walk that began with masks alone has to uncover here
    while most > 0:

        def call(rows: Tensor) -> Tensor:
            ask = (masked[rows] - left).clamp(min=0)
            choice = sampler.choose(table(t)[rows], states[rows])
            return written(choice, states[rows], per_call(ask, sampler.most), schedule)

        most -= int(per_call(torch.tensor(most), sampler.most))
        yield call


def written(choice, x_t: Tensor, count: Tensor, schedule: MaskReplaceSchedule) -> Tensor:
    """The law of `unmasking.write` over all states, `[B, S]`: over which positions, and over their tokens."""
    length, mask = x_t.shape[1], schedule.mask_id
    masked = x_t == mask
    drawn = F.pad(choice.log_p.softmax(-1), (0, 1))  # [B, L, K + 1]
    kept = F.one_hot(x_t, mask + 1).double()
    law = torch.zeros(len(x_t), (mask + 1) ** length, dtype=torch.float64)
    for subset, share in _subsets(choice, masked, count):
        if bool((share > 0).any()):
            law += share[:, None] * _joint(torch.where(subset[:, None], drawn, kept))
    return law


def _subsets(choice, masked: Tensor, count: Tensor):
    """Every set of positions `[L]` and the probability `[B]` that exactly these are chosen."""
    length = masked.shape[1]
    every = [torch.tensor(bits, dtype=torch.bool) for bits in itertools.product([False, True], repeat=length)]
    key = choice.log_weight.double().masked_fill(~masked, -torch.inf)
    if not choice.at_random:
        order = key.sort(dim=-1, descending=True, stable=True)[1]
        rank = torch.empty_like(order).scatter_(-1, order, torch.arange(length).expand_as(order))
        chosen = masked & (rank < count[:, None])
        yield from ((subset, (chosen == subset).all(-1).double()) for subset in every)
        return
    weight = (key - key.amax(-1, keepdim=True).clamp(min=-1e300)).exp() * masked  # [B, L]
    total, found = weight.sum(-1), {}
    for subset in sorted(every, key=lambda bits: int(bits.sum())):
        size = int(subset.sum())
        if size == 0:
            found[()] = torch.ones(len(masked), dtype=torch.float64)
        else:  # the last of the set to be drawn was one of them, after all the others
            members, share = tuple(subset.nonzero()[:, 0].tolist()), torch.zeros(len(masked), dtype=torch.float64)
            for last in members:
                others = tuple(m for m in members if m != last)
                left = total - weight[:, list(others)].sum(-1)
                share = share + found[others] * torch.where(left > 0, weight[:, last] / left.clamp(min=1e-300), 0.0)
            found[members] = share
        yield subset, torch.where(count == size, found[tuple(subset.nonzero()[:, 0].tolist())], 0.0)


def _entropy_bounded(sampler, table, schedule, states, times) -> Outcome:
    """Its calls depend on the state: those that are done leave the walk, and the rest goes on."""
    length = states.shape[1]
    masked = states == schedule.mask_id
    law, done, calls = sure_of_masks(schedule, length), torch.zeros(len(states), dtype=torch.float64), 0.0
    for number in range(len(times) - 1):
        calls += float(law.sum())
        new = torch.zeros_like(law)
        for rows in law.nonzero()[:, 0].split(1):  # the network's time is that of the state
            t = time_of_share(float(masked[rows].sum()) / length, schedule, times[0])
            log_p = table(t)[rows]
            count = sampler.count(log_p, masked[rows])
            if number == len(times) - 2 or bool((count >= masked[rows].sum(-1)).all()):
                done += law[rows] @ _joint(_marginals(sampler, log_p, states[rows], t, 0, schedule, times))
            else:
                new += law[rows] @ written(sampler.choose(log_p, states[rows]), states[rows], count, schedule)
        law = new
    return Outcome(_clean(done, states, schedule), calls)


def _push(law: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    """The law of the next state, from that of this one."""
    new = torch.zeros_like(law)
    for rows in law.nonzero()[:, 0].split(max(1, CHUNK // len(law))):
        new += law[rows] @ step(rows)
    return new


def _joint(marginals: Tensor) -> Tensor:
    """Independent positions `[B, L, C]` to their joint `[B, C^L]`."""
    joint = marginals[:, 0]
    for position in range(1, marginals.shape[1]):
        joint = (joint[:, :, None] * marginals[:, position, None]).flatten(1)
    return joint


def _clean(law: Tensor, states: Tensor, schedule: MaskReplaceSchedule) -> Tensor:
    """The law over grids without masks, of which at s = 0 there are no others."""
    return law[(states < schedule.mask_id).all(-1)]
