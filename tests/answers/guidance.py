"""Answers to the exercises of notebook 08: the library's, and wrong ones with what names them."""

import itertools
import math

import torch

from vqlearn import guidance


def guide(log_p, log_p_null, scale):
    return guidance.guide(log_p[None, None], log_p_null[None, None], scale)[0, 0]


def cut(p, rate):
    return guidance.truncate(p.log()[None, None], rate)[0, 0].exp()


def rows(times, scale, low, high, pictures):
    scales = guidance.within(scale, low, high)
    branches = [1 if guidance.scale_at(scales, t) in (0, 1) else 2 for t in times[:-1]]
    return torch.tensor(float(pictures * sum(branches)))


def joint(given, null, scale):
    return guidance.guide(given.log()[None, None], null.log()[None, None], scale)[0, 0].exp()


def sequentially(given, null, scale, num_codes):
    """Token after token by Bayes' rule in plain Python, one grid at a time."""
    length = round(math.log(len(given), num_codes))
    tables = [
        dict(zip(itertools.product(range(num_codes), repeat=length), p.tolist(), strict=True)) for p in (given, null)
    ]

    def prediction(table, start):  # of the code after a beginning
        sums = [sum(p for x, p in table.items() if x[: len(start) + 1] == (*start, k)) for k in range(num_codes)]
        return [value / sum(sums) if sum(sums) else 0.0 for value in sums]

    def guided(start):
        pairs = zip(*(prediction(table, start) for table in tables), strict=True)
        weights = [a if 0 in (a, b) else a**scale * b ** (1 - scale) for a, b in pairs]
        return [weight / sum(weights) if sum(weights) else 0.0 for weight in weights]

    return torch.tensor([math.prod(guided(x[:i])[x[i]] for i in range(length)) for x in tables[0]])


def without_normalising(log_p, log_p_null, scale):
    return log_p + (scale - 1) * (log_p - log_p_null)


def in_probabilities(log_p, log_p_null, scale):
    given, null = log_p.softmax(0), log_p_null.softmax(0)
    return (null + scale * (given - null)).clamp(min=0).log()


def cut_with_own_mass(p, rate):
    ordered, order = p.sort(descending=True)
    kept = ordered.cumsum(0) < rate
    kept[0] = True
    return torch.zeros_like(p).scatter(0, order, ordered * kept)


def cut_unsorted(p, rate):
    kept = p.cumsum(0) - p < rate
    kept[p.argmax()] = True
    return p * kept


def cut_without_first(p, rate):
    return cut(p, rate) if rate > 0 else torch.zeros_like(p)


def counted(times, scale, low, high, pictures, *, last=0, outside=1):
    evaluated = times if last else times[:-1]
    return sum(pictures * (2 if low <= t <= high and scale not in (0, 1) else outside) for t in evaluated)


def counted_unless_one(times, scale, low, high, pictures):
    return sum(pictures * (2 if low <= t <= high and scale != 1 else 1) for t in times[:-1])


def counted_whatever_the_scale(times, scale, low, high, pictures):
    return sum(pictures * (2 if low <= t <= high else 1) for t in times[:-1])


def counted_at_s(times, scale, low, high, pictures):
    return sum(pictures * (2 if low <= t <= high and scale not in (0, 1) else 1) for t in times[1:])


def joint_in_probabilities(given, null, scale):
    found = (null + scale * (given - null)).clamp(min=0)
    return found / found.sum()


def joint_unnormalised(given, null, scale):
    return torch.where(given > 0, given**scale * null ** (1 - scale), 0.0)


LIBRARY = {
    "guided": guide,
    "truncated": cut,
    "rows_asked": rows,
    "guided_law": joint,
    "token_by_token": sequentially,
}
WRONG = [
    ("guided", without_normalising, "not normalised"),
    ("guided", lambda p, null, scale: guide(null, p, scale), "branches are swapped"),
    ("guided", lambda p, null, scale: guide(p, null, scale + 1), "starts at the conditional prediction"),
    ("guided", in_probabilities, "extrapolate the logs"),
    ("guided", lambda p, null, scale: (scale * p).log_softmax(-1), "only sharpens"),
    ("guided", lambda *case: guide(*case).exp(), "asked for in logs"),
    ("truncated", cut_with_own_mass, "the class that crosses"),
    ("truncated", cut_unsorted, "sort first"),
    ("truncated", cut_without_first, "always kept"),
    ("truncated", lambda p, rate: cut(p, rate) / cut(p, rate).sum(), "renormalised"),
    ("truncated", lambda p, rate: cut(p, rate).sort(descending=True)[0], "the answer is sorted"),
    ("truncated", lambda p, rate: p * (p >= 1 - rate), "fixed threshold"),
    ("rows_asked", lambda *case: counted(*case, last=1), "the network is not evaluated"),
    ("rows_asked", lambda *case: counted(*case, outside=2), "one branch is enough"),
    ("rows_asked", lambda *case: counted(*case, outside=0), "the conditional branch is still evaluated"),
    ("rows_asked", counted_whatever_the_scale, "one branch inside the interval"),
    ("rows_asked", counted_at_s, "where a step begins"),
    ("rows_asked", lambda *case: rows(*case[:-1], 1), "a row per picture"),
    ("guided_law", joint_unnormalised, "does not sum to 1"),
    ("guided_law", lambda p, null, s: p**s * null ** (1 - s) / (p**s * null ** (1 - s)).sum(), "nan"),
    ("guided_law", joint_in_probabilities, "goes below 0"),
    ("guided_law", lambda given, null, scale: given**scale / (given**scale).sum(), "only sharpens"),
    ("rows_asked", counted_unless_one, "a scale of 0 is the unconditional"),
    ("token_by_token", lambda given, null, scale, num_codes: joint(given, null, scale), "for whole grids"),
    ("token_by_token", lambda given, null, scale, num_codes: given.clone(), "without guidance"),
    ("token_by_token", lambda given, null, *rest: sequentially(null, given, *rest), "branches are swapped"),
    ("token_by_token", lambda a, b, scale, codes: sequentially(a, b, scale + 1, codes), "counts the scale from 0"),
]
