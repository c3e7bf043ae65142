"""A measurement as lines to read: each figure with its error and with what to compare it with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WHO = {"drawn": "drawn", "train": "as many training pictures"}


def summary(found: dict[str, Any]) -> str:
    """What `protocol.measure` has found, in lines."""
    return "\n".join(f"{name}: {text}" for name, text in _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    data, drawing, model = found["data"], found["drawing"], found["model"]
    yield "measured by", f"{data['pictures']} pictures of {data['name']}, {data.get('split', 'all')}"
    call = ", ".join(f"{name} {value}" for name, value in drawing.items() if name not in ("pictures", "remarks"))
    yield "drawn", f"as many by {model['name'] or model['kind']}, {call}"
    codec, book = found["reconstruction"], found["codebook"]
    psnr = "all the same" if codec["psnr"] is None else f"{codec['psnr']:.1f} dB"
    yield "codec", psnr + ("" if codec["ssim"] is None else f", SSIM {_mean(codec['ssim'], 4)}")
    yield "codebook", f"{book['used']} of {book['codes']} codes used, perplexity {book['perplexity']:.0f}"
    bound = found["bound"]
    each = f"{_mean(bound['bits_per_token'], 3)} bits per token, {_mean(bound['bits_per_dimension'], 4)} per dimension"
    yield bound["kind"], each
    yield from _sets(found)
    yield from _captions(found)


def _sets(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    far = found["distances"]
    if "skipped" in far:
        yield "distances", f"left out, {far['skipped']}"
    else:
        yield "features", f"{far['features']}, {far['width']} of them"
        for kind, name in (("kernel", "kernel distance"), ("frechet", "Fréchet distance")):
            yield name, "; ".join(f"{who} {_far(far[key][kind])}" for key, who in WHO.items() if far[key])
    for space, near in found["nearest"].items():
        yield from _neighbours(f"by {space}", near)


def _neighbours(space: str, near: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "skipped" in near:
        yield f"copies, {space}", f"left out, {near['skipped']}"
    else:
        share, real = near["drawn_is_nearer"], f"{near['real_to_train']:.3g}"
        far = f"drawn {near['drawn_to_train']:.3g} from the nearest of {near['train_pictures']} training pictures"
        nearer = f"drawn is nearer in {share['value']:.1%} ± {share['standard_error']:.1%} (50 % without copying)"
        yield f"copies, {space}", f"{far}, real {real}; {nearer}"
    own = f"drawn {near['drawn_to_drawn']:.3g} from the nearest drawn"
    yield f"variety, {space}", f"{own}, real {near['real_to_real']:.3g} from the nearest real"


def _far(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else _mean(value, 4)


def _captions(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    clip, read = found["clip_score"], found["agreement"]
    if "skipped" not in clip:
        yield "CLIP score", f"drawn {_mean(clip['drawn'], 2)}, real {_mean(clip['real'], 2)} ({clip['model']})"
    if "skipped" not in read:
        yield "read as asked", f"{read['drawn']:.1%} ± {read['margin']:.1%} (95 %)"


def _mean(found: dict[str, float], digits: int) -> str:
    return f"{found['value']:.{digits}f} ± {found['standard_error']:.{digits}f}"
