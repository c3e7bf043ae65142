"""From a prompt, a class or nothing to a picture: text encoder, denoiser, sampler and codec in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Generator, Tensor

from vqlearn import calls, guidance, keeping, samplers
from vqlearn.arguments import real, shown, whole
from vqlearn.calls import Callback, OnStepEnd
from vqlearn.compatibility import Output
from vqlearn.components import DiffusionComponents
from vqlearn.data import pictures
from vqlearn.data.pictures import Color, Pictures
from vqlearn.drop_in import DropIn
from vqlearn.guidance import Scale
from vqlearn.networks import cost
from vqlearn.networks.conditions import Nothing, Prompt, Reading
from vqlearn.networks.denoiser import Network, OnPredictions, Predictions, denoiser, predict
from vqlearn.reverse import Denoiser, strided_times
from vqlearn.transition import q_sample


class _Images(NamedTuple):
    images: Any


class ImagePipelineOutput(Output, _Images):
    """The pictures: PIL images, floats in [0, 1] `[B, H, W, 3]` or `[B, 3, H, W]`, or tokens `[B, L]`."""


class VQDiffusionPipeline(DropIn, DiffusionComponents):
    """Images from a text, a class or nothing with VQ-Diffusion (Gu et al. 2021), of six parts like the published one.

    `from_pretrained()` loads the shipped model of the toy world. What the first argument of a call is, the transformer
    decides (`conditions`); without a text the three parts for it are None, and without pictures (sequences of tokens)
    the codec is. `defaults` holds what a model's folder states: the guidance scale, the truncation rate, the words that
    it knows, the names of its classes.
    """

    _network: Network

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "transformer":
            self._network = value  # in place of what was compiled of another one

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
        callback: Callback | None = None,
        callback_steps: int = 1,
        *,
        sampler: str | Callable[..., Tensor] = "ancestral",
        times: Sequence[int] | None = None,
        negative_prompt: str | list[str] | None = None,
        top_k: int | None = None,
        on_predictions: OnPredictions = None,
        callback_on_step_end: OnStepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Draw pictures of prompts (VQ-Diffusion, Algorithm 2; guidance: Improved VQ-Diffusion, section 3.1).

        `prompt` is a text, a class (its number or name) or a list of them, as the model reads, prompt embeddings
        `[B, S, D]`, or None for a model that reads nothing. Any number of steps from 1 to T is an exact stride; `times`
        [T, ..., 0] gives the times themselves. `guidance_scale` and `truncation_rate` None are the model's own (5.0 and
        1.0 where it states none); 1 leaves either out. A scale may be a function of t (`guidance.within`), and a tensor
        `[B]` or `[B, L]`, one per picture or token. `negative_prompt` takes the place of the null text. One generator
        serves the batch, a list gives each picture its own. `latents` are tokens at the first time, int64 `[B, L]`.
        `callback(step, timestep, tokens)` is called every `callback_steps` steps, `on_predictions(t, x_t, predictions)`
        with both branches' log p(x_0 | x_t) at every network evaluation, `callback_on_step_end(pipe, step, timestep,
        {"latents": tokens})` after every step, and tokens in its answer take their place. `sampler` is a name in
        `vqlearn.SAMPLERS`, a `vqlearn.Sampler`, or a function with the signature of `ancestral`. `return_dict=False`
        gives a plain tuple.
        Raises ValueError for wrong arguments.
        """
        self.check_parts()
        calls.check_functions(on_predictions=on_predictions)
        form = calls.output_form(output_type)
        if form != "latent":
            self._codec()
        on_step = calls.OnStep(self, callback, callback_steps, callback_on_step_end, callback_on_step_end_tensor_inputs)
        self.check(num_inference_steps, guidance_scale, truncation_rate)
        chosen = samplers.find(sampler)
        times = calls.run_times(chosen, self.schedule, num_inference_steps, times, begun=latents is not None)
        prompts = self.conditions.prompts(prompt)
        copies = calls.copies(num_images_per_prompt)
        batch = len(prompts) * copies
        generator = calls.generators(generator, batch)
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        if latents is not None:
            latents = calls.tokens(latents, (batch, self.length), self.schedule).to(self.device)
        with cost.out_of_memory_is_explained(batch, self.dtype):
            x_t = latents
            if x_t is None:
                x_t = chosen.start(self.schedule, batch, self.length, generator=generator, device=self.device)
            denoise = self._denoiser(
                self._read(prompts, scale, copies, negative_prompt),
                scale=scale,
                truncation_rate=self.truncation_rate if truncation_rate is None else truncation_rate,
                top_k=top_k,
                on_predictions=on_predictions,
            )
            branches = (guidance.branches(guidance.scale_at(scale, t, (batch, self.length))) for t in times[:-1])
            rows = sum(2 if both == "both" else 1 for both in branches) * batch
            cost.announce(self.transformer, len(times) - 1, rows)
            with self.progress_bar(total=len(times) - 1) as bar:
                after = functools.partial(on_step, bar, times)
                tokens = chosen(denoise, x_t, self.schedule, times, generator=generator, on_step=after)
            images = tokens if form == "latent" else pictures.convert(self.decode(tokens), form)
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
        and the network sees them from the start, so what is drawn fits them (`keeping.Keeping`).
        `image` is a PIL image or float `[3, H, W]` or `[B, 3, H, W]` in [-1, 1], `mask` a PIL image (white is drawn
        anew) or bool `[H, W]`, and either may be one per picture (`data.pictures` names all forms). With `resize` the
        square in the middle of both is scaled to the codec's size; `background` is the colour behind what is
        transparent. Raises ValueError for sizes that the codec does not know.
        """
        prompts = self.conditions.prompts(prompt)
        batch = len(prompts) * calls.copies(call.get("num_images_per_prompt", 1))
        x_0 = self.tokens_of(image, batch, resize=resize, background=background)
        redrawn = self.token_mask(mask, sizes=pictures.sizes(image) if resize else ()).to(x_0.device)
        if redrawn.ndim == 2 and len(redrawn) not in (1, batch):
            raise ValueError(f"mask must be one or {batch} (one per picture), got {len(redrawn)}")
        known = (~redrawn if redrawn.dtype == torch.bool else 1 - redrawn).expand(batch, -1)
        sampler = samplers.find(call.pop("sampler", "ancestral"))
        return self(prompts, sampler=keeping.Keeping(sampler, x_0, known), **call)

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
        if taken := [name for name in ("latents", "times") if name in call]:
            raise ValueError(f"{taken[0]} is what variations makes of the picture and of strength: leave it out")
        last = self.schedule.num_steps
        count = whole("num_inference_steps", call.pop("num_inference_steps", min(100, last)), 1, last)
        t = max(1, round(real("strength", strength, 0, 1, above=True) * last))
        prompts = self.conditions.prompts(prompt)
        batch = len(prompts) * calls.copies(call.get("num_images_per_prompt", 1))
        x_0 = self.tokens_of(image, batch, resize=resize, background=background)
        x_t = q_sample(x_0, t, self.schedule, generator=calls.generators(call.get("generator"), batch))
        steps = min(t, max(1, round(count * t / last)))
        return self(prompts, latents=x_t, times=strided_times(t, steps), **call)

    def check(self, num_inference_steps: int, guidance_scale: Scale | None, truncation_rate: float | None) -> None:
        """Raise ValueError for numbers that a call would refuse."""
        strided_times(self.schedule.num_steps, num_inference_steps)
        if guidance_scale is not None:
            guidance.scale_at(guidance_scale, self.schedule.num_steps)
        if truncation_rate is not None:
            guidance.check_truncation_rate(truncation_rate)

    def truncate(self, log_p_x_0: Tensor, truncation_rate: float) -> Tensor:
        """`vqlearn.truncate` for class-first predictions `[B, K, L]`, as diffusers' pipeline has it."""
        if not isinstance(log_p_x_0, Tensor) or log_p_x_0.ndim != 3 or not log_p_x_0.is_floating_point():
            raise ValueError(f"log_p_x_0 must be class-first log probabilities [B, K, L], got {shown(log_p_x_0)}")
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
        state = functools.partial(calls.state, rows=reading.rows, length=self.length, schedule=self.schedule)
        return lambda x_t, t: predict(self._network, *state(x_t, t), reading, branches=branches).normalised()

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
        found = denoiser(self._network, reading, at_once, truncation_rate=truncation_rate, top_k=top_k, **more)
        state = functools.partial(calls.state, rows=reading.rows, length=self.length, schedule=self.schedule)
        return lambda x_t, t: found(*state(x_t, t))
