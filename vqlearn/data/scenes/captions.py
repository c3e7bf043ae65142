"""Captions: what they say of a scene, and the grammar in which they say it."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from vqlearn.data.scenes.world import BACKGROUNDS, COLORS, RELATIONS, SHAPES, SIDES

OPENINGS = ("", "", "a picture of ", "an image of ")
_WORDS = [*SIDES, *COLORS, *SHAPES, *BACKGROUNDS, *OPENINGS, *itertools.chain(*RELATIONS.values())]
VOCABULARY = frozenset(" ".join([*_WORDS, "a an and on background"]).split())
_NOUN = rf"an? (?:({'|'.join(SIDES)}) )?(?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)})"
_LINK = "|".join(sorted(itertools.chain(*RELATIONS.values()), key=len, reverse=True))


@dataclass(frozen=True)
class Mention:
    """An object as a caption names it; None where the caption does not say."""

    size: str | None
    color: str | None
    shape: str


@dataclass(frozen=True)
class Claim:
    """What a caption says: objects, relations as (i, relation, j), and the background or None."""

    objects: tuple[Mention, ...]
    relations: tuple[tuple[int, str, int], ...]
    background: str | None


def parse(caption: str) -> Claim:
    """Read a caption of the toy grammar, in which every relation is one of the first object to a later one.

    Raises ValueError with the part that is not understood.
    """
    rest = " ".join(caption.lower().replace(",", " , ").split()).rstrip(" .")
    rest = re.sub(rf"^(?:{'|'.join(filter(None, OPENINGS))})", "", rest)
    background = None
    if match := re.search(rf" on an? ({'|'.join(BACKGROUNDS)}) background$", rest):
        background, rest = match[1], rest[: match.start()]
    objects: list[Mention] = []
    relations: list[tuple[int, str, int]] = []
    joint = ""
    while True:
        match = re.match(_NOUN + r"(?= |$)", rest)
        if not match:
            raise ValueError(
                f"not a caption of the toy world at {rest!r}: expected something like 'a small red circle'"
            )
        objects.append(Mention(match[1], match[2], match[3]))
        if joint in (name := {phrase: rel for rel, phrases in RELATIONS.items() for phrase in phrases}):
            relations.append((0, name[joint], len(objects) - 1))
        rest = rest[match.end() :].lstrip()
        if not rest:
            return Claim(tuple(objects), tuple(relations), background)
        match = re.match(rf"{'and ' if relations else ''}({_LINK}) |(, and|,|and) ", rest)
        if not match or len(objects) == 3 or (match[1] and len(relations) < len(objects) - 1):
            raise ValueError(f"not a caption of the toy world at {rest!r}: expected a relation, 'and', or the end")
        joint = match[1] or ""
        rest = rest[match.end() :]
