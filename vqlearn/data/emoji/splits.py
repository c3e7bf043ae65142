"""The pictures and captions of each split: drawn by their number, whole combinations held out."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterable
from numbers import Integral

import numpy as np

from vqlearn.arguments import shown, whole
from vqlearn.data.emoji.captions import any_caption, pick, whole_caption
from vqlearn.data.emoji.drawing import draw
from vqlearn.data.emoji.sheet import Emoji, catalogue
from vqlearn.data.emoji.world import BACKGROUNDS, SIDES, Arrangement, Placed

SPLITS = ("train", "test", "unseen")
TEST_SHARE = 8  # one combination of emoji and background in eight is held out
UNSEEN_SHARE = 16  # and one emoji in sixteen


def sample(
    split: str, index: int, *, side: int = 32, categories: Iterable[str] | None = None
) -> tuple[np.ndarray, str]:
    """Picture, uint8 `[side, side, 3]`, and caption number `index` of a split, the same on every machine.

    "unseen" has emoji that are in neither of the other splits. Of the others "test" has the combinations with a
    background that "train" never shows, and its captions say all of them; those of "train" may leave the background
    unsaid or give keywords. `side` is 32, with one emoji, or 64, with one or two. `categories` are those to choose from
    (`EVERYDAY`, say). Raises ValueError for another split, side or category and for a negative index.
    """
    arrangement, caption = arranged(split, index, side=side, categories=categories)
    return draw(arrangement), caption


def arranged(
    split: str, index: int, *, side: int = 32, categories: Iterable[str] | None = None
) -> tuple[Arrangement, str]:
    """What `sample` draws, and its caption."""
    choice = pool(split, categories)
    if not isinstance(side, Integral) or side not in SIDES:
        raise ValueError(f"side must be 32 or 64, got {shown(side)}")
    index = whole("index", index, 0)
    rng = random.Random(f"emoji {split} {index}")
    arrangement = _arrangement(split, choice, side, rng)
    return arrangement, (any_caption if split == "train" else whole_caption)(arrangement, rng)


def _arrangement(split: str, choice: tuple[Emoji, ...], side: int, rng: random.Random) -> Arrangement:
    """Emoji whose combinations with the background are those of the split, in cells of their own."""
    count = 1 + (side == 64 and rng.random() < 0.5)
    cells = [(row, col) for row in range(side // 32) for col in range(side // 32)]
    while True:
        background = pick(rng, tuple(BACKGROUNDS))
        chosen = [pick(rng, choice) for _ in range(count)]
        places = [pick(rng, cells) for _ in range(count)]
        alone = len(set(places)) == count == len({emoji.looks_like for emoji in chosen})
        if alone and (split == "unseen" or all(held_out(one, background) == (split == "test") for one in chosen)):
            found = [Placed(emoji, *place) for emoji, place in zip(chosen, places, strict=True)]
            return Arrangement(background, tuple(sorted(found, key=lambda one: (one.row, one.col))), side)


def pool(split: str, categories: Iterable[str] | None = None) -> tuple[Emoji, ...]:
    """The emoji of a split, of some categories or of all; raises ValueError for another split or category, and where
    there is none."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {shown(split)}")
    known = _categories()
    given = known if categories is None else ()
    if isinstance(categories, Iterable) and not isinstance(categories, str):
        given = tuple(categories)
    if not given or any(one not in known for one in given):
        raise ValueError(f"categories must be some of {', '.join(known)}, got {shown(given or categories)}")
    if not (found := _pool(split, frozenset(given))):
        raise ValueError(f"no emoji of the categories {', '.join(given)} is in {split!r}; choose more of them")
    return found


@functools.cache
def _categories() -> tuple[str, ...]:
    return tuple(sorted({emoji.category for emoji in catalogue()}))


@functools.cache
def _pool(split: str, categories: frozenset[str]) -> tuple[Emoji, ...]:
    some = (emoji for emoji in catalogue() if emoji.category in categories)
    return tuple(emoji for emoji in some if is_unseen(emoji) == (split == "unseen"))


def is_unseen(emoji: Emoji) -> bool:
    """Whether an emoji, and whatever looks like it, is only in the split "unseen"."""
    return _hash(catalogue()[emoji.looks_like].name) % UNSEEN_SHARE == 0


def held_out(emoji: Emoji, background: str) -> bool:
    """Whether a combination is kept out of training."""
    return _hash(f"{catalogue()[emoji.looks_like].name}, {background}") % TEST_SHARE == 0


def _hash(text: str) -> int:
    return hashlib.sha256(text.encode()).digest()[0]
