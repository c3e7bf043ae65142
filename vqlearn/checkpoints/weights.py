"""The weights of a module: which files hold them, and how they become it, checked and without a copy."""

from __future__ import annotations

import contextlib
import itertools
import types
import typing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vqlearn.arguments import shown
from vqlearn.checkpoints.layout import ANY, Files
from vqlearn.checkpoints.reading import CheckpointError, one_line, read_json

Module = typing.TypeVar("Module", bound=nn.Module)


def weight_files(folder: Path, stem: str, files: Files = ANY) -> list[Path]:
    """The files of a folder that hold its tensors, safetensors before .bin, one or many shards, first of a variant.

    Raises CheckpointError when there are none, or when the index of shards is damaged or points out of the folder.
    """
    for infix, ending in itertools.product(files.infixes, files.endings):
        single, index = folder / f"{stem}{infix}.{ending}", folder / f"{stem}.{ending}.index{infix}.json"
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
    wanted = " or ".join(f"{stem}.{ending}" for ending in files.endings)
    raise CheckpointError(
        f"{folder} has no weights: {wanted} is missing; a model folder in the diffusers layout has one of them"
    )


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
