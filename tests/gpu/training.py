"""Part 3: the shipped model is trained for as long as there is time, and measured by reading its pictures back.

The denoiser begins from nothing, on the shipped codec, or where an earlier run in a folder has ended.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from vqlearn import VQDiffusionPipeline, q_sample
from vqlearn.data import layouts
from vqlearn.evaluation.agreement import evaluate, excess
from vqlearn.exactness.ideal import ideal_prediction
from vqlearn.training import DenoiserStage, SceneRecipe, initialise, scene_stage
from vqlearn.training import shipped as shipped_recipe

from .record import Record

WEIGHTS = "weights.safetensors"  # averaged, in float16: what a later run goes on from
EVERY = 60.0  # seconds between two copies of them
SLOW_AT_FIRST = 20  # updates, in which much is done for the first time
SETTINGS = ((10, 1.15, 0.6), (25, 1.15, 0.6), (10, 1.0, 1.0), (25, 1.0, 1.0), (100, 1.0, 1.0))
FEW = ((3, 1.15, 0.6), (4, 1.0, 1.0))  # of a rehearsal
ON_CPU = SceneRecipe(batch=8, own_from=1)


def train(out: Path, seconds: float, device: torch.device, start_from: Path | None = None) -> None:
    """Learn until about a fifth of the time is left, at most 90 s, in which pictures are read back.

    On a CPU it is two updates and four pictures.
    """
    record, on_gpu = Record(out, "training", device), device.type == "cuda"
    shipped = VQDiffusionPipeline.from_pretrained()
    recipe = shipped_recipe.recipe("cuda", from_nothing=start_from is None) if on_gpu else ON_CPU
    recipe = recipe if start_from is None else dataclasses.replace(recipe, seed=1)  # other scenes than before
    pipe, stage = staged(shipped, recipe, device)
    if start_from is not None:
        read_weights(stage, start_from / WEIGHTS)
    data(stage, record, 100_000 if on_gpu else 100)
    learn(stage, record, out, seconds - min(90.0, seconds / 5), 10**9 if on_gpu else 2)
    stage.averaged()
    for part in (pipe.transformer, pipe.text_encoder):
        part.eval()
    pipe.to(device)
    measure(pipe, record, 500 if on_gpu else 4, SETTINGS if on_gpu else FEW)
    record.finish()


def staged(
    shipped: VQDiffusionPipeline, recipe: SceneRecipe, device: torch.device
) -> tuple[VQDiffusionPipeline, DenoiserStage]:
    """A pipeline of new networks with the shipped codec and settings, and its training."""
    pipe = VQDiffusionPipeline(**{**shipped_recipe.networks(), "vqvae": shipped.vqvae})
    pipe.defaults = shipped.defaults
    initialise(pipe.transformer, pipe.vqvae)
    dtype = torch.bfloat16 if device.type == "cuda" else None
    return pipe, scene_stage(pipe, recipe, device=str(device), dtype=dtype)


def data(stage: DenoiserStage, record: Record, count: int) -> None:
    """How fast scenes with their tokens and texts are drawn, and ideal predictions made."""
    generator, codes = torch.Generator(stage.device).manual_seed(0), stage.objective.codes

    def timed(make, number: int):
        made = make()  # the first time costs more
        begin = time.perf_counter()
        made = make()
        if stage.device != "cpu":
            torch.cuda.synchronize()
        return made, number / (time.perf_counter() - begin)

    def scenes():
        drawn = layouts.draw("train", count, generator=generator, device=stage.device)
        return drawn, layouts.tokens(drawn, codes), layouts.token_ids(drawn, stage.source.texts)

    (drawn, x_0, _), rate = timed(scenes, count)
    some = min(count, 512)
    t = torch.randint(1, 101, (some,), generator=generator, device=stage.device)
    x_t = q_sample(x_0[:some], t, stage.schedule, generator=generator)
    claims = layouts.Claims(*(part[:some] for part in drawn.claims()))
    _, ideal = timed(lambda: ideal_prediction(x_t, t, claims, codes, stage.schedule, split="train"), some)
    record.add(what="data", scenes_per_second=round(rate), ideal_predictions_per_second=round(ideal))


def learn(stage: DenoiserStage, record: Record, out: Path, until: float, most: int) -> None:
    """Update until so many seconds of the record are over; the rate falls to zero at the end of a run so long."""
    written = begin = record.passed()
    for number in itertools.count(1):
        figures = stage.step(number - 1)
        if number == SLOW_AT_FIRST:
            begin = record.passed()
        elif number > SLOW_AT_FIRST and number % SLOW_AT_FIRST == 0:  # there is time for so many, at this pace
            pace = (record.passed() - begin) / (number - SLOW_AT_FIRST)
            stage.recipe = dataclasses.replace(stage.recipe, steps=number + 1 + int((until - record.passed()) / pace))
        if number == 1 or record.passed() - written > EVERY:
            written = record.passed()
            keep(stage, record, out, number, figures)
        if number >= most or record.passed() > until:
            break
    keep(stage, record, out, number, figures)


def keep(stage: DenoiserStage, record: Record, out: Path, number: int, figures: dict[str, float]) -> None:
    """Write the averaged weights of what is shipped, in one move, and a row."""
    means = stage.average.module.named_parameters()
    kept = {name: value.detach().half().contiguous() for name, value in means if not name.startswith("task.")}
    part = (out / WEIGHTS).with_suffix(".part")
    save_file(kept, part)
    part.replace(out / WEIGHTS)
    pictures = number * stage.recipe.batch
    record.add(what="updates", number=number, pictures=pictures, seconds=round(record.passed(), 1), **figures)


def measure(pipe: VQDiffusionPipeline, record: Record, count: int, settings) -> None:
    """Pictures read back, and how far the prediction is from the ideal one at several times."""
    for steps, scale, rate in settings:
        call = {"num_inference_steps": steps, "guidance_scale": scale, "truncation_rate": rate}
        found = evaluate(pipe, count=count, batch=500, progress=False, **call)
        record.add(what="read back", **call, **dataclasses.asdict(found), margin=found.margin)
    short = excess(pipe, (100, 80, 40, 20, 10, 5, 1), count=min(count, 64))
    record.add(what="excess over the ideal prediction, nats per picture", **{f"t = {t}": x for t, x in short.items()})


@torch.no_grad()
def read_weights(stage: DenoiserStage, path: Path) -> None:
    """Begin where an earlier run has ended."""
    learned, means = (dict(model.named_parameters()) for model in (stage.model, stage.average.module))
    for name, value in load_file(path).items():
        learned[name].copy_(value)
        means[name].copy_(value)
