"""Checks of notebook 15, the papers' claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Generator

from vqlearn.course.checks.cases import number, whole
from vqlearn.course.checks.check import Check
from vqlearn.course.contrasts import T_975
from vqlearn.course.outcomes import Case

Values = Sequence[float]


def _variance(values: Values, lost: int = 1) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - lost)


def _gaps(better: Values, worse: Values) -> list[float]:
    return [a - b for a, b in zip(better, worse, strict=True)]


def half_width(better: Values, worse: Values, t: float) -> float:
    return t * math.sqrt(_variance(_gaps(better, worse)) / len(better))


def of_all_pairs(better: Values, worse: Values, t: float) -> float:
    gaps = [a - b for a in better for b in worse]
    return t * math.sqrt(_variance(gaps) / len(gaps))


def other_runs(case: Case, generator: Generator) -> Case:
    seeds = whole(generator, 3, 6)
    runs = [number(generator, 0.2, 0.9) for _ in range(seeds)]
    return runs, [run - number(generator, -0.02, 0.1) for run in runs], T_975[seeds - 1]


paired_half_width = Check(
    name="paired_half_width",
    question="half the width of the 95 % interval of the mean difference, for runs that are paired by seed",
    solution=half_width,
    cases=[
        ([0.61, 0.55, 0.64], [0.58, 0.53, 0.59], 4.303),
        ([0.2, 0.5, 0.35, 0.41], [0.1, 0.45, 0.3, 0.2], 3.182),
        ([0.9, 0.7], [0.8, 0.65], 12.706),
    ],
    mistakes=[
        ("that treats the two settings as independent: take the difference of each seed first",
         lambda a, b, t: t * math.sqrt((_variance(a) + _variance(b)) / len(a))),
        ("the deviation divides by the number of seeds; the mean was estimated too, so divide by one less",
         lambda a, b, t: t * math.sqrt(_variance(_gaps(a, b), 0) / len(a))),
        ("that is for a single difference; the mean of n of them scatters less, by the root of n",
         lambda a, b, t: t * math.sqrt(_variance(_gaps(a, b)))),
        ("the deviation of the mean is divided by the root of n, not by n",
         lambda a, b, t: t * math.sqrt(_variance(_gaps(a, b))) / len(a)),
        ("1.96 is for a deviation that is known; for a few seeds it is `t`",
         lambda a, b, t: 1.96 * math.sqrt(_variance(_gaps(a, b)) / len(a))),
        ("the factor `t` is missing", lambda a, b, t: math.sqrt(_variance(_gaps(a, b)) / len(a))),
        ("that is the variance; its root is the deviation", lambda a, b, t: t * _variance(_gaps(a, b)) / len(a)),
        ("that is the whole width", lambda a, b, t: 2 * half_width(a, b, t)),
        ("a run is paired with the run of the same seed, not with all runs", of_all_pairs),
    ],
    praise="what the seeds have in common, such as an easy or a hard start, has dropped out.",
    vary=other_runs,
)  # fmt: skip


TABLE = [math.inf, *T_975.values()]  # by degrees of freedom


def least_seeds(deviation: float, difference: float, t: Values) -> int:
    return min(n for n in range(2, len(t) + 1) if t[n - 1] * deviation / math.sqrt(n) < difference)


def _with(factor: Callable[[Values, int], float], shrinks: bool = True) -> Callable[[float, float, Values], int]:
    """The same search with another factor for n seeds; one more than the table has if none are enough."""

    def search(deviation: float, difference: float, t: Values) -> int:
        for n in range(2, len(t) + 1):
            if factor(t, n) * deviation / (math.sqrt(n) if shrinks else 1) < difference:
                return n
        return len(t) + 1

    return search


def other_effect(case: Case, generator: Generator) -> Case:
    seeds = whole(generator, 3, 9)  # the answer: between what it and one fewer can show
    few, enough = (T_975[n - 1] / math.sqrt(n) for n in (seeds - 1, seeds))
    deviation = number(generator, 0.01, 0.1)
    return deviation, deviation * number(generator, 0.9 * enough + 0.1 * few, few), TABLE


seeds_needed = Check(
    name="seeds_needed",
    question="the least number of seeds whose interval is narrower than `difference` on either side",
    solution=least_seeds,
    cases=[(0.03, 0.05, TABLE), (0.03, 0.1, TABLE), (0.05, 0.04, TABLE), (0.02, 0.0175, TABLE)],
    mistakes=[
        ("that is the number of degrees of freedom; there is one seed more",
         lambda deviation, difference, t: least_seeds(deviation, difference, t) - 1),
        ("`t` goes by degrees of freedom: n seeds have n - 1", _with(lambda t, n: t[min(n, len(t) - 1)])),
        ("1.96 is for a deviation that is known", _with(lambda t, n: 1.96)),
        ("the mean of n differences scatters less than one, by the root of n", _with(lambda t, n: t[n - 1], False)),
        ("the half width counts, not the whole", _with(lambda t, n: 2 * t[n - 1])),
    ],
    praise="and a real difference of exactly that size would still be missed half of the time.",
    vary=other_effect,
)  # fmt: skip


def chance_of_a_fluke(claims: int, level: float) -> float:
    return 1 - (1 - level) ** claims


def other_claims(case: Case, generator: Generator) -> Case:
    return whole(generator, 2, 40), number(generator, 0.005, 0.2)


any_fluke = Check(
    name="any_fluke",
    question="the chance that at least one of `claims` independent false claims seems to hold",
    solution=chance_of_a_fluke,
    cases=[(9, 0.025), (20, 0.05), (3, 0.1)],
    mistakes=[
        ("that is the expected number of flukes, which can exceed 1", lambda claims, level: claims * level),
        ("that is the chance that all of them do", lambda claims, level: level**claims),
        ("that is the chance that none does", lambda claims, level: (1 - level) ** claims),
        ("that is the chance that exactly one does",
         lambda claims, level: claims * level * (1 - level) ** (claims - 1)),
        ("that is the chance for a single claim", lambda claims, level: level),
    ],
    praise="which is why nine verdicts are to be read together, and each with its numbers.",
    vary=other_claims,
)  # fmt: skip
