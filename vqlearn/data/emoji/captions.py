"""Captions of emoji: what they mean, and the forms in which they say it."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vqlearn.arguments import shown
from vqlearn.data.emoji.sheet import Emoji, by_name, catalogue
from vqlearn.data.emoji.world import BACKGROUNDS, RELATIONS, Arrangement, relation_between

OPENINGS = ("", "", "", "a picture of ", "an emoji of ")
SAID = {"article": 0.7, "background": 0.6, "keywords": 0.2, "relation": 0.8}  # how often a caption has each of them
_BACKGROUND = re.compile(rf"(?: on an?|,) ({'|'.join(BACKGROUNDS)}) background$")
_OPENING = re.compile("^(?:an? (?:picture|image|emoji) of )?")
_RELATION = re.compile(rf" ({'|'.join(RELATIONS.values())}|and)(?= )")


@dataclass(frozen=True)
class Claim:
    """What a caption says: for each emoji the numbers that it may have, the relation of the first to the second, and
    the background; None where the caption does not say."""

    emoji: tuple[frozenset[int], ...]
    relation: str | None
    background: str | None


def parse(caption: str) -> Claim:
    """The meaning of a caption: a name, two of them with a relation, or keywords; on a background or not.

    Keywords, separated by commas, mean every emoji that has them all as a keyword or name. Raises ValueError for a
    caption with which no emoji agrees, TypeError for what is no string.
    """
    if not isinstance(caption, str):
        raise TypeError(f"caption must be a string, got {shown(caption)}")
    rest = " ".join(caption.lower().split()).rstrip(" .")
    background = None
    if match := _BACKGROUND.search(rest):
        background, rest = match[1], rest[: match.start()]
    rest = _OPENING.sub("", rest)
    if found := _named(rest):
        return Claim((found,), None, background)
    for match in _RELATION.finditer(rest):
        first, second = _named(rest[: match.start()]), _named(rest[match.end() + 1 :])
        if first and second:
            return Claim((first, second), None if match[1] == "and" else match[1], background)
    having = [_having().get(word.strip(), frozenset()) for word in rest.split(",")]
    if not (found := frozenset.intersection(*having)):
        raise ValueError(
            f"no emoji agrees with {shown(caption)}: expected something like 'a pear on a pink background'"
        )
    return Claim((found,), None, background)


def _named(phrase: str) -> frozenset[int]:
    """The pictures that a name with or without an article means: those that look like the emoji of this name."""
    for name in (phrase, re.sub("^an? ", "", phrase)):
        if name in by_name():
            return frozenset({by_name()[name].looks_like})
    return frozenset()


@functools.cache
def _having() -> dict[str, frozenset[int]]:
    """The pictures with each keyword."""
    found: dict[str, set[int]] = {}
    for emoji in catalogue():
        for word in (emoji.name, *emoji.keywords):
            found.setdefault(word, set()).add(emoji.looks_like)
    return {word: frozenset(numbers) for word, numbers in found.items()}


def whole_caption(arrangement: Arrangement, rng: random.Random) -> str:
    """A caption that says all: names, relation and background."""
    return _sentence(arrangement, rng, says_background=True, says_relation=True)


def any_caption(arrangement: Arrangement, rng: random.Random) -> str:
    """A caption that is true of an arrangement: a sentence or keywords; it may leave background and relation unsaid."""
    says_background = rng.random() < SAID["background"]
    if len(arrangement.emoji) == 1 and rng.random() < SAID["keywords"]:
        words = _keywords(arrangement.emoji[0].emoji, rng)
        return ", ".join([*words, f"{arrangement.background} background"] if says_background else words)
    says_relation = rng.random() < SAID["relation"]
    return _sentence(arrangement, rng, says_background=says_background, says_relation=says_relation)


def _sentence(arrangement: Arrangement, rng: random.Random, *, says_background: bool, says_relation: bool) -> str:
    opening, with_article = pick(rng, OPENINGS), rng.random() < SAID["article"]
    said = arrangement.emoji
    if len(said) == 2 and rng.random() < 0.5:
        said = said[::-1]
    names = [one.emoji.name for one in said]
    link = relation_between(*said) if len(said) == 2 and says_relation else None
    words = f" {link or 'and'} ".join(_article(name) if with_article else name for name in names)
    return f"{opening}{words} on a {arrangement.background} background" if says_background else opening + words


def _article(name: str) -> str:
    """A name with its article; a plural has none, and a word in s is taken for one."""
    if name.endswith("s"):
        return name
    return ("an " if name[0] in "aeiou" else "a ") + name


def _keywords(emoji: Emoji, rng: random.Random) -> list[str]:
    """Two or three keywords in some order, or as many as there are; the name where there is only one or none."""
    if len(emoji.keywords) < 2:
        return [emoji.name]
    words = sorted(emoji.keywords, key=lambda _: rng.random())
    return words[: 2 + (rng.random() < 0.5)]


def pick(rng: random.Random, values: Sequence[Any]) -> Any:
    """One of the values, from one uniform number (which every Python draws alike)."""
    return values[int(rng.random() * len(values))]
