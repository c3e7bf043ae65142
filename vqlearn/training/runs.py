"""A run: steps with a progress bar, a log and checkpoints, that can be interrupted, killed and gone on with exactly."""

from __future__ import annotations

import csv
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from tqdm.auto import tqdm

from vqlearn.data.files import replaced


class Stage(Protocol):
    """What a run needs of what learns: numbered steps, all of its state, how many steps there are, and its settings."""

    recipe: Any  # with `steps`

    def step(self, number: int) -> dict[str, float]: ...
    def settings(self) -> dict[str, Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def fit(stage: Stage, folder: str | Path, *, save_every: int = 500, progress: bool = True) -> None:
    """Run a stage to the end of its recipe in `folder`, going on from the checkpoint there if there is one.

    Writes `checkpoint.pt` and `log.csv`, each in one move. Ctrl-C finishes the step, saves and raises
    KeyboardInterrupt; weights or a loss that are not finite raise FloatingPointError and leave the last checkpoint as
    it was. Raises ValueError when the checkpoint is of another recipe and OSError when it cannot be read.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    number = saved = _resume(stage, folder)
    steps = stage.recipe.steps
    log = _Log(folder / "log.csv", number)
    bar = tqdm(total=steps, initial=number, disable=not progress, desc=folder.name, unit="step")
    try:
        with _interruptible() as interrupted:
            while number < steps:
                figures = stage.step(number)
                number += 1
                log.write(number, figures)
                bar.update()
                bar.set_postfix(loss=f"{figures['loss']:.4f}", refresh=False)
                if number % save_every == 0 or number == steps or interrupted:
                    log.flush()  # the log never lags behind the checkpoint
                    save_checkpoint(stage, folder, number)
                    saved = number
                if interrupted:
                    raise KeyboardInterrupt
    except FloatingPointError as error:
        kept = f"the checkpoint of step {saved} is kept in {folder}" if saved else "no checkpoint had been saved yet"
        raise FloatingPointError(f"{error}: training stopped, {kept}") from None
    finally:
        bar.close()
        log.close()


def save_checkpoint(stage: Stage, folder: Path, number: int) -> None:
    """Write all of a stage's state, if it is finite; the old checkpoint is kept until the new one is whole."""
    state = stage.state_dict()
    if not _finite(state):
        raise FloatingPointError(f"the weights are no longer finite after step {number}")
    with replaced(folder / "checkpoint.pt") as part:
        torch.save({"step": number, "recipe": stage.settings(), "state": state}, part)


def _finite(state: Any) -> bool:
    if isinstance(state, dict):
        return all(_finite(value) for value in state.values())
    return not isinstance(state, torch.Tensor) or bool(torch.isfinite(state).all())


def _resume(stage: Stage, folder: Path) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        step, recipe, state = saved["step"], saved["recipe"], saved["state"]
    except Exception as error:  # torch.load raises many kinds
        raise OSError(
            f"{path} cannot be read ({type(error).__name__}); delete it to begin anew, or choose another folder"
        ) from None
    for name, ours in stage.settings().items():
        if recipe.get(name) != ours:
            raise ValueError(
                f"{path} was made with {name} = {recipe.get(name)!r}, now it is {ours!r}; choose another folder"
            )
    try:
        stage.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError):
        raise OSError(f"{path} holds another network than this one; choose another folder") from None
    return step


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Collects a first Ctrl-C in a list instead of raising it in the middle of a step; a second one raises at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


class _Log:
    """A CSV of one row per step; rows after the checkpoint that a run goes on from are dropped first."""

    def __init__(self, path: Path, start: int):
        kept: list[list[str]] = []
        if path.exists() and start:
            with path.open(newline="", encoding="utf-8") as file:
                kept = list(csv.reader(file))[: start + 1]
        with replaced(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(kept)
        self.file = path.open("a", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file)
        self.empty = not kept

    def write(self, number: int, figures: dict[str, float]) -> None:
        if self.empty:
            self.writer.writerow(["step", *figures])
            self.empty = False
        self.writer.writerow([number, *figures.values()])

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()
