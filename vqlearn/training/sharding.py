"""A network that is too large for one GPU: each process holds a part of every weight (PyTorch's `fully_shard`).

Each also writes its parts into a checkpoint, and reads them from one (`torch.distributed.checkpoint`).
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqlearn.checkpoints.checksums import checksum
from vqlearn.checkpoints.reading import one_line
from vqlearn.training import processes

Form = tuple[torch.Size, torch.dtype]  # of a tensor
FROM = 500_000_000  # weights of a network that several processes share out: of the named sizes L alone


def shard(model: Any, dtype: torch.dtype | None) -> Any:
    """Leave each process a part of the weights of `Conditioned` networks, which are returned.

    The layers are put together one by one where they are evaluated.
    With `dtype` they are evaluated in it, and gradients are averaged in the dtype of the weights. Raises ImportError
    before torch 2.8, which cannot write parts of weights as safetensors.
    """
    try:
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader  # noqa: F401
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    except ImportError:
        raise ImportError(f"weights are shared out from torch 2.8 on, this is {torch.__version__}") from None

    weight = next(model.parameters())
    how: Any = {
        "mesh": init_device_mesh(weight.device.type, (processes.count(),)),
        "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=weight.dtype),
    }
    blocks: Any = model.transformer.transformer_blocks
    for block in blocks[1:]:  # the first is evaluated in two halves, and stays with what is in no layer
        fully_shard(block, **how)
    # A linear layer gives a view, and torch warns of views that could be changed in place
    model.register_forward_hook(lambda module, given, found: (found[0].clone(), found[1]))
    fully_shard(model, **how)
    return model


class Parts(processes.Learners):
    """Networks of which each process has a part, for `processes.learn`."""

    def __init__(self, networks: nn.Module):
        nn.Module.__init__(self)
        self.networks: Any = networks

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        self.networks.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.networks.set_requires_gradient_sync(True)


def heard(networks: nn.Module) -> contextlib.AbstractContextManager[None]:
    """As `processes.heard` where networks ask other processes for their parts; nothing for others."""
    return processes.heard() if hasattr(networks, "set_requires_gradient_sync") else contextlib.nullcontext()


def whole(value: Tensor) -> Tensor:
    """A tensor with all its parts put together in the memory of the first process.

    The others are given one without content. All processes have to call this together.
    """
    if not is_shared(value):
        return value
    with processes.heard():
        full: Tensor = value.full_tensor()  # type: ignore[attr-defined]
    return full.to("meta" if processes.rank() else "cpu")


def parted(saved: Any, own: Any) -> Any:
    """What was saved as the part that a tensor of its own holds of it, or as it is where that holds all."""
    if not (is_shared(own) and isinstance(saved, Tensor) and saved.shape == own.shape):
        return saved
    from torch.distributed.tensor import distribute_tensor

    mesh = own.device_mesh
    return distribute_tensor(saved.to(mesh.device_type), mesh, own.placements, src_data_rank=None)


def is_shared(value: Any) -> bool:
    """Whether a tensor is one of which each process holds a part."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def own_part(value: Any) -> Tensor:
    """What this process holds of a tensor."""
    return value.to_local() if is_shared(value) else value


# ------------------------------------------------------------------------------------------ checkpoints


def taken_apart(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """A state with None where processes share out a tensor, and these, by their paths in it."""
    shared = {name: one for name, one in _tensors(state) if is_shared(one)}
    return put_together(state, dict.fromkeys(shared)), shared


def put_together(state: Any, parts: Mapping[str, Tensor | None], name: str = "checkpoint") -> Any:
    """A state with `parts` at their paths."""
    if isinstance(state, dict):
        return {key: put_together(one, parts, f"{name}.{key}") for key, one in state.items()}
    return parts.get(name, state)


def _tensors(state: Any, name: str = "checkpoint") -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, dict):
        for key, one in state.items():
            yield from _tensors(one, f"{name}.{key}")
    elif isinstance(state, Tensor):
        yield name, state


def save(parts: dict[str, Tensor], folder: Path) -> dict[str, str]:
    """Write tensors that processes share out to a new folder, each process its own parts; the checksum of each file.

    Raises OSError in all processes where one cannot write.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save as save_parts

    with processes.first_alone():
        if not processes.rank():
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed while it wrote them
            folder.mkdir()
    with processes.heard(), _plain_errors():
        save_parts(parts, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    return processes.merged({name: checksum(folder / name) for name in _own(file.name for file in folder.iterdir())})


def load(form: dict[str, Form], folder: Path, files: dict[str, str], own: Any) -> dict[str, Tensor]:
    """Read tensors that `save` has written, as parts where the processes share out tensors of their `own` state.

    `files` has the checksum of each file. Raises ValueError, in all processes, for files that are not those that were
    written.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load as load_parts

    there = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    wrong = there != files.keys() or any(checksum(folder / name) != files[name] for name in _own(files))
    if processes.any_of(wrong):
        raise ValueError(f"the files in {folder} are not those that were written")
    _, shared = taken_apart(own)
    found = {name: _allocated(one, next(iter(shared.values()), None)) for name, one in form.items()}
    with processes.heard(), _plain_errors(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # where one process reads for itself
        load_parts(found, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not shared)
    return found


def _own(names: Iterable[str]) -> list[str]:
    """Those of some files of which this process computes the checksum."""
    return sorted(names)[processes.rank() :: processes.count()]


def _allocated(form: Form, shared: Any) -> Tensor:
    """A tensor to read into, shared out as another is, if there is one."""
    shape, dtype = form
    if shared is None:
        return torch.empty(shape, dtype=dtype)
    from torch.distributed.tensor import empty

    return empty(shape, dtype=dtype, device_mesh=shared.device_mesh, placements=shared.placements)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """What torch collects of all processes, no Exception and with their tracebacks, as an OSError or a ValueError."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        (first, _), *_ = error.failures.values()
        raise first if isinstance(first, OSError) else ValueError(one_line(first)) from None
