"""Where a model is: the shipped one, a folder, or a repository of the hub, of which the needed files are fetched."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from pathlib import Path
from typing import Any

from vqlearn import assets
from vqlearn.arguments import shown
from vqlearn.checkpoints.layout import ANY, CHECKSUMS, INDEX, PARTS, Files, is_named
from vqlearn.checkpoints.reading import CheckpointError, one_line, read_json
from vqlearn.checkpoints.weights import weight_files
from vqlearn.data.files import latest

MODELS = assets.FOLDER / "models"  # those that the package carries, by name
SHIPPED = MODELS / "scenes"
ANSWER_WITHIN = 5  # seconds


def locate(
    repo_or_dir: str | Path | None,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    files: Files = ANY,
) -> Path:
    """The folder of a model: None or "scenes" is the shipped one, an existing folder itself, anything else on the hub.

    The keywords are those of `huggingface_hub.snapshot_download`. A whole copy in the cache is used without asking the
    hub. Raises CheckpointError when there is no such folder and the hub does not have it or cannot be reached.
    """
    if repo_or_dir is None:
        return SHIPPED
    folder = Path(repo_or_dir)
    name = str(repo_or_dir)
    try:
        here, there = folder.is_dir(), folder.exists()
    except (OSError, ValueError):  # of a path that is too long, or no path
        here, there = False, False
    if here:
        return latest(folder)
    if there:
        raise CheckpointError(f"{shown(name)} is a file; a model is a folder with {INDEX}")
    if name in (path.name for path in MODELS.iterdir()):
        return MODELS / name
    if not _is_of_the_hub(name):
        raise CheckpointError(
            f"there is no model folder {shown(name)}; give a folder with {INDEX}, or a hub name like 'owner/name'"
        )
    return _from_hub(name, {"revision": revision, "cache_dir": cache_dir, "token": token}, local_files_only, files)


def _is_of_the_hub(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def _from_hub(name: str, options: dict[str, Any], local_only: bool, files: Files) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache

    index = try_to_load_from_cache(name, INDEX, cache_dir=options["cache_dir"], revision=options["revision"])
    missing = lacking(Path(index).parent, files) if isinstance(index, str) else "all of it"
    if isinstance(index, str) and not missing:
        return Path(index).parent
    if local_only or constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"{name!r} is not whole on this machine ({missing} is missing); {_fetch(name, options)}")
    try:
        info = HfApi().model_info(name, revision=options["revision"], timeout=_answer_within(), token=options["token"])
        wanted = needed([file.rfilename for file in info.siblings or []], files)
        return Path(snapshot_download(name, allow_patterns=wanted, **options))
    except Exception as error:  # those of the hub's library and of the one that it speaks HTTP with
        raise CheckpointError(
            f"{name!r} is no folder here ({missing} is missing on this machine), and the hub did not give it "
            f"({type(error).__name__}: {one_line(error)}); with a network, {_fetch(name, options)}"
        ) from None


def _answer_within() -> float:
    """Seconds that the hub may take for its list of files: what the environment gives its library, or few."""
    from huggingface_hub import constants

    given = [name for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT") if os.environ.get(name)]
    return max((getattr(constants, name) for name in given), default=ANSWER_WITHIN)


def _fetch(name: str, options: dict[str, Any]) -> str:
    extra = "".join(f" --{key.replace('_', '-')} {options[key]}" for key in ("revision", "cache_dir") if options[key])
    return f"fetch it with: hf download {name}{extra}"


def needed(names: list[str], files: Files = ANY) -> list[str]:
    """Of the files of a repository those that a pipeline reads: configurations, and one form of each part's weights."""
    wanted = [name for name in (INDEX, CHECKSUMS) if name in names]
    for name, part in PARTS.items():
        wanted += [file for file in (f"{name}/{config}" for config in part.configs) if file in names]
        for form in itertools.product(files.infixes, files.endings):
            chosen = [file for file in names if any(_is_weight(file, f"{name}/{stem}", *form) for stem in part.stems)]
            if chosen:
                wanted += chosen
                break
    return wanted


def _is_weight(file: str, stem: str, infix: str, ending: str) -> bool:
    """Whether a file is the weights in one form, one of their shards `stem-00001-of-00002`, or the index of these."""
    shard = r"(-\d+-of-\d+)?"
    single = rf"{re.escape(stem + infix)}{shard}\.{ending}|{re.escape(stem)}{shard}{re.escape(infix)}\.{ending}"
    return re.fullmatch(rf"{single}|{re.escape(f'{stem}.{ending}.index{infix}.json')}", file) is not None


def lacking(folder: Path, files: Files = ANY) -> str:
    """The first thing that is missing in a folder, "" if it is whole."""
    try:
        index = read_json(folder / INDEX)
    except CheckpointError:
        return INDEX
    if files.variant and not any(folder.glob(f"*/*.{files.variant}.*")):
        return f"the variant {files.variant!r}"
    for name, part in PARTS.items():
        if not is_named(index, name):
            continue
        for config in part.configs[: part.needed]:
            if not (folder / name / config).is_file():
                return f"{name}/{config}"
        try:
            found = part_files(folder, name, files) if part.stems else []
        except CheckpointError:
            return f"the weights of {name}"
        if gone := [file for file in found if not file.is_file()]:
            return f"{name}/{gone[0].name}"
    return ""


def part_files(folder: Path, part: str, files: Files = ANY) -> list[Path]:
    """The files that hold one part's tensors; raises CheckpointError as `weight_files` does."""
    *others, last = PARTS[part].stems
    for stem in others:
        with contextlib.suppress(CheckpointError):
            return weight_files(folder / part, stem, files)
    return weight_files(folder / part, last, files)
