"""What several commands share: numbers, the options of drawing, and loading the model they name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from vqlearn import arguments as numbers

if TYPE_CHECKING:
    from vqlearn.autoregression import AutoregressivePipeline
    from vqlearn.pipeline import VQDiffusionPipeline

LONG = 1000  # characters of a remark, which may quote a prompt
STEPS = 25

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # what `add_subparsers` returns


def whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to `most`."""
    return _parser(int, lambda value: numbers.whole("", value, least, most))


def real() -> Callable[[str], float]:
    """A parser of finite numbers; their range is the pipeline's affair."""
    return _parser(float, lambda value: numbers.real("", value))


def path_name(text: str) -> str:
    """A path; an empty one, as of a variable of the shell that was never set, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got ''")
    return text


def _parser(read: Callable[[str], Any], check: Callable[[Any], Any]) -> Callable[[str], Any]:
    """A parser that reads a number and has it checked by `vqlearn.arguments`; argparse names the option."""

    def parse(text: str) -> Any:
        try:
            number = read(text)
        except ValueError:
            number = text
        try:
            return check(number)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).strip()) from None

    return parse


class _Samplers(Container[str]):
    """The names in `vqlearn.SAMPLERS`, imported when one is needed, so that `vqlearn --help` imports no torch."""

    def __iter__(self) -> Iterator[str]:
        from vqlearn.samplers import SAMPLERS

        return iter(SAMPLERS)

    def __contains__(self, name: object) -> bool:
        return name in list(self)


def add_drawing(parser: argparse.ArgumentParser, **several: Any) -> None:
    """The options of a call of the pipeline; with `nargs` the steps and the guidance scale take several values."""
    steps = f"sampling steps, 1 to T (default {STEPS}); an autoregressive model has none"
    parser.add_argument("--steps", type=whole(1), help=steps, **several)
    parser.add_argument(
        "--guidance", type=real(), help="classifier-free guidance scale (default: the model's own)", **several
    )
    truncation = "truncation rate in [0, 1], the top-p of an autoregressive model; 1 is off (default: the model's)"
    parser.add_argument("--truncation", type=real(), help=truncation)
    named = "how the reverse process is sampled, one of %(choices)s (default ancestral)"
    parser.add_argument("--sampler", metavar="NAME", choices=_Samplers(), help=named)
    parser.add_argument("--model", help="a model folder or a hub name (default: the shipped model)")
    dtypes = ["auto", "float32", "bfloat16", "float16"]
    dtype = "of the weights (default %(default)s: float32, and for a large model what is fast on this machine)"
    parser.add_argument("--dtype", choices=dtypes, default="auto", help=dtype)


def load(arguments: argparse.Namespace) -> VQDiffusionPipeline | AutoregressivePipeline:
    """The pipeline that --model names, in the dtype of --dtype; a note says so where it is not float32."""
    from vqlearn.autoregression import load_pipeline

    pipe = load_pipeline(arguments.model, torch_dtype=arguments.dtype)
    if (name := str(pipe.dtype).removeprefix("torch.")) != "float32":
        note(f"the weights are in {name} (vqlearn doctor says why; --dtype float32 is more exact)")
    return pipe


def check_device(name: str) -> None:
    """Raises ValueError for a device that torch cannot use here."""
    import torch

    try:
        torch.empty(1, device=name).item()  # which "meta" cannot do
    except (RuntimeError, AssertionError):
        raise ValueError(f"--device {name}: torch cannot use it on this machine, try cpu") from None


def data_of(model: str | None) -> str:
    """What a model draws, "scenes" or "emoji", as its name says."""
    return "emoji" if model == "emoji" else "scenes"


def numbers_of(pipe: Any, arguments: argparse.Namespace, steps: int | None, scale: float | None) -> dict[str, Any]:
    """The numbers of a call of a pipeline, checked; raises ValueError, and for options that its kind does not have."""
    from vqlearn.autoregression import AutoregressivePipeline

    if isinstance(pipe, AutoregressivePipeline):
        for option, value in {"--steps": steps, "--sampler": arguments.sampler}.items():
            if value is not None:
                raise ValueError(f"{option} is for diffusion models, this one is autoregressive: leave it out")
        call: dict[str, Any] = {"guidance_scale": scale, "top_p": arguments.truncation}
        pipe.check(**call)
        return call
    call = {"num_inference_steps": steps or STEPS, "guidance_scale": scale, "truncation_rate": arguments.truncation}
    pipe.check(**call)
    return {**call, "sampler": arguments.sampler or "ancestral"}


def note(message: str) -> None:
    """Print a remark to stderr, of a long one what a screen can hold."""
    print(f"vqlearn: note: {message if len(message) <= LONG else message[:LONG] + ' ...'}", file=sys.stderr)
