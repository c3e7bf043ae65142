"""Learning the autoregressive rival: as a denoiser learns, but by teacher forcing on clean tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from vqlearn.autoregression import AutoregressivePipeline
from vqlearn.training.batches import Source
from vqlearn.training.conditioned import Task
from vqlearn.training.engine import Engine
from vqlearn.training.objectives import Batch, Conditions, Figures, Objective, wide
from vqlearn.training.recipes import DenoiserRecipe, WorldRecipe
from vqlearn.training.scenes import learned_world
from vqlearn.training.stage import Evaluated, TokenStage
from vqlearn.training.updates import of_kind


class TeacherForced(Evaluated):
    """The networks on a batch: `network(x_0)`, logits `[B, L, K]` of every token given the true ones before it.

    `order` `[L]`, or `[B, L]` with one for each row, takes the place of the network's own.
    """

    def __call__(self, x_0: Tensor, order: Tensor | None = None, conditions: Conditions | None = None) -> Tensor:
        return self.logits(x_0, conditions, order)


class TeacherForcing(Objective):
    """The mean of -log p(x_i | the tokens before it) over all tokens, so -log p(x_0) of a picture over L."""

    def __call__(self, batch: Batch, network: Any) -> tuple[Tensor, Figures]:
        return F.cross_entropy(wide(network(batch.x_0)).flatten(0, 1), batch.x_0.flatten()), {}


class AutoregressiveStage(TokenStage):
    """Training of an autoregressive pipeline's transformer, its text encoder and its null text.

    All arguments are those of `DenoiserStage`; `objective(batch, network)` is given `TeacherForced` networks and a
    batch without a schedule, and None is `TeacherForcing()`. Raises ValueError for data that does not fit the network.
    """

    network = TeacherForced

    def __init__(
        self,
        pipe: AutoregressivePipeline,
        data: Dataset[Any] | Source,
        recipe: DenoiserRecipe | None = None,
        objective: Callable[[Batch, TeacherForced], tuple[Tensor, Figures]] | None = None,
        *,
        task: Task | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        workers: int = 0,
        engine: Engine | None = None,
    ):
        of_kind("pipe", pipe, AutoregressivePipeline)
        objective = TeacherForcing() if objective is None else objective
        super().__init__(
            pipe, data, recipe, objective, task=task, device=device, dtype=dtype, workers=workers, engine=engine
        )


def autoregressive_scene_stage(
    pipe: AutoregressivePipeline,
    recipe: WorldRecipe | None = None,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> AutoregressiveStage:
    """The rival's training in the toy world; raises ValueError for a pipeline that cannot learn that world."""
    recipe = WorldRecipe() if recipe is None else recipe
    of_kind("recipe", recipe, WorldRecipe)
    of_kind("pipe", pipe, AutoregressivePipeline)
    tables, task = learned_world(pipe, recipe, device)
    return AutoregressiveStage(pipe, tables, recipe, task=task, device=device, dtype=dtype)
