"""The command line, `vqlearn COMMAND`; `python -m vqlearn` is the same."""

from __future__ import annotations

import argparse
import sys

from vqlearn import __version__
from vqlearn.cli import convert, course, doctor, evaluate, generate, info, train
from vqlearn.cli.output import printable

COMMANDS = (generate, train, evaluate, convert, info, course, doctor)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for what cannot be done, 130 after Ctrl-C, 1 for what is lost."""
    with printable() as printer:
        status = _status(sys.argv[1:] if argv is None else argv)
    return status or printer.status


def _status(argv: list[str]) -> int:
    arguments = argparse.Namespace(interrupted="nothing was done")
    try:
        _parser().parse_args(course.modern(argv), arguments)
        return arguments.run(arguments) or 0
    except BrokenPipeError:  # who read what is printed has seen enough
        return 0
    except KeyboardInterrupt:
        print(f"vqlearn: interrupted, {arguments.interrupted}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        print(f"vqlearn: {' '.join(str(error).splitlines()) or 'the memory does not suffice'}", file=sys.stderr)
        return 2


def _is_out_of_memory(error: RuntimeError) -> bool:
    """torch's words, on a CPU and on a GPU, for what Python calls MemoryError."""
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vqlearn", description="Learn, run and research VQ-Diffusion.")
    parser.add_argument("--version", action="version", version=f"vqlearn {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
