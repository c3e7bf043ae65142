"""A second device where there is none: tensors say that they are on "meta", and have their values all the same.

A GPU refuses to compute with tensors of two devices, and a CPU alone cannot show where a program would try to. Within
`second_device()` the device "meta" stands for a GPU: what is moved there computes on the CPU, but together with a
tensor that was left behind it raises an error, as CUDA does.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}  # by indices on either device


class Moved(torch.Tensor):
    """A tensor on the second device, around one with its values."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor):
        form = {"dtype": values.dtype, "layout": values.layout, "strides": values.stride(), "device": DEVICE}
        found = cls._make_wrapper_subclass(cls, values.shape, requires_grad=values.requires_grad, **form)
        found.values = values
        return found

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Moved({self.values!r})"

    def __format__(self, form: str) -> str:
        return format(self.values.detach(), form)

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(torch.tensor(index) if isinstance(index, list) else index)  # of numbers

    def tolist(self) -> Any:
        return self.values.detach().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor on another device to numpy: call .cpu() first")


class Dispatch(TorchDispatchMode):
    """So that what is made on the second device is made there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute with the values; what comes of a tensor that was moved, or is asked for there, is there."""
    given: list[torch.Tensor] = []
    each(given.append, (args, kwargs))
    moved = [one for one in given if isinstance(one, Moved)]
    check_together(func, args, given, moved)
    there = bool(moved)
    if kwargs.get("device") is not None:
        there = kwargs["device"] == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif func is aten.copy_.default:
        there = isinstance(args[0], Moved)
    found = func(*each(_values, args), **each(_values, kwargs))
    same = {id(one.values): one for one in moved}  # of what is changed in place
    wrap = there and func not in (aten._local_scalar_dense.default, aten.equal.default)
    return each(lambda one: same[id(one)] if id(one) in same else Moved(one), found) if wrap else found


def each(act: Any, value: Any) -> Any:
    """A value with `act` of each tensor in it; torch's own function for this takes most of the time of a test."""
    if isinstance(value, torch.Tensor):
        return act(value)
    if isinstance(value, list | tuple):
        return type(value)([each(act, one) for one in value])
    return {name: each(act, one) for name, one in value.items()} if isinstance(value, dict) else value


def check_together(func: Any, args: Any, given: list[torch.Tensor], moved: list[Moved]) -> None:
    """Raises RuntimeError for tensors of two devices; single numbers and indices may come from the other."""
    if any(one.device == DEVICE for one in given if not isinstance(one, Moved)):
        raise RuntimeError(f"{func}: a tensor has lost its values, this is a matter of `elsewhere`")
    if not moved or func in MOVES or (func in INDEXED and isinstance(args[0], Moved) and _all_moved(args[2:3])):
        return
    left = [tuple(one.shape) for one in given if not isinstance(one, Moved) and one.dim()]
    if left:
        raise RuntimeError(f"{func}: tensors of two devices, those of shapes {left} are on the CPU")


def _all_moved(values: Any) -> bool:
    return all(isinstance(one, Moved) or not one.dim() for one in values)


def _values(one: Any) -> Any:
    return one.values if isinstance(one, Moved) else one


class Generator(torch.Generator):
    """A generator of the CPU that says that it is on the device it was made for."""

    def __new__(cls, device: Any = "cpu"):
        return super().__new__(cls)

    def __init__(self, device: Any = "cpu"):
        self.place = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self.place


@contextlib.contextmanager
def second_device() -> Iterator[str]:
    """Within it "meta", which is given, is a device to compute on.

    In vqlearn `Generator`, `torch.tensor`, `autocast` and the optimizer are such that know of it.
    """
    tensor, optimizer = torch.tensor, torch.optim.AdamW.__init__
    with contextlib.ExitStack() as stack:
        for name, replacement in {
            "Generator": Generator,
            "tensor": lambda data, *, device=None, **form: tensor(data, **form).to(device or "cpu"),
            "autocast": lambda *_, **__: contextlib.nullcontext(),
        }.items():
            stack.enter_context(patch.object(torch, name, replacement))
        plain = {"fused": None, "foreach": False}
        stack.enter_context(
            patch.object(
                torch.optim.AdamW, "__init__", lambda self, *args, **kwargs: optimizer(self, *args, **kwargs | plain)
            )
        )
        for module in [one for name, one in sys.modules.items() if name.startswith("vqlearn")]:
            for name, replacement in {
                "Generator": Generator,
                "check_placement": lambda *_, **__: None,
                "usable": lambda *_, **__: None,
                "_is_plain": lambda x: isinstance(x, torch.Tensor),
            }.items():
                if hasattr(module, name):
                    stack.enter_context(patch.object(module, name, replacement))
        swapped = torch.__future__.get_swap_module_params_on_conversion()
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapped)
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.enter_context(Dispatch())
        yield DEVICE.type
