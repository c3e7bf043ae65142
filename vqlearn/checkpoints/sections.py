"""Sections of the original code's YAML files, whose every error names the file and the place in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vqlearn.checkpoints.weights import CheckpointError, one_line


class Section:
    """A mapping of a YAML file that knows its place, so that what is missing can be named."""

    def __init__(self, values: dict[str, Any], place: str):
        self.values, self.place = values, place

    @classmethod
    def read(cls, path: Path) -> Section:
        """A YAML file: plain values and `!!python/tuple`, which is read as a list; any other tag is refused."""
        try:
            values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing; the original code has a YAML file for each checkpoint") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} cannot be read ({one_line(error)})") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
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
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise CheckpointError(f"{self.place}.{name} must be a whole number, got {value!r:.60}")
        return value

    def sides(self, name: str) -> tuple[int, int]:
        """A pair of whole numbers."""
        value = self.values.get(name)
        if not (isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)):
            raise CheckpointError(f"{self.place}.{name} must be two whole numbers, got {value!r:.60}")
        return value[0], value[1]

    def word(self, name: str) -> str:
        """A text, "" if there is none."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """YAML without objects."""


_Plain.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, deep=True)
)


def _mapping(values: Any, place: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise CheckpointError(f"{place} must be a section of an original configuration, got {values!r:.60}")
    return values
