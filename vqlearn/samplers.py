"""All samplers by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vqlearn.reverse import Sampler, as_sampler
from vqlearn.sampling import Corrector, ancestral, first_hitting, official_fast
from vqlearn.scheduler import Reference
from vqlearn.unmasking import Confident, EntropyBounded, Halton, HighQuality, Purity

SAMPLERS: dict[str, Sampler] = {
    "ancestral": ancestral,
    "corrector": Corrector(),
    "high_quality": HighQuality(),
    "purity": Purity(),
    "confident": Confident(),
    "halton": Halton(),
    "entropy_bounded": EntropyBounded(),
    "first_hitting": first_hitting,
    "official_fast": official_fast,
    "reference": Reference(),
}
"""Every sampler of the package by name: what `sampler=` takes, in the order of the comparison table."""


def find(sampler: str | Callable[..., Tensor]) -> Sampler:
    """A sampler by its name, or one of your own; raises ValueError for a name that is none."""
    if callable(sampler):
        return as_sampler(sampler)
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, or a function, got {sampler!r}")
    return SAMPLERS[sampler]
