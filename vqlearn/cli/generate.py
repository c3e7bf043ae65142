"""`vqlearn generate`: draw a picture of a sentence."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vqlearn.cli.options import Commands, add_drawing, data_of, load, note, numbers_of, path_name, whole
from vqlearn.data.files import replaced, replaced_files
from vqlearn.remarks import heard_by

if TYPE_CHECKING:
    from PIL.Image import Image

    from vqlearn.autoregression import AutoregressivePipeline
    from vqlearn.pipeline import VQDiffusionPipeline

VIEW = 256  # pictures smaller than this are enlarged by a whole factor, so that pixels stay square
ROOM = 2**18  # bytes that a PNG of this size may take, and more than most do
MOST = 10_000  # pictures of one call


def add(commands: Commands) -> None:
    command = commands.add_parser("generate", help="draw a picture of a sentence", description=run.__doc__)
    command.add_argument(
        "prompt",
        nargs="*",
        help="for example: a small red circle above a large blue square; a class, or nothing, if the model reads that",
    )
    command.add_argument(
        "--out",
        default="vqlearn.png",
        type=path_name,
        help="the PNG to write (default %(default)s); with --count its name is numbered",
    )
    add_drawing(command)
    command.add_argument(
        "--seed", type=whole(0, 2**64 - 1), default=0, help="default %(default)s; the same seed gives the same picture"
    )
    command.add_argument("--count", type=whole(1, MOST), default=1, help="how many pictures (default %(default)s)")
    command.set_defaults(run=run, interrupted="nothing was written")


def run(arguments: argparse.Namespace) -> None:
    """Draw pictures of a sentence with the shipped model (or another) and write them as PNG."""
    paths = targets(Path(arguments.out), arguments.count)
    from vqlearn.evaluation.verdict import WORLDS, is_known, verdict
    from vqlearn.networks.conditions import Texts
    from vqlearn.networks.text import sentence

    prompt = sentence(" ".join(arguments.prompt)) if arguments.prompt else None
    pipe = load(arguments)
    if prompt is None and isinstance(pipe.conditions, Texts):
        raise ValueError("say what to draw, for example: vqlearn generate a small red circle above a large blue square")
    images = draw(pipe, prompt, arguments)
    write(paths, images)
    arguments.interrupted = "the pictures were written"
    said, data = prompt or "", data_of(arguments.model)
    reads = arguments.model in (None, *WORLDS) or is_known(said, data)  # a model of one's own draws what it likes
    for path, image in zip(paths, images, strict=True):
        found = verdict(image, said, data) if reads else ""
        print(f"wrote {path}" + (f": {found}" if found else ""))


def draw(
    pipe: VQDiffusionPipeline | AutoregressivePipeline, prompt: str | None, arguments: argparse.Namespace
) -> list[Image]:
    """The pictures, as PIL images; remarks are printed as notes."""
    import torch

    with heard_by(note):  # at once: what a picture will cost is said before the work, not after it
        images: list[Image] = pipe(
            prompt,
            **numbers_of(pipe, arguments, arguments.steps, arguments.guidance),
            num_images_per_prompt=arguments.count,
            generator=torch.Generator().manual_seed(arguments.seed),
        ).images
    return images


def targets(out: Path, count: int) -> list[Path]:
    """The files to write, each of them tried before any work is done; raises ValueError."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out must be a name that ends in .png, got {str(out)!r}")
    if not out.parent.is_dir():
        raise ValueError(f"--out: there is no folder {str(out.parent)!r}; make it first or choose another")
    paths = [out] if count == 1 else [out.with_stem(f"{out.stem}-{number}") for number in range(1, count + 1)]
    for path in paths:
        try:
            _look_at(path)
            if path == paths[0]:
                _try(path)
        except (OSError, ValueError) as error:  # ValueError: a name that the file system's encoding lacks
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ValueError(f"--out: {str(path)!r} cannot be written ({why}); choose another file") from None
    if (free := shutil.disk_usage(out.parent).free) < count * ROOM:
        raise ValueError(
            f"--out: {count} pictures may take {count * ROOM / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free"
        )
    return paths


def _look_at(path: Path) -> None:
    """Raise OSError or ValueError for a name that cannot be one, and for what is there and is no file to replace."""
    with contextlib.suppress(FileNotFoundError):
        os.lstat(path)
    if path.exists() and not path.is_file():
        raise ValueError("it is a folder" if path.is_dir() else "it is no ordinary file")
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError("it is write-protected")


class _Tried(Exception):
    """Ends a trial, so that nothing is replaced."""


def _try(path: Path) -> None:
    """Write as much as a picture takes beside its path, and take it away; raises what the file system raises."""
    with contextlib.suppress(_Tried), replaced(path) as part:
        part.write_bytes(bytes(ROOM))
        raise _Tried


def write(paths: list[Path], images: list[Image]) -> None:
    """Write PNGs: all of them beside their paths first, then each in one move, so that none is ever half a picture."""
    with replaced_files(paths) as parts:
        for part, image in zip(parts, images, strict=True):
            factor = max(1, VIEW // image.width)
            image.resize((image.width * factor, image.height * factor), resample=0).save(part, format="PNG")
