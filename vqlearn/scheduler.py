"""The scheduler of diffusers, as a thin interface to the mathematics.

Here, and only here, tensors are class-first (`[B, K, L]`) and a timestep counts 0 ... T - 1: timestep i is our
time i + 1. Tables, draws and output object are those of diffusers' `VQDiffusionScheduler`.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from vqlearn.arguments import real, shown, whole
from vqlearn.compatibility import DEFAULTED, Config, Configured, Folder, Output, absent, usable
from vqlearn.draws import Generators, check_finite, send
from vqlearn.reverse import Denoiser, FromMasks, OnStep, strided_times
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_likelihood, q_posterior

SPACINGS = ("strided", "consecutive")
ENDS = ("alpha_cum_start", "alpha_cum_end", "gamma_cum_start", "gamma_cum_end")  # at t = 1 and t = T
MOST_STEPS = 100_000
NOT_LINEAR = "this schedule is not linear: alpha_bar and gamma_bar are its curves, and vqlearn reads them"


class _PrevSample(NamedTuple):
    prev_sample: Tensor


class VQDiffusionSchedulerOutput(Output, _PrevSample):
    """The tokens of the previous timestep, int64 `[B, L]`."""


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
        wide = log_p_x0.to(torch.promote_types(log_p_x0.dtype, torch.float32))
        floored = wide.clamp(min=-70)  # as diffusers' pipeline does after truncation
        log_p = floored if s == 0 else q_posterior(floored, x_t, t, schedule, s=s)
        return gumbel_draw(log_p.transpose(1, 2), generator)

    def step_law(self, log_p_x0: Tensor, x_t: Tensor, t: int, s: int, schedule: MaskReplaceSchedule) -> Tensor:
        floored = log_p_x0.clamp(min=-70)
        if s == 0:
            return torch.nn.functional.pad(floored.softmax(-1), (0, 1))
        return q_posterior(floored, x_t, t, schedule, s=s).softmax(-1)


def gumbel_draw(log_p: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw from unnormalised log probabilities, class-first `[B, K, L]` -> `[B, L]`, with diffusers' numbers.

    The uniform numbers are float32 whatever the dtype of `log_p`: half precision has too few near 1.
    """
    where = log_p.device if generator is None else generator.device
    uniform = send(torch.rand(log_p.shape, generator=generator, device=where, dtype=torch.float32), log_p.device)
    return (log_p - torch.log(-torch.log(uniform + 1e-30) + 1e-30)).argmax(dim=1)


