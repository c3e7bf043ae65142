"""Which exercises in a learner's folder are done.

A verdict trusts nothing that a notebook prints. The notebook runs in a kernel, on a copy of its folder; there
`checks.name(function)` only notes the function, and neither solutions nor cases are there. The cases are sent as
questions, those of the check and then others of the same kind, the numbers that the function returns come back in the
kernel's reply, and the check judges them here, in a process that runs none of the learner's code. It is no sandbox: the
code runs with the rights of whoever checks it, and what it could still use in place of an answer is named in its row.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vqlearn.course import copying
from vqlearn.course.exam import Exam, Finding, Found
from vqlearn.course.exercises import Exercise, exercises
from vqlearn.course.kernel import Kernel, Limits

VERDICTS = "done", "not attempted", "wrong", "crashed", "timed out", "missing", "unreadable", "not marked"
MOST_FILES, MOST_BYTES = 2000, 200_000_000  # of the learner's folder, in the copy that is executed
PREFIX = "vqlearn-course-"  # of the temporary folder
NEEDLESS = re.compile(  # ways to another program, into a running one, or round the marker
    r"\b(?:ctypes|multiprocessing|subprocess|os\.popen|os\.system|gc\.get_\w+|sys\._getframe|sys\.set(?:profile|trace)|"
    r"f_locals|__wrapped__|course\.(?:checks|desk|exam|kernel|marking|outcomes))\b"
)


class Row(NamedTuple):
    """What became of one exercise: the verdict, one of VERDICTS, and what it earns of its stars in points."""

    notebook: str
    exercise: str
    verdict: str
    detail: str = ""
    points: float = 0.0
    of: int = 1


def check(folder: str | Path, *, timeout: int = 1200, progress: bool = True) -> list[Row]:
    """Execute the course's notebooks as they are in `folder` and judge each exercise; no file there is changed.

    A cell, and each function that is judged, may take `timeout` seconds; the default lets the cells that train a model
    finish on a busy laptop.
    """
    from tqdm.auto import tqdm

    if not Path(folder).is_dir():
        raise ValueError(f"DIR: there is no folder {str(folder)!r} to check")
    with tqdm(desc="checking", unit="notebook", disable=not progress) as bar:
        return list(rows(folder, Limits(timeout), tell=bar.set_description))


def rows(
    folder: str | Path, limits: Limits, *, numbers: Iterable[str] = (), tell: Callable[[str], object] = lambda _: None
) -> Iterator[Row]:
    """The rows of a learner's folder as they come, of the notebooks with these numbers, or of all if there are none."""
    for path in chosen(numbers):
        asked = _asked(path)
        tell(f"checking {path.stem}")
        found = _mark(Path(folder, path.name), path, asked, limits, tell)
        for exercise in asked:
            verdict, detail, share = found[exercise.check]
            points = round(share * exercise.points, 1)
            yield Row(path.name, exercise.check, verdict, tidy(detail), points, exercise.points)


def chosen(numbers: Iterable[str] = ()) -> list[Path]:
    """The notebooks of the course with exercises, those of these numbers. Raises ValueError for one that has none."""
    paths = {path.stem.partition("_")[0]: path for path in copying.notebooks() if _asked(path)}
    for number in numbers:
        if number not in paths:
            raise ValueError(f"--notebooks: no notebook {number!r} has exercises; there are {', '.join(paths)}")
    return [path for number, path in paths.items() if not numbers or number in numbers]


@functools.cache
def _asked(path: Path) -> list[Exercise]:
    return exercises(copying.read(path).cells)


def tidy(text: str) -> str:
    """One line that no terminal stumbles over, of text that a learner's code may have chosen."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())
    return line if len(line) <= 200 else line[:197] + "..."


def _mark(
    path: Path, published: Path, asked: list[Exercise], limits: Limits, tell: Callable[[str], object]
) -> dict[str, Finding]:
    names = {exercise.check: exercise.function for exercise in asked}
    try:
        cells = _code(path)
    except FileNotFoundError:
        return dict.fromkeys(names, Finding("missing", "the folder has no such notebook"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return dict.fromkeys(names, Finding("unreadable", f"not a notebook: {error}"))
    if copying.handed_out(published).issuperset(cells):
        return dict.fromkeys(names, Finding("not attempted", "nothing was changed"))
    exam = Exam(cells, names, lambda: _kernel(path.parent, limits), lambda cell: tell(f"checking {path.stem}, {cell}"))
    try:
        return _remarked(exam.run(), cells)
    except Exception as error:  # whatever it is, it is this notebook's alone
        lost = Finding("not marked", f"the notebook could not be marked: {type(error).__name__}: {error}")
        return dict.fromkeys(names, lost) | exam.found


def _remarked(found: Found, cells: list[str]) -> Found:
    """What is done, with a remark where the notebook uses what an answer has no need of."""
    used = sorted({word for source in cells for word in NEEDLESS.findall(source)})
    if not used:
        return found
    remark = f"the notebook uses {', '.join(used)}"
    done = {name: one for name, one in found.items() if one.verdict == "done"}
    return found | {n: one._replace(detail=f"{one.detail}; {remark}".lstrip("; ")) for n, one in done.items()}


@contextlib.contextmanager
def _kernel(folder: Path, limits: Limits) -> Iterator[Kernel]:
    """A kernel in a fresh copy of the learner's folder."""
    from vqlearn.course import checks

    closed = [str(Path(checks.__file__).parent), *map(str, copying.FOLDERS)]
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as place:
        work, scratch = Path(place, "work"), Path(place, "scratch")
        scratch.mkdir()
        _copy_files(folder, work)
        with Kernel(work, scratch, limits, names=list(checks.EXERCISES), closed=closed) as kernel:
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
