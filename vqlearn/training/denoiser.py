"""Learning the denoiser with its text encoder on the tokens of a finished codec.

Scenes are drawn as they are needed, and every draw of step i comes from a generator seeded by (seed, i). So a run is a
function of its recipe and its step number, and one that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqlearn.data import layouts
from vqlearn.data.layouts import Claims
from vqlearn.exactness.ideal import ideal_prediction
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings, encode_ids
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.objective import TimeSampler, training_loss
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.training.on_policy import Trajectories
from vqlearn.training.recipes import OBJECTIVES, DenoiserRecipe
from vqlearn.training.relations import RelationReader
from vqlearn.training.updates import groups, step_generator, update
from vqlearn.transition import q_sample


class Conditioned(nn.Module):
    """The networks that learn together: denoiser, text encoder, null text, and the text encoder's own task."""

    def __init__(self, transformer: Transformer2DModel, text_encoder: nn.Module,
                 null_text: LearnedClassifierFreeSamplingEmbeddings, reader: RelationReader):  # fmt: skip
        super().__init__()
        self.transformer, self.text_encoder = transformer, text_encoder
        self.null_text, self.reader = null_text, reader

    def forward(self, x_t: Tensor, t: Tensor, ids: Tensor, is_null: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, L, K]` and the text's hidden states `[B, S, D]`; `is_null` bool `[B]` has the null text read."""
        with sdpa_kernel([SDPBackend.MATH] if x_t.device.type == "cpu" else list(SDPBackend.__members__.values())):
            hidden = encode_ids(self.text_encoder, ids)  # type: ignore[arg-type]
        text = torch.where(is_null[:, None, None], self.null_text.embeddings, hidden)
        return self.transformer(x_t, text, t - 1), hidden


class SoftCrossEntropy(torch.autograd.Function):
    """The mean over positions of -sum_k target_k log softmax(logits)_k, `[B, L, K]` both, in float32.

    The gradient, softmax less target, is made in the one float32 array that the loss needs anyway.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        log_p = logits.log_softmax(-1, dtype=torch.float32)
        rows = target.shape[:-1].numel()
        loss = -torch.dot(target.flatten(), log_p.flatten()) / rows
        ctx.save_for_backward(log_p.exp_().sub_(target).div_(rows).to(logits))
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.saved_tensors[0] * grad, None


class Batch(NamedTuple):
    """What one update of the denoiser learns from. Rows from the data come first, those of trajectories last."""

    x_0: Tensor  # [D, L], of the rows from the data
    x_t: Tensor  # [B, L]
    t: Tensor  # [B]
    p_t: Tensor  # [D], the probability with which t was drawn
    ids: Tensor  # [B, S]
    claims: Claims  # of B captions
    is_null: Tensor  # bool [B]


class DenoiserStage:
    """Training of the denoiser, its text encoder and its null text on the tokens of a finished codec.

    With `dtype` the networks compute in it, with a working copy of the weights that each step renews; the weights
    themselves and the optimizer stay float32. Keeps an exponential moving average of the weights, which is what is
    shipped; `averaged()` copies it in.
    """

    def __init__(self, codec: VQModel, transformer: Transformer2DModel, text_encoder: nn.Module,
                 null_text: LearnedClassifierFreeSamplingEmbeddings, tokenizer, schedule: MaskReplaceSchedule,
                 recipe: DenoiserRecipe, device: str = "cpu", dtype: torch.dtype | None = None):  # fmt: skip
        if recipe.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {recipe.objective!r}")
        self.schedule, self.recipe, self.device, self.dtype = schedule.to(device), recipe, device, dtype
        self.codes = layouts.code_table(codec.to(device).eval().encode).to(device)
        self.texts = layouts.text_table(tokenizer)
        reader = RelationReader(self.texts, null_text.embeddings.shape[1], recipe.seed)
        self.model = Conditioned(transformer, text_encoder, null_text, reader).to(device).train()
        self.working = self.model if dtype is None else copy.deepcopy(self.model).to(dtype)
        self.average = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.times = TimeSampler(schedule.num_steps)
        count = round(recipe.own_share * recipe.batch) if recipe.objective == "ideal" else 0
        generator = step_generator(recipe.seed, 0, device)
        self.own = Trajectories(count, transformer.num_positions, self.schedule, self.texts, generator)
        self.optimizer = torch.optim.AdamW(
            groups(self.model),
            lr=recipe.learning_rate,
            betas=(0.9, 0.96),
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def step(self, number: int) -> dict[str, float]:
        """One update on batch `number`; returns the figures of the log."""
        recipe, generator = self.recipe, step_generator(self.recipe.seed, number, self.device)
        batch = self._batch(number, generator)
        logits, hidden = self._forward(batch)
        loss = self._loss(logits, batch)
        if len(batch.x_0) < len(batch.x_t):
            self.own.advance(logits[len(batch.x_0) :].detach().float(), generator)
        relation = self.working.reader(hidden, batch.ids, batch.claims)
        (loss + recipe.relation_weight * relation).backward()
        self._hand_over()
        norm = update(self.optimizer, loss, number, recipe, self.model.parameters(), recipe.clip)
        self._average(number)
        return {"loss": float(loss.detach()), "relation": float(relation.detach()), "gradient": norm}

    def _batch(self, number: int, generator: Generator) -> Batch:
        recipe = self.recipe
        own = self.own if number >= recipe.own_from and len(self.own.x_t) else None
        count = recipe.batch - len(self.own.x_t) * (own is not None)
        drawn = layouts.draw("train", count, shares=recipe.counts, generator=generator, device=self.device)
        x_0, ids, claims = layouts.tokens(drawn, self.codes), layouts.token_ids(drawn, self.texts), drawn.claims()
        t, p_t = self._times(count, generator)
        x_t = q_sample(x_0, t, self.schedule, generator=generator)
        is_null = torch.rand(count, generator=generator, device=self.device) < recipe.null_share
        if own is not None:
            x_t, t, ids = torch.cat([x_t, own.x_t]), torch.cat([t, own.times()]), torch.cat([ids, own.ids])
            claims = Claims(*(torch.cat(both) for both in zip(claims, own.claims, strict=True)))
            is_null = torch.cat([is_null, torch.zeros_like(own.number, dtype=torch.bool)])
        return Batch(x_0, x_t, t, p_t, ids, claims, is_null)

    def _times(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Times of a batch and their probabilities; without the bound one time from each of equal shares of them."""
        steps, recipe = self.schedule.num_steps, self.recipe
        if recipe.objective == "bound":
            t, p_t = self.times.sample(count, generator)
            return t, p_t.float()
        u = torch.rand(count, generator=generator, device=self.device)
        even = round(recipe.uniform_share * count)

        def spread(u: Tensor) -> Tensor:
            return (torch.arange(len(u), device=u.device) + u) / max(1, len(u))

        share = torch.cat([spread(u[:even]), spread(u[even:]) ** (1 / recipe.time_power)])
        return (steps * share).ceil().long().clamp(1, steps), torch.ones(count, device=self.device)

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.working is not self.model:
            with torch.no_grad():
                torch._foreach_copy_(list(self.working.parameters()), list(self.model.parameters()))
        self.working.zero_grad(set_to_none=True)
        return self.working(batch.x_t, batch.t, batch.ids, batch.is_null)

    def _hand_over(self) -> None:
        """Give the gradients of the working copy to the weights themselves."""
        if self.working is self.model:
            return
        for own, used in zip(self.model.parameters(), self.working.parameters(), strict=True):
            own.grad = None if used.grad is None else used.grad.to(own.dtype)

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        if self.recipe.objective == "bound":
            log_p_x0 = logits.float().log_softmax(-1)
            loss, terms = training_loss(log_p_x0, batch.x_0, batch.x_t, batch.t, self.schedule, p_t=batch.p_t)
            self.times.update(batch.t, terms)
            return loss
        if self.recipe.objective == "cross_entropy":
            return F.cross_entropy(logits.float().flatten(0, 1), batch.x_0.flatten())
        return SoftCrossEntropy.apply(logits, self._target(batch))

    @torch.no_grad()
    def _target(self, batch: Batch) -> Tensor:
        """The ideal prediction, float32 `[B, L, K]`. Without its caption it is not known, and the drawn x_0 stands."""
        target = ideal_prediction(
            batch.x_t, batch.t, batch.claims, self.codes, self.schedule, split="train", dtype=torch.float32
        )
        null = batch.is_null.nonzero()[:, 0]
        target[null] = F.one_hot(batch.x_0[null], self.schedule.num_codes).to(target)
        return target

    @torch.no_grad()
    def _average(self, number: int) -> None:
        decay = min(self.recipe.ema, (number + 1) / (number + 10))
        names, values = zip(*self.model.named_parameters(), strict=True)
        torch._foreach_lerp_([self.average[name] for name in names], [v.detach() for v in values], 1 - decay)

    @torch.no_grad()
    def averaged(self) -> Conditioned:
        """The model with the averaged weights copied in (the optimizer's copy is lost)."""
        for name, value in self.model.named_parameters():
            value.copy_(self.average[name])
        return self.model

    def state_dict(self) -> dict:
        return {"model": self.model.state_dict(), "average": self.average, "times": self.times.state_dict(),
                "own": self.own.state_dict(), "optimizer": self.optimizer.state_dict()}  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.times.load_state_dict(state["times"])
        self.own.load_state_dict(state["own"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
