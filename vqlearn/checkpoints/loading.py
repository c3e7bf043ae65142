"""A pipeline's parts from a folder in the diffusers layout.

A folder holds `model_index.json` and one folder per part. Every way in which one can be incomplete, damaged or of
another kind is one CheckpointError that names the file and what would be right. What the published models of 2022
do differently from today's diffusers is accepted here, each in one named place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vqlearn.arguments import real, shown, whole
from vqlearn.checkpoints.checksums import check_texts, check_weights, read_sums
from vqlearn.checkpoints.fit import CLASSES, misfit, stranger
from vqlearn.checkpoints.hub import stem_files
from vqlearn.checkpoints.layout import ANY, INDEX, LAYOUTS, LEARNED, OURS, PARTS, TEXT_PARTS, Files, is_named
from vqlearn.checkpoints.reading import CheckpointError, described, one_line, read_json, read_tensors, read_text
from vqlearn.checkpoints.weights import assign, build, weight_files
from vqlearn.networks.clip import CLIPTextEncoder
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings
from vqlearn.networks.vqvae import VQModel
from vqlearn.scheduler import ENDS, MOST_STEPS, VQDiffusionScheduler

MOST_WORDS = 2**18  # of a vocabulary; CLIP has 49408
Dtype = torch.dtype | Callable[[int], torch.dtype]  # one, or what to make of a number of weights


# ------------------------------------------------------------------------------------------ in


def load_components(
    folder: Path,
    dtype: Dtype = torch.float32,
    *,
    files: Files = ANY,
    given: Mapping[str, Any] = MappingProxyType({}),
    kind: str = "VQDiffusionPipeline",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All parts of the folder of a pipeline of `kind` (None for those that the model does without), and its index.

    All weights get one dtype; a function is asked for it with the number of the transformer's. `given` parts are taken
    as they are, in place of the folder's.
    """
    check_texts(folder, sums := read_sums(folder))
    index = read_json(folder / INDEX)
    if (named := index.get("_class_name")) != kind:
        other = named if isinstance(named, str) and re.fullmatch(r"\w{1,60}", named) else shown(named)
        raise CheckpointError(f"{folder / INDEX} describes a {other}, not a {kind}")
    _check_defaults(index.get("_vqlearn", {}), folder / INDEX)
    if files.variant and not any(folder.glob(f"*/*.{files.variant}.*")):
        raise CheckpointError(f"{folder} has no weights of the variant {files.variant!r}")
    if wrong := stranger(given, kind):
        raise ValueError(wrong)
    with described(folder):
        parts = _load(folder, index, dtype, files, given)
    for name, part in parts.items():
        if part is not None and name not in given and PARTS[name].stems:
            check_weights(stem_files(folder / name, PARTS[name].stems, files), numbers_of(part), folder, sums)
    return parts, index


def numbers_of(module: nn.Module) -> int:
    """How many numbers the weights of a module are, with those that do not learn."""
    return sum(tensor.numel() for tensor in module.state_dict().values())


def _load(folder: Path, index: dict[str, Any], dtype: Dtype, files: Files, given: Mapping[str, Any]) -> dict[str, Any]:
    kind, network = index["_class_name"], given.get("transformer")
    if network is None:
        network = load_module(CLASSES[LAYOUTS[kind]["transformer"].kind], folder / "transformer", dtype, files)
    one: torch.dtype = dtype if isinstance(dtype, torch.dtype) else next(network.parameters()).dtype
    _check_index(index, folder / INDEX, {*given, *(() if network.reads == "text" else TEXT_PARTS)})
    load: dict[str, Callable[[], Any]] = {
        "vqvae": lambda: load_module(VQModel, folder / "vqvae", one, files),
        "text_encoder": lambda: load_text_encoder(folder / "text_encoder", one, files),
        "tokenizer": lambda: load_text_tokenizer(folder / "tokenizer"),
        "scheduler": lambda: load_scheduler(folder / "scheduler"),
        LEARNED: lambda: load_module(LearnedClassifierFreeSamplingEmbeddings, folder / LEARNED, one, files),
    }
    parts: dict[str, Any] = {**dict.fromkeys(LAYOUTS[kind]), "transformer": network, **given}
    for part in [name for name in load if name in parts and name not in given]:
        if is_named(index, part) and (network.reads == "text" or part not in TEXT_PARTS):
            parts[part] = load[part]()
    if wrong := misfit(parts, kind):
        raise CheckpointError(f"{folder}: {wrong}")
    return parts


def _check_defaults(defaults: Any, path: Path) -> None:
    """What a call takes where nothing else is said: the scale, the rate, the words that are known, names of classes."""
    if not isinstance(defaults, dict):
        raise CheckpointError(f"{path}: '_vqlearn' must be a JSON object, got {shown(defaults)}")
    try:
        real("guidance_scale", defaults.get("guidance_scale", 1.0))
        real("truncation_rate", defaults.get("truncation_rate", 1.0), 0, 1)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    for name in ("words", "labels"):
        listed = defaults.get(name) or []
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise CheckpointError(f"{path}: {name} must be a list of texts, got {shown(listed)}")


