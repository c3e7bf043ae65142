"""Defaults are promises: those of every function, and which data classes are frozen, are kept in a file.

So none changes unnoticed.

`python tests/test_defaults.py` writes the file anew; a change belongs into the changelog.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import vqlearn

KEPT = Path(__file__).parent / "data" / "defaults.txt"
PERIPHERY = ("vqlearn.cli", "vqlearn.course", "vqlearn.assets", "vqlearn.__main__")


def functions() -> Iterator[tuple[str, object]]:
    """Functions and methods of the package by name, private ones too, each where it is written; None: frozen."""
    for found in pkgutil.walk_packages(vqlearn.__path__, "vqlearn."):
        if found.name.startswith(PERIPHERY):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != found.name:
                continue
            if inspect.isfunction(value):
                yield f"{found.name}.{name}", value
            elif inspect.isclass(value):
                if getattr(vars(value).get("__dataclass_params__"), "frozen", False):
                    yield f"{found.name}.{name}", None
                for method, one in vars(value).items():
                    plain = getattr(one, "__func__", one)
                    if inspect.isfunction(plain) and plain.__module__ == found.name:
                        yield f"{found.name}.{name}.{method}", plain


def lines() -> list[str]:
    """A line for each function that has defaults, and for each data class that is frozen."""
    found = []
    for name, function in functions():
        if function is None:
            found.append(f"{name} is frozen")
            continue
        given = inspect.signature(function).parameters.values()
        defaults = [f"{one.name}={_spell(one.default)}" for one in given if one.default is not one.empty]
        if defaults:
            found.append(f"{name}: {', '.join(defaults)}")
    return sorted(found)


def _spell(value: object) -> str:
    return getattr(value, "__qualname__", None) or (
        repr(value) if " at 0x" not in repr(value) else type(value).__name__
    )


def test_no_default_has_changed():
    known, found = KEPT.read_text(encoding="utf-8").splitlines(), lines()
    changed = sorted({*known} ^ {*found})
    assert not changed, (
        f"{changed}; if it is meant, tell it in the changelog and run python tests/{Path(__file__).name}"
    )


if __name__ == "__main__":
    KEPT.write_text("\n".join(lines()) + "\n", encoding="utf-8")
    sys.exit(0)
