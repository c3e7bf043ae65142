"""What a few seeds can say of a claim: intervals of differences that are paired by seed, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vqlearn.course.results import Row, by_setting

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t: its quantile of 97.5 % by degrees of freedom, one less than there are values."""


@dataclass(frozen=True)
class Interval:
    """A mean with half the width of its 95 % interval."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}} ± {self.half:{spec.lstrip('+')}}"


@dataclass(frozen=True)
class Contrast:
    """Setting `better` exceeds `worse` in a figure by more than `least`, a difference, or a ratio if `ratio`."""

    better: str
    worse: str
    figure: str = "right"
    least: float = 0.0
    ratio: bool = False

    def excess(self, better: float, worse: float) -> float:
        """How far beyond the least, positive if the claim is true; of ratios the logarithm."""
        return math.log(better / worse / self.least) if self.ratio else better - worse - self.least

    def __str__(self) -> str:
        if self.ratio:
            return f"{self.figure}: {self.better} / {self.worse} > {self.least:g}"
        return f"{self.figure}: {self.better} - {self.worse} > {self.least:g}"


def interval(values: Sequence[float]) -> Interval:
    """The mean of independent values, two to ten of them, with its 95 % interval (Student's t).

    Raises ValueError for another number of values.

    >>> interval([1.0, 2.0, 3.0])
    Interval(mean=2.0, half=2.4843...)
    """
    degrees = len(values) - 1
    if degrees not in T_975:
        raise ValueError(f"an interval takes 2 to 10 values, got {len(values)}")
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / degrees)
    return Interval(mean, T_975[degrees] * deviation / math.sqrt(len(values)))


def differences(contrasts: Sequence[Contrast], rows: Sequence[Row]) -> dict[Contrast, Interval]:
    """How far each contrast exceeds what it must, paired by seed; positive is as claimed."""
    found = {}
    for contrast in contrasts:
        values = by_setting(rows, contrast.figure)
        pairs = zip(values[contrast.better], values[contrast.worse], strict=True)
        found[contrast] = interval([contrast.excess(*pair) for pair in pairs])
    return found


def verdict(intervals: Sequence[Interval]) -> str:
    """Whether a claim that several differences are positive "held", was "not held", or "cannot tell at this size".

    It held if every interval lies above zero, and did not hold if one lies below.
    """
    if all(one.low > 0 for one in intervals):
        return "held"
    if any(one.high < 0 for one in intervals):
        return "not held"
    return "cannot tell at this size"
