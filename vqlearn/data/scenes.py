"""The offline toy world: small captioned scenes that a program draws and reads back.

A scene holds one to three things on a plain background. Things sit on a grid of four pixels, the
size of the patch that one token of the shipped codec describes, and keep one patch of distance.
`draw` renders a scene with anti-aliased edges, `read` recovers it from pixels alone, and
`agreement` compares a picture with a caption, so text-image agreement is measured, not guessed.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

SIZE = 32  # pixels per side
GRID = 4  # things start at multiples of this many pixels
SIDES = {"small": 8, "large": 12}
SHAPES = ("circle", "square", "triangle", "star", "cross")
COLORS = {
    "red": (222, 38, 38),
    "green": (34, 160, 60),
    "blue": (38, 74, 222),
    "yellow": (248, 220, 40),
    "orange": (246, 132, 20),
    "purple": (140, 44, 180),
    "cyan": (40, 200, 222),
    "pink": (250, 140, 196),
}
BACKGROUNDS = {"white": (244, 244, 244), "gray": (128, 128, 128), "black": (18, 18, 18)}
RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
OPENINGS = ("", "", "a picture of ", "an image of ")
SPLITS = ("train", "test", "unseen")
UNSEEN_PAIRS = frozenset({("green", "star"), ("purple", "circle"), ("orange", "square"), ("cyan", "triangle")})
INVERSE = {"right of": "left of", "below": "above"}
COUNTS = {1: 0.35, 2: 0.45, 3: 0.2}  # of scenes, by the number of their objects
SAID = {"size": 0.85, "color": 0.9, "relation": 0.8, "background": 0.35}  # how often a caption says what it could say
TEST_SHARE = 8  # one pair in eight is held out


@dataclass(frozen=True, order=True)
class Thing:
    """One object; `row` and `col` are its top-left pixel. `read` calls a shape or colour it cannot name "unknown"."""

    size: str
    color: str
    shape: str
    row: int
    col: int

    @property
    def center(self) -> tuple[float, float]:
        half = SIDES[self.size] / 2
        return self.row + half, self.col + half


@dataclass(frozen=True)
class Scene:
    """A background and one to three things (zero to many when it was read from a picture)."""

    background: str
    things: tuple[Thing, ...]

    def __str__(self) -> str:
        if not self.things:
            return f"nothing on a {self.background} background"
        words = [f"a {thing.size} {thing.color} {thing.shape}" for thing in self.things]
        text = ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
        if len(self.things) == 2 and (relation := relation_between(*self.things)):
            text = f"{words[0]} {relation} {words[1]}"
        return f"{text} on a {self.background} background"


def relation_between(a: Thing, b: Thing) -> str | None:
    """Which of the four relations a has to b: the axis of the larger distance decides, a tie is no relation."""
    d_row, d_col = b.center[0] - a.center[0], b.center[1] - a.center[1]
    if abs(d_row) == abs(d_col):
        return None
    if abs(d_col) > abs(d_row):
        return "left of" if d_col > 0 else "right of"
    return "above" if d_row > 0 else "below"


# ------------------------------------------------------------------------------------------ drawing


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
    return inside.reshape(side, samples, side, samples).mean((1, 3))


def _star_edge(angle: np.ndarray, inner: float = 0.42) -> np.ndarray:
    """Distance from the centre to the edge of a five-pointed star with a tip at angle 0."""
    turn = 2 * np.pi / 5
    fold = np.abs((angle + turn / 2) % turn - turn / 2)  # 0 at a tip, turn / 2 at a notch
    tip, notch = np.array([1.0, 0.0]), inner * np.array([np.cos(turn / 2), np.sin(turn / 2)])
    edge = notch - tip
    cross = tip[0] * edge[1] - tip[1] * edge[0]
    return cross / (np.cos(fold) * edge[1] - np.sin(fold) * edge[0])


def draw(scene: Scene) -> np.ndarray:
    """Render a scene as uint8 RGB, `[32, 32, 3]`, with anti-aliased edges."""
    image = np.empty((SIZE, SIZE, 3))
    image[:] = BACKGROUNDS[scene.background]
    for thing in scene.things:
        cover = sprite(thing.shape, thing.size)[..., None]
        box = image[thing.row : thing.row + len(cover), thing.col : thing.col + len(cover)]
        box += cover * (np.array(COLORS[thing.color]) - box)
    return image.round().astype(np.uint8)


def to_tensor(pictures: Iterable[np.ndarray]) -> torch.Tensor:
    """uint8 pictures `[H, W, 3]` to a float tensor `[B, 3, H, W]` in [-1, 1], as a codec takes it."""
    return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2).float() / 127.5 - 1


# ------------------------------------------------------------------------------------------ sampling


def sample(split: str, index: int) -> tuple[Scene, str]:
    """The scene and caption number `index` of a split ("train", "test" or "unseen"), the same on every machine.

    Whole combinations are held out. A *pair* is what is said of two objects and of their relation; one pair in
    `TEST_SHARE` is held out (`held_out`). A scene is held out if one of its fully described pairs is, a caption if one
    of the pairs that it states is. "train" has neither, and "test" has both wherever there are several objects. So
    neither a scene nor the meaning of a caption of several objects is in both splits, however they are ordered.
    One object alone has no pair: it is in both splits, and measures recall and not generalisation.
    "unseen" scenes and captions hold a colour-shape pair of `UNSEEN_PAIRS`; the other two splits hold none.
    Raises ValueError for another split name or a negative index.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if index < 0:
        raise ValueError(f"index must be 0 or more, got {index}")
    rng = random.Random(f"{split} {index}")
    count = _pick(rng, COUNTS)  # before anything is rejected, so that its shares are those of COUNTS in every split
    while True:
        scene = _random_scene(count, rng)
        if any((thing.color, thing.shape) in UNSEEN_PAIRS for thing in scene.things) != (split == "unseen"):
            continue
        if split != "unseen" and count > 1 and held_out(scene) != (split == "test"):
            continue
        caption = _random_caption(scene, rng)
        claim = parse(caption)
        if split == "unseen":
            if any((thing.color, thing.shape) in UNSEEN_PAIRS for thing in claim.things):
                return scene, caption
        elif count == 1 or held_out(claim) == (split == "test"):
            return scene, caption


