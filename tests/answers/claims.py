"""Answers to the exercises of notebook 15: the library's, and wrong ones with what names them."""

import math
import statistics

import numpy as np
import torch


def half(better, worse, t):
    gaps = torch.as_tensor(better) - torch.as_tensor(worse)
    return t * gaps.std() / math.sqrt(len(gaps))


def seeds(deviation, difference, t):
    """As many as are not enough, and one; 1 too many if none of those in the table are."""
    n = torch.arange(1, len(t) + 1)
    return 1 + (torch.as_tensor(t) * deviation >= difference * n**0.5).sum()


def fluke(claims, level):
    return -torch.expm1(claims * torch.log1p(torch.tensor(-level)))


LIBRARY = {"paired_half_width": half, "seeds_needed": seeds, "any_fluke": fluke}
WRONG = [
    (
        "paired_half_width",
        lambda a, b, t: t * math.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b)),
        "as independent",
    ),
    ("paired_half_width", lambda a, b, t: t * np.subtract(a, b).std() / len(a) ** 0.5, "divide by one less"),
    ("paired_half_width", lambda a, b, t: t * statistics.stdev(np.subtract(a, b)), "for a single difference"),
    ("paired_half_width", lambda a, b, t: t * statistics.stdev(np.subtract(a, b)) / len(a), "not by n"),
    ("paired_half_width", lambda a, b, t: half(a, b, 1.96), "for a few seeds"),
    ("paired_half_width", lambda a, b, t: half(a, b, 1), "`t` is missing"),
    ("paired_half_width", lambda a, b, t: t * np.subtract(a, b).var(ddof=1) / len(a), "its root"),
    ("paired_half_width", lambda a, b, t: 2 * half(a, b, t), "whole width"),
    (
        "paired_half_width",
        lambda a, b, t: half([x for x in a for _ in b], [y for _ in a for y in b], t),
        "not with all runs",
    ),
    ("seeds_needed", lambda s, d, t: seeds(s, d, t) - 1, "one seed more"),
    ("seeds_needed", lambda s, d, t: seeds(s, d, t[1:]), "n seeds have n - 1"),
    ("seeds_needed", lambda s, d, t: max(2, math.floor((1.96 * s / d) ** 2) + 1), "deviation that is known"),
    ("seeds_needed", lambda s, d, t: next((n for n in range(2, 11) if t[n - 1] * s < d), 11), "by the root of n"),
    ("seeds_needed", lambda s, d, t: seeds(2 * s, d, t), "not the whole"),
    ("any_fluke", lambda n, p: n * p, "expected number"),
    ("any_fluke", lambda n, p: p**n, "all of them"),
    ("any_fluke", lambda n, p: (1 - p) ** n, "none does"),
    ("any_fluke", lambda n, p: n * p * (1 - p) ** (n - 1), "exactly one"),
    ("any_fluke", lambda n, p: p, "a single claim"),
]
