"""What a piece of work makes the host wait for, and the memory that it takes."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Memcpy DtoH")  # begins of names
READS = ("aten::item", "aten::_local_scalar_dense")  # the same on a CPU, where nobody waits


class HostReads(TorchDispatchMode):
    """Counts what is asked of tensors on the device "meta", which hold no values: each would wait for a real device.

    The answers are made up: 0 for a single number, 1 for every entry of a copy. `sent` counts the copies to the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.sent = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            self.reads += 1
            return 0.0 if args[0].is_floating_point() else 0
        if func is torch.ops.aten._to_copy.default:
            come, go = args[0].device.type, torch.device(kwargs.get("device") or args[0].device).type
            if (come, go) == ("meta", "cpu"):
                self.reads += 1
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            self.sent += come == "cpu" and go == "meta"
        return func(*args, **kwargs)


def quietly() -> AbstractContextManager:
    """Without the profiler's own remarks, which differ between torch's versions."""
    return warnings.catch_warnings(action="ignore")


def waits(work: Callable[[], Any], device: torch.device) -> Counter[str]:
    """How often the host waited for a GPU while `work` ran, by the profiler's names; on a CPU how often it read."""
    activities: list[ProfilerActivity] = [ProfilerActivity.CPU]
    names: tuple[str, ...] = READS
    if device.type == "cuda":
        activities, names = [*activities, ProfilerActivity.CUDA], WAITS
    with quietly(), profile(activities=activities) as profiler:
        work()
    found: Counter[str] = Counter()
    for event in profiler.key_averages():
        for name in names:
            if event.key.startswith(name):
                found[name] += event.count
    return found


def waits_per_step(run: Callable[[int], Any], device: torch.device, *, few: int = 2, many: int = 6) -> dict[str, float]:
    """Waits that each further step of `run(steps)` costs; what comes once, before or after the loop, is left out."""
    run(few)  # so that nothing is done for the first time below
    first, second = (waits(functools.partial(run, steps), device) for steps in (few, many))
    return {name: (second[name] - first[name]) / (many - few) for name in sorted(first.keys() | second.keys())}


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """The most memory of a device that `work` held at a time, beyond what was held before it."""
    if device.type != "cuda":
        with quietly(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            kept = work()
        events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        del kept
        return max(itertools.accumulate(sizes, initial=0))
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    kept = work()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    del kept
    return peak
