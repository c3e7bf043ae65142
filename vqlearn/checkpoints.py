"""Weights in and out: folders in the diffusers layout, from the disk or from the hub.

A folder holds `model_index.json` and one folder per component. Every way in which a folder can be
incomplete, truncated or of another kind is one OSError that names the file and what would be right.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vqlearn.conditioning import LearnedClassifierFreeSamplingEmbeddings
from vqlearn.scheduler import VQDiffusionScheduler
from vqlearn.transformer import Transformer2DModel
from vqlearn.vqvae import VQModel

SHIPPED = Path(__file__).parent / "models" / "scenes"
INDEX = "model_index.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
OURS = {
    "vqvae": VQModel,
    "transformer": Transformer2DModel,
    "learned_classifier_free_sampling_embeddings": LearnedClassifierFreeSamplingEmbeddings,
}
LIBRARIES = {
    "vqvae": ["diffusers", "VQModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "transformer": ["diffusers", "Transformer2DModel"],
    "scheduler": ["diffusers", "VQDiffusionScheduler"],
    "learned_classifier_free_sampling_embeddings": ["diffusers", "LearnedClassifierFreeSamplingEmbeddings"],
}


def locate(
    repo_or_dir: str | Path | None,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The folder of a model: None is the shipped one, an existing folder itself, anything else a repository on the hub.

    The keywords are those of `huggingface_hub.snapshot_download`. Raises OSError when
    there is no such folder and the hub does not have it or cannot be reached.
    """
    if repo_or_dir is None:
        return SHIPPED
    if Path(repo_or_dir).is_dir():
        return Path(repo_or_dir)
    if Path(repo_or_dir).exists():
        raise OSError(f"{repo_or_dir} is a file; a model is a folder with {INDEX}")
    name = str(repo_or_dir)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise OSError(f"there is no model folder {name!r}; give a folder with {INDEX}, or a hub name like 'owner/name'")
    from huggingface_hub import snapshot_download

    options = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors"], **options))
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OSError(
            f"{name!r} is no folder here, and the hub did not give it ({type(error).__name__}: {first})"
        ) from None


def read_json(path: Path) -> dict:
    """A JSON object from a file; OSError when it is missing, unreadable or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OSError(f"{path} is missing; a model folder in the diffusers layout has it") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise OSError(f"{path} is not readable JSON ({error}); the file may be truncated") from None
    if not isinstance(value, dict):
        raise OSError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; OSError when it is missing or truncated."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise OSError(f"{path} is missing; a model folder in the diffusers layout has it")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise OSError(f"{path} is not a readable safetensors file ({error}); it may be truncated") from None


def load_module(kind: type[nn.Module], folder: Path) -> nn.Module:
    """One of our modules from its folder; OSError when configuration and weights do not fit."""
    module = _build(kind, folder / "config.json")
    _assign(module, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return module.eval()


def _build(kind: Any, path: Path) -> Any:
    """An object from its configuration; keys that it does not take are ignored."""
    config, known = read_json(path), inspect.signature(kind).parameters
    try:
        return kind(**{key: value for key, value in config.items() if key in known})
    except (TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise OSError(f"{path} does not describe a {kind.__name__}: {first}") from None


def _assign(module: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    expected = module.state_dict()
    weights = {name: tensor for name, tensor in weights.items() if tensor.numel()}  # learnable=False: an empty tensor
    if missing := sorted(expected.keys() - weights.keys()):
        raise OSError(f"{path} lacks {len(missing)} tensors that its config.json asks for, the first is {missing[0]!r}")
    if extra := sorted(weights.keys() - expected.keys()):
        raise OSError(
            f"{path} has {len(extra)} tensors that its config.json knows nothing of, the first is {extra[0]!r}"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise OSError(
                f"{path}: {name!r} has shape {list(tensor.shape)}, "
                f"its config.json asks for {list(expected[name].shape)}"
            )
    module.load_state_dict(weights)


def save_module(module: nn.Module, folder: Path) -> None:
    """Write one of our modules as `config.json` and safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(module.config, indent=2) + "\n")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    if not tensors:
        tensors = {"embeddings": torch.empty(0)}  # as diffusers writes learnable=False
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_text_tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer from its folder.

    Its files are checked first: transformers returns an empty tokenizer, silently, when they are missing.
    """
    from transformers import CLIPTokenizer

    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise OSError(f"{folder / name} is missing; without it every word would be lost")
    return _from_transformers(CLIPTokenizer, folder)


def load_text_encoder(folder: Path) -> Any:
    """A CLIP text encoder from its folder, in float32."""
    from transformers import CLIPTextModel

    read_json(folder / "config.json")
    with _Quiet():
        return _from_transformers(CLIPTextModel, folder, dtype=torch.float32).eval()


def _from_transformers(kind: Any, folder: Path, **options: Any) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # transformers raises many kinds
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise OSError(f"{folder} cannot be read by {kind.__name__} ({type(error).__name__}: {first})") from None


class _Quiet:
    """Keeps transformers' own loading bar out of the way of ours."""

    def __enter__(self):
        from transformers.utils import logging

        self.logging, self.shown = logging, logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_):
        if self.shown:
            self.logging.enable_progress_bar()


