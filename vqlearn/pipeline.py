"""From a prompt, a class or nothing to a picture: text encoder, denoiser, sampler and codec in one call."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from vqlearn import guidance, samplers, sampling
from vqlearn.checkpoints.hub import locate
from vqlearn.checkpoints.loading import LIBRARIES, load_components
from vqlearn.checkpoints.original import read_original
from vqlearn.checkpoints.saving import save_components
from vqlearn.data import pictures
from vqlearn.data.pictures import OUTPUTS, Picture
from vqlearn.guidance import Scale
from vqlearn.networks import cost
from vqlearn.networks.text import encode_ids, tokenize
from vqlearn.networks.transformer import Condition
from vqlearn.reverse import Denoiser, Sampler, falling
from vqlearn.transition import q_sample

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
        self._network: Callable = transformer
        self.defaults: dict[str, Any] = {}
        self._bar: dict[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        repo_or_dir: str | Path | None = None,
        *,
        torch_dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> VQDiffusionPipeline:
        """Load the shipped model (None), a folder in the diffusers layout, or a repository of the hub.

        Weights are mapped from their files, not copied, unless `torch_dtype` (float32 if None) or `device` ask for
        something else. `torch_dtype` is a dtype, its name, or "auto": for a denoiser of at least 100 million weights
        float16 on CUDA, and bfloat16 on a CPU where it multiplies faster (`cost.auto_dtype`), else float32. The
        keywords from `revision` on concern the hub. Raises CheckpointError (an OSError) with one sentence when a file
        is missing, damaged or of another kind, ValueError for another `torch_dtype`.
        """
        dtype = cost.dtype_of(torch_dtype, device)
        folder = locate(
            repo_or_dir, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
        )
        components, index = load_components(folder, dtype)
        pipe = cls(**components)
        pipe.defaults = index.get("_vqlearn", {})
        return pipe.to(device) if device is not None else pipe

    @classmethod
    def from_original(
        cls,
        checkpoint: str | Path,
        config: str | Path,
        *,
        codec_config: str | Path | None = None,
        mapping: str | Path | None = None,
    ) -> VQDiffusionPipeline:
        """The pipeline of a checkpoint of the original code, see `checkpoints.original.read_original`."""
        components, defaults = read_original(checkpoint, config, codec_config=codec_config, mapping=mapping)
        pipe = cls(**components)
        pipe.defaults = defaults
        return pipe

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
        sampler: str | Callable = "ancestral",
        times: Sequence[int] | None = None,
        negative_prompt: str | list[str] | None = None,
        top_k: int | None = None,
    ) -> Any:
        """Draw pictures of prompts (VQ-Diffusion, Algorithm 2; guidance: Improved VQ-Diffusion, section 3.1).

        `prompt` is a text, a class (its number or name) or a list of them, as the model reads, None for a model that
        reads nothing. Any number of steps from 1 to T is an exact stride; `times` [T, ..., 0] gives the times
        themselves. `guidance_scale` and `truncation_rate` None are the model's own (5.0 and 1.0 where it states none);
        1 leaves either out, and a function of t is a scale per time (`guidance.within`). `negative_prompt` takes the
        place of the null text. One generator serves the batch, a list gives each picture its own. `latents` are tokens
        at the first time, int64 `[B, L]`. `callback(step, timestep, tokens)` is called every `callback_steps` steps.
        `sampler` is a name in `vqlearn.SAMPLERS`, a `vqlearn.Sampler`, or a function with the signature of `ancestral`.
        `return_dict=False` gives a plain tuple. Raises ValueError for wrong arguments.
        """
        self._check_numbers(num_images_per_prompt, output_type, callback_steps)
        self.check(num_inference_steps, guidance_scale, truncation_rate)
        chosen = samplers.find(sampler)
        times = self._times(chosen, num_inference_steps, times, latents is not None)
        prompts = self.prompts(prompt)
        batch = len(prompts) * num_images_per_prompt
        if isinstance(generator, list) and len(generator) != batch:
            raise ValueError(f"generator must be one or a list of {batch} (one per picture), got {len(generator)}")
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        rate = self.defaults.get("truncation_rate", 1.0) if truncation_rate is None else truncation_rate
        x_t = self._start(latents, batch, generator, chosen)
        with cost.out_of_memory_is_explained(batch, self.dtype):
            denoise = self.denoiser(
                prompts, guidance_scale=scale, truncation_rate=rate, num_images_per_prompt=num_images_per_prompt,
                negative_prompt=negative_prompt, top_k=top_k,
            )  # fmt: skip
            branches = sum(1 if guidance.scale_at(scale, t) in (0, 1) else 2 for t in times[:-1])
            cost.announce(self.transformer, len(times) - 1, branches * batch)
            with tqdm(total=len(times) - 1, **{"desc": "denoising", "unit": "step", **self._bar}) as bar:

                def on_step(number: int, s: int, x_s: Tensor) -> None:
                    bar.update()
                    if callback is not None and number % callback_steps == 0:
                        callback(number, times[number] - 1, x_s)

                tokens = chosen(denoise, x_t, self.schedule, times, generator=generator, on_step=on_step)
            images = tokens if output_type == "latent" else pictures.convert(self.decode(tokens), output_type)
        return ImagePipelineOutput(images) if return_dict else (images,)

    @torch.no_grad()
    def inpaint(self, image: Picture, mask: Picture, prompt: Prompt = None, **call) -> Any:
        """Draw anew what `mask` covers of a picture, to a prompt; `call` is that of the pipeline.

        A token is drawn anew if the mask touches any of its pixels (`token_mask`); all others come back as they are,
        and on the way each is drawn from q(x_s | x_t, x_0), so the network sees them as noisy as everything else.
        `image` is a PIL image or float `[3, H, W]` or `[B, 3, H, W]` in [-1, 1], `mask` a PIL image (white is drawn
        anew) or bool `[H, W]`. Raises ValueError for sizes that the codec does not know.
        """
        x_0 = self._tokens_of(image)
        sampler = samplers.find(call.pop("sampler", "ancestral"))
        batch = len(self.prompts(prompt)) * call.get("num_images_per_prompt", 1)
        x_0 = _as_many(x_0, batch, "image")
        known = ~self.token_mask(mask).to(x_0.device).expand(batch, -1)
        return self(prompt, sampler=sampling.Keeping(sampler, x_0, known), **call)

    @torch.no_grad()
    def variations(self, image: Picture, prompt: Prompt = None, strength: float = 0.6, **call) -> Any:
        """Pictures near a given one: its tokens are noised to time t = `strength` T, and the walk back begins there.

        Of the steps only those from t on are taken. `strength` lies in (0, 1]; at 1 nothing of the picture is left.
        `image` as in `inpaint`, `call` as in the pipeline. Raises ValueError for wrong arguments.
        """
        if not isinstance(strength, int | float) or not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], got {strength!r}")
        x_0 = self._tokens_of(image)
        batch = len(self.prompts(prompt)) * call.get("num_images_per_prompt", 1)
        t = max(1, round(strength * self.schedule.num_steps))
        steps = max(1, round(call.pop("num_inference_steps", 100) * t / self.schedule.num_steps))
        x_t = q_sample(_as_many(x_0, batch, "image"), t, self.schedule, generator=call.get("generator"))
        return self(prompt, latents=x_t, times=sampling.strided_times(t, min(steps, t)), **call)

    @torch.no_grad()
    def denoiser(
        self,
        prompt: Prompt,
        *,
        guidance_scale: Scale = 1.0,
        truncation_rate: float = 1.0,
        num_images_per_prompt: int = 1,
        negative_prompt: str | list[str] | None = None,
        top_k: int | None = None,
    ) -> Denoiser:
        """The seam: `denoise(x_t, t) -> log_p_x0` for prompts, with guidance, truncation and top-k applied.

        Where the scale at t is neither 0 nor 1 both branches run as one batch, the null text or class first, as
        published; else one branch runs. A batch too large for the memory is split, which changes no draw.
        """
        guidance.check_truncation_rate(truncation_rate)
        if top_k is not None:
            guidance.check_top_k(top_k)
        constant = None if callable(guidance_scale) else guidance.scale_at(guidance_scale, 0)
        prompts = self.prompts(prompt)
        condition = self._conditions(prompts, num_images_per_prompt, constant != 1, negative_prompt)
        batch = len(prompts) * num_images_per_prompt

        @functools.cache  # a GPU's driver is asked once, not in every step
        def at_once(branches: int) -> int:
            return cost.pictures_at_once(self.transformer, branches)

        def denoise(x_t: Tensor, t: int) -> Tensor:
            scale, parts = guidance.scale_at(guidance_scale, t), []
            each = at_once(1 if scale in (0, 1) else 2)
            for begin in range(0, batch, each):
                part = _rows(condition, begin, min(begin + each, batch), batch, scale)
                log_p = guidance.truncate(self._believe(x_t[begin : begin + each], t, scale, part), truncation_rate)
                parts.append(log_p if top_k is None else guidance.top_k(log_p, top_k))
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        return torch.no_grad()(denoise)

    def _believe(self, x_t: Tensor, t: int, scale: float, condition: Condition) -> Tensor:
        """Guided log p(x_0 | x_t) of some rows; `condition` is for both branches, the null one first, or for one."""
        # The network counts from 0: the one place that converts. `full` fills it in, `tensor` would wait for the GPU
        timestep = torch.full((), t - 1, device=x_t.device)
        logits = self._network(x_t, condition, timestep)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if scale in (0, 1):
            return logits.log_softmax(-1)
        null, told = logits.chunk(2)
        return guidance.guide(told, null, scale)

    def compile(self, **options) -> VQDiffusionPipeline:
        """Let `torch.compile` make one program of the denoiser for each batch size; the first step of each is slow.

        On a GPU the program is captured as a graph (`mode="reduce-overhead"`). `options` go to `torch.compile`.
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        self._network = torch.compile(self.transformer, dynamic=False, **{"mode": mode, **options})
        return self

    def _conditions(self, prompts: list, copies: int, guided: bool, negative: Any) -> Condition:
        """What the transformer reads for prompts, each `copies` times; under guidance as many null ones come first."""
        reads = self.transformer.reads
        if negative is not None and reads != "text":
            raise ValueError("negative_prompt is for models that read text")
        if reads == "nothing":
            if guided:
                raise ValueError("guidance_scale must be 1 for a model that reads neither text nor class")
            return None
        if reads == "class":
            told = torch.tensor(prompts, device=self.device).repeat_interleave(copies, dim=0)
            null = torch.full_like(told, self.transformer.config["num_classes"])
            return torch.cat([null, told]) if guided else told
        text = self.encode_prompt(prompts)
        if guided:
            text = torch.cat([self._null_text(negative, len(prompts)), text])
        return [
            (k.repeat_interleave(copies, dim=0), v.repeat_interleave(copies, dim=0))
            for k, v in self.transformer.remember(text)
        ]

    def _null_text(self, negative: Any, count: int) -> Tensor:
        """The text of the null branch, `[count, S, D]`: negative prompts, or the model's null text."""
        if negative is None:
            return self.null_embeds().expand(count, -1, -1)
        texts = [negative] * count if isinstance(negative, str) else negative
        if not isinstance(texts, list) or len(texts) != count or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"negative_prompt must be a string or a list of {count} strings (one per prompt), got {negative!r:.60}"
            )
        return self.encode_prompt(texts)

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

    def check(self, num_inference_steps: int, guidance_scale: Scale | None, truncation_rate: float | None) -> None:
        """Raise ValueError for wrong numbers."""
        if guidance_scale is not None:
            guidance.scale_at(guidance_scale, self.schedule.num_steps)
        if truncation_rate is not None:
            guidance.check_truncation_rate(truncation_rate)
        sampling.strided_times(self.schedule.num_steps, num_inference_steps)

    def _times(self, sampler: Sampler, count: int, times: Sequence[int] | None, given: bool) -> list[int]:
        """The times of a walk, from those given, from the sampler, or by an even stride."""
        last = self.schedule.num_steps
        if times is not None:
            times = falling(times)
            if times[0] > last or (times[0] < last and not given):
                raise ValueError(f"times must begin with {last} (or less, where latents are given), got {times[0]}")
            return times
        return sampler.times(self.schedule, count)

    def token_mask(self, mask: Picture) -> Tensor:
        """Which tokens a mask over pixels touches, bool `[L]`: all those of whose pixels at least one is to be redrawn.

        `mask` is a PIL image (white, 128 and above) or bool `[H, W]`. Raises ValueError for another kind or size.
        """
        return pictures.touched(mask, round(self.length**0.5), self.vqvae.factor)

    def _tokens_of(self, image: Picture) -> Tensor:
        """Tokens `[B, L]` of a PIL image or of images in [-1, 1]."""
        return self.encode(pictures.to_tensor(image, round(self.length**0.5) * self.vqvae.factor))

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

    def _start(self, latents: Tensor | None, batch: int, generator, sampler: Sampler) -> Tensor:
        if latents is None:
            return sampler.start(self.schedule, batch, self.length, generator=generator, device=self.device)
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


def _rows(condition: Any, begin: int, end: int, batch: int, scale: float) -> Any:
    """What rows begin ... end of `batch` read, of a condition for them all or for both branches of them all."""
    if condition is None:
        return None
    if isinstance(condition, list):
        return [(_rows(k, begin, end, batch, scale), _rows(v, begin, end, batch, scale)) for k, v in condition]
    if len(condition) == batch:
        return condition[begin:end]
    if scale in (0, 1):
        return condition.unflatten(0, (2, batch))[int(scale), begin:end]
    if end - begin == batch:
        return condition
    return condition.unflatten(0, (2, batch))[:, begin:end].flatten(0, 1)


def _as_many(tokens: Tensor, batch: int, name: str) -> Tensor:
    """One row for each of `batch` pictures."""
    if len(tokens) not in (1, batch):
        raise ValueError(f"{name} must be one or {batch} (one per picture), got {len(tokens)}")
    return tokens.expand(batch, -1)
