"""A folder of pictures of one's own, with captions, classes or neither, as a data set to learn from."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from vqlearn.arguments import whole
from vqlearn.data.inspection import Facts
from vqlearn.data.listing import Entry, Listing, listed
from vqlearn.data.pictures import Color, color_of
from vqlearn.data.preparing import prepare
from vqlearn.data.report import Report, counted

HELD_OUT = 13  # of 256 first bytes of a digest: one picture in twenty


class PictureFolder(Dataset[tuple[Tensor, Any]]):
    """Rows (image float `[3, side, side]` in [-1, 1], condition) of the pictures below a folder, in order of the names.

    The condition is the first caption, the number of the class, or None, as `reads` says: "text", "class" or "nothing".
    Captions and classes come from `captions`, a file, or from the layout of the folder (`data.listing.listed`). The
    square in the middle of a picture is scaled, and `background` is the colour behind what is transparent. All files
    are read once, now; their pixels are kept in the folder `cache`, where the next call finds them, or else until the
    end of the process. Whatever cannot be used is left out, and `report` says so, with what was mended.

    `part("train")` is what to learn from and `part("held out")` what to judge by: a twentieth of the pictures, chosen
    by a hash of their files' content, so that copies of one file are on one side. Raises FileNotFoundError where there
    is no such folder, ValueError where none of its pictures can be used, OSError where the cache cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        side: int = 32,
        *,
        captions: str | Path | None = None,
        background: Color = "white",
        cache: str | Path | None = None,
        workers: int = 0,
        progress: bool = False,
    ):
        self.folder, self.side, workers = Path(folder), whole("side", side, 1, 4096), whole("workers", workers, 0)
        color_of(background)
        listing = listed(folder, captions)
        cache = self._until_the_end() if cache is None else cache
        names = [entry.name for entry in listing.entries]
        how: Any = {"workers": workers, "progress": progress}
        facts, store = prepare(self.folder, names, self.side, background, Path(cache), **how)
        self.reads, self.report = listing.reads, Report([], others=listing.remarks)
        kept = _used(listing, facts, self.report)
        self.entries, self.digests = list(kept.values()), list(kept)
        self.classes = sorted({entry.label for entry in self.entries if entry.label is not None})
        self._numbers = {name: number for number, name in enumerate(self.classes)}
        self.made, self.pixels, self.places = store.made, store.mapped(), store.at(self.digests)
        self.report.head = _head(self, listing)

    def _until_the_end(self) -> str:
        """A new folder that is there as long as this object, or the process."""
        cache = tempfile.mkdtemp(prefix="vqlearn-")
        weakref.finalize(self, shutil.rmtree, cache, ignore_errors=True)
        return cache

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        pixels = torch.tensor(self.pixels[self.places[index]]).permute(2, 0, 1)
        said = self.conditions(index)
        return pixels / 127.5 - 1, said[0] if said else None

    def conditions(self, index: int) -> tuple[Any, ...]:
        """All captions of a picture, or the number of its class; none for a folder without."""
        entry = self.entries[index]
        if self.reads == "class":
            return (self._numbers[entry.label or ""],)
        return entry.captions if self.reads == "text" else ()

    def indices(self, part: str) -> list[int]:
        """The numbers of the pictures in "train" or "held out"; raises ValueError for another part."""
        if part not in ("train", "held out"):
            raise ValueError(f"part must be 'train' or 'held out', got {part!r}")
        return [i for i, digest in enumerate(self.digests) if is_held_out(digest) == (part == "held out")]

    def part(self, part: str) -> Subset[tuple[Tensor, Any]]:
        """The rows of "train" or of "held out"."""
        return Subset(self, self.indices(part))

    @property
    def fingerprint(self) -> str:
        """A hash of all that is learned from: contents, sizes, captions and classes."""
        said = [(entry.captions, entry.label) for entry in self.entries]
        return hashlib.sha256(json.dumps([self.made, self.reads, self.digests, said]).encode()).hexdigest()


def is_held_out(digest: str) -> bool:
    """Whether the picture whose file has this SHA-256 is kept out of training."""
    return int(digest[:2], 16) < HELD_OUT


def _used(listing: Listing, facts: dict[str, Facts], report: Report) -> dict[str, Entry]:
    """The pictures that can be used, by their digests, each once with all its captions; raises ValueError."""
    kept: dict[str, Entry] = {}
    for entry in listing.entries:
        digest, _, problem, reason = facts[entry.name]
        if problem:
            report.skipped.add(problem, f"{entry.name} ({reason})" if reason else entry.name)
        elif digest in kept:
            kept[digest] = _joined(kept[digest], entry, report)
        else:
            kept[digest] = entry
    wanted = {"text": "without a caption", "class": "without a class"}
    for digest, entry in list(kept.items()):
        if not (listing.reads == "nothing" or (entry.captions if listing.reads == "text" else entry.label)):
            report.skipped.add(wanted[listing.reads], entry.name)
            del kept[digest]
    if not kept:
        why = "; ".join([*report.skipped.lines(), *report.others.lines()])
        raise ValueError(f"no picture in {str(listing.folder)!r} can be used: {why}")
    for entry in kept.values():
        for remark in facts[entry.name].mended:
            report.mended.add(remark, entry.name)
    return kept


def _joined(first: Entry, copy: Entry, report: Report) -> Entry:
    """A picture with what is said of another file of the same content."""
    report.skipped.add("copy of another file, captions joined", f"{copy.name} (of {first.name})")
    if None not in (first.label, copy.label) and first.label != copy.label:
        report.others.add("picture in several classes, the first taken", f"{first.name}, {copy.name}")
    captions = tuple(dict.fromkeys((*first.captions, *copy.captions)))
    return Entry(first.name, captions, first.label or copy.label)


def _head(data: PictureFolder, listing: Listing) -> list[str]:
    """What a report begins with."""
    train, held = (len(data.indices(part)) for part in ("train", "held out"))
    captions = sum(len(entry.captions) for entry in data.entries)
    said = {"text": f"{counted(captions, 'caption')}: {listing.layout}", "nothing": listing.layout}
    if data.reads == "class":
        counts = Counter(entry.label for entry in data.entries)
        said["class"] = f"{len(counts)} classes of {min(counts.values())} to {max(counts.values())}: {listing.layout}"
    found = counted(len(listing.entries), "picture")
    return [
        f"{data.folder}: {found}, {len(data)} used in {data.side} x {data.side} pixels",
        said[data.reads],
        f"{train} to learn from, {held} held out (those whose SHA-256 begins with a byte below {HELD_OUT})",
    ]
