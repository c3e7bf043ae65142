"""The emoji of the package: pictures with transparency, names, categories and keywords."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vqlearn import assets

SPRITE = 28  # pixels of an emoji along one side
COLUMNS = 48  # emoji in a row of the sheet
EVERYDAY = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects", "Activities")  # 857 of the 1 911


@dataclass(frozen=True)
class Emoji:
    """One emoji; `looks_like` is the number of the first whose picture equals its own or nearly so."""

    number: int
    name: str
    char: str
    category: str
    keywords: tuple[str, ...]
    looks_like: int

    def __str__(self) -> str:
        return self.name


@functools.cache
def catalogue() -> tuple[Emoji, ...]:
    """All emoji, in the order of the sheet."""
    entries = json.loads((assets.FOLDER / "emoji.json").read_text(encoding="utf-8"))
    numbers = {entry["name"]: number for number, entry in enumerate(entries)}
    return tuple(
        Emoji(number, entry["name"], entry["char"], entry["category"], tuple(entry["keywords"]),
              numbers[entry["looks_like"]])
        for number, entry in enumerate(entries)
    )  # fmt: skip


@functools.cache
def by_name() -> dict[str, Emoji]:
    """Every emoji by its name."""
    return {emoji.name: emoji for emoji in catalogue()}


@functools.cache
def sprites() -> np.ndarray:
    """The pictures, uint8 `[N, 28, 28, 4]`: red, green, blue and coverage. Read-only."""
    with Image.open(assets.FOLDER / "emoji.webp") as sheet:
        pixels = np.asarray(sheet.convert("RGBA"))
    rows = pixels.shape[0] // SPRITE
    cells = pixels.reshape(rows, SPRITE, COLUMNS, SPRITE, 4).transpose(0, 2, 1, 3, 4)
    found: np.ndarray = cells.reshape(-1, SPRITE, SPRITE, 4)[: len(catalogue())].copy()
    found.setflags(write=False)
    return found
