"""`vqlearn evaluate`: measure agreement of pictures with held-out captions."""

from __future__ import annotations

import argparse
import itertools
from typing import TYPE_CHECKING, Any

from vqlearn.cli.options import Commands, add_drawing, data_of, load, numbers_of, whole

if TYPE_CHECKING:
    from vqlearn.evaluation.agreement import Report


def add(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="measure agreement on held-out captions", description=run.__doc__)
    data = "what it has learned, scenes or emoji (default: emoji for the model of that name, else scenes)"
    command.add_argument("--data", choices=["scenes", "emoji"], help=data)
    command.add_argument("--split", choices=["train", "test", "unseen"], default="test")
    command.add_argument("--count", type=whole(1, 10**6), default=500, help="captions (default %(default)s)")
    command.add_argument("--seed", type=whole(0, 2**64 - 1), default=0)
    add_drawing(command, nargs="+")
    command.set_defaults(run=run, interrupted="a row that is not printed was not measured")


def run(arguments: argparse.Namespace) -> None:
    """Draw a picture for each held-out caption, read it back, and print the shares that agree as a table.

    Several values of --steps and --guidance give a row for each pair.
    """
    pipe = load(arguments)
    pairs = itertools.product(arguments.steps or [None], arguments.guidance or [pipe.guidance_scale])
    rows = [numbers_of(pipe, arguments, steps, scale) for steps, scale in pairs]  # checked before the work
    data = arguments.data or data_of(arguments.model)
    (_emoji if data == "emoji" else _scenes)(pipe, arguments, rows)


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
