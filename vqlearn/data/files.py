"""Files and folders that take the place of older ones whole: written beside their place, then moved there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A path to write to, beside `path`, whose place it takes at the end; after an error nothing has changed.

    Example::

        with replaced("model.json") as part:
            part.write_text("{}")
    """
    path = Path(path).absolute()
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder beside `folder`, whose place it takes at the end; after an error nothing has changed.

    A process that is killed between the two moves leaves the old folder at `previous(folder)`, where readers look for
    it and the next replacement begins with it.
    """
    folder = Path(folder).absolute()
    if not folder.exists() and previous(folder).is_dir():
        os.replace(previous(folder), folder)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
    try:
        yield new
        new.chmod(0o777 & ~_umask())
        _swap(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def previous(folder: Path) -> Path:
    """Where the old folder is for the moment in which the new one takes its place."""
    return folder.with_name(f".{folder.name}.previous")


def _swap(new: Path, folder: Path) -> None:
    old = previous(folder)
    if not folder.exists():
        os.replace(new, folder)
        return
    shutil.rmtree(old, ignore_errors=True)
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except BaseException:
        if not folder.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
