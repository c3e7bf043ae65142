"""From a prompt, a class or nothing to a picture: text encoder, denoiser, sampler and codec in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from vqlearn import guidance, samplers, sampling
from vqlearn.components import Components
from vqlearn.data import pictures
from vqlearn.data.pictures import OUTPUTS, Color, Pictures
from vqlearn.guidance import Scale
from vqlearn.networks import cost
from vqlearn.networks.conditions import Nothing, Prompt, Reading
from vqlearn.networks.denoiser import Network, OnPredictions, Predictions, denoiser, predict
from vqlearn.reverse import Denoiser, Sampler, falling, strided_times
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_sample


class ImagePipelineOutput(NamedTuple):
    """The pictures: PIL images, floats in [0, 1] `[B, H, W, 3]` or `[B, 3, H, W]`, or tokens `[B, L]`."""

    images: Any


class VQDiffusionPipeline(Components):
    """Images from a text, a class or nothing with VQ-Diffusion (Gu et al. 2021), of six parts like the published one.

    `from_pretrained()` loads the shipped model of the toy world. What the first argument of a call is, the transformer
    decides (`conditions`); without a text the three parts for it are None, and without pictures (sequences of tokens)
    the codec is. `defaults` holds what a model's folder states: the guidance scale, the truncation rate, the words that
    it knows, the names of its classes.
    """

    def __init__(self, *parts: Any, **named: Any):
        super().__init__(*parts, **named)
        self._network: Network = self.transformer
        self._bar: dict[str, Any] = {}

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Arguments for the progress bar; `disable=True` switches it off."""
        self._bar = kwargs

    def compile(self, **options: Any) -> Self:
        """Let `torch.compile` make one program of the denoiser for each batch size; the first step of each is slow.

        On a GPU the program is captured as a graph (`mode="reduce-overhead"`). `options` go to `torch.compile`.
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        self._network = torch.compile(self.transformer, dynamic=False, **{"mode": mode, **options})
        return self

    # -------------------------------------------------------------------------------------- the call

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt = None,
        num_inference_steps: int = 100,
        guidance_scale: Scale | None = None,
        truncation_rate: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Generator | list[Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback: Callable[[int, int, Tensor], None] | None = None,
        callback_steps: int = 1,
        *,
        sampler: str | Callable[..., Tensor] = "ancestral",
        times: Sequence[int] | None = None,
        negative_prompt: str | list[str] | None = None,
        top_k: int | None = None,
        on_predictions: OnPredictions = None,
    ) -> Any:
        """Draw pictures of prompts (VQ-Diffusion, Algorithm 2; guidance: Improved VQ-Diffusion, section 3.1).

        `prompt` is a text, a class (its number or name) or a list of them, as the model reads, prompt embeddings
        `[B, S, D]`, or None for a model that reads nothing. Any number of steps from 1 to T is an exact stride; `times`
        [T, ..., 0] gives the times themselves. `guidance_scale` and `truncation_rate` None are the model's own (5.0 and
        1.0 where it states none); 1 leaves either out. A scale may be a function of t (`guidance.within`), and a tensor
        `[B]` or `[B, L]`, one per picture or token. `negative_prompt` takes the place of the null text. One generator
        serves the batch, a list gives each picture its own. `latents` are tokens at the first time, int64 `[B, L]`.
        `callback(step, timestep, tokens)` is called every `callback_steps` steps, `on_predictions(t, x_t, predictions)`
        with both branches' log p(x_0 | x_t) at every network evaluation. `sampler` is a name in `vqlearn.SAMPLERS`, a
        `vqlearn.Sampler`, or a function with the signature of `ancestral`. `return_dict=False` gives a plain tuple.
        Raises ValueError for wrong arguments.
        """
        _check_whole(num_images_per_prompt=num_images_per_prompt, callback_steps=callback_steps)
        if output_type not in OUTPUTS:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUTS)}, got {output_type!r}")
        self.check(num_inference_steps, guidance_scale, truncation_rate)
        chosen = samplers.find(sampler)
        times = _run_times(chosen, self.schedule, num_inference_steps, times, begun=latents is not None)
        prompts = self.conditions.prompts(prompt)
        batch = len(prompts) * num_images_per_prompt
        if isinstance(generator, list) and len(generator) != batch:
            raise ValueError(f"generator must be one or a list of {batch} (one per picture), got {len(generator)}")
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        if latents is None:
            x_t = chosen.start(self.schedule, batch, self.length, generator=generator, device=self.device)
        else:
            x_t = _checked(latents, (batch, self.length), self.schedule).to(self.device)
        with cost.out_of_memory_is_explained(batch, self.dtype):
            denoise = self._denoiser(
                self._read(prompts, scale, num_images_per_prompt, negative_prompt),
                scale=scale,
                truncation_rate=self.truncation_rate if truncation_rate is None else truncation_rate,
                top_k=top_k,
                on_predictions=on_predictions,
            )
            branches = (guidance.branches(guidance.scale_at(scale, t, batch)) for t in times[:-1])
            rows = sum(2 if both == "both" else 1 for both in branches) * batch
            cost.announce(self.transformer, len(times) - 1, rows)
            with tqdm(total=len(times) - 1, **{"desc": "denoising", "unit": "step", **self._bar}) as bar:
                on_step = _on_step(bar, times, callback, callback_steps)
                tokens = chosen(denoise, x_t, self.schedule, times, generator=generator, on_step=on_step)
            images = tokens if output_type == "latent" else pictures.convert(self.decode(tokens), output_type)
        return ImagePipelineOutput(images) if return_dict else (images,)

    @torch.no_grad()
    def inpaint(
        self,
        image: Pictures,
        mask: Pictures,
        prompt: Prompt = None,
        *,
        resize: bool = False,
        background: Color = "white",
        **call: Any,
    ) -> Any:
        """Draw anew what `mask` covers of a picture, to a prompt; `call` is that of the pipeline.

        A token is drawn anew if the mask touches any of its pixels (`token_mask`); all others come back as they are,
        and the network sees them from the start, so what is drawn fits them (`sampling.Keeping`).
        `image` is a PIL image or float `[3, H, W]` or `[B, 3, H, W]` in [-1, 1], `mask` a PIL image (white is drawn
        anew) or bool `[H, W]`, and either may be one per picture (`data.pictures` names all forms). With `resize` the
        square in the middle of both is scaled to the codec's size; `background` is the colour behind what is
        transparent. Raises ValueError for sizes that the codec does not know.
        """
        prompts = self.conditions.prompts(prompt)
        batch = len(prompts) * call.get("num_images_per_prompt", 1)
        x_0 = self.tokens_of(image, batch, resize=resize, background=background)
        redrawn = self.token_mask(mask, sizes=pictures.sizes(image) if resize else ()).to(x_0.device)
        known = (~redrawn if redrawn.dtype == torch.bool else 1 - redrawn).expand(batch, -1)
        sampler = samplers.find(call.pop("sampler", "ancestral"))
        return self(prompts, sampler=sampling.Keeping(sampler, x_0, known), **call)

    @torch.no_grad()
    def variations(
        self,
        image: Pictures,
        prompt: Prompt = None,
        strength: float = 0.6,
        *,
        resize: bool = False,
        background: Color = "white",
        **call: Any,
    ) -> Any:
        """Pictures near a given one: its tokens are noised to time t = `strength` T, and sampling begins there.

        Of the steps only those from t on are taken. `strength` lies in (0, 1]; at 1 nothing of the picture is left.
        `image`, `resize` and `background` as in `inpaint`, `call` as in the pipeline. Raises ValueError.
        """
        if not isinstance(strength, int | float) or not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], got {strength!r}")
        prompts = self.conditions.prompts(prompt)
        batch = len(prompts) * call.get("num_images_per_prompt", 1)
        x_0 = self.tokens_of(image, batch, resize=resize, background=background)
        t = max(1, round(strength * self.schedule.num_steps))
        steps = max(1, round(call.pop("num_inference_steps", 100) * t / self.schedule.num_steps))
        x_t = q_sample(x_0, t, self.schedule, generator=call.get("generator"))
        return self(prompts, latents=x_t, times=strided_times(t, min(steps, t)), **call)

    def check(self, num_inference_steps: int, guidance_scale: Scale | None, truncation_rate: float | None) -> None:
        """Raise ValueError for numbers that a call would refuse."""
        strided_times(self.schedule.num_steps, num_inference_steps)
        if guidance_scale is not None:
            guidance.scale_at(guidance_scale, self.schedule.num_steps)
        if truncation_rate is not None:
            guidance.check_truncation_rate(truncation_rate)

    def truncate(self, log_p_x_0: Tensor, truncation_rate: float) -> Tensor:
        """`vqlearn.truncate` for class-first predictions `[B, K, L]`, as diffusers' pipeline has it."""
        return guidance.truncate(log_p_x_0.transpose(1, 2), truncation_rate).transpose(1, 2)

    # -------------------------------------------------------------------------------------- predictions

    def predictions(
        self, prompt: Prompt = None, *, negative_prompt: str | list[str] | None = None
    ) -> Callable[[Tensor, int], Predictions]:
        """`(x_t, t) -> Predictions`: log p(x_0 | x_t) `[B, L, K]` of both branches, by one forward pass, for research.

        Neither guided nor truncated. A model that reads nothing has the conditional branch alone. Gradients follow
        torch's own switch: call it under `torch.no_grad()` where none are wanted.
        """
        conditions = self.conditions
        guided = not isinstance(conditions, Nothing)
        reading = conditions.read(conditions.prompts(prompt), guided=guided, negative=negative_prompt)
        branches = "both" if guided else "conditional"
        return lambda x_t, t: predict(self._network, x_t, t, reading, branches=branches).normalised()

    @torch.no_grad()
    def denoiser(
        self,
        prompt: Prompt = None,
        *,
        guidance_scale: Scale = 1.0,
        truncation_rate: float = 1.0,
        num_images_per_prompt: int = 1,
        negative_prompt: str | list[str] | None = None,
        top_k: int | None = None,
    ) -> Denoiser:
        """`denoise(x_t, t) -> log_p_x0` for prompts, with guidance, truncation and top-k applied, for any sampler.

        Where the scale at t is neither 0 nor 1 both branches run as one batch, the null text or class first, as
        published; else one branch runs. A batch too large for the memory is split, which changes no draw.
        """
        prompts = self.conditions.prompts(prompt)
        reading = self._read(prompts, guidance_scale, num_images_per_prompt, negative_prompt)
        return self._denoiser(reading, scale=guidance_scale, truncation_rate=truncation_rate, top_k=top_k)

    def _read(self, prompts: Any, scale: Scale, copies: int, negative: Any) -> Reading:
        guided = callable(scale) or guidance.branches(guidance.scale_at(scale, 0)) != "conditional"
        return self.conditions.read(prompts, guided=guided, negative=negative).times(copies)

    def _denoiser(self, reading: Reading, *, truncation_rate: float, top_k: int | None, **more: Any) -> Denoiser:
        guidance.check_truncation_rate(truncation_rate)
        if top_k is not None:
            guidance.check_top_k(top_k)
        at_once = functools.partial(cost.pictures_at_once, self.transformer)
        return denoiser(self._network, reading, at_once, truncation_rate=truncation_rate, top_k=top_k, **more)


