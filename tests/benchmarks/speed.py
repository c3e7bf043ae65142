"""How long is a guided step, here and in diffusers? The same weights, dtype and guidance, in turns, in one process.

    python -m tests.benchmarks.speed                     # 6 layers x 256, 256 positions and codes, batch 8
    python -m tests.benchmarks.speed --size full         # the published model's size, batch 1; 12 GB of memory
    python -m tests.benchmarks.speed --size full --device cuda --dtypes float16 bfloat16 --batch 1 8 64 --compile
    python -m tests.benchmarks.speed --growth growth.png # time and memory of ours against batch, positions and codes

Each side draws with its own pipeline: text, denoiser, guidance, truncation and draw. The two take one step each in
turn, `--rounds` such pairs after a first one that warms up. A figure is the median of its side; a ratio is the median
of those of the pairs, beside the least and the most. Weights are random.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median

import torch

from tests.benchmarks.peers import diffusers_pipeline, diffusers_transformer, drawing, seconds_per_step
from tests.benchmarks.turns import spread, steps_in_turn
from vqlearn import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, guidance, p_sample_step
from vqlearn.networks import cost
from vqlearn.training import shipped

SIZES = {
    "small": {"batch": 8, "num_attention_heads": 8, "attention_head_dim": 32, "num_layers": 6, "sample_size": 16,
              "num_vector_embeds": 257},
    "full": {"batch": 1, "num_attention_heads": 16, "attention_head_dim": 88, "num_layers": 36, "sample_size": 32,
             "num_vector_embeds": 4097},
}  # fmt: skip
ROUNDS = {"small": 30, "full": 5}
CALL = {"guidance_scale": 5.0, "truncation_rate": 0.86}
PROMPT = "a large red circle left of a small blue square"


def build(size: dict, dtype: torch.dtype) -> VQDiffusionPipeline:
    """A pipeline of a size without a codec, with the tiny text encoder and random weights."""
    network = {key: value for key, value in size.items() if key != "batch"}
    parts = shipped.networks()
    with torch.device("meta"):
        denoiser = Transformer2DModel(**network, cross_attention_dim=shipped.TEXT_WIDTH)
    denoiser = denoiser.to_empty(device="cpu")
    torch.manual_seed(0)
    for name, parameter in denoiser.named_parameters():
        is_scale = parameter.ndim == 1 and name.endswith("weight")  # of a layer norm
        parameter.data.normal_(std=0.02).add_(1.0 if is_scale else 0.0)
    parts.update(transformer=denoiser, scheduler=VQDiffusionScheduler(size["num_vector_embeds"]), vqvae=None)
    pipe = VQDiffusionPipeline(**parts).to(dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def compare(size: str, dtypes: list[str], batches: list[int], rounds: int, device: str, faster: bool) -> None:
    """Print the table of guided steps, and the share of our step that is not network and guidance."""
    print(
        f"| {size} | diffusers, s | vqlearn, s | ratio of {rounds} pairs | of processor time "
        "| to the first of diffusers | pictures/s at 100 steps | of the matrix products' rate |\n" + "|---" * 8 + "|"
    )
    first: dict[int, float] = {}
    for dtype, batch in itertools.product(dtypes, batches):
        pipe = build(SIZES[size], getattr(torch, dtype)).to(device)
        theirs = drawing(diffusers_pipeline(pipe, diffusers_transformer(pipe)), **CALL)
        if faster:
            pipe.compile()
        found = steps_in_turn(sides(pipe, theirs, batch), rounds, device)
        clock, processor = (
            [getattr(a, kind) / getattr(b, kind) for a, b in zip(found["vqlearn"], found["diffusers"], strict=True)]
            for kind in ("clock", "processor")
        )
        diffusers, ours = (median(step.clock for step in found[name]) for name in ("diffusers", "vqlearn"))
        base = first.setdefault(batch, diffusers)
        rate = 2 * batch * cost.work(pipe.transformer) / ours / cost.matmul_rate(pipe.device, pipe.dtype, 4096)
        print(f"| {dtype}, batch {batch} | {diffusers:.4f} | {ours:.4f} | {spread(clock)} | {spread(processor)} "
              f"| {ours / base:.3f} | {batch / ours / 100:.3f} | {rate:.0%} |", flush=True)  # fmt: skip
        print(f"  truncation and draw: {around(pipe, batch) / ours:.2%} of our step", file=sys.stderr, flush=True)


def sides(pipe: VQDiffusionPipeline, theirs: Callable, batch: int) -> dict[str, Callable]:
    """`draw(steps, generator, callback)` of diffusers and of ours, for `batch` pictures."""
    prompts = [PROMPT] * batch
    return {
        "diffusers": lambda steps, generator, note: theirs(prompts, steps, generator, note),
        "vqlearn": lambda steps, generator, note: pipe(
            prompts, steps, generator=generator, output_type="latent", callback=note, **CALL
        ),
    }


def around(pipe: VQDiffusionPipeline, batch: int) -> float:
    """Seconds of what surrounds the network and its guidance in a step: truncation, and the draw of x_s."""
    length, schedule = pipe.length, pipe.schedule
    x_t = torch.full((batch, length), schedule.mask_id, device=pipe.device)
    log_p = pipe.denoiser([PROMPT] * batch, guidance_scale=CALL["guidance_scale"])(x_t, 50)
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        p_sample_step(guidance.truncate(log_p, CALL["truncation_rate"]), x_t, 50, schedule, s=46).cpu()
        times.append(time.perf_counter() - begin)
    return median(times)


GROWTH = {"batch": [1, 2, 4, 8, 16, 32], "positions": [64, 144, 256, 576, 1024], "codes": [256, 1024, 4096, 16384]}


def point(name: str, value: int) -> dict[str, float]:
    """Seconds of a guided step of the small network and the memory that it needs, with one number changed."""
    size = dict(SIZES["small"], batch=4)
    size.update({"batch": {"batch": value}, "positions": {"sample_size": round(value**0.5)},
                 "codes": {"num_vector_embeds": value + 1}}[name])  # fmt: skip
    pipe = build(size, torch.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps = seconds_per_step(
        lambda count, generator, note: pipe(
            [PROMPT] * size["batch"], count, generator=generator, output_type="latent", callback=note, **CALL
        ),
        3,
    )
    return {"seconds": median(steps), "GB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20}


def growth(path: str) -> None:
    """Measure each point in a process of its own, print the table and draw the picture with its slopes."""
    from vqlearn import plots

    found = {}
    for name, values in GROWTH.items():
        for value in values:
            command = [sys.executable, "-m", "tests.benchmarks.speed", "--point", name, str(value)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name, value] = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name} {value}: {found[name, value]['seconds']:.3f} s, {found[name, value]['GB']:.3f} GB", flush=True
            )
    curves = {name: {v: found[name, v] for v in values} for name, values in GROWTH.items()}
    plots.growth(curves).savefig(path, dpi=144)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    dtypes = ["float32", "bfloat16", "float16"]
    parser.add_argument("--dtypes", nargs="+", choices=dtypes, default=dtypes[:2])
    parser.add_argument("--batch", type=int, nargs="+", help="pictures at once (default 8, full size 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="with pipe.compile()")
    parser.add_argument("--rounds", type=int, help="pairs of steps (default 30, full size 5)")
    parser.add_argument("--growth", metavar="PICTURE", help="measure growth instead")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.point:
        print(json.dumps(point(arguments.point[0], int(arguments.point[1]))))
        return
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, load {load}\n")
    if arguments.growth:
        growth(arguments.growth)
        return
    rounds, batches = arguments.rounds or ROUNDS[arguments.size], arguments.batch or [SIZES[arguments.size]["batch"]]
    compare(arguments.size, arguments.dtypes, batches, rounds, arguments.device, arguments.compile)


if __name__ == "__main__":
    main()
