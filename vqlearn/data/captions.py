"""What is said of pictures: rows of tables (CSV, JSON lines, COCO's JSON) and texts with a caption in each line."""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from unicodedata import normalize

from vqlearn.arguments import shown
from vqlearn.data.report import Remarks

TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv")  # the first two are those of Hugging Face's imagefolder
COCO = re.compile(r"captions.*\.json", re.IGNORECASE)
FILE = ("file_name", "file", "filename", "image", "path")  # the columns that may name the picture, ...
CAPTIONS = ("caption", "captions", "text", "texts", "prompt", "description")  # ... say what it shows ...
LABEL = ("label", "class")  # ... or name its class
MOST_TEXT = 2**20  # bytes of a text beside a picture


class Row(NamedTuple):
    """What a table says of a picture."""

    file: str
    captions: tuple[str, ...] = ()
    label: str | None = None


def rows(path: Path, remarks: Remarks) -> Iterator[Row]:
    """The rows of a table, by the ending of its name: .csv, .jsonl or .json; raises ValueError for one without use."""
    ending = path.suffix.lower()
    if ending not in READERS:
        raise ValueError(f"captions must be in a file that ends in {', '.join(READERS)}, got {str(path)!r}")
    count = 0
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            for row in READERS[ending](file, path, remarks):
                count += 1
                yield _checked(row, path.name, remarks)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); it must be a table of captions") from None
    if not count:
        raise ValueError(f"{path} has no row that can be used; each must name a picture and say what it shows")


def _checked(row: Row, where: str, remarks: Remarks) -> Row:
    """A row with its captions in one line each, without empty ones and those that are no text."""
    return row._replace(captions=tuple(_said(row.captions, f"{where}: {row.file}", remarks)))


def _said(captions: Iterable[str], where: str, remarks: Remarks) -> Iterator[str]:
    for caption in captions:
        if re.search("[\ud800-\udfff]", caption):  # what is no UTF-8 is read as halves of characters
            remarks.add("caption that is no text in UTF-8", where)
        elif line := " ".join(caption.split()):
            yield line
        else:
            remarks.add("empty caption", where)


# ------------------------------------------------------------------------------------------ tables


def _csv(file: Any, path: Path, remarks: Remarks) -> Iterator[Row]:
    table = csv.DictReader(file)
    try:
        names = [name for name in table.fieldnames or () if name]
        _columns(names, f"the first line of {path}")
        for row in table:
            yield _row({name: row[name] for name in names}, f"the first line of {path}")
    except csv.Error as error:
        raise ValueError(f"{path} is no table: {error}") from None


def _json_lines(file: Any, path: Path, remarks: Remarks) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
            yield _row(row, where)
        except (ValueError, RecursionError):
            remarks.add("line that is damaged, or without a picture or caption", where)


def _json(file: Any, path: Path, remarks: Remarks) -> Iterator[Row]:
    """COCO's form, images and annotations, or a list of objects as in JSON lines."""
    try:
        found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if isinstance(found, list):
        yield from (_row(row if isinstance(row, dict) else {}, f"every entry of {path}") for row in found)
        return
    try:
        files = {image["id"]: str(image["file_name"]) for image in found["images"]}
        said = [(files.get(one["image_id"]), one["image_id"], str(one["caption"])) for one in found["annotations"]]
    except (KeyError, TypeError):
        raise ValueError(
            f"{path} must have images with id and file_name, and annotations with image_id and caption, as COCO has"
        ) from None
    for name, number, caption in said:
        yield Row(f"picture with the id {shown(number)}" if name is None else name, (caption,))


READERS = {".csv": _csv, ".jsonl": _json_lines, ".json": _json}


def _columns(names: Iterable[str], where: str) -> tuple[str, list[str], str | None]:
    """The columns of the picture, of captions and of the class; raises ValueError where they are not there."""
    names = list(names)
    file = next((name for name in FILE if name in names), None)
    captions = [name for name in CAPTIONS if name in names]
    label = next((name for name in LABEL if name in names), None)
    if file is None or not (captions or label):
        raise ValueError(f"{where} must name the columns file_name and caption (or label), got {shown(names)}")
    return file, captions, label


def _row(row: dict[str, Any], where: str) -> Row:
    file, columns, label = _columns(row, where)
    found: list[str] = []
    for value in (row[column] for column in columns):
        found += [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]
    return Row(str(row[file]), tuple(found), None if label is None or row[label] in (None, "") else str(row[label]))


class Finder:
    """The picture that a table means by a name: exactly so, in other case, or alone of this name in another folder."""

    def __init__(self, pictures: Iterable[str]):
        self.exact = {normalize("NFC", name): name for name in pictures}
        self.folded, self.alone = {}, {}  # type: dict[str, str | None], dict[str, str | None]
        for plain, name in self.exact.items():
            for names, key in ((self.folded, plain.casefold()), (self.alone, PurePosixPath(plain).name.casefold())):
                names[key] = None if key in names else name

    def __call__(self, name: str, inside: str) -> str | None:
        """The picture of a name in the folder `inside`, as a Mac writes it or Linux, with "/" or a backslash."""
        plain = normalize("NFC", name).replace("\\", "/")
        path = posixpath.normpath(posixpath.join(inside, plain))
        found = self.exact.get(path) or self.folded.get(path.casefold())
        return found or (None if "/" in plain else self.alone.get(plain.casefold()))


# ------------------------------------------------------------------------------------------ texts


def texts_of(pictures: Iterable[str], texts: Iterable[str]) -> dict[str, list[str]]:
    """The texts that have the name of a picture, and its pictures: beside it, in a folder of one name, or anywhere.

    CUB-200's texts are in folders that are named as those of its pictures, Oxford-102's in others.
    """
    owners: dict[tuple[str, ...], list[str]] = {}
    for name in pictures:
        for key in _keys(name):
            owners.setdefault(key, []).append(name)
    found: dict[str, list[str]] = {}
    for text in texts:
        beside, same_folder, anywhere = (owners.get(key, []) for key in _keys(text))
        alone = anywhere if len({PurePosixPath(name).parent for name in anywhere}) == 1 else []
        if chosen := beside or same_folder or alone:
            found[text] = chosen
    return found


def _keys(name: str) -> tuple[tuple[str, ...], ...]:
    path = PurePosixPath(normalize("NFC", name)).with_suffix("")
    return ("path", str(path)), ("folder", path.parent.name, path.name), ("name", path.name)


def lines(path: Path, name: str, remarks: Remarks) -> list[str]:
    """The captions of a text, one in each line."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise OSError(0, "no ordinary file")
        if path.stat().st_size > MOST_TEXT:
            raise OSError(0, f"larger than {MOST_TEXT} bytes")
        found = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        remarks.add("unreadable text", f"{name} ({error.strerror})")
        return []
    return list(_said(filter(str.strip, found), name, remarks))
