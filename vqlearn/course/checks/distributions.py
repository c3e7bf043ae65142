"""Checks of notebook 09, how wrong a sampler is."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import at_other_speed, redistributed, shaken, whole
from vqlearn.course.checks.check import Check, normalised, small_schedule, then
from vqlearn.course.outcomes import Case
from vqlearn.schedule import MaskReplaceSchedule


def half_of_the_sum(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).abs().sum() / 2


P = torch.tensor([0.5, 0.3, 0.1, 0.1], dtype=torch.float64)

variation = Check(
    name="variation",
    question="the total variation of two distributions `[N]`",
    solution=half_of_the_sum,
    cases=[
        (P, torch.tensor([0.25, 0.25, 0.25, 0.25]).double()),
        (P, torch.tensor([0.1, 0.1, 0.3, 0.5], dtype=torch.float64)),
        (torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.6, 0.3, 0.1])),
        (P.repeat(2) / 2, torch.arange(1, 9).double() / 36),
    ],
    mistakes=[
        (
            "half of the sum: what one distribution has too much, the other has elsewhere, and it is counted twice",
            then(half_of_the_sum, lambda value: 2 * value),
        ),
        (
            "differences of both signs cancel to 0: take their absolute values before the sum",
            lambda p, q: (p - q).sum(),
        ),
        ("that is the largest difference in one outcome; an event may hold many", lambda p, q: (p - q).abs().max()),
        ("that is the mean over outcomes: take the sum", lambda p, q: (p - q).abs().mean() / 2),
        ("that is the mean over outcomes, not half of the sum", lambda p, q: (p - q).abs().mean()),
        ("absolute differences, not squares", lambda p, q: ((p - q) ** 2).sum() / 2),
        ("that is a Euclidean distance: absolute differences, not squares", lambda p, q: (p - q).norm()),
        ("that is the divergence KL(p || q), the other measure", lambda p, q: (p * (p / q).log()).sum()),
        ("that is the divergence KL(q || p), the other measure", lambda p, q: (q * (q / p).log()).sum()),
        ("that is what the distributions share: take it from 1", then(half_of_the_sum, lambda value: 1 - value)),
    ],
    praise="half of it is what the best player of real-or-drawn gains over guessing.",
    vary=lambda case, generator: tuple(redistributed(p, generator) for p in case),
)


def marginals(joint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return joint.sum((1, 2)), joint.sum((0, 2)), joint.sum((0, 1))


def product(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return a[:, None, None] * b[:, None] * c


def product_of_marginals(joint: Tensor) -> Tensor:
    return product(*marginals(joint))


def first_for_all(joint: Tensor) -> Tensor:
    first = marginals(joint)[0]
    return product(first, first, first)


def mean_for_all(joint: Tensor) -> Tensor:
    mean = torch.stack(marginals(joint)).mean(0)
    return product(mean, mean, mean)


def first_two_together(joint: Tensor) -> Tensor:
    return joint.sum(2)[:, :, None] * joint.sum((0, 1))


def likeliest_codes(joint: Tensor) -> Tensor:
    a, b, c = (torch.nn.functional.one_hot(p.argmax(), len(p)).double() for p in marginals(joint))
    return product(a, b, c)


def added(joint: Tensor) -> Tensor:
    a, b, c = marginals(joint)
    return normalised(a[:, None, None] + b[:, None] + c)


DTYPES = (torch.float64, torch.float64, torch.float32)


def joints() -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.rand(k, k, k, generator=generator, dtype=torch.float64) ** 2 for k in (2, 3, 5)]
    return [(normalised(weight).to(dtype),) for weight, dtype in zip(weights, DTYPES, strict=True)]


one_call = Check(
    name="one_call",
    question="the distribution of three tokens drawn after one network evaluation, `[K, K, K] -> [K, K, K]`",
    solution=product_of_marginals,
    cases=joints(),
    mistakes=[
        (
            "that is the distribution of the data itself, which independent draws of the tokens do not reach",
            lambda joint: joint,
        ),
        (
            "a uniform distribution: the prediction of a masked token is its marginal in the data",
            lambda joint: torch.full_like(joint, 1 / joint.numel()),
        ),
        ("the positions are in reverse order", lambda joint: product(*marginals(joint)[::-1])),
        ("each position has a marginal of its own; you used the first one's for all", first_for_all),
        ("each position has a marginal of its own; you used their mean", mean_for_all),
        (
            "in one network evaluation no two tokens are drawn together; the first two still depend on each other",
            first_two_together,
        ),
        ("a sampler draws from the prediction, it does not take the likeliest code", likeliest_codes),
        ("predictions multiply: independent draws have the product of their probabilities", added),
    ],
    praise="three exact predictions, and their product is not the distribution of the three.",
    vary=lambda case, generator: (normalised(shaken(case[0], generator)),),
)


def pushed(law: Tensor, p: Tensor) -> Tensor:
    return torch.einsum("xy,xya,xyb->ab", law, p[:, :, 0], p[:, :, 1])


def averaged_first(p_t: Tensor, p: Tensor) -> Tensor:
    return torch.einsum("xy,xya->a", p_t, p[:, :, 0])[:, None] * torch.einsum("xy,xyb->b", p_t, p[:, :, 1])


def from_the_likeliest(p_t: Tensor, p: Tensor) -> Tensor:
    x, y = divmod(int(p_t.argmax()), p_t.shape[1])
    return p[x, y, 0][:, None] * p[x, y, 1]


def transitions() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    cases = []
    for states, dtype in zip((2, 3, 4), DTYPES, strict=True):
        weights = torch.rand(states, states, generator=generator, dtype=torch.float64) ** 3
        p = torch.rand(states, states, 2, states, generator=generator, dtype=torch.float64) ** 3
        cases.append((normalised(weights).to(dtype), (p / p.sum(-1, keepdim=True)).to(dtype)))
    return cases


next_law = Check(
    name="next_law",
    question="the distribution of x_s, `[C, C], [C, C, 2, C] -> [C, C]`",
    solution=pushed,
    cases=transitions(),
    mistakes=[
        (
            "multiply first, then sum over states: the positions are independent given the state, not by themselves",
            averaged_first,
        ),
        (
            "the states are not equally likely: weight each by its probability",
            lambda p_t, p: pushed(torch.full_like(p_t, 1 / p_t.numel()), p),
        ),
        ("x_t may be in any state, not only in the likeliest", from_the_likeliest),
        ("the two positions are swapped", then(pushed, lambda p_s: p_s.T)),
        ("the two positions of x_t are swapped", lambda p_t, p: pushed(p_t.T, p)),
        (
            "that uses the first position's probabilities for both",
            lambda p_t, p: torch.einsum("xy,xya,xyb->ab", p_t, p[:, :, 0], p[:, :, 0]),
        ),
        (
            "sum over states, do not average: the distribution holds the weights already",
            lambda p_t, p: pushed(p_t, p) / p_t.numel(),
        ),
        (
            "the probabilities of the states are missing: that is the sum over states alone",
            lambda p_t, p: pushed(torch.ones_like(p_t), p),
        ),
    ],
    praise="with this and an exact denoiser you can measure any sampler.",
    vary=lambda case, generator: (normalised(shaken(case[0], generator)), redistributed(case[1], generator)),
)


def mean_gap(n: int, schedule: MaskReplaceSchedule) -> Tensor:
    given = schedule.gamma_bar[1 : n + 1]
    return (given / schedule.gamma_bar[n] - given).mean()


def shifted(n: int, schedule: MaskReplaceSchedule) -> Tensor:
    given = schedule.gamma_bar[:n]
    return (given / schedule.gamma_bar[n] - given).mean()


def forward_chances(n: int, schedule: MaskReplaceSchedule) -> Tensor:
    share, gaps = torch.ones(()).double(), []
    for t in range(n, 0, -1):
        gaps.append(share - schedule.gamma_bar[t])
        share = share * (1 - schedule.gamma[t])
    return torch.stack(gaps).mean()


def other_times(case: Case, generator: Generator) -> Case:
    _, schedule = at_other_speed(case, generator)
    return whole(generator, 2, schedule.num_steps - 1), schedule


told_and_seen = Check(
    name="told_and_seen",
    question="the masked share that is seen less the share that belongs to the time that the network is given, mean "
    "over the times n ... 1 of diffusers' sampling",
    solution=mean_gap,
    cases=[
        (n, schedule)
        for schedule in (small_schedule(), MaskReplaceSchedule.released(2, 25), MaskReplaceSchedule.paper(6, 12))
        for n in (3, 5, 8)
    ],
    mistakes=[
        (
            "that is the gap at the first network evaluation alone: take the mean over all n",
            lambda n, schedule: 1 - schedule.gamma_bar[n],
        ),
        (
            "masks are uncovered on the way: the share that is seen falls from 1",
            lambda n, schedule: (1 - schedule.gamma_bar[1 : n + 1]).mean(),
        ),
        ("t = n ... 1 in our counting: diffusers' timestep n - 1 is our time n", shifted),
        (
            "that is the sum: divide by the number of network evaluations",
            lambda n, schedule: mean_gap(n, schedule) * n,
        ),
        (
            "divide by the n network evaluations, not by T",
            lambda n, schedule: mean_gap(n, schedule) * n / schedule.num_steps,
        ),
        (
            "the share that is seen less that of the given time, not the other way round",
            then(mean_gap, lambda gap: -gap),
        ),
        (
            "that is the share that is seen: take that of the given time from it",
            lambda n, schedule: (schedule.gamma_bar[1 : n + 1] / schedule.gamma_bar[n]).mean(),
        ),
        (
            "gamma is the forward chance of being masked; in the reverse process gamma_bar[t - 1] / gamma_bar[t] stay "
            "masked",
            forward_chances,
        ),
    ],
    praise="the fewer the steps, the larger the gap between what is seen and the time that is given.",
    vary=other_times,
)
