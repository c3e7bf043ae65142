"""`vqlearn train`: train the shipped model's recipe."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqlearn.cli.options import Commands, path_name, whole

if TYPE_CHECKING:
    from vqlearn.autoregression import AutoregressivePipeline
    from vqlearn.pipeline import VQDiffusionPipeline

OBJECTIVES = ("ideal", "cross_entropy", "bound", "continuous")  # those of `training.scenes`, without its imports


def add(commands: Commands) -> None:
    command = commands.add_parser("train", help="train the shipped model from nothing", description=run.__doc__)
    command.add_argument(
        "--out",
        required=True,
        type=path_name,
        help="folder for checkpoints, logs and the finished model; an earlier run there goes on",
    )
    command.add_argument("--data", default="scenes", metavar="DATA", help="what to learn: scenes (default) or emoji")
    command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    start = "a model of this kind to learn on, or 'shipped'; a rival takes the codec alone of a denoiser"
    command.add_argument("--start-from", metavar="MODEL", help=start)
    rival = "train the autoregressive rival, on as many scenes in as many updates"
    command.add_argument("--autoregressive", action="store_true", help=rival)
    command.add_argument("--codec-steps", type=whole(1), help="updates of the codec")
    command.add_argument("--steps", type=whole(1), help="updates of the denoiser, or of its rival")
    command.add_argument("--objective", choices=OBJECTIVES, help="what the denoiser minimises")
    command.set_defaults(run=run, interrupted="no training had begun")


def run(arguments: argparse.Namespace) -> None:
    """Train codec and denoiser on scenes or emoji, write the model folder to OUT/model, and say how good it is."""
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
    for stage in ("denoiser", "autoregressive", "codec"):
        if (path := out / stage / "checkpoint.pt").is_file():
            return f"the same command goes on from {path}"
    return f"there is no checkpoint in {out} yet, the same command begins anew"


def _run(arguments: argparse.Namespace, out: Path) -> None:
    from vqlearn.course.plots import loss_curve

    _check_device(arguments.device)
    if arguments.data not in DATA:
        raise ValueError(f"--data must be {' or '.join(DATA)}, got {arguments.data!r}")
    learn, judge = DATA[arguments.data]
    pipe = learn(arguments, out)
    for log in sorted(out.glob("*/log.csv")):
        loss_curve(log).savefig(log.with_name("loss.png"), dpi=120)
    print(f"wrote {out / 'model'}: {judge(pipe)}")


def _scenes(arguments: argparse.Namespace, out: Path) -> VQDiffusionPipeline | AutoregressivePipeline:
    return (_rival if arguments.autoregressive else _denoiser)(arguments, out)


def _scenes_right(pipe: VQDiffusionPipeline | AutoregressivePipeline) -> str:
    from vqlearn.evaluation.agreement import evaluate
    from vqlearn.pipeline import VQDiffusionPipeline

    call: dict[str, Any] = {"num_inference_steps": 25} if isinstance(pipe, VQDiffusionPipeline) else {}
    found = evaluate(pipe, count=200, **call)
    at = " at 25 steps" if call else ""
    return f"{found.all:.1%} ± {found.margin:.1%} of 200 held-out captions all right{at}"


def _emoji(arguments: argparse.Namespace, out: Path) -> VQDiffusionPipeline:
    from vqlearn.training import emoji

    for name, value in vars(arguments).items():
        if name in ("start_from", "objective", "autoregressive") and value:
            raise ValueError(f"--{name.replace('_', '-')} is for the scenes, leave it out with --data emoji")
    codec = replace(emoji.CODEC, steps=arguments.codec_steps or emoji.CODEC.steps)
    denoiser = emoji.EmojiRecipe()
    denoiser = replace(denoiser, steps=arguments.steps or denoiser.steps)
    return emoji.train(out, codec=codec, denoiser=denoiser, device=arguments.device)


def _emoji_right(pipe: VQDiffusionPipeline) -> str:
    from vqlearn.evaluation.emoji import evaluate

    found = evaluate(pipe, count=200, num_inference_steps=25)
    return f"{found.all:.1%} ± {found.margin:.1%} of 200 held-out combinations read back as asked at 25 steps"


# How to learn each kind of data, and how to say how good the model is
DATA: dict[str, tuple[Callable[..., Any], Callable[..., str]]] = {
    "scenes": (_scenes, _scenes_right),
    "emoji": (_emoji, _emoji_right),
}


def _denoiser(arguments: argparse.Namespace, out: Path) -> VQDiffusionPipeline:
    from vqlearn.pipeline import VQDiffusionPipeline
    from vqlearn.training import CodecRecipe, shipped

    start = _start(arguments)
    if not (start is None or isinstance(start, VQDiffusionPipeline)):
        raise ValueError(f"--start-from {arguments.start_from} is autoregressive: it learns on with --autoregressive")
    codec, denoiser = CodecRecipe(), shipped.recipe(arguments.device, from_nothing=start is None)
    codec = replace(codec, steps=arguments.codec_steps or codec.steps)
    denoiser = replace(
        denoiser, steps=arguments.steps or denoiser.steps, objective=arguments.objective or denoiser.objective
    )
    return shipped.train(out, codec=codec, denoiser=denoiser, start_from=start, device=arguments.device)


def _rival(arguments: argparse.Namespace, out: Path) -> AutoregressivePipeline:
    from vqlearn.training import CodecRecipe, shipped

    if arguments.objective:
        raise ValueError("--objective is the denoiser's; an autoregressive model has one, -log p of the next token")
    codec, rival = CodecRecipe(), shipped.rival_recipe(arguments.device)
    codec = replace(codec, steps=arguments.codec_steps or codec.steps)
    rival = replace(rival, steps=arguments.steps or rival.steps)
    return shipped.train_rival(out, codec=codec, rival=rival, start_from=_start(arguments), device=arguments.device)


def _start(arguments: argparse.Namespace) -> VQDiffusionPipeline | AutoregressivePipeline | None:
    """The model that --start-from names."""
    from vqlearn.autoregression import load_pipeline

    name = arguments.start_from
    return None if name is None else load_pipeline(None if name == "shipped" else name)


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
