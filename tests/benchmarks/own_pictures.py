"""Three hundred pictures learned: `python -m tests.benchmarks.own_pictures`, what `docs/train_your_own.md` tells of it.

The pictures are emoji, of which it can be read back what is drawn: fifty of food, each on six of seven backgrounds, so
that fifty combinations are in no picture. Times are of the processor, in one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from vqlearn.data import emoji
from vqlearn.data.emoji import Arrangement, Placed
from vqlearn.training import own
from vqlearn.training.pipelines import new_pipeline
from vqlearn.training.sizes import SIZES


def caption(arrangement: Arrangement) -> str:
    name = str(arrangement)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def combinations() -> tuple[list[Arrangement], list[Arrangement]]:
    """Those that are shown and those that are not."""
    pool = emoji.pool("train", frozenset(["Food & Drink"]))
    chosen = [one for one in pool if one.looks_like == one.number][:50]
    pairs = [(i + j, one, color) for i, one in enumerate(chosen) for j, color in enumerate(emoji.BACKGROUNDS)]
    made = [(number % 7 == 0, Arrangement(color, (Placed(one),))) for number, one, color in pairs]
    return [one for hidden, one in made if not hidden], [one for hidden, one in made if hidden]


def write_pictures(folder: Path) -> None:
    """300 PNG files, each with a text of two captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(combinations()[0]):
        if not (path := folder / f"{number:03}.png").exists():
            Image.fromarray(emoji.draw(one)).save(path)
        name, _, color = str(one).removesuffix(" background").partition(" on a ")
        path.with_suffix(".txt").write_text(f"{caption(one)}\n{name}, {color}\n", encoding="utf-8")


def read_back(pipe: object, arrangements: list[Arrangement]) -> dict[str, float]:
    """The shares of captions whose picture is read back as asked."""
    captions = [caption(one) for one in arrangements]
    images = pipe(captions, 25, generator=torch.Generator().manual_seed(0)).images
    found = [emoji.agreement(image, text) for image, text in zip(images, captions, strict=True)]
    return {
        part: sum(getattr(one, part) for one in found) / len(found) for part in ("emoji", "background", "all")
    }  # fmt: skip


def measured(out: Path, codec_steps: int, steps: int) -> dict[str, object]:
    """Train in a folder, which may hold an earlier run that then goes on, and measure the model."""
    torch.set_num_threads(1)
    write_pictures(out / "pictures")
    run, begin = out / "run", time.process_time()
    pictures = own.read_folder(out / "pictures", run, 32)
    pipe = new_pipeline(pictures, SIZES["tiny"])
    print(own.write_report(pipe, pictures, run))
    own.learn_codec(pipe, pictures, run, replace(own.CODEC, steps=codec_steps))
    codec = time.process_time()
    pipe = own.learn_denoiser(pipe, pictures, run, replace(own.DENOISER, steps=steps))
    denoiser = time.process_time()
    pipe.set_progress_bar_config(disable=True)
    shown, hidden = combinations()
    judged = {part: own.judge(pipe, pictures, part) for part in ("held out", "train")}
    return {
        "codec_steps": codec_steps, "steps": steps, "codec_seconds": round(codec - begin),
        "denoiser_seconds": round(denoiser - codec), "shown": read_back(pipe, shown[::6]),
        "hidden": read_back(pipe, hidden), "judged": {part: str(one) for part, one in judged.items()},
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--codec-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=700)
    arguments = parser.parse_args()
    found = measured(arguments.out, arguments.codec_steps, arguments.steps)
    print(json.dumps(found, indent=1))
