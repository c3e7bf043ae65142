"""A run: steps with a progress bar, a log and checkpoints, that can be interrupted, killed and gone on with exactly."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from vqlearn.arguments import shown, whole
from vqlearn.checkpoints.parts import check_path
from vqlearn.data.files import replaced
from vqlearn.training import checkpoint, processes
from vqlearn.training.checkpoint import Stage
from vqlearn.training.process import locked, stops

NEEDED = ("recipe", "step", "settings", "state_dict", "load_state_dict")  # of a stage


def fit(stage: Stage, folder: str | Path, *, save_every: int = 500, progress: bool = True) -> None:
    """Run a stage to the end of its recipe in `folder`, going on from the checkpoint there if there is one.

    Writes `checkpoint.pt` and `log.csv`. Ctrl-C, SIGTERM and SIGHUP finish the step, save and raise KeyboardInterrupt,
    a second Ctrl-C raises it at once. Where a process that loads data dies the run is saved, too, and ChildProcessError
    says so. Whatever else is raised leaves the last checkpoint as it was: FloatingPointError for weights or a loss that
    are not finite, ValueError for a checkpoint of another recipe, OSError for one that is damaged and for a folder that
    another training or evaluation uses, that cannot be written or that was deleted meanwhile. Of several processes
    (`processes`) the first writes, all stop together, and where one ends before the others these raise
    ChildProcessError.
    """
    save_every, folder = whole("save_every", save_every), Path(check_path("folder", folder)).absolute()
    if lacking := [name for name in NEEDED if not hasattr(stage, name)]:
        raise TypeError(f"a stage has {', '.join(NEEDED)}, and {shown(stage)} has no {lacking[0]}")
    with locked(folder) as check:
        run = _Run(stage, folder, check)
        steps = stage.recipe.steps
        quiet = not progress or processes.rank() > 0
        bar = tqdm(total=steps, initial=run.number, disable=quiet, desc=folder.name, unit="step")
        try:
            with stops() as come:
                while run.number < steps and not run.stop:
                    if (figures := run.step(come)) is None:
                        break
                    if run.stop or run.number % save_every == 0 or run.number == steps:
                        run.save()
                    with contextlib.suppress(OSError):  # a terminal that is gone
                        bar.set_postfix(loss=f"{figures['loss']:.4f}", refresh=False)
                        bar.update()
            if run.stop or come:
                raise KeyboardInterrupt(f"stopped: {run.kept}")
        finally:
            run.close()
            bar.close()


class _Run:
    """How far a stage is, on the way and in its folder."""

    def __init__(self, stage: Stage, folder: Path, check: Callable[[], None]):
        self.stage, self.folder, self.check = stage, folder, check
        checkpoint.contents(stage, 0)  # what could not be saved is found now
        self.number = self.saved = checkpoint.load(stage, folder)
        self.stop = False
        if processes.means([self.number]) != [self.number]:
            raise OSError(f"not all processes see the checkpoint in {folder}: it must be on a disk that they share")
        try:
            self.log = None if processes.rank() else _Log(folder / "log.csv", self.number)
        except OSError as error:
            raise OSError(self._why(error)) from None

    def step(self, come: list[int]) -> dict[str, float] | None:
        """One step, or None where a signal to stop, which has `come`, has ended the processes that load data."""
        try:
            figures = self.stage.step(self.number)
            self.stop = processes.any_of(bool(come))  # asked once: what comes later waits for the next step
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}: training stopped, {self.kept}") from None
        except ChildProcessError as error:
            if processes.count() == 1 and self.number > self.saved:  # before anything has changed
                self.save()
            if processes.count() == 1 and come:
                return None
            raise ChildProcessError(f"{error}: training stopped, {self.kept}") from None
        self.number += 1
        if self.log:
            self.log.add(self.number, figures)
        return figures

    def save(self) -> None:
        try:
            self.check()
            if self.log:
                self.log.write()  # it never lags behind the checkpoint
            checkpoint.save(self.stage, self.folder, self.number)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} after step {self.number}: training stopped, {self.kept}") from None
        except OSError as error:
            kind = ChildProcessError if isinstance(error, ChildProcessError) else OSError
            raise kind(f"{self._why(error)}: training stopped after step {self.number}, {self.kept}") from None
        self.saved = self.number

    def _why(self, error: OSError) -> str:
        return str(error) if error.errno is None else f"{self.folder} cannot be written ({error.strerror})"

    def close(self) -> None:
        """Write what the log lacks, where that can be done."""
        with contextlib.suppress(OSError):
            self.check()
            if self.log:
                self.log.write()

    @property
    def kept(self) -> str:
        """What there is to go on from."""
        if self.saved and (self.folder / checkpoint.NAME).exists():
            return f"the checkpoint of step {self.saved} is kept in {self.folder}"
        return f"there is no checkpoint in {self.folder}"


class _Log:
    """A CSV of one row per step; rows after the checkpoint that a run goes on from are dropped first."""

    def __init__(self, path: Path, start: int):
        self.path, self.rows = path, _rows(path, start) if start and path.is_file() else []
        self.empty = not self.rows
        with replaced(path) as part:
            self._append(part)

    def add(self, number: int, figures: dict[str, float]) -> None:
        if self.empty:
            self.rows.append(["step", *figures])
            self.empty = False
        self.rows.append([number, *figures.values()])

    def write(self) -> None:
        self._append(self.path)

    def _append(self, path: Path) -> None:
        rows, self.rows = self.rows, []
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def _rows(path: Path, last: int) -> list[list[Any]]:
    """The head of a log and its whole rows up to a step."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            head, *rows = list(csv.reader(file)) or [[]]
        return [head, *(row for row in rows if len(row) == len(head) and row[0].isdecimal() and int(row[0]) <= last)]
    except (csv.Error, ValueError):
        raise OSError(f"{path} is no table of a training; delete it, or choose another folder") from None
