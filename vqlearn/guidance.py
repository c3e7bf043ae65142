"""Changing a prediction before a sampler draws from it: guidance, truncation, and what is already known.

All act on log p(x_0 | x_t), `[B, L, K]`, classes last; a class at `-inf` is impossible and stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqlearn.arguments import real, whole
from vqlearn.draws import in_blocks


def guide(log_p: Tensor, log_p_null: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance: null + scale * (conditional - null), normalised (Improved VQ-Diffusion, Eq. 8).

    Both predictions are logs `[B, L, K]`, normalised or not, since a constant per position cancels; scale 1 returns the
    conditional one as it is, 0 the unconditional one; a tensor `[B]` or `[B, L]` is a scale per picture or token. A
    class at `-inf` in the conditional prediction stays out; one at `-inf` in the unconditional one alone keeps its
    conditional weight.

    >>> log_p, log_p_null = torch.tensor([[[0.7, 0.3]]]).log(), torch.tensor([[[0.5, 0.5]]]).log()
    >>> guide(log_p, log_p_null, 2.0).exp().round(decimals=3)  # in proportion to 0.7^2 and 0.3^2
    tensor([[[0.8450, 0.1550]]])
    """
    if isinstance(scale, Tensor):
        scale = scale.to(log_p)[(..., *[None] * (log_p.ndim - scale.ndim))]  # [B, 1, 1] or [B, L, 1]
    elif (scale := real("scale", scale)) in (0, 1):
        return log_p if scale == 1 else log_p_null
    gap = (log_p - log_p_null).masked_fill_(log_p == -torch.inf, 0.0)
    gap.nan_to_num_(nan=torch.nan, posinf=0.0, neginf=torch.nan)  # NaN and inf stay, for who draws to say so
    return gap.mul_(scale - 1).add_(log_p).log_softmax(-1)


Scale = float | Tensor | Callable[[int], float | Tensor]  # one for all times, or one per time t


def within(scale: float, low: int, high: int) -> Callable[[int], float]:
    """A schedule of scales: `scale` at the times low ... high, 1 (no guidance, half the work) at all others.

    Kynkaanniemi et al. 2024 guide in such an interval only. Raises ValueError unless 0 <= low <= high.

    >>> scale = within(2.0, 51, 100)
    >>> scale(100), scale(50)
    (2.0, 1.0)
    """
    scale, low = real("scale", scale, 0, 1000), whole("low", low, 0)
    high = whole("high", high, low)
    return lambda t: scale if low <= t <= high else 1.0


def scale_at(scale: Scale, t: int, shape: Sequence[int] = ()) -> float | Tensor:
    """The guidance scale at time t: a number, or a tensor `[B]` or `[B, L]` for each picture or token of `shape`.

    Raises ValueError unless it lies in 0 ... 1000.
    """
    value = scale(t) if callable(scale) else scale
    if isinstance(value, Tensor) and value.ndim:
        if value.ndim not in (1, 2) or (shape and [*value.shape] != [*shape[: value.ndim]]):
            rows, length = shape or ("B", "L")
            raise ValueError(
                f"guidance_scale must be a number or [{rows}] or [{rows}, {length}], got {list(value.shape)}"
            )
        if not bool(((value >= 0) & (value <= 1000)).all()):
            raise ValueError("guidance_scale must hold numbers from 0 to 1000")
        return value
    number = value.item() if isinstance(value, Tensor) else value
    return real(f"guidance_scale at t = {t}" if callable(scale) else "guidance_scale", number, 0, 1000)


def branches(scale: float | Tensor) -> str:
    """Which branches of a guided prediction a scale needs: "both", or at 1 and 0 one of them."""
    if isinstance(scale, Tensor) or scale not in (0, 1):
        return "both"
    return "conditional" if scale == 1 else "unconditional"


