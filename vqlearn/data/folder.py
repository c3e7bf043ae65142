"""A folder of pictures of one's own, with captions or without, as a data set to learn from."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from vqlearn.data.pictures import to_tensor

ENDINGS = (".png", ".jpg", ".jpeg")
TABLE = "captions.csv"


class PictureFolder(Dataset[tuple[Tensor, str | None]]):
    """Rows (image float `[3, side, side]` in [-1, 1], caption), in the order of the files' names.

    Captions are in `captions.csv`, a table with the columns `file` and `caption`, or for `name.png` in `name.txt`.
    Where there is neither, every caption is None. Raises FileNotFoundError where there is no such folder, ValueError
    for a folder without pictures, a picture of another size and a caption that is missing or empty.
    """

    def __init__(self, folder: str | Path, side: int = 32):
        self.folder, self.side = Path(folder), side
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}; make it and put pictures into it")
        self.files = sorted(path for path in self.folder.iterdir() if path.suffix.lower() in ENDINGS)
        if not self.files:
            raise ValueError(f"there are no pictures in {str(folder)!r}; it must hold files that end in .png or .jpg")
        for path in self.files:
            _check_size(path, side)
        self.captions = _captions(self.folder, self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str | None]:
        with Image.open(self.files[index]) as image:
            return to_tensor(image, self.side)[0], self.captions[index]

    @property
    def words(self) -> list[str]:
        """The words and signs of the captions, in lower case and in order of the alphabet."""
        texts = " ".join(caption for caption in self.captions if caption is not None)
        return sorted(set(re.findall(r"[^\W_]+|[^\w\s]", texts.lower())))


def _check_size(path: Path, side: int) -> None:
    try:
        with Image.open(path) as image:
            width, height = image.size
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no picture; remove it or save it as PNG") from None
    if (width, height) != (side, side):
        raise ValueError(f"{path} is {width} x {height} pixels, it must be {side} x {side}; resize or crop it")


def _captions(folder: Path, files: list[Path]) -> list[str] | list[None]:
    """A caption for each file, or None for each; raises ValueError."""
    notes = {path: path.with_suffix(".txt") for path in files}
    if (folder / TABLE).exists():
        table = _table(folder / TABLE)
        found = {path: table.get(path.name) for path in files}
    elif any(note.exists() for note in notes.values()):
        found = {path: note.read_text(encoding="utf-8") if note.exists() else None for path, note in notes.items()}
    else:
        return [None] * len(files)
    captions = []
    for path, caption in found.items():
        place = folder / TABLE if (folder / TABLE).exists() else notes[path]
        if caption is None:
            raise ValueError(f"{path.name} has no caption; write one into {place}")
        if not caption.strip():
            raise ValueError(f"the caption of {path.name} in {place} is empty; say what the picture shows")
        captions.append(" ".join(caption.split()))
    return captions


def _table(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"file", "caption"} <= set(rows.fieldnames or ()):
            raise ValueError(f"the first line of {path} must name the columns file and caption, got {rows.fieldnames}")
        return {row["file"]: row["caption"] or "" for row in rows}
