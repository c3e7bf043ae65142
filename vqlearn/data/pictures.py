"""Pictures and masks as people have them, and as networks do: tensors in [-1, 1].

A picture means what its file says, whatever it is kept in: it is turned as its EXIF orientation states, colours with an
ICC profile become sRGB, 16 bits are 16 bits, a palette is looked up, and behind transparent pixels is a background,
white unless said otherwise. Of an animation or several pages the current one is taken. White in a mask is drawn anew; a
mask lies on black, so nothing is marked where it is transparent.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageCms, ImageColor
from torch import Tensor

from vqlearn.arguments import shown, whole

OUTPUTS = ("pil", "np", "pt", "latent")
Picture = Image.Image | np.ndarray | Tensor
Pictures = Picture | Sequence[Picture]
Color = str | tuple[int, int, int]
ROUNDING = 1e-4  # how far outside its range a float may lie
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue in grey (ITU-R BT.601)
TURN = Image.Transpose
TURNS = {  # EXIF orientation -> what sets the picture upright
    2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE, 6: TURN.ROTATE_270,
    7: TURN.TRANSVERSE, 8: TURN.ROTATE_90,
}  # fmt: skip


# ------------------------------------------------------------------------------------------ pictures


def to_tensor(image: Pictures, side: int, *, resize: bool = False, background: Color = "white") -> Tensor:
    """A picture, a batch or a list of them as float `[B, 3, side, side]` in [-1, 1]; raises ValueError.

    A picture is a PIL image of any mode; an array `[H, W]` or `[H, W, C]` (C = 1 to 4: grey or RGB, alpha last) of
    bool, uint8, uint16, or floats in [0, 1]; or a tensor `[3, H, W]` of floats in [-1, 1] or uint8. One of another size
    is refused before it is decoded; with `resize` the largest square in its middle is scaled, so that each new pixel is
    the mean of those that it covers. `background` is the colour behind transparent pixels, by name or (r, g, b).
    """
    if isinstance(image, list | tuple):
        if not image:
            raise ValueError("image must be a picture or a list of them, got an empty list")
        return torch.cat([to_tensor(one, side, resize=resize, background=background) for one in image])
    if not _is_picture(image):
        raise ValueError(
            "image must be a PIL image or float [3, H, W] or [B, 3, H, W] in [-1, 1] (a tensor), or uint8 [H, W, 3] "
            f"(an array), got {_kind(image)}"
        )
    if not isinstance(resize, bool | np.bool_):
        raise ValueError(f"resize must be True or False, got {shown(resize)}")
    color_of(background)
    if not resize and _size(image) != (side, side):
        raise ValueError(
            f"image must be {side} x {side} pixels, got {' x '.join(map(str, _size(image)))}; resize=True takes the "
            "square in its middle and scales it"
        )
    if isinstance(image, Tensor):
        return _from_tensor(image, side)
    several = image if isinstance(image, np.ndarray) and image.ndim == 4 else [image]
    pixels = np.stack([_scaled(rgb(one, background=background), side) for one in several])
    return _signed(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def rgb(image: Image.Image | np.ndarray, *, background: Color = "white") -> np.ndarray:
    """A picture as it is seen, `[H, W, 3]`: uint8 if it has eight bits and is opaque, else float32 in [0, 1].

    `image` and `background` as in `to_tensor`. Raises ValueError for what cannot be decoded or is out of range.
    """
    colours, alpha = _planes("image", image)
    if colours.shape[-1] == 1:
        colours = np.repeat(colours, 3, axis=-1)
    if alpha is None:
        return colours
    seen: np.ndarray = _unit(colours) * alpha + color_of(background) * (1 - alpha)
    return seen


def in_range(name: str, values: Tensor, least: int) -> Tensor:
    """`values` clamped to [least, 1]; raises ValueError where one is not finite, or further outside than rounding."""
    if not isinstance(values, Tensor) or not _is_plain(values) or not values.is_floating_point():
        raise ValueError(f"{name} must be a tensor of floats in [{least}, 1], got {_kind(values)}")
    if values.numel() == 0:
        return values
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name} must be finite numbers, got some that are not")
    low, high = (float(end) for end in values.aminmax())
    if low < least - ROUNDING or high > 1 + ROUNDING:
        raise ValueError(f"{name} must lie in [{least}, 1], got values from {low:g} to {high:g}")
    return values.clamp(least, 1)


def convert(images: Tensor, output_type: str) -> Any:
    """Images `[B, 3, H, W]` in [-1, 1] as PIL images, or in [0, 1] `[B, H, W, 3]` ("np") or as they are ("pt").

    Raises ValueError where a value is not finite.
    """
    if bool((~images.isfinite()).any()):
        raise ValueError("the codec has given values that are not finite; its weights, or their dtype, are not sound")
    images = (images / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return images
    array = images.permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return array
    return [Image.fromarray(picture) for picture in (array * 255).round().astype(np.uint8)]


# ------------------------------------------------------------------------------------------ masks


def touched(mask: Pictures, side: int, patch: int, *, sizes: Collection[tuple[int, int]] = ()) -> Tensor:
    """Which of `side` x `side` squares of `patch` pixels a mask touches: bool `[side * side]`, or such a row per mask.

    A mask is a PIL image, a tensor or an array `[H, W]` or `[B, H, W]` (an array may have colours, as in `to_tensor`),
    or a list of them. Of images and whole numbers the brighter half is marked. Floats in [0, 1] say how much each pixel
    is marked and give float32, the most of any pixel of the square. A mask is `side * patch` pixels wide and high or,
    where `sizes` (width, height) are given, has one of these, and the square in its middle is read. Raises ValueError.
    """
    if isinstance(mask, list | tuple):
        if not mask:
            raise ValueError("mask must be a mask or a list of them, got an empty list")
        rows = [touched(one, side, patch, sizes=sizes) for one in mask]
        return torch.cat([row.view(-1, side * side) for row in rows])
    full = side * patch
    allowed = {(full, full), *sizes}
    grey = _grey(mask) if _is_mask(mask) and (sizes or _size(mask) in allowed) else None
    if grey is None or (grey.shape[-1], grey.shape[-2]) not in allowed:
        raise ValueError(
            f"mask must be a PIL image of {' or '.join(f'{w} x {h}' for w, h in sorted(allowed))} pixels, "
            f"floats in [0, 1] or bool [{full}, {full}], got {_kind(mask)}"
        )
    square = _middle(grey, grey.ndim - 2)
    most = F.adaptive_max_pool2d(square.float()[(None,) * (3 - grey.ndim)], side).flatten(-2)
    most = most if grey.ndim == 3 else most[0]
    return most > 0 if grey.dtype == torch.bool else most


def sizes(image: Any) -> set[tuple[int, int]]:
    """Width and height, as they are seen, of each of some pictures."""
    if isinstance(image, list | tuple):
        return set().union(*map(sizes, image))
    return {_size(_upright("image", image) if isinstance(image, Image.Image) else image)}


def _is_mask(mask: Any) -> TypeGuard[Picture]:
    if isinstance(mask, Tensor):
        return _is_plain(mask, also=torch.bool) and mask.ndim in (2, 3) and mask.numel() > 0
    several = isinstance(mask, np.ndarray) and mask.ndim == 3 and len(mask) > 0
    return _is_picture(mask) or (several and _is_picture(mask[0]))


def _grey(mask: Picture) -> Tensor:
    """How bright a mask is, float32 in [0, 1], or where it is not of floats whether it is half white: `[(B,) H, W]`."""
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu()
        mask = (mask.float() if mask.is_floating_point() else mask).numpy()
        return torch.stack([_grey(one) for one in mask]) if mask.ndim == 3 else _grey(mask)
    if isinstance(mask, np.ndarray) and mask.ndim == 3 and mask.shape[-1] > 4:
        return torch.stack([_grey(one) for one in mask])
    colours, alpha = _planes("mask", mask)
    bright = _unit(colours) @ LUMA if colours.shape[-1] == 3 else _unit(colours)[..., 0]
    bright = bright if alpha is None else bright * alpha[..., 0]
    if (mask.mode == "F") if isinstance(mask, Image.Image) else (mask.dtype.kind == "f"):
        return torch.from_numpy(np.array(bright)).clamp(0, 1)
    if 0 < bright.max() < 1.5 / 255:
        raise ValueError("mask is at most 1 of 255 bright, so it marks nothing; mark with 255, or make it bool")
    return torch.from_numpy(bright >= 0.5)


# ------------------------------------------------------------------------------------------ from files to planes


def _planes(name: str, image: Image.Image | np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours `[H, W, 1 or 3]`, uint8 or float32 in [0, 1], and alpha `[H, W, 1]` in [0, 1], None if all is opaque."""
    values = _decoded(name, image) if isinstance(image, Image.Image) else np.asarray(image)
    values = values[..., None] if values.ndim == 2 else values
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype.kind == "u":
        values = values if values.dtype == np.uint8 else values.astype(np.float32) / np.iinfo(values.dtype).max
    else:
        values = in_range(name, torch.from_numpy(values.astype(np.float32)), 0).numpy()
    if values.shape[-1] in (1, 3):
        return values, None
    alpha = _unit(values[..., -1:])
    return values[..., :-1], None if (alpha == 1).all() else alpha