def truncate(log_p_x0: Tensor, rate: float) -> Tensor:
    """Keep class i if it is the most likely or the mass of all likelier ones is below `rate`; others become `-inf`.

    `[B, L, K]` -> `[B, L, K]`, not renormalised, as published (VQ-Diffusion, section 5.1); rate 1.0 returns the
    input. Equal classes count in the order of their index. Raises ValueError unless 0 <= rate <= 1.

    >>> truncate(torch.tensor([[[0.7, 0.2, 0.1]]]).log(), 0.75).exp()
    tensor([[[0.7000, 0.2000, 0.0000]]])
    """
    rate = check_truncation_rate(rate)
    if rate == 1:
        return log_p_x0

    def likeliest(log_p: Tensor) -> Tensor:
        ordered = _falling(log_p)
        mass = ordered.exp().cumsum(-1)  # of each class and all before it; it never falls
        short = torch.searchsorted(mass, torch.full_like(mass[:, :1], rate))  # how many of them are short of the rate
        return _first(log_p, ordered, short.clamp(max=mass.shape[-1] - 1) + 1)

    return in_blocks(likeliest, log_p_x0)


def check_truncation_rate(rate: float) -> float:
    """The rate as a float; raises ValueError unless 0 <= rate <= 1."""
    return real("truncation_rate", rate, 0, 1)


def top_k(log_p_x0: Tensor, count: int) -> Tensor:
    """Keep the `count` most likely classes of each position, others become `-inf`; not renormalised, as `truncate`.

    Equal classes count in the order of their index. Raises ValueError unless `count` is a whole number of at least 1.

    >>> top_k(torch.tensor([[[0.7, 0.2, 0.1]]]).log(), 1).exp()
    tensor([[[0.7000, 0.0000, 0.0000]]])
    """
    count = check_top_k(count)
    if count >= log_p_x0.shape[-1]:
        return log_p_x0
    ordered = log_p_x0.topk(count + 1, dim=-1)[0]  # one more, to see whether it is equal to the last
    return _first(log_p_x0, ordered, torch.full_like(ordered[..., :1], count, dtype=torch.int64))


def check_top_k(count: int) -> int:
    """`count` as an int; raises ValueError unless it is a whole number of at least 1."""
    return whole("top_k", count)


def _falling(log_p: Tensor) -> Tensor:
    """The entries of each position, largest first. On a CPU numpy sorts values alone, five times as fast as torch."""
    if log_p.device.type == "cpu" and log_p.dtype in (torch.float32, torch.float64):
        import numpy as np

        return -torch.from_numpy(np.sort((-log_p.detach()).numpy(), axis=-1))
    return log_p.sort(dim=-1, descending=True)[0]


def _first(log_p: Tensor, ordered: Tensor, count: Tensor) -> Tensor:
    """The `count` `[B, L, 1]` largest entries of each position, given them in order; the others become `-inf`."""
    least, after = ordered.gather(-1, count - 1), ordered.gather(-1, count.clamp(max=ordered.shape[-1] - 1))
    kept, tied = log_p >= least, ((after == least) & (count < ordered.shape[-1]))[..., 0]  # [B, L]
    if log_p.device.type != "cpu" or bool(tied.any()):  # a GPU is not asked, nor waited for
        rows = tied if log_p.device.type == "cpu" else slice(None)
        some, edge_at = log_p[rows], least[rows]
        edge, above = some == edge_at, some > edge_at  # of the equal ones at the edge the first by index
        kept[rows] = above | (edge & (edge.cumsum(-1) <= count[rows] - above.sum(-1, keepdim=True)))
    return torch.where(kept | log_p.isnan(), log_p, -torch.inf)  # NaN is an error for who draws


def keep_known(log_p_x0: Tensor, x_0: Tensor, known: Tensor) -> Tensor:
    """A prediction that is certain of `x_0` `[B, L]` where `known` `[B, L]` is true, and is as it was elsewhere.

    A sampler that is given such predictions draws the known tokens' x_s from the exact q(x_s | x_t, x_0) at every step,
    and at s = 0 gives them back as they are.

    >>> log_p = torch.tensor([[[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]]).log()
    >>> keep_known(log_p, torch.tensor([[2, 0]]), torch.tensor([[True, False]])).exp()
    tensor([[[0.0000, 0.0000, 1.0000],
             [0.7000, 0.2000, 0.1000]]])
    """
    at = x_0.masked_fill(~known, 0).expand(log_p_x0.shape[:-1])
    certain = torch.full_like(log_p_x0, -torch.inf).scatter(-1, at[..., None], 0.0)
    return torch.where(known[..., None], certain, log_p_x0)
