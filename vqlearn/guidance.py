"""Changing a belief before a sampler draws from it: guidance, truncation, and what is already known.

All act on log p(x_0 | x_t), `[B, L, K]`, classes last; a class at `-inf` is impossible and stays so.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def top_k(log_p_x0: Tensor, count: int) -> Tensor:
    """Keep the `count` most likely classes of each position, others become `-inf`; not renormalised, as `truncate`.

    Equal classes count in the order of their index. Raises ValueError unless `count` is a whole number of at least 1.
    """
    check_top_k(count)
    if count >= log_p_x0.shape[-1]:
        return log_p_x0
    index = log_p_x0.sort(dim=-1, descending=True, stable=True)[1][..., :count]
    return torch.full_like(log_p_x0, -torch.inf).scatter(-1, index, log_p_x0.gather(-1, index))


def check_top_k(count: int) -> None:
    """Raise ValueError unless `count` is a whole number of at least 1."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"top_k must be a whole number of at least 1, got {count!r}")


def keep_known(log_p_x0: Tensor, x_0: Tensor, known: Tensor) -> Tensor:
    """Certainty about the tokens that are known: `x_0` `[B, L]` where `known` `[B, L]` is true, the belief elsewhere.

    A sampler that is given such beliefs draws the known tokens' x_s from the exact q(x_s | x_t, x_0) at every step, and
    at s = 0 gives them back as they are.
    """
    certain = torch.full_like(log_p_x0, -torch.inf).scatter(-1, x_0.masked_fill(~known, 0)[..., None], 0.0)
    return torch.where(known[..., None], certain, log_p_x0)
