"""Learning a denoiser, with its text encoder if it has one, on any data set and by any objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.training.batches import Source
from vqlearn.training.conditioned import Task
from vqlearn.training.engine import Engine
from vqlearn.training.objectives import Batch, Conditions, CrossEntropy, Figures, Network, check_state
from vqlearn.training.recipes import DenoiserRecipe
from vqlearn.training.stage import Evaluated, TokenStage
from vqlearn.training.updates import of_kind


class _Denoiser(Evaluated):
    """A denoiser's networks on a batch: `network(x_t, t)`, with times `[B]` in 1 ... T."""

    def __call__(self, x_t: Tensor, t: Tensor, conditions: Conditions | None = None) -> Tensor:
        conditions = self.batch.conditions() if conditions is None else conditions
        check_state(x_t, t, conditions, self.batch)
        return self.logits(x_t, conditions, t - 1)  # the network counts from 0


class DenoiserStage(TokenStage):
    """Training of a pipeline's denoiser, its text encoder and its null text.

    `data` is a `torch.utils.data.Dataset` of (image or tokens, condition): float `[C, H, W]` in [-1, 1], which the
    pipeline's codec encodes, or int64 `[L]`; a caption, a class number or whatever else for a network that is
    conditioned on neither. Or it is a `Source`. `objective(batch, network)` gives the loss (None is `CrossEntropy()`).
    With `dtype` the networks compute in it, with a working copy of the weights that each step renews; the weights
    themselves and the optimizer stay float32. An exponential moving average of the weights is what is shipped, see
    `averaged`. `workers` processes load the data set; `engine` says how an update is
    computed. Raises ValueError for data that does not fit the network.
    """

    network = _Denoiser

    def __init__(
        self,
        pipe: VQDiffusionPipeline,
        data: Dataset[Any] | Source,
        recipe: DenoiserRecipe | None = None,
        objective: Callable[[Batch, Network], tuple[Tensor, Figures]] | None = None,
        *,
        task: Task | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        workers: int = 0,
        engine: Engine | None = None,
    ):
        of_kind("pipe", pipe, VQDiffusionPipeline)
        objective = CrossEntropy() if objective is None else objective
        super().__init__(
            pipe, data, recipe, objective, task=task, device=device, dtype=dtype, workers=workers, engine=engine
        )
        self.schedule = pipe.schedule.to(device)
