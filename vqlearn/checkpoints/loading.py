"""A pipeline's six parts from a folder in the diffusers layout.

A folder holds `model_index.json` and one folder per part. Every way in which one can be incomplete, damaged or of
another kind is one CheckpointError that names the file and what would be right. What the published models of 2022
do differently from today's diffusers is accepted here, each in one named place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vqlearn.checkpoints.fit import misfit, stranger
from vqlearn.checkpoints.hub import part_files
from vqlearn.checkpoints.layout import ANY, CHECKSUMS, INDEX, LEARNED, OURS, PARTS, TEXT_PARTS, Files, is_named
from vqlearn.checkpoints.reading import CheckpointError, one_line, read_json, read_tensors
from vqlearn.checkpoints.weights import assign, build, weight_files
from vqlearn.networks.clip import CLIPTextEncoder
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.scheduler import ENDS, MOST_STEPS, VQDiffusionScheduler

Dtype = torch.dtype | Callable[[int], torch.dtype]  # one, or what to make of a number of weights


# ------------------------------------------------------------------------------------------ in


def load_components(
    folder: Path, dtype: Dtype = torch.float32, *, files: Files = ANY, given: Mapping[str, Any] = MappingProxyType({})
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All six parts of a pipeline folder (None for those that the model does without), and its index.

    All weights get one dtype; a function is asked for it with the number of the denoiser's. `given` parts are taken as
    they are, in place of the folder's.
    """
    check_sums(folder)
    index = read_json(folder / INDEX)
    if index.get("_class_name") != "VQDiffusionPipeline":
        raise CheckpointError(f"{folder / INDEX} describes a {index.get('_class_name')}, not a VQDiffusionPipeline")
    if not isinstance(index.get("_vqlearn", {}), dict):
        raise CheckpointError(f"{folder / INDEX}: '_vqlearn' must be a JSON object")
    if files.variant and not any(folder.glob(f"*/*.{files.variant}.*")):
        raise CheckpointError(f"{folder} has no weights of the variant {files.variant!r}")
    if wrong := stranger(given):
        raise ValueError(wrong)
    denoiser: Any = given.get("transformer")
    if denoiser is None:
        denoiser = load_module(Transformer2DModel, folder / "transformer", dtype, files)
    one: torch.dtype = dtype if isinstance(dtype, torch.dtype) else next(denoiser.parameters()).dtype
    _check_index(index, folder / INDEX, {*given, *(() if denoiser.reads == "text" else TEXT_PARTS)})
    load: dict[str, Callable[[], Any]] = {
        "vqvae": lambda: load_module(VQModel, folder / "vqvae", one, files),
        "text_encoder": lambda: load_text_encoder(folder / "text_encoder", one, files),
        "tokenizer": lambda: load_text_tokenizer(folder / "tokenizer"),
        "scheduler": lambda: load_scheduler(folder / "scheduler"),
        LEARNED: lambda: load_module(LearnedClassifierFreeSamplingEmbeddings, folder / LEARNED, one, files),
    }
    parts: dict[str, Any] = {**dict.fromkeys(PARTS), "transformer": denoiser, **given}
    for part, loaded in load.items():
        if part not in given and is_named(index, part) and (denoiser.reads == "text" or part not in TEXT_PARTS):
            parts[part] = loaded()
    if wrong := misfit(parts):
        raise CheckpointError(f"{folder}: {wrong}")
    return parts, index


def _check_index(index: dict[str, Any], path: Path, other: set[str]) -> None:
    """Every part is of the class that this package has for it, whatever library is named: there are two such forms.

    A part may be named as none, except for transformer and scheduler; the null text may be unnamed, as in the published
    model's revision "fp16". What is said of `other` parts does not matter.
    """
    for part, (_, kind, *_) in PARTS.items():
        named = index.get(part)
        none = named == [None, None] and part not in ("transformer", "scheduler")
        if part in other or none or (part == LEARNED and named is None):
            continue
        if not (isinstance(named, list) and len(named) == 2 and named[1] == kind):
            raise CheckpointError(f"{path} names {named!r:.60} as its {part}, it should be a {kind}")


def load_module(kind: type[nn.Module], folder: Path, dtype: Dtype = torch.float32, files: Files = ANY) -> nn.Module:
    """One of our modules from its folder, in evaluation mode; raises CheckpointError."""
    path = folder / "config.json"
    config = read_json(path)
    found = weight_files(folder, OURS[0], files)
    tensors = read_tensors(found)
    if kind is VQModel:
        tensors = {_modern(name): tensor for name, tensor in tensors.items()}
    if kind is LearnedClassifierFreeSamplingEmbeddings and not config.get("learnable"):
        tensors = {}  # diffusers writes an empty tensor
    if not isinstance(dtype, torch.dtype):
        dtype = dtype(sum(tensor.numel() for tensor in tensors.values()))
    module: nn.Module = build(kind, config, path, most=max(1, len(tensors)))
    assign(module, tensors, found[0], dtype=dtype)
    return module


def _modern(name: str) -> str:
    """A tensor's name in today's layout: until 2022 the codec's attention had other ones."""
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
    return name


