"""Draws the pictures in figures/, `python -m tests.figures`, and keeps those that have changed.

`tests/test_figures.py` draws each and compares it with the file.
"""

from __future__ import annotations

import argparse
import functools
import io
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageSequence

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "figures"
CAPTION = "a large red circle left of a small blue square"  # the README's
EMOJI_CAPTION = "a pear on a pink background"
CAPTIONS = (CAPTION, "a small yellow star above a large green cross")
NUM_CODES = 1024  # of the shipped model; the mask comes after them
STEPS = (1, 2, 3, 4, 5, 6, 10, 25, 50, 100)
ROUNDING = 1.0  # of 255: another CPU moves less


def first(path: Path) -> None:
    """The picture that the README's first command writes."""
    from vqlearn.__main__ import main

    if main(["generate", CAPTION, "--out", str(path)]):
        raise SystemExit("vqlearn generate failed")


def of_emoji(path: Path) -> None:
    """The picture beside it, of a combination that the emoji model has never seen."""
    from vqlearn.__main__ import main

    if main(["generate", EMOJI_CAPTION, "--model", "emoji", "--out", str(path)]):
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
    from vqlearn.samplers import SAMPLERS

    pipe = VQDiffusionPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    # first_hitting is for schedules without replacement, reference for a comparison with diffusers
    names = [name for name in SAMPLERS if name not in ("first_hitting", "reference")]

    def row(caption: str) -> list:
        seeds = [torch.Generator().manual_seed(0) for _ in names]
        calls = zip(names, seeds, strict=True)
        return [pipe(caption, num_inference_steps=10, generator=seed, sampler=name).images[0] for name, seed in calls]

    titles = [name.replace("_", "\n") for name in names]
    figure = plots.album([row(caption) for caption in CAPTIONS], pipe.schedule.mask_id, titles=titles, size=1.15)
    _save(plots.name_rows(figure, [textwrap.fill(caption, 18) for caption in CAPTIONS]), path)


@functools.cache
def _trajectory() -> list[tuple[int, Any, np.ndarray]]:
    """Times, tokens `[8, 8]` and what they decode to, of one picture in 25 steps; a masked token as the first code."""
    import torch

    from vqlearn import VQDiffusionPipeline, sampling, strided_times

    pipe = VQDiffusionPipeline.from_pretrained()
    settings = {"guidance_scale": pipe.guidance_scale, "truncation_rate": pipe.truncation_rate}
    generator, times = torch.Generator().manual_seed(0), strided_times(pipe.schedule.num_steps, 25)
    states = [sampling.prior_sample(pipe.schedule, 1, pipe.length, generator=generator)]
    sampling.ancestral.run(
        pipe.denoiser(CAPTION, **settings), states[0], pipe.schedule, times, generator=generator,
        on_step=lambda step, s, x_s: states.append(x_s),
    )  # fmt: skip
    tokens = torch.cat(states)
    images = pipe.decode(torch.where(tokens == pipe.schedule.mask_id, 0, tokens)).permute(0, 2, 3, 1)
    return [*zip(times, tokens.view(-1, 8, 8), (images.numpy() + 1) / 2, strict=True)]


def reverse_film(path: Path) -> None:
    """The reverse process as an animation, tokens beside the picture; it waits at both ends."""
    from vqlearn import plots

    states, frames = _trajectory(), []
    grids = [grid for _, grid, _ in states]
    for t, grid, picture in states:
        drawn = plots.film(grid, picture, NUM_CODES, truth=grids[-1], frames=grids, title=f"tokens at t = {t}")
        file = io.BytesIO()
        drawn.savefig(file, dpi=96, facecolor="white")
        frames.append(Image.open(file).convert("RGB").quantize(96))
    waits = [1200, *[180] * (len(frames) - 2), 3000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=waits, loop=0)


def reverse_still(path: Path) -> None:
    """Seven times of the same animation, for whoever does not want things to move, and for paper."""
    from vqlearn import plots

    states = [*_trajectory()[::4], _trajectory()[-1]]
    times, grids, pictures = zip(*states, strict=True)
    _save(
        plots.album([grids, pictures], NUM_CODES, truth=grids[-1], titles=[f"t = {t}" for t in times], size=1.2), path
    )


# first_hitting has the distribution of ancestral, corrector nearly its line; reference compares with diffusers
LEFT_OUT = ("first_hitting", "reference", "corrector")


def exactness(path: Path) -> None:
    """Exact total variation to the data against network evaluations, with an ideal denoiser on a tiny joint."""
    from matplotlib.figure import Figure

    from vqlearn import MaskReplaceSchedule, exact, strided_times
    from vqlearn.samplers import SAMPLERS

    joint = exact.markov_chain(num_codes=2, length=6, stay=0.9)
    looks = zip(("#000000", "#E69F00", "#0072B2", "#CC79A7", "#009E73", "#56B4E9", "#D55E00"), "oXsDv^P", strict=True)
    looks = dict(zip((n for n in SAMPLERS if n not in LEFT_OUT), looks, strict=True))
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
        ax.set(title=f"the {whose} schedule", xlabel="network evaluations", xscale="log")
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


FIGURES: dict[str, Callable[[Path], None]] = {
    "first.png": first,
    "emoji.png": of_emoji,
    "schedules.png": schedules,
    "samplers.png": samplers,
    "exactness.png": exactness,
    "reverse.gif": reverse_film,
    "reverse.png": reverse_still,
}


def draw(name: str, folder: Path) -> Path:
    """Draw a figure into a folder."""
    from vqlearn import plots

    plots.set_style()
    FIGURES[name](folder / name)
    return folder / name


def difference(first: Path | IO[bytes], second: Path | IO[bytes]) -> float:
    """Root mean square difference of the values 0 ... 255 of two pictures or films; infinite where sizes differ."""
    one, other = (_frames(file) for file in (first, second))
    return float(np.sqrt(np.mean((one - other) ** 2))) if one.shape == other.shape else np.inf


def _frames(file: Path | IO[bytes]) -> np.ndarray:
    """All frames of a picture, `[N, H, W, 3]`."""
    with Image.open(file) as film:
        return np.stack([np.asarray(frame.convert("RGB"), float) for frame in ImageSequence.Iterator(film)])


def main(arguments: list[str]) -> None:
    """Draw all figures anew and keep those that have changed by more than rounding."""
    argparse.ArgumentParser(prog="python -m tests.figures", description=__doc__.partition("\n")[0]).parse_args(
        arguments
    )
    for name in FIGURES:
        with tempfile.TemporaryDirectory() as folder:
            new, old = draw(name, Path(folder)), FOLDER / name
            changed = not old.exists() or difference(new, old) > ROUNDING
            if changed:
                shutil.copyfile(new, old)
        print(f"{name}: {'drawn anew' if changed else 'as before'}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
