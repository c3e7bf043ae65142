"""Learning the toy world: scenes drawn as they are needed, and the exact prediction as the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vqlearn.arguments import shown
from vqlearn.components import Components
from vqlearn.data import layouts
from vqlearn.data.layouts import Claims, CodeTable, TextTable
from vqlearn.evaluation.agreement import check_world
from vqlearn.exactness.ideal import ideal_prediction
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.training.batches import Rows, Source
from vqlearn.training.denoiser import DenoiserStage
from vqlearn.training.objectives import (
    Batch,
    Conditions,
    ContinuousTime,
    CrossEntropy,
    Figures,
    Network,
    Objective,
    PublishedBound,
    low_variance_times,
    soft_cross_entropy,
)
from vqlearn.training.on_policy import Trajectories
from vqlearn.training.recipes import SceneRecipe, WorldRecipe
from vqlearn.training.relations import RelationTask
from vqlearn.training.updates import of_kind, step_generator
from vqlearn.transition import q_sample


class ScenePictures(Source):
    """Pictures of new scenes of a split, for the codec."""

    def __init__(self, split: str = "train"):
        self.split = split

    def rows(self, number: int, count: int, generator: Generator) -> Rows:
        """Scenes drawn on the generator's device."""
        return Rows(layouts.pictures(layouts.draw(self.split, count, generator=generator, device=generator.device)))


@dataclass(frozen=True)
class SceneTokens(Source):
    """Tokens and captions of new scenes of a split, looked up and not encoded; the notes are what captions claim."""

    codes: CodeTable
    texts: TextTable
    counts: Sequence[float]  # the shares of scenes with one, two and three objects
    split: str = "train"

    def rows(self, number: int, count: int, generator: Generator) -> Rows:
        """Scenes drawn on the generator's device."""
        drawn = layouts.draw(self.split, count, shares=self.counts, generator=generator, device=generator.device)
        return Rows(layouts.tokens(drawn, self.codes), layouts.token_ids(drawn, self.texts), drawn.claims())


class IdealTarget(Objective):
    """Cross-entropy from the ideal denoiser's prediction to the network's, from the `own_from`-th update on also at
    the states of the network's `own` trajectories. Times as in `low_variance_times`.
    """

    def __init__(self, codes: CodeTable, own: Trajectories, own_from: int, uniform_share: float, time_power: float):
        self.codes, self.own, self.own_from = codes, own, own_from
        self.uniform_share, self.time_power = uniform_share, time_power

    def __call__(self, batch: Batch, network: Network) -> tuple[Tensor, Figures]:
        x_t, t, conditions = self.noised(batch)
        logits = network(x_t, t, conditions)
        loss = soft_cross_entropy(logits, self.target(batch, x_t, t, conditions))
        if len(x_t) > len(batch.x_0):
            own = logits[len(batch.x_0) :].detach().float()
            batch.kept["x_s"] = self.own.further(own, batch.rows, batch.generator)
        return loss, {}

    def updated(self, kept: dict[str, Tensor], generator: Generator) -> None:
        """Take the trajectories a step further, if the network was asked about them."""
        if kept:
            self.own.arrive(kept["x_s"], generator)

    def noised(self, batch: Batch) -> tuple[Tensor, Tensor, Conditions]:
        """x_t `[B, L]`, times `[B]` and conditions: first the rows of the data, then those of the trajectories."""
        t = low_variance_times(batch, self.uniform_share, self.time_power)
        x_t = q_sample(batch.x_0, t, batch.schedule, generator=batch.generator)
        conditions, own = batch.conditions(), self.own
        if batch.number < self.own_from or not len(own.x_t):
            return x_t, t, conditions
        x_t, t = torch.cat([x_t, own.x_t[batch.rows]]), torch.cat([t, own.times()[batch.rows]])
        return x_t, t, _with_own(conditions, own, batch.rows)

    @torch.no_grad()
    def target(self, batch: Batch, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """The ideal prediction, float32 `[B, L, K]`. Without its caption it is not known, and the drawn x_0 stands."""
        target = ideal_prediction(
            x_t, t, conditions.notes, self.codes, batch.schedule, split="train", dtype=torch.float32
        )
        null = conditions.is_null.nonzero()[:, 0]
        target[null] = F.one_hot(batch.x_0[null], batch.schedule.num_codes).to(target)
        return target

    def rows(self, number: int, batch: int) -> int:
        """All of a batch until update `own_from`, and then what the trajectories leave."""
        return batch - len(self.own.x_t) if number >= self.own_from else batch

    def state_dict(self) -> dict[str, Any]:
        """The states of the trajectories."""
        return self.own.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.own.load_state_dict(state)


def _with_own(conditions: Conditions, own: Trajectories, rows: slice) -> Conditions:
    """Conditions of rows of the data, then those of some trajectories, none of which is null."""
    assert conditions.values is not None
    claims = Claims(*(torch.cat([one, more[rows]]) for one, more in zip(conditions.notes, own.claims, strict=True)))
    is_null = torch.cat([conditions.is_null, torch.zeros_like(own.number[rows], dtype=torch.bool)])
    return Conditions(torch.cat([conditions.values, own.ids[rows]]), is_null, claims)


def _ideal(pipe: VQDiffusionPipeline, recipe: SceneRecipe, tables: SceneTokens, device: str) -> Objective:
    own = Trajectories(
        round(recipe.own_share * recipe.batch),
        pipe.transformer.num_positions,
        pipe.schedule.to(device),
        tables.texts,
        step_generator(recipe.seed, 0, device),
    )
    return IdealTarget(tables.codes, own, recipe.own_from, recipe.uniform_share, recipe.time_power)


OBJECTIVES: dict[str, Callable[[VQDiffusionPipeline, SceneRecipe, SceneTokens, str], Objective]] = {
    "ideal": _ideal,
    "cross_entropy": lambda pipe, recipe, tables, device: CrossEntropy(recipe.uniform_share, recipe.time_power),
    "bound": lambda pipe, recipe, tables, device: PublishedBound(pipe.schedule.num_steps),
    "continuous": lambda pipe, recipe, tables, device: ContinuousTime(),
}


def learned_world(pipe: Components, recipe: WorldRecipe, device: str) -> tuple[SceneTokens, RelationTask]:
    """What a network learns the toy world from, and its text encoder's own task; raises ValueError where it cannot."""
    check_world(pipe)
    pipe.vqvae.to(device).eval()
    codes = layouts.code_table(pipe.encode).to(device)
    tables = SceneTokens(codes, layouts.text_table(pipe.tokenizer), recipe.counts)
    width = pipe.transformer.config["cross_attention_dim"]
    return tables, RelationTask(tables.texts, width, weight=recipe.relation_weight, seed=recipe.seed)


def scene_stage(
    pipe: VQDiffusionPipeline,
    recipe: SceneRecipe | None = None,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> DenoiserStage:
    """The denoiser's training in the toy world.

    Raises ValueError for an objective that there is not, and for a pipeline that cannot learn that world.
    """
    recipe = SceneRecipe() if recipe is None else recipe
    of_kind("recipe", recipe, SceneRecipe)
    of_kind("pipe", pipe, VQDiffusionPipeline)
    if recipe.objective not in list(OBJECTIVES):
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {shown(recipe.objective)}")
    tables, task = learned_world(pipe, recipe, device)
    objective = OBJECTIVES[recipe.objective](pipe, recipe, tables, device)
    return DenoiserStage(pipe, tables, recipe, objective, task=task, device=device, dtype=dtype)
