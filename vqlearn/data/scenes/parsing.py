"""The scene parser: a scene recovered from pixels alone, and compared with a caption."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from torch import Tensor

from vqlearn.data.pictures import rgb
from vqlearn.data.scenes.captions import Claim, parse
from vqlearn.data.scenes.drawing import draw, sprite
from vqlearn.data.scenes.world import BACKGROUNDS, COLORS, SHAPES, SIDES, SIZE, Scene, SceneObject, relation_between

Picture = Image.Image | np.ndarray | Tensor


def read(image: Picture) -> Scene:
    """Recover the scene from pixels: a PIL image, uint8 `[32, 32, 3]`, or a float tensor `[3, 32, 32]` in [-1, 1].

    A blob of eight or more pixels is an object. Its colour or shape is "unknown" when no colour explains its
    pixels (root mean square error over 0.16 of full scale), no sprite covers it (overlap under 0.7), or the
    object, drawn anew, differs from the picture at more than a twelfth of its box. Eight or more differing pixels
    elsewhere are one more unknown object, and a background that is off its colour is an "unknown" background.
    Raises ValueError for what is no picture of this size.
    """
    pixels = _to_pixels(image)
    names, values = list(BACKGROUNDS), np.array(list(BACKGROUNDS.values())) / 255
    distance = np.linalg.norm(pixels[:, :, None] - values, axis=-1)  # [H, W, backgrounds]
    background = names[int((distance < 0.25).sum((0, 1)).argmax())]
    behind = values[names.index(background)]
    ink = np.linalg.norm(pixels - behind, axis=-1) > 0.3
    objects = [_parse_object(pixels, behind, blob) for blob in _blobs(ink) if blob.sum() >= 8]
    objects = _drawn_anew(pixels, background, objects)
    if (distance[..., names.index(background)] < 0.15).sum() < 0.9 * (~ink).sum():
        background = "unknown"
    return Scene(background, tuple(sorted(objects, key=lambda one: (one.row, one.col))))


def _drawn_anew(pixels: np.ndarray, background: str, objects: list[SceneObject]) -> list[SceneObject]:
    """The objects, "unknown" where drawing one does not give the picture, and one more for ink that belongs to none."""
    named = [one for one in objects if "unknown" not in (one.color, one.shape)]
    wrong = np.linalg.norm(pixels - draw(Scene(background, tuple(named))) / 255, axis=-1) > 0.33
    checked = []
    for one in objects:
        side = SIDES[one.size]
        box = wrong[max(0, one.row - 1) : one.row + side + 1, max(0, one.col - 1) : one.col + side + 1]
        checked.append(one if box.sum() <= side * side / 12 else replace(one, shape="unknown"))
        box[:] = False
    if wrong.sum() >= 8:
        row, col = (int(where[0]) for where in np.nonzero(wrong))
        checked.append(SceneObject("small", "unknown", "unknown", row, col))
    return checked


def _to_pixels(image: Picture) -> np.ndarray:
    """Any accepted picture as float64 `[32, 32, 3]` in [0, 1]."""
    if isinstance(image, Image.Image) and image.size == (SIZE, SIZE):
        image = rgb(image)
    tensor = isinstance(image, Tensor)
    pixels: np.ndarray = np.asarray(image.detach().cpu().double() if isinstance(image, Tensor) else image)
    expected = (3, SIZE, SIZE) if tensor else (SIZE, SIZE, 3)
    if pixels.shape != expected:
        raise ValueError(f"image must be {SIZE} x {SIZE} RGB, {list(expected)}, got {list(pixels.shape)}")
    if tensor:
        pixels = pixels.transpose(1, 2, 0) / 2 + 0.5
    elif pixels.dtype == np.uint8:
        pixels = pixels / 255
    if not (np.isfinite(pixels).all() and pixels.min() > -0.5 and pixels.max() < 1.5):
        raise ValueError(
            "image must be uint8, floats in [0, 1] or a tensor in [-1, 1], got values far outside or not finite"
        )
    return pixels.clip(0, 1)


def _blobs(ink: np.ndarray) -> list[np.ndarray]:
    """The 4-connected components of a boolean picture, one boolean picture each."""
    left, blobs = ink.copy(), []
    while left.any():
        blob = np.zeros_like(left)
        blob[np.unravel_index(left.argmax(), left.shape)] = True
        while True:
            grown = _wider(blob, 0)
            grown |= _wider(blob, 1)
            grown &= left
            if (grown == blob).all():
                break
            blob = grown
        blobs.append(blob)
        left &= ~blob
    return blobs


def _wider(blob: np.ndarray, axis: int) -> np.ndarray:
    """A boolean picture with the neighbours of its pixels along an axis."""
    grown, blob = blob.copy(), blob.swapaxes(0, axis)
    there = grown.swapaxes(0, axis)
    there[1:] |= blob[:-1]
    there[:-1] |= blob[1:]
    return grown


def _parse_object(pixels: np.ndarray, behind: np.ndarray, blob: np.ndarray) -> SceneObject:
    color, cover, error = _read_color(pixels - behind, behind, _wider(_wider(blob, 0), 1))
    size, shape, row, col, overlap = _read_shape(cover)
    return SceneObject(size, color if error <= 0.16 else "unknown", shape if overlap >= 0.7 else "unknown", row, col)


def _read_color(apart: np.ndarray, behind: np.ndarray, near: np.ndarray) -> tuple[str, np.ndarray, float]:
    """The colour whose blends with the background explain best what is apart from it, the blend, and the error left."""
    box = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(near))
    inside, weight = np.ascontiguousarray(apart[box]), near[box]
    best = ("unknown", np.zeros(weight.shape), np.inf)
    for name, value in COLORS.items():
        ray = np.array(value) / 255 - behind
        cover = (inside @ ray / (ray @ ray)).clip(0, 1) * weight
        miss = ((inside - cover[..., None] * ray) ** 2).mean(-1)
        error = float(np.sqrt((miss * weight).sum() / weight.sum()))
        if error < best[2]:
            best = (name, cover, error)
    cover = np.zeros(near.shape)
    cover[box] = best[1]
    return best[0], cover, best[2]


def _read_shape(cover: np.ndarray) -> tuple[str, str, int, int, float]:
    """The sprite and position with the largest overlap (sum of minima over sum of maxima)."""
    inked = np.nonzero(cover > 0.4)
    middle = [(where.min() + where.max() + 1) / 2 if len(where) else 0.0 for where in inked]
    best: tuple[str, str, int, int, float] = ("small", "unknown", 0, 0, -1.0)
    total = cover.sum()
    for size, side in SIDES.items():
        rows, cols = (_near(m - side / 2, SIZE - side) for m in middle)
        if not (rows and cols):
            continue
        windows = sliding_window_view(cover, (side, side))[rows.start : rows.stop, cols.start : cols.stop]
        masks = np.stack([sprite(shape, size) for shape in SHAPES])
        common = np.minimum(windows, masks[:, None, None]).reshape(len(SHAPES), len(rows), len(cols), -1).sum(-1)
        overlap = common / (total + masks.reshape(len(SHAPES), 1, 1, -1).sum(-1) - common)
        shape, row, col = np.unravel_index(overlap.argmax(), overlap.shape)  # of equal ones the first
        if overlap[shape, row, col] > best[4]:
            best = (size, SHAPES[shape], rows[row], cols[col], float(overlap[shape, row, col]))
    return best


def _near(start: float, last: int) -> range:
    """Whole pixels within two of a start, from 0 to `last`."""
    return range(max(0, round(start) - 2), min(last, round(start) + 2) + 1)


@dataclass(frozen=True)
class Agreement:
    """Which parts of a caption a picture fulfils; a part that the caption leaves unsaid counts as fulfilled."""

    count: bool
    shape: bool
    color: bool
    size: bool
    relation: bool
    background: bool

    @property
    def all(self) -> bool:
        return all(vars(self).values())


def agreement(image: Picture | Scene, caption: str | Claim) -> Agreement:
    """Read a picture and compare it with a caption, attribute by attribute, under the kindest pairing of objects."""
    claim = parse(caption) if isinstance(caption, str) else caption
    scene = image if isinstance(image, Scene) else read(image)
    background = claim.background in (None, scene.background)
    wanted = len(claim.objects)
    if len(scene.objects) < wanted:
        return Agreement(False, False, False, False, not claim.relations, background)
    count = len(scene.objects) == wanted
    return max(
        (_compare(claim, objects, count, background) for objects in itertools.permutations(scene.objects[:6], wanted)),
        key=lambda found: sum(vars(found).values()),
    )


def _compare(claim: Claim, objects: tuple[SceneObject, ...], count: bool, background: bool) -> Agreement:
    pairs = list(zip(claim.objects, objects, strict=True))
    return Agreement(
        count=count,
        shape=all(said.shape == seen.shape for said, seen in pairs),
        color=all(said.color in (None, seen.color) for said, seen in pairs),
        size=all(said.size in (None, seen.size) for said, seen in pairs),
        relation=all(relation_between(objects[i], objects[j]) == relation for i, relation, j in claim.relations),
        background=background,
    )
