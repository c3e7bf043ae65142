"""`vqlearn train`: train the recipe of a shipped model, or a model of one's own pictures."""

from __future__ import annotations

import argparse
import functools
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqlearn.cli.options import Commands, check_device, note, path_name, whole
from vqlearn.remarks import heard_by

if TYPE_CHECKING:
    from vqlearn.autoregression import AutoregressivePipeline
    from vqlearn.data.folder import PictureFolder
    from vqlearn.pipeline import VQDiffusionPipeline

OBJECTIVES = ("ideal", "cross_entropy", "bound", "continuous")  # those of `training.scenes`, without its imports
SIZES = ("tiny", "tiny-wide", "S", "B", "L")  # those of `training.sizes`


def add(commands: Commands) -> None:
    command = commands.add_parser("train", help="train a model of scenes, emoji or a folder", description=run.__doc__)
    out = "folder for checkpoints, logs and the finished model; an earlier run there goes on"
    command.add_argument("--out", required=True, type=path_name, help=out)
    data = "what to learn: scenes (default), emoji, or a folder of pictures"
    command.add_argument("--data", default="scenes", type=path_name, metavar="DATA", help=data)
    command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    start = "a model to learn on from, a folder or 'shipped'; a rival takes the codec alone of a denoiser"
    command.add_argument("--start-from", metavar="MODEL", type=path_name, help=start)
    rival = "train the autoregressive rival, on as many scenes in as many updates"
    command.add_argument("--autoregressive", action="store_true", help=rival)
    codec = "updates of the codec (default: of the recipe, for a folder 3000)"
    command.add_argument("--codec-steps", metavar="N", type=whole(1), help=codec)
    steps = "updates of the denoiser, or of its rival (default: of the recipe, for a folder 8000)"
    command.add_argument("--steps", metavar="N", type=whole(1), help=steps)
    objective = "what the denoiser minimises (default: ideal for scenes, else cross_entropy)"
    command.add_argument("--objective", choices=OBJECTIVES, help=objective)
    folder = command.add_argument_group("for a folder of pictures")
    captions = "a file of captions: .csv, .jsonl, or .json as of COCO (default: what the folder holds)"
    folder.add_argument("--captions", metavar="FILE", type=path_name, help=captions)
    folder.add_argument("--size", type=whole(8, 1024), help="pixels along a side (default 32, of S, B and L 256)")
    network = "a codec and a denoiser of this size (default tiny; S, B and L are the papers', for GPUs)"
    folder.add_argument("--network", choices=SIZES, help=network)
    codec = "a model whose codec is used; it learns on only if --codec-steps says so"
    folder.add_argument("--codec-from", metavar="MODEL", type=path_name, help=codec)
    parts = "evaluate each batch in N parts, one after the other: less memory"
    folder.add_argument("--accumulate", type=whole(1), metavar="N", help=parts)
    again = "evaluate each layer twice in place of keeping its activations: less memory"
    folder.add_argument("--checkpointing", action="store_true", help=again)
    folder.add_argument("--compile", action="store_true", help="let torch.compile make programs of the layers")
    perceptual = "a vision model of transformers whose features the codec is to keep (perceptual loss)"
    folder.add_argument("--perceptual", metavar="MODEL", type=path_name, help=perceptual)
    adversary = "the update of the codec from which on a discriminator of patches takes part (adversarial loss)"
    folder.add_argument("--discriminator-from", type=whole(1), metavar="N", help=adversary)
    folder.add_argument("--workers", type=whole(0, 1024), help="processes that read pictures (default none)")
    command.set_defaults(run=run, interrupted="no training had begun")


def run(arguments: argparse.Namespace) -> None:
    """Train codec and denoiser on scenes, emoji or a folder, write the model to OUT/model, and say how good it is."""
    from vqlearn.training import processes
    from vqlearn.training.process import on_stop

    out = _out(arguments.out)
    try:
        with on_stop(signal.default_int_handler):  # the other signals end the command as Ctrl-C does
            check_device(arguments.device)
            with processes.joined(arguments.device) as arguments.device:
                _run(arguments, out)
    except KeyboardInterrupt:
        if processes.rank():  # the first says it
            raise SystemExit(130) from None
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
    from vqlearn.training import processes

    learn, options = DATA.get(arguments.data, (_folder, OF_FOLDER))
    for name in (*OF_SCENES, *OF_FOLDER):
        if name not in options and getattr(arguments, name):
            raise ValueError(f"--{name.replace('_', '-')} means nothing with --data {arguments.data}, leave it out")
    said = learn(arguments, out)
    if processes.rank():
        return
    print(f"wrote {out / 'model'}: {said}", flush=True)
    for log in sorted(out.glob("*/log.csv")):
        loss_curve(log).savefig(log.with_name("loss.png"), dpi=120)


def _scenes(arguments: argparse.Namespace, out: Path) -> str:
    from vqlearn.evaluation.agreement import evaluate
    from vqlearn.pipeline import VQDiffusionPipeline
    from vqlearn.training import processes

    pipe = (_rival if arguments.autoregressive else _denoiser)(arguments, out)
    if processes.rank():
        return ""
    call: dict[str, Any] = {"num_inference_steps": 25} if isinstance(pipe, VQDiffusionPipeline) else {}
    found = evaluate(pipe, count=200, **call)
    at = " at 25 steps" if call else ""
    return f"{found.all:.1%} ± {found.margin:.1%} of 200 held-out captions all right{at}"


