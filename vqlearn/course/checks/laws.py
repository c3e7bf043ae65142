"""Checks of notebook 09, how wrong a sampler is."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vqlearn.course.checks.judge import judge, small_schedule, then
from vqlearn.schedule import MaskReplaceSchedule


def variation(attempt: Callable) -> None:
    """Check `attempt(p, q)`: the total variation of two laws `[N]`."""

    def right(p, q):
        return (p - q).abs().sum() / 2

    mistakes: list[tuple[str, Callable]] = [
        ("half of the sum: what one law has too much, the other has elsewhere, and it is counted twice", two_of(right)),
        (
            "differences of both signs cancel to 0: take their absolute values before the sum",
            lambda p, q: (p - q).sum(),
        ),
        ("that is the largest difference in one outcome; an event may hold many", lambda p, q: (p - q).abs().max()),
        ("that is the mean over outcomes: take the sum", lambda p, q: (p - q).abs().mean() / 2),
        ("that is the mean over outcomes, not half of the sum", lambda p, q: (p - q).abs().mean()),
        ("absolute differences, not squares", lambda p, q: ((p - q) ** 2).sum() / 2),
        ("that is a Euclidean distance: absolute differences, not squares", lambda p, q: ((p - q) ** 2).sum().sqrt()),
        ("that is the divergence KL(p || q), the other measure", lambda p, q: (p * (p / q).log()).sum()),
        ("that is the divergence KL(q || p), the other measure", lambda p, q: (q * (q / p).log()).sum()),
        ("that is what the laws share: take it from 1", then(right, lambda value: 1 - value)),
    ]
    p = torch.tensor([0.5, 0.3, 0.1, 0.1], dtype=torch.float64)
    cases = [
        (p, torch.tensor(q, dtype=torch.float64)) for q in ([0.25] * 4, [0.1, 0.1, 0.3, 0.5], [0.4, 0.4, 0.1, 0.1])
    ]
    judge(
        attempt,
        cases,
        right,
        mistakes,
        "Right: half of it is what the best player of real-or-drawn gains over guessing.",
    )


def two_of(right: Callable) -> Callable:
    return then(right, lambda value: 2 * value)


def one_call(attempt: Callable) -> None:
    """Check `attempt(joint)`: the law of three tokens drawn in one call, `[K, K, K] -> [K, K, K]`."""

    def each(joint):
        return joint.sum((1, 2)), joint.sum((0, 2)), joint.sum((0, 1))

    def product(a, b, c):
        return a[:, None, None] * b[:, None] * c

    def right(joint):
        return product(*each(joint))

    def pairs_kept(joint):
        return joint.sum(2)[:, :, None] * joint.sum((0, 1))

    def surest(joint):
        return product(*(torch.nn.functional.one_hot(p.argmax(), len(p)).double() for p in each(joint)))

    mistakes: list[tuple[str, Callable]] = [
        ("that is the law of the data itself: a sampler that draws the tokens apart does not reach it", lambda j: j),
        (
            "a flat law: the belief about a masked token is its marginal in the data",
            lambda j: torch.full_like(j, 1 / j.numel()),
        ),
        ("the positions are in reverse order", lambda j: product(*each(j)[::-1])),
        (
            "each position has a marginal of its own; you used the first one's for all",
            lambda j: product(*[each(j)[0]] * 3),
        ),
        ("each position has a marginal of its own; you used their mean", lambda j: product(*[sum(each(j)) / 3] * 3)),
        ("in one call no two tokens are drawn together; the first two still depend on each other", pairs_kept),
        ("a sampler draws from the belief, it does not take the likeliest code", surest),
        ("beliefs multiply: independent draws have the product of their probabilities", added(each)),
    ]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.rand(k, k, k, generator=generator, dtype=torch.float64) ** 2 for k in (2, 3)]
    cases = [(weight / weight.sum(),) for weight in weights]
    judge(
        attempt, cases, right, mistakes, "Right: three perfect beliefs, and their product is not the law of the three."
    )


def added(each: Callable) -> Callable:
    def mean(joint):
        a, b, c = each(joint)
        total = a[:, None, None] + b[:, None] + c
        return total / total.sum()

    return mean


def next_law(attempt: Callable) -> None:
    """Check `attempt(law, p)`: the law of x_s, `[C, C], [C, C, 2, C] -> [C, C]`."""

    def right(law, p):
        return torch.einsum("xy,xya,xyb->ab", law, p[:, :, 0], p[:, :, 1])

    def apart(law, p):
        return torch.einsum("xy,xya->a", law, p[:, :, 0])[:, None] * torch.einsum("xy,xyb->b", law, p[:, :, 1])

    def flat(law, p):
        return right(torch.full_like(law, 1 / law.numel()), p)

    def likeliest(law, p):
        x, y = divmod(int(law.argmax()), law.shape[1])
        return p[x, y, 0][:, None] * p[x, y, 1]

    def one_position(law, p):
        return torch.einsum("xy,xya,xyb->ab", law, p[:, :, 0], p[:, :, 0])

    mistakes: list[tuple[str, Callable]] = [
        (
            "multiply first, then sum over states: the positions are independent given the state, not by themselves",
            apart,
        ),
        ("the states are not equally likely: weigh each by the law", flat),
        ("the walk may be in any state, not only in the likeliest", likeliest),
        ("the two positions are swapped", then(right, lambda law: law.T)),
        ("the two positions of x_t are swapped", lambda law, p: right(law.T, p)),
        ("that uses the first position's probabilities for both", one_position),
        (
            "sum over states, do not average: the law holds the weights already",
            lambda law, p: right(law, p) / law.numel(),
        ),
        (
            "the law's weights are missing: that is the sum over states alone",
            lambda law, p: right(torch.ones_like(law), p),
        ),
    ]
    generator = torch.Generator().manual_seed(1)
    cases = []
    for states in (2, 3):
        law = torch.rand(states, states, generator=generator, dtype=torch.float64) ** 3
        p = torch.rand(states, states, 2, states, generator=generator, dtype=torch.float64) ** 3
        cases.append((law / law.sum(), p / p.sum(-1, keepdim=True)))
    judge(attempt, cases, right, mistakes, "Right: with this and a perfect denoiser you have the whole lab.")


def told_and_seen(attempt: Callable) -> None:
    """Check `attempt(n, schedule)`: the mean masked share seen less told over the times n ... 1 of diffusers' walk."""

    def right(n, schedule):
        told = schedule.gamma_bar[1 : n + 1]
        return (told / schedule.gamma_bar[n] - told).mean()

    def at_first(n, schedule):
        return 1 - schedule.gamma_bar[n]

    def stays(n, schedule):
        return (1 - schedule.gamma_bar[1 : n + 1]).mean()

    def shifted(n, schedule):
        told = schedule.gamma_bar[:n]
        return (told / schedule.gamma_bar[n] - told).mean()

    def of_all(n, schedule):
        return right(n, schedule) * n / schedule.num_steps

    def forward(n, schedule):
        share, gaps = torch.ones(()).double(), []
        for t in range(n, 0, -1):
            gaps.append(share - schedule.gamma_bar[t])
            share = share * (1 - schedule.gamma[t])
        return torch.stack(gaps).mean()

    mistakes: list[tuple[str, Callable]] = [
        ("that is the gap at the first call alone: take the mean over all n", at_first),
        ("masks are uncovered on the way: the share that is seen falls from 1", stays),
        ("t = n ... 1 in our counting: diffusers' timestep n - 1 is our time n", shifted),
        ("that is the sum: divide by the number of calls", lambda n, schedule: right(n, schedule) * n),
        ("divide by the n calls of the walk, not by T", of_all),
        ("seen less told, not told less seen", then(right, lambda gap: -gap)),
        (
            "that is the share that is seen: take the told one from it",
            lambda n, schedule: (schedule.gamma_bar[1 : n + 1] / schedule.gamma_bar[n]).mean(),
        ),
        (
            "gamma is the forward chance of being masked; on the way back gamma_bar[t - 1] / gamma_bar[t] stay masked",
            forward,
        ),
    ]
    schedules = (small_schedule(), MaskReplaceSchedule.released(4, 10), MaskReplaceSchedule.paper(4, 10))
    cases = [(n, schedule) for schedule in schedules for n in (3, 5, 8)]
    judge(attempt, cases, right, mistakes, "Right: the fewer the calls, the less is told of what is seen.")
