"""Rows of numbers on disk, each under a key: mapped into memory, and trusted only if their checksums hold.

Whatever was made before a process was killed stays; a row that is damaged or half written is missing, and is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

KEY, SUM = 16, 16  # bytes of a key and of a checksum


class RowStore:
    """Rows of a shape and dtype in a folder, `name.rows`, with their keys in `name.keys`.

    `made` says how rows are made of what the keys stand for; rows that were made in another way are dropped. Keys are
    hexadecimal and at least 16 bytes long, as SHA-256 gives them. One process writes at a time, which the caller sees
    to. Raises OSError where a file cannot be written.
    """

    def __init__(self, folder: Path, name: str, shape: Sequence[int], dtype: Any, made: Mapping[str, Any]):
        self.made, self.shape, self.dtype = dict(made), tuple(shape), np.dtype(dtype)
        self.bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.data, self.keys = folder / f"{name}.rows", folder / f"{name}.keys"
        folder.mkdir(parents=True, exist_ok=True)
        _begin(
            folder / f"{name}.json", {**made, "shape": [*self.shape], "dtype": str(self.dtype)}, self.data, self.keys
        )
        self.places = self._whole()

    def __contains__(self, key: str) -> bool:
        return _key(key) in self.places

    def add(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Append rows `[N, ...]` and, when they are on the disk, their keys."""
        content = [np.ascontiguousarray(row, self.dtype).tobytes() for row in rows]
        shorts = [_key(key) for key in keys]
        _append(self.data, b"".join(content))
        _append(self.keys, b"".join(key + _sum(key, one) for key, one in zip(shorts, content, strict=True)))
        for key in shorts:
            self.places[key] = self.count
            self.count += 1

    def check_space(self, count: int) -> None:
        """Raises OSError unless there is room for so many more rows."""
        needed, free = count * (self.bytes + KEY + SUM), shutil.disk_usage(self.data.parent).free
        if needed > free:
            raise OSError(f"{self.data} needs {needed / 1e6:.1f} MB more, and {free / 1e6:.1f} MB are free")

    def mapped(self) -> np.ndarray:
        """All rows `[N, ...]`, read from the disk as they are needed."""
        if not self.count:
            return np.empty((0, *self.shape), self.dtype)
        return np.memmap(self.data, self.dtype, "r", shape=(self.count, *self.shape))

    def at(self, keys: Sequence[str]) -> np.ndarray:
        """Where the rows of some keys are in `mapped`, int64 `[len(keys)]`; raises KeyError."""
        return np.fromiter((self.places[_key(key)] for key in keys), np.int64, len(keys))

    def _whole(self) -> dict[bytes, int]:
        """The places of the rows whose checksums hold; what was half written at the end is cut off."""
        self.count = min(self.data.stat().st_size // self.bytes, self.keys.stat().st_size // (KEY + SUM))
        os.truncate(self.data, self.count * self.bytes)
        os.truncate(self.keys, self.count * (KEY + SUM))
        places = {}
        with self.data.open("rb") as data, self.keys.open("rb") as keys:
            for place in range(self.count):
                key, total = keys.read(KEY), keys.read(SUM)
                if _sum(key, data.read(self.bytes)) == total:
                    places[key] = place
        return places


def _begin(path: Path, made: dict[str, Any], *files: Path) -> None:
    """Keep files that were begun with the same words, and empty all others."""
    text = json.dumps(made, sort_keys=True)
    if not (path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text):
        path.unlink(missing_ok=True)
        for file in files:
            file.write_bytes(b"")
        path.write_text(text, encoding="utf-8")
    for file in files:
        file.touch()


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _key(key: str) -> bytes:
    return bytes.fromhex(key)[:KEY]


def _sum(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(key + content, digest_size=SUM).digest()
