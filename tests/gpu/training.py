"""Part 3: the shipped model learns on for as long as there is time, and is measured by reading its pictures back."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from vqlearn import VQDiffusionPipeline
from vqlearn.evaluate import evaluate
from vqlearn.training import DenoiserRecipe, DenoiserStage

from .record import Record

WEIGHTS = "weights.safetensors"  # averaged, in float16: what a later run goes on from
EVERY = 60.0  # seconds between two copies of them
ON_GPU = DenoiserRecipe(batch=512, order_steps=0, own_from=0)  # what the first updates need, it has behind it
ON_CPU = dataclasses.replace(ON_GPU, batch=8)


def train(out: Path, seconds: float, device: torch.device, start_from: Path | None = None) -> None:
    """Learn until about an eighth of the time is left, at most a minute, in which pictures are read back.

    `start_from` is a folder with the weights of an earlier run; without one the shipped model learns on. On a CPU it is
    two updates and four pictures.
    """
    record, on_gpu = Record(out, "training", device), device.type == "cuda"
    pipe = VQDiffusionPipeline.from_pretrained()
    stage = staged(pipe, ON_GPU if on_gpu else ON_CPU, device)
    if start_from is not None:
        read_weights(stage, start_from / WEIGHTS)
    learn(stage, record, out, seconds - min(60.0, seconds / 8), 10**9 if on_gpu else 2)
    stage.averaged()
    for part in (pipe.transformer, pipe.text_encoder):
        part.eval()
    pipe.to(device)
    for steps in (10, 25):
        found = evaluate(pipe, count=500 if on_gpu else 4, num_inference_steps=steps, progress=False)
        record.add(what="read back", steps=steps, **dataclasses.asdict(found), margin=found.margin)
    record.finish()


def staged(pipe: VQDiffusionPipeline, recipe: DenoiserRecipe, device: torch.device) -> DenoiserStage:
    """The networks of a pipeline as they learn."""
    parts = (pipe.vqvae, pipe.transformer, pipe.text_encoder, pipe.learned_classifier_free_sampling_embeddings)
    dtype = torch.bfloat16 if device.type == "cuda" else None
    return DenoiserStage(*parts, pipe.tokenizer, pipe.schedule, recipe, str(device), dtype)


def learn(stage: DenoiserStage, record: Record, out: Path, until: float, most: int) -> None:
    """Update until so many seconds of the record are over; the rate falls to zero at the end of a run so long."""
    written = 0.0
    for number in itertools.count(1):
        figures = stage.step(number - 1)
        if number in (20, 100, 500):  # by now it is known how many updates there will be
            total = round(number * until / record.passed())
            stage.recipe = dataclasses.replace(stage.recipe, steps=max(number + 1, total))
        if number == 1 or record.passed() - written > EVERY:
            written = record.passed()
            keep(stage, record, out, number, figures)
        if number >= most or record.passed() > until:
            break
    keep(stage, record, out, number, figures)


def keep(stage: DenoiserStage, record: Record, out: Path, number: int, figures: dict[str, float]) -> None:
    """Write the averaged weights of what is shipped, in one move, and a row."""
    kept = {name: value.half().contiguous() for name, value in stage.average.items() if not name.startswith("reader.")}
    part = (out / WEIGHTS).with_suffix(".part")
    save_file(kept, part)
    part.replace(out / WEIGHTS)
    pictures = number * stage.recipe.batch
    record.add(what="updates", number=number, pictures=pictures, seconds=round(record.passed(), 1), **figures)


@torch.no_grad()
def read_weights(stage: DenoiserStage, path: Path) -> None:
    """Begin where an earlier run has ended."""
    saved, learned = load_file(path), dict(stage.model.named_parameters())
    for name, value in saved.items():
        learned[name].copy_(value)
        stage.average[name].copy_(value)
