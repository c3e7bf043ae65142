"""Many learners at once: their submissions are marked side by side, and the rows come as tables, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import Any

from vqlearn.course import copying, marking
from vqlearn.course.exercises import exercises
from vqlearn.course.kernel import Limits
from vqlearn.course.marking import VERDICTS, Row
from vqlearn.course.submissions import Submission

COLUMNS = "learner", *Row._fields
FORMULA = "=", "+", "-", "@", "\t", "\r"  # what a spreadsheet would compute


def check(
    submissions: list[Submission], *, jobs: int, timeout: int, total: int | None = None, numbers: Iterable[str] = ()
) -> Generator[tuple[Submission, list[Row]], None, None]:
    """Mark `jobs` submissions at a time and give each one's rows when they are all there.

    A cell may take `timeout` seconds and all notebooks of a submission `total`. When this is closed or an exception
    arrives, every kernel is ended and every temporary folder removed before it is passed on.
    """
    stop, threads = Event(), max(1, (os.cpu_count() or 1) // jobs)

    def marked(one: Submission) -> list[Row]:
        if one.trouble:
            return _all("unreadable", one.trouble, numbers)
        try:
            limits = Limits(timeout, total, threads=threads, stop=stop)
            return list(marking.rows(one.folder, limits, numbers=numbers))
        except Exception as error:  # whatever it is, it is this learner's alone
            return _all("not marked", f"{type(error).__name__}: {error}", numbers)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            waiting = {pool.submit(marked, one): one for one in submissions}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def none(numbers: Iterable[str] = ()) -> list[Row]:
    """The rows of a learner of whom nothing is there."""
    books = {path.name: exercises(copying.read(path).cells) for path in marking.chosen(numbers)}
    return [Row(name, one.check, "missing", "", 0.0, one.points) for name, found in books.items() for one in found]


def _all(verdict: str, detail: str, numbers: Iterable[str]) -> list[Row]:
    return [row._replace(verdict=verdict, detail=marking.tidy(detail)) for row in none(numbers)]


def lost(rows: Iterable[Row]) -> bool:
    """Whether something could not be marked, for a reason that is not the learner's."""
    return any(row.verdict == "not marked" for row in rows)


# ---------------------------------------------------------------------------------------------------- as it is printed


def totals(rows: Iterable[Row]) -> dict[str, int]:
    """How many exercises have each verdict."""
    counts = Counter(row.verdict for row in rows)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def summary(rows: list[Row]) -> str:
    """The verdicts that occur and how often, in one line."""
    return ", ".join(f"{count} {verdict}" for verdict, count in totals(rows).items() if count) or "none"


def points(rows: list[Row]) -> str:
    """What these exercises earn, of what."""
    return f"{sum(row.points for row in rows):g} / {sum(row.of for row in rows)}"


class Table:
    """A table in Markdown whose lines can be printed one by one: `widths` are those of all columns but the last."""

    def __init__(self, *names: str, widths: Iterable[Iterable[str]]) -> None:
        self.names = names
        self.widths = [max(map(len, [name, *column])) for name, column in zip(names, widths, strict=False)] + [0]

    def head(self) -> str:
        """The names of the columns and the line below them."""
        return self.line(*self.names) + "\n|" + "|".join("-" * (width + 2) for width in self.widths[:-1]) + "|---|"

    def line(self, *fields: str) -> str:
        """One row."""
        return "| " + " | ".join(map(str.ljust, (field.replace("|", "\\|") for field in fields), self.widths)) + " |"


def of_exercises(rows: list[Row]) -> Table:
    """The table of one learner's exercises."""
    first = [row.notebook for row in rows], [row.exercise for row in rows]
    return Table("notebook", "exercise", "verdict", "points", "detail", widths=[*first, VERDICTS, ["0.5 / 3"]])


def exercise_line(row: Row) -> tuple[str, ...]:
    """The fields of a row in the table of one learner."""
    return row.notebook, row.exercise, row.verdict, points([row]), row.detail


def of_learners(learners: Iterable[str]) -> Table:
    """The table of a class."""
    return Table("learner", "points", "verdicts", widths=[learners, ["100.5 / 100"]])


def as_csv(lines: Iterable[Iterable[Any]]) -> str:
    """Lines of a table for a spreadsheet, which takes no text of a learner for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for line in lines:
        writer.writerow([f"'{field}" if str(field).startswith(FORMULA) else field for field in line])
    return text.getvalue()


def as_json(rows: list[Row], learner: str | None = None) -> dict[str, Any]:
    """A learner's rows and totals, for JSON."""
    found = {"rows": [row._asdict() for row in rows], "totals": totals(rows)}
    earned = {"points": round(sum(row.points for row in rows), 1), "of": sum(row.of for row in rows)}
    return {**({} if learner is None else {"learner": learner}), **found, **earned}


def dumped(value: Any) -> str:
    """As JSON text."""
    return json.dumps(value, indent=1)
