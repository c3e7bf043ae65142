"""The models that the experiments compare: what differs between them, how they learn, and what is measured of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Generator

from experiments.world import World, world
from vqlearn import AutoregressivePipeline, MaskReplaceSchedule, VQDiffusionPipeline, VQDiffusionScheduler, scenes
from vqlearn.evaluation.agreement import pictures_of, report
from vqlearn.evaluation.bound import bound
from vqlearn.networks.autoregressive import AutoregressiveTransformer
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.training import DenoiserRecipe, DenoiserStage, PublishedBound, fit, initialise, networks
from vqlearn.training.autoregressive import AutoregressiveStage
from vqlearn.training.updates import has_fast_bfloat16

HEADS, HEAD, LAYERS = 4, 16, 2
BATCH, ROUNDS = 32, 7  # captions that are drawn at a time; batches of which the median time counts


@dataclass(frozen=True)
class Size:
    """How much is learned and measured: all of it in a night on two cores, or less."""

    updates: int = 2000
    batch: int = 32
    pictures: int = 20000
    captions: int = 500
    seeds: int = 3


FULL, SMALL, MINIATURE = Size(), Size(600, 32, 4000, 100), Size(2, 4, 64, 4, 2)


@dataclass(frozen=True)
class Arm:
    """What differs between the models; the defaults are the paper's."""

    kind: str = "diffusion"  # or "autoregressive"
    masked: float = 0.9  # the share that is masked at t = T; the rest is replaced
    num_steps: int = 100
    auxiliary_weight: float = 5e-4
    null: str = "learned"  # "empty": the empty text in its place; "none": the empty text, never shown in training

    @property
    def name(self) -> str:
        """What tells it apart, as the name of a folder."""
        return f"{self.kind}-{self.masked:g}-{self.num_steps}-{self.auxiliary_weight:g}-{self.null}"


@dataclass
class Lab:
    """Trains each model once, in its own folder, and measures it; a run that was interrupted goes on."""

    size: Size
    folder: Path
    progress: bool = True
    known: dict[tuple[Arm, int], Any] = field(default_factory=dict)
    measured: dict[tuple[Arm, int], float] = field(default_factory=dict)

    @property
    def world(self) -> World:
        return world(self.size.pictures, self.size.captions)

    def model(self, arm: Arm, seed: int) -> VQDiffusionPipeline | AutoregressivePipeline:
        """The trained model."""
        if (arm, seed) not in self.known:
            pipe = build(arm, self.world, seed)
            null_share = 0.0 if arm.null == "none" else 0.1
            recipe = DenoiserRecipe(
                steps=self.size.updates, batch=self.size.batch, learning_rate=3e-3, null_share=null_share, seed=seed
            )
            dtype = torch.bfloat16 if has_fast_bfloat16() else None
            if isinstance(pipe, AutoregressivePipeline):
                stage: Any = AutoregressiveStage(pipe, self.world.train, recipe, dtype=dtype)
            else:
                objective = PublishedBound(arm.num_steps, arm.auxiliary_weight)
                stage = DenoiserStage(pipe, self.world.train, recipe, objective, dtype=dtype)
            fit(stage, self.folder / f"{arm.name}-{seed}", save_every=500, progress=self.progress)
            self.known[arm, seed] = stage.averaged()
        return self.known[arm, seed]

    def draw(self, arm: Arm, seed: int, **call: Any) -> dict[str, float]:
        """Draw a picture for every test caption: the shares that are right, and the entropy of positions left open."""
        captions = self.world.captions
        images = [*self._images(arm, seed, captions, call)]
        found = report(captions, [scenes.read(image) for image in images])
        return {
            "right": found.all, "one": found.by_count[1], "two": found.by_count[2], "entropy": found.entropy["position"]
        }  # fmt: skip

    def speeds(self, settings: dict[str, tuple[Arm, dict[str, Any]]], seed: int) -> dict[str, float]:
        """Pictures per second of processor time, by setting.

        Each setting draws a batch in turn, in several rounds, so that what else the machine does slows all alike; the
        medians count.
        """
        captions = self.world.captions[:BATCH]
        seconds: dict[str, list[float]] = {name: [] for name in settings}
        for _ in range(ROUNDS):
            for name, (arm, call) in settings.items():
                self.model(arm, seed)
                begin = time.process_time()
                drawn = sum(1 for _ in self._images(arm, seed, captions, call))
                seconds[name].append((time.process_time() - begin) / drawn)
        return {name: 1 / median(each) for name, each in seconds.items()}

    def _images(self, arm: Arm, seed: int, captions: list[str], call: dict[str, Any]) -> Iterator[Any]:
        pipe = self.model(arm, seed)
        if arm.kind == "diffusion":
            call = {"truncation_rate": 1.0, "num_inference_steps": min(25, arm.num_steps), **call}
        call = {"guidance_scale": 1.0, "generator": Generator().manual_seed(seed), **call}
        return pictures_of(pipe, captions, batch=BATCH, progress=False, **call)

    def bits(self, arm: Arm, seed: int) -> float:
        """The code length of the test pictures given their captions, in bits per picture: exact, or the bound."""
        if (arm, seed) not in self.measured:
            self.measured[arm, seed] = self._bits(arm, seed)
        return self.measured[arm, seed]

    @torch.no_grad()
    def _bits(self, arm: Arm, seed: int) -> float:
        pipe, world = self.model(arm, seed), self.world
        if isinstance(pipe, AutoregressivePipeline):
            return float(pipe.bits(world.test, world.captions).mean())
        generator = Generator().manual_seed(seed)
        return bound(pipe.denoiser(world.captions), world.test, pipe.schedule, generator=generator).bits_per_row


def build(arm: Arm, world: World, seed: int) -> VQDiffusionPipeline | AutoregressivePipeline:
    """The model of an arm: an untrained network of two layers, width 64, beside the world's codec and text encoder."""
    parts = {**networks(seed), "vqvae": world.codec, "tokenizer": world.tokenizer, "text_encoder": world.text_encoder}
    codes, null = world.codec.num_tokens, "learned_classifier_free_sampling_embeddings"
    if arm.null != "learned":
        parts[null] = LearnedClassifierFreeSamplingEmbeddings(False)
    common = {
        "num_attention_heads": HEADS, "attention_head_dim": HEAD, "num_layers": LAYERS,
        "cross_attention_dim": parts["text_encoder"].config.hidden_size,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arm.kind == "autoregressive":
            del parts["scheduler"]
            # 9 times the width is as many weights as two 3 x 3 convolutions at the width itself
            parts["transformer"] = AutoregressiveTransformer(
                num_codes=codes, num_positions=world.test.shape[1], feed_forward_mult=9, **common
            )
        else:
            parts["transformer"] = Transformer2DModel(
                num_vector_embeds=codes + 1, sample_size=8, num_embeds_ada_norm=arm.num_steps,
                feed_forward="convolution", feed_forward_mult=1, **common,
            )  # fmt: skip
            parts["scheduler"] = VQDiffusionScheduler(codes + 1, arm.num_steps)
    pipe: Any = (AutoregressivePipeline if arm.kind == "autoregressive" else VQDiffusionPipeline)(**parts)
    if arm.kind == "diffusion":
        end = min(max(arm.masked, 9e-6), 0.99999)  # as much as alpha_bar, which ends at 9e-6, leaves to it
        pipe.schedule = MaskReplaceSchedule.from_ends(num_codes=codes, num_steps=arm.num_steps, gamma_end=end)
    initialise(pipe.transformer, world.codec, seed)
    return pipe
