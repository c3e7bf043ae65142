"""Files and folders of files that take the places of older ones whole: written beside them first, then moved there."""

from __future__ import annotations

import contextlib
import errno
import os
import re
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

SAVING, SAVED = ".vqlearn-saving-", ".vqlearn-saved"  # what is being written, and what is whole and being moved in
LEFT = re.compile(rf"{re.escape(SAVING)}[0-9a-f]{{16}}")
BEFORE = ".before"  # in a folder that is being moved in: the files whose places are being taken
PATIENCE = 10  # seconds that a writer waits for another one of the same folder


@contextlib.contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A path to write to, near `path`, whose place it takes at the end; after an error nothing has changed.

    A link stays, and what it names is replaced. Raises OSError, before anything is written, where no file can be.
    Example::

        with replaced("model.json") as part:
            part.write_text("{}")
    """
    with replaced_files([path]) as (part,):
        yield part


@contextlib.contextmanager
def replaced_files(paths: Iterable[str | Path]) -> Iterator[list[Path]]:
    """As `replaced`, for several files, which take their places one after the other at the end."""
    places = [Path(os.path.realpath(path)) for path in paths]
    modes = [_mode(place) for place in places]
    for place in places:
        if not place.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {str(place.parent)!r}; make it first or choose another")
    with contextlib.ExitStack() as stack:
        near = {folder: stack.enter_context(_aside(folder)) for folder in dict.fromkeys(p.parent for p in places)}
        parts = [near[place.parent] / str(number) for number, place in enumerate(places)]
        for part in parts:
            part.touch(exist_ok=False)
        usual = [stat.S_IMODE(part.stat().st_mode) for part in parts]
        yield parts
        for part, place, mode, new in zip(parts, places, modes, usual, strict=True):
            part.chmod(new if mode is None else mode)
            os.replace(part, place)


def _mode(path: Path) -> int | None:
    """The permissions of a regular file, None if there is none; raises OSError for anything else of that name."""
    try:
        found = path.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found):
        raise OSError(f"{str(path)!r} is no regular file; choose another name")
    return stat.S_IMODE(found)


# ------------------------------------------------------------------------------------------ what a writer holds


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A new folder inside another, held by its writer and gone at the end; those of writers that died go first."""
    _clear_up(folder)
    while True:
        new = folder / f"{SAVING}{secrets.token_hex(8)}"
        new.mkdir()
        with _claimed(new) as held:
            if held is False:  # who clears up has found it first
                continue
            try:
                yield new
            finally:
                shutil.rmtree(new, ignore_errors=True)
        return


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[bool | None]:
    """Hold a folder against all other writers: whether that went well, None where there are no locks.

    The lock is the system's and ends with the process, however that ends.
    """
    handle, held = -1, None
    if fcntl is not None:
        try:
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(handle), folder.stat())
        except (BlockingIOError, FileNotFoundError):  # another holds it, or has just ended
            held = False
        except OSError:  # a file system without locks
            held = None
    try:
        yield held
    finally:
        if handle >= 0:
            os.close(handle)


def _clear_up(folder: Path) -> None:
    """Remove what writers that died have left in a folder; of one that may be alive nothing is touched."""
    with contextlib.suppress(OSError):  # a folder that cannot be listed
        left = [entry for entry in os.scandir(folder) if LEFT.fullmatch(entry.name)]
        for path in (Path(entry) for entry in left if entry.is_dir(follow_symlinks=False)):
            with _claimed(path) as held:
                if held:
                    shutil.rmtree(path, ignore_errors=True)


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
    whole = folder / SAVED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _finish(folder)
        with _aside(folder) as new:
            yield new
            for path in _files(new):  # safetensors' are readable by their owner alone
                path.chmod(new.stat().st_mode & 0o666)
            _check_places(new, folder)
            _rename(new, whole)
            try:
                _move_in(whole, folder, earlier)
            finally:
                shutil.rmtree(whole, ignore_errors=True)
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
    return path.name == SAVED or LEFT.fullmatch(path.name) is not None


def _finish(folder: Path) -> None:
    """Give the files their places that a killed process had written whole."""
    whole = folder / SAVED
    if whole.is_dir():
        with _claimed(whole) as held:
            if held is not False:
                _move_in(whole, folder, ())
                shutil.rmtree(whole, ignore_errors=True)


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
        _finish(whole.parent)
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
    with _aside(place.parent) as near:
        part = near / "0"
        try:
            os.link(source, part)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, part)
        os.replace(part, place)


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
