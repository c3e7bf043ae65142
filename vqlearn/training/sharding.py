"""A network that is too large for one GPU: each process holds a part of every weight (PyTorch's `fully_shard`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqlearn.training import processes

FROM = 500_000_000  # weights of a network that several processes share out: of the named sizes L alone


def shard(model: Any, dtype: torch.dtype | None) -> Any:
    """Leave each process a part of the weights of `Conditioned` networks, which are returned.

    The layers are put together one by one where they are evaluated.
    With `dtype` they are evaluated in it, and gradients are averaged in the dtype of the weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

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


def whole(value: Any) -> Any:
    """A state with all parts of each tensor put together in the memory of the first process.

    The others are given tensors without content. All processes have to call this together.
    """
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(whole, value))
    if not is_shared(value):
        return value
    with processes.heard():
        full = value.full_tensor()
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
