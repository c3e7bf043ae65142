"""`vqlearn doctor`: what a bug report needs."""

from __future__ import annotations

import argparse

from vqlearn.cli.options import Commands


def add(commands: Commands) -> None:
    command = commands.add_parser("doctor", help="what a bug report needs", description=run.__doc__)
    command.add_argument("--model", help="check this model instead of the shipped one")
    command.set_defaults(run=run, interrupted="nothing was changed")


def run(arguments: argparse.Namespace) -> None:
    """Print versions, device and whether the model is found and whole: what a bug report needs."""
    from vqlearn.evaluation.installation import findings

    for name, value in findings(arguments.model):  # printed as they are found: what fails last leaves the rest to read
        print(f"{name:15} {value}", flush=True)
