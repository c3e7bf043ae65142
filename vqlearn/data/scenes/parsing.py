"""The scene parser: a scene recovered from pixels alone, and compared with a caption."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from vqlearn.data.scenes.captions import Claim, parse
from vqlearn.data.scenes.drawing import draw, sprite
from vqlearn.data.scenes.world import BACKGROUNDS, COLORS, SHAPES, SIDES, SIZE, Scene, Thing, relation_between


def read(image) -> Scene:
    """Recover the scene from pixels: a PIL image, uint8 `[32, 32, 3]`, or a float tensor `[3, 32, 32]` in [-1, 1].

    A blob of eight or more pixels is a thing. Its colour or shape is "unknown" when no colour explains its
    pixels (root mean square error over 0.16 of full scale), no sprite covers it (overlap under 0.7), or the
    thing, drawn anew, differs from the picture at more than a twelfth of its box. Eight or more differing pixels
    elsewhere are one more unknown thing, and a ground that is off its colour is an "unknown" background.
    Raises ValueError for what is no picture of this size.
    """
    pixels = _to_pixels(image)
    names, values = list(BACKGROUNDS), np.array(list(BACKGROUNDS.values())) / 255
    distance = np.linalg.norm(pixels[:, :, None] - values, axis=-1)  # [H, W, backgrounds]
    background = names[int((distance < 0.25).sum((0, 1)).argmax())]
    ground = values[names.index(background)]
    ink = np.linalg.norm(pixels - ground, axis=-1) > 0.3
    things = [_read_thing(pixels, ground, blob) for blob in _blobs(ink) if blob.sum() >= 8]
    things = _drawn_anew(pixels, background, things)
    if (distance[..., names.index(background)] < 0.15).sum() < 0.9 * (~ink).sum():
        background = "unknown"
    return Scene(background, tuple(sorted(things, key=lambda thing: (thing.row, thing.col))))


def _drawn_anew(pixels: np.ndarray, background: str, things: list[Thing]) -> list[Thing]:
    """The things, "unknown" where drawing one does not give the picture, and one more for ink that belongs to none."""
    named = [thing for thing in things if "unknown" not in (thing.color, thing.shape)]
    wrong = np.linalg.norm(pixels - draw(Scene(background, tuple(named))) / 255, axis=-1) > 0.33
    checked = []
    for thing in things:
        side = SIDES[thing.size]
        box = wrong[max(0, thing.row - 1) : thing.row + side + 1, max(0, thing.col - 1) : thing.col + side + 1]
        checked.append(thing if box.sum() <= side * side / 12 else replace(thing, shape="unknown"))
        box[:] = False
    if wrong.sum() >= 8:
        row, col = (int(where[0]) for where in np.nonzero(wrong))
        checked.append(Thing("small", "unknown", "unknown", row, col))
    return checked


def _to_pixels(image) -> np.ndarray:
    """Any accepted picture as float64 `[32, 32, 3]` in [0, 1]."""
    tensor = hasattr(image, "detach")
    pixels = np.asarray(image.detach().cpu().double() if tensor else image)
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
            grown = np.pad(blob, 1)
            grown = (grown[1:-1, 1:-1] | grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]) & left
            if (grown == blob).all():
                break
            blob = grown
        blobs.append(blob)
        left &= ~blob
    return blobs


def _read_thing(pixels: np.ndarray, ground: np.ndarray, blob: np.ndarray) -> Thing:
    near = np.pad(blob, 1)
    near = np.max([near[1 + i : SIZE + 1 + i, 1 + j : SIZE + 1 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
    color, cover, error = _read_color(pixels, ground, near)
    size, shape, row, col, overlap = _read_shape(cover)
    return Thing(size, color if error <= 0.16 else "unknown", shape if overlap >= 0.7 else "unknown", row, col)


def _read_color(pixels: np.ndarray, ground: np.ndarray, near: np.ndarray) -> tuple[str, np.ndarray, float]:
    """The colour whose blends with the background explain the pixels best, the blend, and the error left."""
    best = ("unknown", np.zeros(near.shape), np.inf)
    for name, value in COLORS.items():
        ray = np.array(value) / 255 - ground
        cover = ((pixels - ground) @ ray / (ray @ ray)).clip(0, 1) * near
        miss = ((pixels - ground - cover[..., None] * ray) ** 2).mean(-1)
        error = float(np.sqrt((miss * near).sum() / max(near.sum(), 1)))
        if error < best[2]:
            best = (name, cover, error)
    return best


def _read_shape(cover: np.ndarray) -> tuple[str, str, int, int, float]:
    """The sprite and place with the largest overlap (sum of minima over sum of maxima)."""
    inked = np.nonzero(cover > 0.4)
    middle = [(where.min() + where.max() + 1) / 2 if len(where) else 0.0 for where in inked]
    best: tuple[str, str, int, int, float] = ("small", "unknown", 0, 0, -1.0)
    total = cover.sum()
    for size, side in SIDES.items():
        rows, cols = (_near(m - side / 2, SIZE - side) for m in middle)
        for shape, row, col in itertools.product(SHAPES, rows, cols):
            mask = sprite(shape, size)
            common = np.minimum(cover[row : row + side, col : col + side], mask).sum()
            overlap = common / (total + mask.sum() - common)
            if overlap > best[4]:
                best = (size, shape, row, col, float(overlap))
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


def agreement(image, caption: str | Claim) -> Agreement:
    """Read a picture and compare it with a caption, attribute by attribute, under the kindest pairing of things."""
    claim = parse(caption) if isinstance(caption, str) else caption
    scene = image if isinstance(image, Scene) else read(image)
    ground = claim.background in (None, scene.background)
    wanted = len(claim.things)
    if len(scene.things) < wanted:
        return Agreement(False, False, False, False, not claim.relations, ground)
    count = len(scene.things) == wanted
    return max(
        (_compare(claim, things, count, ground) for things in itertools.permutations(scene.things[:6], wanted)),
        key=lambda found: sum(vars(found).values()),
    )


def _compare(claim: Claim, things: tuple[Thing, ...], count: bool, ground: bool) -> Agreement:
    pairs = list(zip(claim.things, things, strict=True))
    return Agreement(
        count=count,
        shape=all(said.shape == seen.shape for said, seen in pairs),
        color=all(said.color in (None, seen.color) for said, seen in pairs),
        size=all(said.size in (None, seen.size) for said, seen in pairs),
        relation=all(relation_between(things[i], things[j]) == relation for i, relation, j in claim.relations),
        background=ground,
    )
