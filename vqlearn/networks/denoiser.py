"""From a network to a denoiser: the predictions of both branches, guided, truncated, and split to what fits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vqlearn import guidance
from vqlearn.guidance import Scale
from vqlearn.networks.conditions import Reading
from vqlearn.reverse import Denoiser

Network = Callable[..., Tensor]  # the transformer, or a compiled form of it


class Predictions(NamedTuple):
    """log p(x_0 | x_t), `[B, L, K]`, float32 or float64, of the conditional and the unconditional branch.

    Where only one branch was evaluated the other is None.
    """

    conditional: Tensor | None
    unconditional: Tensor | None

    def normalised(self) -> Predictions:
        """Log probabilities from logits."""
        return Predictions(*(None if logits is None else logits.log_softmax(-1) for logits in self))


OnPredictions = Callable[[int, Tensor, Predictions], None] | None


def predict(network: Network, x_t: Tensor, t: int, reading: Reading, *, branches: str = "both") -> Predictions:
    """The logits of one forward pass: "both" branches as one batch, the null one first as published, or one alone."""
    # The network counts from 0: the one place that converts. `full` fills it in, `tensor` would wait for the GPU
    timestep = torch.full((), t - 1, device=x_t.device)
    if branches == "both":
        null, given = _wide(network(x_t, reading.both, timestep, 2)).chunk(2)
        return Predictions(given, null)
    logits = _wide(network(x_t, reading.given if branches == "conditional" else reading.null, timestep))
    return Predictions(logits, None) if branches == "conditional" else Predictions(None, logits)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def denoiser(
    network: Network,
    reading: Reading,
    at_once: Callable[[int], int],
    *,
    scale: Scale = 1.0,
    truncation_rate: float = 1.0,
    top_k: int | None = None,
    on_predictions: OnPredictions = None,
) -> Denoiser:
    """`denoise(x_t, t) -> log_p_x0` for what was read, with guidance, truncation and top-k applied.

    `at_once` says how many pictures fit into one forward pass of one or two branches; a batch too large for it is
    split, which changes no draw. `on_predictions(t, x_t, predictions)` sees what the network said. The denoiser raises
    ValueError for x_t of another number of pictures than were read.
    """
    at_once = functools.cache(at_once)  # a GPU's driver is asked once, not in every step
    cut = functools.cache(reading.part)

    def parts(each: int) -> Iterator[tuple[slice, Reading]]:
        for begin in range(0, reading.rows, each):
            end = min(begin + each, reading.rows)
            yield slice(begin, end), cut(begin, end)

    @torch.no_grad()
    def denoise(x_t: Tensor, t: int) -> Tensor:
        if len(x_t) != reading.rows:
            raise ValueError(f"this denoiser was made for {reading.rows} pictures, got x_t of {len(x_t)}")
        w = guidance.scale_at(scale, t, x_t.shape)
        branches = guidance.branches(w)
        found, seen = [], []
        for rows, part in parts(at_once(2 if branches == "both" else 1)):
            predictions = predict(network, x_t[rows], t, part, branches=branches)
            log_p = guidance.truncate(_guided(predictions, w[rows] if isinstance(w, Tensor) else w), truncation_rate)
            found.append(log_p if top_k is None else guidance.top_k(log_p, top_k))
            if on_predictions is not None:
                seen.append(predictions.normalised())
        if on_predictions is not None:
            on_predictions(t, x_t, _together(seen))
        return found[0] if len(found) == 1 else torch.cat(found)

    return denoise


def _guided(predictions: Predictions, scale: float | Tensor) -> Tensor:
    given, null = predictions
    if given is not None and null is not None:
        return guidance.guide(given, null, scale)
    return next(logits for logits in predictions if logits is not None).log_softmax(-1)


def _together(parts: list[Predictions]) -> Predictions:
    return Predictions(*(None if some[0] is None else torch.cat(some) for some in zip(*parts, strict=True)))
