"""Features of pictures by a vision model: the space in which sets of pictures are compared."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from vqlearn.arguments import shown
from vqlearn.checkpoints.reading import one_line

Features = Callable[[np.ndarray], Any]  # pictures uint8 [N, H, W, 3] -> float [N, D]
SIDE = 32  # pixels along a side in which pictures are compared as they are
NOT_WEIGHTS = ["*.h5", "*.msgpack", "*.ot", "*.onnx", "onnx/*", "*.tflite"]  # of other libraries


def pixels(pictures: np.ndarray) -> Tensor:
    """The pixels themselves in [0, 1], float `[N, D]`; pictures above 32 x 32 are averaged over areas first."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    return F.adaptive_avg_pool2d(x, (min(SIDE, x.shape[2]), min(SIDE, x.shape[3]))).flatten(1)


def find_features(given: str | Features, device: str = "cpu") -> tuple[str, Features]:
    """The name of some features, which results are published with, and the function from pictures to them.

    `given` is a function `pictures uint8 [N, H, W, 3] -> float [N, D]`, the name of one, "module:function", or a vision
    model of transformers, a folder or a name on the hub. Raises ValueError where there is no such model.
    """
    if callable(given):
        return name_of(given), given
    if not isinstance(given, str) or not given:
        raise ValueError(f"features must be a function or the name of a vision model, got {shown(given)}")
    if ":" in given and not Path(given).is_dir():
        return given, _imported(given)
    model = VisionModel(given, device)
    return model.name, model


def name_of(function: Any) -> str:
    """The name of a function, with its module, or of the class of another object."""
    name = getattr(function, "name", None)
    named = function if hasattr(function, "__qualname__") else type(function)
    return name if isinstance(name, str) else f"{named.__module__}:{named.__qualname__}"


def _imported(name: str) -> Features:
    """The function "module:function", of a module that is installed or lies in the current folder."""
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"there are no features {shown(name)} ({one_line(error)}); give module:function") from None
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise ValueError(f"{name} must be a function of pictures uint8 [N, H, W, 3], it is {shown(found)}")
    return found  # type: ignore[no-any-return]


class VisionModel:
    """A vision model of transformers with its image processor: its pooled output, or the mean of its last layer.

    `model` is a folder or a name on the hub. Raises ValueError where there is none that reads pictures.
    """

    def __init__(self, model: str, device: str = "cpu"):
        from transformers import AutoImageProcessor, AutoModel

        folder = fetched(model)
        try:
            self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
            self.model = AutoModel.from_pretrained(folder).eval().to(device)
            seen = self.processor(images=[np.zeros((8, 8, 3), np.uint8)], return_tensors="pt").pixel_values
        except Exception as error:  # of a folder of any kind
            raise ValueError(
                f"{model!r} is no vision model that transformers can read ({why(error)}); name another, or "
                "features of your own as module:function"
            ) from None
        size = " x ".join(map(str, seen.shape[-2:]))
        self.device, self.name = device, f"{model} ({type(self.model).__name__}, pooled output, {size} pixels)"

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> Tensor:
        """Pictures uint8 `[N, H, W, 3]`, scaled as the model's image processor does, to features float `[N, D]`."""
        given = self.processor(images=list(pictures), return_tensors="pt").to(self.device)
        output = getattr(self.model, "get_image_features", self.model)(**given)
        return pooled(output)


def pooled(output: Any) -> Tensor:
    """One row for each picture of what a model of transformers returns, `[N, D]`."""
    if isinstance(output, Tensor):
        return output.flatten(1)
    found = getattr(output, "pooler_output", None)
    if found is not None:
        return found.flatten(1)  # type: ignore[no-any-return]
    last: Tensor = output.last_hidden_state  # [N, S, D] or [N, D, H, W]
    return last.mean(1) if last.ndim == 3 else last.flatten(2).mean(2)


def why(error: BaseException) -> str:
    """The first sentence of what transformers says."""
    return one_line(error).partition(". ")[0]


def fetched(model: str) -> str:
    """The folder of a model of transformers, fetched from the hub at once; raises ValueError where there is none."""
    if Path(model).is_dir():
        return model
    from huggingface_hub import HfApi, snapshot_download

    try:
        return str(snapshot_download(model, local_files_only=True))
    except Exception:  # not on this machine, or not a name
        pass
    try:
        files = [file.rfilename for file in HfApi().model_info(model, timeout=5).siblings or []]
        safe = ["*.bin", "*.pt"] if any(file.endswith(".safetensors") for file in files) else []
        return str(snapshot_download(model, ignore_patterns=[*NOT_WEIGHTS, *safe]))
    except Exception as error:  # those of the hub's library and of the one that it speaks HTTP with
        raise ValueError(
            f"{shown(model)} is no folder, and the hub did not give it ({type(error).__name__}: {one_line(error)})"
        ) from None


@torch.no_grad()
def features_of(
    extract: Features,
    pictures: Sequence[np.ndarray],
    *,
    batch: int = 32,
    progress: bool = False,
    desc: str = "features",
) -> Tensor:
    """The features of pictures uint8 `[H, W, 3]`, float32 `[N, D]`; raises ValueError for another shape or value."""
    found: list[Tensor] = []
    with tqdm(total=len(pictures), disable=not progress, desc=desc, unit="picture") as bar:
        for start in range(0, len(pictures), batch):
            some = np.stack([pictures[i] for i in range(start, min(start + batch, len(pictures)))])
            found.append(_checked(extract(some), len(some), found[0].shape[1] if found else None))
            bar.update(len(some))
    return torch.cat(found)


def _checked(features: Any, count: int, width: int | None) -> Tensor:
    try:
        found = torch.as_tensor(features).detach().cpu().float()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"features must be float [N, D], got {shown(features)}") from None
    if found.ndim != 2 or len(found) != count or not found.shape[1] or (width or found.shape[1]) != found.shape[1]:
        wanted = f"[{count}, {width or 'D'}] for {count} picture{'s' if count > 1 else ''}"
        raise ValueError(f"features must be float {wanted}, got {[*found.shape]}")
    if not bool(found.isfinite().all()):
        raise ValueError("features must be finite, got some that are not")
    return found
