"""How each stage learns, as values that a checkpoint remembers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from vqlearn.arguments import real, shown, whole


def _three_shares(name: str, value: Any) -> tuple[float, ...]:
    try:
        found = tuple(real(name, share, 0, 1) for share in value)
    except (TypeError, ValueError):
        found = ()
    if len(found) != 3 or not math.isclose(sum(found), 1, rel_tol=1e-6):
        raise ValueError(f"{name} must be three numbers in [0, 1] whose sum is 1, got {shown(value)}")
    return found


# What the fields of any recipe may be; each raises ValueError or returns Python's own number, as a checkpoint needs it.
LIMITS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("steps", "batch"), partial(whole, least=1)),
    "own_from": partial(whole, least=0),
    "seed": partial(whole, least=0, most=2**32 - 1),
    **dict.fromkeys(("learning_rate", "clip", "time_power"), partial(real, least=0, above=True)),
    **dict.fromkeys(("commitment", "weight_decay", "relation_weight"), partial(real, least=0)),
    **dict.fromkeys(
        ("decay", "polish", "null_share", "ema", "uniform_share", "own_share"), partial(real, least=0, most=1)
    ),
    "counts": _three_shares,
}


class _Recipe:
    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # of a recipe, which is a dataclass
            if field.name in LIMITS:
                object.__setattr__(self, field.name, LIMITS[field.name](field.name, getattr(self, field.name)))


@dataclass(frozen=True)
class CodecRecipe(_Recipe):
    """How the codec learns. The last `polish` of the steps train the decoder alone, on tokens that no longer move.

    Raises ValueError for numbers out of range, as the other recipes do.
    """

    steps: int = 2400
    batch: int = 64
    learning_rate: float = 2e-3
    decay: float = 0.3
    polish: float = 0.3
    commitment: float = 0.25
    seed: int = 0


@dataclass(frozen=True)
class DenoiserRecipe(_Recipe):
    """How a denoiser or its autoregressive rival learns, whatever its data and objective are.

    The learning rate falls to zero over the last `decay` of the `steps`; `null_share` of the rows are trained without
    their condition; `ema` is the decay of the averaged weights and `clip` the largest norm of a gradient.
    """

    steps: int = 30000
    batch: int = 32
    learning_rate: float = 1e-3
    decay: float = 0.5
    weight_decay: float = 1e-2
    null_share: float = 0.1
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class WorldRecipe(DenoiserRecipe):
    """How any network of tokens learns the toy world.

    `counts` are the shares of scenes with one, two and three objects, `relation_weight` is that of the text encoder's
    task (`RelationTask`).
    """

    counts: tuple[float, float, float] = (0.25, 0.45, 0.3)
    relation_weight: float = 0.2


@dataclass(frozen=True)
class SceneRecipe(WorldRecipe):
    """How a denoiser learns the toy world.

    `objective` is a name in `training.scenes.OBJECTIVES`: "ideal" is the cross-entropy from the ideal denoiser's
    prediction to the network's; "cross_entropy" the mean of -log p(x_0 | x_t) over all tokens, of which "ideal" is the
    expectation given x_t, so the same with less noise; "bound" the published loss; "continuous" the bound in continuous
    time. Times of the first two are uniform for `uniform_share` of the batch, and for the rest have a density in
    proportion to t^(`time_power` - 1), because the layout is decided late. With "ideal", from update `own_from` on
    `own_share` of each batch are states of the network's own trajectories (`on_policy`).
    """

    uniform_share: float = 1 / 3
    time_power: float = 4.0
    objective: str = "ideal"
    own_share: float = 0.5
    own_from: int = 4000
