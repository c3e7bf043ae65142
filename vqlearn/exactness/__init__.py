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

__all__ = [
    "Outcome", "bound", "divergence", "grids", "markov_chain", "numbers", "oracle", "outcome", "prior",
    "sure_of_masks", "total_variation",
]  # fmt: skip
