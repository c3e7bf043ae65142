"""What a picture of emoji is made of: a plain background and one emoji, or two side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

from vqlearn.data.emoji.sheet import Emoji

CELL = 32  # pixels; a picture of 32 is one cell, one of 64 has two rows of two
MARGIN = 2  # pixels of background around an emoji in its cell
SIDES = (32, 64)
BACKGROUNDS = {
    "white": (255, 255, 255), "grey": (150, 150, 155), "black": (25, 25, 30), "pink": (255, 170, 200),
    "yellow": (255, 225, 110), "green": (125, 205, 135), "blue": (125, 175, 245),
}  # fmt: skip
RELATIONS = {(0, 1): "left of", (0, -1): "right of", (1, 0): "above", (-1, 0): "below"}  # (rows, columns) to the other


@dataclass(frozen=True)
class Placed:
    """An emoji in the cell at a row and column of cells; `error` is how far a picture is from it, see `read`."""

    emoji: Emoji
    row: int = 0
    col: int = 0
    error: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Arrangement:
    """A picture in words: the background and what is on it, row by row.

    >>> from vqlearn.data import emoji
    >>> print(emoji.Arrangement("pink", (emoji.Placed(emoji.by_name()["pear"]),)))
    pear on a pink background
    """

    background: str
    emoji: tuple[Placed, ...]
    side: int = 32

    def __str__(self) -> str:
        names = " and ".join(str(one.emoji) for one in self.emoji)
        return f"{names or 'nothing'} on a {self.background} background"


def relation_between(one: Placed, other: Placed) -> str | None:
    """How the first stands to the second: one of `RELATIONS`, or None where they are in no common row or column."""
    return RELATIONS.get((other.row - one.row, other.col - one.col))
