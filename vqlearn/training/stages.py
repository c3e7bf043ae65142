"""Learning both stages: the codec (VQ-VAE) and the denoiser with its text encoder, on the toy world.

Scenes are drawn as they are needed, and every draw of step i comes from a generator seeded by (seed, i). So a run is a
function of its recipe and its step number, and one that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqlearn.data import layouts, scenes
from vqlearn.data.layouts import Claims
from vqlearn.exactness.ideal import ideal_prediction
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings, encode_ids
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import CodebookEMA, VQModel
from vqlearn.objective import TimeSampler, training_loss
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.training.on_policy import Trajectories
from vqlearn.transition import q_sample

OBJECTIVES = ("ideal", "cross_entropy", "bound")


@dataclass(frozen=True)
class CodecRecipe:
    """How the codec learns. The last `polish` of the steps train the decoder alone, on tokens that no longer move."""

    steps: int = 2400
    batch: int = 64
    learning_rate: float = 2e-3
    decay: float = 0.3
    polish: float = 0.3
    commitment: float = 0.25
    seed: int = 0


@dataclass(frozen=True)
class DenoiserRecipe:
    """How the denoiser learns.

    `objective` is "ideal", the cross-entropy from the ideal denoiser's prediction to the network's; "cross_entropy",
    the mean of -log p(x_0 | x_t) over all tokens, of which "ideal" is the expectation given x_t, so the same with
    less noise; or "bound", the published loss. Times of the first two are uniform for `uniform_share` of the batch, and
    for the rest have a density in proportion to t^(`time_power` - 1), because the layout is decided late. With "ideal",
    from update `own_from` on `own_share` of each batch are states of the network's own trajectories (`on_policy`).
    `counts` are the shares of scenes with one, two and three objects, `relation_weight` is that of the text encoder's
    own task, see `RelationReader`.
    """

    steps: int = 30000
    batch: int = 32
    learning_rate: float = 1e-3
    decay: float = 0.5
    weight_decay: float = 1e-2
    null_share: float = 0.1
    uniform_share: float = 1 / 3
    time_power: float = 4.0
    counts: tuple[float, float, float] = (0.25, 0.45, 0.3)
    relation_weight: float = 0.2
    objective: str = "ideal"
    own_share: float = 0.5
    own_from: int = 4000
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0


def learning_rate(step: int, steps: int, decay: float, warmup: int = 200) -> float:
    """Factor of the learning rate: linear warm-up, flat, then linear to zero over the last `decay` of the run."""
    left = (steps - step) / max(1, round(decay * steps))
    return min((step + 1) / warmup, 1.0, left)


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (torch has no public name for it)."""
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


