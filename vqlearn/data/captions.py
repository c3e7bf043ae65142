"""What is said of pictures: rows of tables (CSV, JSON lines, COCO's JSON) and texts with a caption in each line."""

from __future__ import annotations

import codecs
import csv
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from unicodedata import normalize

from vqlearn.arguments import shown
from vqlearn.data.report import Remarks, printable
from vqlearn.data.text import plain

TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv")  # the first two are those of Hugging Face's imagefolder
COCO = re.compile(r"captions.*\.json", re.IGNORECASE)
FILE = ("file_name", "file", "filename", "image", "path")  # the columns that may name the picture, ...
CAPTIONS = ("caption", "captions", "text", "texts", "prompt", "description")  # ... say what it shows ...
LABEL = ("label", "class")  # ... or name its class
MOST_TEXT = 2**20  # bytes of a text beside a picture
DAMAGED = "row that is damaged, or without a picture or caption"


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
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError(0, "no ordinary file")
        with path.open(newline="", **_encoding(path)) as file:
            for row in READERS[ending](file, path, remarks):
                count += 1
                yield _checked(row, path.name, remarks)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); it must be a table of captions") from None
    if not count:
        such = "".join(f", not as {where}" for where in remarks.get(DAMAGED, [])[:1])
        raise ValueError(f"{path} has no row that can be used; each must name a picture and say what it shows{such}")


