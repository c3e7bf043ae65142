"""A model in words: its parts and their sizes, what it reads and draws, its schedule, the memory it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vqlearn.checkpoints.checksums import read_sums
from vqlearn.checkpoints.layout import CHECKSUMS
from vqlearn.networks.cost import auto_dtype

if TYPE_CHECKING:
    from vqlearn.components import Components
    from vqlearn.schedule import MaskReplaceSchedule


def describe(pipe: Components, folder: Path) -> str:
    """A pipeline that was loaded from `folder`, described in lines of text."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in modules.items()}
    lines = []
    for name, count in counts.items():
        size = sum(file.stat().st_size for file in (folder / name).glob("*") if file.is_file())
        lines.append(f"{name:44} {count:>13,} parameters {size / 1e6:9.1f} MB on disk")
    lines += ["", *(f"{name:10} {value}" for name, value in (*_facts(pipe), ("checksums", _sums(folder))))]
    total = sum(counts.values())
    for dtype, size in (("float32", 4), ("float16 or bfloat16", 2)):
        lines.append(f"memory     {total * size / 2**30:8.2f} GiB for the weights in {dtype}")
    return "\n".join([*lines, f"auto dtype {auto_dtypes(counts['transformer'])}"])


def _sums(folder: Path) -> str:
    """Whether the files are those that were saved; a folder of which one is not has been refused before."""
    if not (count := len(read_sums(folder))):
        return f"none ({CHECKSUMS} is not there): a damaged file may go unnoticed; saving the model writes them"
    return f"of {count} files, all as saved"


def _facts(pipe: Any) -> Iterator[tuple[str, str]]:
    network, reads = pipe.transformer.config, pipe.transformer.reads
    yield "reads", f"{reads}" + (f", {network.num_classes} of them" if reads == "class" else "")
    yield from _drawn(pipe)
    heads, width = network.num_attention_heads, network.attention_head_dim
    yield "network", f"{network.num_layers} layers, {heads} heads x {width} = {network.width} wide"
    if hasattr(pipe, "scheduler"):
        yield "schedule", _schedule(pipe.schedule)
    else:
        order = "row by row" if network.order is None else f"{str(network.order[:8])[:-1]}, ...]"
        yield "order", f"autoregressive, one token after the other, {order}"
    yield "defaults", f"guidance {pipe.guidance_scale:g}, truncation {pipe.truncation_rate:g}"


def _schedule(schedule: MaskReplaceSchedule) -> str:
    return (
        f"{schedule.num_steps} steps; at the end kept {float(schedule.alpha_bar[-1]):.3g}, replaced "
        f"{schedule.num_codes * float(schedule.beta_bar[-1]):.3g} (the uniform share), "
        f"masked {float(schedule.gamma_bar[-1]):.5g}"
    )


def _drawn(pipe: Components) -> Iterator[tuple[str, str]]:
    if pipe.vqvae is None:
        yield "tokens", f"{pipe.length} of {pipe.transformer.num_codes} codes, there is no codec"
        return
    side, used, codes = round(pipe.length**0.5), pipe.vqvae.num_tokens, pipe.vqvae.config.num_vq_embeddings
    pixels, kept = side * pipe.vqvae.factor, f"{used} of its {codes}" if used < codes else f"{codes}"
    yield "pictures", f"{pixels} x {pixels}, {side} x {side} tokens of {kept} codes"


def auto_dtypes(weights: int) -> str:
    """What `torch_dtype="auto"` is here for a denoiser of so many weights, and why, on each kind of device."""
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    found = [(kind, *auto_dtype(weights, kind)) for kind in kinds]
    return "; ".join(f"{str(dtype).removeprefix('torch.')} on {kind}: {why}" for kind, dtype, why in found)
