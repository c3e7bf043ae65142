"""What is installed here and whether it works: versions, device, model. A bug report needs it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from vqlearn import __version__
from vqlearn.autoregression import AutoregressivePipeline, load_pipeline
from vqlearn.checkpoints.description import auto_dtypes
from vqlearn.checkpoints.hub import locate
from vqlearn.networks import cost

LIBRARIES = (
    "torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy", "pillow", "matplotlib",
    "jupyterlab",
)  # fmt: skip


def findings(model: str | Path | None = None) -> Iterator[tuple[str, str]]:
    """What is found, each with its name, one after the other; the model, None for the shipped one, comes last.

    Raises CheckpointError, after everything else, where the model is missing or not whole.
    """
    yield "vqlearn", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in LIBRARIES:
        yield name, version(name)
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    yield "device", f"cpu with {torch.get_num_threads()} threads, cuda: {cuda}"
    yield "auto dtype", f"of {cost.LARGE / 1e6:.0f} M weights and more {auto_dtypes(cost.LARGE)}"
    yield "", f"(measured once, kept in {cost.rates_file()})"
    folder = locate(model, local_files_only=True)
    pipe = load_pipeline(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors")) / 1e6
    count = sum(weight.numel() for weight in pipe.transformer.parameters()) / 1e6
    rival = isinstance(pipe, AutoregressivePipeline)
    about = "autoregressive transformer" if rival else "denoiser"
    tail = "" if rival else f", {pipe.schedule}"
    yield "model", f"{folder.name}: whole, {size:.1f} MB, {about} of {count:.1f} M parameters{tail}"


def version(name: str) -> str:
    """The installed version of a library, or how to install it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"missing: python -m pip install {name}"
