"""Learning both stages: the codec (VQ-VAE) and the denoiser with its text encoder, on the toy world.

Scenes are drawn as they are needed: batch i of a run holds scenes i B ... (i + 1) B - 1, and every draw of step
i comes from a generator seeded by (seed, i). So a run is a function of its recipe and its step number, and
one that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqlearn import scenes
from vqlearn.conditioning import LearnedClassifierFreeSamplingEmbeddings, encode_ids, tokenize
from vqlearn.diffusion import TimeSampler, training_loss
from vqlearn.ideal import code_table, ideal_belief
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transformer import Transformer2DModel
from vqlearn.transition import q_sample
from vqlearn.vqvae import CodebookEMA, VQModel
from vqlearn.walks import Walks

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

    `objective` is "ideal", the cross-entropy from the ideal denoiser's belief to the network's; "cross_entropy",
    the mean of -log p(x_0 | x_t) over all tokens, of which "ideal" is the expectation given x_t, so the same with
    less noise; or "bound", the published loss. Times of the first two are drawn with a density in proportion to
    t^(`time_power` - 1), because the layout is decided late. With "ideal", `walk_share` of each batch are states of the
    network's own walks (`walks`). `relation_weight` is that of the text encoder's own task, see `RelationReader`.
    """

    steps: int = 50000
    batch: int = 32
    learning_rate: float = 1e-3
    decay: float = 0.5
    weight_decay: float = 1e-2
    null_share: float = 0.1
    time_power: float = 4.0
    relation_weight: float = 0.2
    objective: str = "ideal"
    walk_share: float = 0.5
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


def batch_of_scenes(split: str, step: int, batch: int) -> tuple[Tensor, list[str]]:
    """Pictures float `[B, 3, 32, 32]` in [-1, 1] and captions number step * B ... of a split."""
    drawn = [scenes.sample(split, step * batch + i) for i in range(batch)]
    return scenes.to_tensor([scenes.draw(scene) for scene, _ in drawn]), [caption for _, caption in drawn]


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
        images, _ = batch_of_scenes("train", number, recipe.batch)
        images = images.to(self.device)
        polishing = number >= recipe.steps * (1 - recipe.polish)
        with torch.set_grad_enabled(not polishing):
            latents = self.codec.latents(images)
            quantized, codes = self.codec.quantize.straight_through(latents)
            commitment = F.mse_loss(latents, quantized.detach())
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=self.autocast):
            pictures = self.codec.decode_latents(quantized).float()
        error = F.mse_loss(pictures, images) + F.l1_loss(pictures, images)
        _update(self.optimizer, error + recipe.commitment * commitment, number, recipe, self.codec.parameters())
        restarted = 0
        if not polishing:
            restarted = self.ema.update(latents.detach(), codes, _generator(recipe.seed, number))
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


