"""Measuring a model of emoji: pictures are read back and compared with captions, most of them new to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator

from vqlearn.arguments import whole
from vqlearn.data import emoji, scenes
from vqlearn.evaluation.agreement import LAST, check_world, margin, pictures_of

if TYPE_CHECKING:
    from vqlearn.autoregression import AutoregressivePipeline
    from vqlearn.components import Components
    from vqlearn.pipeline import VQDiffusionPipeline


@dataclass(frozen=True)
class Report:
    """Shares in [0, 1] of pictures in which the emoji, the background and both are what the caption asks for."""

    pictures: int
    emoji: float
    background: float
    all: float

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval of `all` (normal approximation)."""
        return margin(self.all, self.pictures)


@dataclass(frozen=True)
class Reconstruction:
    """What a codec keeps: the mean peak signal-to-noise ratio in dB, and the share read back as the picture is."""

    pictures: int
    psnr: float
    read: float


@torch.no_grad()
def evaluate(
    pipe: VQDiffusionPipeline | AutoregressivePipeline,
    *,
    split: str = "test",
    count: int = 500,
    seed: int = 0,
    batch: int = 100,
    categories: Iterable[str] | None = None,
    progress: bool = True,
    **call: Any,
) -> Report:
    """Draw a picture for each of the first `count` captions of a split, read it back; `call` goes to the pipeline.

    Captions of "test" state a combination of emoji and background that training never showed. Raises ValueError for
    another split or category, numbers out of range and a pipeline that draws pictures of another size.
    """
    count, seed, batch = whole("count", count), whole("seed", seed, 0, LAST), whole("batch", batch)
    check_world(pipe, "the world of emoji", emoji.CELL)
    captions = [emoji.arranged(split, index, categories=categories)[1] for index in range(count)]
    generator = Generator().manual_seed(seed)
    drawn = pictures_of(pipe, captions, batch=batch, progress=progress, generator=generator, **call)
    found = [emoji.agreement(picture, caption) for picture, caption in zip(drawn, captions, strict=True)]
    return Report(
        count,
        emoji=sum(one.emoji for one in found) / count,
        background=sum(one.background for one in found) / count,
        all=sum(one.all for one in found) / count,
    )


@torch.no_grad()
def reconstruction(
    pipe: Components, *, split: str = "unseen", count: int = 500, categories: Iterable[str] | None = None
) -> Reconstruction:
    """A codec's round trip on the first `count` pictures of a split; those of "unseen" show emoji new to it."""
    count = whole("count", count)
    check_world(pipe, "the world of emoji", emoji.CELL)
    arranged = [emoji.arranged(split, index, categories=categories) for index in range(count)]
    images = scenes.to_tensor(emoji.draw(one) for one, _ in arranged)
    back = torch.cat([pipe.decode(pipe.encode(some)) for some in images.split(100)]).cpu().clamp(-1, 1)
    errors = ((back - images) / 2).pow(2).flatten(1).mean(1)  # of the full scale
    same = [emoji.agreement(picture, str(one)).all for picture, (one, _) in zip(back, arranged, strict=True)]
    return Reconstruction(count, float(-10 * errors.log10().mean()), sum(same) / count)
