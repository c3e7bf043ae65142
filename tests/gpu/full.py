"""Part 2: the model of the published size with random weights made on the device, beside diffusers, in turns.

Rows come in the order of their importance, and one is begun only while there is time for it. A step is a guided one:
both branches, truncation, and the draw. Its seconds are the mean over a run, in which a GPU is waited for twice,
and the median over runs. The share of the rate counts the products that a step takes (torch's FLOP counter).
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Generator, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import full_size, peers
from vqlearn import VQDiffusionPipeline, VQDiffusionScheduler
from vqlearn.checkpoints.original import published_tokenizer
from vqlearn.networks import cost

from .probe import peak_bytes, waits_per_step
from .record import Record, bar

CALL: dict[str, Any] = {"guidance_scale": 5.0, "truncation_rate": 0.86}
PROMPT = "teddy bear playing in the pool"
EAGER, COMPILED, CAPTURED = "eager", "compiled", "captured"
OPTIONS: dict[str, dict] = {COMPILED: {}, CAPTURED: {"backend": "cudagraphs", "mode": None}}  # of `compile`
ON_A_CPU = {"backend": "eager", "mode": None}
NEEDED = {EAGER: 12.0, COMPILED: 60.0, CAPTURED: 20.0}  # seconds of a row on a GPU, before one was timed


class Case(NamedTuple):
    """A dtype, so many pictures at once, and how the network is called."""

    dtype: torch.dtype
    batch: int
    mode: str

    def named(self) -> dict[str, Any]:
        return {"dtype": str(self.dtype).removeprefix("torch."), "batch": self.batch, "mode": self.mode}


@dataclass(frozen=True)
class Size:
    """How large everything is: networks, batches, timed steps of a run, runs, steps of whole pictures, and rows."""

    shape: dict[str, dict] = field(default_factory=dict)
    batches: tuple[int, int, int] = (1, 4, 16)
    steps: int = 20
    runs: int = 3
    pictures: tuple[int, ...] = (10, 25, 100)
    rows: int | None = None  # None: the whole plan


PUBLISHED = Size({"network": full_size.NETWORK, "codec": full_size.CODEC, "text": full_size.TEXT})
TINY = Size(
    {
        "network": {**full_size.NETWORK, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1,
                    "cross_attention_dim": 16, "num_vector_embeds": 33, "sample_size": 8},
        "codec": {**full_size.CODEC, "block_out_channels": [8, 8, 8, 8], "latent_channels": 8, "num_vq_embeddings": 32,
                  "norm_num_groups": 4, "vq_embed_dim": 4, "layers_per_block": 1},
        "text": {**full_size.TEXT, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                 "num_attention_heads": 2},
    },
    batches=(1, 2, 8), steps=2, runs=1, pictures=(2,), rows=8,
)  # fmt: skip


class Bench:
    """Pipelines of one size, made once per dtype, and the fastest one for each dtype and batch."""

    def __init__(self, size: Size, device: torch.device, until: float):
        self.size, self.device, self.until, self.peer = size, device, until, diffusers_at_hand()
        self.pipeline, self.ours = functools.cache(self._pipeline), functools.cache(self._ours)
        self.rate = functools.cache(self._rate)
        self.operations = guided_operations(size.shape)
        self.fastest: dict[tuple[torch.dtype, int], tuple[float, Case]] = {}  # seconds of a step, and of which case

    def _pipeline(self, dtype: torch.dtype) -> VQDiffusionPipeline:
        """A pipeline with random weights, made on the device in this dtype."""
        modules = full_size.modules(**self.size.shape)
        for module in modules.values():
            fill(module.to(dtype).to_empty(device=self.device))
        codes = self.size.shape["network"]["num_vector_embeds"]
        pipe = VQDiffusionPipeline(**modules, tokenizer=published_tokenizer(), scheduler=VQDiffusionScheduler(codes))
        return quiet(pipe)

    def _rate(self, dtype: torch.dtype) -> float:
        """Operations per second of a large matrix product; on a CPU of a small one in float32."""
        if self.device.type == "cuda":
            return cost.matmul_rate(self.device, dtype, 4096)
        return cost.matmul_rate(self.device, torch.float32, 256)

    def _ours(self, case: Case) -> VQDiffusionPipeline:
        """A pipeline that calls its network as the case says."""
        pipe = quiet(VQDiffusionPipeline(**self.pipeline(case.dtype).components))
        return pipe if case.mode == EAGER else pipe.compile(**self._options(case.mode))

    def theirs(self, case: Case) -> Callable:
        """diffusers' own transformer, pipeline and scheduler around the same tensors."""
        pipe = self.pipeline(case.dtype)
        network: Any = peers.diffusers_transformer(pipe)
        if case.mode != EAGER:
            options = {"mode": "reduce-overhead", "dynamic": False, **self._options(case.mode)}
            network = torch.compile(network, **options)
        draw = peers.drawing(peers.diffusers_pipeline(pipe, network), **CALL)
        return lambda count, generator, note: draw([PROMPT] * case.batch, count, generator, note)

    def in_turns(self, case: Case, sides: dict[str, Callable[[], float]]) -> dict[str, float]:
        """The median seconds of each side, measured in turns, and what follows from them."""
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(self.size.runs):
            for name, seconds in sides.items():
                found[name].append(seconds())
        row = {f"{name}_s": median(values) for name, values in found.items()}
        ours, key, operations = row["ours_s"], (case.dtype, case.batch), self.operations * case.batch
        self.fastest[key] = min(self.fastest.get(key, (math.inf, case)), (ours, case), key=itemgetter(0))
        row |= {"outside": 1 - row["network_s"] / ours, "TFLOP": operations / 1e12}
        row |= {"of_rate": operations / ours / self.rate(case.dtype)}
        return row | ({"ratio": row["theirs_s"] / ours} if "theirs_s" in row else {})

    def _options(self, mode: str) -> dict:
        return OPTIONS[mode] if self.device.type == "cuda" else ON_A_CPU

    def seconds(self, work: Callable[[], Any]) -> float:
        """Of a piece of work, until the device is done with it."""
        self.synchronize()
        begin = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - begin

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def diffusers_at_hand() -> bool:
    """Whether diffusers can be imported; says so if not."""
    try:
        import diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion  # noqa: F401
    except Exception as error:  # of its many parts
        print(f"diffusers cannot be imported, and its figures are left out: {one_line(error)}", flush=True)
        return False
    return True