@absent({"apply_cumulative_transitions": "q_posterior does it; vqlearn.q_log_probs gives q(x_t | x_0)"})
class VQDiffusionScheduler(Configured):
    """`num_vec_classes` counts the mask (K + 1); with `spacing="consecutive"` a run is diffusers' n - 1 ... 0.

    The four ends are those of the linear curves. `from_schedule` makes a scheduler of any other schedule. A scheduler
    is a sampler too, `pipe(..., sampler=pipe.scheduler)`, which draws as diffusers does, over its own spacing.
    """

    config_name = "scheduler_config.json"
    has_compatibles = True
    order = 1  # network evaluations per step
    init_noise_sigma = 1.0

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
        given = (alpha_cum_start, alpha_cum_end, gamma_cum_start, gamma_cum_end)
        ends = {name: real(name, value, 0, 1) for name, value in zip(ENDS, given, strict=True)}
        schedule = MaskReplaceSchedule.from_ends(
            num_codes=whole("num_vec_classes", num_vec_classes, 2) - 1,
            num_steps=whole("num_train_timesteps", num_train_timesteps, 1, MOST_STEPS),
            **{name.replace("_cum", ""): value for name, value in ends.items()},
        )
        self._set_up(schedule, ends, spacing)

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
            raise ValueError(f"spacing must be 'strided' or 'consecutive', got {shown(spacing)}")
        self.schedule = schedule
        sizes = {"num_vec_classes": schedule.num_codes + 1, "num_train_timesteps": schedule.num_steps}
        settings = {**sizes, **curves, "spacing": spacing}
        left = [name for name, value in settings.items() if name in DEFAULTS and value == DEFAULTS[name]]
        self.config = Config({"_class_name": "VQDiffusionScheduler", **settings, DEFAULTED: left})
        self.num_embed, self.mask_class = schedule.num_codes + 1, schedule.num_codes
        self.set_timesteps(schedule.num_steps)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the timesteps of a run, from noisy to clean; raises ValueError unless 1 <= n <= T."""
        device, times = usable(device), self.times(self.schedule, num_inference_steps)
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
        """As a sampler: `Reference` along `times`; the scheduler's own run stays as it is."""
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

        `model_output` is log p(x_0 | x_t), `[B, K, L]`. A timestep outside the run steps back by one. Raises ValueError
        for other shapes, for a timestep outside 0 ... T - 1, and where nothing can be drawn (NaN, inf, `-inf` alone).
        """
        t = self._time(timestep)
        if generator is not None and not isinstance(generator, Generator):
            raise ValueError(f"generator must be a torch.Generator or None, got {shown(generator)}")
        log_p = self._prediction(model_output, sample)
        check_finite(log_p.transpose(1, 2), "model_output")
        if s := self._before.get(t, t - 1):
            log_p = self._posterior(log_p, sample, t, s)
        x_s = gumbel_draw(log_p, generator)
        return VQDiffusionSchedulerOutput(x_s) if return_dict else (x_s,)

    def q_posterior(self, log_p_x_0: Tensor, x_t: Tensor, t: int | Tensor) -> Tensor:
        """log p(x_{t-1} | x_t), class-first `[B, K, L]` -> `[B, K + 1, L]`, timestep `t` as in diffusers."""
        t = self._time(t)
        return self._posterior(self._prediction(log_p_x_0, x_t), x_t, t, t - 1)

    def _time(self, timestep: int | Tensor) -> int:
        one = timestep.item() if isinstance(timestep, Tensor) and timestep.numel() == 1 else timestep
        return whole("timestep", one, 0, self.schedule.num_steps - 1) + 1

    def _prediction(self, log_p: Tensor, x_t: Tensor) -> Tensor:
        """A class-first prediction for some tokens, at least float32; half precision has too few numbers for q."""
        both = isinstance(log_p, Tensor) and isinstance(x_t, Tensor) and x_t.ndim == 2 and log_p.is_floating_point()
        if not both or [*log_p.shape] != [len(x_t), self.schedule.num_codes, x_t.shape[1]]:
            got = " and ".join(
                f"{one.dtype} {[*one.shape]}" if isinstance(one, Tensor) else shown(one) for one in (log_p, x_t)
            )
            raise ValueError(f"need a float [B, {self.schedule.num_codes}, L] for tokens [B, L], got {got}")
        return log_p.to(torch.promote_types(log_p.dtype, torch.float32))

    def _posterior(self, log_p_x_0: Tensor, x_t: Tensor, t: int, s: int) -> Tensor:
        return q_posterior(log_p_x_0.transpose(1, 2), x_t, t, self.schedule, s=s).transpose(1, 2)

    def log_Q_t_transitioning_to_known_class(
        self, *, t: int | Tensor, x_t: Tensor, log_onehot_x_t: Tensor | None = None, cumulative: bool
    ) -> Tensor:
        """log q(x_t | x_0 = c) `[B, K, L]` if cumulative, else log q(x_t | x_{t-1} = c) `[B, K + 1, L]`, for each c."""
        t = self._time(t)
        rows = q_likelihood(x_t, t, self.schedule, s=0 if cumulative else t - 1)  # [B, L, K + 1]
        return (rows[..., :-1] if cumulative else rows).transpose(1, 2)

    def scale_model_input(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The sample itself; part of diffusers' interface."""
        return sample

    def save_pretrained(self, folder: Folder, **options: Any) -> None:
        """Write `scheduler_config.json`."""
        self.save_config(folder, **options)

    @classmethod
    def from_pretrained(cls, name: Folder, **options: Any) -> Any:
        """Read `scheduler_config.json` of a folder or of a model's `subfolder`, see `load_config` and `from_config`."""
        unused = options.pop("return_unused_kwargs", False)
        config, changes = cls.load_config(name, return_unused_kwargs=True, **options)
        return cls.from_config(config, return_unused_kwargs=unused, **changes)

    @property
    def compatibles(self) -> list[type]:
        """The schedulers that read this one's configuration: its own class."""
        return [type(self)]

    def register_to_config(self, **notes: Any) -> None:
        """Keep values in the configuration that are no settings; raises ValueError for a setting."""
        if known := [name for name in notes if name in self._settings()]:
            raise ValueError(f"{known[0]} is a setting: make a scheduler with from_config(config, {known[0]}=value)")
        self.config = Config({**self.config, **notes})

    @classmethod
    def _settings(cls) -> tuple[str, ...]:
        return ("num_vec_classes", *DEFAULTS, "alpha_bar", "gamma_bar")

    @classmethod
    def _from_settings(cls, settings: dict[str, Any]) -> VQDiffusionScheduler:
        curves = [name for name in ("alpha_bar", "gamma_bar") if name in settings]
        wanted = ("num_vec_classes", *(("alpha_bar", "gamma_bar") if curves else ()))
        if missing := [name for name in wanted if name not in settings]:
            raise ValueError(f"a scheduler's configuration needs {' and '.join(missing)} too")
        if not curves:
            return cls(**settings)
        codes = whole("num_vec_classes", settings["num_vec_classes"], 2) - 1
        schedule = MaskReplaceSchedule(settings["alpha_bar"], settings["gamma_bar"], num_codes=codes)
        if (steps := settings.get("num_train_timesteps", schedule.num_steps)) != schedule.num_steps:
            raise ValueError(f"num_train_timesteps is {shown(steps)}, the curves have {schedule.num_steps} steps")
        return cls.from_schedule(schedule, spacing=settings.get("spacing", "strided"))


DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(VQDiffusionScheduler).parameters.items()
    if parameter.default is not parameter.empty
}
