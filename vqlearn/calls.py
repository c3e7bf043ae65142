"""What a call of the pipeline is given besides prompts, checked, and what it does after each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqlearn.arguments import shown, whole
from vqlearn.data.pictures import OUTPUTS
from vqlearn.draws import Generators, check_generators
from vqlearn.reverse import Sampler, falling
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import check_tokens

MOST_COPIES = 2**20  # pictures of one prompt
Callback = Callable[[int, int, Tensor], None]
OnStepEnd = Callable[[Any, int, int, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass(frozen=True)
class OnStep:
    """What happens after each step: the bar moves, and the callbacks are called with diffusers' timestep."""

    pipe: Any
    callback: Callback | None
    callback_steps: int
    at_end: OnStepEnd | None
    at_end_inputs: Sequence[str]

    def __post_init__(self) -> None:
        whole("callback_steps", self.callback_steps)
        check_functions(callback=self.callback, callback_on_step_end=self.at_end)
        if not isinstance(self.at_end_inputs, list | tuple) or [*self.at_end_inputs] != ["latents"]:
            got = shown(self.at_end_inputs)
            raise ValueError(f"callback_on_step_end_tensor_inputs must be ['latents'], got {got}")

    def __call__(self, bar: Any, times: list[int], number: int, s: int, x_s: Tensor) -> None:
        bar.update()
        if self.callback is not None and number % self.callback_steps == 0:
            self.callback(number, times[number] - 1, x_s)
        if self.at_end is not None:
            answer = self.at_end(self.pipe, number, times[number] - 1, {"latents": x_s}) or {}
            if not isinstance(answer, Mapping):
                raise TypeError(f"callback_on_step_end must return a dict or None, got {shown(answer)}")
            if (changed := answer.get("latents", x_s)) is not x_s:
                x_s.copy_(tokens(changed, tuple(x_s.shape), self.pipe.schedule))


def check_functions(**functions: Any) -> None:
    """Raise TypeError for what is neither a function nor None."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a function, got {shown(function)}")


def output_form(output_type: Any) -> str:
    """One of `OUTPUTS`; "numpy" is another name of "np". Raises ValueError."""
    form: str = "np" if isinstance(output_type, str) and output_type == "numpy" else output_type
    if form not in OUTPUTS:
        raise ValueError(f"output_type must be one of {', '.join(OUTPUTS)}, got {shown(output_type)}")
    return form


def copies(num_images_per_prompt: Any) -> int:
    """How many pictures of each prompt; raises ValueError."""
    number = whole("num_images_per_prompt", num_images_per_prompt)
    return number if number <= MOST_COPIES else whole("num_images_per_prompt", number, 1, MOST_COPIES)


def generators(generator: Any, batch: int) -> Generators:
    """One generator, a list or tuple of one per picture, or None; raises TypeError or ValueError for anything else."""
    found: Generators = list(generator) if isinstance(generator, tuple) else generator
    check_generators(found, batch)
    return found


def run_times(
    sampler: Sampler, schedule: MaskReplaceSchedule, count: int, times: Sequence[int] | None, *, begun: bool
) -> list[int]:
    """The times of a run, from those given or from the sampler; `begun` where the state at the first one is given."""
    if times is None:
        return sampler.times(schedule, count)
    times, last = falling(times), schedule.num_steps
    if times[0] > last or (times[0] < last and not begun):
        raise ValueError(f"times must begin with {last} (or less, where latents are given), got {times[0]}")
    return times


def state(x_t: Any, t: Any, rows: int, length: int, schedule: MaskReplaceSchedule) -> tuple[Tensor, int]:
    """A state `[rows, length]` and its time, as a denoiser of so many rows takes them; raises ValueError."""
    if not isinstance(x_t, Tensor) or x_t.dtype != torch.int64 or [*x_t.shape] != [rows, length]:
        got = f"{x_t.dtype} {[*x_t.shape]}" if isinstance(x_t, Tensor) else shown(x_t)
        raise ValueError(f"x_t must be int64 tokens [{rows}, {length}] (a row for each prompt and copy), got {got}")
    if x_t.device.type == "cpu":  # a GPU would have to be waited for
        check_tokens(x_t, schedule, "x_t", mask_allowed=True)
    return x_t, whole("t", t.item() if isinstance(t, Tensor) and t.numel() == 1 else t, 1, schedule.num_steps)


def tokens(latents: Any, shape: tuple[int, ...], schedule: MaskReplaceSchedule) -> Tensor:
    """Tokens that a call begins or goes on with; raises ValueError for another type, shape or value."""
    if not isinstance(latents, Tensor) or latents.dtype != torch.int64 or tuple(latents.shape) != shape:
        got = f"{latents.dtype} {list(latents.shape)}" if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"latents must be int64 tokens {list(shape)}, got {got}")
    if latents.layout != torch.strided or latents.is_meta:
        raise ValueError(f"latents must be a dense tensor with values, got {latents.layout} on {latents.device}")
    low, high, top = int(latents.min()), int(latents.max()), schedule.mask_id
    if low < 0 or high > top:
        raise ValueError(f"latents must lie in 0 ... {top} (the mask), got values from {low} to {high}")
    return latents
