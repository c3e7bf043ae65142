"""The checkpoint of a run: one file, whole or refused, from which a run with the same recipe goes on.

Tensors that processes share out are in a folder beside it, which the file names; each process writes its own parts.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from vqlearn.arguments import shown, whole
from vqlearn.checkpoints.reading import CheckpointError, read_pickle
from vqlearn.data.files import replaced
from vqlearn.training import processes, sharding

NAME = "checkpoint.pt"
PARTS = re.compile(r"checkpoint-\d+\.parts")  # the folder of what processes share out, with the number of updates
DIGEST = hashlib.sha256().digest_size
MOST_GROWN, MOST_BESIDE = 8, 2**26  # of a new stage's bytes (the optimizer adds its moments), and for all else
PLAIN = (bool, int, float, str, type(None), torch.Size, torch.dtype, torch.device)


class Stage(Protocol):
    """What a run needs of what learns: numbered steps, all of its state, how many steps there are, and its settings."""

    recipe: Any  # with `steps`

    def step(self, number: int) -> dict[str, float]: ...
    def settings(self) -> dict[str, Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def save(stage: Stage, folder: Path, number: int) -> None:
    """Write all of a stage's state after `number` updates; the old checkpoint is kept until the new one is on the disk.

    Of several processes the first writes, and each the parts of tensors that it has; all must call this together.
    Raises FloatingPointError for a state that is not finite and OSError where the file cannot be written.
    """
    content, shared = sharding.taken_apart(contents(stage, number))
    name = f"checkpoint-{number}.parts" if shared else None
    if name:
        form = {key: (one.shape, one.dtype) for key, one in shared.items()}
        content["parts"] = {"folder": name, "files": sharding.save(shared, folder / name), "tensors": form}
    if processes.rank():
        return
    with replaced(folder / NAME) as part, part.open("wb+") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # about a position in the file; the reason, say a full disk, is behind it
            raise error.__context__ or error from None
        _seal(file)
        os.fsync(file.fileno())
    for other in folder.iterdir():  # of older checkpoints, and of one that was being written when a process ended
        if PARTS.fullmatch(other.name) and other.name != name:
            shutil.rmtree(other, ignore_errors=True)


def contents(stage: Stage, number: int) -> dict[str, Any]:
    """What a checkpoint holds; raises FloatingPointError or TypeError, naming what is not finite or cannot be read."""
    settings, state = stage.settings(), stage.state_dict()
    _check(settings, "settings")
    wrong: Exception | None = None
    try:
        _check(state, "state")
    except (FloatingPointError, TypeError) as error:
        wrong = error
    if processes.any_of(wrong is not None):
        raise wrong or FloatingPointError("the state of another process is not finite")
    return {"step": number, "recipe": settings, "state": state}


def load(stage: Stage, folder: Path) -> int:
    """Bring a stage to where the checkpoint of a folder was saved: after how many updates, 0 where there is none.

    Raises ValueError for a checkpoint of another recipe and OSError for one that is damaged or of another network.
    """
    path = folder / NAME
    if not path.exists():
        return 0
    anew = "; delete it to begin anew, or choose another folder"
    own = stage.state_dict()
    try:
        number, recipe, state = _read(path, MOST_GROWN * _bytes(own) + MOST_BESIDE, own)
    except CheckpointError as error:
        raise OSError(f"{error}{anew}") from None
    except ValueError as error:
        raise OSError(f"{path} cannot be read ({error}){anew}") from None
    for name, ours in stage.settings().items():
        if repr(theirs := recipe.get(name)) != repr(ours):
            raise ValueError(
                f"{path} was made with {name} = {shown(theirs)}, now it is {ours!r}; choose another folder"
            )
    try:
        number = whole("step", number, 1, stage.recipe.steps)
        _check(state, "state")
    except Exception as error:  # tensors of odd kinds and lists in themselves raise many
        why = error if isinstance(error, ValueError | FloatingPointError) else type(error).__name__
        raise OSError(f"{path} is malformed ({why}){anew}") from None
    try:
        stage.load_state_dict(state)
    except Exception:  # a state that does not fit may raise anything
        raise OSError(f"{path} holds another network than this one; choose another folder") from None
    return number


def check_form(saved: Any, own: Any, name: str = "state") -> None:
    """Raises ValueError unless what was saved has the keys, shapes and dtypes of what is to take its place."""
    if isinstance(own, dict):
        fits = isinstance(saved, dict) and saved.keys() == own.keys()
    elif isinstance(own, Tensor):
        fits = isinstance(saved, Tensor) and (saved.shape, saved.dtype) == (own.shape, own.dtype)
    else:
        fits = type(saved) is type(own)
    if not fits:
        raise ValueError(f"{name} has another form")
    if isinstance(own, dict):
        for key, value in own.items():
            check_form(saved[key], value, f"{name}.{key}")


def _read(path: Path, most: int, own: Any) -> tuple[Any, dict[str, Any], Any]:
    """Step, recipe and state as they are in files of at most so many bytes; nothing in them is run."""
    if not path.is_file():  # a pipe would be read for ever
        raise ValueError("it is not a regular file")
    if (size := path.stat().st_size) > most:
        raise ValueError(f"it has {size} bytes, this training needs no more than {most}")
    with path.open("rb") as file:
        if not _is_sealed(file):
            raise ValueError("its checksum is wrong")
    saved = read_pickle(path)
    if not (isinstance(saved, dict) and {"step", "recipe", "state"} <= saved.keys()):
        raise ValueError("it must hold step, recipe and state")
    if not isinstance(saved["recipe"], dict):
        raise ValueError(f"recipe must be a dict, got {shown(saved['recipe'])}")
    if "parts" in saved:
        saved = _with_parts(saved, saved["parts"], path.parent, most, own)
    return saved["step"], saved["recipe"], saved["state"]


def _with_parts(saved: Any, parts: Any, folder: Path, most: int, own: Any) -> Any:
    """A checkpoint with what processes have shared out, from its folder; raises ValueError."""
    if not _is_list_of_parts(parts):
        raise ValueError(f"its parts must have a folder, files and tensors, got {shown(parts)}")
    size = sum(shape.numel() * dtype.itemsize for shape, dtype in parts["tensors"].values())
    if size > most:
        raise ValueError(f"its parts have {size} bytes, this training needs no more than {most}")
    found = sharding.load(parts["tensors"], folder / parts["folder"], parts["files"], own)
    return sharding.put_together(saved, found)


def _is_list_of_parts(parts: Any) -> bool:
    """Whether a folder, files with their checksums and tensors with their forms are named."""
    if not (isinstance(parts, dict) and parts.keys() == {"folder", "files", "tensors"}):
        return False
    folder, *named = parts["folder"], parts["files"], parts["tensors"]
    if not (isinstance(folder, str) and PARTS.fullmatch(folder) and all(isinstance(one, dict) for one in named)):
        return False
    kinds = [torch.Size, torch.dtype]
    return all(type(one) is tuple and [type(each) for each in one] == kinds for one in parts["tensors"].values())


def _bytes(value: Any) -> int:
    """How many bytes the tensors in a state have."""
    if isinstance(value, dict | list | tuple):
        return sum(map(_bytes, value.values() if isinstance(value, dict) else value))
    return value.nbytes if isinstance(value, Tensor) else 0


def _check(value: Any, name: str) -> None:
    """Raises FloatingPointError for a tensor that is not finite, TypeError for what `torch.load` would not read."""
    if isinstance(value, dict):
        for key, one in value.items():
            _check(one, f"{name}.{key}")
    elif type(value) in (list, tuple):
        for number, one in enumerate(value):
            _check(one, f"{name}[{number}]")
    elif isinstance(value, Tensor):
        if not torch.isfinite(sharding.own_part(value)).all():
            raise FloatingPointError(f"{name} is not finite")
    elif type(value) not in PLAIN:
        raise TypeError(f"{name} must be tensors, numbers, text or containers of them, got {shown(value)}")


def _seal(file: BinaryIO) -> None:
    """Append the SHA-256 of a zip file to it, as its comment: the end of such a file is the comment and its length."""
    file.seek(-2, os.SEEK_END)
    file.write(DIGEST.to_bytes(2, "little"))
    file.write(_digest(file, file.tell()))
    file.flush()


def _is_sealed(file: BinaryIO) -> bool:
    size = file.seek(0, os.SEEK_END) - DIGEST
    return _digest(file, size) == file.read()


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first `size` bytes, after which the file is then read."""
    found = hashlib.sha256()
    file.seek(0)
    while size > 0 and (some := file.read(min(size, 2**20))):
        found.update(some)
        size -= len(some)
    return found.digest()
