"""What three seeds can say: intervals of differences between paired runs, and the verdict on a claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Interval:
    """A mean with half the width of its 95 % interval (Student's t over seeds)."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


def interval(values: Sequence[float]) -> Interval:
    """Of independent values, two to ten of them; raises ValueError for another number.

    >>> interval([1.0, 2.0, 3.0])
    Interval(mean=2.0, half=2.4843...)
    """
    degrees = len(values) - 1
    if degrees not in T_975:
        raise ValueError(f"an interval takes 2 to 10 values, got {len(values)}")
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / degrees)
    return Interval(mean, T_975[degrees] * deviation / math.sqrt(len(values)))


def verdict(intervals: Sequence[Interval]) -> str:
    """On a claim that is true if every one of some differences is positive."""
    if all(one.low > 0 for one in intervals):
        return "held"
    if any(one.high < 0 for one in intervals):
        return "not held"
    return "cannot tell at this size"
