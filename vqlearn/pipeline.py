"""From a prompt to a picture: text encoder, denoiser, sampler and codec in one call."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from tqdm.auto import tqdm

from vqlearn import sampling
from vqlearn.checkpoints import LIBRARIES, load_components, locate, save_components
from vqlearn.conditioning import encode_ids, tokenize

OUTPUTS = ("pil", "np", "pt", "latent")


class ImagePipelineOutput(NamedTuple):
    """The pictures: PIL images, floats in [0, 1] `[B, H, W, 3]` or `[B, 3, H, W]`, or tokens `[B, L]`."""

    images: Any


class VQDiffusionPipeline:
    """Text to image with VQ-Diffusion (Gu et al. 2021), from the six components of the published pipeline.

    `from_pretrained()` loads the shipped model of the toy world. `defaults` holds the guidance scale, the
    truncation rate and the words that a model knows, where its folder states them.
    """

    def __init__(
        self, vqvae, text_encoder, tokenizer, transformer, scheduler, learned_classifier_free_sampling_embeddings
    ):
        self.vqvae, self.text_encoder, self.tokenizer = vqvae, text_encoder, tokenizer
        self.transformer, self.scheduler = transformer, scheduler
        self.learned_classifier_free_sampling_embeddings = learned_classifier_free_sampling_embeddings
        self.defaults: dict[str, Any] = {}
        self._bar: dict[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        repo_or_dir: str | Path | None = None,
        *,
        torch_dtype: torch.dtype | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> VQDiffusionPipeline:
        """Load the shipped model (None), a folder in the diffusers layout, or a repository of the hub.

        The keywords from `revision` on concern the hub. Raises OSError with one sentence when the folder is
        missing, incomplete, truncated or of another kind.
        """
        folder = locate(
            repo_or_dir, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
        )
        components, index = load_components(folder)
        pipe = cls(**components)
        pipe.defaults = index.get("_vqlearn", {})
        return pipe.to(torch_dtype) if torch_dtype is not None else pipe

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `from_pretrained` and diffusers' components read."""
        save_components(self.components, folder, {"_vqlearn": self.defaults} if self.defaults else {})

    @property
    def components(self) -> dict[str, Any]:
        """The six components by name, to share them with another pipeline: `VQDiffusionPipeline(**pipe.components)`."""
        return {name: getattr(self, name) for name in LIBRARIES}

    @property
    def device(self) -> torch.device:
        return self.transformer.out.weight.device

    @property
    def guidance_scale(self) -> float:
        """The scale that the model's folder recommends, 5.0 where it says nothing (the published model's)."""
        return self.defaults.get("guidance_scale", 5.0)

    @property
    def schedule(self):
        """The noise schedule that the model was trained with."""
        return self.scheduler.schedule

    def to(self, *args, **kwargs) -> VQDiffusionPipeline:
        """Move or cast all networks, with the arguments of `torch.nn.Module.to`."""
        for module in self.components.values():
            if isinstance(module, torch.nn.Module):
                module.to(*args, **kwargs)
        return self

    def set_progress_bar_config(self, **kwargs) -> None:
        """Arguments for the progress bar; `disable=True` switches it off."""
        self._bar = kwargs

    # -------------------------------------------------------------------------------------- the call

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        num_inference_steps: int = 100,
        guidance_scale: float | None = None,
        truncation_rate: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Generator | list[Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback: Callable[[int, int, Tensor], None] | None = None,
        callback_steps: int = 1,
        *,
        sampler: Callable = sampling.ancestral,
    ) -> Any:
        """Draw pictures of prompts (VQ-Diffusion, Algorithm 2; guidance: Improved VQ-Diffusion, section 3.1).

        Any number of steps from 1 to T is an exact stride. `guidance_scale` and `truncation_rate` None are the
        model's own (5.0 and 1.0 where it states none); 1 leaves either out. One generator serves the batch, a list
        gives each picture its own. `latents` are tokens x_T, int64 `[B, L]`. `callback(step, timestep, tokens)` is
        called every `callback_steps` steps. `sampler` has the signature of `ancestral`. `return_dict=False` gives a
        plain tuple. Raises ValueError for wrong arguments.
        """
        prompts = self._check(prompt, num_images_per_prompt, output_type, callback_steps)
        times = self.check(num_inference_steps, guidance_scale, truncation_rate)
        batch = len(prompts) * num_images_per_prompt
        if isinstance(generator, list) and len(generator) != batch:
            raise ValueError(f"generator must be one or a list of {batch} (one per picture), got {len(generator)}")
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        rate = self.defaults.get("truncation_rate", 1.0) if truncation_rate is None else truncation_rate
        x_t = self._start(latents, batch, generator)
        denoise = self.denoiser(
            prompts, guidance_scale=scale, truncation_rate=rate, num_images_per_prompt=num_images_per_prompt
        )
        with tqdm(total=len(times) - 1, **{"desc": "denoising", "unit": "step", **self._bar}) as bar:

            def on_step(number: int, s: int, x_s: Tensor) -> None:
                bar.update()
                if callback is not None and number % callback_steps == 0:
                    callback(number, times[number] - 1, x_s)

            tokens = sampler(denoise, x_t, self.schedule, times, generator=generator, on_step=on_step)
        images = tokens if output_type == "latent" else _convert(self.decode(tokens), output_type)
        return ImagePipelineOutput(images) if return_dict else (images,)

    def denoiser(
        self,
        prompt: str | list[str],
        *,
        guidance_scale: float = 1.0,
        truncation_rate: float = 1.0,
        num_images_per_prompt: int = 1,
    ) -> sampling.Denoiser:
        """The seam: `denoise(x_t, t) -> log_p_x0` for prompts, with guidance and truncation applied.

        Under guidance both branches run as one batch, the null text first, as published.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        text = self.encode_prompt(prompts).repeat_interleave(num_images_per_prompt, dim=0)
        sampling.check_truncation_rate(truncation_rate)
        guided = guidance_scale != 1
        if guided:
            text = torch.cat([self.null_embeds().expand_as(text), text])

        def denoise(x_t: Tensor, t: int) -> Tensor:
            timestep = torch.tensor(t - 1, device=x_t.device)  # the network counts from 0: the one place that converts
            logits = self.transformer(torch.cat([x_t, x_t]) if guided else x_t, text, timestep)
            log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            if guided:
                null, conditional = log_p.chunk(2)
                log_p = sampling.guide(conditional, null, guidance_scale)
            return sampling.truncate(log_p, truncation_rate)

        return torch.no_grad()(denoise)

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> Tensor:
        """Unit-normalised hidden states of prompts, `[B, S, D]`; warns of a prompt too long and of unknown words."""
        ids, cut = tokenize(self.tokenizer, prompts)
        for text in filter(None, cut):
            warnings.warn(
                f"the prompt is longer than {ids.shape[1]} tokens; this part was cut off: {text!r}", stacklevel=3
            )
        if unknown := self.unknown_words(prompts):
            known = ", ".join(self.defaults["words"])
            warnings.warn(f"this model has never seen {', '.join(map(repr, unknown))}; it knows: {known}", stacklevel=3)
        return encode_ids(self.text_encoder, ids.to(self.device))

    def unknown_words(self, prompts: list[str]) -> list[str]:
        """Words of the prompts that a model with a closed vocabulary does not know, in order; [] for an open one."""
        if "words" not in self.defaults:
            return []
        words = re.findall(r"[^\W_]+", " ".join(prompts).lower())
        return list(dict.fromkeys(word for word in words if word not in self.defaults["words"]))

    @torch.no_grad()
    def null_embeds(self) -> Tensor:
        """The null text of guidance, `[1, S, D]`: learned, or the encoded empty prompt."""
        learned = self.learned_classifier_free_sampling_embeddings
        if learned.learnable:
            return learned.embeddings[None]
        return encode_ids(self.text_encoder, tokenize(self.tokenizer, [""])[0].to(self.device))

    # -------------------------------------------------------------------------------------- the codec

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [-1, 1] to tokens `[B, L]`."""
        weight = self.vqvae.quant_conv.weight
        return self.vqvae.encode(images.to(weight.device, weight.dtype))

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, L]` to images `[B, 3, H, W]` in [-1, 1]."""
        return self.vqvae.decode(tokens.to(self.device)).float().clamp(-1, 1)

    # -------------------------------------------------------------------------------------- arguments

    @property
    def length(self) -> int:
        """Tokens per picture."""
        return self.transformer.config["sample_size"] ** 2

    def check(self, num_inference_steps: int, guidance_scale: float | None, truncation_rate: float | None) -> list[int]:
        """The times of a run, T ... 0; raises ValueError for wrong numbers."""
        if guidance_scale is not None and not (isinstance(guidance_scale, int | float) and 0 <= guidance_scale <= 1000):
            raise ValueError(f"guidance_scale must be a number from 0 to 1000, got {guidance_scale!r}")
        if truncation_rate is not None:
            sampling.check_truncation_rate(truncation_rate)
        return sampling.strided_times(self.schedule.num_steps, num_inference_steps)

    def _check(self, prompt, count, output_type, callback_steps) -> list[str]:
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(prompts, list) or not prompts or not all(isinstance(text, str) for text in prompts):
            raise ValueError(f"prompt must be a string or a non-empty list of strings, got {prompt!r}")
        if not all(text.strip() for text in prompts):
            raise ValueError("prompt must not be empty; guidance_scale=0 draws pictures without a text")
        for name, value in (("num_images_per_prompt", count), ("callback_steps", callback_steps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if output_type not in OUTPUTS:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUTS)}, got {output_type!r}")
        return prompts

    def _start(self, latents: Tensor | None, batch: int, generator) -> Tensor:
        if latents is None:
            return sampling.prior_sample(self.schedule, batch, self.length, generator=generator, device=self.device)
        expected, top = (batch, self.length), self.schedule.mask_id
        if not isinstance(latents, Tensor) or latents.dtype != torch.int64 or tuple(latents.shape) != expected:
            got = f"{latents.dtype} {list(latents.shape)}" if isinstance(latents, Tensor) else type(latents).__name__
            raise ValueError(f"latents must be int64 tokens {list(expected)}, got {got}")
        if int(latents.min()) < 0 or int(latents.max()) > top:
            raise ValueError(
                f"latents must lie in 0 ... {top} (the mask), "
                f"got values from {int(latents.min())} to {int(latents.max())}"
            )
        return latents.to(self.device)


def _convert(images: Tensor, output_type: str):
    """Images in [-1, 1] as the caller wants them, in [0, 1]."""
    images = (images / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return images
    array = images.permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return array
    return [Image.fromarray(picture) for picture in (array * 255).round().astype(np.uint8)]
