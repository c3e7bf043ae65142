"""One learner's notebook, cell by cell: each exercise's verdict, whatever the cells do to their kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from vqlearn.course import reduced
from vqlearn.course.kernel import LATE, Died, Kernel, NotStarted, OutOfTime

if TYPE_CHECKING:
    from vqlearn.course.checks import Check

TABLE = "right for the cases that the notebook's check asks, not for others of the same kind"
UNJUDGED = "", "not attempted", "wrong"
MOST = 0.5  # of the points: what a wrong answer can earn


class Finding(NamedTuple):
    """A verdict with its reason, and the share of the points that it earns."""

    verdict: str
    detail: str = ""
    share: float = 0.0


Found = dict[str, Finding]  # by exercise


class Exam:
    """Runs the cells of a notebook and judges its exercises; what kills a kernel is left out of the next one.

    `exercises` maps the name of a check to that of its function, `start()` gives a fresh kernel, and `tell` hears what
    is being done. In a fresh kernel the cells before run again, as far as an exercise that is not done is still ahead.
    After a second death, which an earlier cell may have prepared, all that died is tried once more, from then on with
    those cells alone whose names it needs.
    """

    def __init__(
        self,
        cells: list[str],
        exercises: dict[str, str],
        start: Callable[[], AbstractContextManager[Kernel]],
        tell: Callable[[str], object],
    ) -> None:
        self.cells, self.exercises, self.start, self.tell = dict(enumerate(cells, start=1)), exercises, start, tell
        self.all = dict(self.cells)
        self.words = {number: reduced.words(source) for number, source in self.cells.items()}
        self.deaths = 0
        self.found: Found = {}
        self.judged: dict[str, int] = {}  # exercise -> the cell that its verdict is about
        self.asked: set[tuple[str, int]] = set()  # exercises and the cells that gave a function to their check
        self.died: set[str] = set()  # exercises at which a kernel died

    def run(self) -> Found:
        """The verdict on each exercise, and its reason."""
        while any(self._ahead()):
            try:
                with self.start() as kernel:
                    self._through(kernel)
                break
            except Died:  # what it was is noted, and not tried again
                self.deaths += 1
                if self.deaths == 2:
                    self._once_more()
            except (NotStarted, OutOfTime) as trouble:
                kind = "timed out" if isinstance(trouble, OutOfTime) else "not marked"
                self.found = dict.fromkeys(self.exercises, Finding(kind, f"not reached: {trouble}")) | self.found
                break
        absent = "the notebook defines no function {}"
        return {n: Finding("not attempted", absent.format(f)) for n, f in self.exercises.items()} | self.found

    def _verdict(self, name: str) -> str:
        return self.found[name].verdict if name in self.found else ""

    def _once_more(self) -> None:
        self.cells = dict(self.all)
        for name in self.died:
            number = self.judged.pop(name)
            self.asked.discard((name, number))
            del self.found[name]
        self.died.clear()

    def _ahead(self) -> Iterator[int]:
        """The cells whose code names an exercise which is not done, after its last verdict."""
        for name, function in self.exercises.items():
            if self._verdict(name) != "done":
                after = self.judged.get(name, 0)
                yield from (n for n in self.cells if n > after and not self.words[n].isdisjoint((name, function)))

    def _through(self, kernel: Kernel) -> None:
        """Run the cells for as long as an exercise that is not done is still ahead."""
        wanted = set(self.cells)
        if self.deaths > 1:
            wanted = set(self._ahead())
            wanted |= reduced.needed(self.cells, wanted)
        for number, source in [cell for cell in self.cells.items() if cell[0] in wanted]:
            if number > max(self._ahead(), default=0):
                break
            self.tell(f"cell {number} of {len(self.all)}")
            for name in self._given(kernel, number, source):
                if name in self.exercises and (name, number) not in self.asked:
                    self._judge(kernel, name, number)
        for name in self.exercises:  # defined, but not given to the check, or defined once more after it
            if self._verdict(name) in UNJUDGED:
                self._judge(kernel, name, len(self.all) + 1)

    def _given(self, kernel: Kernel, number: int, source: str) -> list[str]:
        """Run a cell: the checks that it gave a function."""
        try:
            trouble = kernel.run(source)
            names = _noted(kernel)
        except Died as death:
            del self.cells[number]
            self.died |= self._crashed(number, source, str(death))
            raise
        if trouble:
            self._crashed(number, source, trouble)
        if trouble.startswith(LATE):
            del self.cells[number]
        return names

    def _crashed(self, number: int, source: str, trouble: str) -> set[str]:
        names = set()
        for name, function in self.exercises.items():
            if self.judged.get(name, 0) < number and re.search(rf"\bchecks\.{name}\b|\bdef {function}\b", source):
                self.found[name] = _failed(f"cell {number}: ", trouble)
                self.judged[name] = number
                names.add(name)
        return names

    def _judge(self, kernel: Kernel, name: str, number: int) -> None:
        self.asked.add((name, number))
        self.judged[name] = number
        try:
            if number <= len(self.all) or kernel.ask(f"last({name!r}, {self.exercises[name]!r})")[1] is True:
                self.found[name] = verdict(kernel, name)
                _noted(kernel)
        except Died as death:
            self.found[name] = _failed("its function was called, and ", str(death))
            self.died.add(name)
            raise


def _noted(kernel: Kernel) -> list[str]:
    """The checks that were given a function since this was asked last. Raises Died for a kernel that does not say."""
    names = kernel.ask("noted()")[1]
    if not isinstance(names, list):
        raise Died("the kernel answers no questions any more")
    return [name for name in names if isinstance(name, str)]


def _failed(where: str, trouble: str) -> Finding:
    return Finding("timed out" if trouble.startswith(LATE) else "crashed", where + trouble)


def verdict(kernel: Kernel, name: str) -> Finding:
    """The verdict on the function that a check was given: on the check's own cases, then on others of the same kind.

    A wrong answer earns points by the others alone: a table of the known answers earns none.
    """
    import torch

    from vqlearn.course.checks import EXERCISES

    generator = torch.Generator()
    generator.seed()
    own, others = EXERCISES[name], EXERCISES[name].varied(generator)
    trouble, first = kernel.ask(f"answers({name!r}, {_packed(own)!r})")
    if trouble:
        return _failed("its function was called, and ", trouble)
    found, detail = judged(own, first)
    if found == "not attempted":
        return Finding(found, detail)
    trouble, second = kernel.ask(f"answers({name!r}, {_packed(others)!r})")
    if found != "done":
        return Finding(found, detail, 0.0 if trouble else MOST * share(others, second))
    if trouble:
        return _failed("its function was called, and ", trouble)
    if judged(others, second)[0] != "done":
        return Finding("wrong", TABLE, MOST * share(others, second))
    uses = dict.fromkeys(map(str, [*first["uses"], *second["uses"]]))
    return Finding("done", f"its function {', '.join(uses)}" if uses else "", 1.0)


def _packed(check: Check) -> str:
    from vqlearn.course.outcomes import packed_argument

    return json.dumps([[packed_argument(value) for value in case] for case in check.cases])


def judged(check: Check, said: Any) -> tuple[str, str]:
    """The verdict of a check, and its reason, from what a kernel says that a function did on the check's cases."""
    from vqlearn.course.outcomes import unpacked

    try:
        verdict = check.verdict([unpacked(outcome) for outcome in said["outcomes"]])
    except Exception as error:  # outcomes of a form that no desk sends
        return "crashed", f"its answers could not be judged: {type(error).__name__}"
    return ("done", "") if verdict.status == "right" else (verdict.status, verdict.reason)


def share(check: Check, said: Any) -> float:
    """How many of a check's cases a function answers right, as a share, from what a kernel says that it did."""
    from vqlearn.course.outcomes import unpacked

    try:
        found = zip(check.cases, map(unpacked, said["outcomes"]), strict=False)  # none after an exception
        right = [replace(check, cases=[case]).verdict([outcome]).status == "right" for case, outcome in found]
    except Exception:  # outcomes of a form that no desk sends
        return 0.0
    return sum(right) / len(check.cases)
