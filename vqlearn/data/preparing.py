"""All pictures of a folder looked at, once: what was found is kept on disk, and a killed process loses little of it.

A file is looked at again when its size or the time of its last change is another.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from vqlearn.data.inspection import Facts, Looked, look
from vqlearn.data.pictures import Color, color_of
from vqlearn.data.store import RowStore

AT_ONCE = 256  # files that are looked at before what was found is written
READING = 1  # another number for another way of making pixels of a file


def prepare(
    folder: Path, names: list[str], side: int, background: Color, cache: Path, *, workers: int, progress: bool
) -> tuple[dict[str, Facts], RowStore]:
    """What there is to say of each file, and a store in `cache` with the pixels of each that can be used.

    Raises OSError where the cache cannot be written, ChildProcessError where a process that reads pictures has died.
    """
    made = {"side": side, "background": [*map(float, color_of(background))], "reading": READING}
    store = RowStore(cache, f"pixels-{side}", (side, side, 3), np.uint8, made)
    memory = _Memory(cache / "files.jsonl", {**made, "folder": os.path.realpath(folder)})
    known = {name: facts for name in names if (facts := memory.facts(folder / name, name)) is not None}
    known = {name: facts for name, facts in known.items() if facts.problem or facts.digest in store}
    todo = [name for name in names if name not in known]
    store.check_space(len(todo))
    bar = tqdm(total=len(todo), disable=not (progress and todo), desc="pictures")
    with memory, bar:
        for name, looked in _looked(folder, todo, side, background, workers, store, memory):
            known[name] = looked.facts
            bar.update()
    return known, store


def _looked(
    folder: Path, names: list[str], side: int, background: Color, workers: int, store: RowStore, memory: _Memory
) -> Iterator[tuple[str, Looked]]:
    """Look at files, and write what was found every so often."""
    one = functools.partial(look, side=side, background=background)
    with _mapping(workers) as apply:
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            stats = [_state(folder / name) for name in some]  # as they were before they were read
            found = dict(zip(some, apply(one, [folder / name for name in some]), strict=True))
            new = {each.facts.digest: each.pixels for each in found.values() if each.pixels is not None}
            new = {digest: pixels for digest, pixels in new.items() if digest not in store}
            if new:
                store.add(list(new), np.stack(list(new.values())))
            memory.add(zip(some, stats, (each.facts for each in found.values()), strict=True))
            yield from found.items()


@contextlib.contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterable[Looked]]]:
    """`map`, with `workers` processes or without any."""
    if not workers:
        yield map
        return
    with concurrent.futures.ProcessPoolExecutor(workers, initializer=_begin) as pool:

        def apply(function: Callable[[Path], Looked], paths: list[Path]) -> list[Looked]:
            try:
                return list(pool.map(function, paths, chunksize=8))
            except concurrent.futures.BrokenExecutor:
                raise ChildProcessError(
                    "a process that reads pictures has died, killed or for want of memory; fewer workers take less"
                ) from None

        yield apply


def _begin() -> None:
    """Make a process ready to look at pictures, as long as that which has made it lives: nobody else would end it."""
    torch.set_num_threads(1)  # torch's threads do not survive the making of a process
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


class _Memory:
    """What was found in files, in lines of JSON; of a line that was half written nothing is taken."""

    def __init__(self, path: Path, made: dict[str, Any]):
        self.path, self.made = path, hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
        self.known: dict[str, tuple[Any, Facts]] = {}
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    self._read(line)

    def _read(self, line: str) -> None:
        try:
            made, name, state, facts = json.loads(line)
            if made == self.made:
                self.known[name] = (state, Facts(*facts))
        except (ValueError, TypeError):  # of a process that was killed
            return

    def facts(self, path: Path, name: str) -> Facts | None:
        """What was found in a file that has not changed since, if it could be read (rights may change unseen)."""
        state, facts = self.known.get(name, (None, None))
        return facts if facts and facts.digest and state is not None and state == _state(path) else None

    def add(self, found: Iterable[tuple[str, Any, Facts]]) -> None:
        lines = [json.dumps([self.made, name, state, facts]) for name, state, facts in found]
        self.file.write("\n" + "\n".join(lines) + "\n")  # what was half written before ends here
        self.file.flush()

    def __enter__(self) -> _Memory:
        self.file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _state(path: Path) -> list[int] | None:
    """By which a file is known to be as it was: its size and the time of its last change; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
