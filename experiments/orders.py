"""Does the order matter in which an autoregressive model draws? One network for each order, and one for all of them.

    python -m experiments.orders

The pictures are filled rectangles of two inks on a grid of 6 x 6 tokens, 882 in all, each as likely as any other, so
what the ideal model of any order predicts is found by counting. Every network learns all of them in as many updates.
Rows are in `experiments/results/orders.csv`: the share of 1 000 draws that are rectangles, the code length in bits, and
how much of it is too much at each position, in raster order. A command that was stopped goes on at the next row.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from experiments.world import Pictures
from vqlearn import AutoregressivePipeline
from vqlearn.course.results import read, save
from vqlearn.networks.autoregressive import AutoregressiveTransformer
from vqlearn.training import DenoiserRecipe
from vqlearn.training.autoregressive import AutoregressiveStage

HERE = Path(__file__).parent
SIDE, INKS, SEEDS = 6, 2, 3
RASTER = tuple(range(SIDE**2))
ORDERS: dict[str, Callable[[int], Sequence[int]]] = {
    "raster": lambda seed: RASTER,
    "reverse": lambda seed: RASTER[::-1],
    "random": lambda seed: torch.randperm(SIDE**2, generator=Generator().manual_seed(seed)).tolist(),
}
ANY = "any order"  # the network learns an order for each row, and draws in raster order


def rectangles() -> Tensor:
    """All pictures, int64 `[882, 36]`: 0 is the background, 1 and 2 are inks."""
    edges = list(itertools.combinations(range(SIDE + 1), 2))
    found = torch.zeros(len(edges) ** 2 * INKS, SIDE, SIDE, dtype=torch.int64)
    for grid, ((top, bottom), (left, right), ink) in zip(
        found, itertools.product(edges, edges, range(INKS)), strict=True
    ):
        grid[top:bottom, left:right] = ink + 1
    return found.flatten(1)


def ideal(pictures: Tensor, order: Sequence[int]) -> Tensor:
    """The mean of -log p(x_i | the tokens before it in the order) under the ideal model, by position, float64 `[L]`.

    All pictures are equally likely: those that agree so far are counted before and after each token.
    """
    found, groups = torch.zeros(len(order), dtype=torch.float64), torch.zeros(len(pictures), dtype=torch.int64)
    for place in order:
        before = groups.bincount()[groups]
        groups = torch.stack([groups, pictures[:, place]], 1).unique(dim=0, return_inverse=True)[1]
        found[place] = (before / groups.bincount()[groups]).double().log().mean()
    return found


def any_order(batch: Any, network: Any) -> tuple[Tensor, dict[str, Any]]:
    """The objective that draws an order for each row (Pannatier et al. 2024)."""
    order = torch.rand(batch.x_0.shape, generator=batch.generator).argsort(-1)
    return F.cross_entropy(network(batch.x_0, order).flatten(0, 1), batch.x_0.flatten()), {}


def learned(setting: str, seed: int, updates: int) -> AutoregressiveTransformer:
    """A network of two layers, width 32, that has learned the rectangles in an order, or in all of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoregressiveTransformer(
            INKS + 1, SIDE**2, 4, 8, 2, None, order=ORDERS.get(setting, ORDERS["raster"])(seed)
        )
    recipe = DenoiserRecipe(steps=updates, batch=64, learning_rate=3e-3, null_share=0, ema=0.99, seed=seed)
    data = Pictures(rectangles(), None)
    objective = any_order if setting == ANY else None
    stage = AutoregressiveStage(AutoregressivePipeline(None, None, None, network), data, recipe, objective)
    for number in range(updates):
        stage.step(number)
    found: AutoregressiveTransformer = stage.averaged().transformer
    return found


def measure(setting: str, seed: int, updates: int = 1000, draws: int = 1000) -> dict[str, float]:
    """How often a network draws a rectangle, its bits, and how many of them are too many at each position."""
    network, pictures = learned(setting, seed, updates), rectangles()
    drawn = network.generate(batch=draws, generator=Generator().manual_seed(seed))
    right = (drawn[:, None] == pictures).all(-1).any(-1)
    with torch.no_grad():
        log_p = network(pictures).double().log_softmax(-1).gather(-1, pictures[..., None])[..., 0]
    excess = -log_p.mean(0) - ideal(pictures, network.config.order or RASTER)
    by_position = {f"excess {place}": float(bits) for place, bits in enumerate(excess / math.log(2))}
    bits = -float(log_p.sum(-1).mean()) / math.log(2)
    return {"right": float(right.double().mean()), "bits": bits, **by_position}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.orders", description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "orders.csv")
    chosen = parser.parse_args(arguments)
    rows = read(chosen.out)
    for setting, seed in itertools.product([*ORDERS, ANY], range(SEEDS)):
        if all((row["setting"], row["seed"]) != (setting, seed) for row in rows):
            rows.append({"setting": setting, "seed": seed, **measure(setting, seed, chosen.updates, chosen.draws)})
            save(chosen.out, rows)
            print(f"{setting}, seed {seed}: {rows[-1]['right']:.1%} right, {rows[-1]['bits']:.2f} bits", flush=True)


if __name__ == "__main__":
    main()