class CodecStage:
    """Straight-through training of a VQModel with an EMA codebook (van den Oord et al. 2017)."""

    def __init__(self, codec: VQModel, recipe: CodecRecipe, device: str = "cpu", autocast: bool = False):
        self.recipe, self.device, self.autocast = recipe, device, autocast
        self.codec = codec.to(device).train()
        self.ema = CodebookEMA(codec.quantize)
        codec.quantize.requires_grad_(False)
        learned = [p for p in codec.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=recipe.learning_rate, weight_decay=0.0)

    def step(self, number: int) -> dict[str, float]:
        """One update on batch `number`; returns the figures of the log."""
        recipe = self.recipe
        generator = _generator(recipe.seed, number, self.device)
        images = layouts.pictures(layouts.draw("train", recipe.batch, generator=generator, device=self.device))
        polishing = number >= recipe.steps * (1 - recipe.polish)
        with torch.set_grad_enabled(not polishing):
            latents = self.codec.latents(images)
            quantized, codes = self.codec.quantize.straight_through(latents)
            commitment = F.mse_loss(latents, quantized.detach())
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=self.autocast):
            pictures = self.codec.decode_latents(quantized).float()
        error = F.mse_loss(pictures, images) + F.l1_loss(pictures, images)
        self.optimizer.zero_grad(set_to_none=True)
        loss = error + recipe.commitment * commitment
        loss.backward()
        _update(self.optimizer, loss, number, recipe, self.codec.parameters())
        restarted = 0
        if not polishing:
            restarted = self.ema.update(latents.detach(), codes, generator)
        return {"loss": float(error.detach()), "commitment": float(commitment.detach()),
                "restarted": restarted, "used": len(codes.unique())}  # fmt: skip

    def state_dict(self) -> dict:
        return {
            "codec": self.codec.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.codec.load_state_dict(state["codec"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])


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
        generator = _generator(recipe.seed, 0, device)
        self.own = Trajectories(count, transformer.num_positions, self.schedule, self.texts, generator)
        self.optimizer = torch.optim.AdamW(
            _groups(self.model),
            lr=recipe.learning_rate,
            betas=(0.9, 0.96),
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def step(self, number: int) -> dict[str, float]:
        """One update on batch `number`; returns the figures of the log."""
        recipe, generator = self.recipe, _generator(self.recipe.seed, number, self.device)
        batch = self._batch(number, generator)
        logits, hidden = self._forward(batch)
        loss = self._loss(logits, batch)
        if len(batch.x_0) < len(batch.x_t):
            self.own.advance(logits[len(batch.x_0) :].detach().float(), generator)
        relation = self.working.reader(hidden, batch.ids, batch.claims)
        (loss + recipe.relation_weight * relation).backward()
        self._hand_over()
        norm = _update(self.optimizer, loss, number, recipe, self.model.parameters(), recipe.clip)
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


class RelationReader(nn.Module):
    """Asks the text encoder, at the word that ends a noun, how that object lies to the first one; a loss, not shipped.

    Where an object belongs depends on position, relation and object together, and any two of the three say nothing.
    Cross-entropy on the tokens alone left the order of two objects a coin flip for 7000 steps; it learned the
    order once the text encoder had the relation at the noun. Only the caption is needed, no picture.
    """

    shapes: Tensor

    def __init__(self, texts: layouts.TextTable, width: int, seed: int = 0):
        super().__init__()
        ids = texts.words[[layouts.WORDS.index(shape) for shape in scenes.SHAPES]]
        self.register_buffer("shapes", ids, persistent=False)
        self.head = nn.Linear(width, len(scenes.RELATIONS))
        with torch.no_grad():
            start = torch.randn(self.head.weight.shape, generator=_generator(seed, 0, "cpu"))
            self.head.weight.copy_(start / math.sqrt(width))
            self.head.bias.zero_()

    def forward(self, hidden: Tensor, ids: Tensor, claims: Claims) -> Tensor:
        """Cross-entropy in nats of the relations that captions state, from hidden states `[B, S, D]`; 0 if none."""
        ends_noun = torch.isin(ids, self.shapes)  # [B, S]
        number = ends_noun.cumsum(1)[:, None]  # [B, 1, S], of the noun that has ended
        which = torch.arange(1, layouts.MOST, device=ids.device)
        at = (ends_noun[:, None] & (number == which[:, None] + 1)).long().argmax(-1)  # [B, 2]
        rows, columns = (claims.relation[:, 1:] > 0).nonzero(as_tuple=True)
        found = hidden[rows, at[rows, columns]] * math.sqrt(hidden.shape[-1])  # unit variance
        targets = claims.relation[rows, columns + 1] - 1
        return F.cross_entropy(self.head(found).float(), targets, reduction="sum") / max(1, len(rows))


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters in two groups: the layers that read text learn faster.

    Text comes in unit length, not unit variance, so the same step of a weight moves its output sqrt(width) times less.
    """
    reads_text = [
        p for name, p in model.named_parameters() if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))
    ]
    known = {id(p) for p in reads_text}
    others = [p for p in model.parameters() if id(p) not in known]
    return [{"params": others, "scale": 1.0}, {"params": reads_text, "scale": math.sqrt(reads_text[0].shape[1])}]


def _update(
    optimizer, loss: Tensor, number: int, recipe, parameters: Iterable[Tensor], clip: float = math.inf
) -> float:
    """Clip and step; returns the gradient's norm. Raises before the step if it or the loss is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * learning_rate(number, recipe.steps, recipe.decay) * group.get("scale", 1.0)
    norm = float(nn.utils.clip_grad_norm_(parameters, clip))
    if not (math.isfinite(norm) and bool(torch.isfinite(loss))):
        raise FloatingPointError(f"the loss is {float(loss.detach())}, its gradient's norm {norm} at step {number}")
    optimizer.step()
    return norm


def _generator(seed: int, number: int, device: torch.device | str) -> Generator:
    return Generator(device).manual_seed(seed * 1_000_003 + number)


@torch.no_grad()
def initialise(transformer: Transformer2DModel, codebook: Tensor, seed: int = 0) -> None:
    """Start the denoiser where similar codes are similar: its token table and its head are projections of the codebook.

    Also: smooth time tables, no effect of time at first, and residual branches scaled by their number.
    """
    generator = Generator().manual_seed(seed)
    table, head = transformer.latent_image_embedding.emb.weight, transformer.out.weight
    codes = (codebook - codebook.mean(0)) / codebook.std()
    for target, scale in ((table, 0.5), (head, 0.5 / math.sqrt(head.shape[1]))):
        projection = torch.randn(codes.shape[1], target.shape[1], generator=generator) / math.sqrt(codes.shape[1])
        target[: len(codes)] = scale * codes @ projection
    embedding = transformer.latent_image_embedding
    for grid in (embedding.height_emb.weight, embedding.width_emb.weight, table[-1:]):
        grid.copy_(0.5 * torch.randn(grid.shape, generator=generator))
    blocks: Any = transformer.transformer_blocks
    for block in blocks:
        for norm in (block.norm1, block.norm2):
            norm.emb.weight.copy_(_waves(*norm.emb.weight.shape))
            nn.init.zeros_(norm.linear.weight)
            nn.init.zeros_(norm.linear.bias)
        for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
            layer.weight /= math.sqrt(3 * len(blocks))


def _waves(count: int, width: int) -> Tensor:
    """Sines and cosines of the index, `[count, width]`."""
    angle = torch.arange(count)[:, None] * torch.exp(-math.log(1000) * torch.arange(width // 2) / (width // 2))
    return torch.cat([angle.sin(), angle.cos()], dim=1)
