"""Other cases like those of a check: the marker asks for them, so that no table of known answers passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from vqlearn.schedule import MaskReplaceSchedule


def number(generator: Generator, low: float, high: float) -> float:
    """A number drawn uniformly from [low, high)."""
    return low + (high - low) * float(torch.rand((), dtype=torch.float64, generator=generator))


def whole(generator: Generator, low: int, high: int) -> int:
    """A whole number drawn uniformly from low ... high."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def shaken(values: Tensor, generator: Generator) -> Tensor:
    """Each number times a factor of its own between 0.5 and 1.5: zeros stay, and so do signs."""
    return values * (0.5 + torch.rand(values.shape, dtype=torch.float64, generator=generator))


def redistributed(p: Tensor, generator: Generator) -> Tensor:
    """Another distribution with the same zeros and the same mass, along the last dimension."""
    other = shaken(p, generator)
    return other * (p.sum(-1, keepdim=True) / other.sum(-1, keepdim=True))


def redrawn(values: Tensor, generator: Generator) -> Tensor:
    """As many uniform numbers."""
    return torch.rand(values.shape, dtype=torch.float64, generator=generator)


def power(generator: Generator) -> float:
    """How fast the other schedule noises; never so near to 1 that the two could be taken for each other."""
    size = number(generator, 1.1, 1.4)
    return size if whole(generator, 0, 1) else 1 / size


def at_other_speed(case: tuple[Any, ...], generator: Generator) -> tuple[Any, ...]:
    """The case with its schedules at another speed: each chance to be kept, and not to be masked, to one power."""
    p = power(generator)

    def changed(value: Any) -> Any:
        if not isinstance(value, MaskReplaceSchedule):
            return value
        return MaskReplaceSchedule(value.alpha_bar**p, 1 - (1 - value.gamma_bar) ** p, num_codes=value.num_codes)

    return tuple(changed(value) for value in case)
