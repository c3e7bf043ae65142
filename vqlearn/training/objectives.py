"""What a denoiser minimises: an objective is a function `(batch, network) -> loss, figures`.

Times, noise and the loss are the objective's; the trainer gives clean tokens and takes the gradient. A function is an
objective as it is; `Objective` is the base class of those that keep a state or take fewer rows from the data. A batch
may be shared out to several processes: an objective is given some rows, and what it draws for each row is drawn by
`batch.uniform`, `batch.drawn` or functions of vqlearn such as `q_sample`, which draw for all of them. Example::

    def masked_only(batch, network):
        t = 1 + (batch.schedule.num_steps * batch.uniform()).long()
        x_t = q_sample(batch.x_0, t, batch.schedule, generator=batch.generator)
        nll = F.cross_entropy(network(x_t, t).mT, batch.x_0, reduction="none")  # [B, L]
        return nll[x_t == batch.schedule.mask_id].mean(), {}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vqlearn.arguments import real, shown, whole
from vqlearn.draws import Share, uniform
from vqlearn.objective import Jumps, TimeSampler, continuous_loss, mixed_posteriors, training_loss
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.training.checkpoint import check_form
from vqlearn.transition import check_tokens, q_sample


class Conditions(NamedTuple):
    """What each row is conditioned on."""

    values: Tensor | None  # token ids int64 [B, S], class numbers int64 [B], or None
    is_null: Tensor  # bool [B], where the null condition takes their place
    notes: Any  # what the source of the rows knows besides


@dataclass(frozen=True)
class Batch:
    """What one update learns from, or those of its rows that are evaluated together."""

    number: int  # of the update
    x_0: Tensor  # int64 [B, L]
    condition: Tensor | None  # token ids int64 [B, S], class numbers int64 [B], or None
    notes: Any  # what the source of the rows knows besides
    schedule: MaskReplaceSchedule
    generator: Generator | Share  # of all random draws of this update
    null_share: float
    kept: dict[str, Tensor] = field(default_factory=dict)  # `[B, ...]`, for `Objective.updated`

    def conditions(self) -> Conditions:
        """The conditions, with the null one in a share of the rows drawn at random (Improved VQ-Diffusion, 3.1)."""
        u = self.drawn(lambda count, generator: torch.rand(count, generator=generator, device=self.x_0.device))
        return Conditions(self.condition, u < self.null_share, self.notes)

    def drawn(self, draw: Callable[[int, Generator], Tensor]) -> Tensor:
        """What belongs to these rows of `draw(count, generator)`, which draws for all rows of the update."""
        generator = self.generator
        return generator.part(draw) if isinstance(generator, Share) else draw(len(self.x_0), generator)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) for each row, float64 `[B, *shape]`."""
        return uniform((len(self.x_0), *shape), self.generator, self.x_0.device)

    @property
    def rows(self) -> slice:
        """Which rows of the update these are."""
        return self.generator.rows if isinstance(self.generator, Share) else slice(None)


def check_state(x_t: Tensor, t: Tensor, conditions: Conditions, batch: Batch) -> None:
    """Raises ValueError for what a network cannot be asked: tokens that are none, times outside 1 ... T, other rows.

    Values are looked at on a CPU alone, a GPU would have to be waited for.
    """
    length, last = batch.x_0.shape[1], batch.schedule.num_steps
    check_tokens(x_t, batch.schedule, "x_t", mask_allowed=True)
    if x_t.shape[1] != length:
        raise ValueError(f"x_t must be of {length} tokens a row, got {x_t.shape[1]}")
    if not isinstance(t, Tensor) or t.dtype != torch.int64 or t.shape != x_t.shape[:1]:
        got = f"{t.dtype} {[*t.shape]}" if isinstance(t, Tensor) else shown(t)
        raise ValueError(f"an objective must give the network times int64 [{len(x_t)}], got {got}")
    if t.device.type == "cpu" and len(t) and not 1 <= int(t.min()) <= int(t.max()) <= last:
        raise ValueError(f"an objective must ask for times 1 ... {last}, got {int(t.min())} to {int(t.max())}")
    if len(conditions.is_null) != len(t):
        raise ValueError(f"an objective must give a condition for each of {len(t)} rows, got {len(conditions.is_null)}")


class Network(Protocol):
    """What an objective evaluates: logits `[B, L, K]` of x_t `[B, L]` at times `[B]`.

    Without `conditions` those of the batch are drawn, see `Batch.conditions`.
    """

    def __call__(self, x_t: Tensor, t: Tensor, conditions: Conditions | None = None) -> Tensor: ...


Figures = dict[str, Any]  # more columns of the log


