"""Files and folders of files that take the places of older ones whole: written beside them first, then moved there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

SAVING, SAVED = ".saving-", ".saved"  # folders that are being written, and the one that is whole and being moved in
BEFORE = ".before"  # in it: the files whose places are being taken
PATIENCE = 10  # seconds that a writer waits for another one of the same folder


@contextlib.contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A path to write to, beside `path`, whose place it takes at the end; after an error nothing has changed.

    A link stays, and what it names is replaced. Raises OSError, before anything is written, where no file can be.
    Example::

        with replaced("model.json") as part:
            part.write_text("{}")
    """
    path = Path(os.path.realpath(path))
    before = _mode(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r}; make it first or choose another")
    part = _beside(path)
    part.touch(exist_ok=False)
    usual = stat.S_IMODE(part.stat().st_mode)
    try:
        yield part
        part.chmod(usual if before is None else before)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _mode(path: Path) -> int | None:
    """The permissions of a regular file, None if there is none; raises OSError for anything else of that name."""
    try:
        found = path.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found):
        raise OSError(f"{str(path)!r} is no regular file; choose another name")
    return stat.S_IMODE(found)


def _beside(path: Path) -> Path:
    """A name in the same folder that nobody can know, and that is short whatever the file is called."""
    return path.with_name(f".vqlearn-{secrets.token_hex(8)}.part")


# ------------------------------------------------------------------------------------------ folders


@contextlib.contextmanager
def replaced_folder(folder: str | Path, earlier: Iterable[str] = ()) -> Iterator[Path]:
    """A new folder whose files take their places in `folder` at the end; after an error nothing has changed.

    Other files there stay, but for those named by `earlier` (`"part/file"`), which a former call wrote. The folder
    itself stays too: it may be a link, a mount point or the current one. If the process is killed, `folder` is as it
    was or `latest(folder)` is as it was to be, and the next call clears up.
    """
    folder = Path(os.path.realpath(folder))
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    new, whole = folder / f"{SAVING}{secrets.token_hex(8)}", folder / SAVED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_up(folder)
        unseen = folder / f".vqlearn-{secrets.token_hex(8)}"  # until it is held
        unseen.mkdir()
        try:
            with _claimed(unseen):
                unseen.rename(new)
                yield new
                for path in _files(new):  # safetensors' are readable by their owner alone
                    path.chmod(new.stat().st_mode & 0o666)
                _check_places(new, folder)
                _rename(new, whole)
                try:
                    _move_in(whole, folder, earlier)
                finally:
                    shutil.rmtree(whole, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except BaseException:
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()
        raise


def latest(folder: Path) -> Path:
    """Where the files of `replaced_folder` are whole: the folder, or what a killed process had finished inside it."""
    return folder / SAVED if (folder / SAVED).is_dir() else folder


def is_left_over(path: Path) -> bool:
    """Whether a name is that of something which a killed process left."""
    return path.name == SAVED or path.name.startswith(SAVING)


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether no other writer that lives holds a folder, which is held meanwhile; without locks always True."""
    handle, free = -1, fcntl is None
    if fcntl is not None:
        with contextlib.suppress(FileNotFoundError):  # its writer has just ended
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            except OSError as error:  # held, or on a file system without locks
                free = not isinstance(error, BlockingIOError)
    try:
        yield free
    finally:
        if handle >= 0:
            os.close(handle)


def _clear_up(folder: Path) -> None:
    """Finish what a killed process had written whole, remove what it had not."""
    for left in filter(is_left_over, sorted(folder.iterdir())):
        with _claimed(left) as free:
            if free and left.name == SAVED and left.is_dir():
                _move_in(left, folder, ())
            if free:
                shutil.rmtree(left, ignore_errors=True)


def _rename(new: Path, whole: Path) -> None:
    """Make a folder the one that is being moved in, of which there is one at a time; raises OSError if that lasts."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            new.rename(whole)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and os.name != "nt":
                raise
        if time.monotonic() > end:
            raise OSError(f"another process is writing to {str(whole.parent)!r}; try again when it is done")
        _clear_up(whole.parent)
        time.sleep(0.02)


def _check_places(new: Path, folder: Path) -> None:
    for path in _files(new):
        place = folder / path.relative_to(new)
        if place.is_dir():
            raise OSError(f"{str(place)!r} is a folder, where a file is to be written; move it away")
        for above in place.relative_to(folder).parents:
            if os.path.lexists(folder / above) and not (folder / above).is_dir():
                raise OSError(f"{str(folder / above)!r} is a file, where a folder is to be written; move it away")


def _move_in(new: Path, folder: Path, earlier: Iterable[str]) -> None:
    """Give all files of `new` their places, and take away `earlier` ones; after an error all is as before.

    `new` stays whole meanwhile, for readers.
    """
    names = [path.relative_to(new) for path in _files(new)]
    gone = [Path(name) for name in earlier if Path(name) not in names and _is_inside(folder / name, folder)]
    kept = new / BEFORE
    undo: list[tuple[Path | None, Path]] = []
    try:
        for name in [*gone, *names]:
            place, before = folder / name, kept / name
            if os.path.lexists(place):
                before.parent.mkdir(parents=True, exist_ok=True)
                undo.append((before, place))
                shutil.move(place, before)
            if name in names:
                place.parent.mkdir(parents=True, exist_ok=True)
                undo.append((None, place))
                _put(new / name, place)
    except BaseException:
        for old, place in reversed(undo):
            if old is None:
                place.unlink(missing_ok=True)
            elif os.path.lexists(old):
                shutil.move(old, place)
        _remove_empty(folder, [*gone, *names])
        raise
    _remove_empty(folder, gone)


def _put(source: Path, place: Path) -> None:
    part = _beside(place)
    try:
        try:
            os.link(source, part)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, part)
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a file is in a folder by its name and by its place: no ".." and no link leads out."""
    return ".." not in path.parts and Path(os.path.realpath(path.parent)).is_relative_to(folder) and not path.is_dir()


def _remove_empty(folder: Path, names: Iterable[Path]) -> None:
    for above in {above for name in names for above in name.parents} - {Path()}:
        with contextlib.suppress(OSError):
            (folder / above).rmdir()


def _files(folder: Path) -> list[Path]:
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    return sorted(path for path in paths if path.relative_to(folder).parts[0] != BEFORE)
