"""A notebook reduced to its exercises: their cards, hints and stubs, and all that these need from the rest."""

from __future__ import annotations

import ast
import builtins
import copy
import functools
import re
import symtable
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING

from vqlearn.course.exercises import CHECK, FOLDED, HEADING, exercises

if TYPE_CHECKING:
    from nbformat import NotebookNode

EQUATION = re.compile(r"\$\$(?:(?!\$\$).)*?\\tag\{(\d+[a-z]?\.\d+)\}\s*\$\$", re.S)
CITED = re.compile(r"(?<![\w\])}])\((\d+[a-z]?\.\d+)\)")
CALLED = re.compile(r"`[^`]*?\b([A-Za-z_]\w*)(?=[.(])[^`]*`")  # the module or function that a piece of code begins with
NO_PYTHON = SyntaxError, ValueError, RecursionError, MemoryError  # a magic of IPython, or worse
PARSER = Lock()  # Python 3.11's ast.parse fails now and then while another thread is in it
ALWAYS = {"torch", "vqlearn"}  # whatever the answer is
FROM_TEXT = {"compile", "eval", "exec", "getattr", "globals", "setattr", "vars"}  # names that a text may give
TITLE = (
    "{title}\n\nThese are the exercises alone, without their solutions. "
    "Figures and sections that they name are in the whole notebook."
)


def equations(books: Iterable[list[NotebookNode]]) -> dict[str, str]:
    """The numbered equations of notebooks: number -> the equation as it is displayed."""
    texts = (cell.source for cells in books for cell in cells if cell.cell_type == "markdown")
    return {found[1]: found[0] for text in texts for found in EQUATION.finditer(text)}


def reduced(cells: list[NotebookNode], known: dict[str, str]) -> list[NotebookNode]:
    """The sections with exercises, without solutions: before each exercise the cells that define what it needs.

    Of the first cell of code the imports stay that the exercises or their solutions use. `known` are the equations of
    the whole course; those that the exercises cite are repeated.
    """
    cells = [part for cell in cells for part in parts_of(cell)]
    sources = {i: cell.source for i, cell in enumerate(cells) if cell.cell_type == "code"}
    imports, chosen = min(sources), _sections(cells)
    solutions = {found.cell: found.solution for found in exercises(cells)}
    kept: list[int] = []
    for group in _groups(cells, chosen):
        code = {i: sources[i] + "\n\n" + solutions.get(i, "") for i in group if i in sources}
        before = needed(sources | code, code) - {imports}
        kept += [*sorted(before - set(kept) - set(group)), *group]
    texts = [FOLDED.sub("", cells[i].source).replace("Hints and solutions are", "Hints are").strip() for i in kept]
    for i, text in zip(kept, texts, strict=True):
        cells[i].source = text
    used = {name for i in kept if i in sources for name in names(sources[i] + "\n\n" + solutions.get(i, ""))[1]}
    used |= {name for text in texts for name in CALLED.findall(text)}
    cells[imports].source = _imports(sources[imports], used | ALWAYS)
    title = cells[0].source.partition("\n|")[0].strip()  # the table after it is about the whole notebook
    cells[0].source = TITLE.format(title=title) + _cited("\n".join(texts), known)
    return [cells[0], cells[imports], *(cells[i] for i in kept if cells[i].source)]


def parts_of(cell: NotebookNode) -> list[NotebookNode]:
    """A cell; a text with several headings as a cell for each."""
    starts = [found.start() for found in HEADING.finditer(cell.source)] if cell.cell_type == "markdown" else []
    if not starts or starts == [0]:
        return [cell]
    ends = [*starts, len(cell.source)]
    texts = [cell.source[: starts[0]], *(cell.source[a:b] for a, b in zip(starts, ends[1:], strict=True))]
    parts = [copy.deepcopy(cell) for _ in texts]
    for number, (part, text) in enumerate(zip(parts, texts, strict=True)):
        part.source = text.strip()
        if number:
            part.id = f"{cell.id}-{number}"
    return [part for part in parts if part.source]


def _sections(cells: list[NotebookNode]) -> list[int]:
    """The cells of the sections that hold a check."""
    section: list[int] = []
    sections = []
    for i, cell in enumerate(cells):
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            sections.append(section)
            section = []
        section.append(i)
    sections.append(section)
    checked = [any(cells[i].cell_type == "code" and CHECK.search(cells[i].source) for i in one) for one in sections]
    first = min(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    return [i for one, wanted in zip(sections, checked, strict=True) if wanted for i in one if i > first]


def _groups(cells: list[NotebookNode], chosen: list[int]) -> list[list[int]]:
    """The cells of each exercise, from its heading on."""
    groups: list[list[int]] = [[]]
    for i in chosen:
        if cells[i].cell_type == "markdown" and HEADING.match(cells[i].source):
            groups.append([])
        groups[-1].append(i)
    return groups


def _cited(text: str, known: dict[str, str]) -> str:
    """The equations that a text cites and does not display, under a sentence that says what they are."""
    there = {found[1] for found in EQUATION.finditer(text)}
    cited = set(CITED.findall(text)) - there
    numbers = [number for number in known if number in cited]
    return "\n\n".join(["\n\nThe equations that they cite:" if numbers else "", *(known[n] for n in numbers)]).rstrip()


def _imports(source: str, used: set[str]) -> str:
    """Of a cell the imports of these names, with the empty lines between them."""
    lines, kept, gap = source.splitlines(), [""], False
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            gap |= not lines[statement.lineno - 2].strip()
            statement.names = [a for a in statement.names if (a.asname or a.name).split(".")[0] in used]
            if statement.names:
                kept += [*[""] * gap, ast.unparse(statement)]
                gap = False
    return "\n".join(kept).strip()


# ------------------------------------------------------------------------------------------------- names in cells


def needed(sources: dict[int, str], readers: Iterable[int]) -> set[int]:
    """The cells that define the names that some cells read, and the names that these cells read, and so on."""
    found_names = {i: names(source) for i, source in sources.items()}
    found: set[int] = set()
    wanted = [(i, name) for i in readers for name in found_names[i][1]]
    while wanted:
        reader, name = wanted.pop()
        binding = max((i for i in sources if i < reader and name in found_names[i][0]), default=None)
        if binding is not None and binding not in found:
            found.add(binding)
            wanted += [(binding, other) for other in found_names[binding][1]]
    return found


def words(source: str) -> set[str]:
    """The names that the code of a cell uses; all words in it where a text may name something or nothing is Python."""
    try:
        with PARSER:
            nodes = [*ast.walk(ast.parse(source))]
    except NO_PYTHON:
        return set(re.findall(r"\w+", source))
    fields = (getattr(node, field, None) for node in nodes for field in ("id", "attr", "name", "asname"))
    found = {name for name in fields if isinstance(name, str)}
    return set(re.findall(r"\w+", source)) if found & FROM_TEXT else found


@functools.lru_cache(10_000)  # a cell is looked at once for each exercise of its notebook
def names(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """The global names that a cell binds, and those that it reads before it binds them."""
    binds: set[str] = set()
    reads: set[str] = set()
    try:
        with PARSER:
            statements = ast.parse(source).body
    except NO_PYTHON:
        return frozenset(), frozenset()
    for statement in statements:
        with PARSER:
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
    return frozenset(binds), frozenset(reads.difference(dir(builtins)))
