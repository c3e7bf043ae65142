"""The processes that learn one model together, as `torchrun` starts them; without it there is one.

All of them do the same: they draw the same numbers, make the same updates and keep the same state. Only the rows of a
batch are shared out. Each process evaluates the networks on its own rows, and `DistributedDataParallel` averages the
gradients. So an update is that of one process up to rounding, and what the first process writes is what all know.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

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
        first = str(error).partition("\n")[0]
        why = re.sub(r".*\[\S+\.\w+:\d+\] ", "", first).partition(". ")[0]  # without places in torch
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


def merged(own: dict[str, Any]) -> dict[str, Any]:
    """The entries of all processes."""
    if count() == 1:
        return own
    found: list[Any] = [None] * count()
    with heard():
        dist.all_gather_object(found, own)
    return {key: value for one in found for key, value in one.items()}


def any_of(flag: bool) -> bool:
    """Whether a flag is set in any process."""
    return means([flag]) > [0]


class Learners(nn.Module):
    """Parameters that are learned, for `learn`: here those of one process."""

    def __init__(self, parameters: Iterable[Tensor]):
        super().__init__()
        self.learned = nn.ParameterList(parameters)
        self.idle = nn.Parameter(torch.zeros_like(self.learned[0]).sum())  # where all are needed torch's class warns

    def forward(self, evaluate: Callable[..., Any], *arguments: Any) -> Any:
        return evaluate(*arguments)

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Within it gradients are only added up; so torch's class calls it, too."""
        return contextlib.nullcontext()


def replicated(parameters: Iterable[Tensor]) -> Any:
    """`Learners` that are the same in all processes, and are given the mean gradients of all (`learn`).

    The others are given the numbers of the first process, now.
    """
    found = Learners(parameters)
    if count() == 1:
        return found
    # What was not needed is found out in each update, or torch would arrange gradients anew after the first one, and a
    # run that goes on would round otherwise than one without a break.
    with heard():
        replicas = DistributedDataParallel(found, find_unused_parameters=True)
    replicas.register_comm_hook(None, lambda _, bucket: _mean(bucket))  # torch takes no annotations as text
    return replicas


def _mean(gradients: Any) -> torch.futures.Future[Tensor]:
    """The mean over the processes of some gradients, which are added up in float32 at least."""
    own = gradients.buffer()
    sums = own.to(torch.promote_types(own.dtype, torch.float32)).div_(count())
    work: Any = dist.all_reduce(sums, async_op=True)
    found: torch.futures.Future[Tensor] = work.get_future().then(lambda done: own.copy_(done.value()[0]))
    return found


def learn(learners: Any, evaluate: Callable[..., Any], *arguments: Any, last: bool = True) -> tuple[Tensor, Any]:
    """What `evaluate` returns, a loss and more, when the gradient of the loss has been added to that of `learners`.

    With `last` gradients are then the means over the processes; one that no process has stays None.
    """
    with contextlib.nullcontext() if last else learners.no_sync():
        loss, more = learners(evaluate, *arguments)
        with heard():
            loss.backward()
    return loss.detach(), more


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Give all processes the numbers of the first."""
    if count() > 1:
        with heard():
            for one in tensors:
                dist.broadcast(one, 0)
