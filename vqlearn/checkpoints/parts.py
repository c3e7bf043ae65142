"""One part of a model by itself, from a folder or from a model of the hub; and the options of `from_pretrained`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from vqlearn.arguments import shown
from vqlearn.checkpoints.checksums import check_texts, check_weights, read_sums, renew_sums
from vqlearn.checkpoints.hub import elsewhere, locate, needed, stem_files
from vqlearn.checkpoints.layout import OURS, PARTS, Files, Part
from vqlearn.checkpoints.loading import load_module, numbers_of, scheduler_of
from vqlearn.checkpoints.reading import CheckpointError, one_line, read_json
from vqlearn.checkpoints.saving import a_full_disk_is_named, save_module
from vqlearn.compatibility import usable
from vqlearn.data.files import replaced, replaced_folder
from vqlearn.networks import cost

__all__ = [
    "HUB", "Options", "check_path", "check_placement", "load_part", "made_folder", "read_config", "save_part",
    "save_text",
]  # fmt: skip

Module = TypeVar("Module", bound=nn.Module)

HUB = ("revision", "cache_dir", "local_files_only", "token")
INDIFFERENT = frozenset(  # of diffusers: what they ask for is done, or changes nothing of what is loaded
    {
        "low_cpu_mem_usage", "offload_folder", "offload_state_dict", "max_memory", "disable_mmap", "mirror",
        "custom_revision", "trust_remote_code", "load_connected_pipeline",
    }
)  # fmt: skip
ELSEWHERE = {  # of diffusers: why only None and False are taken
    "custom_pipeline": "no code is fetched: the pipeline is this one",
    "force_download": "a file is fetched once; `hf download --force-download owner/name` fetches it again",
    "ignore_mismatched_sizes": "a tensor of another shape than the configuration says is an error",
    "output_loading_info": "a tensor too many or too few is an error",
    "proxies": "the variables HTTP_PROXY and HTTPS_PROXY name one",
    "provider": "there is no ONNX form of this model",
    "quantization_config": "weights are kept in floating point, see torch_dtype",
    "sess_options": "there is no ONNX form of this model",
    "use_flashpack": "weights are mapped from safetensors",
    "use_onnx": "there is no ONNX form of this model",
}


class Options(NamedTuple):
    """What the keywords of `from_pretrained` ask for."""

    dtype: torch.dtype | Callable[[int], torch.dtype]
    device: torch.device | None
    files: Files
    hub: dict[str, Any]

    @classmethod
    def of(
        cls,
        *,
        torch_dtype: torch.dtype | str | None = None,
        dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
        device_map: Any = None,
        variant: str | None = None,
        use_safetensors: bool | None = None,
        **others: Any,
    ) -> Options:
        """From the keywords; raises ValueError for values, TypeError for names that are not known."""
        hub = {name: others.pop(name) for name in HUB if name in others}
        for name, value in others.items():
            if name in ELSEWHERE and value not in (None, False):
                raise ValueError(f"{name}={shown(value)} has no meaning here: {ELSEWHERE[name]}")
            if name not in ELSEWHERE and name not in INDIFFERENT:
                raise TypeError(f"from_pretrained has no argument {name!r}")
        if variant is not None and not (isinstance(variant, str) and variant.isidentifier()):
            raise ValueError(f"variant must be a word such as 'fp16', got {shown(variant)}")
        if not (use_safetensors is None or isinstance(use_safetensors, bool)):
            raise ValueError(f"use_safetensors must be True, False or None, got {shown(use_safetensors)}")
        place = usable(_one_device(device_map) if device is None else device)
        return cls(cost.dtype_of(dtype if torch_dtype is None else torch_dtype, place), place,
                   Files(variant, use_safetensors), hub)  # fmt: skip


def check_path(name: str, path: Any) -> str:
    """A path as a string; raises ValueError for what is none, CheckpointError for a name that no file can have."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or path == "":
        raise ValueError(f"{name} must be a path, got {shown(path)}")
    found = os.fspath(path)
    if "\0" in found or any(len(part.encode(errors="replace")) > 255 for part in Path(found).parts):
        raise CheckpointError(f"{name} is no path that a file can have, got {shown(path)}")
    return found


