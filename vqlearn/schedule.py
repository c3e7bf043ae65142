"""Noise schedules of the mask-and-replace forward process.

At time t a token keeps its value with probability `alpha_bar[t]`, has become the mask with probability
`gamma_bar[t]`, and is otherwise replaced by a code drawn uniformly from all K codes, each with
probability `beta_bar[t]`, so alpha_bar + K * beta_bar + gamma_bar = 1 (VQ-Diffusion, Eq. 7 and 8).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqlearn.arguments import real, shown, whole

ROUNDING = 1e-12  # how far float64 curves may stray from [0, 1] and from monotone; nearer than this to 0 or 1 is 0 or 1
MOST = 2**24  # codes, and steps: more would fill the memory
WITHOUT_FLOAT64 = {"mps"}  # kinds of device
KEPT = 4096  # pairs of times, whose shares a schedule keeps
COARSE = 4.0  # the same for curves of another dtype, in units of its rounding error


class Shares(NamedTuple):
    """Of a jump from one time to a later one: keep (alpha), each of the K codes (beta), mask (gamma); float64."""

    alpha: Tensor
    beta: Tensor
    gamma: Tensor


class MaskReplaceSchedule:
    """A schedule from two cumulative curves: what a token keeps, and what is masked.

    `alpha_bar` and `gamma_bar` are sequences of T + 1 probabilities, entry 0 being 1 and 0: `alpha_bar`
    never rises, `gamma_bar` never falls, and neither does the share of the unmasked tokens that have
    been replaced. The rest, 1 - alpha_bar - gamma_bar, is spread over the codes. Examples::

        MaskReplaceSchedule(1 - t, t, num_codes=K)             # mask only, t = torch.linspace(0, 1, T + 1)
        MaskReplaceSchedule(1 - t, 0 * t, num_codes=K)         # uniform only
        MaskReplaceSchedule(c, 1 - c, num_codes=K)             # cosine, c = torch.cos(t.double() * torch.pi / 2)

    Attributes `alpha, beta, gamma` (one step, from t - 1 to t) and `alpha_bar, beta_bar, gamma_bar` (from
    clean data) are float64 tensors `[T + 1]` with the identity at entry 0. `beta_bar` and `gamma_bar` are
    not cumulative products. Raises ValueError for curves that are no schedule.

    >>> schedule = MaskReplaceSchedule.paper(num_codes=4, num_steps=10)
    >>> schedule
    MaskReplaceSchedule(num_codes=4, num_steps=10, kept, replaced, masked at T: 9e-06, 0.1, 0.9)
    >>> schedule.gamma_bar[[0, 5, 10]].tolist()  # nothing is masked at t = 0, nine tokens of ten at t = T
    [0.0, 0.40000..., 0.9]
    """

    def __init__(self, alpha_bar: Any, gamma_bar: Any, *, num_codes: int):
        self.num_codes = whole("num_codes", whole("num_codes", num_codes), 1, MOST)
        rounding = max(_rounding(alpha_bar), _rounding(gamma_bar))
        alpha_bar, gamma_bar = _curve(alpha_bar, "alpha_bar", rounding), _curve(gamma_bar, "gamma_bar", rounding)
        if alpha_bar.shape != gamma_bar.shape:
            raise ValueError(
                f"alpha_bar and gamma_bar must have equal lengths T + 1, got {len(alpha_bar)} and {len(gamma_bar)}"
            )
        self.num_steps = whole("num_steps (the curves' length less one)", len(alpha_bar) - 1)
        # The replaced share as a difference: where it is tiny beside 1 (1e-6 in the presets' worst case) it keeps ten
        # digits, not sixteen, and a single step's, a difference of two such, seven. All else below multiplies it.
        seen = 1 - gamma_bar
        replaced = seen - alpha_bar
        if replaced.min() < -rounding:
            t = int(replaced.argmin())
            raise ValueError(f"alpha_bar + gamma_bar must be at most 1, got {1 - replaced[t]:.6g} at t = {t}")
        self._replaced_bar = torch.where(replaced < rounding, 0.0, replaced)
        # Where nothing is replaced, kept and masked make 1 to the last digit, and so do all shares made from them.
        self.alpha_bar, self.gamma_bar = torch.where(replaced < rounding, seen, alpha_bar), gamma_bar
        self.beta_bar = self._replaced_bar / self.num_codes
        self._known: dict[tuple[int, int], Shares] = {}
        _check_monotone(self, rounding)
        steps = torch.arange(self.num_steps + 1)
        self.alpha, self.beta, self.gamma = self.between((steps - 1).clamp(min=0), steps)

    @classmethod
    def from_ends(
        cls,
        *,
        num_codes: int,
        num_steps: int = 100,
        alpha_start: float = 0.99999,
        alpha_end: float = 0.000009,
        gamma_start: float = 0.000009,
        gamma_end: float,
    ) -> MaskReplaceSchedule:
        """Both cumulative curves linear in t between their values at t = 1 and t = T (VQ-Diffusion, section 5.1)."""
        num_steps = whole("num_steps", whole("num_steps", num_steps), 1, MOST)
        ends = {"alpha_start": alpha_start, "alpha_end": alpha_end, "gamma_start": gamma_start, "gamma_end": gamma_end}
        alpha_start, alpha_end, gamma_start, gamma_end = (real(name, end, 0, 1) for name, end in ends.items())
        alpha = torch.linspace(alpha_start, alpha_end, num_steps, dtype=torch.float64)
        gamma = torch.linspace(gamma_start, gamma_end, num_steps, dtype=torch.float64)
        alpha[-1], gamma[-1] = alpha_end, gamma_end  # with T = 1 the only step ends where the last one does
        return cls([1.0, *alpha.tolist()], [0.0, *gamma.tolist()], num_codes=num_codes)

    @classmethod
    def paper(cls, num_codes: int, num_steps: int = 100) -> MaskReplaceSchedule:
        """The paper's schedule: at t = T nine tokens of ten are masked, one is replaced (VQ-Diffusion, section 5.1)."""
        return cls.from_ends(num_codes=num_codes, num_steps=num_steps, gamma_end=0.9)

    @classmethod
    def released(cls, num_codes: int, num_steps: int = 100) -> MaskReplaceSchedule:
        """The public code's schedule: K * beta_bar is 1e-6 at every t > 0, in effect masking alone.

        Source: microsoft/VQ-Diffusion, `alpha_schedule`.
        """
        return cls.from_ends(num_codes=num_codes, num_steps=num_steps, gamma_end=0.99999)

    @property
    def mask_id(self) -> int:
        """The mask is the last of K + 1 states."""
        return self.num_codes

    def between(self, s: int | Tensor, t: int | Tensor) -> Shares:
        """Shares of q(x_t | x_s) for 0 <= s <= t <= T, ints or equal-shaped integer tensors; float64.

        Raises ValueError when s or t is out of range or s > t. Before a time that nothing reaches (all is
        masked, or nothing kept), the undefined quotient is taken as "everything masked" or "nothing kept".
        """
        s, t = as_time("s", s), as_time("t", t)
        if s.ndim or t.ndim or not s.is_cpu or not t.is_cpu:
            return self._between(s, t)
        pair = int(s), int(t)  # a sampler asks for the same ones in every run
        if pair not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[pair] = self._between(s, t)
        return Shares(*(share.clone() for share in self._known[pair]))

    def _between(self, s: Tensor, t: Tensor) -> Shares:
        if bool((s < 0).any() or (t > self.num_steps).any() or (s > t).any()):
            raise ValueError(
                f"need 0 <= s <= t <= {self.num_steps}, got s = {_spell(s)}, t = {_spell(t)} in between(s, t)"
            )
        s, t = s.to(self.alpha_bar.device), t.to(self.alpha_bar.device)
        kept_s, kept_t = self.alpha_bar[s], self.alpha_bar[t]
        replaced_s, replaced_t = self._replaced_bar[s], self._replaced_bar[t]
        seen_s, seen_t = 1 - self.gamma_bar[s], 1 - self.gamma_bar[t]
        seen = _quotient(seen_t, seen_s).clamp(max=1)
        alpha = torch.minimum(_quotient(kept_t, kept_s), seen)
        # seen - alpha over a common denominator, so that equal leading digits never cancel
        gain = _quotient(replaced_t * kept_s - kept_t * replaced_s, seen_s * kept_s).clamp(min=0)
        fresh = torch.where(kept_s > 0, gain, seen)
        gamma = torch.where(seen_s > 0, _quotient(self.gamma_bar[t] - self.gamma_bar[s], seen_s).clamp(min=0), 1.0)
        still = s == t
        return Shares(
            torch.where(still, 1.0, alpha),
            torch.where(still, 0.0, fresh / self.num_codes),
            torch.where(still, 0.0, gamma),
        )

    def bar(self, t: int | Tensor) -> Shares:
        """Shares of q(x_t | x_0), the entries t of the cumulative curves; float64."""
        t = as_time("t", t)
        return self.between(torch.zeros_like(t), t)

    def prior(self) -> Tensor:
        """p(x_T), float64 `[K + 1]`: q(x_T) for a token whose value is uniform (VQ-Diffusion, Eq. 10).

        Unlike the paper's (0, beta_bar, gamma_bar) it sums to 1 although alpha_bar_T is not quite 0.
        """
        masked = self.gamma_bar[-1:]
        return torch.cat([((1 - masked) / self.num_codes).expand(self.num_codes), masked])

    def __eq__(self, other: object) -> bool:
        """Equal curves over equally many codes."""
        if not isinstance(other, MaskReplaceSchedule):
            return NotImplemented
        mine, theirs = (torch.stack([one.alpha_bar, one.gamma_bar]).cpu() for one in (self, other))
        return self.num_codes == other.num_codes and torch.equal(mine, theirs)

    def __hash__(self) -> int:
        return hash((self.num_codes, *self.alpha_bar.tolist(), *self.gamma_bar.tolist()))

    def to(self, device: torch.device | str) -> MaskReplaceSchedule:
        """The same schedule with its curves on another device, so that indexing by tensors there needs no copy.

        Apple's GPUs have no float64: there the curves stay where they are.
        """
        if torch.device(device).type in WITHOUT_FLOAT64:
            return self
        moved = object.__new__(MaskReplaceSchedule)
        moved.__dict__ = {key: v.to(device) if isinstance(v, Tensor) else v for key, v in self.__dict__.items()}
        moved._known = {}
        return moved

    def __repr__(self) -> str:
        last = f"{self.alpha_bar[-1]:.3g}, {self.num_codes * self.beta_bar[-1]:.3g}, {self.gamma_bar[-1]:.3g}"
        sizes = f"num_codes={self.num_codes}, num_steps={self.num_steps}"
        return f"MaskReplaceSchedule({sizes}, kept, replaced, masked at T: {last})"


