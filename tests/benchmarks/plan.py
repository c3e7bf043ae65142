"""What it takes to train the largest size, L, computed: `python -m tests.benchmarks.docs` writes it into
`docs/many_machines.md`.

Operations and parameters are those of the network itself, built without memory. What is assumed stands in capitals.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from vqlearn.networks import cost
from vqlearn.training.sizes import SIZES

PICTURES, EPOCHS, BATCH = 200e6, 2, 768  # the ITHQ run: cientgu/VQ-Diffusion, issue 20; 96 GPUs with 8 pictures each
MONTH, THEIR_GPUS = 30 * 86400, 96
REACHED = 0.4  # of the peak rate: an assumption, larger batches come close to it
MEMORY, FILLED = 80e9, 0.9
DISK = 2e9  # bytes per second that are written
POSITIONS, CODES, TEXT = 1024, 4096, (77, 512)


class Gpu(NamedTuple):
    peak: float  # bfloat16 operations per second, dense
    price: float  # dollars an hour, an assumption
    beside: float  # bytes per second to the others in its machine
    between: float  # and, of its share, to other machines


GPUS = {"A100": Gpu(312e12, 2.0, 300e9, 25e9), "H100": Gpu(989e12, 3.0, 450e9, 50e9)}


def network(layers: int | None = None) -> Any:
    """L, or so many of its layers, without memory."""
    size = SIZES["L"] if layers is None else replace(SIZES["L"], layers=layers)
    with torch.device("meta"):
        return size.denoiser(CODES, 32, None, True)


@functools.cache
def parameters(layers: int | None = None) -> int:
    return sum(one.numel() for one in network(layers).parameters())


@functools.cache
def forward() -> float:
    """Floating-point operations to evaluate the network for one picture."""
    return cost.work(network())


def operations(checkpointing: bool = False) -> float:
    """Floating-point operations to learn from one picture: forward, twice as much backward, and forward once more."""
    return (3 + checkpointing) * forward()


class _Fused(torch.autograd.Function):
    """Attention that keeps what a fused kernel keeps: queries, keys, values, the result and a number for each row."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # the kernels lay the result out by positions, so that no copy is made of it
        out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:-1], dtype=torch.float32, device="meta"))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(one) for one in ctx.saved_tensors[:3])


@functools.cache
def kept(layers: int) -> int:
    """Bytes that the backward pass of one picture needs, bfloat16, by torch's own account."""
    own, sizes = network(layers).bfloat16(), {}
    weights = {one.untyped_storage()._cdata for one in own.parameters()}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = (storage.nbytes(), x)  # held, or another would be given its address
        return x

    fused = lambda q, k, v, **_: _Fused.apply(q, k, v)  # noqa: E731
    with (
        torch.device("meta"),
        saved_tensors_hooks(pack, lambda x: x),
        patch.object(F, "scaled_dot_product_attention", fused),
    ):
        tokens, text = torch.zeros(1, POSITIONS, dtype=torch.int64), torch.zeros(1, *TEXT, dtype=torch.bfloat16)
        own(tokens, text, torch.zeros(1, dtype=torch.int64))
    return sum(size for size, _ in sizes.values())


def activations(checkpointing: bool = False) -> float:
    """Bytes of one picture in one update: what layers keep, and the prediction four times, twice of it in float32."""
    layer, prediction = kept(3) - kept(2), POSITIONS * CODES * (2 + 2 + 4 + 4)
    layers = SIZES["L"].layers
    if checkpointing:
        return layers * POSITIONS * SIZES["L"].width * 2 + layer + prediction
    return layers * layer + prediction


def state(gpus: int) -> dict[str, float]:
    """Bytes of each GPU that do not depend on the batch."""
    whole, layer = parameters(), parameters(2) - parameters(1)
    rest = whole - SIZES["L"].layers * layer
    return {
        "weights": 4 * whole / gpus,
        "gradients": 4 * whole / gpus,
        "moments": 8 * whole / gpus,
        "average": 4 * whole / gpus,
        "put together": 2 * (rest + 3 * layer) + (2 + 4) * layer if gpus > 1 else 2 * 2 * whole,
    }


