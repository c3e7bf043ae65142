"""The exercises of a notebook: each a card in words, a stub, a check, and hints and a solution that are folded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nbformat import NotebookNode

CHECK = re.compile(r"^checks\.(\w+)\((\w+)\)$", re.M)
HEADING = re.compile(r"^#{2,3} ", re.M)
FOLDED = re.compile(r"<details>\s*<summary>\s*(?:Solution|Answer)\b.*?</details>\n*", re.S)  # what gives it away
CODE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


class Exercise(NamedTuple):
    """An exercise: `check` is the name of its check, `function` that of the function which the check is given.

    `cell` is the index of the stub's cell, `title` the card's heading, `points` the number of stars on the card (1 for
    a card without), and `solution` the code that is folded below the stub, or "".
    """

    check: str
    function: str
    cell: int
    title: str
    points: int
    solution: str


def exercises(cells: list[NotebookNode]) -> list[Exercise]:
    """The exercises among the cells of a notebook, in order."""
    found = []
    for i, cell in enumerate(cells):
        for check, function in CHECK.findall(cell.source) if cell.cell_type == "code" else ():
            card, below = _before(cells, i), _below(cells, i)
            title = re.findall(r"^### (?:Exercise \d+: )?(.+)$", card, re.M)
            solution = "\n".join(code for text in FOLDED.findall(below) for code in CODE.findall(text)[:1])
            found.append(
                Exercise(check, function, i, title[-1] if title else check, card.count("★") or 1, solution.strip())
            )
    return found


def _before(cells: list[NotebookNode], stub: int) -> str:
    """The card: the text before a stub, from the last heading on."""
    text = ""
    for cell in reversed(cells[:stub]):
        if cell.cell_type != "markdown" or CHECK.search(cell.source):
            break
        text = f"{cell.source}\n\n{text}"
        if HEADING.search(cell.source):
            return text[[found.start() for found in HEADING.finditer(text)][-1] :]
    return text


def _below(cells: list[NotebookNode], stub: int) -> str:
    """The text below a stub, up to the next heading."""
    text = ""
    for cell in cells[stub + 1 :]:
        if cell.cell_type != "markdown":
            break
        text += cell.source + "\n\n"
    return HEADING.split(text, maxsplit=1)[0]
