"""The forward process q and its posterior, for any two times s < t.

Shapes: tokens `[B, L]` (int64, the mask is K), predictions of x_0 `[B, L, K]`, distributions over the next
state `[B, L, K + 1]`, classes last. A time is an int, or an int64 tensor `[B]` with one time per row.
Everything is in log space; log of zero is `-inf` and stays exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqlearn.arguments import shown, whole
from vqlearn.draws import Draws, draw, uniform, uniform_codes, widest
from vqlearn.schedule import MaskReplaceSchedule, Shares, as_time

Time = int | Tensor


def transition_matrix(schedule: MaskReplaceSchedule, t: int, s: int | None = None) -> Tensor:
    """Q_{t|s}, column-stochastic `[K + 1, K + 1]` as `[to, from]`, float64 (VQ-Diffusion, Eq. 7).

    `s=None` is one step (s = t - 1), `s=0` the cumulative matrix Q_t ... Q_1. For teaching and as a test oracle:
    nothing in this package multiplies by it. Raises ValueError unless 0 <= s <= t <= T.

    >>> transition_matrix(MaskReplaceSchedule.paper(num_codes=2, num_steps=10), 5).round(decimals=3)
    tensor([[0.8450, 0.0120, 0.0000],
            [0.0120, 0.8450, 0.0000],
            [0.1430, 0.1430, 1.0000]], dtype=torch.float64)
    """
    t = whole("t", t, 1 if s is None else 0, schedule.num_steps)
    alpha, beta, gamma = schedule.between(t - 1 if s is None else s, t)
    codes = schedule.num_codes
    matrix = torch.zeros(codes + 1, codes + 1).to(alpha)
    matrix[:codes, :codes] = alpha * torch.eye(codes).to(alpha) + beta
    matrix[codes, :codes] = gamma
    matrix[codes, codes] = 1.0  # the mask is absorbing
    return matrix


def q_log_probs(
    x_0: Tensor, t: Time, schedule: MaskReplaceSchedule, *, s: Time = 0, dtype: torch.dtype | None = None
) -> Tensor:
    """log q(x_t | x_0), `[B, L]` -> `[B, L, K + 1]`: a column of the cumulative matrix per token (VQ-Diffusion, Eq. 8).

    With `s` the given tokens are x_s (masks allowed) and the result is log q(x_t | x_s). `dtype` defaults to
    torch's default float type. Impossible states are exactly `-inf`. Raises ValueError for codes outside
    0 ... K (0 ... K - 1 at s = 0) and times outside 0 <= s <= t <= T.

    >>> q_log_probs(torch.tensor([[2]]), 10, MaskReplaceSchedule.paper(4, 10)).exp().round(decimals=3)
    tensor([[[0.0250, 0.0250, 0.0250, 0.0250, 0.9000]]])
    """
    dtype = dtype or torch.get_default_dtype()
    check_tokens(x_0, schedule, "x_0", mask_allowed=not _is_zero(s))
    log_alpha_beta, log_beta, log_gamma = _log_shares(schedule.between(*_spread(s, t, x_0)), x_0, dtype)
    codes, mask = schedule.num_codes, schedule.mask_id
    out = log_beta.expand(*x_0.shape, codes + 1).clone()  # [B, L, K + 1]
    out.scatter_(-1, x_0[..., None], log_alpha_beta.expand(*x_0.shape, 1))
    out[..., mask] = log_gamma[..., 0].expand(x_0.shape)
    stays = torch.full((codes + 1,), -torch.inf, dtype=dtype, device=x_0.device)
    stays[mask] = 0.0
    return torch.where((x_0 == mask)[..., None], stays, out)


def q_sample(x_0: Tensor, t: Time, schedule: MaskReplaceSchedule, *, s: Time = 0, generator: Draws = None) -> Tensor:
    """Draw x_t from q(x_t | x_0), `[B, L]` -> `[B, L]`, in O(L): keep, replace or mask (VQ-Diffusion, Eq. 8).

    With `s` the given tokens are x_s (masks allowed, and they stay). Raises ValueError as `q_log_probs` does.

    >>> generator = torch.Generator().manual_seed(0)
    >>> q_sample(torch.tensor([[0, 1, 2, 3]]), 5, MaskReplaceSchedule.paper(4, 10), generator=generator)
    tensor([[4, 4, 2, 4]])
    """
    check_tokens(x_0, schedule, "x_0", mask_allowed=not _is_zero(s))
    alpha, _, gamma = (_columns(share, x_0) for share in schedule.between(*_spread(s, t, x_0)))
    u = uniform(x_0.shape, generator, x_0.device)
    other = uniform_codes(schedule.num_codes, x_0.shape, generator, x_0.device)
    x_t = torch.where(u < alpha, x_0, torch.where(u < 1 - gamma, other, schedule.mask_id))
    return torch.where(x_0 == schedule.mask_id, x_0, x_t)


def q_likelihood(
    x_t: Tensor, t: Time, schedule: MaskReplaceSchedule, *, s: Time = 0, dtype: torch.dtype | None = None
) -> Tensor:
    """log q(x_t | x_s = k) for every state k, `[B, L]` -> `[B, L, K + 1]`: a row of the matrix per token.

    It does not sum to 1. The mask row is special: from a code the mask is reached with probability gamma,
    from the mask it is never left. `dtype` and errors as in `q_log_probs`.
    """
    dtype = dtype or torch.get_default_dtype()
    check_tokens(x_t, schedule, "x_t", mask_allowed=True)
    log_alpha_beta, log_beta, log_gamma = _log_shares(schedule.between(*_spread(s, t, x_t)), x_t, dtype)
    masked = (x_t == schedule.mask_id)[..., None]  # [B, L, 1]
    out = torch.where(masked, log_gamma, log_beta).repeat(1, 1, schedule.num_codes + 1)
    out.scatter_(-1, x_t[..., None], torch.where(masked, log_gamma, log_alpha_beta))
    out[..., schedule.mask_id] = torch.where(masked[..., 0], 0.0, -torch.inf)
    return out


def q_posterior(
    log_p_x0: Tensor, x_t: Tensor, t: Time, schedule: MaskReplaceSchedule, *, s: Time | None = None
) -> Tensor:
    """log p(x_s | x_t) = log of the sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t), `[B, L, K]` -> `[B, L, K + 1]`.

    VQ-Diffusion, Eq. 11, for any s < t (`s=None` is t - 1). q(x_s | x_t, x_0) is a choice of three (`_three_ways`):
    with probability `stay` x_s is x_t, with `own` it is x_0, with `any` a uniform code. They depend on x_0 only by
    whether it is x_t, so with p(k) = p(x_0 = k | x_t) and `rest` the mass of all codes other than x_t

        p(x_s = k | x_t) = own(k = x_t) p(k) + (any(1) p(x_t) + any(0) rest) / K
                           + [k = x_t] (stay(1) p(x_t) + stay(0) rest),

    and one pass over the K codes does it. Runs in the dtype of `log_p_x0`; impossible states are exactly `-inf`.
    A prediction that does not sum to 1 (after truncation) keeps its mass. Where replacement is impossible, a
    visible token is certain whatever the prediction says. Raises ValueError for wrong shapes, tokens or times.

    >>> log_p = torch.tensor([[[0.7, 0.1, 0.1, 0.1]]]).log()
    >>> q_posterior(log_p, torch.tensor([[4]]), 5, MaskReplaceSchedule.paper(4, 10)).exp().round(decimals=3)
    tensor([[[0.1700, 0.0270, 0.0270, 0.0270, 0.7500]]])
    """
    s, t = _two_times(s, t, x_t, schedule)
    _check_prediction(log_p_x0, x_t, schedule)
    masked = (x_t == schedule.mask_id)[..., None]  # [B, L, 1]
    at_x_t = x_t.clamp(max=schedule.num_codes - 1)[..., None]  # for a mask any code will do: there both ways agree
    differs, is_x_t = _three_ways(x_t, torch.arange(2, device=x_t.device)[:, None, None], s, t, schedule).unbind(1)
    certain = ~masked & (differs.sum(0) == 0)[..., None]
    is_x_t[0] += certain[..., 0] & (is_x_t.sum(0) == 0)  # nothing leads to a visible x_t: it stays
    # The few numbers per token stay in float64: a rounding there would shift all K entries the same way.
    wide = widest(x_t.device)
    stay_1, own_1, any_1 = _log_ways(is_x_t, schedule)  # each [B, L, 1]
    stay_0, own_0, any_0 = _log_ways(differs, schedule)
    log_p = log_p_x0.gather(-1, at_x_t).to(wide).masked_fill(certain, 0.0)
    log_rest = log_p_x0.scatter(-1, at_x_t, -torch.inf).logsumexp(-1, keepdim=True).to(wide)
    spread = _log_add(any_1 + log_p, any_0 + log_rest)  # [B, L, 1], to every code
    stay = _log_add(stay_1 + log_p, stay_0 + log_rest)  # [B, L, 1], to x_t
    visible = _log_add(_log_add(own_1 + log_p, spread), stay).to(log_p_x0)
    codes = _log_add(own_0.to(log_p_x0) + log_p_x0, spread.to(log_p_x0))  # [B, L, K]
    codes = codes.scatter(-1, at_x_t, torch.where(masked, codes.gather(-1, at_x_t), visible))
    return torch.cat([codes, torch.where(masked, stay, -torch.inf).to(log_p_x0)], dim=-1)


def p_sample_step(
    log_p_x0: Tensor,
    x_t: Tensor,
    t: Time,
    schedule: MaskReplaceSchedule,
    *,
    s: Time | None = None,
    generator: Draws = None,
) -> Tensor:
    """Draw x_s from p(x_s | x_t): first x_0 from the prediction, then x_s from q(x_s | x_t, x_0); `[B, L]`.

    The distribution of `q_posterior`, without building it: after the draw of x_0 the work is O(L). Raises ValueError as
    `q_posterior` does.

    >>> log_p, generator = torch.tensor([[[0.7, 0.1, 0.1, 0.1]]]).log(), torch.Generator().manual_seed(0)
    >>> p_sample_step(log_p, torch.tensor([[4]]), 5, MaskReplaceSchedule.paper(4, 10), s=0, generator=generator)
    tensor([[3]])
    """
    s, t = _two_times(s, t, x_t, schedule)
    _check_prediction(log_p_x0, x_t, schedule)
    return q_posterior_sample(draw(log_p_x0, generator), x_t, t, schedule, s=s, generator=generator)


def q_posterior_sample(
    x_0: Tensor,
    x_t: Tensor,
    t: Time,
    schedule: MaskReplaceSchedule,
    *,
    s: Time | None = None,
    generator: Draws = None,
) -> Tensor:
    """Draw x_s from q(x_s | x_t, x_0) (VQ-Diffusion, Eq. 5), `[B, L]`, in O(L): x_t, x_0 or any code (`_three_ways`).

    A token that cannot have come from its x_0 stays: where replacement is impossible, x_t is x_0, whatever was guessed.
    """
    s, t = _two_times(s, t, x_t, schedule)
    stay, own, _ = ways = _three_ways(x_t, x_0 == x_t, s, t, schedule)
    u = uniform(x_t.shape, generator, x_t.device) * ways.sum(0)
    other = uniform_codes(schedule.num_codes, x_t.shape, generator, x_t.device)
    x_s = torch.where(u < stay, x_t, torch.where(u < stay + own, x_0, other))
    return torch.where(ways.sum(0) > 0, x_s, x_t)


# ------------------------------------------------------------------------------------------ inside


def _three_ways(x_t: Tensor, same: Tensor, s: Tensor, t: Tensor, schedule: MaskReplaceSchedule) -> Tensor:
    """q(x_s | x_t, x_0) as the probabilities that x_s is x_t, is x_0, is a uniform code: `[3, B, L]`.

    Bayes multiplied out, q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0): a masked x_t was masked before or has lost x_s
    by masking, a visible one has kept x_s or lost it by replacement. `same` `[B, L]` says where x_0 is x_t; of several
    `[N, 1, 1]` the result is `[3, N, B, L]`. Zeros where x_t cannot come from x_0.
    """
    alpha_bar, beta_bar, gamma_bar = (_columns(share, x_t) for share in schedule.bar(s))
    alpha, beta, gamma = (_columns(share, x_t) for share in schedule.between(s, t))
    masked = x_t == schedule.mask_id
    stay = torch.where(masked, gamma_bar, alpha * (beta_bar + alpha_bar * same))
    lost = torch.where(masked, gamma, beta)  # q(x_t | x_s) when x_s is neither x_t nor the mask
    own, every = ((lost * share).expand_as(stay) for share in (alpha_bar, beta_bar))
    ways = torch.stack([stay, own, every * schedule.num_codes])
    total = ways.sum(0)  # q(x_t | x_0)
    return ways / torch.where(total > 0, total, 1.0)


def _log_ways(ways: Tensor, schedule: MaskReplaceSchedule) -> tuple[Tensor, Tensor, Tensor]:
    """Logs of `_three_ways`, each `[B, L, 1]`; "any" is shared by the K codes, so the last is that of a single code."""
    stay, own, every = ways[..., None]
    return stay.log(), own.log(), (every / schedule.num_codes).log()


def _log_add(log_a: Tensor, log_b: Tensor) -> Tensor:
    """log(a + b); where b is 0 it is log a itself, so that the gradient at a = b = 0 is finite and not NaN."""
    nothing = log_b == -torch.inf
    return torch.where(nothing, log_a, torch.logaddexp(log_a, log_b.masked_fill(nothing, 0.0)))


def _log_shares(shares: Shares, like: Tensor, dtype: torch.dtype) -> Shares:
    """log(alpha + beta), log(beta), log(gamma) of a jump, shaped to broadcast with `[B, L, K]`; logs in float64."""
    alpha, beta, gamma = shares
    return Shares(*(_log_columns(share, like, dtype) for share in (alpha + beta, beta, gamma)))


def _log_columns(share: Tensor, like: Tensor, dtype: torch.dtype) -> Tensor:
    return _columns(share, like).log().to(dtype)[..., None]


def _columns(share: Tensor, like: Tensor) -> Tensor:
    """A share per batch row (or one for all), as `[B, 1]` or a scalar, on the device of `like`.

    A scalar is filled in there, not copied: a copy from a CPU would wait for all that a GPU still has to do.
    """
    dtype = widest(like.device)
    if share.ndim:
        return share.to(like.device, dtype)[:, None]
    return share if share.device == like.device else torch.full((), float(share), dtype=dtype, device=like.device)


def _is_zero(s: Time) -> bool:
    return bool((as_time("s", s) == 0).all())


def _spread(s: Time, t: Time, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Both times as tensors of one shape: scalars, or `[B]` when either is per row."""
    both = as_time("s", s), as_time("t", t)
    for name, time in zip("st", both, strict=True):
        if time.ndim > 1 or (time.ndim == 1 and len(time) != len(tokens)):
            raise ValueError(
                f"{name} must be an int or an integer tensor [{len(tokens)}], got shape {tuple(time.shape)}"
            )
    first, last = torch.broadcast_tensors(both[0].to(both[1].device), both[1])
    return first, last


