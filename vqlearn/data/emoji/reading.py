"""A picture of emoji read back: the nearest emoji in every cell, over positions, and the background."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from vqlearn.arguments import shown
from vqlearn.data.emoji.captions import Claim, parse
from vqlearn.data.emoji.drawing import on
from vqlearn.data.emoji.sheet import SPRITE, catalogue, sprites
from vqlearn.data.emoji.world import BACKGROUNDS, CELL, MARGIN, SIDES, Arrangement, Placed, relation_between
from vqlearn.data.pictures import to_tensor

Picture = Image.Image | np.ndarray | Tensor
SHIFTS = [(row, col) for row in (-1, 0, 1) for col in (-1, 0, 1)]  # pixels from the place where an emoji is drawn


def read(picture: Picture) -> Arrangement:
    """The background, and the nearest emoji of every cell that is not nearer to an empty one.

    A picture of 32 or 64 pixels: a PIL image, uint8 `[H, W, 3]` or a float tensor `[3, H, W]` in [-1, 1]. An emoji may
    be off its place by a pixel. Of those that look alike the first is named. `Placed.error` is the root mean square
    difference of the cell and the emoji drawn anew, of full scale: nothing of its own is far from every emoji, so see
    there whether a picture shows one at all. Raises ValueError for what is no picture of this size.
    """
    pixels = _pixels(picture)
    background = _background(pixels)
    cells = len(pixels) // CELL
    found = []
    for row, col in np.ndindex(cells, cells):
        cell = pixels[CELL * row : CELL * (row + 1), CELL * col : CELL * (col + 1)]
        number, error = _nearest(cell, background)
        if number is not None:
            found.append(Placed(catalogue()[catalogue()[number].looks_like], row, col, error))
    return Arrangement(background, tuple(found), len(pixels))


def _pixels(picture: Picture) -> np.ndarray:
    """Any accepted picture as float32 `[H, W, 3]` in [0, 1]."""
    if isinstance(picture, Image.Image):
        width, height = picture.size
    elif isinstance(picture, np.ndarray | Tensor) and picture.ndim == 3:
        height, width = picture.shape[1:] if isinstance(picture, Tensor) else picture.shape[:2]
    else:
        raise ValueError(f"picture must be a PIL image, an array [H, W, 3] or a tensor [3, H, W], got {shown(picture)}")
    if width != height or width not in SIDES:
        raise ValueError(f"picture must be 32 x 32 or 64 x 64 pixels, got {width} x {height}")
    if isinstance(picture, Tensor) and picture.is_floating_point():
        picture = picture.detach().float().cpu().clamp(-1, 1)  # a codec goes a little beyond
    found: np.ndarray = to_tensor(picture, width)[0].permute(1, 2, 0).numpy() / 2 + 0.5
    return found


def _background(pixels: np.ndarray) -> str:
    """The background that most pixels beside the emoji are nearest to."""
    edge = np.ones(CELL, bool)
    edge[MARGIN:-MARGIN] = False
    edge = np.tile(edge, len(pixels) // CELL)
    beside = pixels[edge[:, None] | edge]  # [N, 3]
    colours = np.array(list(BACKGROUNDS.values()), np.float32) / 255
    nearest = ((beside[:, None] - colours) ** 2).sum(-1).argmin(-1)
    return list(BACKGROUNDS)[np.bincount(nearest).argmax()]


@functools.lru_cache(maxsize=len(BACKGROUNDS))
def _drawn(background: str) -> tuple[np.ndarray, np.ndarray]:
    """Every emoji on a background, less its colour, `[N, D]`, and their squares `[N]`."""
    less = on(background, sprites()) / np.float32(255) - np.array(BACKGROUNDS[background], np.float32) / 255
    flat = less.reshape(len(less), -1)
    return flat, (flat**2).sum(1)


def _nearest(cell: np.ndarray, background: str) -> tuple[int | None, float]:
    """The number of the emoji that a cell is nearest to, or None for an empty one, and the error."""
    emoji, squares = _drawn(background)
    less = cell - np.array(BACKGROUNDS[background], np.float32) / 255
    total = float((less**2).sum())  # outside the emoji, too
    places = [less[MARGIN + row :, MARGIN + col :][:SPRITE, :SPRITE].reshape(-1) for row, col in SHIFTS]
    distance = squares - 2 * np.stack(places) @ emoji.T  # [shifts, N], without the cell's own square
    nearest = int(distance.argmin()) % len(squares)
    least = float(distance.min())
    error = float(np.sqrt(max(total + min(least, 0.0), 0.0) / less.size))
    return (nearest if least < 0 else None), error


@dataclass(frozen=True)
class Agreement:
    """Which parts of a caption a picture fulfils; a part that the caption leaves unsaid counts as fulfilled."""

    emoji: bool  # these and no others
    relation: bool
    background: bool

    @property
    def all(self) -> bool:
        return all(vars(self).values())


def agreement(picture: Picture | Arrangement, caption: str | Claim) -> Agreement:
    """Read a picture and compare it with a caption; raises ValueError for a caption with which no emoji agrees."""
    claim = caption if isinstance(caption, Claim) else parse(caption)
    seen = picture if isinstance(picture, Arrangement) else read(picture)
    background = claim.background in (None, seen.background)
    orders = [seen.emoji, seen.emoji[::-1]] if len(seen.emoji) == len(claim.emoji) else []
    right = [order for order in orders if _fits(order, claim)]
    related = claim.relation is None or any(relation_between(*order) == claim.relation for order in right)
    return Agreement(bool(right), related, background)


def _fits(order: tuple[Placed, ...], claim: Claim) -> bool:
    return all(one.emoji.looks_like in meant for one, meant in zip(order, claim.emoji, strict=True))
