"""How long a student takes with each notebook and each week, as docs/teaching says: `python -m tests.times`.

Reading is prose at 150 words a minute, 3 minutes for each numbered equation and 12 seconds for each line of code, of
all sections but the exercises, rounded to quarter hours. Exercises take the minutes on their cards, problems those of
their table. `--write` sets the tables of the guide and the syllabus and, of the notebooks with these numbers or of all,
the first lines.
"""

from __future__ import annotations

import argparse
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat

from vqlearn.course import copying

TEACHING = Path(__file__).parent.parent / "docs" / "teaching"
GUIDE, SYLLABUS, PROBLEMS = (TEACHING / f"{name}.md" for name in ("guide", "syllabus", "problems"))
CARD = re.compile(r"^[★☆]+ · (\d+)(?: to (\d+))? minutes", re.M)
STATED = re.compile(r"\| (\d+ minutes, exercises .+?) \|")  # in the first cell of a notebook
TABLE = re.compile(r"(?<=\| notebook \| reading \| exercises, minutes on the cards \|\n\|---\|---\|---\|\n)(\|.*\n)+")


SUMS = re.compile(r"about (\S+) hours of reading and (\S+) (hours of exercises; all of them to) about (\S+) and (\S+) ")
PROBLEM = re.compile(r"^\| (\d+) \| .+ \| (\d+) \|$", re.M)
TOTAL = re.compile(r"(?<=About )\d+(?= hours)")
PLAN = re.compile(r"^## (\w+) weeks: .*?(?=^## )", re.M | re.S)
WEEK = re.compile(r"^\| (\d+) \| (.+) \| (.+) \| ([\d.]+) \|$", re.M)
READ = re.compile(r"\b(\d+b?)\.(\d+)(?: to \1\.(\d+))?|\b(\d\db?)\b")  # 5.1 to 5.7, or 11.5, or 05
HAND_IN = re.compile(r"\b(\d\db?)\.(\d+)(?: to \1\.(\d+))?")  # 05b.1 to 05b.4, or 01.1


class Times(NamedTuple):
    """Minutes of reading by section ("" is what comes before the first), and the least and most of each exercise."""

    sections: dict[str, float]
    exercises: list[tuple[int, int]]

    @property
    def reading(self) -> float:
        """Minutes of reading in all."""
        return sum(self.sections.values())

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
    sections, exercises, section, among_them = dict[str, float](), [], "", False
    for cell in cells:
        text = cell.cell_type == "markdown"
        exercises += [(int(low), int(high or low)) for low, high in CARD.findall(cell.source) if text]
        for part in re.split("^(?=## )", cell.source, flags=re.M) if text else [cell.source]:
            if text and part.startswith("## "):
                among_them = part.startswith("## Check yourself")
                section = number[1] if (number := re.match(r"## \w+\.(\d+)", part)) else section
            if not among_them:
                sections[section] = sections.get(section, 0) + (_prose(part) if text else _code(part))
    return Times(sections, exercises)


def _code(source: str) -> float:
    return sum(bool(line.strip()) for line in source.splitlines()) / 5


def _prose(source: str) -> float:
    return len(re.sub(r"\$\$.*?\$\$", "", source, flags=re.S).split()) / 150 + 3 * source.count(r"\tag{")


@cache
def every() -> dict[str, Times]:
    """The times of all notebooks by their numbers."""
    return {path.stem.partition("_")[0]: measure(copying.read(path).cells) for path in copying.notebooks()}


def table() -> dict[str, str]:
    """The lines of the guide's table by the numbers of the notebooks."""
    found = TABLE.search(GUIDE.read_text(encoding="utf-8"))
    assert found, f"{GUIDE} has no table of times"
    return {line.split("|")[1].strip(): line for line in found[0].splitlines(keepends=True)}


