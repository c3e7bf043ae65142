"""The emoji model: its sizes, what it learns from, and its making from nothing in one call."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from vqlearn.data import emoji, scenes
from vqlearn.data.emoji import Arrangement, Placed
from vqlearn.evaluation.agreement import check_world
from vqlearn.networks.text import learned_merges, signs, tokenize
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.scheduler import VQDiffusionScheduler
from vqlearn.training.batches import Rows, Source
from vqlearn.training.denoiser import DenoiserStage
from vqlearn.training.objectives import CrossEntropy
from vqlearn.training.recipes import CodecRecipe, DenoiserRecipe
from vqlearn.training.shipped import Run, patch_codec, small_denoiser, text_parts
from vqlearn.training.start import initialise

NUM_CODES, WIDTH, LAYERS = 4096, 160, 4
TEXT_WIDTH, TEXT_LENGTH, MERGES = 96, 32, 2000
CATEGORIES: tuple[str, ...] | None = None  # what the denoiser learns, None for all; the codec learns them all
CODEC = CodecRecipe(steps=6000, batch=32)


@dataclass(frozen=True)
class EmojiRecipe(DenoiserRecipe):
    """How the denoiser learns emoji, by cross-entropy; the times are those of `CrossEntropy`.

    A caption that says all leaves nothing open, so what there is to learn is the whole picture from the caption, and
    this is what predictions at large t need.
    """

    steps: int = 50000
    batch: int = 32
    learning_rate: float = 1e-3
    uniform_share: float = 1 / 3
    time_power: float = 4.0


LARGE_BATCH = EmojiRecipe(steps=8000, batch=256, learning_rate=2e-3)
LARGE_CODEC_BATCH = CodecRecipe(steps=8000, batch=128)


def recipes(device: str, *, from_nothing: bool = True) -> tuple[CodecRecipe, EmojiRecipe]:
    """How codec and denoiser learn on a device: on a GPU in batches that are large enough for it.

    A model that learns on does so at half the rate, from other draws.
    """
    on_cpu = torch.device(device).type == "cpu"
    codec, denoiser = (CODEC, EmojiRecipe()) if on_cpu else (LARGE_CODEC_BATCH, LARGE_BATCH)
    learns_on = replace(denoiser, learning_rate=denoiser.learning_rate / 2, seed=denoiser.seed + 1)
    return codec, denoiser if from_nothing else learns_on


def combinations(split: str, categories: Iterable[str] | None = None) -> list[Arrangement]:
    """Every picture of 32 pixels of a split, "train" or "test"."""
    pool = emoji.pool(split, None if categories is None else frozenset(categories))
    return [
        Arrangement(background, (Placed(one),))
        for one in pool
        for background in emoji.BACKGROUNDS
        if emoji.held_out(one, background) == (split == "test")
    ]


def _drawn(arrangements: Sequence[Arrangement]) -> Tensor:
    return scenes.to_tensor(emoji.draw(one) for one in arrangements)


class EmojiPictures(Source):
    """Pictures of the training split, for the codec."""

    def __init__(self) -> None:
        self.combinations = combinations("train")

    def rows(self, number: int, count: int, generator: Generator) -> Rows:
        """Every combination is as likely as any other."""
        return Rows(_drawn([self.combinations[index] for index in _indices(len(self.combinations), count, generator)]))


class EmojiTokens(Source):
    """Tokens, looked up and not encoded, and captions of the training split."""

    def __init__(self, pipe: VQDiffusionPipeline, categories: Iterable[str] | None = None):
        self.combinations, self.tokenizer = combinations("train", categories), pipe.tokenizer
        several = range(0, len(self.combinations), 256)
        self.tokens = torch.cat([pipe.encode(_drawn(self.combinations[start : start + 256])) for start in several])

    def rows(self, number: int, count: int, generator: Generator) -> Rows:
        """Every combination is as likely as any other, with a caption of its own."""
        chosen = _indices(len(self.combinations), count, generator)
        rng = random.Random(_indices(2**62, 1, generator)[0])
        captions = [emoji.any_caption(self.combinations[index], rng) for index in chosen]
        return Rows(self.tokens[chosen], tokenize(self.tokenizer, captions)[0])


def _indices(most: int, count: int, generator: Generator) -> list[int]:
    found: list[int] = torch.randint(most, (count,), generator=generator, device=generator.device).tolist()
    return found


def training_captions(count: int = 20000) -> list[str]:
    """The first captions of the training split, from which the text's merges are learned."""
    return [emoji.arranged("train", index)[1] for index in range(count)]


def networks(seed: int = 0) -> dict[str, Any]:
    """The six components of the emoji pipeline, untrained; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Tokens of patches are the same on every background. In this order a CPU is a quarter faster; torch's
        # annotations lack the argument.
        codec = patch_codec(NUM_CODES, (32, 64, 128)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        transformer = small_denoiser(
            NUM_CODES, emoji.CELL // codec.factor, width=WIDTH, heads=5, layers=LAYERS, text_width=TEXT_WIDTH
        )
        text = text_parts(learned_merges(training_captions(), MERGES), TEXT_WIDTH, TEXT_LENGTH)
    scheduler = VQDiffusionScheduler(NUM_CODES + 1, gamma_cum_end=0.9)
    return {"vqvae": codec, "transformer": transformer, "scheduler": scheduler, **text}


def emoji_stage(
    pipe: VQDiffusionPipeline,
    recipe: EmojiRecipe | None = None,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> DenoiserStage:
    """The denoiser's training on emoji; the pipeline's codec is one that has learned.

    Raises ValueError for a pipeline that reads no text or draws pictures of another size.
    """
    check_world(pipe, "the world of emoji", emoji.CELL)
    recipe = recipes(device)[1] if recipe is None else recipe
    objective = CrossEntropy(recipe.uniform_share, recipe.time_power)
    return DenoiserStage(pipe, EmojiTokens(pipe, CATEGORIES), recipe, objective, device=device, dtype=dtype)


def train(
    out: str | Path,
    *,
    codec: CodecRecipe | None = None,
    denoiser: EmojiRecipe | None = None,
    start_from: VQDiffusionPipeline | None = None,
    device: str = "cpu",
    save_every: int = 250,
    progress: bool = True,
) -> VQDiffusionPipeline:
    """Train both stages in `out` and write the pipeline to `out/model`; goes on where an earlier run stopped.

    With `start_from`, a pipeline of this kind, its codec is kept and its denoiser learns on.
    """
    run = Run(Path(out), device, {"save_every": save_every, "progress": progress})
    found = recipes(device, from_nothing=start_from is None)
    if start_from is None:
        pipe = VQDiffusionPipeline(**networks())
        run.codec(pipe.vqvae, EmojiPictures(), codec or found[0])
        initialise(pipe.transformer, pipe.vqvae)
    else:
        pipe = start_from.to(torch.float32)
    stage = emoji_stage(pipe, denoiser or found[1], device=device, dtype=run.dtype)
    pipe.vqvae.half()  # as it is written
    finished: VQDiffusionPipeline = run.finished(stage, "denoiser", defaults())
    return finished


def defaults() -> dict[str, Any]:
    """The settings of a call, and the words of the captions."""
    pool = emoji.pool("train", None if CATEGORIES is None else frozenset(CATEGORIES))
    captions = [word for one in pool for word in (one.name, *one.keywords)]
    known = " ".join([*captions, *emoji.BACKGROUNDS, *emoji.OPENINGS, "on a background,"])
    return {"guidance_scale": 1.5, "truncation_rate": 0.9, "words": sorted(signs(known))}
