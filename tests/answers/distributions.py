"""Answers to the exercises of notebook 09: the library's, and wrong ones with what names them."""

import itertools

import torch

from vqlearn import exact
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_posterior


def variation(p, q):
    return torch.tensor(exact.total_variation(p, q), dtype=torch.float64)


def one_call(joint):
    """By `exactness`: one step of `ancestral` from masks alone under masking alone."""
    codes = len(joint)
    schedule = MaskReplaceSchedule([1.0, 0.0], [0.0, 1.0], num_codes=codes)
    denoise = exact.oracle(joint.double().flatten(), schedule)
    masks = torch.full((1, 3), codes)
    a, b, c = q_posterior(denoise(masks, 1), masks, 1, schedule)[0, :, :-1].exp()
    return a[:, None, None] * b[:, None] * c


def next_law(p_t, p):
    return sum(
        p_t[x, y] * torch.outer(p[x, y, 0], p[x, y, 1]) for x in range(len(p_t)) for y in range(len(p_t))
    ) + torch.zeros_like(p_t)


def told_and_seen(n, schedule):
    share, total = torch.ones((), dtype=torch.float64), 0.0
    for t in range(n, 0, -1):
        total = total + share - schedule.gamma_bar[t]
        share = share * schedule.gamma_bar[t - 1] / schedule.gamma_bar[t]
    return total / n


def kernel_posterior(log_p_x0, x_t, log_bar_s, log_step):
    """In probabilities, one token and one x_0 after the other."""
    out = torch.zeros(*x_t.shape, len(log_bar_s), dtype=torch.float64)
    for b, i in itertools.product(*map(range, x_t.shape)):
        for x_0, weight in enumerate(log_p_x0[b, i].double().exp()):
            path = (log_step[x_t[b, i]].double() + log_bar_s[:, x_0].double()).exp()
            if path.sum() > 0:
                out[b, i] += weight * path / path.sum()
    return (out / out.sum(-1, keepdim=True)).log().to(log_p_x0.dtype)


def each(joint):
    return joint.sum((1, 2)), joint.sum((0, 2)), joint.sum((0, 1))


def all_alike(joint, marginal):
    return torch.einsum("a,b,c->abc", marginal, marginal, marginal)


def marginals_first(p_t, p):
    first, second = (torch.einsum("xy,xyc->c", p_t, p[:, :, i]) for i in (0, 1))
    return torch.outer(first, second)


def never_uncovered(n, schedule):
    return 1 - schedule.gamma_bar[1 : n + 1].mean()


def undivided(log_p_x0, x_t, log_bar_s, log_step):
    prior = log_bar_s.exp() @ log_p_x0.exp()[..., None]
    p = log_step.exp()[x_t] * prior[..., 0]
    return (p / p.sum(-1, keepdim=True)).log()


def careless(log_p_x0, x_t, log_bar_s, log_step):
    q = log_step.exp()[x_t][..., None] * log_bar_s.exp()
    p = ((q / q.sum(-2, keepdim=True)) * log_p_x0.exp()[..., None, :]).sum(-1)
    return (p / p.sum(-1, keepdim=True)).log()


LIBRARY = {
    "variation": variation,
    "one_call": one_call,
    "next_law": next_law,
    "told_and_seen": told_and_seen,
    "kernel_posterior": kernel_posterior,
}
WRONG = [
    ("variation", lambda p, q: (p - q).abs().sum(), "half of the sum"),
    ("variation", lambda p, q: (p - q).sum() / 2, "cancel to 0"),
    ("variation", lambda p, q: (p - q).abs().max(), "largest difference in one outcome"),
    ("variation", lambda p, q: (p - q).abs().mean(), "mean over outcomes"),
    ("variation", lambda p, q: (p - q).pow(2).sum().sqrt(), "Euclidean"),
    ("variation", lambda p, q: torch.tensor(exact.divergence(p, q)), "KL(p || q)"),
    ("variation", lambda p, q: torch.minimum(p, q).sum(), "take it from 1"),
    ("one_call", lambda joint: joint, "distribution of the data itself"),
    ("one_call", lambda joint: torch.ones_like(joint) / joint.numel(), "a uniform distribution"),
    ("one_call", lambda joint: one_call(joint).permute(2, 1, 0), "reverse order"),
    ("one_call", lambda joint: all_alike(joint, each(joint)[0]), "the first one's for all"),
    ("one_call", lambda joint: all_alike(joint, sum(each(joint)) / 3), "their mean"),
    ("one_call", lambda joint: joint.sum(2, keepdim=True) * joint.sum((0, 1)), "still depend on each other"),
    ("next_law", marginals_first, "multiply first, then sum"),
    ("next_law", lambda p_t, p: next_law(torch.ones_like(p_t) / p_t.numel(), p), "weight each by its probability"),
    ("next_law", lambda p_t, p: next_law(torch.ones_like(p_t), p), "the sum over states alone"),
    ("next_law", lambda p_t, p: next_law(p_t, p).T, "two positions are swapped"),
    ("next_law", lambda p_t, p: next_law(p_t.T, p), "positions of x_t are swapped"),
    ("next_law", lambda p_t, p: next_law(p_t, p) / p_t.numel(), "do not average"),
    ("told_and_seen", lambda n, schedule: 1 - schedule.gamma_bar[n], "first network evaluation alone"),
    ("told_and_seen", never_uncovered, "masks are uncovered on the way"),
    ("told_and_seen", lambda n, schedule: -told_and_seen(n, schedule), "not the other way round"),
    (
        "told_and_seen",
        lambda n, schedule: n * told_and_seen(n, schedule),
        "divide by the number of network evaluations",
    ),
    ("told_and_seen", lambda n, schedule: n / schedule.num_steps * told_and_seen(n, schedule), "not by T"),
    ("kernel_posterior", lambda *case: kernel_posterior(*case).exp(), "in logs"),
    ("kernel_posterior", lambda p, x_t, bar, step: kernel_posterior(p, x_t, bar, step.T), "the column of x_t"),
    ("kernel_posterior", lambda p, x_t, bar, step: step[x_t].log_softmax(-1), "the likelihood alone"),
    ("kernel_posterior", undivided, "divide by q(x_t | x_0)"),
    ("kernel_posterior", careless, "some entries are nan"),
]
