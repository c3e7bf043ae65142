"""Sections of the original code's YAML files, whose every error names the file and the place in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from vqlearn.arguments import shown, whole
from vqlearn.checkpoints.reading import CheckpointError, one_line, read_text

MOST = 2**16  # bytes; the published files have 2^12
MOST_OPEN = 500  # brackets; PyYAML takes a time that grows as their square


class Section:
    """A mapping of a YAML file that knows its place, so that what is missing can be named."""

    def __init__(self, values: dict[str, Any], place: str):
        self.values, self.place = values, place

    @classmethod
    def read(cls, path: Path) -> Section:
        """A YAML file: plain values and `!!python/tuple`, which is read as a list; any other tag is refused."""
        text = read_text(path, MOST, hint="; the original code has a YAML file for each checkpoint")
        if text.count("[") + text.count("{") > MOST_OPEN:
            raise CheckpointError(f"{path} opens more than {MOST_OPEN} brackets, no such file needs as many")
        try:
            values = yaml.load(text, Loader=_Plain)
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path} is not plain YAML: {one_line(error)}") from None
        return cls(_mapping(values, str(path)), str(path))

    def at(self, *names: str) -> Section:
        """The section below some names; CheckpointError when it is not there."""
        section = self
        for name in names:
            place = (
                f"{section.place}: {name}" if section.place.endswith((".yaml", ".yml")) else f"{section.place}.{name}"
            )
            section = Section(_mapping(section.values.get(name), place), place)
        return section

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 0."""
        try:
            return whole(f"{self.place}.{name}", self.values.get(name, default), 0)
        except ValueError as error:
            raise CheckpointError(str(error)) from None

    def sides(self, name: str) -> tuple[int, int]:
        """A pair of whole numbers."""
        value = self.values.get(name)
        if not (isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)):
            raise CheckpointError(f"{self.place}.{name} must be two whole numbers, got {shown(value)}")
        return value[0], value[1]

    def word(self, name: str) -> str:
        """A text, "" if there is none."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """YAML of plain values: no objects, no merged mappings, no aliases of nested values, which double at each level."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    yaml_constructors: ClassVar[dict[str, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        repeated = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        if repeated and not all(isinstance(one, yaml.ScalarNode) for one in inside):
            raise yaml.composer.ComposerError(None, None, "an alias of nested values", node.start_mark)
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Nothing is merged: "<<" is a key like others."""


# What a value without a tag is, in the order in which they are tried; else it is a text
PLAIN: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "null": (re.compile(r"(~|null|Null|NULL|)$"), lambda text: None),
    "bool": (re.compile(r"(true|True|TRUE|false|False|FALSE)$"), lambda text: text.lower() == "true"),
    "int": (re.compile(r"[-+]?[0-9]{1,18}$"), int),
    "float": (re.compile(r"[-+]?([0-9]{1,18}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][-+]?[0-9]{1,4})?$"), float),
}


def _scalar(kind: str) -> Any:
    pattern, make = PLAIN[kind]

    def construct(loader: _Plain, node: Any) -> Any:
        text = loader.construct_scalar(node)
        if not pattern.match(text):
            raise yaml.constructor.ConstructorError(None, None, f"{text!r:.60} is no {kind}", node.start_mark)
        return make(text)

    return construct


def _list(loader: _Plain, node: Any) -> list[Any]:
    found: list[Any] = loader.construct_sequence(node, deep=True)
    return found


for _kind, (_pattern, _) in PLAIN.items():
    _Plain.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, None)
    _Plain.add_constructor(f"tag:yaml.org,2002:{_kind}", _scalar(_kind))
_Plain.add_constructor("tag:yaml.org,2002:str", lambda loader, node: loader.construct_scalar(node))
_Plain.add_constructor("tag:yaml.org,2002:seq", _list)
_Plain.add_constructor("tag:yaml.org,2002:python/tuple", _list)
_Plain.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True))
_Plain.add_constructor(None, yaml.SafeLoader.construct_undefined)


def _mapping(values: Any, place: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise CheckpointError(f"{place} must be a section of an original configuration, got {shown(values)}")
    return values