def held_out(what: Scene | Claim) -> bool:
    """Whether a pair of the scene, fully described, or a pair that the claim states, is kept out of training."""
    if isinstance(what, Scene):
        links = {(i, j): relation_between(what.things[i], what.things[j]) for i, j in _pairs(what)}
    else:
        links = {(i, j): name for i, name, j in what.relations}
    return any(held_out_pair(what.things[i], links.get((i, j)), what.things[j]) for i, j in _pairs(what))


def held_out_pair(a: Thing | Mention, relation: str | None, b: Thing | Mention) -> bool:
    """Whether a pair is held out: the same for "a left of b" and "b right of a"; None where there is no relation."""
    first, second = (" ".join(filter(None, (each.size, each.color, each.shape))) for each in (a, b))
    if relation in INVERSE or (relation is None and first > second):
        relation, first, second = INVERSE.get(relation or ""), second, first
    return hashlib.sha256(f"{first}, {relation or 'and'}, {second}".encode()).digest()[0] % TEST_SHARE == 0


def _pairs(what: Scene | Claim) -> Iterable[tuple[int, int]]:
    return itertools.combinations(range(len(what.things)), 2)


def _pick(rng: random.Random, words: Mapping[Any, float] | Sequence[Any]) -> Any:
    """One of the words, alike or by their shares, from one uniform number (which every Python draws alike)."""
    u = rng.random()
    if not isinstance(words, Mapping):
        return words[int(u * len(words))]
    for word, share in words.items():
        if (u := u - share) < 0:
            return word
    return word


def _random_scene(count: int, rng: random.Random) -> Scene:
    background = _pick(rng, tuple(BACKGROUNDS))
    while True:
        things: list[Thing] = []
        for _ in range(count):
            size, color, shape = (_pick(rng, tuple(words)) for words in (SIDES, COLORS, SHAPES))
            row, col = (GRID * int(rng.random() * places_per_side(size)) for _ in range(2))
            things.append(Thing(size, color, shape, row, col))
        kinds = {(thing.size, thing.color, thing.shape) for thing in things}
        if len(kinds) == count and all(apart(a, b) for a, b in itertools.combinations(things, 2)):
            return Scene(background, tuple(things))


