"""Drawing emoji on a background."""

from __future__ import annotations

import numpy as np

from vqlearn.data.emoji.sheet import SPRITE, sprites
from vqlearn.data.emoji.world import BACKGROUNDS, CELL, MARGIN, Arrangement


def draw(arrangement: Arrangement) -> np.ndarray:
    """A picture of an arrangement, uint8 RGB `[H, W, 3]`."""
    image = np.empty((arrangement.side, arrangement.side, 3), np.uint8)
    image[:] = BACKGROUNDS[arrangement.background]
    for one in arrangement.emoji:
        top, left = CELL * one.row + MARGIN, CELL * one.col + MARGIN
        image[top : top + SPRITE, left : left + SPRITE] = on(arrangement.background, sprites()[one.emoji.number])
    return image


def on(background: str, pictures: np.ndarray) -> np.ndarray:
    """Sprites uint8 `[..., 4]` on a background of a name, uint8 `[..., 3]`."""
    colours, alpha = pictures[..., :3].astype(np.float32), pictures[..., 3:] / np.float32(255)
    seen: np.ndarray = colours * alpha + np.array(BACKGROUNDS[background], np.float32) * (1 - alpha)
    return seen.round().astype(np.uint8)
