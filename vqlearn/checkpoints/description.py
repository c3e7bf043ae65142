"""A model in words: its parts and their sizes, what it reads and draws, its schedule, the memory it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vqlearn.networks.cost import auto_dtype

if TYPE_CHECKING:
    from vqlearn.pipeline import VQDiffusionPipeline


def describe(pipe: VQDiffusionPipeline, folder: Path) -> str:
    """A pipeline that was loaded from `folder`, described in lines of text."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in modules.items()}
    lines = []
    for name, count in counts.items():
        size = sum(file.stat().st_size for file in (folder / name).iterdir() if file.is_file())
        lines.append(f"{name:44} {count:>13,} parameters {size / 1e6:9.1f} MB on disk")
    lines += ["", *(f"{name:10} {value}" for name, value in _facts(pipe))]
    total = sum(counts.values())
    for dtype, size in (("float32", 4), ("float16 or bfloat16", 2)):
        lines.append(f"memory     {total * size / 2**30:8.2f} GiB for the weights in {dtype}")
    return "\n".join([*lines, f"auto dtype {auto_dtypes(counts['transformer'])}"])


def _facts(pipe: VQDiffusionPipeline) -> Iterator[tuple[str, str]]:
    network, schedule, codes = pipe.transformer.config, pipe.schedule, pipe.vqvae.config["num_vq_embeddings"]
    classes = network["num_classes"]
    yield "reads", f"{pipe.transformer.reads}" + (f", {classes} of them" if classes else "")
    side, used = round(pipe.length**0.5), pipe.vqvae.num_tokens
    pixels, kept = side * pipe.vqvae.factor, f"{used} of its {codes}" if used < codes else f"{codes}"
    yield "pictures", f"{pixels} x {pixels}, {side} x {side} tokens of {kept} codes"
    heads, width = network["num_attention_heads"], network["attention_head_dim"]
    yield "network", f"{network['num_layers']} layers, {heads} heads x {width} = {heads * width} wide"
    yield (
        "schedule",
        f"{schedule.num_steps} steps; at the end kept {float(schedule.alpha_bar[-1]):.3g}, replaced "
        f"{schedule.num_codes * float(schedule.beta_bar[-1]):.3g} (the uniform share), "
        f"masked {float(schedule.gamma_bar[-1]):.5g}",
    )
    rate = pipe.defaults.get("truncation_rate", 1.0)
    yield "defaults", f"guidance {pipe.guidance_scale:g}, truncation {rate:g}"


def auto_dtypes(weights: int) -> str:
    """What `torch_dtype="auto"` is here for a denoiser of so many weights, and why, on each kind of device."""
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    found = [(kind, *auto_dtype(weights, kind)) for kind in kinds]
    return "; ".join(f"{str(dtype).removeprefix('torch.')} on {kind}: {why}" for kind, dtype, why in found)
