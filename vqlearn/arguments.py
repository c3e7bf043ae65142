"""Numbers that a caller gives: Python's and numpy's, one kind of message for what is none or is out of range."""

from __future__ import annotations

import math
import numbers
from typing import Any


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as an int; raises ValueError unless it is a whole number (of Python or numpy) from `least` to `most`.

    >>> whole("steps", 5, 1, 10)
    5
    >>> whole("steps", True, 1, 10)
    Traceback (most recent call last):
    ValueError: steps must be a whole number from 1 to 10, got True
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        if least <= number <= (number if most is None else most):
            return number
    wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ValueError(f"{name} must be a whole number {wanted}, got {shown(value)}")


def real(name: str, value: Any, least: float = -math.inf, most: float = math.inf, *, above: bool = False) -> float:
    """`value` as a float; raises ValueError unless it is a finite number (of Python or numpy) from `least` to `most`.

    `above` leaves `least` itself out.

    >>> real("strength", 0.5, 0, 1, above=True)
    0.5
    >>> real("strength", 0, 0, 1, above=True)
    Traceback (most recent call last):
    ValueError: strength must be a number in (0, 1], got 0
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an int too large for a float
            number = math.inf
        if math.isfinite(number) and least <= number <= most and not (above and number == least):
            return number
    raise ValueError(f"{name} must be a {_range(least, most, above)}, got {shown(value)}")


def permutation(name: str, value: Any, length: int) -> list[int]:
    """An order of 0 ... `length` - 1 (a sequence, numpy's or torch's too) as a list; raises ValueError for any other.

    >>> permutation("order", (2, 0, 1), 3)
    [2, 0, 1]
    >>> permutation("order", [0, 0, 1], 3)
    Traceback (most recent call last):
    ValueError: order must hold each of the 3 positions 0 ... 2 once, got [0, 0, 1]
    """
    given = value.tolist() if hasattr(value, "tolist") else value
    try:
        found = [whole(name, number, 0, length - 1) for number in given]
    except (TypeError, ValueError):
        found = []
    if len(found) != length or len({*found}) != length:
        raise ValueError(f"{name} must hold each of the {length} positions 0 ... {length - 1} once, got {shown(value)}")
    return found


def shown(value: object) -> str:
    """How a message shows a value: a line of at most 80 characters, and the type alone of what cannot be shown."""
    try:
        return " ".join(line.strip() for line in repr(value).splitlines())[:80]
    except Exception:  # a user's own __repr__, or an int of thousands of digits
        return f"a value of type {type(value).__name__}"


def _range(least: float, most: float, above: bool) -> str:
    if math.isfinite(least) and math.isfinite(most):
        return f"number in {'(' if above else '['}{least:g}, {most:g}]"
    if math.isfinite(least):
        return f"finite number {'above' if above else 'of at least'} {least:g}"
    return "finite number"
