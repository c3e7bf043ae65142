"""The settings of networks: frozen dataclasses, checked when they are made, that read like diffusers' `config`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

from vqlearn.arguments import real, shown, whole

LARGEST = 2**20  # of any size: more codes, words or channels have not been published
DEEPEST = 512  # layers; a network of so many is built in less than a second
Check = Callable[[str, Any], Any]  # of a setting's name and value: the value, or ValueError


@dataclasses.dataclass(frozen=True, eq=False)
class Configuration(Mapping[str, Any]):
    """Settings as attributes and as items, `config.num_layers` and `config["num_layers"]`; `config.json` holds them.

    Subclasses are frozen dataclasses whose fields are the keys that the peer's class (of diffusers or transformers)
    writes, and our own. Keys that change what the network computes must have a value that is implemented here.
    """

    ignored: ClassVar[frozenset[str]] = frozenset()  # keys of the peer's class that no network here reads

    @classmethod
    def of(cls, /, *sizes: Any, **named: Any) -> Self:
        """From the arguments of a network or the content of a `config.json`, whose keys with a "_" are no settings.

        Raises TypeError for an unknown name, ValueError for a value that is out of range or not implemented.
        """
        named = {name: value for name, value in named.items() if not name.startswith("_") and name not in cls.ignored}
        if unknown := sorted(named.keys() - {field.name for field in dataclasses.fields(cls)}):
            raise TypeError(f"there is no setting {', '.join(map(shown, unknown))}")
        return cls(*sizes, **named)

    @property
    def layers(self) -> int:
        """How many layers the network has, at least one tensor each."""
        raise NotImplementedError

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in dataclasses.fields(self))

    def __len__(self) -> int:
        return len(dataclasses.fields(self))

    def _check(self, check: Check, *names: str) -> None:
        for name in names:
            object.__setattr__(self, name, check(name, getattr(self, name)))


size: Check = functools.partial(whole, most=LARGEST)
epsilon: Check = functools.partial(real, least=0.0, most=0.1, above=True)
share: Check = functools.partial(real, least=0.0, most=1.0)


def flag(name: str, value: Any) -> bool:
    """True or False."""
    return bool(one_of(True, False)(name, value))


def optional(check: Check) -> Check:
    """None, or what another check lets through."""
    return lambda name, value: None if value is None else check(name, value)


def one_of(*known: Any) -> Check:
    """One of some values, of the same type."""

    def check(name: str, value: Any) -> Any:
        if any(type(value) is type(one) and value == one for one in known):
            return value
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, got {shown(value)}")

    return check
