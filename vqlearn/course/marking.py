"""Which exercises in a learner's folder are done.

A verdict trusts nothing that a notebook prints. The notebook runs in a kernel, on a copy of its folder; there
`checks.name(function)` only notes the function, which is then called on the cases of the check. The numbers that it
returns come back in the kernel's reply to that very question, not through its output, and the check judges them here,
in a process that runs none of the learner's code. It is no sandbox: the code runs with the rights of whoever checks it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vqlearn.course import copying
from vqlearn.course.kernel import Died, Kernel

VERDICTS = "done", "not attempted", "wrong", "crashed", "missing", "unreadable"
MOST_FILES, MOST_BYTES = 2000, 200_000_000  # of the learner's folder, in the copy that is executed
PREFIX = "vqlearn-course-"  # of the temporary folder


class Row(NamedTuple):
    """What became of one exercise; the verdict is one of VERDICTS."""

    notebook: str
    exercise: str
    verdict: str
    detail: str = ""


def check(folder: str | Path, *, timeout: int = 1200, progress: bool = True) -> list[Row]:
    """Execute the course's notebooks as they are in `folder` and judge each exercise; no file there is changed.

    A cell, and each function that is judged, may take `timeout` seconds; the default lets the cells that train a model
    finish on a busy laptop.
    """
    from tqdm.auto import tqdm

    folder, rows = Path(folder), []
    if not folder.is_dir():
        raise ValueError(f"DIR: there is no folder {str(folder)!r} to check")
    with tqdm(copying.notebooks(), desc="checking", unit="notebook", disable=not progress) as bar:
        for path in bar:
            exercises = copying.exercises(copying.read(path))
            bar.set_description(f"checking {path.stem}")
            found = _mark(folder / path.name, exercises, timeout, bar.set_postfix_str) if exercises else {}
            rows += [Row(path.name, name, verdict, _tidy(detail)) for name, (verdict, detail) in found.items()]
    return rows


def table(rows: list[Row]) -> str:
    """The rows as a table in Markdown, and a line of totals."""
    lines = [("notebook", "exercise", "verdict", "detail"), *((*row[:3], row[3].replace("|", "\\|")) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)] + [0]
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths[:3]) + "|---|")
    totals = ", ".join(f"{count} {verdict}" for verdict, count in _totals(rows).items() if count)
    return "\n".join(text) + f"\n\n{len(rows)} exercises: {totals or 'none'}"


def as_json(rows: list[Row]) -> str:
    """The rows and the totals as JSON."""
    return json.dumps({"rows": [row._asdict() for row in rows], "totals": _totals(rows)}, indent=1)


def _totals(rows: list[Row]) -> dict[str, int]:
    counts = Counter(row.verdict for row in rows)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def _tidy(text: str) -> str:
    """One line that no terminal stumbles over, of text that a learner's code may have chosen."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())
    return line if len(line) <= 200 else line[:197] + "..."


Found = dict[str, tuple[str, str]]  # exercise -> verdict and detail
Tell = Callable[[str], None]


def _mark(path: Path, exercises: dict[str, str], timeout: int, tell: Tell) -> Found:
    try:
        cells = _code(path)
    except FileNotFoundError:
        return dict.fromkeys(exercises, ("missing", "the folder has no such notebook"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return dict.fromkeys(exercises, ("unreadable", f"not a notebook: {error}"))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as scratch:
        work = Path(scratch, "work")
        _copy_files(path.parent, work)
        found: Found = {}
        try:
            with Kernel(work, Path(scratch), timeout) as kernel:
                _mark_cells(kernel, cells, exercises, found, tell)
        except Died as death:
            found |= {name: ("crashed", f"not reached: {death}") for name in exercises if name not in found}
    return {name: found[name] for name in exercises}


def _code(path: Path) -> list[str]:
    """The code cells of a learner's notebook, which may be anything."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES / 1e6:g} MB")
    book = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(book, dict) or not isinstance(book.get("cells"), list):
        raise ValueError("it is JSON, but has no list of cells")
    code = [cell for cell in book["cells"] if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    return ["".join(cell.get("source", "")) for cell in code]


def _copy_files(folder: Path, into: Path) -> None:
    """Copy a folder, without what is hidden and without links to folders, as far as the limits allow."""
    files, size = MOST_FILES, MOST_BYTES
    for base, inside, names in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith((".", "__pycache__", PREFIX)))
        target = into / Path(base).relative_to(folder)
        target.mkdir()
        for file in sorted(Path(base, name) for name in names if not name.startswith(".")):
            with contextlib.suppress(OSError):
                if file.is_file() and file.stat().st_size <= size:
                    shutil.copyfile(file, target / file.name)
                    size -= file.stat().st_size
        files -= 1 + len(names)
        if files < 0:
            return


def _mark_cells(kernel: Kernel, cells: list[str], exercises: dict[str, str], found: Found, tell: Tell) -> None:
    for number, source in enumerate(cells, start=1):
        tell(f"cell {number} of {len(cells)}")
        concerned = [n for n, f in exercises.items() if re.search(rf"\bchecks\.{n}\b|\bdef {f}\b", source)]
        try:
            trouble = kernel.run(source)
        except Died as death:
            found |= {name: ("crashed", f"cell {number}: {death}") for name in concerned}
            raise Died(f"in cell {number} {death}") from None
        if trouble:
            found |= {name: ("crashed", f"cell {number}: {trouble}") for name in concerned}
        for name in kernel.ask("noted()")[1] or []:
            if name in exercises:
                _mark_one(kernel, name, f"outcomes({name!r})", found)
    for name, function in exercises.items():  # defined, but not given to the check, or defined once more after it
        if found.get(name, ("",))[0] in ("", "not attempted", "wrong"):
            _mark_one(kernel, name, f"last({name!r}, {function!r})", found)
        found.setdefault(name, ("not attempted", f"the notebook defines no function {function}"))


def _mark_one(kernel: Kernel, name: str, question: str, found: Found) -> None:
    try:
        trouble, outcomes = kernel.ask(question)
    except Died as death:
        found[name] = "crashed", f"its function was called, and {death}"
        raise Died(f"in {name} {death}") from None
    if trouble:
        found[name] = "crashed", f"its function was called, and {trouble}"
    elif outcomes:
        found[name] = judged(name, outcomes)


def judged(name: str, outcomes: list[dict[str, Any]]) -> tuple[str, str]:
    """The verdict of a check, and its reason, from what a learner's function did on the check's cases."""
    from vqlearn.course.checks import EXERCISES
    from vqlearn.course.desk import unpacked

    try:
        verdict = EXERCISES[name].verdict([unpacked(outcome) for outcome in outcomes])
    except Exception as error:  # outcomes of a form that no desk sends
        return "crashed", f"its answers could not be judged: {type(error).__name__}"
    return ("done", "") if verdict.status == "right" else (verdict.status, verdict.reason)
