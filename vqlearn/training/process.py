"""What a run asks of its process: a folder for itself, and that signals to stop wait for the end of a step."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from vqlearn.training import processes

STOPS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # as this system has


@contextlib.contextmanager
def on_stop(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Call `handler` on Ctrl-C, SIGTERM and SIGHUP, but for those that are ignored (as under `nohup`).

    Only the main thread can do so, in others nothing changes.
    """
    main = threading.current_thread() is threading.main_thread()
    ignored = (signal.SIG_IGN, None)  # None: not from Python, so it could not be put back
    before = {number: signal.getsignal(number) for number in STOPS if main}
    before = {number: old for number, old in before.items() if old not in ignored}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def stops() -> Iterator[list[int]]:
    """The signals to stop that have come, collected instead of raised in the middle of a step.

    A second Ctrl-C raises KeyboardInterrupt at once. The others come twice when a terminal is closed.
    """
    come: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in come:
            raise KeyboardInterrupt
        come.append(number)

    with on_stop(note), dead_children_unheard(signal.SIG_DFL):
        yield come


@contextlib.contextmanager
def dead_children_unheard(handler: Any = None) -> Iterator[None]:
    """Put SIGCHLD's handler back at the end, where torch sets its own; `handler` takes its place meanwhile.

    That of torch raises wherever a step is when a process that loads data dies, and leaves half an update. Without it
    the death is an error of the next batch.
    """
    number: Any = getattr(signal, "SIGCHLD", None)  # not on Windows
    before = signal.getsignal(number) if number and threading.current_thread() is threading.main_thread() else None
    try:
        if before is not None and handler is not None:
            signal.signal(number, handler)
        yield
    finally:
        if before is not None:
            signal.signal(number, before)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Make a folder and keep other trainings and evaluations out of it; yields a check that it is still there.

    The lock is the system's and ends with the process, however that ends; of several processes of one training the
    first has it. Raises OSError for a folder that cannot be made, that another training or evaluation uses or, by the
    check, that was deleted or moved.
    """
    if processes.rank():
        yield lambda: None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be made ({error.strerror})") from None
    with contextlib.ExitStack() as stack:
        if sys.platform != "win32":  # which has no locks on folders
            stack.enter_context(_lock(folder))
        own = folder.stat()

        def check() -> None:
            if not (folder.is_dir() and os.path.samestat(folder.stat(), own)):
                raise OSError(f"the folder {folder} was deleted or moved while it was in use")

        yield check


_held: set[int] = set()  # handles of folders that are locked


def _let_go() -> None:
    """In a process that reads or loads data: a lock ends with the process that has it, and not with those it made."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"another training or evaluation uses the folder {folder}; wait for its end, or choose another"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        _held.discard(handle)
        os.close(handle)
