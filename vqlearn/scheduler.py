"""The scheduler of diffusers, as a thin interface to the mathematics.

Here, and only here, tensors are class-first (`[B, K, L]`) and a timestep counts 0 ... T - 1: timestep i is our
time i + 1. Tables, draws and output object are those of diffusers' `VQDiffusionScheduler`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from vqlearn.draws import Generators, send
from vqlearn.reverse import Denoiser, FromMasks, OnStep, falling, strided_times
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_likelihood, q_posterior

SPACINGS = ("strided", "consecutive")
ENDS = ("alpha_cum_start", "alpha_cum_end", "gamma_cum_start", "gamma_cum_end")  # at t = 1 and t = T
NOT_LINEAR = "this schedule is not linear: alpha_bar and gamma_bar are its curves, and vqlearn reads them"


class VQDiffusionSchedulerOutput(NamedTuple):
    """The tokens of the previous timestep, int64 `[B, L]`."""

    prev_sample: Tensor


class Reference(FromMasks):
    """As diffusers draws, seed by seed: from masks alone, by Gumbel noise over the posterior, K + 1 numbers a token."""

    def step(
        self,
        log_p_x0: Tensor,
        x_t: Tensor,
        t: int,
        s: int,
        schedule: MaskReplaceSchedule,
        *,
        generator: Generators = None,
    ) -> Tensor:
        if isinstance(generator, list):
            raise ValueError("generator must be one for the whole batch with this sampler, as in diffusers, got a list")
        floored = log_p_x0.clamp(min=-70)  # as diffusers' pipeline does after truncation
        log_p = floored if s == 0 else q_posterior(floored, x_t, t, schedule, s=s)
        return gumbel_draw(log_p.transpose(1, 2), generator)

    def step_law(self, log_p_x0: Tensor, x_t: Tensor, t: int, s: int, schedule: MaskReplaceSchedule) -> Tensor:
        floored = log_p_x0.clamp(min=-70)
        if s == 0:
            return torch.nn.functional.pad(floored.softmax(-1), (0, 1))
        return q_posterior(floored, x_t, t, schedule, s=s).softmax(-1)


def gumbel_draw(log_p: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw from unnormalised log probabilities, class-first `[B, K, L]` -> `[B, L]`, with diffusers' numbers."""
    where = log_p.device if generator is None else generator.device
    uniform = send(torch.rand(log_p.shape, generator=generator, device=where, dtype=log_p.dtype), log_p.device)
    return (log_p - torch.log(-torch.log(uniform + 1e-30) + 1e-30)).argmax(dim=1)