def _emoji(arguments: argparse.Namespace, out: Path) -> str:
    from vqlearn.evaluation.emoji import evaluate
    from vqlearn.training import emoji, processes

    start = _diffusion(arguments.start_from)
    codec, denoiser = emoji.recipes(arguments.device, from_nothing=start is None)
    codec = replace(codec, steps=arguments.codec_steps or codec.steps)
    denoiser = replace(denoiser, steps=arguments.steps or denoiser.steps)
    pipe = emoji.train(out, codec=codec, denoiser=denoiser, start_from=start, device=arguments.device)
    if processes.rank():
        return ""
    found = evaluate(pipe, count=200, num_inference_steps=25)
    return f"{found.all:.1%} ± {found.margin:.1%} of 200 held-out combinations read back as asked at 25 steps"


def _folder(arguments: argparse.Namespace, out: Path) -> str:
    from vqlearn.training import Engine, own, processes
    from vqlearn.training.process import locked

    engine = Engine(arguments.accumulate or 1, arguments.checkpointing, arguments.compile)
    codec = replace(own.CODEC, steps=arguments.codec_steps or own.CODEC.steps)
    denoiser = replace(own.DENOISER, steps=arguments.steps or own.DENOISER.steps)
    engine.check(denoiser.batch)  # and with it the larger one of the codec
    given, objective = arguments.start_from or arguments.codec_from, arguments.objective or "cross_entropy"
    begin, side = _chosen(arguments)
    detail = _detail(arguments, side)
    with processes.first_alone():
        own.check_apart(arguments.data, out)
    with locked(out), heard_by(functools.cache(note)):  # of captions that are too long, once each
        pipe, pictures = _begun(arguments, out, begin, side)
        if arguments.codec_steps or not given:
            own.learn_codec(pipe, pictures, out, codec, learned=bool(given), **detail)
        pipe = own.learn_denoiser(pipe, pictures, out, denoiser, objective, engine=engine, device=arguments.device)
        judged = {part: own.judge(pipe, pictures, part) for part in ("held out", "train") if not processes.rank()}
    return "; ".join(f"{part}: {found}" for part, found in judged.items() if found)


def _detail(arguments: argparse.Namespace, side: int) -> dict[str, Any]:
    """The losses of a codec that ask for detail, and where they are computed."""
    from vqlearn.training.detail import Adversary, AdversaryRecipe, FeatureLoss, HiddenStates, discriminator_for

    found: dict[str, Any] = {"device": arguments.device}
    if arguments.perceptual:
        found["term"] = FeatureLoss(HiddenStates(arguments.perceptual, arguments.device))
    if arguments.discriminator_from:
        recipe = AdversaryRecipe(start=arguments.discriminator_from)
        found["adversary"] = Adversary(discriminator_for(side), recipe)
    return found


def _chosen(arguments: argparse.Namespace) -> tuple[Callable[[PictureFolder], VQDiffusionPipeline], int]:
    """What makes a pipeline that is to learn of pictures, and their side; raises ValueError before they are read."""
    from vqlearn.training.pipelines import check_side, new_pipeline, prepared, side_of
    from vqlearn.training.sizes import SIZES

    if arguments.objective == "ideal":
        raise ValueError("--objective ideal is for the scenes, whose exact prediction is known; leave it out")
    for name in ("size", "network", "codec_from"):
        if arguments.start_from and getattr(arguments, name):
            raise ValueError(f"--{name.replace('_', '-')} is that of the model to start from, leave it out")
    given = arguments.start_from or arguments.codec_from
    if given and not arguments.codec_steps and (arguments.perceptual or arguments.discriminator_from):
        raise ValueError("--perceptual and --discriminator-from are for a codec that learns: give --codec-steps too")
    model = _diffusion(given)
    if model and arguments.start_from:
        return functools.partial(prepared, model), side_of(model)
    if model and model.vqvae is None:
        raise ValueError(f"--codec-from {given}: this model has no codec")
    size, codec = SIZES[arguments.network or "tiny"], model.vqvae if model else None
    side = arguments.size or size.side
    check_side(side, codec.factor if codec else size.factor)
    return functools.partial(new_pipeline, size=size, codec=codec), side


def _begun(
    arguments: argparse.Namespace, out: Path, begin: Callable[[PictureFolder], VQDiffusionPipeline], side: int
) -> tuple[VQDiffusionPipeline, PictureFolder]:
    """What is to learn, and from which pictures, of which a report is printed."""
    from vqlearn.training import own, processes

    pictures = own.read_folder(arguments.data, out, side, captions=arguments.captions, workers=arguments.workers or 0)
    pipe = begin(pictures)
    report = own.write_report(pipe, pictures, out)
    if not processes.rank():
        print(report, flush=True)
    return pipe, pictures


# How to learn each kind of data and say how good the model is, and the options that it has besides the common ones
OF_SCENES, OF_FOLDER = ("start_from", "objective", "autoregressive"), (
    "start_from", "objective", "captions", "size", "network", "codec_from", "workers", "accumulate", "checkpointing",
    "compile", "perceptual", "discriminator_from",
)  # fmt: skip
DATA: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "scenes": (_scenes, OF_SCENES),
    "emoji": (_emoji, ("start_from",)),
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


def _diffusion(name: str | None) -> VQDiffusionPipeline | None:
    """A model that learns on pictures of one's own, or lends its codec."""
    from vqlearn.pipeline import VQDiffusionPipeline

    return None if name is None else VQDiffusionPipeline.from_pretrained(None if name == "shipped" else name)


def _out(name: str) -> Path:
    if Path(name).exists() and not Path(name).is_dir():
        raise ValueError(f"--out must be a folder, {name!r} is a file")
    return Path(name)
