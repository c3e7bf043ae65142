"""What users of diffusers look for on every part of a model: its configuration, and outputs that are read in any way.

A name of diffusers that has no meaning here is in a table with the sentence that says why, and calling it gives that
sentence: `absent` raises it, `unneeded` only warns, since the script is right without it.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self, TypeVar

import torch

from vqlearn.arguments import shown
from vqlearn.remarks import remark

Folder = str | os.PathLike[str]
Kind = TypeVar("Kind", bound=type)

EVERYWHERE = {
    "push_to_hub": "save_pretrained(folder) writes files, and `hf upload owner/name folder` brings them to the hub",
    "register_for_auto_class": "there is one class for each part of a model, and no choice among classes",
    "extract_init_dict": "from_config(config, return_unused_kwargs=True) tells the settings from what is none",
}


def absent(sentences: Mapping[str, str]) -> Callable[[Kind], Kind]:
    """A class decorator: calling one of these names raises NotImplementedError with its sentence."""

    def answer(sentence: str) -> NoReturn:
        raise NotImplementedError(sentence)

    return _answering(sentences, answer)


def unneeded(sentences: Mapping[str, str]) -> Callable[[Kind], Kind]:
    """A class decorator: calling one of these names warns with its sentence and does nothing."""
    return _answering(sentences, lambda sentence: remark(sentence, stacklevel=3))


def _answering(sentences: Mapping[str, str], answer: Callable[[str], None]) -> Callable[[Kind], Kind]:
    def method(name: str, sentence: str) -> Callable[..., None]:
        def answers(*_: object, **__: object) -> None:
            answer(f"{name}: {sentence}")

        answers.__name__, answers.__doc__ = name, f"Not here: {sentence}."
        return answers

    def add(kind: Kind) -> Kind:
        for name, sentence in sentences.items():
            setattr(kind, name, method(name, sentence))
        return kind

    return add


class Output:
    """For a NamedTuple: its fields by name too, as in diffusers, `out["images"]`, `out.keys()`, `out.to_tuple()`."""

    _fields: Any

    def __getitem__(self, key: Any) -> Any:
        return self.to_tuple()[key] if not isinstance(key, str) else dict(self.items())[key]

    def __contains__(self, key: object) -> bool:
        return key in self._fields

    def keys(self) -> tuple[str, ...]:
        return tuple(self._fields)

    def values(self) -> tuple[Any, ...]:
        return self.to_tuple()

    def items(self) -> Iterator[tuple[str, Any]]:
        return zip(self.keys(), self.values(), strict=True)

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key) if key in self else default

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._fields)


class Config(dict[str, Any]):
    """Settings by key and by attribute, which do not change; two are equal whatever was left at its default."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"the configuration has no {name!r}, it has {', '.join(self)}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and _stated(self) == _stated(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a configuration does not change what was made from it: use from_config(config, name=value)")

    __setitem__ = __delitem__ = __setattr__ = __ior__ = _refuse
    update = pop = popitem = setdefault = clear = _refuse


DEFAULTED = "_use_default_values"  # diffusers' key for the names of settings that were left at their defaults


def _stated(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != DEFAULTED}


@absent(EVERYWHERE)
class Configured:
    """What has a `config`, a mapping: it is written, read, and made again from it under diffusers' names."""

    config_name: ClassVar[str] = "config.json"
    ignore_for_config: ClassVar[list[str]] = []
    has_compatibles: ClassVar[bool] = False
    _deprecated_kwargs: ClassVar[list[str]] = []
    config: Any

    @classmethod
    def from_config(cls, config: Mapping[str, Any], return_unused_kwargs: bool = False, **changes: Any) -> Any:
        """One made from a configuration with some changes; with `return_unused_kwargs` also what is no setting of it.

        Keys that begin with "_" are ignored, other unknown ones with a warning. Raises ValueError for wrong values.
        """
        if not isinstance(config, Mapping):
            kind = type(config).__name__
            raise ValueError(f"config must be a mapping of settings, got {kind}; from_pretrained reads a folder")
        settings = {name: value for name, value in {**config, **changes}.items() if not name.startswith("_")}
        unused = {name: settings.pop(name) for name in [*settings] if name not in cls._settings()}
        if return_unused_kwargs:
            return cls._from_settings(settings), unused
        if unused:
            cls._unknown(f"{cls.__name__} has no setting {', '.join(unused)}")
        return cls._from_settings(settings)

    @classmethod
    def _unknown(cls, sentence: str) -> None:
        remark(f"{sentence}, it is ignored", stacklevel=3)

    @classmethod
    def _settings(cls) -> Iterable[str]:
        """The names of all settings."""
        raise NotImplementedError

    @classmethod
    def _from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(**settings)

    @classmethod
    def load_config(
        cls, name: Folder, return_unused_kwargs: bool = False, *, subfolder: str | None = None, **options: Any
    ) -> Any:
        """The content of the configuration file in a folder, or in a model's `subfolder`; a dict for `from_config`.

        `options` that concern the hub (`revision`, `cache_dir`, `local_files_only`, `token`) are heeded; with
        `return_unused_kwargs` the others are given back beside it. Raises CheckpointError (an OSError).
        """
        from vqlearn.checkpoints.parts import HUB, read_config

        hub = {option: options.pop(option) for option in HUB if option in options}
        config = read_config(name, cls.config_name, subfolder, **hub)
        return (config, options) if return_unused_kwargs else config

    get_config_dict = load_config

    def save_config(self, folder: Folder, **options: Any) -> None:
        """Write the configuration alone, to the file `config_name` of a folder."""
        from vqlearn.checkpoints.parts import made_folder

        check_saving(**options)
        self.to_json_file(made_folder(folder) / self.config_name)

    def to_json_string(self) -> str:
        """The configuration as JSON, a line per entry."""
        return json.dumps(_stated(self.config), indent=2) + "\n"

    def to_json_file(self, path: Folder) -> None:
        """Write `to_json_string()` to a file."""
        from vqlearn.checkpoints.parts import save_text

        save_text(Path(path), self.to_json_string())

    def __getattr__(self, name: str) -> Any:
        return self._setting(name)

    def _setting(self, name: str) -> Any:
        """A setting read as an attribute, for a `__getattr__`; the warning shows who has read it."""
        config = vars(self).get("config", ())
        if name in config and not name.startswith("__"):
            kind = type(self).__name__
            warnings.warn(f"read {kind}.config.{name} in place of {kind}.{name}", FutureWarning, stacklevel=3)
            return config[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def usable(device: Any) -> torch.device | None:
    """A device that this torch can use, None for None; raises ValueError."""
    if device is None:
        return None
    try:
        found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError, ImportError) as error:
        raise ValueError(f"device must be one that torch can use, got {shown(device)} ({_first_line(error)})") from None
    if found.type == "meta":
        raise ValueError("device must be one that holds values, got 'meta'")
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_saving(*, safe_serialization: bool | None = True, push_to_hub: bool = False, **options: Any) -> None:
    """The options of diffusers' `save_pretrained`: those that ask for something else than is done raise ValueError."""
    if safe_serialization is False:
        raise ValueError("safe_serialization=False: weights are written as safetensors, which every reader understands")
    if push_to_hub:
        raise ValueError(f"push_to_hub: {EVERYWHERE['push_to_hub']}")
    if options.pop("variant", None) is not None:
        raise ValueError("variant: a model in another dtype is saved to a folder of its own, pipe.to(dtype) first")
    for name in ("max_shard_size", "is_main_process", "save_function"):  # one file, by this process
        options.pop(name, None)
    if options:
        raise TypeError(f"save_pretrained has no argument {', '.join(options)}")