def _one_device(device_map: Any) -> Any:
    """The device of a `device_map` that names one, or asks for the best one."""
    if isinstance(device_map, dict) and len({*map(str, device_map.values())}) == 1:
        return next(iter(device_map.values()))
    if device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(device_map, dict):
        raise ValueError("device_map must name one device: the parts of this model are used together")
    return device_map


def check_placement(*args: Any, **kwargs: Any) -> None:
    """Raise ValueError for arguments of `torch.nn.Module.to` that name no device to use, or no floating-point dtype."""
    known = str | int | torch.device | torch.dtype | torch.Tensor | torch.memory_format | None
    try:
        if any(not isinstance(one, known) for one in (*args, *kwargs.values())):
            raise TypeError("of another type")
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError) as error:
        given = ", ".join([*map(shown, args), *(f"{name}={shown(value)}" for name, value in kwargs.items())])
        raise ValueError(f"to({given}) names no device and no dtype ({one_line(error)})") from None
    usable(device)
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"the weights must have a floating-point dtype, got {dtype}")


def load_part(kind: type[Module], name: str | os.PathLike[str], subfolder: str | None, **options: Any) -> Module:
    """One of our networks from its folder, see `Model.from_pretrained`; raises CheckpointError."""
    wanted = Options.of(**options)
    folder = part_folder(name, Part("", "", stems=OURS), subfolder, files=wanted.files, **wanted.hub)
    folder = Path(os.path.abspath(folder))
    whole = folder.parent  # where it is a model's
    check_texts(whole, sums := read_sums(whole, folder.name) if folder.name in PARTS else {})
    module: Any = load_module(kind, folder, wanted.dtype, wanted.files)
    check_weights(stem_files(folder, OURS, wanted.files), numbers_of(module), whole, sums)
    loaded: Module = module if wanted.device is None else module.to(wanted.device)
    return loaded


def save_part(module: Any, folder: str | os.PathLike[str]) -> None:
    """Write one of our networks whole or not at all, with its checksums in the model that the folder is a part of.

    Raises CheckpointError where there is a file.
    """
    path, part = _folder(folder), Part("", "", stems=OURS)
    names = [file.name for file in path.iterdir()] if path.is_dir() else []
    earlier = {*needed(names, part=part), *needed(names, Files(safetensors=False), part)}
    with replaced_folder(path, earlier) as new, a_full_disk_is_named(path):
        save_module(module, new)
        written = [file.name for file in new.iterdir()]
    renew_sums(path, written)


def save_text(path: Path, text: str) -> None:
    """Write a configuration, in place of an older one, with its checksum in the model that it is a part of."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    renew_sums(path.parent, [path.name])


def made_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder that is there now; raises CheckpointError where something else is."""
    path = _folder(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _folder(folder: str | os.PathLike[str]) -> Path:
    path = Path(check_path("folder", folder))
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file; a model is saved to a folder")
    return path


def read_config(name: str | os.PathLike[str], file: str, subfolder: str | None = None, **hub: Any) -> dict[str, Any]:
    """The configuration in the folder of one part; raises CheckpointError, for what describes no schedule too."""
    path = part_folder(name, Part("", "", (file,)), subfolder, **hub) / file
    config = read_json(path)
    if file in PARTS["scheduler"].configs:
        scheduler_of(config, path)
    return config


def part_folder(name: str | os.PathLike[str], part: Part, subfolder: str | None = None, **hub: Any) -> Path:
    """The folder of one part, where its configuration is; raises CheckpointError that says where it may be instead."""
    inside = check_path("subfolder", "." if subfolder in (None, "") else subfolder)
    folder, file = locate(check_path("name", name), subfolder=inside, part=part, **hub), part.configs[0]
    if not (folder / file).is_file():
        names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
        raise CheckpointError(f"{folder} holds no {file}{elsewhere(file, names)}")
    return folder
