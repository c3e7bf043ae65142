"""Draws the pictures in figures/, `python -m tests.figures`: those that are stale, or with --all every one.

A figure is stale when what it is made of has changed: code (without comments and docstrings) or the shipped model.
`figures/figures.json` keeps a digest of that and of the file, and `tests/test_figures.py` compares.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import sys
import textwrap
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "figures"
NOTES = FOLDER / "figures.json"
MODEL = "models/scenes"
CAPTION = "a large red circle left of a small blue square"  # the README's
CAPTIONS = (CAPTION, "a small yellow star above a large green cross")
MATHEMATICS = ("schedule", "transition", "sampling", "unmasking")
SYSTEM = (MODEL, *MATHEMATICS, "guidance", "pipeline", "transformer", "vqvae", "conditioning")
STEPS = (1, 2, 3, 4, 5, 6, 10, 25, 50, 100)


class Made(NamedTuple):
    """How a figure is drawn, and of what: rooms of the package, functions of a room, folders of a model."""

    draw: Callable[[Path], None]
    of: tuple[str, ...]


def first(path: Path) -> None:
    """The picture that the README's first command writes."""
    from vqlearn.__main__ import main

    if main(["generate", CAPTION, "--out", str(path)]):
        raise SystemExit("vqlearn generate failed")


def schedules(path: Path) -> None:
    """The two published schedules, side by side."""
    from vqlearn import MaskReplaceSchedule, plots

    both = MaskReplaceSchedule.paper(num_codes=4096), MaskReplaceSchedule.released(num_codes=4096)
    _save(plots.schedule_curves(*both, titles=["as the paper says", "as the code was released"]), path)


def samplers(path: Path) -> None:
    """One seed through each sampler: two captions, ten steps."""
    import torch

    from vqlearn import VQDiffusionPipeline, plots
    from vqlearn.pipeline import SAMPLERS

    pipe = VQDiffusionPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    names = [name for name in SAMPLERS if name != "first_hitting"]  # for schedules without replacement alone

    def row(caption: str) -> list:
        seeds = [torch.Generator().manual_seed(0) for _ in names]
        calls = zip(names, seeds, strict=True)
        return [pipe(caption, num_inference_steps=10, generator=seed, sampler=name).images[0] for name, seed in calls]

    titles = [name.replace("_", "\n") for name in names]
    figure = plots.album([row(caption) for caption in CAPTIONS], pipe.schedule.mask_id, titles=titles, size=1.15)
    _save(plots.name_rows(figure, [textwrap.fill(caption, 18) for caption in CAPTIONS]), path)


def exactness(path: Path) -> None:
    """Exact total variation to the data against network calls, with a perfect denoiser on a tiny joint."""
    from matplotlib.figure import Figure

    from vqlearn import MaskReplaceSchedule, exact, strided_times
    from vqlearn.pipeline import SAMPLERS

    joint = exact.markov_chain(num_codes=2, length=6, stay=0.9)
    looks = zip(("#000000", "#E69F00", "#0072B2", "#CC79A7", "#009E73", "#56B4E9", "#D55E00"), "oXsDv^P", strict=True)
    # not shown: first_hitting, which has the law of ancestral, and corrector, whose line is almost the same
    looks = dict(zip((n for n in SAMPLERS if n not in ("corrector", "first_hitting")), looks, strict=True))
    figure = Figure(figsize=(9.2, 3.9), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, kind, whose in zip(panels, ("released", "paper"), ("released", "paper's"), strict=True):
        schedule = getattr(MaskReplaceSchedule, kind)(num_codes=2, num_steps=100)
        denoise = exact.oracle(joint, schedule)
        for name, (color, marker) in looks.items():
            found = [exact.outcome(SAMPLERS[name], denoise, schedule, 6, strided_times(100, n)) for n in STEPS]
            points = {round(f.calls, 2): exact.total_variation(f.law, joint) for f in reversed(found)}
            x, y = zip(*sorted(points.items()), strict=True)
            line = "--" if name == "official_fast" else "-"
            ax.plot(x, y, line, color=color, marker=marker, markersize=5, linewidth=1.6, label=name, clip_on=False)
        ax.set(title=f"the {whose} schedule", xlabel="network calls", xscale="log")
        ax.set_yscale("symlog", linthresh=0.005, linscale=0.4)
        ax.set_ylim(0, 0.8)
        ax.set_xticks((1, 2, 3, 6, 10, 25, 50, 100), (1, 2, 3, 6, 10, 25, 50, 100))
        ax.set_yticks((0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5), ("0", 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5))
        ax.minorticks_off()
        ax.grid(axis="y")
    panels[0].set_ylabel("total variation to the data")
    names = {"ancestral": "ancestral (and first_hitting)"}
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, [names.get(label, label) for label in labels], loc="outside lower center", ncols=4)
    _save(figure, path)


def _save(figure, path: Path) -> None:
    figure.savefig(path, facecolor="white", metadata={"Software": None})


FIGURES = {
    "first.png": Made(first, (*SYSTEM, "__main__._generate")),
    "schedules.png": Made(schedules, ("schedule", "plots.schedule_curves")),
    "samplers.png": Made(samplers, (*SYSTEM, "plots.album", "plots.name_rows")),
    "exactness.png": Made(exactness, (*MATHEMATICS, "exact")),
}


def digest(name: str) -> str:
    """A digest of all that a figure is made of."""
    made, found = FIGURES[name], hashlib.sha256()
    parts = [essence(_function(Path(__file__), made.draw.__name__))]
    for part in made.of:
        path = ROOT / "vqlearn" / part
        room, _, function = part.partition(".")
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".md")
            parts += [f"{f.relative_to(path).as_posix()} {hashlib.sha256(f.read_bytes()).hexdigest()}" for f in files]
        elif function:
            parts.append(essence(_function(path.with_name(f"{room}.py"), function)))
        else:
            parts.append(essence(path.with_suffix(".py").read_text(encoding="utf-8")))
    for part in parts:
        found.update(part.encode() + b"\0")
    return found.hexdigest()


def essence(source: str) -> str:
    """Source without comments, docstrings and blank lines, the same for every version of Python."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        kinds = ast.Module, ast.ClassDef, ast.FunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [""] * (text.end_lineno - text.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _function(path: Path, name: str) -> str:
    source = path.read_text(encoding="utf-8")
    return next(
        ast.get_source_segment(source, node)
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )


def stale(name: str) -> str:
    """Why a figure has to be drawn anew; empty if it has not."""
    known = json.loads(NOTES.read_text(encoding="utf-8")) if NOTES.exists() else {}
    if not (FOLDER / name).is_file():
        return "there is no such file"
    if name not in known:
        return "nothing is noted about it"
    if known[name]["picture"] != hashlib.sha256((FOLDER / name).read_bytes()).hexdigest():
        return "the file is not the one that was drawn"
    return "" if known[name]["made of"] == digest(name) else "what it is made of has changed"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.figures", description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="draw every figure, stale or not")
    everything = parser.parse_args(arguments).all
    from vqlearn import plots

    plots.set_style()
    notes = {}
    for name, made in FIGURES.items():
        why = stale(name)
        if why or everything:
            print(f"{name}: {why or 'drawn anew'}", flush=True)
            made.draw(FOLDER / name)
        picture = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
        notes[name] = {"made of": digest(name), "picture": picture}
    NOTES.write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
