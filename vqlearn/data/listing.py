"""The pictures of a folder and what is said of each, in whichever of the usual layouts they come."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vqlearn.data import captions as reading
from vqlearn.data.report import Remarks, printable

ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif")
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".raw", ".dng", ".nef", ".cr2", ".arw")
JUNK = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")  # folders of copies and thumbnails
SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "dev")
PLAIN = (*SPLITS, "images", "image", "pictures", "photos", "img", "jpg", "data")  # names that say no class


class Entry(NamedTuple):
    """A picture's name in its folder, its captions and the name of its class, as far as they are known."""

    name: str
    captions: tuple[str, ...] = ()
    label: str | None = None


class Listing(NamedTuple):
    """The pictures of a folder in the order of their names; `layout` says where captions or classes were found."""

    folder: Path
    entries: list[Entry]
    reads: str  # "text", "class" or "nothing": what a model of them is conditioned on
    layout: str
    remarks: Remarks


def listed(folder: str | Path, captions: str | Path | None = None) -> Listing:
    """The pictures below a folder, with the captions of a file, or of the first layout in this order that is there.

    `metadata.jsonl`, `metadata.csv` or `captions.csv`; `captions*.json` as of COCO; texts with the pictures' names,
    beside them or in folders of their own, a caption in each line; folders that are named as classes; nothing. Raises
    FileNotFoundError for a folder that is none, ValueError for one without pictures and for captions that cannot be
    used at all. What is wrong with single files and lines is a remark.
    """
    folder, remarks = existing(folder), Remarks()
    names = names_below(folder, remarks)
    pictures = [name for name in names if _ending(name) in ENDINGS]
    for name in names:
        if _ending(name) in UNREAD:
            remarks.add("file of a kind that is not read, save it as PNG or JPEG", name)
    if not pictures:
        others = "; ".join(["it must hold files that end in .png or .jpg", *remarks.lines()])
        raise ValueError(f"there are no pictures in {str(folder)!r}; {others}")
    said, layout = _said(folder, names, pictures, captions, remarks)
    if said is None:
        return _by_folder(folder, pictures, remarks)
    classes_alone = any(entry.label for entry in said.values()) and not any(entry.captions for entry in said.values())
    reads = "class" if classes_alone else "text"
    return Listing(folder, [said.get(name, Entry(name)) for name in pictures], reads, layout, remarks)


def existing(folder: str | Path) -> Path:
    """The path of a folder; raises NotADirectoryError for a file, FileNotFoundError where there is none."""
    if Path(folder).is_file():
        raise NotADirectoryError(f"{str(folder)!r} is a file; give a folder of pictures, an archive unpacked")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; make it and put pictures into it")
    return Path(folder)


def names_below(folder: Path, remarks: Remarks) -> list[str]:
    """The names of all files of a folder and its folders, "/" between their parts, without hidden ones.

    A folder that is met once more, by a link, is not read again.
    """
    found, seen, todo, linked = [], set(), [""], []  # type: list[str], set[tuple[int, int]], list[str], list[str]
    while todo or linked:
        inside = (todo or linked).pop()
        try:
            place = (folder / inside).stat()
            if (place.st_dev, place.st_ino) in seen:
                remarks.add("folder that a link leads to once more", inside)
                continue
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(folder / inside) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    if entry.name.startswith(".") or entry.name in JUNK:
                        continue
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    (found if not _is_folder(entry) else linked if entry.is_symlink() else todo).append(name)
        except OSError as error:
            remarks.add("unreadable folder", f"{inside or folder} ({error.strerror})")
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _said(
    folder: Path, names: list[str], pictures: list[str], captions: str | Path | None, remarks: Remarks
) -> tuple[dict[str, Entry] | None, str]:
    """What is said of each picture, None if nothing is, and where."""
    find = reading.Finder(folder, pictures)
    if captions is not None:
        path = Path(captions)
        return _of_rows(reading.rows(path, remarks), find, path.parent, remarks), str(path.name)
    tables = [name for name in names if PurePosixPath(name).name.lower() in reading.TABLES]
    tables = tables or [name for name in names if reading.COCO.fullmatch(PurePosixPath(name).name)]
    if tables:
        found: dict[str, Entry] = {}
        for name in tables:
            table = folder / name
            found |= _of_rows(reading.rows(table, remarks), find, table.parent, remarks)
        return found, ", ".join(tables[:3]) + (f" and {len(tables) - 3} more" if len(tables) > 3 else "")
    texts = [name for name in names if _ending(name) == ".txt"]
    beside = reading.texts_of(pictures, texts)
    for name in texts:
        if name not in beside:
            remarks.add("text that belongs to no picture", name)
    found = {}
    for text, owners in beside.items():
        lines = reading.lines(folder / text, text, remarks)
        found |= {name: Entry(name, (*found.get(name, Entry(name)).captions, *lines)) for name in owners}
    return (found, "texts with the pictures' names, a caption in each line") if beside else (None, "")


def _of_rows(rows: Iterable[reading.Row], find: reading.Finder, beside: Path, remarks: Remarks) -> dict[str, Entry]:
    """The rows of a table in a folder, each with the picture that it names; rows of one picture are joined."""
    found: dict[str, Entry] = {}
    start = reading.slashed(f"{beside.absolute()}/")
    for row in rows:
        name = find(row.file, start)
        if name is None:
            remarks.add("caption of a picture that is not there", row.file)
            continue
        said = found.get(name, Entry(name))
        found[name] = Entry(name, (*said.captions, *row.captions), said.label or row.label)
    return found


def _by_folder(folder: Path, pictures: list[str], remarks: Remarks) -> Listing:
    """Pictures in folders that are named as their classes, if there are two such folders, or without any."""
    parents = {name: printable(PurePosixPath(name).parent.name) for name in pictures}
    classes = Counter(parent for parent in parents.values() if parent and parent.lower() not in PLAIN)
    for split in sorted({PurePosixPath(name).parts[0] for name in pictures if "/" in name}):
        if split.lower() in SPLITS:
            remarks.add("folder with the name of a split, which is not used as one", split)
    if len(classes) < 2:
        return Listing(folder, [Entry(name) for name in pictures], "nothing", "no captions and no classes", remarks)
    entries = [Entry(name, (), parent if parent in classes else None) for name, parent in parents.items()]
    return Listing(folder, entries, "class", f"{len(classes)} folders with the names of classes", remarks)
