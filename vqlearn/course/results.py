"""The stored results of the experiments, which notebooks read; a wheel carries them as the notebooks themselves."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqlearn import assets
from vqlearn.data.files import replaced

PACKAGE = assets.FOLDER.parent
FOLDERS = PACKAGE / "course_results", PACKAGE.parent / "experiments" / "results"  # in a wheel, in a clone
WORDS = {"setting", "device", "shape"}  # the columns that hold no numbers
Row = dict[str, Any]


def load(name: str) -> list[Row]:
    """The rows of an experiment, such as "kernels": their setting, seed and figures.

    Raises FileNotFoundError for a name without stored results, naming those that there are.
    """
    folder = next(filter(Path.is_dir, FOLDERS), FOLDERS[-1])
    rows = read(folder / f"{name}.csv")
    if not rows:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.csv"))) or "none"
        raise FileNotFoundError(f"no results of an experiment {name!r} are stored; there are: {known}")
    return rows


def read(path: Path) -> list[Row]:
    """The rows of a CSV file, none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: value if name in WORDS else float(value) for name, value in row.items() if value != ""}
            for row in csv.DictReader(file)
        ]


def save(path: Path, rows: list[Row]) -> None:
    """Write rows as CSV, their figures rounded to six digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replaced(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()} for row in rows)


def by_setting(rows: Sequence[Row], figure: str) -> dict[str, list[float]]:
    """The values of a figure for every setting, in the order of the seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["seed"]):
        if figure in row:
            found[row["setting"]].append(row[figure])
    return found