class VQDiffusionScheduler:
    """`num_vec_classes` counts the mask (K + 1); with `spacing="consecutive"` a run is diffusers' n - 1 ... 0.

    The four ends are those of the linear curves. `from_schedule` makes a scheduler of any other schedule. A scheduler
    is a sampler too, `pipe(..., sampler=pipe.scheduler)`, which draws as diffusers does, over its own spacing.
    """

    def __init__(
        self,
        num_vec_classes: int,
        num_train_timesteps: int = 100,
        alpha_cum_start: float = 0.99999,
        alpha_cum_end: float = 0.000009,
        gamma_cum_start: float = 0.000009,
        gamma_cum_end: float = 0.99999,
        *,
        spacing: str = "strided",
    ):
        schedule = MaskReplaceSchedule.from_ends(
            num_codes=num_vec_classes - 1,
            num_steps=num_train_timesteps,
            alpha_start=alpha_cum_start,
            alpha_end=alpha_cum_end,
            gamma_start=gamma_cum_start,
            gamma_end=gamma_cum_end,
        )
        ends = (alpha_cum_start, alpha_cum_end, gamma_cum_start, gamma_cum_end)
        self._set_up(schedule, dict(zip(ENDS, ends, strict=True)), spacing)

    @classmethod
    def from_schedule(cls, schedule: MaskReplaceSchedule, *, spacing: str = "strided") -> VQDiffusionScheduler:
        """The scheduler of any schedule; one with linear curves is written in diffusers' keys, others as curves."""
        alpha, gamma = schedule.alpha_bar.tolist(), schedule.gamma_bar.tolist()
        ends = dict(zip(ENDS, (alpha[1], alpha[-1], gamma[1], gamma[-1]), strict=True))
        try:
            linear = cls(schedule.num_codes + 1, schedule.num_steps, **ends, spacing=spacing)
        except ValueError:  # the straight line between these ends is no schedule
            linear = None
        if linear is not None and linear.schedule == schedule:
            return linear
        made = cls.__new__(cls)
        curves = dict.fromkeys(ENDS, NOT_LINEAR) | {"alpha_bar": alpha, "gamma_bar": gamma}
        made._set_up(schedule, curves, spacing)
        return made

    def _set_up(self, schedule: MaskReplaceSchedule, curves: dict[str, Any], spacing: str) -> None:
        if spacing not in SPACINGS:
            raise ValueError(f"spacing must be 'strided' or 'consecutive', got {spacing!r}")
        self.schedule = schedule
        self.config = {
            "_class_name": "VQDiffusionScheduler",
            "num_vec_classes": schedule.num_codes + 1,
            "num_train_timesteps": schedule.num_steps,
            **curves,
            "spacing": spacing,
        }
        self.num_embed, self.mask_class = schedule.num_codes + 1, schedule.num_codes
        self.init_noise_sigma = 1.0
        self.set_timesteps(schedule.num_steps)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the timesteps of a run, from noisy to clean; raises ValueError unless 1 <= n <= T."""
        self._run(self.times(self.schedule, num_inference_steps), device)

    def _run(self, times: list[int], device: torch.device | str | None) -> None:
        self.num_inference_steps = len(times) - 1
        self.timesteps = torch.tensor(times[:-1], device=device) - 1
        self._before = dict(itertools.pairwise(times))

    def times(self, schedule: MaskReplaceSchedule, count: int) -> list[int]:
        """The times of a run, from noisy to clean, the last is 0: an exact stride, or diffusers' n ... 0."""
        strided = strided_times(schedule.num_steps, count)
        return list(range(count, -1, -1)) if self.config["spacing"] == "consecutive" else strided

    start, start_law, step_law = Reference.start, Reference.start_law, Reference.step_law

    def __call__(
        self,
        denoise: Denoiser,
        x_t: Tensor,
        schedule: MaskReplaceSchedule,
        times: Iterable[int],
        *,
        generator: Generators = None,
        on_step: OnStep = None,
    ) -> Tensor:
        """As a sampler: `Reference` along `times`, which become the timesteps of the scheduler."""
        times = falling(times)
        self._run(times, x_t.device)
        return Reference()(denoise, x_t, schedule, times, generator=generator, on_step=on_step)

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generator | None = None,
        return_dict: bool = True,
    ) -> VQDiffusionSchedulerOutput | tuple[Tensor]:
        """From x_t to the tokens of the next timestep in the run, drawn by Gumbel noise exactly as diffusers draws.

        `model_output` is log p(x_0 | x_t), `[B, K, L]`. A timestep outside the run steps back by one.
        """
        t = int(timestep) + 1
        s = self._before.get(t, t - 1)
        log_p = model_output if s == 0 else self._posterior(model_output, sample, t, s)
        x_s = gumbel_draw(log_p, generator)
        return VQDiffusionSchedulerOutput(x_s) if return_dict else (x_s,)

    def q_posterior(self, log_p_x_0: Tensor, x_t: Tensor, t: int | Tensor) -> Tensor:
        """log p(x_{t-1} | x_t), class-first `[B, K, L]` -> `[B, K + 1, L]`, timestep `t` as in diffusers."""
        return self._posterior(log_p_x_0, x_t, int(t) + 1, int(t))

    def _posterior(self, log_p_x_0: Tensor, x_t: Tensor, t: int, s: int) -> Tensor:
        return q_posterior(log_p_x_0.transpose(1, 2), x_t, t, self.schedule, s=s).transpose(1, 2)

    def log_Q_t_transitioning_to_known_class(
        self, *, t: int | Tensor, x_t: Tensor, log_onehot_x_t: Tensor | None = None, cumulative: bool
    ) -> Tensor:
        """log q(x_t | x_0 = c) `[B, K, L]` if cumulative, else log q(x_t | x_{t-1} = c) `[B, K + 1, L]`, for each c."""
        t = int(t) + 1
        rows = q_likelihood(x_t, t, self.schedule, s=0 if cumulative else t - 1)  # [B, L, K + 1]
        return (rows[..., :-1] if cumulative else rows).transpose(1, 2)

    def scale_model_input(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The sample itself; part of diffusers' interface."""
        return sample

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `scheduler_config.json`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "scheduler_config.json").write_text(json.dumps(self.config, indent=2) + "\n")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VQDiffusionScheduler:
        """A scheduler from a configuration; keys that begin with "_" are ignored.

        Raises ValueError for curves that are no schedule.
        """
        named = {key: value for key, value in config.items() if not key.startswith("_")}
        if "alpha_bar" not in named and "gamma_bar" not in named:
            return cls(**named)
        if missing := [key for key in ("alpha_bar", "gamma_bar", "num_vec_classes") if key not in named]:
            raise ValueError(f"a schedule that is given by its curves needs {', '.join(missing)} too")
        schedule = MaskReplaceSchedule(named["alpha_bar"], named["gamma_bar"], num_codes=named["num_vec_classes"] - 1)
        if named.get("num_train_timesteps", schedule.num_steps) != schedule.num_steps:
            raise ValueError(
                f"num_train_timesteps is {named['num_train_timesteps']!r}, the curves have {schedule.num_steps} steps"
            )
        return cls.from_schedule(schedule, spacing=named.get("spacing", "strided"))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> VQDiffusionScheduler:
        """Read `scheduler_config.json`."""
        return cls.from_config(json.loads((Path(folder) / "scheduler_config.json").read_text()))