def as_time(name: str, time: Any) -> Tensor:
    """A time, or a tensor of times, as int64; raises ValueError for anything but whole numbers."""
    if not isinstance(time, Tensor):
        return torch.tensor(whole(name, time, 0))
    if time.is_floating_point() or time.is_complex() or time.dtype == torch.bool:
        raise ValueError(f"{name} must be an int or an integer tensor, got {time.dtype} {[*time.shape]}")
    return time.long()


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)


def _rounding(values: Any) -> float:
    """How exact given numbers are."""
    coarse = isinstance(values, Tensor) and values.dtype in (torch.float32, torch.float16, torch.bfloat16)
    return COARSE * torch.finfo(values.dtype).eps if coarse else ROUNDING


def _curve(values: Any, name: str, rounding: float) -> Tensor:
    try:
        if "complex" in str(getattr(values, "dtype", "")):
            raise TypeError
        curve = torch.as_tensor(values, dtype=torch.float64).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"{name} must be a sequence of T + 1 numbers, got {shown(values)}") from None
    if curve.ndim != 1:
        raise ValueError(f"{name} must be a sequence of T + 1 numbers, got shape {tuple(curve.shape)}")
    outside = ~((curve >= -rounding) & (curve <= 1 + rounding))  # catches NaN too
    if outside.any():
        t = int(outside.nonzero()[0])
        raise ValueError(f"{name} must hold probabilities in [0, 1], got {curve[t]:.6g} at t = {t}")
    start = 1.0 if name == "alpha_bar" else 0.0
    if len(curve) and abs(float(curve[0]) - start) > rounding:
        raise ValueError(f"{name}[0] must be {start:g} (t = 0 is clean data), got {curve[0]:.6g}")
    return torch.where(curve < rounding, 0.0, torch.where(curve > 1 - rounding, 1.0, curve))


def _check_monotone(schedule: MaskReplaceSchedule, rounding: float) -> None:
    """alpha_bar falls, gamma_bar and replaced / (kept + replaced) rise: else some one-step share is negative."""
    kept, replaced = schedule.alpha_bar, schedule._replaced_bar
    gain = replaced[1:] * kept[:-1] - kept[1:] * replaced[:-1]
    for name, change, rule in (
        ("alpha_bar", kept[:-1] - kept[1:], "never rise"),
        ("gamma_bar", schedule.gamma_bar[1:] - schedule.gamma_bar[:-1], "never fall"),
        ("the replaced share of the unmasked tokens", gain, "never fall"),
    ):
        if len(change) and change.min() < -rounding:
            t = int(change.argmin()) + 1
            raise ValueError(f"{name} must {rule}, but does between t = {t - 1} and t = {t}")


def _spell(t: Tensor) -> str:
    return str(int(t)) if t.numel() == 1 else f"{int(t.min())} ... {int(t.max())}"