def quiet(pipe: VQDiffusionPipeline) -> VQDiffusionPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def fill(module: nn.Module) -> None:
    """Random weights; scales of norms near 1, and a text's positions counted."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            scale = isinstance(part, nn.LayerNorm | nn.GroupNorm) and name == "weight"
            parameter.normal_(std=0.02).add_(1.0 if scale else 0.0)
    for buffer in module.buffers():
        buffer.copy_(torch.arange(buffer.shape[-1]))
    module.eval()


def guided_operations(shape: dict[str, dict]) -> float:
    """Floating-point operations of one guided step for one picture, counted on torch's device without values."""
    network: Any = full_size.modules(**shape)["transformer"]
    with torch.device("meta"), torch.no_grad():
        texts = network.remember(torch.zeros(2, shape["text"]["max_position_embeddings"], shape["text"]["hidden_size"]))
        tokens, timestep = torch.zeros(1, network.num_positions, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            network(tokens, texts, timestep)
    return float(counter.get_total_flops())


# ------------------------------------------------------------------------------------------ rows


def step(bench: Bench, case: Case, record: Record) -> None:
    """A row with the seconds of a guided step and of the network alone in it; then, in turns, with those of diffusers.

    Ours is in the record before theirs begins: a compiler may take longer than there is time.
    """
    pipe = bench.ours(case)
    draw = drawing(pipe, case.batch)
    begin = time.perf_counter()
    peak = peak_bytes(lambda: draw(2, Generator(bench.device), nothing), bench.device)
    first = time.perf_counter() - begin  # with all that is done once, so with the compiler
    steps = math.ceil(bench.size.steps / case.batch**0.5)
    network = network_alone(pipe, draw, bench.device)
    sides = {
        "ours": lambda: peers.mean_step(draw, steps, bench.device),
        "network": lambda: bench.seconds(lambda: repeat(network, steps)) / steps,
    }
    row = record.add(what="step", **case.named(), peak_MB=round(peak / 1e6), first_run_s=first)
    row.update(bench.in_turns(case, sides))
    record.write()
    if case.dtype == torch.float16 and bench.peer and record.passed() + 1.3 * first + 5 < bench.until:
        try:
            theirs = bench.theirs(case)
            theirs(2, Generator(bench.device), nothing)
            sides["theirs"] = lambda: peers.mean_step(theirs, steps, bench.device)
            row.update(bench.in_turns(case, sides))
        except Exception as error:  # ours is measured all the same
            row["theirs_error"] = one_line(error)
        record.write()


def repeat(work: Callable[[], Any], times: int) -> None:
    """Keeps no result: those of a captured graph are overwritten by the next."""
    for _ in range(times):
        work()


def drawing(pipe: VQDiffusionPipeline, batch: int) -> Callable:
    """`draw(steps, generator, note) -> tokens`."""
    return lambda count, generator, note: (
        pipe([PROMPT] * batch, count, generator=generator, output_type="latent", callback=note, **CALL).images
    )


def nothing(*_) -> None:
    """A callback that does nothing."""


def network_alone(pipe: VQDiffusionPipeline, draw: Callable, device: torch.device) -> Callable[[], Any]:
    """The call of the network, compiled or not, with the arguments of a step."""
    network, seen = pipe._network, []

    def noted(*arguments, **named):
        seen.append((arguments, named))
        return network(*arguments, **named)

    pipe._network = noted
    draw(1, Generator(device), nothing)
    pipe._network = network
    arguments, named = seen[0]
    return torch.no_grad()(lambda: network(*arguments, **named))


def waiting(bench: Bench, case: Case) -> dict[str, Any]:
    """How often a step waits for the device, by the profiler's count."""
    draw = drawing(bench.ours(case), case.batch)
    found = waits_per_step(lambda steps: draw(steps, Generator(bench.device), nothing), bench.device)
    return {**case.named(), "per_step": found}


def pictures(bench: Bench, dtype: torch.dtype, batch: int, steps: int) -> dict[str, Any]:
    """Whole pictures per second, from text to image, with the fastest way to call the network."""
    case = bench.fastest[dtype, batch][1]
    pipe, generator = bench.ours(case), Generator(bench.device).manual_seed(0)
    pipe([PROMPT] * batch, 1, generator=generator, **CALL)  # the codec has not run yet
    seconds = bench.seconds(lambda: pipe([PROMPT] * batch, steps, generator=generator, **CALL))
    return {**case.named(), "steps": steps, "per_second": batch / seconds}


# ------------------------------------------------------------------------------------------ the plan


def plan(size: Size) -> Iterator[tuple[str, Any]]:
    """Rows, the most important ones first, as kind and arguments."""
    half, brain = torch.float16, torch.bfloat16
    one, some, many = size.batches
    yield "step", Case(half, one, EAGER)
    yield "waits", Case(half, one, EAGER)
    yield "step", Case(half, one, COMPILED)
    yield "waits", Case(half, one, COMPILED)
    yield "step", Case(half, many, EAGER)
    yield from (("pictures", (half, one, steps)) for steps in size.pictures)
    yield from (("step", case) for case in (Case(brain, one, EAGER), Case(brain, many, EAGER), Case(half, some, EAGER)))
    yield "step", Case(half, many, COMPILED)
    yield from (("pictures", (half, many, steps)) for steps in size.pictures)
    yield "step", Case(brain, one, COMPILED)
    yield from (("step", Case(dtype, some, COMPILED)) for dtype in (half, brain))
    yield from (("step", case) for case in (Case(brain, some, EAGER), Case(brain, many, COMPILED)))


def run(out: Path, device: torch.device, seconds: float) -> None:
    """Measure what there is time for."""
    record = Record(out, "full", device)
    bench = Bench(PUBLISHED if device.type == "cuda" else TINY, device, seconds)
    skipped, needed = 0, dict(NEEDED)
    for kind, what in itertools.islice(plan(bench.size), bench.size.rows):
        begin = record.passed()
        if seconds - begin < expected(bench, kind, what, needed):  # a later, shorter row may still fit
            skipped += 1
            continue
        measure(bench, record, kind, what)
        if kind == "step":
            needed[what.mode] = 1.2 * (record.passed() - begin)
        record.judge(*judged(record.content["rows"]))
    if not skipped:
        record.finish()


def expected(bench: Bench, kind: str, what: Any, needed: dict[str, float]) -> float:
    """Seconds that a row will take on a GPU, by what has been timed; none on a CPU, where everything is tiny."""
    if bench.device.type != "cuda":
        return 0.0
    if kind == "step":
        return needed[what.mode]
    measured = bench.fastest.get(what[:2])
    if measured is None or (kind == "waits" and what.mode not in (EAGER, measured[1].mode)):
        return math.inf  # what failed is not tried again
    return 5 + 1.2 * measured[0] * (what[2] if kind == "pictures" else 10)


def measure(bench: Bench, record: Record, kind: str, what: Any) -> None:
    """Add a row. One that fails says why; where a compiler fails, the bare graph is measured in its place."""
    try:
        if kind == "pictures":
            record.add(what=kind, **pictures(bench, *what))
        elif kind == "waits":
            record.add(what=kind, **waiting(bench, what))
        else:
            step(bench, what, record)
    except Exception as error:  # of a compiler, of the memory: no other row depends on it
        named = {} if kind == "pictures" else what.named()
        record.add(what=kind, **named, error=one_line(error))
        if kind == "step" and what.mode == COMPILED:
            measure(bench, record, kind, what._replace(mode=CAPTURED))


def one_line(error: BaseException) -> str:
    """The kind of an error, and the first line that it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bars that the rows so far can be held against."""
    steps = [row for row in rows if "ours_s" in row]
    found = []
    for row in steps:
        if row["batch"] == 1 and "ratio" in row:
            found.append(bar(f"1.5 times diffusers at batch 1, {row['mode']}", row["ratio"], row["ratio"] >= 1.5))
    if rates := [row["of_rate"] for row in steps if row["batch"] >= 8]:
        found.append(bar("half of the matrix products' rate at batch 8 or more", max(rates), max(rates) >= 0.5))
    if outside := [row["outside"] for row in steps]:
        found.append(bar("at most 1 % of a step outside the network", max(outside), max(outside) <= 0.01))
    if waits := [sum(row["per_step"].values()) for row in rows if "per_step" in row]:
        found.append(bar("nobody waits for the device in the loop", max(waits), max(waits) == 0))
    return found
