"""A pipeline's parts to a folder in the diffusers layout: whole or not at all, with a checksum of every file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vqlearn.checkpoints.checksums import checksum, write_json
from vqlearn.checkpoints.hub import needed
from vqlearn.checkpoints.layout import CHECKSUMS, ENDINGS, INDEX, LAYOUTS, OURS, PARTS, Files, index_of
from vqlearn.checkpoints.reading import CheckpointError, one_line, read_json
from vqlearn.data.files import is_left_over, latest, replaced_folder


def save_components(parts: dict[str, Any], folder: str | Path, extra: dict[str, Any], kind: str) -> None:
    """Write the model folder of a pipeline of `kind`, whole or not at all; `extra` joins the index.

    The files of an older model there are replaced, all others (a card, say) are kept, in the folders of the parts too.
    Raises CheckpointError, and changes nothing, where there is something that is no model folder.
    """
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a model is saved to a folder")
    others = [path for path in folder.iterdir() if not is_left_over(path)] if folder.is_dir() else []
    if others and latest(folder) == folder and not (folder / INDEX).is_file():
        raise CheckpointError(
            f"{folder} holds something else than a model ({INDEX} is not there); choose a new folder or an empty one"
        )
    with replaced_folder(folder, _of_a_model(folder)) as new, a_full_disk_is_named(folder):
        _write(parts, new, extra, kind)


def _of_a_model(folder: Path) -> set[str]:
    """The files of a folder that a pipeline reads, in any form, and those that were saved with it."""
    names = [path.relative_to(folder).as_posix() for part in PARTS for path in (folder / part).glob("*")]
    saved: dict[str, Any] = {}
    with contextlib.suppress(CheckpointError):
        saved = read_json(folder / CHECKSUMS)
    return {*saved, *needed(names), *needed(names, Files(safetensors=False))}


def _write(parts: dict[str, Any], folder: Path, extra: dict[str, Any], kind: str) -> None:
    for name, part in LAYOUTS[kind].items():
        if part.stems == OURS and parts[name] is not None:
            save_module(parts[name], folder / name)
    if "scheduler" in parts:
        parts["scheduler"].save_pretrained(folder / "scheduler")
    if parts["text_encoder"] is not None:
        with _Quiet():
            parts["text_encoder"].save_pretrained(folder / "text_encoder")
        save_tokenizer(parts["tokenizer"], folder / "tokenizer")
    write_json(folder / INDEX, index_of(parts, extra, kind))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(folder / CHECKSUMS, {path.relative_to(folder).as_posix(): checksum(path) for path in files})


def save_module(module: Any, folder: Path) -> None:
    """Write one of our modules as `config.json` and safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", dict(module.config))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    if not tensors:
        tensors = {"embeddings": torch.empty(0)}  # as diffusers writes learnable=False
    save_file(tensors, folder / f"{OURS[0]}.{ENDINGS[0]}", metadata={"format": "pt"})


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write `vocab.json` and `merges.txt` (the hub's 2022 form) beside what transformers writes."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


@contextlib.contextmanager
def a_full_disk_is_named(folder: Path) -> Iterator[None]:
    """What safetensors raises where a file cannot be written is an OSError, too."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{folder} cannot be written ({one_line(error)})") from None


class _Quiet:
    """Keeps transformers' own progress bar out of the way of ours."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.logging, self.shown = logging, logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.logging.enable_progress_bar()