def _two_times(s: Time | None, t: Time, x_t: Tensor, schedule: MaskReplaceSchedule) -> tuple[Tensor, Tensor]:
    s, t = _spread(as_time("t", t) - 1 if s is None else s, t, x_t)
    if bool((s < 0).any() or (s >= t).any() or (t > schedule.num_steps).any()):
        raise ValueError(
            f"need 0 <= s < t <= {schedule.num_steps}, got s = {shown(s.tolist())}, t = {shown(t.tolist())} "
            "(s=None is t - 1)"
        )
    return s, t


def check_tokens(tokens: Tensor, schedule: MaskReplaceSchedule, name: str, *, mask_allowed: bool) -> None:
    """Raise ValueError unless `tokens` is an int64 tensor `[B, L]` of codes, with or without masks.

    Only a CPU is asked for the values of its tokens: on a GPU every sampling step would have to wait for the answer.
    """
    top = schedule.mask_id if mask_allowed else schedule.mask_id - 1
    if not isinstance(tokens, Tensor):
        raise TypeError(f"{name} must be a tensor of tokens, int64 [B, L], got {shown(tokens)}")
    if tokens.dtype != torch.int64 or tokens.ndim != 2:
        raise ValueError(f"{name} must be int64 [B, L], got {tokens.dtype} {list(tokens.shape)}")
    if tokens.device.type != "cpu":
        return
    if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) > top):
        low, high = int(tokens.min()), int(tokens.max())
        which = "codes and the mask" if mask_allowed else "codes, no mask"
        raise ValueError(f"{name} must lie in 0 ... {top} ({which}), got values from {low} to {high}")


def _check_prediction(log_p_x0: Tensor, x_t: Tensor, schedule: MaskReplaceSchedule) -> None:
    check_tokens(x_t, schedule, "x_t", mask_allowed=True)
    if not isinstance(log_p_x0, Tensor):
        raise TypeError(f"log_p_x0 must be a tensor [B, L, K], got {shown(log_p_x0)}")
    expected = (*x_t.shape, schedule.num_codes)
    if tuple(log_p_x0.shape) != expected or not log_p_x0.is_floating_point():
        raise ValueError(
            f"log_p_x0 must be floating point {list(expected)} ([B, L, K], classes last), "
            f"got {log_p_x0.dtype} {list(log_p_x0.shape)}"
        )
