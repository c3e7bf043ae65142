"""The scheduler of diffusers, as a thin face over the mathematics.

Here, and only here, tensors are class-first (`[B, K, L]`) and a timestep counts 0 ... T - 1: timestep i is our
time i + 1. Tables, draws and output object are those of diffusers' `VQDiffusionScheduler`.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vqlearn.sampling import Denoiser, OnStep, strided_times, walk
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_likelihood, q_posterior, send

SPACINGS = ("strided", "consecutive")


class VQDiffusionSchedulerOutput(NamedTuple):
    """The tokens of the previous timestep, int64 `[B, L]`."""

    prev_sample: Tensor


class VQDiffusionScheduler:
    """`num_vec_classes` counts the mask (K + 1); with `spacing="consecutive"` a run is diffusers' n - 1 ... 0."""

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
        if spacing not in SPACINGS:
            raise ValueError(f"spacing must be 'strided' or 'consecutive', got {spacing!r}")
        self.config = {
            "_class_name": "VQDiffusionScheduler",
            "num_vec_classes": num_vec_classes,
            "num_train_timesteps": num_train_timesteps,
            "alpha_cum_start": alpha_cum_start,
            "alpha_cum_end": alpha_cum_end,
            "gamma_cum_start": gamma_cum_start,
            "gamma_cum_end": gamma_cum_end,
            "spacing": spacing,
        }
        self.schedule = MaskReplaceSchedule.from_ends(
            num_codes=num_vec_classes - 1,
            num_steps=num_train_timesteps,
            alpha_start=alpha_cum_start,
            alpha_end=alpha_cum_end,
            gamma_start=gamma_cum_start,
            gamma_end=gamma_cum_end,
        )
        self.num_embed, self.mask_class = num_vec_classes, num_vec_classes - 1
        self.init_noise_sigma = 1.0
        self.set_timesteps(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, device=None) -> None:
        """Choose the timesteps of a run, from noisy to clean; raises ValueError unless 1 <= n <= T."""
        self._run(self.times(num_inference_steps), device)

    def _run(self, times: list[int], device) -> None:
        self.num_inference_steps = len(times) - 1
        self.timesteps = torch.tensor(times[:-1], device=device) - 1
        self._before = dict(itertools.pairwise(times))

    def times(self, num_inference_steps: int) -> list[int]:
        """The times of a run, from noisy to clean, the last is 0: an exact stride, or diffusers' n ... 0."""
        strided = strided_times(self.schedule.num_steps, num_inference_steps)
        return list(range(num_inference_steps, -1, -1)) if self.config["spacing"] == "consecutive" else strided

    def start(self, schedule: MaskReplaceSchedule, batch: int, length: int, *, generator=None, device="cpu") -> Tensor:
        """Where diffusers starts whatever the schedule says: everything masked, `[batch, length]`, nothing drawn."""
        return torch.full((batch, length), schedule.mask_id, device=device)

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoiser,
        x_t: Tensor,
        schedule: MaskReplaceSchedule,
        times: list[int],
        *,
        generator: Generator | None = None,
        on_step: OnStep = None,
    ) -> Tensor:
        """As a sampler, `pipe(..., sampler=pipe.scheduler)`: `step` at each of `times`, drawing as diffusers draws."""
        if isinstance(generator, list):
            raise ValueError("generator must be one for the whole batch with this sampler, as in diffusers, got a list")
        self._run(times, x_t.device)

        def step(x_t: Tensor, t: int, s: int) -> Tensor:
            belief = denoise(x_t, t).clamp(min=-70)  # as diffusers' pipeline does after truncation
            return self.step(belief.transpose(1, 2), t - 1, x_t, generator)[0]

        return walk(x_t, times, step, on_step)

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
        where = log_p.device if generator is None else generator.device
        uniform = send(torch.rand(log_p.shape, generator=generator, device=where, dtype=log_p.dtype), log_p.device)
        x_s = (log_p - torch.log(-torch.log(uniform + 1e-30) + 1e-30)).argmax(dim=1)
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

    def scale_model_input(self, sample: Tensor, *args, **kwargs) -> Tensor:
        """The sample itself; part of diffusers' interface."""
        return sample

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `scheduler_config.json`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "scheduler_config.json").write_text(json.dumps(self.config, indent=2) + "\n")

    @classmethod
    def from_config(cls, config: dict) -> VQDiffusionScheduler:
        """A scheduler from a configuration; keys that begin with "_" are ignored."""
        return cls(**{key: value for key, value in config.items() if not key.startswith("_")})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> VQDiffusionScheduler:
        """Read `scheduler_config.json`."""
        return cls.from_config(json.loads((Path(folder) / "scheduler_config.json").read_text()))
