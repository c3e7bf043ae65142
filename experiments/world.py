"""The world of the experiments: scenes of one or two objects in few colours, which a small model learns in minutes.

Scenes, captions and the scene parser are those of `vqlearn.scenes`, with a white background, the first four colours and
the first three shapes. Tokens are those of the shipped codec, whose codebook is cut down to the codes that occur. The
test captions of two objects state combinations that are held out of training (`scenes.sample`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from vqlearn import VQDiffusionPipeline, scenes
from vqlearn.data import layouts
from vqlearn.data.layouts import Layouts
from vqlearn.networks.vqvae import VQModel
from vqlearn.training import Rows, Source

COLORS, SHAPES, BACKGROUND = 4, 3, 0
COUNTS = (0.5, 0.5, 0.0)  # the shares of scenes with one, two and three objects


@dataclass(frozen=True)
class Pictures(Source):
    """Rows drawn at random from pictures with captions: tokens int64 `[N, L]` and token ids int64 `[N, S]`."""

    tokens: Tensor
    ids: Tensor | None

    def rows(self, number: int, count: int, generator: Generator) -> Rows:
        """Drawn with replacement, so that batch `number` is a function of its generator alone."""
        chosen = torch.randint(len(self.tokens), (count,), generator=generator)
        return Rows(self.tokens[chosen], None if self.ids is None else self.ids[chosen])


@dataclass(frozen=True)
class World:
    """Codec, text, training pictures, and held-out pictures with their captions."""

    codec: VQModel
    tokenizer: Any
    text_encoder: Any  # the shipped model's, which no longer learns, as CLIP in the papers
    train: Pictures
    test: Tensor  # int64 [M, L]
    captions: list[str]


@functools.cache
def world(pictures: int, captions: int) -> World:
    """The world with so many training pictures and test captions, the same at every call."""
    pipe = VQDiffusionPipeline.from_pretrained()
    table = layouts.code_table(pipe.encode)
    codes = _codes(table)

    def tokens(some: Layouts) -> Tensor:
        return torch.searchsorted(codes, layouts.tokens(some, table).contiguous())

    train, test = _draw("train", pictures, 0), _draw("test", captions, 1)
    ids = layouts.token_ids(train, layouts.text_table(pipe.tokenizer))
    codec = _with_codes(pipe.vqvae, codes)
    text_encoder = pipe.text_encoder.float().requires_grad_(False)
    return World(codec, pipe.tokenizer, text_encoder, Pictures(tokens(train), ids), tokens(test), test.captions())


def _draw(split: str, count: int, seed: int) -> Layouts:
    """Scenes of a split of `vqlearn.scenes`, and of these the ones that are in this world."""
    generator, found = Generator().manual_seed(seed), []
    for objects, share in enumerate(COUNTS, 1):
        wanted, shares = round(share * count), [float(objects == n) for n in scenes.COUNTS]
        while wanted > 0:
            some = layouts.draw(split, min(2**14, 64 * wanted), shares=shares, generator=generator)
            there = torch.arange(some.color.shape[1]) < some.objects[:, None]
            fits = ((some.color < COLORS) & (some.shape < SHAPES)) | ~there
            keep = (fits.all(1) & (some.background == BACKGROUND)).nonzero()[:wanted, 0]
            found.append(Layouts(*(part[keep] for part in some)))
            wanted -= len(keep)
    together = Layouts(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    order = torch.randperm(len(together.objects), generator=generator)
    return Layouts(*(part[order] for part in together))


def _codes(table: layouts.CodeTable) -> Tensor:
    """The codes that occur in this world, in rising order."""
    objects = table.objects[:, :SHAPES, BACKGROUND, :COLORS]  # [sizes, shapes, colors, patches]
    inside = [objects[size, ..., : span**2].flatten() for size, span in enumerate(layouts.SPAN)]
    return torch.cat([table.backgrounds[BACKGROUND, None], *inside]).unique()


def _with_codes(codec: VQModel, codes: Tensor) -> VQModel:
    """A codec with some of another's codes."""
    settings = {name: value for name, value in codec.config.items() if not name.startswith("_")}
    found = VQModel(**{**settings, "num_vq_embeddings": len(codes)})
    weights = dict(codec.state_dict())
    weights["quantize.embedding.weight"] = weights["quantize.embedding.weight"][codes]
    found.load_state_dict(weights)
    return found.eval()
