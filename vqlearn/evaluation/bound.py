"""The code length of data, in bits, with its standard error: how well a model would compress what is new to it.

Of a diffusion model it is the evidence bound, of an autoregressive one -log2 p(x_0) itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from vqlearn.arguments import whole
from vqlearn.autoregression import AutoregressivePipeline
from vqlearn.draws import uniform
from vqlearn.objective import continuous_loss, evidence_bound, prior_term
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.reverse import Denoiser
from vqlearn.schedule import MaskReplaceSchedule


@dataclass(frozen=True)
class Estimate:
    """An upper bound on -log2 p(x_0), or that itself, the mean over the data, with its standard error.

    The error counts what is drawn at random, of a bound times and x_t, and that the rows are a sample of all that there
    could be.
    """

    bits_per_token: float
    standard_error: float
    tokens: int  # per row
    samples: int  # independent estimates that it is the mean of

    @property
    def bits_per_row(self) -> float:
        """Of a whole picture or sequence."""
        return self.bits_per_token * self.tokens

    @property
    def standard_error_per_row(self) -> float:
        """That of `bits_per_row`."""
        return self.standard_error * self.tokens

    def __str__(self) -> str:
        return f"{self.bits_per_token:.4f} ± {self.standard_error:.4f} bits per token"


def estimate(bits: Tensor, tokens: int) -> Estimate:
    """From independent estimates in bits per token `[N]`; raises ValueError for fewer than two."""
    if len(bits) < 2:
        raise ValueError(f"a standard error takes at least 2 independent estimates, got {len(bits)}; use more data")
    return Estimate(float(bits.mean()), float(bits.std() / math.sqrt(len(bits))), tokens, len(bits))


def bound(
    denoise: Denoiser, x_0: Tensor, schedule: MaskReplaceSchedule, *, generator: Generator | None = None
) -> Estimate:
    """The bound of a denoiser on independent rows x_0 `[B, L]`, with every time 1 ... T visited once."""
    return estimate(evidence_bound(denoise, x_0, schedule, generator=generator), x_0.shape[1])


@torch.no_grad()
def continuous_bound(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x_0: Tensor,
    schedule: MaskReplaceSchedule,
    *,
    samples: int = 1,
    generator: Generator | None = None,
) -> Estimate:
    """The bound in continuous time on independent rows x_0 `[B, L]`, with `samples` times drawn for each row.

    `denoise` takes a time per row, int64 `[B]`. The even spread of the times makes the error less than stated.
    """
    each = [continuous_loss(denoise, x_0, schedule, generator=generator) for _ in range(whole("samples", samples))]
    nats = torch.stack(each).cpu().double().mean(0) + prior_term(x_0.cpu(), schedule, dtype=torch.float64).mean(-1)
    return estimate(nats / math.log(2), x_0.shape[1])


def pipeline_bound(
    pipe: VQDiffusionPipeline | AutoregressivePipeline,
    data: Dataset[Any],
    *,
    count: int | None = None,
    batch: int = 32,
    times: int | None = None,
    generator: Generator | None = None,
) -> Estimate:
    """The bound of a pipeline on the first `count` rows (image or tokens, condition) of a data set, without guidance.

    With `times` only so many times, one from each of as many equal parts of 1 ... T, are visited for each batch, whose
    rows then are one independent estimate and not as many. An autoregressive pipeline has no times and draws nothing:
    its code length is exact. Raises ValueError for data that the pipeline cannot read.
    """
    count, batch = None if count is None else whole("count", count), whole("batch", batch)
    times = None if times is None else whole("times", times)
    if isinstance(pipe, AutoregressivePipeline):
        if times is not None:
            raise ValueError(f"times must be None for an autoregressive pipeline, which has none, got {times}")
        found = [pipe.bits(*rows).cpu().double() / pipe.length for rows in _batches(pipe, data, count, batch)]
    else:
        found = [_bound(pipe, *rows, times, generator) for rows in _batches(pipe, data, count, batch)]
    return estimate(torch.cat(found), pipe.length)


def _bound(
    pipe: VQDiffusionPipeline, x_0: Tensor, conditions: list[Any], times: int | None, generator: Generator | None
) -> Tensor:
    """Independent estimates of the bound, bits per token: of each row `[B]`, or with `times` one of all, `[1]`."""
    visited = None if times is None else _spread(times, pipe.schedule.num_steps, generator)
    bits = evidence_bound(pipe.denoiser(conditions), x_0, pipe.schedule, times=visited, generator=generator)
    return bits if times is None else bits.mean()[None]


def _batches(
    pipe: VQDiffusionPipeline | AutoregressivePipeline, data: Dataset[Any], count: int | None, batch: int
) -> Iterator[tuple[Tensor, list[Any]]]:
    """Tokens `[B, L]` and the conditions that the pipeline reads."""
    rows = (data[index] for index in range(len(data) if count is None else count))  # type: ignore[arg-type]
    reads_nothing = pipe.transformer.reads == "nothing"
    while some := list(itertools.islice(rows, batch)):
        x = torch.stack([row[0] for row in some])
        x_0 = pipe.encode(x) if x.is_floating_point() else x.to(pipe.device)
        yield x_0, [None if reads_nothing else row[1] for row in some]


def _spread(count: int, steps: int, generator: Generator | None) -> Tensor:
    """One time from each of `count` equal parts of 1 ... T, int64 `[count]`."""
    u = uniform((count,), generator, "cpu")
    return ((torch.arange(count) + u) / count * steps).ceil().long().clamp(1, steps)
