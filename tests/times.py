"""How long a student takes with each notebook, by the method of docs/teaching/guide.md: `python -m tests.times`.

Reading is prose at 150 words a minute, 3 minutes for each numbered equation and 12 seconds for each line of code, of
all sections but the exercises, rounded to quarter hours. Exercises take the minutes on their cards. `--write` sets the
table of the guide and, of the notebooks with these numbers or of all, the first lines.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import nbformat

from vqlearn.course import copying

GUIDE = Path(__file__).parent.parent / "docs" / "teaching" / "guide.md"
CARD = re.compile(r"^[★☆]+ · (\d+)(?: to (\d+))? minutes", re.M)
STATED = re.compile(r"\| (\d+ minutes, exercises .+?) \|")  # in the first cell of a notebook
TABLE = re.compile(r"(?<=\| notebook \| reading \| exercises, minutes on the cards \|\n\|---\|---\|---\|\n)(\|.*\n)+")


class Times(NamedTuple):
    """Minutes of reading, and the least and most minutes of each exercise."""

    reading: float
    exercises: list[tuple[int, int]]

    @property
    def quarters(self) -> int:
        """The reading in quarter hours."""
        return round(self.reading / 15)

    def row(self, number: str) -> str:
        """The line of the guide's table."""
        each = ", ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in self.exercises)
        return f"| {number} | {self.quarters / 4:g} h | {each} |\n"

    def stated(self) -> str:
        """What the first lines of the notebook say."""
        low, high = (sum(minutes) for minutes in zip(*self.exercises, strict=True))
        return f"{15 * self.quarters} minutes, exercises {low if low == high else f'{low} to {high}'} more"


def measure(cells: list[nbformat.NotebookNode]) -> Times:
    """The times of a notebook."""
    reading, exercises, among_them = 0.0, [], False
    for cell in cells:
        if cell.cell_type == "markdown":
            exercises += [(int(low), int(high or low)) for low, high in CARD.findall(cell.source)]
            among_them |= bool(re.search("^## Check yourself", cell.source, re.M))
            among_them &= not re.search("^## In one breath", cell.source, re.M)
        if not among_them:
            reading += _minutes(cell)
    return Times(reading, exercises)


def _minutes(cell: nbformat.NotebookNode) -> float:
    if cell.cell_type == "code":
        return sum(bool(line.strip()) for line in cell.source.splitlines()) / 5
    prose = re.sub(r"\$\$.*?\$\$", "", cell.source, flags=re.S)
    return len(prose.split()) / 150 + 3 * cell.source.count(r"\tag{")


def every() -> dict[str, Times]:
    """The times of all notebooks by their numbers."""
    return {path.stem.partition("_")[0]: measure(copying.read(path).cells) for path in copying.notebooks()}


def table() -> dict[str, str]:
    """The lines of the guide's table by the numbers of the notebooks."""
    found = TABLE.search(GUIDE.read_text(encoding="utf-8"))
    assert found, f"{GUIDE} has no table of times"
    return {line.split("|")[1].strip(): line for line in found[0].splitlines(keepends=True)}


def write(found: dict[str, Times], numbers: list[str]) -> None:
    """Set the guide's table, and the first lines of the notebooks with these numbers."""
    rows = "".join(times.row(number) for number, times in found.items())
    GUIDE.write_text(TABLE.sub(lambda _: rows, GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
    for path in copying.notebooks():
        number = path.stem.partition("_")[0]
        if number in numbers:
            text = STATED.sub(f"| {found[number].stated()} |", path.read_text(encoding="utf-8"), count=1)
            path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.times", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", nargs="*", metavar="NUMBER", help="the notebooks to write to (default: all)")
    chosen, found = parser.parse_args().write, every()
    for number, times in found.items():
        print(times.row(number), end="")
    for name, some in {"00 to 06": [n for n in found if n < "07"], "all": list(found)}.items():
        reading = sum(found[number].quarters for number in some) / 4
        exercises = sum(low for number in some for low, _ in found[number].exercises) / 60
        print(f"{name}: {reading:g} h of reading, {exercises:.1f} h of exercises")
    if chosen is not None:
        write(found, chosen or list(found))


if __name__ == "__main__":
    main()
