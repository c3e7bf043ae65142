"""Pipelines that are to learn a folder of pictures: new ones, and ones that have learned something else before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from vqlearn.arguments import shown
from vqlearn.data.folder import PictureFolder
from vqlearn.data.text import plain
from vqlearn.networks.conditions import Classes, Texts
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings, learned_merges, signs, tokenize
from vqlearn.networks.vqvae import VQModel
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.scheduler import VQDiffusionScheduler
from vqlearn.training.batches import Read
from vqlearn.training.shipped import TEXT_PARTS, text_parts
from vqlearn.training.sizes import Size
from vqlearn.training.start import initialise

LISTED = 8  # classes that a message names, at most
MERGES = 2000  # byte pairs that are learned from the captions, at most
GUIDED = {"text": {"guidance_scale": 2.0, "truncation_rate": 0.9}, "class": {"guidance_scale": 1.5}, "nothing": {}}
HAVE = {"text": "captions", "class": "classes", "nothing": "neither captions nor classes"}
Said = Sequence[tuple[Any, ...]]  # for each picture its captions, or the number of its class, or nothing


def new_pipeline(pictures: PictureFolder, size: Size, codec: VQModel | None = None, seed: int = 0) -> Any:
    """A pipeline of a size for some pictures, untrained but for a `codec` that is given; the same for the same seed.

    It reads text if the pictures have captions, in byte pairs that are learned from those of "train"; else their
    classes, or nothing. Raises ValueError for a side that the codec cannot divide.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = size.codec() if codec is None else codec
        check_side(pictures.side, codec.factor)
        reads, text = pictures.reads, dict.fromkeys(TEXT_PARTS)
        if reads == "text":
            merges = learned_merges(captions(pictures), MERGES)
            text = text_parts(merges, size.text_width, size.text_length)
        classes = len(pictures.classes) if reads == "class" else None
        denoiser = size.denoiser(codec.num_tokens, pictures.side // codec.factor, classes, reads == "text")
    scheduler = VQDiffusionScheduler(codec.num_tokens + 1, gamma_cum_end=0.9)
    pipe = VQDiffusionPipeline(vqvae=codec, transformer=denoiser, scheduler=scheduler, **text)
    pipe.defaults = {**GUIDED[reads], **({"labels": pictures.classes} if reads == "class" else {})}
    initialise(denoiser, None if codec.config.quantizer == "gumbel" else codec, seed)
    return pipe


def check_side(side: int, factor: int) -> None:
    """Raises ValueError for pictures that a codec of so many pixels a token cannot divide."""
    if side % factor:
        raise ValueError(f"the side of the pictures must be a multiple of {factor} for this codec, got {side}")


def captions(pictures: PictureFolder) -> Iterator[str]:
    """The captions that are learned from, as a pipeline reads them."""
    return (plain(caption) for i in pictures.indices("train") for caption in pictures.conditions(i))


def prepared(pipe: VQDiffusionPipeline, pictures: PictureFolder) -> VQDiffusionPipeline:
    """A pipeline that has learned already, ready to learn on: in float32, with a null text that learns.

    The published models of 2021 have none; theirs starts as the empty prompt (Improved VQ-Diffusion, section 3.1).
    Raises ValueError for a model that draws pictures of another side.
    """
    pipe = pipe.to(torch.float32)
    side = side_of(pipe)
    if side != pictures.side:
        raise ValueError(f"this model draws {side} x {side} pixels, the pictures were read in {pictures.side}")
    null_text: Any = pipe.learned_classifier_free_sampling_embeddings
    if pipe.transformer.reads == "text" and not null_text.learnable:
        empty = pipe.null_embeds()[0].float()
        learned = LearnedClassifierFreeSamplingEmbeddings(True, empty.shape[1], empty.shape[0])
        learned.embeddings.data.copy_(empty)
        pipe.learned_classifier_free_sampling_embeddings = learned
    if pipe.transformer.reads == "text" and "words" in pipe.defaults:
        said = conditions_of(pipe, pictures)
        known = {*pipe.defaults["words"], *signs(" ".join(text for i in pictures.indices("train") for text in said[i]))}
        pipe.defaults = {**pipe.defaults, "words": sorted(known)}
    return pipe


def side_of(pipe: VQDiffusionPipeline) -> int:
    """Pixels along one side of the pictures that a pipeline draws; raises ValueError where it draws none."""
    if pipe.vqvae is None:
        raise ValueError("this model has no codec, so it cannot learn pictures")
    side: int = round(pipe.length**0.5) * pipe.vqvae.factor
    return side


def conditions_of(pipe: VQDiffusionPipeline, pictures: PictureFolder) -> Said:
    """What a pipeline is conditioned on for each picture.

    A text that is missing is the name of the class. Raises ValueError where neither is there, and for a class that a
    model of classes does not have.
    """
    reads, known = pipe.transformer.reads, pipe.conditions
    if reads == "nothing":
        return [()] * len(pictures)
    if isinstance(known, Classes) and pictures.reads == "class":
        numbers = {name: _number(known, name) for name in pictures.classes}
        return [(numbers[entry.label or ""],) for entry in pictures.entries]
    if isinstance(known, Texts) and pictures.reads != "nothing":
        own = pictures.reads == "text"
        return [tuple(map(plain, one.captions if own else (one.label or "",))) for one in pictures.entries]
    raise ValueError(f"this model reads a {reads}, and the pictures have {HAVE[pictures.reads]}")


def _number(known: Classes, name: str) -> int:
    try:
        return known.number(name)
    except ValueError:
        some = ", ".join(map(shown, known.names[:LISTED])) + (" ..." if len(known.names) > LISTED else "")
        raise ValueError(f"this model has no class {name!r}, it has {known.count}: {some}") from None


def reader(pipe: VQDiffusionPipeline) -> Read:
    """What makes of a list of captions or class numbers what the network is given; a long caption is cut."""
    if pipe.transformer.reads == "text":
        return lambda texts: tokenize(pipe.tokenizer, texts)[0]
    return torch.tensor if pipe.transformer.reads == "class" else lambda _: None


def cut_captions(pipe: VQDiffusionPipeline, said: Said) -> list[int]:
    """The numbers of the pictures with a caption that a pipeline can read in part alone."""
    if pipe.transformer.reads != "text":
        return []
    return [i for i, texts in enumerate(said) if any(tokenize(pipe.tokenizer, list(texts))[1])]
