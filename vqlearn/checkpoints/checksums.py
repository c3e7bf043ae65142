"""`checksums.json` of a model folder: whether its files are those that were saved.

A stranger's folder may list anything, and nothing large is read on its word alone: texts have a bounded size, and
weights are compared after they were found to be what the configurations ask for, and not much larger.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vqlearn.checkpoints.layout import CHECKSUMS
from vqlearn.checkpoints.reading import MOST_TEXT, CheckpointError, check_regular, read_json
from vqlearn.data.files import replaced

WEIGHTS = (".safetensors", ".bin")
MOST_EACH = 16  # bytes of a file for each number of the weights: twice float64


def read_sums(folder: Path, part: str = "") -> dict[str, str]:
    """The checksum of each file of a model or of one part, as `saving.save_components` writes them; {} without any.

    Raises CheckpointError for a name that is none of a model's files, and for a file that is missing.
    """
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    sums = {name: one for name, one in read_json(path).items() if name.startswith(f"{part}/" if part else "")}
    for name in sums:
        if not re.fullmatch(r"(\w+/)?[\w.-]+", name) or ".." in name:
            raise CheckpointError(f"{path} names {name!r:.60}, which is no file of the model")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing, {CHECKSUMS} lists it")
    return sums


def check_texts(folder: Path, sums: Mapping[str, str]) -> None:
    """Compare configurations and vocabularies; raises CheckpointError."""
    for name in sums:
        if not name.endswith(WEIGHTS):
            check_regular(folder / name, MOST_TEXT)
            _compare(folder, name, sums)


def check_weights(files: Iterable[Path], numbers: int, folder: Path, sums: Mapping[str, str]) -> None:
    """Compare the files from which so many numbers of weights were read; raises CheckpointError."""
    named = {path: path.relative_to(folder).as_posix() for path in files}
    listed = {path: name for path, name in named.items() if name in sums}
    for path, size in {path: check_regular(path) for path in listed}.items():
        if size > MOST_EACH * numbers + MOST_TEXT:
            raise CheckpointError(f"{path} has {size} bytes, {numbers} numbers were read from it")
    for name in listed.values():
        _compare(folder, name, sums)


def _compare(folder: Path, name: str, sums: Mapping[str, str]) -> None:
    if checksum(folder / name) != sums[name]:
        raise CheckpointError(
            f"{folder / name} is not the file that was saved, its checksum differs; "
            f"if you changed it on purpose, delete {CHECKSUMS}"
        )


def renew_sums(folder: Path, names: Iterable[str]) -> None:
    """Bring the checksums of a model up to date, of which some files, in its own folder or a part's, were written."""
    folder = Path(os.path.abspath(folder))
    for model, place in ((folder, ""), (folder.parent, f"{folder.name}/")):
        path = model / CHECKSUMS
        sums = read_json(path) if path.is_file() else {}
        if not any(f"{place}{name}" in sums for name in names):
            continue  # of something else
        kept = {
            name: one for name, one in sums.items() if not name.startswith(place or "/") or (model / name).is_file()
        }
        write_json(path, {**kept, **{f"{place}{name}": checksum(folder / name) for name in names}})


def write_json(path: Path, value: dict[str, Any]) -> None:
    """JSON with a line per entry, in UTF-8 and with the same line ends everywhere."""
    with replaced(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def checksum(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