class Objective:
    """The base class: an objective that takes all its rows from the data and keeps no state."""

    def __call__(self, batch: Batch, network: Network) -> tuple[Tensor, Figures]:
        """The loss, a scalar with a gradient, and more figures for the log."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def rows(self, number: int, batch: int) -> int:
        """How many rows of a batch are taken from the data in update `number`."""
        return batch

    def updated(self, kept: dict[str, Tensor], generator: Generator) -> None:
        """Called after each update, to change the state: with what calls have put in `batch.kept`, of all rows."""

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must have in common with a run that goes on from it."""
        return {"objective": type(self).__name__}

    def state_dict(self) -> dict[str, Any]:
        """What it has learned so far."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class _Function(Objective):
    """A plain function as an objective."""

    def __init__(self, function: Callable[[Batch, Network], tuple[Tensor, Figures]]):
        self.function = function

    def __call__(self, batch: Batch, network: Network) -> tuple[Tensor, Figures]:
        return self.function(batch, network)

    def settings(self) -> dict[str, Any]:
        return {"objective": _name(self.function)}


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def as_objective(objective: Callable[[Batch, Network], tuple[Tensor, Figures]]) -> Objective:
    """An objective as it is, and a function with the defaults of `Objective`; raises ValueError for anything else."""
    if not callable(objective) or isinstance(objective, type):
        raise ValueError(f"objective must be a function (batch, network) -> loss, figures, got {shown(objective)}")
    return objective if isinstance(objective, Objective) else _Function(objective)


class CrossEntropy(Objective):
    """The mean of -log p(x_0 | x_t) over all tokens, masked or not; times as in `low_variance_times`."""

    def __init__(self, uniform_share: float = 1.0, time_power: float = 1.0):
        self.uniform_share = real("uniform_share", uniform_share, 0, 1)
        self.time_power = real("time_power", time_power, 0, above=True)

    def __call__(self, batch: Batch, network: Network) -> tuple[Tensor, Figures]:
        t = low_variance_times(batch, self.uniform_share, self.time_power)
        x_t = q_sample(batch.x_0, t, batch.schedule, generator=batch.generator)
        return F.cross_entropy(wide(network(x_t, t)).flatten(0, 1), batch.x_0.flatten()), {}

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "uniform_share": self.uniform_share, "time_power": self.time_power}


class PublishedBound(Objective):
    """The published loss, bound and auxiliary term, with importance-sampled times (VQ-Diffusion, Eq. 9 and 12).

    `auxiliary_weight` is that of the auxiliary term, 5e-4 in the public code; 0 leaves the bound alone.
    """

    def __init__(self, num_steps: int, auxiliary_weight: float = 5e-4):
        self.times = TimeSampler(whole("num_steps", num_steps))
        self.auxiliary_weight = real("auxiliary_weight", auxiliary_weight, 0)

    def __call__(self, batch: Batch, network: Network) -> tuple[Tensor, Figures]:
        if len(self.times.counts) != batch.schedule.num_steps + 1:
            steps = len(self.times.counts) - 1
            raise ValueError(f"this bound is over {steps} steps, the schedule has {batch.schedule.num_steps}")
        t = batch.drawn(lambda count, generator: self.times.sample(count, generator)[0])
        x_t = q_sample(batch.x_0, t, batch.schedule, generator=batch.generator)
        log_p_x0 = wide(network(x_t, t)).log_softmax(-1)
        p_t, weight = self.times.probabilities().to(log_p_x0)[t], self.auxiliary_weight
        loss, terms = training_loss(log_p_x0, batch.x_0, x_t, t, batch.schedule, p_t=p_t, auxiliary_weight=weight)
        batch.kept.update(t=t, terms=terms)
        return loss, {}

    def updated(self, kept: dict[str, Tensor], generator: Generator) -> None:
        self.times.update(kept["t"], kept["terms"])

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "auxiliary_weight": self.auxiliary_weight}

    def state_dict(self) -> dict[str, Any]:
        return self.times.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_form(state, self.times.state_dict())
        self.times.load_state_dict(state)


class ContinuousTime(Objective):
    """The bound in continuous time, with one time from each of B equal parts of (0, 1] (`objective.continuous_loss`).

    For masks alone it is the weighted cross-entropy of MDLM (Sahoo et al. 2024), and with
    `jumps=objective.mixed_marginals` the loss of GIDD (von Ruette et al. 2025). The network is given the time step t
    that each time falls in.
    """

    def __init__(self, jumps: Jumps = mixed_posteriors):
        if not callable(jumps):
            raise ValueError(f"jumps must be a function such as objective.mixed_posteriors, got {shown(jumps)}")
        self.jumps = jumps

    def __call__(self, batch: Batch, network: Network) -> tuple[Tensor, Figures]:
        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return wide(network(x_t, t)).log_softmax(-1)

        return continuous_loss(
            denoise, batch.x_0, batch.schedule, jumps=self.jumps, generator=batch.generator
        ).mean(), {}

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "jumps": _name(self.jumps)}


def low_variance_times(batch: Batch, uniform_share: float = 1.0, time_power: float = 1.0) -> Tensor:
    """Times of a batch, int64 `[B]` in 1 ... T, one from each of as many equally likely parts.

    The first `uniform_share` of them are uniform, the others have a density in proportion to t^(`time_power` - 1).
    """
    steps = batch.schedule.num_steps

    def spread(u: Tensor) -> Tensor:
        return (torch.arange(len(u), device=u.device) + u) / max(1, len(u))

    def times(count: int, generator: Generator) -> Tensor:
        u, even = torch.rand(count, generator=generator, device=batch.x_0.device), round(uniform_share * count)
        share = torch.cat([spread(u[:even]), spread(u[even:]) ** (1 / time_power)])
        return (steps * share).ceil().long().clamp(1, steps)

    return batch.drawn(times)


def wide(logits: Tensor) -> Tensor:
    """Logits in float32 or more."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over positions of -sum_k target_k log softmax(logits)_k, `[B, L, K]` both; float32, a scalar."""
    loss: Tensor = _SoftCrossEntropy.apply(logits, target)  # type: ignore[no-untyped-call]
    return loss


class _SoftCrossEntropy(torch.autograd.Function):
    """The gradient, softmax less target, is made in the one float32 array that the loss needs anyway."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        log_p = logits.log_softmax(-1, dtype=torch.float32)
        rows = target.shape[:-1].numel()
        loss = -torch.dot(target.flatten(), log_p.flatten()) / rows
        ctx.save_for_backward(log_p.exp_().sub_(target).div_(rows).to(logits))
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * grad, None
