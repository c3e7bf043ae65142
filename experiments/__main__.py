"""Put claims to the test.

    python -m experiments kernels            one claim: train what is missing, measure, judge
    python -m experiments all                all nine, in a night on two cores
    python -m experiments all --size small   in minutes, to see how it works: few updates
    python -m experiments all --report       judge the stored results again, train nothing

Rows are kept in `experiments/results/NAME.csv` after each seed, trained models in `experiments/models`; the same
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments import report
from experiments.claims import CLAIMS, Claim
from experiments.models import FULL, MINIATURE, SMALL, Lab, Size
from vqlearn.course.results import Row, read, save

HERE = Path(__file__).parent
SIZES = {"full": FULL, "small": SMALL, "miniature": MINIATURE}


def run(claim: Claim, lab: Lab, results: Path) -> list[Row]:
    """The rows of a claim: those that are stored, and the seeds that are missing."""
    path = results / f"{claim.name}.csv"
    rows = read(path)
    for seed in range(lab.size.seeds):
        if all(row["seed"] != seed for row in rows):
            rows += [{"setting": setting, "seed": seed, **found} for setting, found in claim.measure(lab, seed)]
            save(path, rows)
    return read(path)


def publish(claim: Claim, rows: list[Row], results: Path) -> None:
    """Print the verdict of a claim, and store it with its figure."""
    text = report.summary(claim, rows)
    print(text, flush=True)
    (results / f"{claim.name}.txt").write_text(text + "\n", encoding="utf-8")
    report.figure(claim, rows).savefig(results / f"{claim.name}.png", dpi=100)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=[*CLAIMS, "all"])
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--report", action="store_true", help="judge what is stored, and train nothing")
    parser.add_argument("--folder", type=Path, default=HERE, help="where models and results are kept")
    chosen = parser.parse_args(arguments)
    part = "" if chosen.size == "full" else f"-{chosen.size}"
    results = chosen.folder / f"results{part}"
    results.mkdir(parents=True, exist_ok=True)
    size: Size = SIZES[chosen.size]
    lab = Lab(size, chosen.folder / f"models{part}")
    for claim in CLAIMS.values() if chosen.name == "all" else [CLAIMS[chosen.name]]:
        rows = read(results / f"{claim.name}.csv") if chosen.report else run(claim, lab, results)
        if rows:
            publish(claim, rows, results)


if __name__ == "__main__":
    main()