def load_components(folder: Path) -> tuple[dict[str, Any], dict]:
    """All six components of a pipeline folder, and its index."""
    index = read_json(folder / INDEX)
    if index.get("_class_name") != "VQDiffusionPipeline":
        raise OSError(f"{folder / INDEX} describes a {index.get('_class_name')}, not a VQDiffusionPipeline")
    components: dict[str, Any] = {name: load_module(kind, folder / name) for name, kind in OURS.items()}
    components["scheduler"] = _build(VQDiffusionScheduler, folder / "scheduler" / "scheduler_config.json")
    components["tokenizer"] = load_text_tokenizer(folder / "tokenizer")
    components["text_encoder"] = load_text_encoder(folder / "text_encoder")
    _check_fit(components, folder)
    if not isinstance(index.get("_vqlearn", {}), dict):
        raise OSError(f"{folder / INDEX}: '_vqlearn' must be a JSON object")
    return components, index


def _check_fit(components: dict[str, Any], folder: Path) -> None:
    """Components of different models do not go together; OSError says which."""
    scheduler, codec, network = (components[name].config for name in ("scheduler", "vqvae", "transformer"))
    text, words = components["text_encoder"].config, len(components["tokenizer"])
    for what, first, second in (
        ("codes of the scheduler and of the codec", scheduler["num_vec_classes"] - 1, codec["num_vq_embeddings"]),
        ("codes of the transformer and of the codec", network["num_vector_embeds"] - 1, codec["num_vq_embeddings"]),
        (
            "steps of the scheduler and of the transformer",
            scheduler["num_train_timesteps"],
            network["num_embeds_ada_norm"],
        ),
        ("text widths of encoder and transformer", text.hidden_size, network["cross_attention_dim"]),
        ("tokens of the tokenizer and of the text encoder", min(words, text.vocab_size), words),
    ):
        if first != second:
            raise OSError(f"{folder}: the {what} differ: {first} and {second}")


def save_components(components: dict[str, Any], folder: str | Path, extra: dict) -> None:
    """Write a pipeline folder; the index comes last, so a folder that has one is whole. `extra` joins the index."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OSError(f"{folder} is a file; a model is saved to a folder")
    (folder / INDEX).unlink(missing_ok=True)
    for name in OURS:
        save_module(components[name], folder / name)
    components["scheduler"].save_pretrained(folder / "scheduler")
    with _Quiet():
        components["text_encoder"].save_pretrained(folder / "text_encoder")
    save_tokenizer(components["tokenizer"], folder / "tokenizer")
    index = {"_class_name": "VQDiffusionPipeline", **extra, **LIBRARIES}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def save_tokenizer(tokenizer, folder: Path) -> None:
    """Write `vocab.json` and `merges.txt` (the hub's 2022 form) beside what transformers writes."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
