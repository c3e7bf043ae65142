"""The sibling of `VQDiffusionPipeline` that draws the tokens of a picture one after the other."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Generator, Tensor

from vqlearn import calls, guidance
from vqlearn.arguments import real, shown
from vqlearn.checkpoints.hub import locate
from vqlearn.checkpoints.layout import INDEX
from vqlearn.checkpoints.parts import HUB, check_path
from vqlearn.checkpoints.reading import read_json
from vqlearn.data import pictures
from vqlearn.drop_in import DropIn
from vqlearn.networks import cost
from vqlearn.networks.autoregressive import AutoregressiveTransformer
from vqlearn.networks.conditions import Prompt
from vqlearn.pipeline import ImagePipelineOutput, VQDiffusionPipeline


class AutoregressivePipeline(DropIn):
    """Images from a text, or from nothing, with an `AutoregressiveTransformer`: the rival of VQ-Diffusion.

    Codec, text encoder, tokenizer and null text are those of a `VQDiffusionPipeline`; there is no scheduler.
    `from_pretrained(folder)` loads a model, see `Components`. `defaults` holds what its folder states: the guidance
    scale, the truncation rate (here `top_p`), the words that it knows.
    """

    layout = "AutoregressivePipeline"
    shipped = "ar-scenes"
    transformer: AutoregressiveTransformer
    _progress = {"desc": "drawing", "unit": "token"}  # noqa: RUF012, read alone

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt = None,
        guidance_scale: float | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Generator | list[Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        *,
        negative_prompt: str | list[str] | None = None,
        cache: bool = True,
        order: Tensor | None = None,
    ) -> Any:
        """Draw pictures of prompts, one token after the other.

        `prompt` is a text or a list of them, prompt embeddings `[B, S, D]`, or None for a model that reads nothing.
        `guidance_scale` and `top_p` None are the model's own (5.0 and 1.0 where it states none); 1 leaves either out.
        `temperature`, `top_k`, `top_p`, `cache` and `order` are those of `AutoregressiveTransformer.predictor`, and
        all else is as in `VQDiffusionPipeline`. Raises ValueError for wrong arguments.
        """
        self.check_parts()
        form = calls.output_form(output_type)
        if form != "latent":
            self._codec()
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        top_p = self.truncation_rate if top_p is None else top_p
        self.check(scale, top_p)
        prompts = self.conditions.prompts(prompt)
        copies = calls.copies(num_images_per_prompt)
        batch = len(prompts) * copies
        generators = calls.generators(generator, batch)
        branches = guidance.branches(scale)
        with cost.out_of_memory_is_explained(batch, self.dtype):
            guided = branches != "conditional"
            reading = self.conditions.read(prompts, guided=guided, negative=negative_prompt).times(copies)
            self._announce(batch * (2 if branches == "both" else 1), cache)
            with self.progress_bar(total=self.length) as bar:
                tokens = self.transformer.generate(
                    reading.given, batch, null=reading.null, guidance_scale=scale, temperature=temperature,
                    top_k=top_k, top_p=top_p, cache=cache, order=order, generator=generators,
                    on_step=lambda _: bar.update(),
                )  # fmt: skip
            images = tokens if form == "latent" else pictures.convert(self.decode(tokens), form)
        return ImagePipelineOutput(images) if return_dict else (images,)

    @torch.no_grad()
    def bits(self, images: Tensor, prompt: Prompt = None) -> Tensor:
        """The code length -log2 p(x | prompt) of pictures, `[B]`: exact, where a diffusion model has a bound.

        `images` are float `[B, 3, H, W]` in [-1, 1], which the codec encodes, or tokens int64 `[B, L]`; `prompt` is one
        for each of them, or one for all. Without guidance. Raises ValueError for what is no picture, and for another
        number of prompts.
        """
        if not isinstance(images, Tensor):
            raise ValueError(f"images must be float [B, 3, H, W] or int64 [B, {self.length}], got {shown(images)}")
        tokens = self.encode(images) if images.is_floating_point() else images.to(self.device)
        prompts = self.conditions.prompts(prompt)
        if len(prompts) not in (1, len(tokens)):
            raise ValueError(f"prompt must be one or a list of {len(tokens)} (one per picture), got {len(prompts)}")
        reading = self.conditions.read(prompts, guided=False).times(len(tokens) // len(prompts))
        return -self.transformer.log_prob(tokens, reading.given) / math.log(2)

    def check(self, guidance_scale: float | None = None, top_p: float | None = None) -> None:
        """Raise ValueError for numbers that a call would refuse."""
        if guidance_scale is not None:
            real("guidance_scale", guidance_scale, 0, 1000)
        if top_p is not None:
            real("top_p", top_p, 0, 1)

    def _announce(self, rows: int, cache: bool) -> None:
        """Warn of a long run: with a cache every token is computed once, without as often as one comes after it."""
        again = 1 if cache else (self.length + 1) / 2
        cost.announce(self.transformer, self.length, rows * again, instead=["fewer pictures"])


def load_pipeline(
    name: str | os.PathLike[str] | None = None, **options: Any
) -> VQDiffusionPipeline | AutoregressivePipeline:
    """A model of either kind, as its folder says; `name` and `options` are those of `from_pretrained`."""
    known = {option: options[option] for option in HUB if option in options}
    folder = locate(None if name is None else check_path("name", name), **known)
    rival = read_json(folder / INDEX).get("_class_name") == AutoregressivePipeline.layout
    kind = AutoregressivePipeline if rival else VQDiffusionPipeline
    return kind.from_pretrained(name, **options)
