"""Files of strangers: JSON, text and tensors, read in bounded time and memory, and nothing in them is run."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import stat
import threading
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

MOST_TEXT = 2**24  # bytes of a JSON or text file; the published vocabulary and its merges have 2^20
MOST_HEADER = 2**22  # bytes that describe the tensors of a file: tens of thousands of them
MOST_PICKLE = 3 * 2**19  # bytes of a pickle's program; for all that training keeps of 1000 tensors it has 2^20
MOST_READS = 2**19  # of such a program from a file in which it stands before the numbers
MOST_VIEWED = 2  # times the size of a file that its tensors may have: tied weights are views of the same numbers


class CheckpointError(OSError):
    """A model's files are missing, damaged, of another kind, or do not fit together: which, and what would be right."""


def one_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def described(where: Path | str) -> Iterator[None]:
    """The last net under what reads a stranger's files: an error that no check foresaw is a CheckpointError, too."""
    try:
        yield
    except CheckpointError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError,
            TypeError, ValueError) as error:  # fmt: skip
        raise CheckpointError(
            f"{where} cannot be read as a model: {type(error).__name__}, {one_line(error)}"
        ) from error


def check_regular(path: Path, most: int | None = None, *, hint: str = "") -> int:
    """The size of a file; raises CheckpointError for what is none (a pipe, say, that never ends) or is too large."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing{hint}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is no regular file")
    if most is not None and found.st_size > most:
        raise CheckpointError(f"{path} has {found.st_size} bytes, no such file needs more than {most}")
    return found.st_size


def read_text(path: Path, most: int = MOST_TEXT, *, hint: str = "") -> str:
    """The text of a regular file of at most so many bytes, in UTF-8; raises CheckpointError."""
    check_regular(path, most, hint=hint)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is no text in UTF-8 ({one_line(error)}); the file may be damaged") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises CheckpointError when it is missing, unreadable or no object."""
    text = read_text(path, hint="; a model folder in the diffusers layout has it")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({one_line(error)}); the file may be damaged") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def read_tensors(files: Iterable[Path]) -> dict[str, Tensor]:
    """All tensors of some files, mapped into memory where the format allows, not copied; nothing in them is executed.

    Raises CheckpointError when a file is missing, truncated or holds anything but tensors.
    """
    found: dict[str, Tensor] = {}
    for path in files:
        found.update(_read_safetensors(path) if path.suffix == ".safetensors" else _tensors_of(read_pickle(path), path))
    return found


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_regular(path)
    try:
        with path.open("rb") as file:
            if (header := int.from_bytes(file.read(8), "little")) > MOST_HEADER:
                raise ValueError(f"its header would have {header} bytes")
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({one_line(error)}); it may be damaged"
        ) from None


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path} must hold named tensors and nothing else, got {type(content).__name__}")
    return dict(content)


# ------------------------------------------------------------------------------------------ pickles


class _Inert:
    """What stands for an object that is not wanted: whatever its pickle does to it, nothing happens."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _plain_dict(*_: object) -> dict[Any, Any]:
    return {}


ASIDE: list[Any] = [  # what training code keeps beside its tensors, by the names under which pickles ask for it
    (_plain_dict, "collections.defaultdict"),
    *((_Inert, f"builtins.{kind}") for kind in ("int", "float", "list", "dict", "str")),  # for the defaults of such
    *((_Inert, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *((_Inert, f"numpy.{kind}") for kind in ("dtype", "ndarray")),
]
LOADING = threading.Lock()  # torch keeps what a pickle may ask for in one place for all threads


def read_pickle(path: Path) -> Any:
    """The content of a torch file (.bin, .pth, .pt): tensors, numbers, text and containers of them.

    What numpy and `defaultdict` left beside them is read as nothing; a pickle that would import or call anything else
    is refused unread (`weights_only`). Raises CheckpointError.
    """
    size = check_regular(path)
    try:
        with path.open("rb") as file, warnings.catch_warnings(), LOADING, torch.serialization.safe_globals(ASIDE):
            warnings.simplefilter("ignore")  # about a pickle's protocol, before it is refused
            start = file.read(2)
            if start == b"PK":
                _check_zip(path)
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            elif start[:1] == pickle.PROTO:  # the format of torch before 1.6, which cannot be mapped
                file.seek(0)
                bounded: Any = _Bounded(file)
                content = torch.load(bounded, map_location="cpu", weights_only=True)
            else:
                raise zipfile.BadZipFile
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower():
            named = re.search(r"GLOBAL (\S+)", str(error))
            what = f" ({named[1]:.60})" if named else ""
            raise CheckpointError(f"{path} holds more than tensors and plain values{what}; it was not loaded") from None
        problem = type(error).__name__
    except CheckpointError:
        raise
    except Exception as error:  # torch.load raises many kinds
        problem = type(error).__name__
    else:
        _check_tensors(content, path, size)
        return content
    raise CheckpointError(f"{path} is not a readable torch file ({problem}); it may be damaged")


def _check_zip(path: Path) -> None:
    """An archive as torch writes it: entries are not compressed, and the pickle's program is short."""
    with path.open("rb") as file, zipfile.ZipFile(_Short(file)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"{path} has compressed entries, which torch never writes; it was not loaded")
            if entry.filename.endswith("data.pkl"):
                if entry.file_size > MOST_PICKLE:
                    raise CheckpointError(f"{path} describes its tensors in {entry.file_size} bytes; it was not loaded")
                if b"bytearray\n" in archive.read(entry):  # of any size, all of it written
                    raise CheckpointError(f"{path} holds more than tensors and plain values (bytearray)")


class _Short:
    """A file for `zipfile`, which reads the list of an archive's entries in one piece: no long one."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        found = self.file.read(min(count, MOST_HEADER + 1) if count >= 0 else MOST_HEADER + 1)
        if len(found) > MOST_HEADER:
            raise zipfile.BadZipFile
        return found


class _Bounded:
    """A file for torch's unpickler, which stops a program that is longer than any list of tensors."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.reads = file, 0
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto  # type: ignore[attr-defined]

    def read(self, count: int = -1) -> bytes:
        self._count()
        return self.file.read(count)

    def readline(self) -> bytes:
        self._count()
        line = self.file.readline(1024)
        if line == b"bytearray\n":
            raise pickle.UnpicklingError
        return line

    def _count(self) -> None:
        self.reads += 1
        if self.reads > MOST_READS:
            raise pickle.UnpicklingError


def _check_tensors(content: Any, path: Path, size: int) -> None:
    """Each tensor is a plain one whose numbers are in the file, and they are not shown over and over again."""
    viewed = 0
    for name, tensor in _tensors_in(content):
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: {name} is no plain tensor")
        if tensor.is_nested or tensor.is_quantized:
            raise CheckpointError(f"{path}: {name} is no plain tensor")
        if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: {name} claims {tensor.numel()} numbers, the file does not hold as many")
        viewed += tensor.numel() * tensor.itemsize
    if viewed > MOST_VIEWED * size:
        raise CheckpointError(f"{path}: its tensors claim {viewed} bytes, the file has {size}")


def _tensors_in(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested containers, with their names, each container once."""
    waiting, seen = [("the content", content)], set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{key!r:.80}" if isinstance(key, str) else name, inside) for key, inside in items]
