"""Sections of a page that a program writes: what stands between `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def read(page: Path, name: str) -> str:
    """What a section holds; raises ValueError where the page has no such section, or several."""
    found = _section(name).findall(page.read_text(encoding="utf-8"))
    if len(found) != 1:
        raise ValueError(f"{page} has {len(found)} sections {name!r}, it should have one")
    return found[0].strip("\n")


def write(page: Path, name: str, text: str) -> None:
    """Replace what a section holds; raises ValueError where there is none."""
    read(page, name)
    section = f"<!-- {name} -->\n\n{text.strip()}\n\n<!-- end of {name} -->"
    whole = _section(name).sub(lambda _: section, page.read_text(encoding="utf-8"))
    page.write_text(whole, encoding="utf-8", newline="\n")


def _section(name: str) -> re.Pattern:
    return re.compile(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", re.S)
