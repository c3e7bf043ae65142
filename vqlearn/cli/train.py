"""`vqlearn train`: train the shipped model's recipe."""

from __future__ import annotations

import argparse
import signal
from dataclasses import replace
from pathlib import Path

from vqlearn.cli.options import Commands, whole

OBJECTIVES = ("ideal", "cross_entropy", "bound", "continuous")  # those of `training.scenes`, without its imports


def add(commands: Commands) -> None:
    command = commands.add_parser("train", help="train the shipped model from nothing", description=run.__doc__)
    command.add_argument(
        "--out", required=True, help="folder for checkpoints, logs and the finished model; an earlier run there goes on"
    )
    command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    command.add_argument("--start-from", metavar="MODEL", help="a model of this kind to learn on, or 'shipped'")
    command.add_argument("--codec-steps", type=whole(1), help="updates of the codec")
    command.add_argument("--steps", type=whole(1), help="updates of the denoiser")
    command.add_argument("--objective", choices=OBJECTIVES, help="what the denoiser minimises")
    command.set_defaults(run=run, interrupted="no training had begun")


def run(arguments: argparse.Namespace) -> None:
    """Train codec and denoiser on the toy world, write the model folder to OUT/model, and say how good it is."""
    from vqlearn.training.process import on_stop

    out = _out(arguments.out)
    try:
        with on_stop(signal.default_int_handler):  # the other signals end the command as Ctrl-C does
            _run(arguments, out)
    except KeyboardInterrupt:
        arguments.interrupted = _kept(out)
        raise


def _kept(out: Path) -> str:
    """What an interrupted training has left in its folder."""
    for stage in ("denoiser", "codec"):
        if (path := out / stage / "checkpoint.pt").is_file():
            return f"the same command goes on from {path}"
    return f"there is no checkpoint in {out} yet, the same command begins anew"


def _run(arguments: argparse.Namespace, out: Path) -> None:
    from vqlearn.course.plots import loss_curve
    from vqlearn.evaluation.agreement import evaluate
    from vqlearn.pipeline import VQDiffusionPipeline
    from vqlearn.training import CodecRecipe, shipped

    start = arguments.start_from
    _check_device(arguments.device)
    codec, denoiser = CodecRecipe(), shipped.recipe(arguments.device, from_nothing=start is None)
    codec = replace(codec, steps=arguments.codec_steps or codec.steps)
    denoiser = replace(
        denoiser, steps=arguments.steps or denoiser.steps, objective=arguments.objective or denoiser.objective
    )
    if start is not None:
        start = VQDiffusionPipeline.from_pretrained(None if start == "shipped" else start)
    pipe = shipped.train(out, codec=codec, denoiser=denoiser, start_from=start, device=arguments.device)
    for stage in ("codec", "denoiser") if start is None else ("denoiser",):
        loss_curve(out / stage / "log.csv").savefig(out / stage / "loss.png", dpi=120)
    found = evaluate(pipe, count=200, num_inference_steps=25)
    print(f"wrote {out / 'model'}: {found.all:.1%} ± {found.margin:.1%} of 200 held-out captions all right at 25 steps")


def _out(name: str) -> Path:
    if Path(name).exists() and not Path(name).is_dir():
        raise ValueError(f"--out must be a folder, {name!r} is a file")
    return Path(name)


def _check_device(name: str) -> None:
    import torch

    try:
        torch.empty(1, device=name).item()  # which "meta" cannot do
    except (RuntimeError, AssertionError):
        raise ValueError(f"--device {name}: torch cannot use it on this machine, try cpu") from None
