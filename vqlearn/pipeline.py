"""From a prompt, a class or nothing to a picture: text encoder, denoiser, sampler and codec in one call."""

from __future__ import annotations

import functools
import re
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from tqdm.auto import tqdm

from vqlearn import guidance, sampling
from vqlearn.checkpoints import LIBRARIES, load_components
from vqlearn.conditioning import encode_ids, tokenize
from vqlearn.hub import locate
from vqlearn.saving import save_components

OUTPUTS = ("pil", "np", "pt", "latent")
LONG = 60  # seconds of work on a CPU that are announced before they begin
Prompt = str | int | Sequence[str | int] | None


class ImagePipelineOutput(NamedTuple):
    """The pictures: PIL images, floats in [0, 1] `[B, H, W, 3]` or `[B, 3, H, W]`, or tokens `[B, L]`."""

    images: Any


class VQDiffusionPipeline:
    """Images from a text, a class or nothing with VQ-Diffusion (Gu et al. 2021), of six parts like the published one.

    `from_pretrained()` loads the shipped model of the toy world. What the first argument of a call is, the transformer
    decides (`transformer.reads`); without a text the three parts for it are None. `defaults` holds what a model's
    folder states: the guidance scale, the truncation rate, the words that it knows, the names of its classes.
    """

    def __init__(
        self, vqvae, text_encoder, tokenizer, transformer, scheduler, learned_classifier_free_sampling_embeddings=None
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
        device: str | torch.device | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> VQDiffusionPipeline:
        """Load the shipped model (None), a folder in the diffusers layout, or a repository of the hub.

        Weights are mapped from their files, not copied, unless `torch_dtype` (float32 if None) or `device` ask for
        something else. The keywords from `revision` on concern the hub. Raises CheckpointError (an OSError) with one
        sentence when a file is missing, damaged or of another kind.
        """
        folder = locate(
            repo_or_dir, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
        )
        components, index = load_components(folder, torch_dtype or torch.float32)
        pipe = cls(**components)
        pipe.defaults = index.get("_vqlearn", {})
        return pipe.to(device) if device is not None else pipe

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `from_pretrained` and diffusers' components read, whole or not at all.

        Raises CheckpointError where there is something that is no model folder.
        """
        save_components(self.components, folder, {"_vqlearn": self.defaults} if self.defaults else {})

    @property
    def components(self) -> dict[str, Any]:
        """The six components by name, to share them with another pipeline: `VQDiffusionPipeline(**pipe.components)`."""
        return {name: getattr(self, name) for name in LIBRARIES}

    @property
    def device(self) -> torch.device:
        return self.transformer.out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.out.weight.dtype

    @property
    def guidance_scale(self) -> float:
        """The scale that the model's folder recommends; where it says nothing 5.0, or 1.0 if there is no condition."""
        return self.defaults.get("guidance_scale", 1.0 if self.transformer.reads == "nothing" else 5.0)

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
        prompt: Prompt = None,
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

        `prompt` is a text, a class (its number or name) or a list of them, as the model reads, None for a model that
        reads nothing. Any number of steps from 1 to T is an exact stride. `guidance_scale` and `truncation_rate` None
        are the model's own (5.0 and 1.0 where it states none); 1 leaves either out. One generator serves the batch, a
        list gives each picture its own. `latents` are tokens x_T, int64 `[B, L]`. `callback(step, timestep, tokens)`
        is called every `callback_steps` steps. `sampler` has the signature of `ancestral`; the scheduler is one too,
        and draws as diffusers does. `return_dict=False` gives a plain tuple. Raises ValueError for wrong arguments.
        """
        self._check_numbers(num_images_per_prompt, output_type, callback_steps)
        self.check(num_inference_steps, guidance_scale, truncation_rate)
        prompts = self.prompts(prompt)
        batch = len(prompts) * num_images_per_prompt
        if isinstance(generator, list) and len(generator) != batch:
            raise ValueError(f"generator must be one or a list of {batch} (one per picture), got {len(generator)}")
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        rate = self.defaults.get("truncation_rate", 1.0) if truncation_rate is None else truncation_rate
        x_t = self._start(latents, batch, generator, sampler)
        denoise = self.denoiser(
            prompts, guidance_scale=scale, truncation_rate=rate, num_images_per_prompt=num_images_per_prompt
        )
        plan = getattr(sampler, "times", None)
        times = (
            plan(num_inference_steps) if plan else sampling.strided_times(self.schedule.num_steps, num_inference_steps)
        )
        self._announce(len(times) - 1, batch * (1 if scale == 1 else 2))
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
        prompt: Prompt,
        *,
        guidance_scale: float = 1.0,
        truncation_rate: float = 1.0,
        num_images_per_prompt: int = 1,
    ) -> sampling.Denoiser:
        """The seam: `denoise(x_t, t) -> log_p_x0` for prompts, with guidance and truncation applied.

        Under guidance both branches run as one batch, the null text or class first, as published.
        """
        guidance.check_truncation_rate(truncation_rate)
        guided = guidance_scale != 1
        condition = self._condition(self.prompts(prompt), num_images_per_prompt, guided)

        def denoise(x_t: Tensor, t: int) -> Tensor:
            timestep = torch.tensor(t - 1, device=x_t.device)  # the network counts from 0: the one place that converts
            logits = self.transformer(torch.cat([x_t, x_t]) if guided else x_t, condition, timestep)
            log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            if guided:
                null, conditional = log_p.chunk(2)
                log_p = guidance.guide(conditional, null, guidance_scale)
            return guidance.truncate(log_p, truncation_rate)

        return torch.no_grad()(denoise)

    def _condition(self, prompts: list, copies: int, guided: bool) -> Tensor | None:
        """What the transformer reads for prompts, each `copies` times; under guidance as many null ones come first."""
        reads = self.transformer.reads
        if reads == "nothing":
            if guided:
                raise ValueError("guidance_scale must be 1 for a model that reads neither text nor class")
            return None
        if reads == "class":
            condition = torch.tensor(prompts, device=self.device)
            null = torch.full_like(condition[:1], self.transformer.config["num_classes"])
        else:
            condition = self.encode_prompt(prompts)
            null = self.null_embeds() if guided else condition[:1]
        condition = condition.repeat_interleave(copies, dim=0)
        return torch.cat([null.expand_as(condition), condition]) if guided else condition

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
        return self.transformer.num_positions

    def check(self, num_inference_steps: int, guidance_scale: float | None, truncation_rate: float | None) -> None:
        """Raise ValueError for wrong numbers."""
        if guidance_scale is not None and not (isinstance(guidance_scale, int | float) and 0 <= guidance_scale <= 1000):
            raise ValueError(f"guidance_scale must be a number from 0 to 1000, got {guidance_scale!r}")
        if truncation_rate is not None:
            guidance.check_truncation_rate(truncation_rate)
        sampling.strided_times(self.schedule.num_steps, num_inference_steps)

    def _check_numbers(self, count, output_type, callback_steps) -> None:
        for name, value in (("num_images_per_prompt", count), ("callback_steps", callback_steps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if output_type not in OUTPUTS:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUTS)}, got {output_type!r}")

    def prompts(self, prompt: Prompt) -> list:
        """The prompt as a list of what the model reads: texts, numbers of classes, or one None; raises ValueError."""
        reads = self.transformer.reads
        several: list[Any] = prompt if isinstance(prompt, list) else [prompt]
        if reads == "nothing":
            if prompt is not None and any(one is not None for one in several):
                raise ValueError(f"this model reads no prompt, leave it out; got {prompt!r:.60}")
            return several or [None]
        if reads == "class":
            if not several:
                raise ValueError("prompt must be a class (its number or name) or a non-empty list of them, got []")
            return [self.class_number(one) for one in several]
        if not several or not all(isinstance(text, str) for text in several):
            raise ValueError(f"prompt must be a string or a non-empty list of strings, got {prompt!r:.60}")
        if not all(text.strip() for text in several):
            raise ValueError("prompt must not be empty; guidance_scale=0 draws pictures without a text")
        return several

    def class_number(self, label: Any) -> int:
        """The number of a class given by number or by one of its names; raises ValueError for no or several classes."""
        count, names = self.transformer.config["num_classes"], self.defaults.get("labels", [])
        if isinstance(label, str) and not label.isdecimal():
            wanted = label.strip().lower()
            found = [i for i, name in enumerate(names) if wanted in (name.lower(), *name.lower().split(", "))]
            if len(found) != 1:
                near = found or [i for i, name in enumerate(names) if wanted and wanted in name.lower()]
                hint = ", ".join(f"{i} {names[i]!r}" for i in near[:8]) or f"give a number from 0 to {count - 1}"
                what = f"names {len(found)} classes" if found else "names no class of this model"
                raise ValueError(f"prompt {label!r:.60} {what}: {hint}")
            return found[0]
        if isinstance(label, bool) or not isinstance(label, int | str) or not 0 <= int(label) < count:
            raise ValueError(f"prompt must be a class, a number from 0 to {count - 1} or a name, got {label!r:.60}")
        return int(label)

    def _announce(self, calls: int, batch: int) -> None:
        """Say what a long run on a CPU will cost, before it begins: the work, at the speed of a timed one."""
        if self.device.type != "cpu":
            return
        network = self.transformer.config
        width = network["num_attention_heads"] * network["attention_head_dim"]
        each = sum(p.numel() for p in self.transformer.parameters() if p.ndim > 1) + 2 * self.length * width
        work = 2.0 * each * self.length * batch * calls
        if work < 1e13:  # a few seconds anywhere
            return
        a = torch.ones(1024, 2048, dtype=self.dtype)
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            a @ a.T
            times.append(time.perf_counter() - begin)
        seconds = work / (2 * a.shape[0] * a.numel() / min(times))
        if seconds > LONG:
            long = f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
            warnings.warn(
                f"this will take about {long} on this CPU ({calls} network calls of {work / calls / 1e12:.2g} TFLOP "
                "each); a CUDA GPU, fewer steps or torch_dtype=torch.bfloat16 are faster",
                stacklevel=3,
            )

    def _start(self, latents: Tensor | None, batch: int, generator, sampler: Callable) -> Tensor:
        if latents is None:
            start = getattr(sampler, "start", functools.partial(sampling.prior_sample, self.schedule))
            return start(batch, self.length, generator=generator, device=self.device)
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
