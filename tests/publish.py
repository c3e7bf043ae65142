"""Writes the address of a public copy wherever it belongs: `python -m tests.publish https://github.com/NAME/vqlearn`.

That is pyproject.toml (`[project.urls]`), the badges in the README, and the first code cell of each notebook, which on
a machine without vqlearn, such as Colab's, then installs it from there. Without an address nothing of this is written:
a badge that leads nowhere is worse than none, and a made-up address is somebody else's.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)")
BADGES = re.compile(r"<!-- badges -->\n.*?<!-- end of badges -->\n", re.S)
URLS = re.compile(r"\n\[project\.urls\]\nSource = .*\n")
GUARD = re.compile(r"import importlib\.util\n\nif .*\n    get_ipython\(\)\..*\n\n")
BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"  # both read notebooks from GitHub


def stated() -> str:
    """The address in pyproject.toml; empty if there is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Source", "")


def badges(address: str) -> str:
    """The lines of the README that open the course in a browser."""
    lines = ["<!-- badges -->"]
    if address:
        name = ADDRESS.fullmatch(address)[1]
        lines += [
            f"[![Binder]({BINDER}/badge_logo.svg)]({BINDER}/v2/gh/{name}/HEAD?labpath=notebooks)",
            f"[![Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{name})",
            "",
        ]
    return "\n".join([*lines, "<!-- end of badges -->"]) + "\n"


def guarded(source: str, address: str) -> str:
    """A notebook's first code cell with the lines that install the package where it is not, or without them."""
    source = GUARD.sub("", source)
    if not address:
        return source
    guard = (
        'import importlib.util\n\nif importlib.util.find_spec("vqlearn") is None:  # on Colab, say\n'
        f'    get_ipython().run_line_magic("pip", "install -q git+{address}")\n\n'
    )
    return re.sub(r"\A((?:#.*\n)*)", lambda head: head[1] + guard, source)


def publish(address: str) -> None:
    """Write an address everywhere, or with "" take it out."""
    if address and not ADDRESS.fullmatch(address):
        raise SystemExit(f"the address must read https://github.com/NAME/REPOSITORY, got {address!r}")
    project, readme = ROOT / "pyproject.toml", ROOT / "README.md"
    text = URLS.sub("", project.read_text(encoding="utf-8"))
    if address:
        text = text.replace("\n[project.scripts]", f'\n[project.urls]\nSource = "{address}"\n\n[project.scripts]')
    project.write_text(text, encoding="utf-8", newline="\n")
    text = BADGES.sub(lambda _: badges(address), readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8", newline="\n")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        cell = next(cell for cell in book.cells if cell.cell_type == "code")
        wanted = guarded(cell.source, address if needs_us(book) else "")
        if wanted != cell.source:
            cell.source = wanted
            nbformat.write(book, path)


def needs_us(book) -> bool:
    return any(re.search(r"^\s*(import|from) vqlearn\b", c.source, re.M) for c in book.cells if c.cell_type == "code")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    publish(sys.argv[1])