class DenoiserStage:
    """Training of the denoiser, its text encoder and its null text on the tokens of a finished codec.

    Keeps an exponential moving average of all three, which is what is shipped; `averaged()` copies it in.
    """

    def __init__(self, codec: VQModel, transformer: Transformer2DModel, text_encoder: nn.Module,
                 null_text: LearnedClassifierFreeSamplingEmbeddings, tokenizer, schedule: MaskReplaceSchedule,
                 recipe: DenoiserRecipe, device: str = "cpu", autocast: bool = False):  # fmt: skip
        if recipe.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {recipe.objective!r}")
        self.codec, self.null_text = codec.to(device).eval(), null_text
        self.model = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder, "null_text": null_text})
        self.model["reader"] = RelationReader(tokenizer, null_text.embeddings.shape[1], recipe.seed)
        self.model.to(device).train()
        self.tokenizer, self.schedule, self.recipe = tokenizer, schedule, recipe
        self.device, self.autocast = device, autocast
        self.average = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.times = TimeSampler(schedule.num_steps)
        self.codes = code_table(self.codec_tokens) if recipe.objective == "ideal" else None
        count = round(recipe.walk_share * recipe.batch) if recipe.objective == "ideal" else 0
        self.walks = Walks(count, transformer.num_positions, schedule, _generator(recipe.seed, 0))
        self.optimizer = torch.optim.AdamW(
            _groups(self.model),
            lr=recipe.learning_rate,
            betas=(0.9, 0.96),
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def step(self, number: int) -> dict[str, float]:
        """One update on batch `number`; returns the figures of the log."""
        recipe, generator = self.recipe, _generator(self.recipe.seed, number)
        drawn = recipe.batch - len(self.walks.x_t)
        images, captions = batch_of_scenes("train", number, drawn)
        x_0 = self.codec_tokens(images).cpu()
        t, p_t = self._times(drawn, generator)
        x_t = q_sample(x_0, t, self.schedule, generator=generator)
        x_t, t = torch.cat([x_t, self.walks.x_t]), torch.cat([t, self.walks.times()])
        captions = captions + self.walks.captions()
        is_null = torch.rand(recipe.batch, generator=generator) < recipe.null_share
        is_null[drawn:] = False
        ids, _ = tokenize(self.tokenizer, captions)
        with self._fast():
            hidden = encode_ids(self.model["text_encoder"], ids.to(self.device))  # [B, S, D]
            text = torch.where(is_null.to(self.device)[:, None, None], self.null_text.embeddings.to(hidden), hidden)
            logits = self.model["transformer"](x_t.to(self.device), text, t.to(self.device) - 1)
        log_p_x0 = logits.float().log_softmax(-1)  # [B, L, K]
        if recipe.objective == "bound":
            loss = self._bound(log_p_x0, x_0, x_t, t, p_t)
        else:
            loss = -(self._target(x_0, x_t, t, captions, is_null).to(log_p_x0) * log_p_x0).sum(-1).mean()
        if len(self.walks.x_t):
            self.walks.advance(log_p_x0[drawn:].detach().cpu(), generator)
        relation = self.model["reader"](hidden, ids, captions)
        total = loss + recipe.relation_weight * relation
        norm = _update(self.optimizer, total, number, recipe, self.model.parameters(), recipe.clip)
        self._average(number)
        return {"loss": float(loss.detach()), "relation": float(relation.detach()), "gradient": norm}

    @torch.no_grad()
    def codec_tokens(self, images: Tensor) -> Tensor:
        """Tokens of pictures under the finished codec."""
        return self.codec.encode(images.to(self.device))

    def _target(self, x_0: Tensor, x_t: Tensor, t: Tensor, captions: list[str], is_null: Tensor) -> Tensor:
        """What cross-entropy compares with, `[B, L, K]`: the drawn x_0, or its law given x_t and the caption.

        Without its caption (`is_null`) the law is not known, and the drawn x_0 stands. Walks, without x_0, come last.
        """
        target = torch.zeros(*x_t.shape, self.schedule.num_codes)
        target[: len(x_0)] = F.one_hot(x_0, self.schedule.num_codes).float()
        told = (~is_null).nonzero()[:, 0].tolist()
        if self.codes is None or not told:
            return target
        claims = [scenes.parse(captions[row]) for row in told]
        target[told] = ideal_belief(x_t[told], t[told], claims, self.codes, self.schedule).float()
        return target

    @contextlib.contextmanager
    def _fast(self):
        """bfloat16 where asked for; on a CPU plain attention, with which a step took 0.35 s instead of 0.50 s."""
        kind = torch.device(self.device).type
        backends = [SDPBackend.MATH] if kind == "cpu" else list(SDPBackend.__members__.values())
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.autocast), sdpa_kernel(backends):
            yield

    def _times(self, batch: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Times of a batch and their probabilities; without the bound one time from each of B equal shares of them."""
        if self.recipe.objective == "bound":
            return self.times.sample(batch, generator)
        steps = self.schedule.num_steps
        share = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        t = (steps * share ** (1 / self.recipe.time_power)).ceil().long().clamp(1, steps)
        return t, torch.ones(batch)

    def _bound(self, log_p_x0: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, p_t: Tensor) -> Tensor:
        x_0, x_t, t, p_t = (part.to(self.device) for part in (x_0, x_t, t, p_t.float()))
        loss, terms = training_loss(log_p_x0, x_0, x_t, t, self.schedule.to(self.device), p_t=p_t)
        self.times.update(t, terms)
        return loss

    @torch.no_grad()
    def _average(self, number: int) -> None:
        decay = min(self.recipe.ema, (number + 1) / (number + 10))
        names, values = zip(*self.model.named_parameters(), strict=True)
        torch._foreach_lerp_([self.average[name] for name in names], [v.detach() for v in values], 1 - decay)

    @torch.no_grad()
    def averaged(self) -> nn.ModuleDict:
        """The model with the averaged weights copied in (the optimizer's copy is lost)."""
        for name, value in self.model.named_parameters():
            value.copy_(self.average[name])
        return self.model

    def state_dict(self) -> dict:
        return {"model": self.model.state_dict(), "average": self.average, "times": self.times.state_dict(),
                "walks": self.walks.state_dict(), "optimizer": self.optimizer.state_dict()}  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.times.load_state_dict(state["times"])
        self.walks.load_state_dict(state["walks"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)


class RelationReader(nn.Module):
    """Asks the text encoder, at the word that ends a noun, how that thing lies to the first one; a loss, not shipped.

    Where a thing belongs depends on position, relation and thing together, and any two of the three say nothing.
    Cross-entropy on the tokens alone left the order of two things a coin flip for 7000 steps; it learned the
    order once the text encoder had the relation at the noun. Only the caption is needed, no picture.
    """

    def __init__(self, tokenizer, width: int, seed: int = 0):
        super().__init__()
        self.shapes = torch.tensor([tokenizer(shape)["input_ids"][1] for shape in scenes.SHAPES])
        self.head = nn.Linear(width, len(scenes.RELATIONS))
        with torch.no_grad():
            self.head.weight.copy_(
                torch.randn(self.head.weight.shape, generator=_generator(seed, 0)) / math.sqrt(width)
            )
            self.head.bias.zero_()

    def forward(self, hidden: Tensor, ids: Tensor, captions: list[str]) -> Tensor:
        """Cross-entropy in nats of the relations that captions state, from hidden states `[B, S, D]`; 0 if none."""
        rows, columns, targets = [], [], []
        ends_noun = torch.isin(ids, self.shapes)
        for row, caption in enumerate(captions):
            nouns = ends_noun[row].nonzero()[:, 0].tolist()
            for _, relation, thing in scenes.parse(caption).relations:
                rows.append(row)
                columns.append(nouns[thing])
                targets.append(list(scenes.RELATIONS).index(relation))
        if not rows:
            return hidden.new_zeros(())
        found = hidden[rows, columns].float() * math.sqrt(hidden.shape[-1])  # unit variance
        return F.cross_entropy(self.head(found), torch.tensor(targets, device=found.device))


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
    """Backward, clip, step; returns the gradient's norm. Raises before the step if it or the loss is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * learning_rate(number, recipe.steps, recipe.decay) * group.get("scale", 1.0)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = float(nn.utils.clip_grad_norm_(parameters, clip))
    if not (math.isfinite(norm) and bool(torch.isfinite(loss))):
        raise FloatingPointError(f"the loss is {float(loss.detach())}, its gradient's norm {norm} at step {number}")
    optimizer.step()
    return norm


def _generator(seed: int, number: int) -> Generator:
    return Generator().manual_seed(seed * 1_000_003 + number)


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
