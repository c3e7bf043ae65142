"""The notebooks of the course: where they are, and copies of them in a folder of one's own."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vqlearn import assets
from vqlearn.course.exercises import exercises
from vqlearn.course.reduced import equations, reduced
from vqlearn.data.files import replaced

if TYPE_CHECKING:
    from nbformat import NotebookNode

PACKAGE = assets.FOLDER.parent
FOLDERS = PACKAGE / "course_notebooks", PACKAGE.parent / "notebooks"  # in a wheel, in a clone
LEADS_OUT = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)#\s]+)[^)]*\)")


def notebooks() -> list[Path]:
    """The notebooks of the course, in order, wherever this package is installed."""
    for folder in FOLDERS:
        if found := sorted(folder.glob("[0-9][0-9]*_*.ipynb")):
            return found
    raise OSError("this installation of vqlearn has no notebooks; install it again, from a wheel or as a whole clone")


def read(path: Path) -> NotebookNode:
    """A notebook of the course."""
    import nbformat

    book: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return book


def copy(folder: str | Path, *, exercises_only: bool = False, without_outputs: bool = False) -> list[tuple[str, str]]:
    """Copy the course into `folder`, all of it or nothing; a file that is there already is never changed.

    Returns each notebook's name with what became of it: "new", "unchanged", "kept" (the one that is there differs), or
    "none" (there is nothing to copy, since it has no exercises).
    """
    sources = notebooks()
    known = equations(read(path).cells for path in sources) if exercises_only else {}
    texts = {path.name: _prepared(path, known, exercises_only, without_outputs) for path in sources}
    return written(folder, texts)


def written(folder: str | Path, texts: dict[str, str]) -> list[tuple[str, str]]:
    """Write notebooks into `folder`, name -> text, all of them or nothing, and say what became of each, as `copy`."""
    folder = Path(folder)
    _check_target(folder, notebooks()[0].parent)
    states = {name: _state(folder / name, text) for name, text in texts.items()}
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        with contextlib.ExitStack() as parts:  # which take their places after all of them were written
            for name in reversed([name for name, state in states.items() if state == "new"]):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                part = parts.enter_context(replaced(folder / name))
                part.write_text(texts[name], encoding="utf-8", newline="\n")
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()
    return list(states.items())


@functools.cache
def handed_out(path: Path) -> frozenset[str]:
    """The code of the cells of a notebook of the course, as a whole and with its exercises only."""
    whole, alone = read(path).cells, reduced(read(path).cells, {})
    return frozenset(cell.source for cell in [*whole, *alone] if cell.cell_type == "code")


def _check_target(folder: Path, source: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"DIR must be a folder, {str(folder)!r} is a file")
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"DIR: there is no folder {str(folder.parent)!r}; make it first or choose another")
    if folder.exists() and folder.samefile(source):
        raise ValueError(f"DIR: {str(folder)!r} is where the course itself is kept; choose another folder")
    if not os.access(folder if folder.exists() else folder.absolute().parent, os.W_OK):
        raise ValueError(f"DIR: {str(folder)!r} cannot be written; choose another folder")


def _state(target: Path, text: str) -> str:
    if not text:
        return "none"
    if not os.path.lexists(target):
        return "new"
    if target.is_dir():
        raise ValueError(f"{str(target)!r} is a folder, where a notebook should go; move it away")
    same = target.is_file() and target.read_bytes() == text.encode()
    return "unchanged" if same else "kept"


def _prepared(path: Path, known: dict[str, str], exercises_only: bool, without_outputs: bool) -> str:
    """The text of a notebook as it is handed out, with `known` equations; empty if nothing of it is."""
    import nbformat

    book = read(path)
    if exercises_only:
        if not exercises(book.cells):
            return ""
        book.cells = reduced(book.cells, known)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        if without_outputs:
            cell.outputs, cell.execution_count = [], None
        elif exercises_only:
            cell.execution_count = count
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = LEADS_OUT.sub(_from_outside, cell.source)
    return str(nbformat.writes(book)) + "\n"  # type: ignore[no-untyped-call]


def _from_outside(link: re.Match[str]) -> str:
    """A link to a file of the project as it reads in another folder: to the project's site, or as the file's name."""
    text, target = link.groups()
    inside = posixpath.normpath(posixpath.join("notebooks", target))
    if site := address():
        return f"[{text}]({site}/blob/HEAD/{inside})"
    return f"`{inside}`" if text.strip("`") == Path(inside).stem else f"{text} (`{inside}`)"


@functools.cache
def address() -> str | None:
    """The project's address as pyproject.toml gives it, `[project.urls] Source = ...`."""
    try:
        stated = importlib.metadata.metadata("vqlearn").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((line.partition(",")[2].strip().rstrip("/") for line in stated if line.startswith("Source,")), None)