def _on_step(
    bar: Any, times: list[int], callback: Callable[[int, int, Tensor], None] | None, every: int
) -> Callable[[int, int, Tensor], None]:
    """What a sampler calls after each step: the bar moves, and the callback is called with diffusers' timestep."""

    def on_step(number: int, s: int, x_s: Tensor) -> None:
        bar.update()
        if callback is not None and number % every == 0:
            callback(number, times[number] - 1, x_s)

    return on_step


def _check_whole(**values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def _run_times(
    sampler: Sampler, schedule: MaskReplaceSchedule, count: int, times: Sequence[int] | None, *, begun: bool
) -> list[int]:
    """The times of a run, from those given or from the sampler; `begun` where the state at the first one is given."""
    if times is None:
        return sampler.times(schedule, count)
    times, last = falling(times), schedule.num_steps
    if times[0] > last or (times[0] < last and not begun):
        raise ValueError(f"times must begin with {last} (or less, where latents are given), got {times[0]}")
    return times


def _checked(latents: Tensor, shape: tuple[int, int], schedule: MaskReplaceSchedule) -> Tensor:
    """Tokens that a call is to begin with; raises ValueError for another type, shape or value."""
    if not isinstance(latents, Tensor) or latents.dtype != torch.int64 or tuple(latents.shape) != shape:
        got = f"{latents.dtype} {list(latents.shape)}" if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"latents must be int64 tokens {list(shape)}, got {got}")
    low, high, top = int(latents.min()), int(latents.max()), schedule.mask_id
    if low < 0 or high > top:
        raise ValueError(f"latents must lie in 0 ... {top} (the mask), got values from {low} to {high}")
    return latents
