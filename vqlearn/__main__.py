"""The command line, `vqlearn COMMAND`; `python -m vqlearn` is the same."""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import os
import platform
import sys
import warnings
from pathlib import Path

from vqlearn import __version__

VIEW = 256  # pictures smaller than this are enlarged by a whole factor, so that pixels stay square


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for wrong input, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"vqlearn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"vqlearn: interrupted, {arguments.interrupted}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vqlearn", description="Learn, run and research VQ-Diffusion.")
    parser.add_argument("--version", action="version", version=f"vqlearn {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_generate, _add_train, _add_evaluate, _add_convert, _add_info, _add_course, _add_doctor):
        add(commands)
    return parser


def _add_generate(commands) -> None:
    command = commands.add_parser("generate", help="draw a picture of a sentence", description=_generate.__doc__)
    command.add_argument(
        "prompt",
        nargs="?",
        help='for example "a small red circle above a large blue square"; a class, or nothing, if the model reads that',
    )
    command.add_argument(
        "--out", default="vqlearn.png", help="the PNG to write (default %(default)s); with --count its name is numbered"
    )
    _add_drawing(command)
    command.add_argument(
        "--seed", type=_whole("--seed", 0), default=0, help="default %(default)s; the same seed gives the same picture"
    )
    command.add_argument(
        "--count", type=_whole("--count", 1), default=1, help="how many pictures (default %(default)s)"
    )
    command.set_defaults(run=_generate, interrupted="nothing was written")


def _add_train(commands) -> None:
    command = commands.add_parser("train", help="train the shipped model from nothing", description=_train.__doc__)
    command.add_argument(
        "--out", required=True, help="folder for checkpoints, logs and the finished model; an earlier run there goes on"
    )
    command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    command.add_argument("--start-from", metavar="MODEL", help="a model of this kind to learn on, or 'shipped'")
    command.add_argument("--codec-steps", type=_whole("--codec-steps", 1), help="updates of the codec")
    command.add_argument("--steps", type=_whole("--steps", 1), help="updates of the denoiser")
    command.add_argument("--objective", choices=["ideal", "cross_entropy", "bound"], help="what the denoiser minimises")
    command.set_defaults(run=_train, interrupted="the checkpoint was saved; the same command goes on from it")


def _add_evaluate(commands) -> None:
    command = commands.add_parser(
        "evaluate", help="measure agreement on held-out captions", description=_evaluate.__doc__
    )
    command.add_argument("--split", choices=["train", "test", "unseen"], default="test")
    command.add_argument("--count", type=_whole("--count", 1), default=500, help="captions (default %(default)s)")
    command.add_argument("--seed", type=_whole("--seed", 0), default=0)
    _add_drawing(command, nargs="+")
    command.set_defaults(run=_evaluate, interrupted="nothing was measured")


def _add_convert(commands) -> None:
    command = commands.add_parser(
        "convert", help="make a model folder of an original checkpoint", description=_convert.__doc__
    )
    command.add_argument("checkpoint", help="a .pth file of the original code")
    command.add_argument("--config", required=True, help="its YAML file")
    command.add_argument("--codec-config", help="the codec's YAML file (default: where --config names it)")
    command.add_argument("--mapping", help="which codes are in use, a .pt file (default: where --config names it)")
    command.add_argument("--out", required=True, help="the model folder to write")
    command.set_defaults(run=_convert, interrupted="nothing was written")


def _add_info(commands) -> None:
    command = commands.add_parser("info", help="what a model is made of, and what it needs", description=_info.__doc__)
    command.add_argument("model", nargs="?", help="a model folder or a hub name (default: the shipped model)")
    command.set_defaults(run=_info, interrupted="nothing was changed")


def _add_course(commands) -> None:
    command = commands.add_parser(
        "course",
        help="copy the course's notebooks, make pages of them, or check a learner's",
        description=_course.__doc__,
    )
    command.add_argument(
        "folder", metavar="DIR", help="the folder to copy to (made if need be), or with --check to read"
    )
    command.add_argument(
        "--site",
        action="store_true",
        help="write the course to DIR as web pages, with its outputs, to be read without running anything",
    )
    command.add_argument(
        "--exercises-only", action="store_true", help="copy the exercises alone: cards, hints and stubs, no solutions"
    )
    command.add_argument("--without-outputs", action="store_true", help="copy without outputs, to be run by the reader")
    command.add_argument(
        "--check",
        action="store_true",
        help="execute the notebooks of DIR, on a copy, and print which exercises are done; their code runs with your "
        "rights, so use a container or an account of its own for strangers",
    )
    command.add_argument("--json", action="store_true", help="with --check: print the same as JSON")
    command.add_argument(
        "--timeout",
        type=_whole("--timeout", 1),
        metavar="SECONDS",
        help="with --check: what a cell, or a call of an exercise's function, may take (default 1200)",
    )
    command.set_defaults(run=_course, interrupted="no notebook is half written, and none was changed")


def _add_doctor(commands) -> None:
    command = commands.add_parser("doctor", help="what a bug report needs", description=_doctor.__doc__)
    command.add_argument("--model", help="also check this model instead of the shipped one")
    command.set_defaults(run=_doctor, interrupted="nothing was changed")


def _add_drawing(parser: argparse.ArgumentParser, **several) -> None:
    steps, scale, rate = "network calls, 1 to T", "classifier-free guidance scale", "truncation rate in [0, 1]"
    default = [25] if several else 25
    parser.add_argument("--steps", type=_whole("--steps", 1), default=default, help=f"{steps} (default 25)", **several)
    parser.add_argument("--guidance", type=float, help=f"{scale} (default: the model's own)", **several)
    parser.add_argument("--truncation", type=float, help=f"{rate}, 1 is off (default: the model's own)")
    parser.add_argument("--sampler", default="ancestral", help="how to walk back (default %(default)s); see the README")
    parser.add_argument("--model", help="a model folder or a hub name (default: the shipped model)")
    dtypes = ["auto", "float32", "bfloat16", "float16"]
    said = "of the weights (default %(default)s: float32, and for a large model what is fast on this machine)"
    parser.add_argument("--dtype", choices=dtypes, default="auto", help=said)


def _whole(name: str, least: int):
    def parse(text: str) -> int:
        if not (text.isdecimal() and len(text) <= 18 and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{name} must be a whole number of at least {least}, got {text[:30]!r}")
        return int(text)

    return parse


def _generate(arguments: argparse.Namespace) -> None:
    """Draw pictures of a sentence with the shipped model (or another) and write them as PNG."""
    prompt = arguments.prompt
    if prompt is not None and (not prompt.strip() or not prompt.isprintable()):
        raise ValueError(
            'prompt must be a sentence in plain text, not empty, try "a small red circle above a large blue square"'
        )
    paths = _targets(Path(arguments.out), arguments.count)
    import torch

    pipe = _load(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _note  # at once: what a picture will cost is told before the work, not after it
        images = pipe(
            prompt,
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.guidance,
            truncation_rate=arguments.truncation,
            sampler=arguments.sampler,
            num_images_per_prompt=arguments.count,
            generator=torch.Generator().manual_seed(arguments.seed),
        ).images
    _write(paths, images)
    for path, image in zip(paths, images, strict=True):
        print(f"wrote {path}{_verdict(image, prompt or '')}")


def _load(arguments: argparse.Namespace):
    """The model to draw with, in the dtype that was asked for; a note says so where it is not float32."""
    from vqlearn.pipeline import VQDiffusionPipeline

    pipe = VQDiffusionPipeline.from_pretrained(arguments.model, torch_dtype=arguments.dtype)
    if (name := str(pipe.dtype).removeprefix("torch.")) != "float32":
        _note(f"the weights are in {name} (vqlearn doctor says why; --dtype float32 is more exact)")
    return pipe


def _note(message, *_, **__) -> None:
    print(f"vqlearn: note: {message}", file=sys.stderr)


def _targets(out: Path, count: int) -> list[Path]:
    """The files to write, checked before any work is done."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, got {str(out)!r}")
    if not out.parent.is_dir():
        raise ValueError(f"--out: there is no folder {str(out.parent)!r}; make it first or choose another")
    paths = [out] if count == 1 else [out.with_stem(f"{out.stem}-{number}") for number in range(1, count + 1)]
    for path in paths:
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ValueError(f"--out: {str(path)!r} cannot be written; choose another file")
    return paths


def _write(paths: list[Path], images: list) -> None:
    """Write PNGs: all of them beside their places first, then each in one move, so that none is ever half a picture."""
    parts = [path.with_name(path.name + ".part") for path in paths]
    try:
        for part, image in zip(parts, images, strict=True):
            factor = max(1, VIEW // image.width)
            image.resize((image.width * factor, image.height * factor), resample=0).save(part, format="PNG")
        for part, path in zip(parts, paths, strict=True):
            os.replace(part, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _verdict(image, prompt: str) -> str:
    """What a picture of the toy world was read back as, and whether the sentence is true of it."""
    from vqlearn.data import scenes

    if image.size != (scenes.SIZE, scenes.SIZE):
        return ""
    scene = scenes.read(image)
    try:
        found = vars(scenes.agreement(scene, prompt))
    except ValueError:
        return f": {scene} (the sentence is not one of the toy world, so it was not checked)"
    wrong = [name for name, right in found.items() if not right]
    return f": {scene} ({'as asked' if not wrong else 'not as asked: ' + ', '.join(wrong)})"


def _train(arguments: argparse.Namespace) -> None:
    """Train codec and denoiser on the toy world, write the model folder to OUT/model, and say how good it is."""
    from dataclasses import replace

    import torch

    from vqlearn.course.plots import loss_curve
    from vqlearn.evaluation.agreement import evaluate
    from vqlearn.pipeline import VQDiffusionPipeline
    from vqlearn.training import shipped as tiny
    from vqlearn.training.stages import CodecRecipe

    try:
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError):
        raise ValueError(f"--device {arguments.device}: torch cannot use it on this machine, try cpu") from None
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, {str(out)!r} is a file")
    codec, denoiser = CodecRecipe(), tiny.recipe(arguments.device, from_nothing=arguments.start_from is None)
    codec = replace(codec, steps=arguments.codec_steps or codec.steps)
    denoiser = replace(
        denoiser, steps=arguments.steps or denoiser.steps, objective=arguments.objective or denoiser.objective
    )
    start = arguments.start_from
    if start is not None:
        start = VQDiffusionPipeline.from_pretrained(None if start == "shipped" else start)
    pipe = tiny.train(out, codec=codec, denoiser=denoiser, start_from=start, device=arguments.device)
    for stage in ("codec", "denoiser") if start is None else ("denoiser",):
        loss_curve(out / stage / "log.csv").savefig(out / stage / "loss.png", dpi=120)
    found = evaluate(pipe, count=200, num_inference_steps=25)
    print(f"wrote {out / 'model'}: {found.all:.1%} ± {found.margin:.1%} of 200 held-out captions all right at 25 steps")


def _evaluate(arguments: argparse.Namespace) -> None:
    """Draw a picture for each held-out caption, read it back, and print the shares that agree as a table.

    Several values of --steps and --guidance give a row for each pair.
    """
    from vqlearn.evaluation.agreement import ATTRIBUTES, evaluate, reconstruction

    pipe = _load(arguments)
    chosen = {"split": arguments.split, "count": arguments.count}
    scales = arguments.guidance or [pipe.guidance_scale]
    for steps, scale in itertools.product(arguments.steps, scales):  # wrong arguments are found before the work
        pipe.check(num_inference_steps=steps, guidance_scale=scale, truncation_rate=arguments.truncation)
    pipe.sampler(arguments.sampler)
    print(f"codec alone: {reconstruction(pipe, **chosen):.1%} of {arguments.count} scenes read the same\n")
    head = ["steps", "guidance", "all right", "new combinations", "1 object", "2", "3", *ATTRIBUTES]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for steps, scale in itertools.product(arguments.steps, scales):
        call = {"num_inference_steps": steps, "guidance_scale": scale, "truncation_rate": arguments.truncation,
                "sampler": arguments.sampler}  # fmt: skip
        report = evaluate(pipe, seed=arguments.seed, **chosen, **call)
        print(f"| {steps} | {scale:g} | {_row(report)} |", flush=True)
    bits = ", ".join(f"{name} {bits:.2f}" for name, bits in report.entropy.items())
    print(f"\nwhat captions left open, entropy in bits (last row): {bits}")


def _row(report) -> str:
    from vqlearn.evaluation.agreement import margin

    shares = [*report.by_count.values(), *report.parts.values()]
    new = f"{report.generalisation:.1%} ± {margin(report.generalisation, report.new):.1%} of {report.new}"
    return f"{report.all:.1%} ± {report.margin:.1%} | {new} | " + " | ".join(f"{share:.1%}" for share in shares)


def _convert(arguments: argparse.Namespace) -> None:
    """Read a checkpoint of the original code and write a model folder that every command and `from_pretrained` read."""
    from vqlearn.pipeline import VQDiffusionPipeline

    pipe = VQDiffusionPipeline.from_original(
        arguments.checkpoint, arguments.config, codec_config=arguments.codec_config, mapping=arguments.mapping
    )
    pipe.save_pretrained(arguments.out)
    print(f"wrote {arguments.out}\n")
    _describe(pipe, Path(arguments.out))


def _info(arguments: argparse.Namespace) -> None:
    """Print a model's parts and their sizes, its schedule, and the memory that it needs."""
    from vqlearn.checkpoints.hub import locate
    from vqlearn.pipeline import VQDiffusionPipeline

    where = locate(arguments.model)
    _describe(VQDiffusionPipeline.from_pretrained(where), where)


def _describe(pipe, where: Path) -> None:
    import torch

    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in modules.items()}
    for name, count in counts.items():
        files = (file.stat().st_size for file in (where / name).iterdir() if file.is_file())
        print(f"{name:44} {count:>13,} parameters {sum(files) / 1e6:9.1f} MB on disk")
    network, schedule = pipe.transformer.config, pipe.schedule
    side, codes = round(pipe.length**0.5), pipe.vqvae.config["num_vq_embeddings"]
    heads, width = network["num_attention_heads"], network["attention_head_dim"]
    kept = f"{pipe.vqvae.num_tokens} of its {codes}" if pipe.vqvae.num_tokens < codes else f"{codes}"
    print(
        f"\nreads      {pipe.transformer.reads}"
        + (f", {network['num_classes']} of them" if network["num_classes"] else "")
    )
    print(f"pictures   {side * pipe.vqvae.factor} x {side * pipe.vqvae.factor}, {side} x {side} tokens of {kept} codes")
    print(f"network    {network['num_layers']} layers, {heads} heads x {width} = {heads * width} wide")
    print(
        f"schedule   {schedule.num_steps} steps; at the end kept {float(schedule.alpha_bar[-1]):.3g}, replaced "
        f"{schedule.num_codes * float(schedule.beta_bar[-1]):.3g} (the uniform share), "
        f"masked {float(schedule.gamma_bar[-1]):.5g}"
    )
    scale, rate = pipe.guidance_scale, pipe.defaults.get("truncation_rate", 1.0)
    print(f"defaults   guidance {scale:g}, truncation {rate:g}")
    total = sum(counts.values())
    for name, size in (("float32", 4), ("float16 or bfloat16", 2)):
        print(f"memory     {total * size / 2**30:8.2f} GiB for the weights in {name}")
    print(f"auto dtype {_auto_dtype(counts['transformer'])}")


def _auto_dtype(weights: int) -> str:
    """What `torch_dtype="auto"` is here for a denoiser of so many weights, and why, on each kind of device."""
    import torch

    from vqlearn.networks.cost import auto_dtype

    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    found = [(kind, *auto_dtype(weights, kind)) for kind in kinds]
    return "; ".join(f"{str(dtype).removeprefix('torch.')} on {kind}: {why}" for kind, dtype, why in found)


def _course(arguments: argparse.Namespace) -> None:
    """Copy the course's notebooks to DIR, where nothing is overwritten; make a site; or check a learner's exercises."""
    from vqlearn.course import copying, marking

    if arguments.site:
        _site(arguments)
        return
    of_copying, of_checking = ("exercises_only", "without_outputs"), ("json", "timeout")
    for name in of_copying if arguments.check else of_checking:
        if getattr(arguments, name):
            raise ValueError(
                f"--{name.replace('_', '-')} {'does not go' if arguments.check else 'goes only'} with --check"
            )
    if arguments.check:
        rows = marking.check(arguments.folder, timeout=arguments.timeout or 1200)
        text = marking.as_json(rows) if arguments.json else marking.table(rows)
        print(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(sys.stdout.encoding or "utf-8"))
        return
    meant = {
        "kept": ": yours differs and stays; to get the course's, rename or delete yours and run this again",
        "none": ": has no exercises",
    }
    for name, state in copying.copy(arguments.folder, **{name: getattr(arguments, name) for name in of_copying}):
        print(f"{state:9}  {name}{meant.get(state, '')}")


def _site(arguments: argparse.Namespace) -> None:
    from vqlearn.course import copying, site

    for name in ("check", "exercises_only", "without_outputs", "json", "timeout"):
        if getattr(arguments, name):
            raise ValueError(f"--{name.replace('_', '-')} does not go with --site")
    pages = site.build(arguments.folder, copying.notebooks(), address=copying.address())
    print(f"{len(pages)} pages; open {Path(arguments.folder, 'index.html')} in a browser")


def _doctor(arguments: argparse.Namespace) -> None:
    """Print versions, device and whether the model is found and whole: what a bug report needs."""
    import torch

    from vqlearn.checkpoints.hub import locate
    from vqlearn.networks import cost
    from vqlearn.pipeline import VQDiffusionPipeline

    print(f"vqlearn       {__version__}")
    print(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in (
        "torch",
        "transformers",
        "huggingface_hub",
        "safetensors",
        "numpy",
        "pillow",
        "matplotlib",
        "jupyterlab",
    ):
        try:
            print(f"{name:13} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name:13} missing: python -m pip install {name}")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"device        cpu with {torch.get_num_threads()} threads, cuda: {cuda}")
    print(f"auto dtype    of {cost.LARGE / 1e6:.0f} M weights and more {_auto_dtype(cost.LARGE)}")
    print(f"              (measured once, kept in {cost.rates_file()})")
    where = locate(arguments.model, local_files_only=True)
    pipe = VQDiffusionPipeline.from_pretrained(where)
    size = sum(file.stat().st_size for file in where.rglob("*.safetensors")) / 1e6
    count = sum(p.numel() for p in pipe.transformer.parameters()) / 1e6
    print(f"model         {where.name}: whole, {size:.1f} MB, denoiser of {count:.1f} M parameters, {pipe.schedule}")


if __name__ == "__main__":
    sys.exit(main())
