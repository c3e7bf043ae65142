"""Tensor files: read without copying and without running anything in them, checked, and put into a module."""

from __future__ import annotations

import contextlib
import json
import pickle
import types
import typing
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vqlearn.arguments import shown

Module = typing.TypeVar("Module", bound=nn.Module)


class CheckpointError(OSError):
    """A model's files are missing, damaged, of another kind, or do not fit together: which, and what would be right."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises CheckpointError when it is missing, unreadable or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; a model folder in the diffusers layout has it") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({one_line(error)}); the file may be damaged") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def one_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The files of a folder that hold its tensors, safetensors before .bin, one or many shards.

    Raises CheckpointError when there are none, or when the index of shards is damaged or points out of the folder.
    """
    for ending in ("safetensors", "bin"):
        single, index = folder / f"{stem}.{ending}", folder / f"{stem}.{ending}.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            names = read_json(index).get("weight_map")
            if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
                raise CheckpointError(f"{index} must map tensors to files under 'weight_map'")
            shards = sorted(set(names.values()))
            for name in shards:
                if Path(name).name != name or name in ("", ".", "..") or "\\" in name or not name.endswith(ending):
                    raise CheckpointError(f"{index} names {name!r}, which is no .{ending} file of its own folder")
            return [folder / name for name in shards]
    raise CheckpointError(
        f"{folder} has no weights: {stem}.safetensors or {stem}.bin is missing; "
        "a model folder in the diffusers layout has one of them"
    )


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

    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({one_line(error)}); it may be damaged"
        ) from None


def read_pickle(path: Path) -> Any:
    """The content of a torch file (.bin, .pth, .pt): tensors, numbers, text and containers of them, nothing else.

    A pickle that would import or call anything is refused unread (`weights_only`). Raises CheckpointError.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    for mapped in (True, False):  # only files in the zip format (torch 1.6 and later) can be mapped
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about a pickle's protocol, before it is refused
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            if "weights_only" in str(error).lower():
                raise CheckpointError(f"{path} holds more than tensors and plain values; it was not loaded") from None
            problem = error.__class__.__name__
        except Exception as error:  # torch.load raises many kinds
            problem = error.__class__.__name__
    raise CheckpointError(f"{path} is not a readable torch file ({problem}); it may be damaged")


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path} must hold named tensors and nothing else, got {type(content).__name__}")
    return dict(content)


# ------------------------------------------------------------------------------------------ modules


def build(
    kind: Any, config: dict[str, Any], where: Path | str, *, most: int | None = None, device: str = "meta"
) -> Any:
    """An object of a class from a configuration, a module on torch's "meta" device: without memory for its weights.

    A network checks its configuration itself. Of another class, keys that it does not take are ignored, and values of
    another type than its hints say are refused. `most` bounds the number of layers: a file of n tensors cannot fill
    more than n of them. Raises CheckpointError.
    """
    try:
        if settings := getattr(kind, "config_class", None):
            if (layers := settings.of(**config).layers) > (layers if most is None else most):
                raise ValueError(f"its {layers} layers are more than the {most} tensors beside it can fill")
        else:
            config = _hinted(kind, config)
        with torch.device(device), _Unfilled() if device == "meta" else contextlib.nullcontext():
            return kind(**config)
    except (TypeError, ValueError, RuntimeError, OverflowError, ZeroDivisionError, AssertionError) as error:
        raise CheckpointError(f"{where} does not describe a {kind.__name__}: {one_line(error)}") from None


def _hinted(kind: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration what a class takes; raises ValueError for values of another type than its hints say."""
    hints = typing.get_type_hints(kind.__init__)
    chosen = {key: value for key, value in config.items() if key in hints}
    for key, value in chosen.items():
        if not _is_a(value, hints[key]):
            raise ValueError(f"{key} must be {_spell(hints[key])}, got {shown(value)}")
    return chosen


class _Unfilled(TorchFunctionMode):
    """Leaves out the initial values of weights: on "meta" they have no memory, and drawing them imports a compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _is_a(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, one) for one in inner)
    if inner:  # Iterable[...]
        return isinstance(value, list) and all(_is_a(one, inner[0]) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _spell(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("collections.abc.", "").replace("typing.", "")


def assign(
    module: Module, tensors: dict[str, Tensor], where: Path | str, *, dtype: torch.dtype = torch.float32
) -> Module:
    """Make tensors the weights of a module that `build` made; cast only where their type is another.

    Raises CheckpointError for missing, unknown or misshapen tensors and for values that are not finite.
    """
    expected = module.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise CheckpointError(
            f"{where} lacks {len(missing)} tensors that its configuration asks for, the first is {missing[0]!r}"
        )
    if extra := sorted(tensors.keys() - expected.keys()):
        raise CheckpointError(
            f"{where} has {len(extra)} tensors that its configuration knows nothing of, the first is {extra[0]!r}"
        )
    ready = {}
    for name, tensor in tensors.items():
        want = expected[name]
        if tensor.shape != want.shape:
            raise CheckpointError(
                f"{where}: {name!r} has shape {list(tensor.shape)}, its configuration asks for {list(want.shape)}"
            )
        if tensor.is_floating_point() != want.is_floating_point() or tensor.is_complex():
            raise CheckpointError(f"{where}: {name!r} holds {tensor.dtype}, it should be like {want.dtype}")
        tensor = tensor.to(dtype if want.is_floating_point() else want.dtype)
        if want.is_floating_point() and tensor.numel() and not all(bool(x.isfinite()) for x in tensor.aminmax()):
            raise CheckpointError(f"{where}: {name!r} holds values that are not finite; the file may be damaged")
        ready[name] = tensor
    module.load_state_dict(ready, assign=True)
    module.requires_grad_(True).eval()
    return module
