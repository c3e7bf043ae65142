"""A run that is killed again and again ends as one that is not: `python -m tests.soak`.

A tiny model of one's own pictures is trained, from the folder to the finished model, by one process, by two, and by two
that share out the denoiser's weights. One of them is killed (SIGKILL) at random moments: while pictures are read, in
the middle of an update, while a checkpoint is written. Each time the training is begun again with what is on the disk.
At the end all weights must be those of a training without a break. The processes begin as copies of this one, so that a
new beginning is cheap.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from tests.forked import Together
from tests.test_own_pictures import QUIET, SMALL, paint
from vqlearn.training import (
    CodecRecipe,
    CodecStage,
    DenoiserRecipe,
    DenoiserStage,
    own,
    processes,
    samples,
    sharding,
    shipped,
)
from vqlearn.training.pipelines import new_pipeline

RESULTS = Path(__file__).parent / "benchmarks" / "results" / "soak.json"
STAGES = {"before": 0, "codec": 1, "denoiser": 2}  # what a process that is killed has come to since it began


def train(folder: Path, out: Path, steps: int, shared: bool, at: Any) -> str:
    """Train a model; `at` is told in which stage the training is, and how many updates it has made."""
    sharding.FROM = 0 if shared else sharding.FROM
    samples.STEPS, shipped.has_fast_bfloat16 = 2, lambda: False
    for number, stage in enumerate((CodecStage, DenoiserStage), 1):
        stage.step = told(stage.step, number, at)
    try:
        with processes.joined("cpu"):
            pictures = own.read_folder(folder, out, 8, progress=False)
            pipe = new_pipeline(pictures, SMALL)
            own.write_report(pipe, pictures, out)
            own.learn_codec(pipe, pictures, out, CodecRecipe(steps=steps, batch=4), **QUIET)
            recipe = DenoiserRecipe(steps=2 * steps, batch=4)
            own.learn_denoiser(pipe, pictures, out, recipe, "bound", sample_every=steps, **QUIET)
    except (ChildProcessError, torch.distributed.DistError):
        raise SystemExit(2) from None  # the other one was killed
    return "done"


def told(step: Any, stage: int, at: Any) -> Any:
    def counted(self: Any, number: int) -> Any:
        if not processes.rank():
            at[0] = stage
        figures = step(self, number)
        if not processes.rank():
            at[1] += 1
        return figures

    return counted


def killed(folder: Path, out: Path, steps: int, shared: bool, count: int, rng: random.Random) -> int | None:
    """Begin a training and kill one of its processes: in which stage it was; None where it has come to its end."""
    at = mp.get_context("fork").Array("i", [0, 0])
    begun, ready = time.monotonic(), rng.random() < 0.2
    started = Together(train, folder, out, steps, shared, at, count=count)
    updates, pause = rng.randint(1, 6), rng.random() * 0.05
    while any(one.is_alive() for one in started.processes):
        if (ready and time.monotonic() > begun + 10 * pause) or (not ready and at[1] >= updates):
            time.sleep(0 if ready else pause)
            stage = at[0]
            os.kill(rng.choice(started.processes).pid or 0, signal.SIGKILL)
            # the other one hears of it, or waits to be connected and is killed in its turn, as torchrun does
            return None if started.results(patience=2) == ["done"] * count else stage
        time.sleep(0.001)
    if started.results() != ["done"] * count:
        raise RuntimeError("a training has ended by itself")
    return None


def soaked(kills: int, count: int, steps: int, shared: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train with so many SIGKILLs and without any; whether the weights are equal, and when the kills came."""
    rng, found = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "pictures")
        paint(folder, 12, side=16)
        torch.optim.AdamW([torch.zeros(1)])  # imports much, now once for all
        if shared:
            importlib.import_module("torch.distributed.fsdp")
            importlib.import_module("torch.distributed.checkpoint")
        outs = Path(name, "killed"), Path(name, "whole")
        while len(found) < kills and (stage := killed(folder, outs[0], steps, shared, count, rng)) is not None:
            found.append(stage)
        for out in outs:
            at = mp.get_context("fork").Array("i", [0, 0])
            if Together(train, folder, out, steps, shared, at, count=count).results() != ["done"] * count:
                raise RuntimeError("the training has not come to its end")
        moments = {name: found.count(stage) for name, stage in STAGES.items()}
        return {"processes": count, "shared": shared, "kills": len(found), **moments, "equal": equal(*outs)}


def equal(one: Path, other: Path) -> bool:
    """Whether two trainings have left the same weights, moments and logs, bit for bit."""
    return all(
        (one / stage / "log.csv").read_bytes() == (other / stage / "log.csv").read_bytes()
        and same(*(content(out / stage) for out in (one, other)))
        for stage in ("codec", "denoiser")
    )


def content(folder: Path) -> Any:
    """All that a checkpoint holds."""
    found = torch.load(folder / "checkpoint.pt")
    parts = found.pop("parts", None)
    files = [] if parts is None else sorted((folder / parts["folder"]).iterdir())
    return found, [load_file(file) for file in files]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=40, help="updates of the codec, half of the denoiser's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for count, shared in ((1, False), (2, False), (2, True)):
        begin = os.times()
        runs.append(soaked(arguments.kills, count, arguments.steps, shared))
        used = sum(os.times()[:4]) - sum(begin[:4])
        print(runs[-1], f"{used:.0f} seconds of the processor", flush=True)
    RESULTS.write_text(json.dumps({"command": "python -m tests.soak", "runs": runs}, indent=1) + "\n")
