"""`vqlearn evaluate`: measure agreement with held-out captions, or everything by one protocol."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqlearn.cli.options import Commands, add_drawing, check_device, data_of, load, note, numbers_of, path_name, whole

if TYPE_CHECKING:
    from vqlearn.evaluation.agreement import Report
    from vqlearn.evaluation.references import Reference


def add(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="measure a model", description=run.__doc__)
    data = "scenes, emoji, or a folder of pictures (default: emoji for the model of that name, else scenes)"
    command.add_argument("--data", type=path_name, metavar="DATA", help=data)
    command.add_argument("--split", choices=["train", "test", "unseen"], default="test", help="default %(default)s")
    count = "captions, or pictures to measure by, of which there may be fewer (default %(default)s)"
    command.add_argument("--count", type=whole(1, 10**6), default=500, help=count)
    command.add_argument("--seed", type=whole(0, 2**64 - 1), default=0)
    add_drawing(command, nargs="+")
    protocol = command.add_argument_group("the protocol, for a folder or with --out")
    out = "where evaluation.json, evaluation.png and the drawn pictures are written (for a folder: evaluation)"
    protocol.add_argument("--out", type=path_name, help=out)
    features = "a vision model of transformers (folder or hub name), or module:function, for distances of the pictures"
    protocol.add_argument("--features", metavar="MODEL", type=path_name, help=features)
    protocol.add_argument("--clip", metavar="MODEL", type=path_name, help="a CLIP model of transformers, for its score")
    protocol.add_argument("--captions", metavar="FILE", type=path_name, help="a file of captions, as in training")
    protocol.add_argument("--workers", type=whole(0, 1024), help="processes that read pictures (default none)")
    protocol.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    command.set_defaults(run=run, interrupted="a row that is not printed was not measured")


def run(arguments: argparse.Namespace) -> None:
    """Measure a model: print how many pictures agree with held-out captions, or measure all by one protocol.

    Without --out, scenes and emoji: a picture for each caption is drawn and read back, and the shares that agree are
    printed as a table with a row for each pair of --steps and --guidance. With --out, or by a folder of pictures:
    reconstruction, bound, distances, copies, and more, in one file.
    """
    data = arguments.data or data_of(arguments.model)
    if arguments.out or data not in WORLDS:
        _protocol(arguments, data)
        return
    for name in ("features", "clip", "captions", "workers"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} is for the protocol, which --out DIR asks for; leave it out, or name a folder")
    pipe = _loaded(arguments)
    pairs = itertools.product(arguments.steps or [None], arguments.guidance or [pipe.guidance_scale])
    rows = [numbers_of(pipe, arguments, steps, scale) for steps, scale in pairs]  # checked before the work
    WORLDS[data](pipe, arguments, rows)


def _loaded(arguments: argparse.Namespace) -> Any:
    check_device(arguments.device)
    return load(arguments).to(arguments.device)


def _protocol(arguments: argparse.Namespace, data: str) -> None:
    from vqlearn.evaluation.distances import check_torchmetrics
    from vqlearn.evaluation.protocol import FILE, measure
    from vqlearn.evaluation.summary import summary
    from vqlearn.training.process import locked

    check_torchmetrics()
    call, out = _one_call(arguments), Path(arguments.out or "evaluation")
    pipe = _loaded(arguments)
    numbers = numbers_of(pipe, arguments, *call)
    arguments.interrupted = f"the same command goes on with what is in {out}"
    chosen: Any = {"features": arguments.features, "clip": arguments.clip}
    with locked(out):
        reference = _reference(pipe, arguments, data, out)
        found = measure(pipe, reference, out, count=arguments.count, seed=arguments.seed, **chosen, **numbers)
    for remark in found["drawing"]["remarks"][:3]:
        note(remark)
    print(f"{summary(found)}\nwrote {out / FILE}, with a picture beside it")


def _one_call(arguments: argparse.Namespace) -> tuple[int | None, float | None]:
    """The steps and the guidance scale, of which a measurement has one."""
    for name in ("steps", "guidance"):
        if len(getattr(arguments, name) or []) > 1:
            raise ValueError(
                f"--{name} has one value where the protocol measures; write several into folders of their own"
            )
    return (arguments.steps or [None])[0], (arguments.guidance or [None])[0]


def _reference(pipe: Any, arguments: argparse.Namespace, data: str, out: Path) -> Reference:
    """What the model is measured by; of a folder a report is printed."""
    from vqlearn.evaluation.protocol import side_of
    from vqlearn.evaluation.references import REFERENCES, of_folder
    from vqlearn.training import own
    from vqlearn.training.pipelines import conditions_of

    if data in REFERENCES:
        if arguments.captions or arguments.workers is not None:
            raise ValueError(f"--captions and --workers mean nothing with --data {data}, leave them out")
        return REFERENCES[data](arguments.split)
    how: Any = {"captions": arguments.captions, "workers": arguments.workers or 0}
    pictures = own.read_folder(data, out, side_of(pipe), **how)
    print(f"{pictures.report}\n", flush=True)
    return of_folder(pictures, arguments.split, conditions_of(pipe, pictures))


def _scenes(pipe: Any, arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    from vqlearn.evaluation.agreement import ATTRIBUTES, evaluate, reconstruction

    chosen = {"split": arguments.split, "count": arguments.count}
    print(f"codec alone: {reconstruction(pipe, **chosen):.1%} of {arguments.count} scenes read the same\n")
    _head("all right", "new combinations", "1 object", "2", "3", *ATTRIBUTES)
    for call in rows:
        report = evaluate(pipe, seed=arguments.seed, **chosen, **call)
        _line(pipe, call, row(report))
    bits = ", ".join(f"{name} {bits:.2f}" for name, bits in report.entropy.items())
    print(f"\nwhat captions left open, entropy in bits (last row): {bits}")


def _emoji(pipe: Any, arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    from vqlearn.evaluation.emoji import evaluate, reconstruction

    codec = reconstruction(pipe, count=arguments.count)
    new = f"{arguments.count} pictures of emoji that it has never seen"
    print(f"codec alone: {codec.psnr:.1f} dB and {codec.read:.1%} read the same, {new}\n")
    _head("emoji", "background", "both")
    for call in rows:
        found = evaluate(pipe, seed=arguments.seed, split=arguments.split, count=arguments.count, **call)
        _line(pipe, call, f"{found.emoji:.1%} | {found.background:.1%} | {found.all:.1%} ± {found.margin:.1%}")


WORLDS = {"scenes": _scenes, "emoji": _emoji}  # whose pictures can be read


def _head(*names: str) -> None:
    head = ["steps", "guidance", *names]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")


def _line(pipe: Any, call: dict[str, Any], cells: str) -> None:
    print(f"| {call.get('num_inference_steps', pipe.length)} | {call['guidance_scale']:g} | {cells} |", flush=True)


def row(report: Report) -> str:
    """A report's cells of the table."""
    from vqlearn.evaluation.agreement import margin

    shares = [*report.by_count.values(), *report.parts.values()]
    new = f"{report.generalisation:.1%} ± {margin(report.generalisation, report.new):.1%} of {report.new}"
    return f"{report.all:.1%} ± {report.margin:.1%} | {new} | " + " | ".join(f"{share:.1%}" for share in shares)
