"""The parts of a model: where they come from, what they do, and where they are saved."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vqlearn.arguments import shown
from vqlearn.checkpoints.fit import misfit
from vqlearn.checkpoints.hub import locate
from vqlearn.checkpoints.layout import LAYOUTS
from vqlearn.checkpoints.loading import load_components
from vqlearn.checkpoints.original import read_original
from vqlearn.checkpoints.parts import Options, check_path, check_placement
from vqlearn.checkpoints.saving import save_components
from vqlearn.compatibility import check_saving
from vqlearn.data import pictures
from vqlearn.data.pictures import Color, Pictures
from vqlearn.networks.conditions import Classes, Conditions, Nothing, Texts
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.scheduler import VQDiffusionScheduler


class Components:
    """The parts of a model: loaded, moved and saved together, and what each of them does for a call."""

    layout: ClassVar[str]  # the kind of pipeline, a name in `checkpoints.layout.LAYOUTS`
    shipped: ClassVar[str]  # the name of the model that is meant where none is named

    def __init__(
        self,
        vqvae: VQModel | None,
        text_encoder: Any,
        tokenizer: Any,
        transformer: Any,
        learned_classifier_free_sampling_embeddings: LearnedClassifierFreeSamplingEmbeddings | None = None,
    ):
        self.vqvae: Any = vqvae  # without a codec a call that needs one says so
        self.text_encoder, self.tokenizer, self.transformer = text_encoder, tokenizer, transformer
        null_text = learned_classifier_free_sampling_embeddings
        if null_text is None and text_encoder is not None:
            null_text = LearnedClassifierFreeSamplingEmbeddings(False)  # the empty prompt
        self.learned_classifier_free_sampling_embeddings = null_text
        self.defaults: dict[str, Any] = {}
        self.name_or_path: str | None = None
        self.check_parts()

    def check_parts(self) -> None:
        """Raise ValueError where parts of different models do not go together."""
        if wrong := misfit(self.components, self.layout):
            raise ValueError(f"these parts cannot make a pipeline: {wrong}")

    @classmethod
    def from_pretrained(
        cls,
        repo_or_dir: str | os.PathLike[str] | None = None,
        *,
        torch_dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **more: Any,
    ) -> Self:
        """Load the shipped model (None, or its name), a folder in the diffusers layout, or a repository of the hub.

        Weights are mapped from their files, not copied, unless `torch_dtype` (float32 if None) or `device` ask for
        something else. `torch_dtype` is a dtype, its name, or "auto": for a network of at least 100 million weights
        float16 on CUDA, and bfloat16 on a CPU where it multiplies faster (`cost.auto_dtype`), else float32. The
        keywords from `revision` on concern the hub; `subfolder` is in either. `more` are the other keywords of
        diffusers (`checkpoints.parts.Options`: `variant`, `use_safetensors`, `device_map` ...), and parts by their
        names, which take the place of the folder's. Raises CheckpointError (an OSError) with one sentence when a file
        is missing, damaged or of another kind, ValueError for wrong values.
        """
        given = {name: more.pop(name) for name in LAYOUTS[cls.layout] if name in more}
        wanted = Options.of(torch_dtype=torch_dtype, device=device, **more)
        name = cls.shipped if repo_or_dir is None else check_path("repo_or_dir", repo_or_dir)
        hub: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "token": token}
        inside = check_path("subfolder", "." if subfolder in (None, "") else subfolder)
        folder = locate(name, subfolder=inside, **hub, local_files_only=local_files_only, files=wanted.files)
        components, index = load_components(folder, wanted.dtype, files=wanted.files, given=given, kind=cls.layout)
        pipe = cls(**components)
        pipe.defaults = index.get("_vqlearn", {})
        pipe.name_or_path = name
        return pipe if wanted.device is None else pipe.to(wanted.device)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write a folder that `from_pretrained` and diffusers' components read, whole or not at all.

        Raises CheckpointError where there is something that is no model folder, ValueError for an option of diffusers
        that asks for another form.
        """
        check_saving(**options)
        check_path("folder", folder)
        save_components(self.components, folder, {"_vqlearn": self.defaults} if self.defaults else {}, self.layout)

    @property
    def components(self) -> dict[str, Any]:
        """The components by name, to share them with another pipeline: `VQDiffusionPipeline(**pipe.components)`."""
        return {name: getattr(self, name) for name in LAYOUTS[self.layout]}

    @property
    def device(self) -> torch.device:
        device: torch.device = self.transformer.out.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.transformer.out.weight.dtype
        return dtype

    @property
    def guidance_scale(self) -> float:
        """The scale that the model's folder recommends; where it says nothing 5.0, or 1.0 if there is no condition."""
        none = isinstance(self.conditions, Nothing)
        return float(self.defaults.get("guidance_scale", 1.0 if none else 5.0))

    @property
    def truncation_rate(self) -> float:
        """The truncation rate that the model's folder recommends; where it says nothing 1.0, which leaves it out."""
        return float(self.defaults.get("truncation_rate", 1.0))

    @property
    def conditions(self) -> Conditions:
        """What this model is conditioned on, as the object that reads prompts for it."""
        config = self.transformer.config
        if self.transformer.reads == "class":
            return Classes(config["num_classes"], self.defaults.get("labels", []), self.device)
        if config["cross_attention_dim"] is None:
            return Nothing()
        null_text: Any = self.learned_classifier_free_sampling_embeddings
        return Texts(self.tokenizer, self.text_encoder, null_text, self.transformer, self.defaults.get("words"))

    @property
    def length(self) -> int:
        """Tokens per picture."""
        length: int = self.transformer.num_positions
        return length

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast all networks, with the arguments of `torch.nn.Module.to`; raises ValueError for wrong ones."""
        kwargs.pop("silence_dtype_warnings", None)
        check_placement(*args, **kwargs)
        for module in self.components.values():
            if isinstance(module, torch.nn.Module):
                module.to(*args, **kwargs)
        return self

    # -------------------------------------------------------------------------------------- text and codec

    @torch.no_grad()
    def encode_prompt(self, prompts: str | list[str]) -> Tensor:
        """Unit-normalised hidden states of prompts, `[B, S, D]`; warns of a prompt too long and of unknown words."""
        return self._texts().encode(prompts)

    @torch.no_grad()
    def null_embeds(self) -> Tensor:
        """The null text of guidance, `[1, S, D]`: learned, or the encoded empty prompt."""
        return self._texts().null()

    def _texts(self) -> Texts:
        conditions = self.conditions
        if not isinstance(conditions, Texts):
            raise ValueError("this model reads no text")
        return conditions

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [-1, 1] to tokens `[B, L]`; raises ValueError for values that are not."""
        codec, codes = self._codec(), self.transformer.num_codes
        if not isinstance(images, Tensor):
            raise ValueError(f"images must be float [B, 3, H, W] in [-1, 1], got {shown(images)}")
        weight = codec.quant_conv.weight
        tokens: Tensor = codec.encode(pictures.in_range("images", images, -1).to(weight.device, weight.dtype)).clone()
        if codec.num_tokens > codes and int(tokens.max()) >= codes:
            raise ValueError(f"the codec gave token {int(tokens.max())}, the transformer has {codes} codes")
        return tokens

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, L]` to images `[B, 3, H, W]` in [-1, 1]; raises ValueError for what is none."""
        codec = self._codec()
        if not isinstance(tokens, Tensor) or tokens.is_floating_point():
            raise ValueError(f"tokens must be int64 [B, L], got {shown(tokens)}")
        images: Tensor = codec.decode(tokens.to(codec.quant_conv.weight.device))
        return images.float().clamp(-1, 1)

    def token_mask(self, mask: Pictures, *, sizes: Collection[tuple[int, int]] = ()) -> Tensor:
        """Which tokens a mask over pixels touches, bool `[L]`: all those of whose pixels at least one is to be redrawn.

        `mask` is a PIL image (white is redrawn), bool `[H, W]`, floats in [0, 1] (which give floats), or one of these
        per picture (which give `[B, L]`), see `data.pictures.touched`. Raises ValueError for another kind or size.
        """
        return pictures.touched(mask, round(self.length**0.5), self._codec().factor, sizes=sizes)

    def tokens_of(self, image: Pictures, batch: int, *, resize: bool = False, background: Color = "white") -> Tensor:
        """Tokens `[batch, L]` of a picture, which serves them all, or of one each, see `data.pictures.to_tensor`."""
        side = round(self.length**0.5) * self._codec().factor
        x_0 = self.encode(pictures.to_tensor(image, side, resize=resize, background=background))
        if len(x_0) not in (1, batch):
            raise ValueError(f"image must be one or {batch} (one per picture), got {len(x_0)}")
        return x_0.expand(batch, -1)

    def _codec(self) -> VQModel:
        codec: VQModel | None = self.vqvae
        if codec is None:
            raise ValueError("this model has no codec, it draws tokens: use output_type='latent'")
        return codec


class DiffusionComponents(Components):
    """The six parts of a VQ-Diffusion model, of which the scheduler is one."""

    layout = "VQDiffusionPipeline"
    shipped = "scenes"
    transformer: Transformer2DModel

    def __init__(
        self,
        vqvae: VQModel | None,
        text_encoder: Any,
        tokenizer: Any,
        transformer: Transformer2DModel,
        scheduler: VQDiffusionScheduler,
        learned_classifier_free_sampling_embeddings: LearnedClassifierFreeSamplingEmbeddings | None = None,
    ):
        self.scheduler = scheduler
        super().__init__(vqvae, text_encoder, tokenizer, transformer, learned_classifier_free_sampling_embeddings)

    @classmethod
    def from_original(
        cls,
        checkpoint: str | Path,
        config: str | Path,
        *,
        codec_config: str | Path | None = None,
        mapping: str | Path | None = None,
    ) -> Self:
        """The pipeline of a checkpoint of the original code, see `checkpoints.original.read_original`."""
        components, defaults = read_original(checkpoint, config, codec_config=codec_config, mapping=mapping)
        pipe = cls(**components)
        pipe.defaults = defaults
        return pipe

    @property
    def schedule(self) -> MaskReplaceSchedule:
        """The noise schedule; any other over as many codes and steps may take its place, and is saved with the model.

        Raises ValueError for what is none, and for one over other codes or steps than the network has.
        """
        return self.scheduler.schedule

    @schedule.setter
    def schedule(self, schedule: MaskReplaceSchedule) -> None:
        if not isinstance(schedule, MaskReplaceSchedule):
            raise ValueError(f"schedule must be a MaskReplaceSchedule, got {shown(schedule)}")
        config = self.transformer.config
        wanted = config["num_vector_embeds"] - 1, config["num_embeds_ada_norm"]
        if (schedule.num_codes, schedule.num_steps) != wanted:
            raise ValueError(
                f"this network has {wanted[0]} codes and {wanted[1]} steps, the schedule {schedule.num_codes} and "
                f"{schedule.num_steps}"
            )
        self.scheduler = VQDiffusionScheduler.from_schedule(schedule, spacing=self.scheduler.config["spacing"])