def places_per_side(size: str) -> int:
    """How many rows (and columns) an object of this size can start at."""
    return (SIZE - SIDES[size]) // GRID + 1


def apart(a: Thing, b: Thing) -> bool:
    """Whether at least one patch of background lies between two things."""
    gap_row = max(a.row - b.row - SIDES[b.size], b.row - a.row - SIDES[a.size])
    gap_col = max(a.col - b.col - SIDES[b.size], b.col - a.col - SIDES[a.size])
    return max(gap_row, gap_col) >= GRID


def _random_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that is true of the scene; it may leave sizes, colours, relations and the background unsaid."""
    nouns = []
    for thing in scene.things:
        size = f"{thing.size} " if rng.random() < SAID["size"] else ""
        color = f"{thing.color} " if rng.random() < SAID["color"] else ""
        nouns.append(_article(f"{size}{color}{thing.shape}"))
    links = [relation_between(scene.things[0], other) for other in scene.things[1:]]
    said = all(links) and rng.random() < SAID["relation"]
    phrases = [_pick(rng, RELATIONS[link]) for link in links if link] if said else []
    if not links:
        text = nouns[0]
    elif not said:
        text = ", ".join(nouns[:-1]) + " and " + nouns[-1]
    else:
        text = f"{nouns[0]} " + " and ".join(f"{link} {noun}" for link, noun in zip(phrases, nouns[1:], strict=True))
    text = _pick(rng, OPENINGS) + text
    return f"{text} on a {scene.background} background" if rng.random() < SAID["background"] else text


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


# ------------------------------------------------------------------------------------------ captions


@dataclass(frozen=True)
class Mention:
    """A thing as a caption names it; None where the caption does not say."""

    size: str | None
    color: str | None
    shape: str


@dataclass(frozen=True)
class Claim:
    """What a caption says: things, relations as (i, relation, j), and the background or None."""

    things: tuple[Mention, ...]
    relations: tuple[tuple[int, str, int], ...]
    background: str | None


_WORDS = [*SIDES, *COLORS, *SHAPES, *BACKGROUNDS, *OPENINGS, *itertools.chain(*RELATIONS.values())]
VOCABULARY = frozenset(" ".join([*_WORDS, "a an and on background"]).split())
_NOUN = rf"an? (?:({'|'.join(SIDES)}) )?(?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)})"
_LINK = "|".join(sorted(itertools.chain(*RELATIONS.values()), key=len, reverse=True))


def parse(caption: str) -> Claim:
    """Read a caption of the toy grammar, in which every relation is one of the first thing to a later one.

    Raises ValueError with the part that is not understood.
    """
    rest = " ".join(caption.lower().replace(",", " , ").split()).rstrip(" .")
    rest = re.sub(rf"^(?:{'|'.join(filter(None, OPENINGS))})", "", rest)
    background = None
    if match := re.search(rf" on an? ({'|'.join(BACKGROUNDS)}) background$", rest):
        background, rest = match[1], rest[: match.start()]
    things: list[Mention] = []
    relations: list[tuple[int, str, int]] = []
    joint = ""
    while True:
        match = re.match(_NOUN + r"(?= |$)", rest)
        if not match:
            raise ValueError(
                f"not a caption of the toy world at {rest!r}: expected something like 'a small red circle'"
            )
        things.append(Mention(match[1], match[2], match[3]))
        if joint in (name := {phrase: rel for rel, phrases in RELATIONS.items() for phrase in phrases}):
            relations.append((0, name[joint], len(things) - 1))
        rest = rest[match.end() :].lstrip()
        if not rest:
            return Claim(tuple(things), tuple(relations), background)
        match = re.match(rf"{'and ' if relations else ''}({_LINK}) |(, and|,|and) ", rest)
        if not match or len(things) == 3 or (match[1] and len(relations) < len(things) - 1):
            raise ValueError(f"not a caption of the toy world at {rest!r}: expected a relation, 'and', or the end")
        joint = match[1] or ""
        rest = rest[match.end() :]


# ------------------------------------------------------------------------------------------ reading


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


# ------------------------------------------------------------------------------------------ agreement


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
