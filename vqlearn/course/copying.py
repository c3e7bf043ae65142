"""The notebooks of the course: where they are, and copies of them in a folder of one's own."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib.metadata
import os
import posixpath
import re
import symtable
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vqlearn import assets
from vqlearn.data.files import replaced

if TYPE_CHECKING:
    from nbformat import NotebookNode

PACKAGE = assets.FOLDER.parent
FOLDERS = PACKAGE / "course_notebooks", PACKAGE.parent / "notebooks"  # in a wheel, in a clone
CHECK = re.compile(r"^checks\.(\w+)\((\w+)\)$", re.M)
SOLUTION = re.compile(r"<details>\s*<summary>\s*Solution\b.*?</details>\n*", re.S)
ELSE = re.compile(r"\A(?!<details>).*?(?=^## )|(?<=</details>\n)\s*^## .*", re.S | re.M)  # before a card, after a hint
LEADS_OUT = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)#\s]+)[^)]*\)")


def notebooks() -> list[Path]:
    """The notebooks of the course, in order, wherever this package is installed."""
    for folder in FOLDERS:
        if found := sorted(folder.glob("[0-9][0-9]_*.ipynb")):
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
    folder, sources = Path(folder), notebooks()
    _check_target(folder, sources[0].parent)
    texts = {path.name: _prepared(path, exercises_only, without_outputs) for path in sources}
    states = {name: _state(folder / name, text) for name, text in texts.items()}
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        with contextlib.ExitStack() as parts:  # which take their places after all of them were written
            for name in reversed([name for name, state in states.items() if state == "new"]):
                part = parts.enter_context(replaced(folder / name))
                part.write_text(texts[name], encoding="utf-8", newline="\n")
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()
    return list(states.items())


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


def _prepared(path: Path, exercises_only: bool, without_outputs: bool) -> str:
    """The text of a notebook as it is handed out; empty if nothing of it is."""
    import nbformat

    book = read(path)
    if exercises_only and not exercises(book):
        return ""
    if exercises_only:
        book.cells = _only_exercises(book.cells)
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


def exercises(book: NotebookNode) -> dict[str, str]:
    """The exercises of a notebook: the name of the check -> the name of the function that it is given."""
    return dict(pair for cell in book.cells if cell.cell_type == "code" for pair in CHECK.findall(cell.source))


def _only_exercises(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Title, imports, the cards with their hints, the stubs, and the cells that define what the stubs need."""
    code = [i for i, cell in enumerate(cells) if cell.cell_type == "code"]
    stubs = [i for i in code if CHECK.search(cells[i].source)]
    keep = {0, code[0], *stubs, *needed({i: cells[i].source for i in code}, stubs)}
    for stub in stubs:
        keep.update(_card(cells, stub))
        if stub + 1 < len(cells) and "<details>" in cells[stub + 1].source:
            keep.add(stub + 1)
    title = cells[0].source.partition("\n|")[0].strip()  # the table after it is about the whole notebook
    cells[0].source = f"{title}\n\nThese are the exercises alone, without their solutions."
    for i in keep:
        if cells[i].cell_type == "markdown":
            cells[i].source = ELSE.sub("", SOLUTION.sub("", cells[i].source)).strip()
    return [cells[i] for i in sorted(keep) if cells[i].source]


def _card(cells: list[NotebookNode], stub: int) -> list[int]:
    """The cells of text before a stub, from the last heading on."""
    first = stub - 1
    while first > 0 and cells[first].cell_type == "markdown" and not re.search("^#", cells[first].source, re.M):
        first -= 1
    return [i for i in range(first, stub) if cells[i].cell_type == "markdown"]


def needed(sources: dict[int, str], readers: Iterable[int]) -> set[int]:
    """The cells that define the names that some cells read, and the names that these cells read, and so on."""
    names = {i: _names(source) for i, source in sources.items()}
    found: set[int] = set()
    wanted = [(i, name) for i in readers for name in names[i][1]]
    while wanted:
        reader, name = wanted.pop()
        binding = max((i for i in sources if i < reader and name in names[i][0]), default=None)
        if binding is not None and binding not in found:
            found.add(binding)
            wanted += [(binding, other) for other in names[binding][1]]
    return found


def _names(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell binds, and those that it reads before it binds them."""
    binds: set[str] = set()
    reads: set[str] = set()
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a magic of IPython, or no Python at all
        return binds, reads
    for statement in statements:
        tables = [symtable.symtable(ast.unparse(statement), "cell", "exec")]
        bound = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned() or s.is_imported()}
        read = set(bound) if isinstance(statement, ast.AugAssign) else set()
        while tables:
            table = tables.pop()
            top = table.get_type() == "module"
            read |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
            tables += table.get_children()
        reads |= read - binds if isinstance(statement, ast.Assign | ast.AugAssign) else read - binds - bound
        binds |= bound
    return binds, reads - set(dir(builtins))
