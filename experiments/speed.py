"""How long each kind of model draws, at the papers' sizes, which nobody trains here: the weights are random numbers.

    python -m experiments.speed                      every shape, batches of 1, 8 and 32, and four sizes of the grid
    python -m experiments.speed --shapes toy --batches 1
    python -m experiments.speed --device cuda        on a GPU, in its own rows

A picture of the diffusion model takes as many steps as are asked for, each of them one row's `seconds`; one of the
autoregressive model takes the whole row's. Seconds are of processor time, in one thread, or of a GPU's time. Rows are
kept in `experiments/results/speed.csv` one by one; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Generator, Tensor

from vqlearn import MaskReplaceSchedule, p_sample_step
from vqlearn.course.results import read, save
from vqlearn.networks.autoregressive import AutoregressiveTransformer
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.training.updates import has_fast_bfloat16

HERE = Path(__file__).parent
KINDS = ("diffusion, one step", "autoregressive, with cache", "autoregressive, no cache")


@dataclass(frozen=True)
class Shape:
    """The size of a denoiser and of its rival: layers, width, heads, positions, codes, and the text `[S, D]`."""

    layers: int
    width: int
    heads: int
    positions: int = 1024
    codes: int = 4096
    text: tuple[int, int] = (77, 512)

    def network(self, kind: str, device: torch.device, dtype: torch.dtype) -> Any:
        """A network of this shape with random weights."""
        common = {
            "num_attention_heads": self.heads, "attention_head_dim": self.width // self.heads,
            "num_layers": self.layers, "cross_attention_dim": self.text[1],
        }  # fmt: skip
        with torch.device("meta"):
            if kind.startswith("diffusion"):
                side = math.isqrt(self.positions)
                network: Any = Transformer2DModel(num_vector_embeds=self.codes + 1, sample_size=side, **common)
            else:
                network = AutoregressiveTransformer(self.codes, self.positions, **common)
        network = network.to(dtype).to_empty(device=device)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        return network.eval()


SHAPES = {  # all with a linear feed-forward: one of 3 x 3 convolutions, as S has, could not be causal
    "toy": Shape(6, 128, 4, 64, 1024, (32, 96)),  # the shipped model's, with a feed-forward as the papers' have
    "S": Shape(18, 192, 16),
    "B": Shape(19, 1024, 16),
}
SIDES = (8, 16, 32, 64)  # of the grids in which the S shape is measured


@dataclass(frozen=True)
class Bench:
    """Where it is measured, and how a time is taken there."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def on(cls, device: str) -> Bench:
        """A device in its fast dtype."""
        chosen = torch.device(device)
        if chosen.type == "cpu":
            torch.set_num_threads(1)
            return cls(chosen, torch.bfloat16 if has_fast_bfloat16() else torch.float32)
        return cls(chosen, torch.float16)

    @property
    def name(self) -> str:
        """What the rows say."""
        return "CPU, one thread" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """Of some work: processor time, or the time until a GPU is done."""
        if self.device.type == "cpu":
            begin = time.process_time()
            work()
            return time.process_time() - begin
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    def typical(self, work: Callable[[], object], enough: float = 2.0) -> float:
        """The median of three times or more, after a first one; of one alone that takes longer than is enough."""
        first = self.seconds(work)
        if first > enough:
            return first
        return median(self.seconds(work) for _ in range(3))


@torch.no_grad()
def measure(kind: str, shape: Shape, batch: int, bench: Bench) -> float:
    """Seconds for a batch: of one diffusion step, or of all tokens of the autoregressive model."""
    network = shape.network(kind, bench.device, bench.dtype)
    text = torch.randn(batch, *shape.text, generator=Generator().manual_seed(0)).to(bench.device, bench.dtype)
    tokens = torch.randint(shape.codes, (batch, shape.positions), generator=Generator().manual_seed(1)).to(bench.device)
    if kind.startswith("diffusion"):
        return bench.typical(diffusion_step(network, text, tokens))
    if kind.endswith("with cache"):
        predict = network.predictor(text, batch)
        return bench.seconds(lambda: [_drawn(predict, tokens, number) for number in range(shape.positions)])
    predict = network.predictor(text, batch, cache=False)
    at = [round(part * (shape.positions - 1)) for part in (0, 0.25, 0.5, 0.75, 1)]
    times = [bench.typical(partial(_drawn, predict, tokens, number)) for number in at]
    # the cost of a prefix is quadratic in its length, so Simpson's rule has the sum over all of them
    return shape.positions * (times[0] + 4 * times[1] + 2 * times[2] + 4 * times[3] + times[4]) / 12


def diffusion_step(network: Any, text: Tensor, tokens: Tensor) -> Callable[[], object]:
    """One step of the posterior sampler in the middle of the run, from the network to the tokens."""
    schedule, read = MaskReplaceSchedule.paper(network.num_codes), network.remember(text)
    x_t, time_of = torch.where(tokens % 2 == 0, tokens, schedule.mask_id), torch.tensor(49, device=tokens.device)
    generator = Generator(tokens.device).manual_seed(0)

    def step() -> object:
        log_p = network(x_t, read, time_of).float().log_softmax(-1)
        return p_sample_step(log_p, x_t, 50, schedule, s=46, generator=generator)

    return step


def _drawn(predict: Callable[[Tensor, int], Tensor], tokens: Tensor, number: int) -> Tensor:
    return torch.multinomial(predict(tokens, number).exp(), 1)


def plan(shapes: list[str], batches: list[int], sides: list[int]) -> Iterator[tuple[str, Shape, int]]:
    """The shapes and batches to be measured, and the S shape on grids of other sizes."""
    for name in shapes:
        for batch in batches:
            yield name, SHAPES[name], batch
    for side in sides:
        yield "S", replace(SHAPES["S"], positions=side**2), 1


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=[*SHAPES])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8, 32])
    parser.add_argument("--sides", nargs="*", type=int, default=[*SIDES])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed.csv")
    chosen = parser.parse_args(arguments)
    bench, rows = Bench.on(chosen.device), read(chosen.out)
    for name, shape, batch in plan(chosen.shapes, chosen.batches, chosen.sides):
        for kind in KINDS:
            row = {"setting": kind, "device": bench.name, "shape": name, "positions": shape.positions, "batch": batch}
            if any(row.items() <= one.items() for one in rows):
                continue
            seconds = measure(kind, shape, batch, bench)
            rows.append({**row, "seconds": seconds})
            save(chosen.out, rows)
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)


if __name__ == "__main__":
    main()
