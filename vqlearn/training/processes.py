"""The processes that learn one model together, as `torchrun` starts them; without it there is one.

All of them do the same: they draw the same numbers, make the same updates and keep the same state. Only the rows of a
batch are shared out. Each process evaluates the networks on its own rows, and the gradients are averaged. So an update
is that of one process up to rounding, and what the first process writes is what all of them know.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

_patient: dist.ProcessGroup | None = None  # it waits for hours, while the first process reads millions of pictures


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def own(rows: int) -> slice:
    """Which of the rows of a batch are evaluated here: every `count`-th, from that with the number of this process.

    Raises ValueError for a batch that the processes cannot share out evenly.
    """
    if rows % count():
        raise ValueError(f"{count()} processes cannot share out a batch of {rows} rows evenly, it must be a multiple")
    return slice(rank(), None, count()) if count() > 1 else slice(None)


@contextlib.contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the other processes that `torchrun` has started, if it has; yields the device of this one.

    On "cuda" each process of a machine has a GPU of its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    global _patient
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    _patient = dist.new_group(backend="gloo", timeout=timedelta(days=30))
    yield device
    dist.destroy_process_group()  # after an error the process ends, and others might be waited for in vain


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """What torch raises where another process has ended, as a ChildProcessError."""
    try:
        yield
    except RuntimeError as error:  # its class and words depend on the backend
        if count() == 1 or isinstance(error, torch.OutOfMemoryError):
            raise
        why = re.sub(r"^\[\S+\] ", "", str(error)).partition("\n")[0].partition(". ")[0]  # without places in torch
        raise ChildProcessError(f"another of the {count()} processes has ended or cannot be reached ({why})") from error


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process do what is done here before the others, which then find on the disk what it has made.

    Where it fails it says why, and the others end without a word.
    """
    if count() == 1:
        yield
        return
    if rank():
        try:
            dist.barrier(_patient)
        except RuntimeError:
            raise SystemExit(2) from None
    yield
    if not rank():
        with heard():
            dist.barrier(_patient)


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes, `[n, ...]` of each, in the order of the batch."""
    if count() == 1:
        return x
    found = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(count())]
    with heard():
        dist.all_gather(found, x.contiguous())
    return torch.stack(found, 1).flatten(0, 1)


def means(values: Sequence[float]) -> list[float]:
    """The mean over the processes of each number."""
    if count() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    with heard():
        dist.all_reduce(total)
    found: list[float] = (total / count()).tolist()
    return found


def any_of(flag: bool) -> bool:
    """Whether a flag is set in any process."""
    return means([flag]) > [0]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the processes, always added up in one order.

    A gradient that no process has stays None, one that some have is zero in the others.
    """
    if count() == 1:
        return
    parameters = list(parameters)
    used = torch.tensor([one.grad is not None for one in parameters], device=parameters[0].device, dtype=torch.int32)
    with heard():
        dist.all_reduce(used)
    learned = [one for one, by in zip(parameters, used.tolist(), strict=True) if by]
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in learned]
    flat = torch.cat([one.flatten() for one in gradients])
    with heard():
        dist.all_reduce(flat)
    parts = (flat / count()).split([one.numel() for one in gradients])
    for one, mean in zip(learned, parts, strict=True):
        one.grad = mean.view_as(one)


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Give all processes the numbers of the first."""
    if count() > 1:
        with heard():
            for one in tensors:
                dist.broadcast(one, 0)