def _encoding(path: Path) -> dict[str, Any]:
    """How a text is read: in UTF-16 if it begins as Windows writes it, else in UTF-8; other bytes stay as they are."""
    with path.open("rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding, errors = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
    return {"encoding": encoding, "errors": errors}


def _checked(row: Row, where: str, remarks: Remarks) -> Row:
    """A row with its captions in one line each, without empty ones and those that are no text."""
    label = None if row.label is None else printable(row.label)
    return Row(row.file, tuple(_said(row.captions, f"{where}: {row.file}", remarks)), label)


def _said(captions: Iterable[str], where: str, remarks: Remarks) -> Iterator[str]:
    for caption in captions:
        if re.search("[\ud800-\udfff]", caption):  # what is no UTF-8 is read as halves of characters
            remarks.add("caption that is no text in UTF-8", where)
        elif line := plain(caption):
            yield line
        else:
            remarks.add("empty caption", where)


# ------------------------------------------------------------------------------------------ tables


def _csv(file: Any, path: Path, remarks: Remarks) -> Iterator[Row]:
    table = csv.reader(file, strict=True, skipinitialspace=True)
    try:
        names = [name.strip().lower() for name in next(table, ())]
    except csv.Error as error:
        raise ValueError(f"{path} is no table: {error}") from None
    _columns(filter(None, names), f"the first line of {path}")
    while True:
        where = f"{path.name}, line {table.line_num + 1}"
        try:
            cells = next(table)
            if any(cells[len(names) :]):
                raise ValueError("more cells than columns: put captions with commas into quotes")
            if any(cells):
                yield _row({**dict.fromkeys(names), **dict(zip(names, cells, strict=False))}, where)
        except StopIteration:
            return
        except (csv.Error, ValueError) as error:
            remarks.add(DAMAGED, f"{where} ({error})")


def _json_lines(file: Any, path: Path, remarks: Remarks) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield from _of_object(row, f"{path.name}, line {number}", remarks)


def _json(file: Any, path: Path, remarks: Remarks) -> Iterator[Row]:
    """COCO's form, images and annotations, or a list of objects as in JSON lines."""
    try:
        found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if isinstance(found, list):
        for number, row in enumerate(found, 1):
            yield from _of_object(row, f"{path.name}, entry {number}", remarks)
        return
    images, said = (found.get(name) if isinstance(found, dict) else None for name in ("images", "annotations"))
    if not (isinstance(images, list) and isinstance(said, list)):
        raise ValueError(
            f"{path} must be a list of objects, or have images with id and file_name, and annotations with image_id "
            "and caption, as COCO has"
        )
    files = {str(one.get("id")): one.get("file_name") for one in images if isinstance(one, dict)}
    for number, one in enumerate(said, 1):
        row = None
        if isinstance(one, dict) and "image_id" in one and "caption" in one:
            name = files.get(str(one["image_id"])) or f"picture with the id {shown(one['image_id'])}"
            row = {"file_name": name, "caption": one["caption"]}
        yield from _of_object(row, f"{path.name}, annotation {number}", remarks)


READERS = {".csv": _csv, ".jsonl": _json_lines, ".json": _json}


def _of_object(row: Any, where: str, remarks: Remarks) -> Iterator[Row]:
    """The row of an object of JSON; nothing and a remark where it is none, or lacks what a row has."""
    try:
        if not isinstance(row, dict):
            raise ValueError("no object")
        yield _row(row, where)
    except ValueError:
        remarks.add(DAMAGED, where)


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
    found = [text for column in columns for text in _texts(row[column])]
    names, labels = _texts(row[file]), [] if label is None else _texts(row[label])
    if len(names) != 1 or not names[0] or len(labels) > 1:
        raise ValueError("without the name of a picture")
    return Row(names[0], tuple(found), labels[0].strip() or None if labels else None)


def _texts(value: Any) -> list[str]:
    """What a cell holds: a text, several in a list, or none; raises ValueError for what is neither text nor number."""
    found = []
    for one in value if isinstance(value, list) else [value]:
        if one is None or one != one:  # pandas writes NaN for what is missing
            continue
        if not isinstance(one, str | int | float):
            raise ValueError(f"no text: {shown(one)}")
        found.append(str(one))
    return found


class Finder:
    """The picture of a folder that a table means by a name: exactly so, in other case, or alone of this name."""

    def __init__(self, folder: Path, pictures: Iterable[str]):
        self.folders = [f"{slashed(str(path))}/" for path in (folder.absolute(), folder.resolve())]
        self.exact = {normalize("NFC", name): name for name in pictures}
        self.folded, self.alone = {}, {}  # type: dict[str, str | None], dict[str, str | None]
        for exact, name in self.exact.items():
            for names, key in ((self.folded, exact.casefold()), (self.alone, PurePosixPath(exact).name.casefold())):
                names[key] = None if key in names else name

    def __call__(self, name: str, beside: str) -> str | None:
        """The picture of a name, as a Mac writes it or Linux, with "/" or a backslash: absolute, as seen from the
        folder `beside`, where the table is (absolute and `slashed`), or from the folder of the pictures."""
        asked = slashed(name)
        for start in dict.fromkeys((beside, self.folders[0])):
            path = posixpath.normpath(posixpath.join(start, asked))
            for folder in self.folders:
                inside = path.removeprefix(folder) if path.startswith(folder) else ""
                if found := self.exact.get(inside) or self.folded.get(inside.casefold()):
                    return found
        return None if "/" in asked else self.alone.get(asked.casefold())


def slashed(name: str) -> str:
    """A path with "/" between its parts, and every sign in one form."""
    return normalize("NFC", name).replace("\\", "/")


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
        beside, in_other_case, same_folder, anywhere = (owners.get(key, []) for key in _keys(text))
        alone = anywhere if len({PurePosixPath(name).parent for name in anywhere}) == 1 else []
        if chosen := beside or in_other_case or same_folder or alone:
            found[text] = chosen
    return found


def _keys(name: str) -> tuple[tuple[str, ...], ...]:
    path = PurePosixPath(normalize("NFC", name)).with_suffix("")
    folded = PurePosixPath(str(path).casefold())
    names = ("path in any case", str(folded)), ("folder", folded.parent.name, folded.name), ("name", folded.name)
    return ("path", str(path)), *names


def lines(path: Path, name: str, remarks: Remarks) -> list[str]:
    """The captions of a text, one in each line."""
    try:
        if not path.is_file():
            raise OSError(0, "no ordinary file")
        if path.stat().st_size > MOST_TEXT:
            raise OSError(0, f"larger than {MOST_TEXT} bytes")
        found = path.read_text(**_encoding(path)).splitlines()
    except OSError as error:
        remarks.add("unreadable text", f"{name} ({error.strerror})")
        return []
    return list(_said(filter(str.strip, found), name, remarks))