def sums(found: dict[str, Times]) -> tuple[str, ...]:
    """The guide's four sums in quarter hours: reading and exercises of 00 to 06, and of all."""
    hours = []
    for some in ([number for number in found if number < "07"], list(found)):
        hours.append(sum(found[number].quarters for number in some) / 4)
        hours.append(round(sum(low for number in some for low, _ in found[number].exercises) / 15) / 4)
    return tuple(f"{each:g}" for each in hours)


class Week(NamedTuple):
    """A line of the syllabus, and the minutes that it comes to."""

    number: str
    stated: float  # hours
    minutes: float

    @property
    def hours(self) -> float:
        """In quarter hours."""
        return round(self.minutes / 15) / 4


def plans(found: dict[str, Times]) -> dict[str, list[Week]]:
    """The weeks of each plan of the syllabus, by its number in words."""
    problems = {number: int(minutes) for number, minutes in PROBLEM.findall(PROBLEMS.read_text(encoding="utf-8"))}
    texts = PLAN.finditer(SYLLABUS.read_text(encoding="utf-8"))
    return {text[1]: [_week(row, found, problems) for row in WEEK.finditer(text[0])] for text in texts}


def _week(row: re.Match[str], found: dict[str, Times], problems: dict[str, int]) -> Week:
    minutes: float = sum(problems[number] for number in re.findall(r"\bP(\d+)", row[3]))
    for notebook, first, last, whole in READ.findall(row[2]):
        sections = found[whole or notebook.zfill(3 if "b" in notebook else 2)].sections
        chosen = [str(number) for number in range(int(first or 0), int(last or first or 0) + 1)]
        chosen += [""] if first == "1" else []
        minutes += sum(sections.values()) if whole else sum(sections[section] for section in chosen)
    for notebook, first, last in HAND_IN.findall(row[3]):
        minutes += sum(low for low, _ in found[notebook].exercises[int(first) - 1 : int(last or first)])
    return Week(row[1], float(row[4]), minutes)


def write(found: dict[str, Times], numbers: list[str]) -> None:
    """Set the guide's table and sums, the syllabus, and the first lines of the notebooks with these numbers."""
    rows, (some, theirs, every, all_theirs) = "".join(times.row(number) for number, times in found.items()), sums(found)
    guide = TABLE.sub(lambda _: rows, GUIDE.read_text(encoding="utf-8"))
    guide = SUMS.sub(rf"about {some} hours of reading and {theirs} \3 about {every} and {all_theirs} ", guide)
    GUIDE.write_text(guide, encoding="utf-8")
    weeks = plans(found)
    syllabus = PLAN.sub(lambda plan: _counted(plan[0], weeks[plan[1]]), SYLLABUS.read_text(encoding="utf-8"))
    SYLLABUS.write_text(syllabus, encoding="utf-8")
    for path in copying.notebooks():
        number = path.stem.partition("_")[0]
        if number in numbers:
            text = STATED.sub(f"| {found[number].stated()} |", path.read_text(encoding="utf-8"), count=1)
            path.write_text(text, encoding="utf-8")


def _counted(plan: str, weeks: list[Week]) -> str:
    hours = iter(weeks)
    rows = WEEK.sub(lambda row: f"| {row[1]} | {row[2]} | {row[3]} | {next(hours).hours:g} |", plan)
    return TOTAL.sub(f"{sum(week.hours for week in weeks):.0f}", rows, count=1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.times", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", nargs="*", metavar="NUMBER", help="the notebooks to write to (default: all)")
    chosen, found = parser.parse_args().write, every()
    for number, times in found.items():
        print(times.row(number), end="")
    print("hours of reading and exercises, 00 to 06: {} and {}, all: {} and {}".format(*sums(found)))
    for plan, weeks in plans(found).items():
        hours = ", ".join(f"{week.hours:g}" for week in weeks)
        print(f"{plan} weeks: {hours}; together {sum(week.hours for week in weeks):g}")
    if chosen is not None:
        write(found, chosen or list(found))


if __name__ == "__main__":
    main()
