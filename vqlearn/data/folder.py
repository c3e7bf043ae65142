"""A folder of pictures of one's own, with captions or without, as a data set to learn from."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from unicodedata import normalize

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vqlearn.arguments import whole
from vqlearn.data.pictures import Color, color_of, to_tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
TABLE = "captions.csv"


class PictureFolder(Dataset[tuple[Tensor, str | None]]):
    """Rows (image float `[3, side, side]` in [-1, 1], caption), in the order of the files' names.

    Captions are in `captions.csv`, a table with the columns `file` and `caption`, or for `name.png` in `name.txt`.
    Where there is neither, every caption is None. Pictures may be of any mode; with `resize` those of another size are
    cropped and scaled, and `background` is the colour behind what is transparent (`data.pictures.to_tensor`). Raises
    FileNotFoundError where there is no such folder, ValueError for a folder without pictures, a picture that cannot be
    read or is of another size, and a caption that is missing or empty.
    """

    def __init__(self, folder: str | Path, side: int = 32, *, resize: bool = False, background: Color = "white"):
        self.folder, self.side = Path(folder), whole("side", side)
        self.resize, self.background = resize, background
        color_of(background)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}; make it and put pictures into it")
        named = (path for path in self.folder.iterdir() if path.suffix.lower() in ENDINGS)
        self.files = sorted(path for path in named if not (path.name.startswith(".") or path.is_dir()))
        if not self.files:
            raise ValueError(f"there are no pictures in {str(folder)!r}; it must hold files that end in .png or .jpg")
        for path in self.files:
            self._check(path)
        self.captions = _captions(self.folder, self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str | None]:
        path = self.files[index]
        try:
            with Image.open(path) as image:
                picture = to_tensor(image, self.side, resize=self.resize, background=self.background)
        except (OSError, ValueError) as error:  # damaged, or changed since it was looked at
            raise ValueError(f"{path}: {error}") from None
        return picture[0], self.captions[index]

    @property
    def words(self) -> list[str]:
        """The words and signs of the captions, in lower case and in order of the alphabet."""
        texts = " ".join(caption for caption in self.captions if caption is not None)
        return sorted(set(re.findall(r"[^\W_]+|[^\w\s]", texts.lower())))

    def _check(self, path: Path) -> None:
        """Whether a file is a picture of the right size, as far as its head says."""
        try:
            if not path.is_file():  # a pipe would be waited for
                raise OSError("no ordinary file, or a link to none")
            with Image.open(path) as image:
                width, height = image.size
        except Exception as error:  # Pillow raises many kinds for damaged files
            raise ValueError(f"{path} is no picture ({error}); remove it or save it as PNG") from None
        if not self.resize and (width, height) != (self.side, self.side):
            raise ValueError(
                f"{path} is {width} x {height} pixels, it must be {self.side} x {self.side}; say resize=True, or "
                "resize it yourself"
            )


def _captions(folder: Path, files: list[Path]) -> list[str] | list[None]:
    """A caption for each file, or None for each; raises ValueError."""
    notes = {path: path.with_suffix(".txt") for path in files}
    if (folder / TABLE).exists():
        table = _table(folder / TABLE)
        found = {path: table.get(normalize("NFC", path.name)) for path in files}
    elif any(note.exists() for note in notes.values()):
        found = {path: _text(note) if note.exists() else None for path, note in notes.items()}
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
    """File name -> caption; names as Linux writes them, where a Mac writes an accent as a sign of its own."""
    rows = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        if not {"file", "caption"} <= set(rows.fieldnames or ()):
            raise ValueError(f"the first line of {path} must name the columns file and caption, got {rows.fieldnames}")
        return {normalize("NFC", row["file"] or ""): row["caption"] or "" for row in rows}
    except csv.Error as error:
        raise ValueError(f"{path} is no table: {error}") from None


def _text(path: Path) -> str:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; it must be a text file in UTF-8") from None
