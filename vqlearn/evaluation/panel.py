"""Real pictures beside what the codec makes of them and what a model draws for the same condition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TITLES = ("real", "codec", "drawn")
LARGE, GAP, LINE, COLUMNS = 128, 4, 20, 2  # pixels of a picture at least, between two, of a line of text; examples


def panel(
    real: Sequence[np.ndarray], codec: Sequence[np.ndarray], drawn: Sequence[np.ndarray], said: Sequence[str]
) -> Image.Image:
    """One image of pictures uint8 `[H, W, 3]` in threes, two examples in a row, each below its condition."""
    side = real[0].shape[0]
    size = side * max(1, LARGE // side)
    width, height = 3 * (size + GAP) + 4 * GAP, size + LINE + 3 * GAP
    columns, rows = min(COLUMNS, len(real)), -(-len(real) // COLUMNS)
    found = Image.new("RGB", (columns * width, LINE + rows * height), "white")
    pen, font = ImageDraw.Draw(found), ImageFont.load_default(14)
    for number, three in enumerate(zip(real, codec, drawn, strict=True)):
        x, y = number % columns * width, LINE + number // columns * height
        pen.text((x, y), _cut(said[number], width - 4 * GAP, font), "black", font)
        for place, (title, picture) in enumerate(zip(TITLES, three, strict=True)):
            if number < columns:
                pen.text((x + place * (size + GAP), 0), title, "gray", font)
            image = Image.fromarray(picture).resize((size, size), Image.Resampling.NEAREST)
            found.paste(image, (x + place * (size + GAP), y + LINE))
    return found


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a text as fits into so many pixels."""
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line} ...") > width:
        line = line[:-1]
    return f"{line} ..."
