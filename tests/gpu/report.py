"""The results as Markdown, and the section of docs/speed.md that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vqlearn.course import results

from .. import pages

PAGE, SECTION = pages.DOCS / "speed.md", "gpu"
NONE = (
    "No GPU has run this package yet. `python -m tests.gpu --minutes 9 --out DIR` is what will be measured on one; the "
    "tests rehearse it on a CPU."
)


RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "gpu"  # those that are committed
STEPS = results.FOLDERS[-1] / "gpu.csv"  # the guided steps, where notebook 10 finds them


def report(folder: Path) -> str:
    """A table made of the JSON files of a run; what a run on a CPU left there is no result."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    parts = {name: part for name, part in found.items() if part["machine"]["card"]}
    if not parts:
        return NONE
    machine = next(iter(parts.values()))["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "diffusers") if machine[name])
    lines = [f"Measured on one {machine['card']} on {machine['date']} ({versions}) by `python -m tests.gpu`."]
    for name, section in (("correctness", correctness), ("full", full), ("training", training)):
        if name in parts:
            lines += ["", *section(parts[name])]
            if not parts[name]["complete"]:
                lines += ["", "This part was cut off, or had no time for all of its rows."]
    return "\n".join(lines)


def correctness(part: dict[str, Any]) -> list[str]:
    """How many tests passed, and which did not."""
    rows = part["rows"]
    failed = [row["test"] for row in rows if row["outcome"] != "passed"]
    line = f"Of {len(rows)} tests that a GPU does what a CPU does, {len(rows) - len(failed)} passed."
    return [line + (f" Not: {', '.join(f'`{name}`' for name in failed)}." if failed else "")]


def full(part: dict[str, Any]) -> list[str]:
    """The table of guided steps, whole pictures, and the bars."""
    rows = [row for row in part["rows"] if "error" not in row]
    lines = [
        "Published size (random weights), guided steps with truncation, diffusers beside it in turns:", "",
        "| guided step | vqlearn, ms | diffusers, ms | times as fast | outside the network | of the products' rate "
        "| beyond the weights, MB |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in (row for row in rows if "ours_s" in row and row["what"] == "step"):
        theirs, ratio = (f"{1e3 * row['theirs_s']:.1f}", f"{row['ratio']:.2f}") if "ratio" in row else ("", "")
        lines.append(
            f"| {row['dtype']}, batch {row['batch']}, {row['mode']} | {1e3 * row['ours_s']:.1f} | {theirs} | {ratio} "
            f"| {row['outside']:.1%} | {row['of_rate']:.0%} | {row['peak_MB']} |"
        )
    lines += ["", *pictures([row for row in rows if row["what"] == "pictures"]), *bars(part["bars"])]
    failed = [f"{row['what']} ({row.get('mode', '')}): {row['error']}" for row in part["rows"] if "error" in row]
    return lines + ([f"Rows that failed: {'; '.join(failed)}."] if failed else [])


def pictures(rows: list[dict[str, Any]]) -> list[str]:
    """Whole pictures per second, one line per batch."""
    found: dict[str, list[str]] = {}
    for row in rows:
        name = f"batch {row['batch']} ({row['dtype']}, {row['mode']})"
        found.setdefault(name, []).append(f"{row['per_second']:.2f} at {row['steps']} steps")
    return [f"Pictures per second, {name}: {', '.join(values)}.\n" for name, values in found.items()]


def bars(found: list[dict[str, Any]]) -> list[str]:
    """Which bars are met."""
    return [f"- {bar['bar']}: {bar['value']:.3g}, {'met' if bar['met'] else 'not met'}" for bar in found]


def training(part: dict[str, Any]) -> list[str]:
    """How long the model learned, and how good it is."""
    updates = [row for row in part["rows"] if row["what"] == "updates"]
    read = [row for row in part["rows"] if row["what"] == "read back"]
    lines = []
    if updates:
        last = updates[-1]
        learned = f"{last['number']} updates, {last['pictures']} pictures and {last['seconds']:.0f} s"
        lines.append(f"The shipped model's denoiser was trained for {learned}.")
    for row in read:
        lines.append(
            f"At {row['num_inference_steps']} steps, guidance {row['guidance_scale']:g} and truncation rate "
            f"{row['truncation_rate']:g}, {row['all']:.1%} ± {row['margin']:.1%} of its pictures of {row['pictures']} "
            "captions of the test split are right in every part."
        )
    for row in part["rows"]:
        if row["what"] == "data":
            lines.append(
                f"Scenes with tokens and texts: {row['scenes_per_second']:,} a second; ideal predictions: "
                f"{row['ideal_predictions_per_second']:,} a second."
            )
    return lines


def guided_steps(folder: Path) -> list[results.Row]:
    """What notebook 10 shows: seconds of a guided step of the published size, and the share of the products' rate."""
    full = json.loads((folder / "full.json").read_text(encoding="utf-8"))
    return [
        {"setting": f"{row['dtype']}, {row['mode']}", "device": full["machine"]["card"], "batch": row["batch"],
         "seconds": row["ours_s"], "of_rate": row["of_rate"]}
        for row in full["rows"]
        if "ours_s" in row
    ]  # fmt: skip


def write(page: Path, folder: Path, steps: Path = STEPS) -> None:
    """Put the report into its section of the page, and the guided steps into a file."""
    pages.write(page, SECTION, report(folder))
    results.save(steps, guided_steps(folder))
