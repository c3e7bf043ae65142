"""Rendering scenes as pictures, with anti-aliased edges."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import torch

from vqlearn.data.scenes.world import BACKGROUNDS, COLORS, SIDES, SIZE, Scene


@functools.cache
def sprite(shape: str, size: str) -> np.ndarray:
    """Coverage in [0, 1] of a shape, `[side, side]`, by 8 x 8 samples per pixel."""
    side, samples = SIDES[size], 8
    axis = (np.arange(side * samples) + 0.5) / (side * samples) * 2 - 1
    x, y = np.meshgrid(axis, axis)  # both in (-1, 1), y downwards
    if shape == "circle":
        inside = x**2 + y**2 <= 1
    elif shape == "square":
        inside = np.ones_like(x, dtype=bool)
    elif shape == "triangle":
        inside = np.abs(x) <= (y + 1) / 2
    elif shape == "cross":
        inside = np.minimum(np.abs(x), np.abs(y)) <= 1 / 3
    else:
        angle, radius = np.arctan2(x, -y), np.hypot(x, y)
        inside = radius <= _star_edge(angle)
    cover: np.ndarray = inside.reshape(side, samples, side, samples).mean((1, 3))
    return cover


def _star_edge(angle: np.ndarray, inner: float = 0.42) -> np.ndarray:
    """Distance from the centre to the edge of a five-pointed star with a tip at angle 0."""
    turn = 2 * np.pi / 5
    fold = np.abs((angle + turn / 2) % turn - turn / 2)  # 0 at a tip, turn / 2 at a notch
    tip, notch = np.array([1.0, 0.0]), inner * np.array([np.cos(turn / 2), np.sin(turn / 2)])
    edge = notch - tip
    cross = tip[0] * edge[1] - tip[1] * edge[0]
    distance: np.ndarray = cross / (np.cos(fold) * edge[1] - np.sin(fold) * edge[0])
    return distance


def draw(scene: Scene) -> np.ndarray:
    """Render a scene as uint8 RGB, `[32, 32, 3]`, with anti-aliased edges."""
    image = np.empty((SIZE, SIZE, 3))
    image[:] = BACKGROUNDS[scene.background]
    for one in scene.objects:
        cover = sprite(one.shape, one.size)[..., None]
        box = image[one.row : one.row + len(cover), one.col : one.col + len(cover)]
        box += cover * (np.array(COLORS[one.color]) - box)
    return image.round().astype(np.uint8)


def to_tensor(pictures: Iterable[np.ndarray]) -> torch.Tensor:
    """uint8 pictures `[H, W, 3]` to a float tensor `[B, 3, H, W]` in [-1, 1], as a codec takes it."""
    return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2).float() / 127.5 - 1
