"""Drawing tokens: from log probabilities, uniformly, and on which device.

Every draw takes a generator, or a list of them that gives each row its own; equal generators give equal tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Generators = Generator | list[Generator] | None  # a list gives each row its own
Shape = torch.Size | tuple[int, ...]
BLOCK = 2**18  # numbers that a CPU works on at a time: what is made of them stays in its cache


def draw(log_p: Tensor, generator: Generators = None) -> Tensor:
    """Draw from unnormalised log probabilities, `[..., K]` -> `[...]`, by the inverse of the cumulative sum.

    Each probability is as exact as its log, sums and draw are float64: no floor, no bounded noise, one uniform number
    per draw. Classes at `-inf` are never drawn.
    """
    u = uniform(log_p.shape[:-1], generator, log_p.device)[..., None]
    return in_blocks(_inverse, log_p, u)[..., 0]


def _inverse(log_p: Tensor, u: Tensor) -> Tensor:
    """The class `[N, 1]` at which the cumulative sum of `exp(log_p)` `[N, K]` passes the part `u` `[N, 1]` of all."""
    log_p = log_p.to(torch.promote_types(log_p.dtype, torch.float32))
    p = (log_p - log_p.amax(-1, keepdim=True)).exp_()
    cumulative = p.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True).clamp(max=log_p.shape[-1] - 1)


def in_blocks(function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """`function` of `[N, K]` tensors, applied to `[..., K]` ones: on a CPU some positions at a time, elsewhere all."""
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    size = max(1, BLOCK // rows[0].shape[1]) if rows[0].device.type == "cpu" else len(rows[0])
    if len(rows[0]) <= size:
        found = function(*rows)
    else:
        found = torch.cat([function(*some) for some in zip(*(row.split(size) for row in rows), strict=True)])
    return found.reshape(*parts[0].shape[:-1], -1)


def uniform(shape: Shape, generator: Generators, device: torch.device | str) -> Tensor:
    """Uniform float64 numbers in [0, 1)."""
    return _by_rows(lambda size, **where: torch.rand(size, dtype=torch.float64, **where), shape, generator, device)


def uniform_codes(num_codes: int, shape: Shape, generator: Generators, device: torch.device | str) -> Tensor:
    """Codes drawn uniformly, int64."""
    return _by_rows(lambda size, **where: torch.randint(num_codes, size, **where), shape, generator, device)


def _by_rows(kind: Callable[..., Tensor], shape: Shape, generator: Generators, device: torch.device | str) -> Tensor:
    """Draw on the generator's own device, so that equal seeds give equal tokens everywhere; a list draws row by row."""
    if isinstance(generator, list):
        return torch.stack([_by_rows(kind, shape[1:], one, device) for one in generator])
    if generator is None or generator.device == torch.device(device):
        return kind(shape, generator=generator, device=device)
    return send(kind(shape, generator=generator, device=generator.device), device)


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on another device. To a GPU it goes by way of pinned memory, and nobody waits until it is there."""
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