def _check_index(index: dict[str, Any], path: Path, other: set[str]) -> None:
    """Every part is of the class that this package has for it, whatever library is named: there are two such forms.

    A part may be named as none, except for transformer and scheduler; the null text may be unnamed, as in the published
    model's revision "fp16". What is said of `other` parts does not matter.
    """
    for part, (_, kind, *_) in LAYOUTS[index["_class_name"]].items():
        named = index.get(part)
        none = named == [None, None] and part not in ("transformer", "scheduler")
        if part in other or none or (part == LEARNED and part not in index):
            continue
        if not (isinstance(named, list) and len(named) == 2 and named[1] == kind):
            raise CheckpointError(f"{path} names {shown(named)} as its {part}, it should be a {kind}")


def load_module(kind: type[nn.Module], folder: Path, dtype: Dtype = torch.float32, files: Files = ANY) -> nn.Module:
    """One of our modules from its folder, in evaluation mode; raises CheckpointError."""
    path = folder / "config.json"
    config = read_json(path)
    if (named := config.get("_class_name", kind.__name__)) != kind.__name__:
        raise CheckpointError(f"{path} describes a {shown(named)}, not a {kind.__name__}")
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
    if isinstance(module, VQModel) and (wrong := module.quantize.wrong()):
        raise CheckpointError(f"{found[0]}: {wrong}")
    return module


def _modern(name: str) -> str:
    """A tensor's name in today's layout: until 2022 the codec's attention had other ones."""
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
    return name


def load_scheduler(folder: Path) -> VQDiffusionScheduler:
    """The scheduler from its folder; raises CheckpointError."""
    path = folder / "scheduler_config.json"
    return scheduler_of(read_json(path), path)


def scheduler_of(config: dict[str, Any], path: Path) -> VQDiffusionScheduler:
    """The scheduler of a file's content; the curves' ends must be stated, a default would be another schedule."""
    if missing := [name for name in ("num_vec_classes", "num_train_timesteps", *ENDS) if name not in config]:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    try:
        whole("num_train_timesteps", config["num_train_timesteps"], 1, MOST_STEPS)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
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
            raise CheckpointError(f"{folder}: {name} {shown(special[name])} is not in the vocabulary")
    try:
        length = whole("model_max_length", settings.get("model_max_length", 77), 2, 10_000)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    try:
        return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length, **special)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{where} is not a byte-pair vocabulary ({one_line(error)})") from None


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]], Path]:
    """Ids by token, and the merges, from `vocab.json` and `merges.txt` or today's `tokenizer.json`; and the file."""
    if (folder / "vocab.json").is_file() or not (folder / "tokenizer.json").is_file():
        where = folder / "vocab.json"
        vocab: Any = read_json(where)
        lines = read_text(folder / "merges.txt", hint="; without it every word would be lost").splitlines()
        merges: Any = [line for line in lines if line and not line.startswith("#version")]
    else:
        where = folder / "tokenizer.json"
        model = read_json(where).get("model")
        vocab, merges = (model.get("vocab"), model.get("merges")) if isinstance(model, dict) else (None, None)
    if not (
        isinstance(vocab, dict) and 0 < len(vocab) <= MOST_WORDS and all(type(value) is int for value in vocab.values())
    ):
        raise CheckpointError(f"{where} must map 1 to {MOST_WORDS} tokens to whole numbers")
    if set(vocab.values()) != set(range(len(vocab))):
        raise CheckpointError(f"{where} must give every token its own id, from 0 to their number less one")
    if not isinstance(merges, list):
        raise CheckpointError(f"{where} must list the merges")
    return vocab, [_pair(merge, vocab, folder) for merge in merges], where


def _pair(merge: Any, vocab: dict[str, int], folder: Path) -> tuple[str, str]:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)):
        raise CheckpointError(f"{folder}: {shown(merge)} is no merge of two tokens")
    if not {*pair, "".join(pair)} <= vocab.keys():
        raise CheckpointError(f"{folder}: the merge {' '.join(pair)!r:.60} gives no token of the vocabulary")
    return pair[0], pair[1]


def load_text_encoder(folder: Path, dtype: torch.dtype = torch.float32, files: Files = ANY) -> Any:
    """A CLIP text encoder from its folder; tensor names with and without "text_model." are accepted."""
    path = folder / "config.json"
    config = read_json(path)
    found = stem_files(folder, PARTS["text_encoder"].stems, files)
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
        raise CheckpointError(f"{where} describes a {shown(config['model_type'])}, not a clip_text_model")
    return assign(build(CLIPTextEncoder, config, where, most=len(tensors)), tensors, file, dtype=dtype)