def _decoded(name: str, image: Image.Image) -> np.ndarray:
    """The pixels of a PIL image, upright: `[H, W]` or, with colours or alpha, `[H, W, C]`, in the bits that it has."""
    image = _in_srgb(_upright(name, image))
    if image.mode[0] in "IF":  # 16 bits, 32 bits, floats
        grey = _sixteen_bits(name, np.asarray(image)) if image.mode[0] == "I" else np.asarray(image)
        clear = image.info.get("transparency") if image.mode[0] == "I" else None
        return grey if clear is None else np.stack([grey, np.where(grey == clear, 0, 65535).astype(np.uint16)], -1)
    if image.mode == "La":
        image = image.convert("LA")
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _in_srgb(image: Image.Image) -> Image.Image:
    """The colours that the ICC profile of a file means; as they are where it has none, or one that cannot be read.

    CIE L*a*b* (a mode of TIFF) needs no profile, and PIL itself does not convert it.
    """
    profile, clear, lab = image.info.get("icc_profile"), image.has_transparency_data, image.mode == "LAB"
    if not (profile or lab) or (clear and image.mode[0] == "I"):  # ImageCms has no alpha of 16 bits
        return image
    try:
        whole = image.convert("RGBA") if clear else image.convert("RGB") if image.mode == "P" else image
        grey = clear and image.mode in ("L", "LA", "La")
        colours = whole.getchannel("R") if grey else whole.convert("RGB") if clear else whole
        source: Any = ImageCms.createProfile("LAB") if lab else ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        target = ImageCms.createProfile("sRGB")
        seen = ImageCms.profileToProfile(colours, source, target, outputMode="RGB")
        if seen is not None and clear:
            seen.putalpha(whole.getchannel("A"))
        return image if seen is None else seen
    except MemoryError:
        raise
    except Exception:  # of a damaged profile, or one for other colours than these, which says nothing
        return image


