"""How long a class takes to mark: `python -m tests.benchmarks.marking --learners 60`.

Every learner hands in the course as `vqlearn course copy --exercises-only` gives it, with the folded solution in each
stub. They are marked by `vqlearn course check`, one learner for each processor at a time. The time depends on the
machine and on what else it does; seconds of processor are printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from vqlearn.course import copying
from vqlearn.course.exercises import exercises


def hand_in(folder: Path) -> int:
    """Write a learner's notebooks with every exercise solved: how many there are."""
    solutions = {path.name: exercises(copying.read(path).cells) for path in copying.notebooks()}
    list(copying.copy(folder, exercises_only=True))
    for name, asked in solutions.items():
        if not asked:
            continue
        book = nbformat.read(folder / name, 4)
        for exercise in asked:
            stub = next(cell for cell in book.cells if f"checks.{exercise.check}(" in cell.source)
            stub.source = f"{exercise.solution}\n\n\nchecks.{exercise.check}({exercise.function})"
        nbformat.write(book, folder / name)
    return sum(map(len, solutions.values()))


def mark(folder: Path) -> tuple[float, float, list[dict]]:
    """Seconds by the clock and of processor, and the class as JSON."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "vqlearn", "course", "check", str(folder), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - begun, spent, json.loads(done.stdout)["learners"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.marking", description=__doc__.partition("\n")[0])
    parser.add_argument("--learners", type=int, default=60)
    learners = parser.parse_args().learners
    with tempfile.TemporaryDirectory() as place:
        asked = hand_in(Path(place, "learner-01"))
        for number in range(2, learners + 1):
            shutil.copytree(Path(place, "learner-01"), Path(place, f"learner-{number:02}"))
        seconds, spent, said = mark(Path(place))
    print(f"{learners} learners, {asked} exercises each, {os.cpu_count()} processors")
    print(
        f"{seconds / 60:.1f} minutes by the clock, {spent / 60:.1f} of processor; {seconds / learners:.1f} s a learner"
    )
    print(f"{sum(one['totals']['done'] for one in said)} of {learners * asked} exercises are marked as done")


if __name__ == "__main__":
    main()