def most(gpus: int, checkpointing: bool) -> int:
    """Pictures that fit into the memory of each GPU at once."""
    return max(0, int((FILLED * MEMORY - sum(state(gpus).values())) / activations(checkpointing)))


class Run(NamedTuple):
    at_once: int  # pictures in a GPU
    parts: int  # of an update, one after the other
    seconds: float  # of an update
    sent: float  # seconds of it, if none of what is sent is sent while a GPU computes
    days: float
    dollars: float


def run(gpu: Gpu, gpus: int) -> Run:
    """The whole of the papers' largest run."""
    share = BATCH // gpus
    parts = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= most(gpus, False))
    seconds = share * operations() / (REACHED * gpu.peak)
    traffic = 2 * 2 * parameters() * parts + 4 * parameters()  # weights twice, gradients once
    sent = traffic * (gpus - 1) / gpus / (gpu.beside if gpus <= 8 else gpu.between)
    hours = PICTURES * EPOCHS / BATCH * (seconds + sent) / 3600
    return Run(share // parts, parts, seconds, sent, hours / 24, hours * gpus * gpu.price)


def theirs() -> dict[bool, float]:
    """Operations per second of each of their GPUs, without and with the forward pass made twice."""
    return {twice: PICTURES * EPOCHS * operations(twice) / (THEIR_GPUS * MONTH) for twice in (False, True)}


def tables() -> str:
    gb = 1e9
    lines = ["| bytes of each GPU | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in (1, 8, 64)) + " |"]
    lines.append("|---|---|---|---|")
    columns = {n: state(n) for n in (1, 8, 64)}
    for name in columns[1]:
        lines.append(f"| {name} | " + " | ".join(f"{columns[n][name] / gb:.1f} GB" for n in columns) + " |")
    lines.append(
        "| all of these | " + " | ".join(f"{sum(one.values()) / gb:.1f} GB" for one in columns.values()) + " |"
    )
    for checkpointing, name in ((False, "pictures that fit beside them"), (True, "with activation checkpointing")):
        lines.append(f"| {name} | " + " | ".join(str(most(n, checkpointing)) for n in columns) + " |")
    lines += ["", "| | pictures at once, parts | update | of it sending | tokens per second | days | dollars |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, gpu in GPUS.items():
        for n in (8, 64):
            one = run(gpu, n)
            took = one.seconds + one.sent
            lines.append(
                f"| {n} {name} | {one.at_once}, {one.parts} | {took:.2f} s | {one.sent:.2f} s "
                f"| {BATCH * POSITIONS / took:,.0f} | {one.days:.1f} | {one.dollars:,.0f} |"
            )
    return "\n".join(lines)


def figures() -> str:
    """What one picture takes, and what the papers' run took."""
    plain, twice = (theirs()[recomputed] / 1e12 for recomputed in (False, True))
    whole = parameters()
    return "\n".join([
        f"- {whole:,} weights; learning from one picture of {POSITIONS:,} tokens takes {operations() / 1e12:.2f} TFLOP "
        f"({operations(True) / 1e12:.2f} with activation checkpointing) and keeps {activations() / 1e9:.2f} GB of "
        f"activations in bfloat16 ({activations(True) / 1e9:.2f} GB).",
        f"- The run of the paper: {PICTURES / 1e6:.0f} million pictures, {EPOCHS} epochs, "
        f"{PICTURES * EPOCHS * operations():.3g} operations. On {THEIR_GPUS} V100 in {MONTH // 86400} days that is "
        f"{plain:.1f} TFLOP/s for each, or {twice:.1f} with the forward pass made twice, as its public configuration "
        f"says: {twice / 125:.0%} of the peak rate of a V100 in half precision, 125 TFLOP/s.",
        f"- A checkpoint has {16 * whole / 1e9:.1f} GB, of which each process writes its part: "
        f"{16 * whole / DISK:.0f} seconds for all where the disk takes {DISK / 1e9:.0f} GB/s.",
    ])  # fmt: skip