def _sixteen_bits(name: str, grey: np.ndarray) -> np.ndarray:
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535 or (grey.dtype.itemsize > 2 and 0 < high <= 255):
        raise ValueError(
            f"{name} has 32-bit values from {low} to {high}, and which of them is white is not known; convert it to a "
            "PIL image of mode 'L' (8 bits) or 'I;16' (16 bits)"
        )
    return grey.astype(np.uint16)


def _upright(name: str, image: Image.Image) -> Image.Image:
    """The image decoded and turned as its EXIF orientation says; raises ValueError for damaged files."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise ValueError(f"{name} cannot be decoded: {error}") from None
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data say nothing, and leave the picture whole
        turn = None
    return image if turn is None else image.transpose(turn)


def _is_picture(image: Any) -> TypeGuard[Picture]:
    """Whether kind and shape are those of a picture, or of a batch of arrays or tensors."""
    if isinstance(image, Image.Image):
        return 0 not in image.size
    if isinstance(image, Tensor):
        return _is_plain(image) and image.ndim in (3, 4) and image.shape[-3] == 3 and image.numel() > 0
    if not isinstance(image, np.ndarray) or image.size == 0:
        return False
    colours = image.ndim == 2 or (image.ndim in (3, 4) and image.shape[-1] <= 4)
    return colours and (image.dtype.kind in "bf" or (image.dtype.kind == "u" and image.dtype.itemsize <= 2))


def _is_plain(values: Tensor, *, also: torch.dtype = torch.uint8) -> bool:
    """Whether a tensor holds its values, and of a kind that pictures are made of."""
    known = values.is_floating_point() or values.dtype in (torch.uint8, also)
    return known and values.layout == torch.strided and not (values.is_meta or values.is_nested)


def _size(image: Picture) -> tuple[int, int]:
    """Width and height; of a PIL image those of its file, without reading more of it."""
    if isinstance(image, Image.Image):
        return image.size
    if isinstance(image, Tensor):
        return image.shape[-1], image.shape[-2]
    if image.ndim == 2 or image.shape[-1] > 4:
        return image.shape[-1], image.shape[-2]
    return image.shape[-2], image.shape[-3]


def _from_tensor(image: Tensor, side: int) -> Tensor:
    image = image.detach() if image.ndim == 4 else image.detach()[None]
    image = _signed(image) if image.dtype == torch.uint8 else in_range("image", image.float(), -1)
    if image.shape[-2:] == (side, side):
        return image
    scaled = [_scaled(one.permute(1, 2, 0).cpu().numpy(), side) for one in image]
    return torch.from_numpy(np.stack(scaled)).permute(0, 3, 1, 2).to(image.device)


def _scaled(pixels: np.ndarray, side: int) -> np.ndarray:
    """The square in the middle of `[H, W, C]` as `[side, side, C]`: each pixel the mean of those that it covers."""
    if pixels.shape[:2] == (side, side):
        return pixels
    square = _middle(pixels, 0)
    planes = [Image.fromarray(np.ascontiguousarray(square[..., c])) for c in range(square.shape[-1])]
    return np.stack([np.asarray(plane.resize((side, side), Image.Resampling.BOX)) for plane in planes], axis=-1)


def _middle(values: Any, axis: int) -> Any:
    """The largest square in the middle, along `axis` and the next."""
    height, width = values.shape[axis : axis + 2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return values[(*[slice(None)] * axis, slice(top, top + side), slice(left, left + side))]


def _signed(pixels: Tensor) -> Tensor:
    """uint8, or floats in [0, 1], as floats in [-1, 1]."""
    return pixels / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels * 2 - 1


def _unit(values: np.ndarray) -> np.ndarray:
    """uint8, or floats in [0, 1], as float32 in [0, 1]."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values


def color_of(background: Color) -> np.ndarray:
    """A colour as float32 `[3]` in [0, 1]; raises ValueError."""
    try:
        parts: Any = ImageColor.getrgb(background)[:3] if isinstance(background, str) else background
        red, green, blue = (whole("background", part, 0, 255) for part in parts)
    except (ValueError, TypeError):
        raise ValueError(
            f"background must be a colour, such as 'white' or (255, 255, 255), got {shown(background)}"
        ) from None
    return np.array([red, green, blue], np.float32) / 255


def _kind(value: Any) -> str:
    if isinstance(value, Image.Image):
        return f"{value.width} x {value.height} pixels"
    if isinstance(value, Tensor) and value.is_nested:
        return "a nested tensor"
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor | np.ndarray) else type(value).__name__
