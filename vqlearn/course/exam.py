"""One learner's notebook, cell by cell: each exercise's verdict, whatever the cells do to their kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from vqlearn.course import copying
from vqlearn.course.kernel import Died, Kernel, NotStarted

if TYPE_CHECKING:
    from vqlearn.course.checks import Check

Found = dict[str, tuple[str, str]]  # exercise -> verdict and detail
TABLE = "right for the cases that the notebook's check asks, not for others of the same kind"
UNJUDGED = "", "not attempted", "wrong"


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
        tell: Callable[[str], None],
    ) -> None:
        self.cells, self.exercises, self.start, self.tell = dict(enumerate(cells, start=1)), exercises, start, tell
        self.all = dict(self.cells)
        self.deaths = 0
        self.found: Found = {}
        self.judged: dict[str, int] = {}  # exercise -> the cell that its verdict is about
        self.asked: set[tuple[str, int]] = set()  # exercises and the cells that gave a function to their check
        self.died: set[str] = set()  # exercises at which a kernel died

    def run(self) -> Found:
        """The verdict on each exercise, and its reason."""
        while upto := max(self._ahead(), default=0):
            try:
                with self.start() as kernel:
                    self._through(kernel, upto)
                break
            except Died:  # what it was is noted, and not tried again
                self.deaths += 1
                if self.deaths == 2:
                    self._once_more()
            except NotStarted as trouble:
                self.found = {name: ("crashed", f"not reached: {trouble}") for name in self.exercises} | self.found
                break
        absent = {n: ("not attempted", f"the notebook defines no function {f}") for n, f in self.exercises.items()}
        return absent | self.found

    def _once_more(self) -> None:
        self.cells = dict(self.all)
        for name in self.died:
            number = self.judged.pop(name)
            self.asked.discard((name, number))
            del self.found[name]
        self.died.clear()

    def _ahead(self) -> Iterator[int]:
        """The cells that name an exercise which is not done, after its last verdict."""
        for name, function in self.exercises.items():
            if self.found.get(name, ("",))[0] != "done":
                names = re.compile(rf"\b(?:{name}|{function})\b")
                yield from (n for n, text in self.cells.items() if n > self.judged.get(name, 0) and names.search(text))

    def _through(self, kernel: Kernel, upto: int) -> None:
        wanted = set(range(1, upto + 1))
        if self.deaths > 1:
            wanted = set(self._ahead())
            wanted |= copying.needed(self.cells, wanted)
        for number, source in [cell for cell in self.cells.items() if cell[0] in wanted]:
            self.tell(f"cell {number} of {len(self.all)}")
            for name in self._given(kernel, number, source):
                if name in self.exercises and (name, number) not in self.asked:
                    self._judge(kernel, name, number)
        for name in self.exercises:  # defined, but not given to the check, or defined once more after it
            if self.found.get(name, ("",))[0] in UNJUDGED:
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
        if trouble.startswith("it ran longer"):
            del self.cells[number]
        return names

    def _crashed(self, number: int, source: str, trouble: str) -> set[str]:
        names = set()
        for name, function in self.exercises.items():
            if self.judged.get(name, 0) < number and re.search(rf"\bchecks\.{name}\b|\bdef {function}\b", source):
                self.found[name] = "crashed", f"cell {number}: {trouble}"
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
            self.found[name] = "crashed", f"its function was called, and {death}"
            self.died.add(name)
            raise


def _noted(kernel: Kernel) -> list[str]:
    """The checks that were given a function since this was asked last. Raises Died for a kernel that does not say."""
    names = kernel.ask("noted()")[1]
    if not isinstance(names, list):
        raise Died("the kernel answers no questions any more")
    return [name for name in names if isinstance(name, str)]


def verdict(kernel: Kernel, name: str) -> tuple[str, str]:
    """The verdict on the function that a check was given: on the check's own cases, then on others of the same kind."""
    import torch

    from vqlearn.course.checks import EXERCISES

    generator, uses = torch.Generator(), dict[str, None]()
    generator.seed()
    for check in (EXERCISES[name], EXERCISES[name].varied(generator)):
        trouble, said = kernel.ask(f"answers({name!r}, {_packed(check)!r})")
        if trouble:
            return "crashed", f"its function was called, and {trouble}"
        found, detail = judged(check, said)
        if found != "done":
            return (found, detail) if check is EXERCISES[name] else ("wrong", TABLE)
        uses |= dict.fromkeys(map(str, said["uses"]))
    return "done", f"its function {', '.join(uses)}" if uses else ""


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
