"""Writes what benchmarks keep, and the names of the samplers, into the pages: `python -m tests.benchmarks.docs`.

Nothing is measured here. A test says when a page shows something else than what is kept.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable

from tests import pages
from tests.benchmarks import plan, samplers
from vqlearn import SAMPLERS


def names() -> str:
    """All samplers, with the first sentence of what their classes say."""
    lines = ["| name | what it does |", "|---|---|"]
    for name, sampler in SAMPLERS.items():
        text = " ".join((inspect.getdoc(type(sampler)) or "").split("\n\n")[0].split())
        sentence = re.split(r"(?<=[^.]\.) (?=[A-Z])", text)[0].rstrip(".").replace("|", "\\|")
        lines.append(f"| `{name}` | {sentence} |")
    return "\n".join(lines)


def speed() -> str:
    """Guided steps beside diffusers."""
    kept = json.loads((samplers.RESULTS.parent / "speed.json").read_text(encoding="utf-8"))
    lines = ["| guided step | diffusers | vqlearn | ratio | command |", "|---|---|---|---|---|"]
    for row in kept["steps"]:
        spread = f" ({row['least']:.2f} to {row['most']:.2f})" if "least" in row else ""
        lines.append(
            f"| {row['what']} | {row['diffusers_s']:g} s | {row['vqlearn_s']:g} s | {row['ratio']:.2f}{spread} "
            f"| `{row['command']}` |"
        )
    lines += ["", *(f"- {row['what']}: {row['value']} (`{row['command']}`)" for row in kept["others"])]
    return "\n".join(lines)


def soak() -> str:
    """Runs that were killed again and again."""
    kept = json.loads((samplers.RESULTS.parent / "soak.json").read_text(encoding="utf-8"))
    lines = ["| processes | SIGKILLs | before an update | in the codec's training | in the denoiser's | at the end |"]
    lines.append("|---|---|---|---|---|---|")
    for row in kept["runs"]:
        equal = "equal, bit for bit" if row["equal"] else "**not equal**"
        which = f"{row['processes']}{', weights shared out' if row['shared'] else ''}"
        lines.append(f"| {which} | {row['kills']} | {row['before']} | {row['codec']} | {row['denoiser']} | {equal} |")
    return "\n".join(lines)


def printed(name: str) -> str:
    """What `vqlearn evaluate` has printed."""
    return (samplers.RESULTS.parent / name).read_text(encoding="utf-8").strip()


SECTIONS: dict[tuple[str, str], Callable[[], str]] = {
    ("samplers.md", "names"): names,
    ("samplers.md", "samplers"): lambda: samplers.table(json.loads(samplers.RESULTS.read_text(encoding="utf-8"))),
    ("speed.md", "speed"): speed,
    ("many_machines.md", "picture"): plan.figures,
    ("many_machines.md", "plan"): plan.tables,
    ("many_machines.md", "soak"): soak,
    ("model.md", "evaluate"): lambda: printed("evaluate.md"),
    ("emoji.md", "evaluate"): lambda: printed("evaluate-emoji.md"),
}


def main() -> None:
    for (page, section), text in SECTIONS.items():
        pages.write(pages.DOCS / page, section, text())


if __name__ == "__main__":
    main()
