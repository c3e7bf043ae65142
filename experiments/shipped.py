"""What guidance, null texts and truncation do to the pictures of the shipped model: the figures of notebook 08.

    python -m experiments.shipped

Every row is one setting and one of three seeds, 160 pictures of 6 steps. A seed has captions of its own, the next 160
of the test split, and all settings of a part share its captions and its random numbers, so their differences are paired
by seed. Rows are in `experiments/results/shipped.csv`. A command that was stopped goes on at the next row.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from vqlearn import VQDiffusionPipeline, guidance, scenes
from vqlearn.course.results import read, save
from vqlearn.evaluation.agreement import report
from vqlearn.training import has_fast_bfloat16

HERE = Path(__file__).parent
SEEDS, PICTURES, STEPS = 3, 160, 6
Settings = dict[str, dict[str, Any]]

TIMES: Settings = {  # where in the reverse process a scale of 3 is used; captions of the test split
    "no guidance": {"guidance_scale": 1.0},
    "at all times": {"guidance_scale": 3.0},
    "t > 50 only": {"guidance_scale": guidance.within(3.0, 51, 100)},
    "t <= 50 only": {"guidance_scale": guidance.within(3.0, 0, 50)},
}
NULLS: Settings = {  # what guidance pushes away from; captions of the test split
    "learned null text": {"guidance_scale": 1.5},
    "empty sentence": {"guidance_scale": 1.5, "negative_prompt": ""},
}
NEGATIVES: Settings = {  # the same for one prompt that leaves the background open
    "star, no guidance": {"guidance_scale": 1.0},
    "star, away from no sentence": {"guidance_scale": 1.5},
    "star, away from white": {"guidance_scale": 1.5, "negative_prompt": "a star on a white background"},
}
CUTS: Settings = {  # what truncation does to a prompt that leaves nearly everything open
    "circle, plain": {"guidance_scale": 1.0},
    "circle, rate 0.3": {"guidance_scale": 1.0, "truncation_rate": 0.3},
    "circle, scale 1.5 and rate 0.3": {"guidance_scale": 1.5, "truncation_rate": 0.3},
}
PARTS: dict[str | None, Settings] = {None: TIMES | NULLS, "a small star": NEGATIVES, "a circle": CUTS}


def measure(
    pipe: VQDiffusionPipeline, prompt: str | None, settings: dict[str, Any], seed: int, pictures: int
) -> dict[str, float]:
    """Draw pictures of a prompt, or of captions if it is None, and count what they show, in shares and in bits."""
    captions = [prompt or scenes.sample("test", seed * pictures + index)[1] for index in range(pictures)]
    call = {"truncation_rate": 1.0, "output_type": "latent", "generator": Generator().manual_seed(seed), **settings}
    if settings.get("negative_prompt"):
        call["negative_prompt"] = [settings["negative_prompt"]] * pictures
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_fast_bfloat16()):
        tokens = pipe(captions, STEPS, **call).images
    read_back = [scenes.read(image) for image in pipe.decode(tokens)]
    found, number = report(captions, read_back), Counter(min(2, len(scene.objects)) for scene in read_back)
    shown = {f"objects: {name}": number[count] / pictures for count, name in enumerate(("none", "one", "more"))}
    white = sum(scene.background == "white" for scene in read_back) / pictures
    bits = {f"bits: {name}": value for name, value in found.entropy.items()}
    return {"right": found.all, "count": found.parts["count"], "white": white, **shown, **bits}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.shipped", description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "shipped.csv")
    chosen = parser.parse_args(arguments)
    pipe = VQDiffusionPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    rows = read(chosen.out)
    for (prompt, part), seed in itertools.product(PARTS.items(), range(SEEDS)):
        for setting, how in part.items():
            if all((row["setting"], row["seed"]) != (setting, seed) for row in rows):
                rows.append({"setting": setting, "seed": seed, **measure(pipe, prompt, how, seed, chosen.pictures)})
                save(chosen.out, rows)
                shares = ", ".join(f"{name} {rows[-1][name]:.1%}" for name in ("right", "count", "white"))
                print(f"{setting}, seed {seed}: {shares}", flush=True)


if __name__ == "__main__":
    main()
