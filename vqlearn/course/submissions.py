"""What learners hand in: a folder or a zip file each, or one folder or zip file that holds those of a class."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vqlearn.course import copying
from vqlearn.course.marking import PREFIX

MOST_FILES, MOST_BYTES = 100_000, 5_000_000_000  # of a zip file, unpacked
MOST_FOLDERS = 200  # that are looked through for a learner's notebooks


class Submission(NamedTuple):
    """A learner's name, and the folder of the notebooks; `trouble` says why there is none."""

    learner: str
    folder: Path
    trouble: str = ""


@contextlib.contextmanager
def opened(paths: list[str]) -> Iterator[tuple[list[Submission], bool]]:
    """The submissions in these folders and zip files, in order, and whether they are those of a class.

    A single path without notebooks of the course is a class: each folder and zip file in it is a learner. Several paths
    are a learner each. A learner's notebooks may be deeper inside. Zip files are unpacked, until the end of the block.
    Raises ValueError for a path that is neither a folder nor a zip file.
    """
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as place:
        entries = [Path(path) for path in paths]
        for path in entries:
            if not path.is_dir() and not _is_zip(path):
                raise ValueError(f"DIR: there is no folder and no zip file {str(path)!r} to check")
        inside = _class(entries[0], Path(place)) if len(entries) == 1 else []
        found = [_submission(path, Path(place)) for path in inside or entries]
        yield [*_with_names_of_their_own(found)], bool(inside) or len(entries) > 1


def _class(path: Path, place: Path) -> list[Path]:
    """The folders and zip files of the learners of a class; none if this is one learner's."""
    folder = _unpacked(path, place) if _is_zip(path) else path
    inside = _inside(folder)
    while not _has_notebooks(folder) and len(inside) == 1 and inside[0].is_dir():
        folder, inside = inside[0], _inside(inside[0])
    return [] if _has_notebooks(folder) else inside


def _submission(path: Path, place: Path) -> Submission:
    name = path.stem if _is_zip(path) else path.resolve().name
    try:
        first = _unpacked(path, place) if _is_zip(path) else path
        waiting = [first]
        for _ in range(MOST_FOLDERS):
            if not waiting:
                break
            folder = waiting.pop(0)
            if _has_notebooks(folder):
                return Submission(name, folder)
            waiting += [_unpacked(one, place) if _is_zip(one) else one for one in _inside(folder)]
        return Submission(name, first)
    except (ValueError, OSError) as error:
        return Submission(name, path, str(error))


def _with_names_of_their_own(found: list[Submission]) -> Iterator[Submission]:
    taken: set[str] = set()
    for one in found:
        name, number = one.learner, 1
        while name in taken:
            number += 1
            name = f"{one.learner} ({number})"
        taken.add(name)
        yield one._replace(learner=name)


def _inside(folder: Path) -> list[Path]:
    """The folders and zip files in a folder, but for links and what is hidden."""
    entries = [
        path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__")) and not path.is_symlink()
    ]
    return [path for path in entries if path.is_dir() or _is_zip(path)]


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


def _has_notebooks(folder: Path) -> bool:
    return any((folder / path.name).exists() for path in copying.notebooks())


def _unpacked(path: Path, place: Path) -> Path:
    """A new folder with the files of a zip file. Raises ValueError for one that is damaged, locked or too large."""
    into = Path(tempfile.mkdtemp(dir=place))
    try:
        with zipfile.ZipFile(path) as archive:
            files = [info for info in archive.infolist() if not info.is_dir() and _is_inside(info.filename)]
            if len(files) > MOST_FILES:
                raise ValueError(f"{path.name!r} holds more than {MOST_FILES} files")
            left = MOST_BYTES
            for info in files:
                left -= _write(archive, info, into, left)
                if left < 0:
                    raise ValueError(f"{path.name!r} holds more than {MOST_BYTES / 1e9:g} GB")
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:  # or with a password
        raise ValueError(f"{path.name!r} cannot be unpacked: {error}") from None
    return into


def _is_inside(name: str) -> bool:
    """Whether a name in a zip file is that of a visible file below the folder that it is unpacked to."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return not any(part.startswith((".", "__", "/")) or ":" in part for part in parts)


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, into: Path, most: int) -> int:
    """Write one file, and of one that is too large no more than shows that; returns the number of bytes."""
    target = into.joinpath(*PurePosixPath(info.filename.replace("\\", "/")).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(info) as source, open(target, "wb") as file:
        while written <= most and (part := source.read(2**20)):
            written += file.write(part)
    return written
