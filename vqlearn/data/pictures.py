"""Pictures as people have them (PIL images, arrays, masks over pixels) and as networks do (tensors in [-1, 1])."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

OUTPUTS = ("pil", "np", "pt", "latent")
Picture = Image.Image | Tensor


def to_tensor(image: Picture, side: int) -> Tensor:
    """A PIL image or float `[3, H, W]` or `[B, 3, H, W]` in [-1, 1] as `[B, 3, side, side]`; raises ValueError."""
    if isinstance(image, Image.Image):
        image = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 127.5 - 1
    if not isinstance(image, Tensor) or image.ndim not in (3, 4) or not image.is_floating_point():
        raise ValueError(f"image must be a PIL image or float [3, H, W] or [B, 3, H, W] in [-1, 1], got {_kind(image)}")
    if list(image.shape[-3:]) != [3, side, side]:
        raise ValueError(f"image must be {side} x {side} pixels of 3 colours, got {list(image.shape)}")
    return image if image.ndim == 4 else image[None]


def touched(mask: Picture, side: int, patch: int) -> Tensor:
    """Which of `side` x `side` squares of `patch` pixels a mask touches anywhere, bool `[side * side]`.

    `mask` is a PIL image (white, 128 and above) or bool `[H, W]`. Raises ValueError for another kind or size.
    """
    if isinstance(mask, Image.Image):
        mask = torch.from_numpy(np.array(mask.convert("L"))) >= 128
    size = [side * patch] * 2
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or list(mask.shape) != size:
        raise ValueError(f"mask must be a PIL image of {size[1]} x {size[0]} pixels or bool {size}, got {_kind(mask)}")
    blocks: Tensor = mask.unflatten(1, (side, patch)).unflatten(0, (side, patch))  # [side, patch, side, patch]
    return blocks.any(3).any(1).flatten()


def convert(images: Tensor, output_type: str) -> Any:
    """Images `[B, 3, H, W]` in [-1, 1] as PIL images, or in [0, 1] `[B, H, W, 3]` ("np") or as they are ("pt")."""
    images = (images / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return images
    array = images.permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return array
    return [Image.fromarray(picture) for picture in (array * 255).round().astype(np.uint8)]


def _kind(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
