"""The command line, `vqlearn COMMAND`; `python -m vqlearn` is the same."""

from __future__ import annotations

import argparse
import sys

from vqlearn import __version__
from vqlearn.cli import convert, course, doctor, evaluate, generate, info, train

COMMANDS = (generate, train, evaluate, convert, info, course, doctor)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for wrong input, 130 after Ctrl-C."""
    arguments = _parser().parse_args(course.modern(sys.argv[1:] if argv is None else argv))
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
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
