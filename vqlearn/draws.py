"""Drawing tokens: from log probabilities, uniformly, and on which device.

Every draw takes a generator, a list of them that gives each row its own, or one for some rows of a batch (`Share`);
equal generators give equal tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vqlearn.arguments import shown
from vqlearn.schedule import WITHOUT_FLOAT64


@dataclass(frozen=True)
class Share:
    """A generator for `rows` of a batch of `total`: numbers are drawn for all of them, and those of `rows` are given.

    So what a row is given does not depend on which rows are together, in a process say.
    """

    generator: Generator
    rows: slice
    total: int

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def __len__(self) -> int:
        return len(range(self.total)[self.rows])

    def part(self, drawn: Callable[[int, Generator], Tensor]) -> Tensor:
        """The rows of what `drawn(total, generator)` gives."""
        return drawn(self.total, self.generator)[self.rows]


Generators = Generator | list[Generator] | None  # a list gives each row its own
Draws = Generators | Share
Shape = torch.Size | tuple[int, ...]
BLOCK = 2**18  # numbers that a CPU works on at a time: what is made of them stays in its cache


def draw(log_p: Tensor, generator: Draws = None) -> Tensor:
    """Draw from unnormalised log probabilities, `[..., K]` -> `[...]`, by the inverse of the cumulative sum.

    Each probability is as exact as its log, sums and draw are float64 (`widest`): no floor, no bounded noise, one
    uniform number per draw. Classes at `-inf` are never drawn. Raises ValueError for a row from which nothing can be
    drawn; its values are looked at on a CPU alone, a GPU would have to be waited for (`reverse.Checked` does it there).
    """
    if not isinstance(log_p, Tensor) or not log_p.ndim or not log_p.shape[-1]:
        got = [*log_p.shape] if isinstance(log_p, Tensor) else shown(log_p)
        raise TypeError(f"log_p must be a tensor [..., K] of log-probabilities, got {got}")
    u = uniform(log_p.shape[:-1], generator, log_p.device)[..., None]
    drawn = in_blocks(_inverse, log_p, u)[..., 0]
    if drawn.device.type == "cpu" and bool((drawn < 0).any()):
        check_finite(log_p, "log_p")
    return drawn


def _inverse(log_p: Tensor, u: Tensor) -> Tensor:
    """The class `[N, 1]` at which the cumulative sum of `exp(log_p)` `[N, K]` passes the part `u` `[N, 1]` of all.

    It is -1, on a CPU, where the largest entry is not finite.
    """
    log_p = log_p.to(torch.promote_types(log_p.dtype, torch.float32))
    top = log_p.amax(-1, keepdim=True)  # not finite if one entry is NaN or inf, or if all are -inf
    cumulative = (log_p - top).exp_().cumsum(-1, dtype=widest(log_p.device))
    drawn = torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True).clamp(max=log_p.shape[-1] - 1)
    return drawn if drawn.device.type != "cpu" else torch.where(top.isfinite(), drawn, -1)


def undrawable(log_p: Tensor) -> Tensor:
    """Where nothing can be drawn, bool `[...]`: an entry of the row is NaN or inf, or all are `-inf`."""
    return ~log_p.amax(-1).isfinite()


def check_finite(log_p: Tensor, name: str) -> None:
    """Raise ValueError where nothing can be drawn from a row of `[..., K]`, with the first such row and its fault."""
    bad = undrawable(log_p)
    if bool(bad.any()):
        where = bad.nonzero()[0]
        raise ValueError(f"{name} {fault(log_p[tuple(where)])} at {spell_position(where.tolist())}")


def fault(row: Tensor) -> str:
    """What is wrong with a row `[K]` from which nothing can be drawn."""
    return "is NaN" if bool(row.isnan().any()) else "is inf" if bool((row == torch.inf).any()) else "is -inf everywhere"


def spell_position(where: list[int]) -> str:
    """An index into `[B, L]` in words."""
    return f"picture {where[0]}, position {where[1]}" if len(where) == 2 else f"index {where}"


def widest(device: torch.device | str) -> torch.dtype:
    """The widest float of a device: float64, but float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if torch.device(device).type in WITHOUT_FLOAT64 else torch.float64


def in_blocks(function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """`function` of `[N, K]` tensors, applied to `[..., K]` ones: on a CPU some positions at a time, elsewhere all."""
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    size = max(1, BLOCK // rows[0].shape[1]) if rows[0].device.type == "cpu" else len(rows[0])
    if len(rows[0]) <= size:
        found = function(*rows)
    else:
        found = torch.cat([function(*some) for some in zip(*(row.split(size) for row in rows), strict=True)])
    return found.reshape(*parts[0].shape[:-1], -1)


def uniform(shape: Shape, generator: Draws, device: torch.device | str) -> Tensor:
    """Uniform numbers in [0, 1), float64 where the device has it (`widest`), whatever is drawn with them."""
    dtype = widest(device)
    return _by_rows(lambda size, **where: torch.rand(size, dtype=dtype, **where), shape, generator, device)


def uniform_codes(num_codes: int, shape: Shape, generator: Draws, device: torch.device | str) -> Tensor:
    """Codes drawn uniformly, int64."""
    return _by_rows(lambda size, **where: torch.randint(num_codes, size, **where), shape, generator, device)


def _by_rows(kind: Callable[..., Tensor], shape: Shape, generator: Draws, device: torch.device | str) -> Tensor:
    """Draw on the generator's own device, so that equal seeds give equal tokens everywhere; a list draws row by row."""
    check_generators(generator, shape[0] if len(shape) else 0)
    if isinstance(generator, Share):
        return generator.part(lambda rows, one: _by_rows(kind, (rows, *shape[1:]), one, device))
    if isinstance(generator, list):
        return torch.stack([_by_rows(kind, shape[1:], one, device) for one in generator])
    if generator is None or generator.device == torch.device(device):
        return kind(shape, generator=generator, device=device)
    return send(kind(shape, generator=generator, device=generator.device), device)


def low_variance(count: int, generator: Draws, device: torch.device | str) -> Tensor:
    """Numbers in (0, 1], float64 `[count]`, one from each of as many equal parts as the batch has rows."""
    u = uniform((count,), generator, device)
    rows, total = (generator.rows, generator.total) if isinstance(generator, Share) else (slice(None), count)
    return (torch.arange(total, device=u.device)[rows] + 1 - u) / total


def check_generators(generator: Draws, rows: int) -> None:
    """Raise TypeError for what is no generator, ValueError for a list or `Share` of another length than `rows`."""
    for one in generator if isinstance(generator, list) else [generator]:
        if not isinstance(one, Generator | Share) and (one is not None or generator is not None):
            raise TypeError(f"generator must be a torch.Generator, a list of them or None, got {shown(generator)}")
    if isinstance(generator, Share) and len(generator) != rows:
        raise ValueError(f"generator must be one for {rows} rows, got one for {len(generator)} of {generator.total}")
    if isinstance(generator, list) and len(generator) != rows:
        raise ValueError(f"generator must be one or a list of {rows} (one per picture), got {len(generator)}")


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on another device. To a GPU it goes by way of pinned memory, and nobody waits until it is there."""
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