def load_scheduler(folder: Path) -> VQDiffusionScheduler:
    """The scheduler from its folder; the curves' ends must be stated, a default would be another schedule."""
    path = folder / "scheduler_config.json"
    config = read_json(path)
    if missing := [name for name in ("num_vec_classes", "num_train_timesteps", *ENDS) if name not in config]:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    steps = config["num_train_timesteps"]
    if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise CheckpointError(f"{path}: num_train_timesteps must lie in 1 ... {MOST_STEPS}, got {steps!r:.60}")
    if "alpha_bar" not in config and "gamma_bar" not in config:
        made: VQDiffusionScheduler = build(VQDiffusionScheduler, config, path, device="cpu")
        return made
    try:
        drawn_by: VQDiffusionScheduler = VQDiffusionScheduler.from_config(config)
        return drawn_by
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} does not describe a schedule ({one_line(error)})") from None


def load_text_tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer from the vocabulary and the merges in its folder.

    Built from what the files say and not by transformers' own loading, which gives an empty tokenizer, silently, when
    they are missing. Padding is the file's, "!" (id 0) in the published model. Raises CheckpointError.
    """
    from transformers import CLIPTokenizer

    vocab, merges, where = _vocabulary(folder)
    settings = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings.update(read_json(folder / name))
    special = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = settings.get(name, "<|startoftext|>" if name == "bos_token" else "<|endoftext|>")
        special[name] = token.get("content") if isinstance(token, dict) else token
        if not isinstance(special[name], str) or special[name] not in vocab:
            raise CheckpointError(f"{folder}: {name} {special[name]!r:.60} is not in the vocabulary")
    length = settings.get("model_max_length", 77)
    if not isinstance(length, int) or not 2 <= length <= 10_000:
        raise CheckpointError(f"{folder}: model_max_length must lie in 2 ... 10000, got {length!r:.60}")
    try:
        return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length, **special)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{where} is not a byte-pair vocabulary ({one_line(error)})") from None


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]], Path]:
    """Ids by token, and the merges, from `vocab.json` and `merges.txt` or today's `tokenizer.json`; and the file."""
    if (folder / "vocab.json").is_file() or not (folder / "tokenizer.json").is_file():
        where = folder / "vocab.json"
        vocab: Any = read_json(where)
        try:
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise CheckpointError(
                f"{folder / 'merges.txt'} is missing or unreadable; without it every word would be lost"
            ) from None
        merges: Any = [line for line in lines if line and not line.startswith("#version")]
    else:
        where = folder / "tokenizer.json"
        model = read_json(where).get("model")
        vocab, merges = (model.get("vocab"), model.get("merges")) if isinstance(model, dict) else (None, None)
    if not (isinstance(vocab, dict) and vocab and all(type(value) is int for value in vocab.values())):
        raise CheckpointError(f"{where} must map tokens to whole numbers")
    if set(vocab.values()) != set(range(len(vocab))):
        raise CheckpointError(f"{where} must give every token its own id, from 0 to their number less one")
    if not isinstance(merges, list):
        raise CheckpointError(f"{where} must list the merges")
    pairs: list[Any] = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in merges]
    for pair in pairs:
        if len(pair) != 2 or "".join(pair) not in vocab:
            raise CheckpointError(f"{folder}: the merge {' '.join(pair)!r:.60} gives no token of the vocabulary")
    return vocab, pairs, where


def load_text_encoder(folder: Path, dtype: torch.dtype = torch.float32, files: Files = ANY) -> Any:
    """A CLIP text encoder from its folder; tensor names with and without "text_model." are accepted."""
    path = folder / "config.json"
    config = read_json(path)
    found = part_files(folder.parent, folder.name, files)
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in read_tensors(found).items()}
    tensors.pop("embeddings.position_ids", None)
    return assign_text_encoder(config, tensors, path, found[0], dtype)


def assign_text_encoder(
    config: dict[str, Any],
    tensors: dict[str, Tensor],
    where: Path | str,
    file: Path | str,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """A text encoder of a configuration, as transformers writes it for a CLIPTextModel, with given weights."""
    if config.get("model_type", "clip_text_model") not in ("clip_text_model", "clip"):
        raise CheckpointError(f"{where} describes a {config['model_type']!r:.60}, not a clip_text_model")
    return assign(build(CLIPTextEncoder, config, where, most=len(tensors)), tensors, file, dtype=dtype)


# ------------------------------------------------------------------------------------------ checksums


def check_sums(folder: Path) -> None:
    """Compare the files with `checksums.json`, which `saving.save_components` writes; without one nothing is checked.

    Raises CheckpointError for a file that is missing or is not the one that was saved.
    """
    path = folder / CHECKSUMS
    if not path.exists():
        return
    for name, expected in read_json(path).items():
        if not re.fullmatch(r"(\w+/)?[\w.-]+", name) or ".." in name:
            raise CheckpointError(f"{path} names {name!r:.60}, which is no file of the model")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing, {CHECKSUMS} lists it")
        if checksum(folder / name) != expected:
            raise CheckpointError(
                f"{folder / name} is not the file that was saved, its checksum differs; "
                f"if you changed it on purpose, delete {CHECKSUMS}"
            )


def checksum(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
