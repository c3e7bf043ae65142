"""The scenes and captions of each split: drawn by their number, whole combinations held out."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vqlearn.data.scenes.captions import OPENINGS, Claim, Mention, parse
from vqlearn.data.scenes.world import (
    BACKGROUNDS,
    COLORS,
    COUNTS,
    GRID,
    INVERSE,
    RELATIONS,
    SHAPES,
    SIDES,
    Scene,
    SceneObject,
    apart,
    positions_per_side,
    relation_between,
)

SPLITS = ("train", "test", "unseen")
UNSEEN_PAIRS = frozenset({("green", "star"), ("purple", "circle"), ("orange", "square"), ("cyan", "triangle")})
SAID = {"size": 0.85, "color": 0.9, "relation": 0.8, "background": 0.35}  # how often a caption says what it could say
TEST_SHARE = 8  # one pair in eight is held out
OF_AN_OBJECT = tuple(SIDES), tuple(COLORS), tuple(SHAPES)
MOST = {size: positions_per_side(size) for size in SIDES}


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
        if any((one.color, one.shape) in UNSEEN_PAIRS for one in scene.objects) != (split == "unseen"):
            continue
        if split != "unseen" and count > 1 and held_out(scene) != (split == "test"):
            continue
        caption = _random_caption(scene, rng)
        claim = parse(caption)
        if split == "unseen":
            if any((one.color, one.shape) in UNSEEN_PAIRS for one in claim.objects):
                return scene, caption
        elif count == 1 or held_out(claim) == (split == "test"):
            return scene, caption


def held_out(what: Scene | Claim) -> bool:
    """Whether a pair of the scene, fully described, or a pair that the claim states, is kept out of training."""
    if isinstance(what, Scene):
        links = {(i, j): relation_between(what.objects[i], what.objects[j]) for i, j in _pairs(what)}
    else:
        links = {(i, j): name for i, name, j in what.relations}
    return any(held_out_pair(what.objects[i], links.get((i, j)), what.objects[j]) for i, j in _pairs(what))


def held_out_pair(a: SceneObject | Mention, relation: str | None, b: SceneObject | Mention) -> bool:
    """Whether a pair is held out: the same for "a left of b" and "b right of a"; None where there is no relation."""
    first, second = (" ".join(filter(None, (each.size, each.color, each.shape))) for each in (a, b))
    if relation in INVERSE or (relation is None and first > second):
        relation, first, second = INVERSE.get(relation or ""), second, first
    return hashlib.sha256(f"{first}, {relation or 'and'}, {second}".encode()).digest()[0] % TEST_SHARE == 0


def _pairs(what: Scene | Claim) -> Iterable[tuple[int, int]]:
    return itertools.combinations(range(len(what.objects)), 2)


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
    uniform = rng.random
    while True:
        objects: list[SceneObject] = []
        for _ in range(count):
            size, color, shape = [words[int(uniform() * len(words))] for words in OF_AN_OBJECT]  # as `_pick` does
            most = MOST[size]
            objects.append(SceneObject(size, color, shape, GRID * int(uniform() * most), GRID * int(uniform() * most)))
        kinds = {(one.size, one.color, one.shape) for one in objects}
        if len(kinds) == count and all(apart(a, b) for a, b in itertools.combinations(objects, 2)):
            return Scene(background, tuple(objects))


def _random_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that is true of the scene; it may leave sizes, colours, relations and the background unsaid."""
    nouns = []
    for one in scene.objects:
        size = f"{one.size} " if rng.random() < SAID["size"] else ""
        color = f"{one.color} " if rng.random() < SAID["color"] else ""
        nouns.append(_article(f"{size}{color}{one.shape}"))
    links = [relation_between(scene.objects[0], other) for other in scene.objects[1:]]
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
