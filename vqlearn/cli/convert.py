"""`vqlearn convert`: make a model folder of a checkpoint of the original code."""

from __future__ import annotations

import argparse
from pathlib import Path

from vqlearn.cli.options import Commands, path_name


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "convert", help="make a model folder of an original checkpoint", description=run.__doc__
    )
    command.add_argument("checkpoint", help="a .pth file of the original code")
    command.add_argument("--config", required=True, help="its YAML file")
    command.add_argument("--codec-config", help="the codec's YAML file (default: where --config names it)")
    command.add_argument("--mapping", help="which codes are in use, a .pt file (default: where --config names it)")
    command.add_argument("--out", required=True, type=path_name, help="the model folder to write")
    command.set_defaults(run=run, interrupted="nothing was written")


def run(arguments: argparse.Namespace) -> None:
    """Read a checkpoint of the original code and write a model folder that every command and `from_pretrained` read."""
    from vqlearn.checkpoints.description import describe
    from vqlearn.pipeline import VQDiffusionPipeline

    pipe = VQDiffusionPipeline.from_original(
        arguments.checkpoint, arguments.config, codec_config=arguments.codec_config, mapping=arguments.mapping
    )
    pipe.save_pretrained(arguments.out)
    print(f"wrote {arguments.out}\n\n{describe(pipe, Path(arguments.out))}")
