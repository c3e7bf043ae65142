"""Makes the emoji sheet and its texts in `vqlearn/assets` from the sources that `vqlearn/assets/README.md` names.

`python -m tests.emoji_assets SOURCE`, a folder with `emoji_64.webp` (64 pixels each, 48 in a row) and `emoji.json`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vqlearn import assets
from vqlearn.data.emoji.sheet import COLUMNS, SPRITE

SOURCE_SIDE, SOURCE_COLUMNS = 64, 48
ALIKE = 0.03  # root mean square difference, of full scale, under which two pictures are taken for one
KEYWORD = re.compile(r"[^\W_][\w'’.&-]*( [^\W_][\w'’.&-]*){0,2}")  # one to three words
RENAMED = {"\U0001f935": "person in tuxedo"}  # named as the man is


def main(source: Path) -> None:
    """Write both files."""
    entries = json.loads((source / "emoji.json").read_text(encoding="utf-8"))
    sheet = np.asarray(Image.open(source / "emoji_64.webp").convert("RGBA"))
    sprites = np.stack([shrunk(_cell(sheet, number)) for number in range(len(entries))])
    texts = [text(entry) for entry in entries]
    for number, other in enumerate(look_alikes(sprites)):
        texts[number]["looks_like"] = texts[other]["name"]
    lines = ",\n".join(json.dumps(text, ensure_ascii=False) for text in texts)
    (assets.FOLDER / "emoji.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")
    rows = -(-len(sprites) // COLUMNS)
    laid = np.zeros((rows * COLUMNS, SPRITE, SPRITE, 4), np.uint8)
    laid[: len(sprites)] = sprites
    laid = laid.reshape(rows, COLUMNS, SPRITE, SPRITE, 4).transpose(0, 2, 1, 3, 4)
    picture = Image.fromarray(laid.reshape(rows * SPRITE, COLUMNS * SPRITE, 4))
    picture.save(assets.FOLDER / "emoji.webp", lossless=True, quality=100, method=6)


def _cell(sheet: np.ndarray, number: int) -> np.ndarray:
    row, col = (SOURCE_SIDE * at for at in divmod(number, SOURCE_COLUMNS))
    return sheet[row : row + SOURCE_SIDE, col : col + SOURCE_SIDE]


def shrunk(picture: np.ndarray) -> np.ndarray:
    """A picture `[H, W, 4]` in the sprites' size; colours weigh by their coverage, so no edge darkens."""
    alpha = picture[..., 3:] / np.float32(255)
    planes = np.concatenate([picture[..., :3] * alpha, picture[..., 3:]], axis=-1).astype(np.float32)
    size = (SPRITE, SPRITE)
    small = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS)) for plane in planes.T]
    found = np.stack([plane.T for plane in small], axis=-1)
    cover = found[..., 3:].clip(0, 255)
    colours = found[..., :3] * 255 / cover.clip(1)
    out: np.ndarray = np.concatenate([colours.clip(0, 255), cover], axis=-1).round().astype(np.uint8)
    out[out[..., 3] == 0] = 0
    return out


def text(entry: dict[str, Any]) -> dict[str, Any]:
    """What the package keeps of an entry: plain names and up to eight keywords of one to three words."""
    name = RENAMED.get(entry["char"], entry["name"]).replace("\xa0", " ")
    words = dict.fromkeys(word.replace("\xa0", " ").lower().strip() for word in entry["keywords"])
    keywords = [word for word in words if word != name and KEYWORD.fullmatch(word)]
    return {"name": name, "char": entry["char"], "category": entry["category"], "keywords": keywords[:8]}


def look_alikes(sprites: np.ndarray) -> list[int]:
    """For each picture the first one that it is equal to or nearly so, over black and over white; itself for most."""
    colours, alpha = sprites[..., :3] / np.float32(255), sprites[..., 3:] / np.float32(255)
    seen = np.concatenate([(colours * alpha + (1 - alpha) * behind).reshape(len(sprites), -1) for behind in (0, 1)], 1)
    squares = (seen**2).sum(1)
    distance = (squares[:, None] + squares - 2 * seen @ seen.T).clip(0) / seen.shape[1]
    first = list(range(len(sprites)))
    for one, other in np.argwhere(np.triu(distance < ALIKE**2, 1)):
        first[other] = min(first[other], first[one])
    return first


if __name__ == "__main__":
    main(Path(sys.argv[1]))
