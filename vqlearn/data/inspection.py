"""A picture's file looked at: its pixels as they are learned from, and what is odd about it."""

from __future__ import annotations

import hashlib
import io
import re
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from vqlearn.data.pictures import TURNS, Color, to_tensor

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # no others are tried, whatever a file is named
MOST_BYTES, MOST_PIXELS = 2**29, 2**26  # of a file, and of a picture: a bomb is refused before it is decoded
MODES = {"P": "palette", "CMYK": "CMYK", "LAB": "CIE L*a*b*", "1": "black and white"}


class Facts(NamedTuple):
    """The SHA-256 of a file's content, what was mended, and why it cannot be used: of what kind that is, and more."""

    digest: str
    mended: Sequence[str] = ()
    problem: str = ""
    reason: str = ""


class Looked(NamedTuple):
    """What there is to say of a file, and its pixels uint8 `[side, side, 3]`, None where it cannot be used."""

    facts: Facts
    pixels: np.ndarray | None = None


def look(path: Path, side: int, background: Color = "white") -> Looked:
    """Read a picture as `data.pictures.to_tensor` does, whatever the file is: it raises nothing but MemoryError."""
    try:
        content = _content(path)
    except OSError as error:
        return Looked(Facts("", problem="unreadable", reason=error.strerror or str(error)))
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return Looked(Facts(digest, problem="empty"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files do not say which; the report does
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return _decoded(image, digest, side, background)
        except MemoryError:
            raise
        except Image.DecompressionBombError as error:  # its own limit, beyond ours
            return _too_large(digest, re.sub(r".*\((\d+ pixels)\).*", r"\1", str(error)))
        except Exception as error:  # Pillow raises many kinds for damaged files
            return Looked(Facts(digest, problem="damaged, or no picture", reason=_reason(error)))


def _content(path: Path) -> bytes:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        raise OSError(0, "no ordinary file")
    if found.st_size > MOST_BYTES:
        raise OSError(0, f"larger than {MOST_BYTES} bytes")
    return path.read_bytes()


def _decoded(image: Image.Image, digest: str, side: int, background: Color) -> Looked:
    if image.width * image.height > MOST_PIXELS:
        return _too_large(digest, f"{image.width} x {image.height}")
    mended = _mended(image, side)
    image.draft(None, (2 * side, 2 * side))  # a JPEG is decoded at a half or less, where that suffices
    pixels = to_tensor(image, side, resize=True, background=background)[0].permute(1, 2, 0)
    return Looked(Facts(digest, mended), ((pixels + 1) * 127.5).round().clamp(0, 255).numpy().astype(np.uint8))


def _too_large(digest: str, size: str) -> Looked:
    return Looked(Facts(digest, problem=f"of more than {MOST_PIXELS} pixels, save it smaller", reason=size))


def _reason(error: Exception) -> str:
    """The reason in one short line, without the address that Pillow gives an open file."""
    line = " ".join(str(error).split()).removeprefix("image cannot be decoded: ")
    return "not PNG, JPEG, WebP, TIFF, BMP or GIF" if "BytesIO" in line else line[:80] or type(error).__name__


def _mended(image: Image.Image, side: int) -> list[str]:
    """What is done to a picture, besides scaling it down, to make it one of 8 bits in red, green and blue."""
    width, height = image.size
    found = {
        "turned as the EXIF orientation says": _orientation(image) in TURNS,
        "more than 8 bits": image.mode[0] in "IF",
        "transparent, put on the background": image.has_transparency_data,
        "several frames or pages, the first taken": image.format != "MPO" and _has_frames(image),
        "not square, the middle taken": width != height,
        f"smaller than {side} pixels, enlarged": min(width, height) < side,
        MODES.get(image.mode, ""): image.mode in MODES,
    }
    return [name for name, holds in found.items() if holds]


def _orientation(image: Image.Image) -> int | None:
    try:
        found: int | None = image.getexif().get(ExifTags.Base.Orientation)
        return found
    except Exception:  # damaged EXIF data say nothing
        return None


def _has_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # only the first can be read
        return True
