"""What scripts for diffusers call on a pipeline besides drawing: how its parts are described, shared and placed.

Names that have no meaning here are in tables with the sentence that says why, see `compatibility`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from vqlearn.arguments import shown
from vqlearn.checkpoints.hub import locate
from vqlearn.checkpoints.layout import INDEX, LAYOUTS, index_of
from vqlearn.checkpoints.parts import HUB, check_path
from vqlearn.compatibility import Config, Configured, absent, unneeded
from vqlearn.components import Components
from vqlearn.data.pictures import in_range
from vqlearn.networks.models import KERNELS

ABSENT = {
    "enable_group_offload": "the parts stand on one device whole, `to` moves them",
    "from_config": "a configuration holds no weights: give the parts, or use from_pretrained",
    "register_to_config": "the configuration of a pipeline is the list of its parts, which are set as attributes",
}


@unneeded({name: sentence for name, sentence in KERNELS.items() if "xformers" in name})
@absent(ABSENT)
class DropIn(Configured, Components):
    """The names of diffusers' pipelines for what is no drawing."""

    config_name = INDEX
    model_cpu_offload_seq = "text_encoder->transformer->vqvae"  # the order in which a call needs the networks
    hf_device_map = None  # all of them are on one device

    @property
    def config(self) -> Config:
        """What `model_index.json` says of the parts: for each the library and the class, or twice None."""
        return Config({**index_of(self.components, {}, self.layout), "_name_or_path": self.name_or_path})

    @property
    def parameters(self) -> dict[str, Any]:
        """What the pipeline is made of besides its parts: nothing."""
        return {}

    @classmethod
    def from_pipe(cls, pipe: Components, **parts: Any) -> Self:
        """Another pipeline of the same parts, or of some others in place of them; raises TypeError for another kind."""
        if not isinstance(pipe, Components):
            raise TypeError(f"from_pipe takes a pipeline of vqlearn, got {shown(pipe)}; save it, and load its folder")
        made = cls(**{**pipe.components, **parts})
        made.defaults, made.name_or_path = dict(pipe.defaults), pipe.name_or_path
        return made

    @classmethod
    def download(cls, name: str | os.PathLike[str], **options: Any) -> str:
        """The folder of a model, which is fetched from the hub if need be; raises CheckpointError (an OSError)."""
        return str(locate(check_path("name", name), **{option: options[option] for option in HUB if option in options}))

    def register_modules(self, **parts: Any) -> None:
        """Set parts by name; raises ValueError for a name that is none."""
        for name, part in parts.items():
            if name not in LAYOUTS[self.layout]:
                raise ValueError(f"a pipeline has the parts {', '.join(LAYOUTS[self.layout])}, got {name!r}")
            setattr(self, name, part)

    @staticmethod
    def numpy_to_pil(images: np.ndarray) -> list[Image.Image]:
        """PIL images of floats in [0, 1], `[B, H, W, C]` or `[H, W, C]`, of three colours or one; raises ValueError."""
        floats = np.asarray(images)
        if floats.ndim not in (3, 4) or floats.shape[-1] not in (1, 3) or floats.dtype.kind != "f":
            raise ValueError(f"images must be floats [B, H, W, C] or [H, W, C] of 1 or 3 colours, got {shown(images)}")
        pixels = (in_range("images", torch.from_numpy(floats), 0).numpy() * 255).round().astype(np.uint8)
        pixels = pixels if pixels.ndim == 4 else pixels[None]
        return [Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one) for one in pixels]

    # -------------------------------------------------------------------------------------- the progress bar

    _bar: dict[str, Any] = {}  # noqa: RUF012, replaced and never changed
    _progress: dict[str, str] = {"desc": "denoising", "unit": "step"}  # noqa: RUF012, read alone

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Arguments for the progress bar; `disable=True` switches it off."""
        self._bar = kwargs

    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> Any:
        """The progress bar of a call, over something or of so many steps."""
        if iterable is None and total is None:
            raise ValueError("progress_bar needs an iterable or a total")
        return tqdm(iterable, total=total, **{**self._progress, **self._bar})

    # -------------------------------------------------------------------------------------- memory

    def enable_attention_slicing(self, slice_size: str | int | None = "auto") -> None:
        """Nothing is to be done: a call is always split into parts that fit into the memory, which changes no draw."""

    disable_attention_slicing = set_attention_slice = enable_attention_slicing

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: str | torch.device | None = None) -> None:
        """Draw on the GPU, if there is one: all parts move there, and they are small enough to stay."""
        if device is not None or gpu_id is not None or torch.cuda.is_available():
            self.to(torch.device("cuda", gpu_id or 0) if device is None else device)

    enable_sequential_cpu_offload = enable_model_cpu_offload

    def maybe_free_model_hooks(self) -> None:
        """Nothing is to be done: no part is moved between calls."""

    remove_all_hooks = reset_device_map = maybe_free_model_hooks
