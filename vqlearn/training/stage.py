"""What learning any network of tokens takes, a denoiser or its autoregressive rival, on any data set.

Every draw of step i comes from a generator seeded by (seed, i). So a run is a function of its recipe and its step
number, and one that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset

from vqlearn.arguments import shown, whole
from vqlearn.checkpoints.parts import check_placement
from vqlearn.draws import Share
from vqlearn.training import processes, sharding
from vqlearn.training.batches import RowError, Source, as_source, check_image, check_within, rows_of
from vqlearn.training.checkpoint import check_form
from vqlearn.training.conditioned import Conditioned, Task, condition_reader, conditioned
from vqlearn.training.engine import Engine
from vqlearn.training.objectives import Batch, Conditions, Figures, as_objective
from vqlearn.training.recipes import DenoiserRecipe
from vqlearn.training.updates import groups, load_optimizer, of_kind, step_generator, update, warm_average


class Evaluated:
    """The networks as an objective evaluates them, on a batch; the task's losses add up.

    A subclass defines the call that an objective makes.
    """

    def __init__(self, model: Conditioned, batch: Batch):
        self.model, self.batch = model, batch
        self.task_loss: Tensor | float = 0.0

    def logits(self, tokens: Tensor, conditions: Conditions | None, *more: Any) -> Tensor:
        """`[B, L, K]` under some conditions, None for those of the batch, see `Batch.conditions`."""
        given = self.batch.conditions() if conditions is None else conditions
        with sharding.heard(self.model):
            logits, task_loss = self.model(tokens, given, *more)
        if task_loss is not None:
            self.task_loss = task_loss + self.task_loss
        return logits


class TokenStage:
    """The base class of what trains a pipeline's transformer, its text encoder and its null text.

    A subclass names the class through which an objective evaluates the networks (`network`), and its own objective.
    """

    network: ClassVar[type[Evaluated]] = Evaluated
    schedule: Any = None  # of the noise, where there is one

    def __init__(
        self,
        pipe: Any,
        data: Dataset[Any] | Source,
        recipe: DenoiserRecipe | None,
        objective: Callable[..., Any],
        *,
        task: Task | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        workers: int = 0,
        engine: Engine | None = None,
    ):
        self.engine = Engine() if engine is None else engine
        of_kind("engine", self.engine, Engine)
        self.recipe = recipe = DenoiserRecipe() if recipe is None else recipe
        of_kind("recipe", recipe, DenoiserRecipe)
        self.engine.check(recipe.batch)
        check_placement(str(device), dtype)
        self.pipe, self.device = pipe, device
        self.source = as_source(data, condition_reader(pipe), batch=recipe.batch, seed=recipe.seed, workers=workers)
        self.objective = as_objective(objective)
        if pipe.vqvae is not None:
            pipe.vqvae.to(device).eval()
        self.plain = self.model = conditioned(pipe, task).to(device).train()
        processes.broadcast(self.model.parameters())
        self.average = AveragedModel(self.model, multi_avg_fn=warm_average(recipe.ema))
        self.average.n_averaged.fill_(1)  # the start counts, and the first update is averaged with it
        self.sharded = processes.count() > 1 and sum(one.numel() for one in self.model.parameters()) >= sharding.FROM
        if self.sharded:
            self.model = self.working = sharding.shard(copy.deepcopy(self.plain), dtype)
            sharding.shard(self.average.module, dtype)
            self.plain.to("cpu")  # for pictures and the finished model
        else:
            self.working = self.model if dtype is None else copy.deepcopy(self.model).to(dtype)
        self.engine.prepare(self.working.transformer)
        self.learning: list[Tensor] = list(self.model.parameters())
        self.used: list[Tensor] = list(self.working.parameters())
        self.learners = sharding.Parts(self.working) if self.sharded else processes.replicated(self.used)
        self.optimizer = torch.optim.AdamW(
            groups(self.model),
            lr=recipe.learning_rate,
            betas=(0.9, 0.96),
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def step(self, number: int) -> dict[str, float]:
        """One update on batch `number`; returns the figures of the log.

        Raises ValueError for rows that the network cannot read, FloatingPointError before an update that is not finite.
        """
        number = whole("number", number, 0)
        parts = self._parts(self._batch(number))
        generator = _plain(parts[0].generator)
        begin, found = generator.get_state(), []
        self._renew()
        for part in parts:
            generator.set_state(begin)  # each part draws for all rows
            _, figures = processes.learn(self.learners, self._evaluated, part, last=part is parts[-1])
            found.append({name: _figure(name, value) for name, value in figures.items()})
        means = dict(zip(found[0], processes.means(_mean(found)), strict=True))
        self._hand_over()
        means["gradient"] = update(self.optimizer, means["loss"], number, self.recipe, self.learning, self.recipe.clip)
        self.average.update_parameters(self.model)
        kept = {name: torch.stack([part.kept[name] for part in parts], 1).flatten(0, 1) for name in parts[0].kept}
        self.objective.updated({name: processes.gathered(value) for name, value in kept.items()}, generator)
        return means

    def _evaluated(self, batch: Batch) -> tuple[Tensor, Figures]:
        """What is minimised on a part of a batch, and its figures."""
        network: Any = self.network(self.working, batch)
        loss, figures = _found(self.objective(batch, network))
        total = loss
        if self.model.task is not None:
            total = loss + self.model.task.weight * network.task_loss
            figures = {self.model.task.name: network.task_loss, **figures}
        figures = {"loss": loss, **figures}
        plain = {name: one.detach() if isinstance(one, Tensor) else one for name, one in figures.items()}
        return total / self.engine.accumulate, plain

    def _parts(self, batch: Batch) -> list[Batch]:
        """The batch of this process, in the parts that are evaluated one after the other."""
        parts = self.engine.accumulate
        if parts == 1:
            return [batch]
        own, all_parts = len(batch.x_0), parts * processes.count()
        if own % parts or self.recipe.batch % all_parts:
            raise ValueError(f"the {own} rows of a process cannot be evaluated in {parts} equal parts")
        found = []
        for part in range(parts):
            some, place = slice(part, None, parts), processes.rank() + processes.count() * part
            x_0, condition, notes = rows_of((batch.x_0, batch.condition, batch.notes), some)
            share = Share(_plain(batch.generator), slice(place, None, all_parts), own * processes.count())
            found.append(replace(batch, x_0=x_0, condition=condition, notes=notes, generator=share, kept={}))
        return found

    def _batch(self, number: int) -> Batch:
        """What this process learns from."""
        generator = step_generator(self.recipe.seed, number, self.device)
        recipe, count = self.recipe, self.objective.rows(number, self.recipe.batch)
        own = processes.own(count)
        processes.own(recipe.batch - count)  # rows that are not from the data
        with self.source.named(number, own):
            rows = self.source.checked(number, count, generator, own)
            x_0 = self._tokens(rows.x)
        if rows.condition is None and self.pipe.transformer.reads != "nothing":
            raise ValueError(f"this network reads a {self.pipe.transformer.reads}, but batch {number} has no condition")
        condition = None if rows.condition is None else rows.condition.to(self.device)
        shared = generator if processes.count() == 1 else Share(generator, own, count)
        return Batch(number, x_0, condition, rows.notes, self.schedule, shared, recipe.null_share)

    @torch.no_grad()
    def _tokens(self, x: Tensor) -> Tensor:
        """Tokens as they are, images as the codec encodes them; raises ValueError for what the network cannot read."""
        if x.is_floating_point():
            if self.pipe.vqvae is None:
                raise ValueError("this pipeline has no codec, so the data set must hold tokens, int64 [L], not images")
            check_image(x, self.pipe.vqvae)
            x = self.pipe.vqvae.encode(x.to(self.device, torch.float32))
        positions, codes = self.pipe.transformer.num_positions, self.pipe.transformer.num_codes
        if x.dtype != torch.int64 or x.shape[1:] != (positions,):
            raise RowError(0, f"has {x.dtype} tokens {list(x.shape[1:])}, the network has {positions} positions")
        check_within(x, 0, codes - 1, f"tokens in 0 ... {codes - 1}")
        return x.to(self.device)

    def _renew(self) -> None:
        """Bring the working copy up to date, and forget the last gradient."""
        if self.working is not self.model:
            with torch.no_grad():
                torch._foreach_copy_(self.used, self.learning)
        for parameter in self.used:
            parameter.grad = None

    def _hand_over(self) -> None:
        """Give the weights themselves the gradients of the working copy."""
        if self.working is not self.model:
            for own, used in zip(self.learning, self.used, strict=True):
                own.grad = None if used.grad is None else used.grad.to(own.dtype)

    def mean_networks(self) -> Any:
        """The networks with the averaged weights, to draw with, see `averaged`."""
        if self.sharded:
            self.averaged()
            return self.plain
        mean: Any = self.average.module
        return mean

    @torch.no_grad()
    def averaged(self) -> Any:
        """The pipeline, with the averaged weights copied in, ready to draw (the weights being learned are lost).

        Where the weights are shared out to processes the first one has the pipeline.
        """
        for value, mean in zip(self.plain.parameters(), self.average.module.parameters(), strict=True):
            found = sharding.whole(mean)
            if found.device.type != "meta":
                value.copy_(found)
        self.plain.eval()
        return self.pipe

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must have in common with a run that goes on from it."""
        return {**self.objective.settings(), **asdict(self.recipe)}

    def state_dict(self) -> dict[str, Any]:
        """Weights, their average, what the objective has learned, and the optimizer's state.

        Weights that are shared out to processes are in it as each has them.
        """
        own = {"optimizer": self.optimizer.state_dict(), "objective": self.objective.state_dict()}
        return {**self._networks(), **own}

    def _networks(self) -> dict[str, dict[str, Tensor]]:
        return {"model": self.model.state_dict(), "average": self.average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; a state of another form raises."""
        own, apart = self._networks(), dict.fromkeys(("objective", "optimizer"))  # which see for themselves
        check_form({**state, **apart}, {**own, **apart})
        for name, network in {"model": self.model, "average": self.average}.items():
            network.load_state_dict({key: sharding.parted(one, own[name][key]) for key, one in state[name].items()})
        self.objective.load_state_dict(state["objective"])
        load_optimizer(self.optimizer, state["optimizer"])


def _found(found: Any) -> tuple[Tensor, Figures]:
    """What an objective has returned; raises TypeError for what is no loss with a gradient, and figures."""
    loss, figures = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not (isinstance(loss, Tensor) and loss.ndim == 0 and loss.requires_grad and isinstance(figures, dict)):
        raise TypeError(
            "an objective must return (loss, figures), a scalar tensor with a gradient and a dict of numbers, "
            f"got {shown(found)}"
        )
    return loss, figures


def _plain(generator: Generator | Share) -> Generator:
    return generator.generator if isinstance(generator, Share) else generator


def _mean(found: list[dict[str, float]]) -> list[float]:
    """The mean of each figure over the parts of a batch."""
    return [sum(values) / len(found) for values in zip(*(one.values() for one in found), strict=True)]


def _figure(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"the figure {name!r} of an objective must be a number, got {shown(value)}") from None
