"""Where a model is: the shipped one, a folder, or a repository of the hub, of which the needed files are fetched."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from vqlearn import assets
from vqlearn.arguments import shown
from vqlearn.checkpoints.layout import ANY, CHECKSUMS, INDEX, PARTS, Files, Part, is_named
from vqlearn.checkpoints.reading import CheckpointError, one_line, read_json
from vqlearn.checkpoints.weights import weight_files
from vqlearn.data.files import latest

MODELS = assets.FOLDER / "models"  # those that the package carries, by name
SHIPPED = MODELS / "scenes"
ANSWER_WITHIN = 5  # seconds


def locate(
    repo_or_dir: str | Path | None,
    *,
    subfolder: str = "",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    files: Files = ANY,
    part: Part | None = None,
) -> Path:
    """The folder of a model: None or "scenes" is the shipped one, an existing folder itself, anything else on the hub.

    `subfolder` is a folder in it. Of the hub no more is fetched than a pipeline reads, or with `part` than a part that
    is there by itself. The keywords from `revision` to `token` are those of `huggingface_hub.snapshot_download`. A
    whole copy in the cache is used without asking the hub. Raises CheckpointError when there is no such folder and the
    hub does not have it or cannot be reached.
    """
    place = PurePosixPath(subfolder).as_posix()
    if repo_or_dir is None:
        return SHIPPED / place
    folder = Path(repo_or_dir)
    name = str(repo_or_dir)
    try:
        here, there = name != "" and folder.is_dir(), name != "" and folder.exists()
    except (OSError, ValueError):  # of a path that is too long, or no path
        here, there = False, False
    if here:
        return latest(latest(folder) / place)
    if there:
        raise CheckpointError(f"{shown(name)} is a file; a model is a folder with {INDEX}")
    if name in (path.name for path in MODELS.iterdir()):
        return MODELS / name / place
    if not _is_of_the_hub(name):
        raise CheckpointError(
            f"there is no model folder {shown(name)}; give a folder with {INDEX}, or a hub name like 'owner/name'"
        )
    options = {"revision": revision, "cache_dir": cache_dir, "token": token}
    return _from_hub(name, "" if place == "." else f"{place}/", options, local_files_only, files, part)


def _is_of_the_hub(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def _from_hub(
    name: str, place: str, options: dict[str, Any], local_only: bool, files: Files, part: Part | None
) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache

    first = place + (INDEX if part is None else part.configs[0])
    found = try_to_load_from_cache(name, first, cache_dir=options["cache_dir"], revision=options["revision"])
    missing = lacking(Path(found).parent, files, part) if isinstance(found, str) else f"all of {place or 'it'}"
    if isinstance(found, str) and not missing:
        return Path(found).parent
    if local_only or constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"{name!r} is not whole on this machine ({missing} is missing); {_fetch(name, options)}")
    try:
        info = HfApi().model_info(name, revision=options["revision"], timeout=_answer_within(), token=options["token"])
        there = [file.rfilename for file in info.siblings or []]
        whole = Path(snapshot_download(name, allow_patterns=_wanted(there, place, files, part), **options))
    except Exception as error:  # those of the hub's library and of the one that it speaks HTTP with
        raise CheckpointError(
            f"{name!r} is no folder here ({missing} is missing on this machine), and the hub did not give it "
            f"({type(error).__name__}: {one_line(error)}); with a network, {_fetch(name, options)}"
        ) from None
    if first not in there:
        raise CheckpointError(f"{name!r} holds no {first}{elsewhere(first.removeprefix(place), there, place)}")
    return whole / place


def _wanted(there: list[str], place: str, files: Files, part: Part | None) -> list[str]:
    """What is fetched of the files of a repository for the model or part in one of its folders."""
    inside = [file.removeprefix(place) for file in there if file.startswith(place)]
    wanted = [place + file for file in needed(inside, files, part)]
    sums = (PurePosixPath(place).parent / CHECKSUMS).as_posix()  # of the model that a part belongs to
    return [*wanted, sums] if part is not None and sums in there else wanted


def elsewhere(file: str, names: Collection[str], place: str = "") -> str:
    """In which parts of the model in a folder a file is, of whose files these are the names, as a message's end."""
    inside = [part for part in PARTS if f"{place}{part}/{file}" in names]
    return f"; it is in its {' or '.join(inside)}: subfolder={place + inside[0]!r}" if inside else ""


def _answer_within() -> float:
    """Seconds that the hub may take for its list of files: what the environment gives its library, or few."""
    from huggingface_hub import constants

    given = [name for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT") if os.environ.get(name)]
    return max((getattr(constants, name) for name in given), default=ANSWER_WITHIN)


def _fetch(name: str, options: dict[str, Any]) -> str:
    extra = "".join(f" --{key.replace('_', '-')} {options[key]}" for key in ("revision", "cache_dir") if options[key])
    return f"fetch it with: hf download {name}{extra}"


def needed(names: Collection[str], files: Files = ANY, part: Part | None = None) -> list[str]:
    """Of the files of a folder those that a pipeline reads, or that part: of weights there is one form among them."""
    if part is not None:
        return _of_part(names, "", part, files)
    index = [name for name in (INDEX, CHECKSUMS) if name in names]
    return [*index, *(file for name, one in PARTS.items() for file in _of_part(names, f"{name}/", one, files))]


def _of_part(names: Collection[str], place: str, part: Part, files: Files) -> list[str]:
    configs = [file for file in (place + config for config in part.configs) if file in names]
    for form in itertools.product(files.infixes, files.endings):
        chosen = [file for file in names if any(_is_weight(file, place + stem, *form) for stem in part.stems)]
        if chosen:
            return configs + chosen
    return configs


def _is_weight(file: str, stem: str, infix: str, ending: str) -> bool:
    """Whether a file is the weights in one form, one of their shards `stem-00001-of-00002`, or the index of these."""
    shard = r"(-\d+-of-\d+)?"
    single = rf"{re.escape(stem + infix)}{shard}\.{ending}|{re.escape(stem)}{shard}{re.escape(infix)}\.{ending}"
    return re.fullmatch(rf"{single}|{re.escape(f'{stem}.{ending}.index{infix}.json')}", file) is not None


def lacking(folder: Path, files: Files = ANY, part: Part | None = None) -> str:
    """The first thing that is missing in the folder of a model or of a part, "" if it is whole."""
    if part is not None:
        return _lacks(folder, part, files)
    try:
        index = read_json(folder / INDEX)
    except CheckpointError:
        return INDEX
    if files.variant and not any(folder.glob(f"*/*.{files.variant}.*")):
        return f"the variant {files.variant!r}"
    for name, one in PARTS.items():
        if is_named(index, name) and (missing := _lacks(folder / name, one, files)):
            return f"{name}/{missing}"
    return ""


def _lacks(folder: Path, part: Part, files: Files) -> str:
    needed = [folder / config for config in part.configs[: part.needed]]
    try:
        needed += stem_files(folder, part.stems, files) if part.stems else []
    except CheckpointError:
        return next((file.name for file in needed if not file.is_file()), "weights")
    return next((file.name for file in needed if not file.is_file()), "")


def stem_files(folder: Path, stems: Sequence[str], files: Files = ANY) -> list[Path]:
    """The files with the tensors of a part, under one of some names; raises CheckpointError as `weight_files` does."""
    *others, last = stems
    for stem in others:
        with contextlib.suppress(CheckpointError):
            return weight_files(folder, stem, files)
    return weight_files(folder, last, files)
