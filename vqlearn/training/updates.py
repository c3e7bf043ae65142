"""One update of the weights: learning rate, clipping, and the generator of each step's draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vqlearn.arguments import shown
from vqlearn.training import processes
from vqlearn.training.checkpoint import check_form
from vqlearn.training.recipes import CodecRecipe, DenoiserRecipe
from vqlearn.training.sharding import is_shared, parted


def of_kind(name: str, value: Any, *kinds: type) -> None:
    """Raises TypeError for an argument that is no object of one of some classes."""
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be a {wanted}, got {shown(value)}")


def learning_rate(step: int, steps: int, decay: float, warmup: int = 200) -> float:
    """Factor of the learning rate: linear warm-up, flat, then linear to zero over the last `decay` of the run."""
    left = (steps - step) / max(1, round(decay * steps))
    return max(0.0, min((step + 1) / warmup, 1.0, left))


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (torch has no public name for it)."""
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters in two groups: the layers that read text learn faster (one group where there are none).

    Text comes in unit length, not unit variance, so the same step of a weight moves its output sqrt(width) times less.
    """
    reads_text = [
        p for name, p in model.named_parameters() if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))
    ]
    known = {id(p) for p in reads_text}
    found = [{"params": [p for p in model.parameters() if id(p) not in known], "scale": 1.0}]
    if reads_text:
        found.append({"params": reads_text, "scale": math.sqrt(reads_text[0].shape[1])})
    return found


def warm_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """The `multi_avg_fn` of an `AveragedModel`: a moving average that forgets the start faster, n / (n + 9) at most."""

    @torch.no_grad()
    def average(means: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(means, values, 1 - min(decay, n / (n + 9)))

    return average


def update(
    optimizer: torch.optim.Optimizer,
    loss: float,
    number: int,
    recipe: CodecRecipe | DenoiserRecipe,
    parameters: Iterable[Tensor],
    clip: float = math.inf,
) -> float:
    """Clip and step; returns the gradient's norm. Raises before the step if it or the loss is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * learning_rate(number, recipe.steps, recipe.decay) * group.get("scale", 1.0)
    with processes.heard():
        found: Any = nn.utils.clip_grad_norm_(parameters, clip)
        norm = float(found.full_tensor() if is_shared(found) else found)
    if not (math.isfinite(norm) and math.isfinite(loss)):
        raise FloatingPointError(f"the loss of step {number + 1} is {loss}, its gradient's norm {norm}")
    optimizer.step()
    return norm


def step_generator(seed: int, number: int, device: torch.device | str) -> Generator:
    return Generator(device).manual_seed(seed * 1_000_003 + number)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer its moments back; raises for a state of other parameters. All else is the recipe's."""
    own = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    moved = {
        number: {name: parted(value, parameters[number]) for name, value in moments.items()}
        for number, moments in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moved})
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    for parameter, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            check_form(moments[name], parameter.detach(), name)
            moments[name] = moments[name].clone()  # out of the file, which the next checkpoint replaces
        check_form(moments["step"], torch.tensor(0.0), "step")
