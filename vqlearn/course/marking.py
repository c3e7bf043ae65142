"""Which exercises in a learner's folder are done.

A verdict trusts nothing that a notebook prints. The notebook runs in a kernel, on a copy of its folder; there
`checks.name(function)` only notes the function, and neither solutions nor cases are there. The cases are sent as
questions, those of the check and then others of the same kind, the numbers that the function returns come back in the
kernel's reply, and the check judges them here, in a process that runs none of the learner's code. It is no sandbox: the
code runs with the rights of whoever checks it, and what it could still use in place of an answer is named in its row.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vqlearn.course import copying
from vqlearn.course.exam import Exam, Found
from vqlearn.course.kernel import Kernel

VERDICTS = "done", "not attempted", "wrong", "crashed", "missing", "unreadable"
MOST_FILES, MOST_BYTES = 2000, 200_000_000  # of the learner's folder, in the copy that is executed
PREFIX = "vqlearn-course-"  # of the temporary folder
NEEDLESS = re.compile(  # ways to another program, into a running one, or round the marker
    r"\b(?:ctypes|multiprocessing|subprocess|os\.popen|os\.system|gc\.get_\w+|sys\._getframe|sys\.set(?:profile|trace)|"
    r"f_locals|__wrapped__|course\.(?:checks|desk|exam|kernel|marking|outcomes))\b"
)


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


def _mark(path: Path, exercises: dict[str, str], timeout: int, tell: Callable[[str], None]) -> Found:
    try:
        cells = _code(path)
    except FileNotFoundError:
        return dict.fromkeys(exercises, ("missing", "the folder has no such notebook"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return dict.fromkeys(exercises, ("unreadable", f"not a notebook: {error}"))
    exam = Exam(cells, exercises, lambda: _kernel(path.parent, timeout), tell)
    try:
        found = _remarked(exam.run(), cells)
    except Exception as error:  # whatever it is, it is this notebook's alone
        lost = "crashed", f"the notebook could not be marked: {type(error).__name__}: {error}"
        found = dict.fromkeys(exercises, lost) | exam.found
    return {name: found[name] for name in exercises}


def _remarked(found: Found, cells: list[str]) -> Found:
    """What is done, with a remark where the notebook uses what an answer has no need of."""
    used = sorted({word for source in cells for word in NEEDLESS.findall(source)})
    if not used:
        return found
    remark = f"the notebook uses {', '.join(used)}"
    done = {name: detail for name, (verdict, detail) in found.items() if verdict == "done"}
    return found | {name: ("done", f"{detail}; {remark}" if detail else remark) for name, detail in done.items()}


@contextlib.contextmanager
def _kernel(folder: Path, timeout: int) -> Iterator[Kernel]:
    """A kernel in a fresh copy of the learner's folder."""
    from vqlearn.course import checks

    closed = [str(Path(checks.__file__).parent), *map(str, copying.FOLDERS)]
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as place:
        work, scratch = Path(place, "work"), Path(place, "scratch")
        scratch.mkdir()
        _copy_files(folder, work)
        with Kernel(work, scratch, timeout, names=list(checks.EXERCISES), closed=closed) as kernel:
            yield kernel


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
    return [_source(cell.get("source")) for cell in code]


def _source(source: Any) -> str:
    """A cell's source, as far as it is text."""
    parts = source if isinstance(source, list) else [source]
    return "".join(part for part in parts if isinstance(part, str))


def _copy_files(folder: Path, into: Path) -> None:
    """Copy a folder, without what is hidden and without links to folders, as far as the limits allow."""
    files, size = MOST_FILES, MOST_BYTES
    for base, inside, names in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith((".", "__pycache__", PREFIX)))
        target = into / Path(base).relative_to(folder)
        with contextlib.suppress(OSError):
            target.mkdir()
        for file in sorted(Path(base, name) for name in names if not name.startswith(".")):
            with contextlib.suppress(OSError):
                if file.is_file() and file.stat().st_size <= size:
                    shutil.copyfile(file, target / file.name)
                    size -= file.stat().st_size
        files -= 1 + len(names)
        if files < 0:
            return
