"""Exact answers on small joint distributions: the distribution that a sampler draws from, and the ideal denoiser."""

from vqlearn.exactness.enumeration import (
    Outcome,
    bound,
    divergence,
    grids,
    markov_chain,
    numbers,
    oracle,
    outcome,
    prior,
    sure_of_masks,
    total_variation,
)
from vqlearn.exactness.sequential import ideal_conditionals, sequential_outcome

__all__ = [
    "Outcome", "bound", "divergence", "grids", "ideal_conditionals", "markov_chain", "numbers", "oracle", "outcome",
    "prior", "sequential_outcome", "sure_of_masks", "total_variation",
]  # fmt: skip
