"""Walking back from x_T to x_0, and the wrappers that change a belief: guidance and truncation.

A denoiser is `denoise(x_t, t) -> log_p_x0`: tokens `[B, L]` and an int to `[B, L, K]`. Samplers know no network.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import Generators, p_sample_step, uniform, uniform_codes

Denoiser = Callable[[Tensor, int], Tensor]


def strided_times(num_steps: int, count: int) -> list[int]:
    """`count` + 1 times from T down to 0, as evenly as integers allow.

    For T = 10 and 4 steps: [10, 7, 5, 2, 0]. Raises ValueError unless 1 <= count <= T.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= num_steps:
        raise ValueError(f"num_inference_steps must be a whole number from 1 to {num_steps}, got {count!r}")
    return [num_steps * left // count for left in range(count, -1, -1)]


def prior_sample(
    schedule: MaskReplaceSchedule, batch: int, length: int, *, generator: Generators = None, device="cpu"
) -> Tensor:
    """Draw x_T from the prior: masked with probability gamma_bar_T, else a code drawn uniformly; `[batch, length]`."""
    shape = (batch, length)
    u, codes = uniform(shape, generator, device), uniform_codes(schedule.num_codes, shape, generator, device)
    return torch.where(u < schedule.gamma_bar[-1].to(device), schedule.mask_id, codes)


@torch.no_grad()
def ancestral(
    denoise: Denoiser,
    x_t: Tensor,
    schedule: MaskReplaceSchedule,
    times: Iterable[int],
    *,
    generator: Generators = None,
    on_step: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Walk x_t back along decreasing `times`, each step drawn from p(x_s | x_t) (VQ-Diffusion, Algorithm 2).

    Exact for any times: the first is the time of `x_t`, the last is 0. After each step
    `on_step(number, s, x_s)` is called. Returns x_0 `[B, L]`. Raises ValueError for times that do not fall.
    """
    times = list(times)
    if len(times) < 2 or any(s >= t for t, s in itertools.pairwise(times)) or times[-1] != 0:
        raise ValueError(f"times must fall strictly and end at 0, got {times}")
    for number, (t, s) in enumerate(itertools.pairwise(times)):
        x_t = p_sample_step(denoise(x_t, t), x_t, t, schedule, s=s, generator=generator)
        if on_step is not None:
            on_step(number, s, x_t)
    return x_t


def guide(log_p: Tensor, log_p_null: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: null + scale * (conditional - null), normalised (Improved VQ-Diffusion, Eq. 8).

    Both beliefs are normalised logs `[B, L, K]`; scale 1 returns the conditional one, 0 the null one. A class at
    `-inf` in the conditional belief stays out; one at `-inf` in the null belief alone keeps its conditional weight.
    """
    if scale == 1:
        return log_p
    if scale == 0:
        return log_p_null
    gap = (log_p - log_p_null).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return (log_p + (scale - 1) * gap).log_softmax(-1)


def truncate(log_p_x0: Tensor, rate: float) -> Tensor:
    """Keep class i if it is the most likely or the mass of all likelier ones is below `rate`; others become `-inf`.

    `[B, L, K]` -> `[B, L, K]`, not renormalised, as published (VQ-Diffusion, section 5.1); rate 1.0 returns the
    input. Equal classes count in the order of their index. Raises ValueError unless 0 <= rate <= 1.
    """
    check_truncation_rate(rate)
    if rate == 1:
        return log_p_x0
    ordered, index = log_p_x0.sort(dim=-1, descending=True, stable=True)
    likelier = ordered.exp().cumsum(-1).roll(1, -1)  # mass before each class
    dropped = likelier >= rate
    dropped[..., 0] = False
    return torch.full_like(log_p_x0, -torch.inf).scatter(-1, index, ordered.masked_fill(dropped, -torch.inf))


def check_truncation_rate(rate: float) -> None:
    """Raise ValueError unless 0 <= rate <= 1."""
    if not (isinstance(rate, int | float) and 0 <= rate <= 1):
        raise ValueError(f"truncation_rate must lie in [0, 1], got {rate!r}")
