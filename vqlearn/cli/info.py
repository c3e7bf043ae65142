"""`vqlearn info`: what a model is made of, and what it needs."""

from __future__ import annotations

import argparse

from vqlearn.cli.options import Commands


def add(commands: Commands) -> None:
    command = commands.add_parser("info", help="what a model is made of, and what it needs", description=run.__doc__)
    command.add_argument("model", nargs="?", help="a model folder or a hub name (default: the shipped model)")
    command.set_defaults(run=run, interrupted="nothing was changed")


def run(arguments: argparse.Namespace) -> None:
    """Print a model's parts and their sizes, its schedule, and the memory that it needs."""
    from vqlearn.autoregression import load_pipeline
    from vqlearn.checkpoints.description import describe
    from vqlearn.checkpoints.hub import locate

    folder = locate(arguments.model)
    print(describe(load_pipeline(arguments.model), folder))
