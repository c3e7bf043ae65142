"""What a call of the denoiser takes, in time and in memory, before it is made; and the dtype that makes it fast."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from vqlearn.data.files import replaced
from vqlearn.networks.autoregressive import AutoregressiveTransformer
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.remarks import remark

LONG = 60  # seconds of work on a CPU that are announced before they begin
REACHED = 0.7  # of the matrix products' rate: what whole steps run at; 0.5 to 0.8 at the published size
SHARE_OF_MEMORY = 0.5  # of what is free, for one network evaluation
CACHED = 2**21  # bytes of one layer's activations per thread; a CPU took 5 to 15 % longer with twice or half of it
LARGE = 100_000_000  # weights of a denoiser from which torch_dtype="auto" may choose half precision
GAIN = 1.25  # how many times as fast another dtype's products must be before it is worth a change
FLOATS = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}
AUTO = ("float32", "bfloat16")  # those that a CPU is measured in
Network = Transformer2DModel | AutoregressiveTransformer


def work(transformer: Network) -> float:
    """Floating-point operations of one call for one picture and one branch, those of the matrix products.

    Scales and shifts of a norm are made for one row, keys and values of a text for one prompt: they do not count.
    """
    once = re.compile(r"\.norm\d\.|\.attn2\.to_[kv]$")
    layers = (layer for name, layer in transformer.named_modules() if not once.search(name))
    each = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d))
    attention = 2 * transformer.num_positions * transformer.width * len(transformer.transformer_blocks)
    return 2.0 * (each + attention) * transformer.num_positions


def announce(
    transformer: Network, evaluations: int, pictures: float, *, instead: Sequence[str] = ("fewer steps",)
) -> None:
    """Warn of a long run on a CPU: its work, at the share of a timed matrix product's speed that whole steps reach.

    `pictures` are those of all evaluations, with guidance counted twice; `instead` is what would take less.
    """
    weight = transformer.out.weight
    if weight.device.type != "cpu":
        return
    total = work(transformer) * pictures
    if total < 1e13:  # a few seconds anywhere
        return
    seconds = total / (REACHED * cpu_rate(weight.dtype))
    if seconds > LONG:
        long = f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
        ways = ["a CUDA GPU", *instead, *faster_dtype(weight.dtype)]
        remark(
            f"in {_name(weight.dtype)} this will take about {long} on this CPU ({evaluations} network evaluations of "
            f"{total / evaluations / 1e12:.2g} TFLOP each); {', '.join(ways[:-1])} or {ways[-1]} are faster",
            stacklevel=3,
        )


# ------------------------------------------------------------------------------------------ speed, measured


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int = 1024) -> float:
    """Floating-point operations per second of a matrix product, the best of three."""
    a, times = torch.ones(size, 2 * size, dtype=dtype, device=device), []
    for _ in range(3):
        begin = time.perf_counter()
        a @ a.T
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return 2 * size * a.numel() / min(times)


def cpu_rate(dtype: torch.dtype) -> float:
    """The CPU's `matmul_rate` with all threads; where that would take long, one thread's times their number."""
    (alone,) = one_thread_rates([dtype], 0.1)
    return matmul_rate(torch.device("cpu"), dtype) if alone > 1e10 else alone * torch.get_num_threads()


def one_thread_rates(dtypes: list[torch.dtype], within: float) -> list[float]:
    """The CPU's `matmul_rate` with one thread in some dtypes, the best that about `within` seconds find.

    All are measured in turns, in products that grow as the time allows. Threads would wait for each other on a busy
    machine, longer than a small product takes.
    """
    end, size, best, threads = time.perf_counter() + within, 128, [0.0] * len(dtypes), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while True:
            for number, dtype in enumerate(dtypes):
                best[number] = max(best[number], matmul_rate(torch.device("cpu"), dtype, size))
            again = sum(12 * size**3 / rate for rate in best)  # seconds that these products take once more
            left = end - time.perf_counter()
            if size == 1024 or again > left:
                return best
            size *= 2 if 8 * again < left else 1
    finally:
        torch.set_num_threads(threads)


@functools.cache
def measured_rates() -> dict[str, float]:
    """The rates of one thread of this CPU in float32 and bfloat16, measured now in less than half a second."""
    return dict(zip(AUTO, one_thread_rates([FLOATS[name] for name in AUTO], 0.4), strict=True))


def remembered_rates() -> dict[str, float]:
    """`measured_rates`, measured once per machine and version of torch and kept in `rates_file()`.

    A file that is damaged, or cannot be read or written, does not matter: then they are measured again.
    """
    known, machine = _read_rates(), this_machine()
    if machine not in known:
        known[machine] = measured_rates()
        _write_rates(known)
    return known[machine]


def rates_file() -> Path:
    """Where rates are remembered: `vqlearn/rates.json` in the user's folder for such files."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    if not folder:
        home = os.path.expanduser("~")
        folder = os.path.join(home, ".cache") if os.path.isabs(home) else tempfile.gettempdir()  # a user without a home
    return Path(folder) / "vqlearn" / "rates.json"


def this_machine() -> str:
    """What a measurement holds for: the kind of processor, with what it can do, and the version of torch."""
    about = platform.processor()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        lines = re.findall(r"^(?:model name|flags|Features)\s*: (.+)$", text.partition("\n\n")[0], re.MULTILINE)
        about = f"{lines[0]} {zlib.crc32(' '.join(lines).encode()):08x}" if lines else about
    return f"{platform.machine()} {about}, torch {torch.__version__}"


def _read_rates() -> dict[str, dict[str, float]]:
    """What the file holds that can be such rates."""
    try:
        found = json.loads(rates_file().read_text(encoding="utf-8"))
        return {
            str(machine): {name: rates[name] for name in AUTO}
            for machine, rates in found.items()
            if all(isinstance(rates[name], int | float) and rates[name] > 0 for name in AUTO)
        }
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return {}


def _write_rates(rates: dict[str, dict[str, float]]) -> None:
    with contextlib.suppress(OSError):
        path = rates_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as part:
            part.write_text(json.dumps(rates, indent=2) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------ dtype


class Auto(NamedTuple):
    """What `torch_dtype="auto"` is, and a sentence that says why."""

    dtype: torch.dtype
    why: str


def auto_dtype(weights: int, device: str | torch.device | None = None) -> Auto:
    """Half precision for a denoiser of at least `LARGE` weights where it is fast, else float32.

    float16 on a CUDA GPU, which every card multiplies fast and whose rounding is an eighth of bfloat16's; bfloat16 on a
    CPU whose products in it are at least `GAIN` times as fast as in float32 (`remembered_rates`).
    """
    kind = torch.device("cpu" if device is None else device).type
    if weights < LARGE:
        return Auto(torch.float32, f"{weights / 1e6:.1f} M weights are fewer than {LARGE / 1e6:.0f} M")
    if kind != "cpu":
        return Auto(torch.float16 if kind == "cuda" else torch.float32, f"on {kind}")
    rates = remembered_rates()
    speeds = " and ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in rates.items())
    fast = rates["bfloat16"] >= GAIN * rates["float32"]
    return Auto(torch.bfloat16 if fast else torch.float32, f"a thread of this CPU multiplies matrices at {speeds}")


def dtype_of(
    wanted: torch.dtype | str | None, device: str | torch.device | None = None
) -> torch.dtype | Callable[[int], torch.dtype]:
    """A dtype from itself, its name, or None (float32); for "auto" a function from the number of weights to it.

    Raises ValueError for anything else.
    """
    if isinstance(wanted, str) and wanted == "auto":
        return lambda weights: auto_dtype(weights, device).dtype
    found = FLOATS.get(wanted) if isinstance(wanted, str) else torch.float32 if wanted is None else wanted
    if not (isinstance(found, torch.dtype) and found in FLOATS.values()):
        names = ", ".join(FLOATS)
        raise ValueError(f"torch_dtype must be 'auto', one of {names} (torch's dtype or its name), got {wanted!r:.60}")
    return found


def faster_dtype(dtype: torch.dtype) -> list[str]:
    """`["torch_dtype=torch.bfloat16"]` or such where this CPU's products are faster in it than in `dtype`, else []."""
    rates = remembered_rates()
    best = max(rates, key=lambda name: rates[name])
    faster = rates[best] >= GAIN * rates.get(_name(dtype), 0.0)
    return [f"torch_dtype=torch.{best}"] if faster and best != _name(dtype) else []


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ------------------------------------------------------------------------------------------ memory


def pictures_at_once(transformer: Network, branches: int) -> int:
    """How many pictures a call should hold, each in one or two `branches`: what fits, on a CPU into its cache."""
    weight, config = transformer.out.weight, transformer.config
    inside = branches * (12 + config.feed_forward_mult) * transformer.width
    predictions = (2 * branches + 4) * (transformer.num_codes + 1)
    needed = transformer.num_positions * (inside + predictions) * max(4, weight.itemsize)
    fits = SHARE_OF_MEMORY * free_bytes(weight.device) / needed
    if weight.device.type == "cpu":
        layer = branches * transformer.num_positions * transformer.width * 4
        fits = min(fits, CACHED * torch.get_num_threads() / layer)
    return max(1, int(fits))


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, with what torch keeps there; of a CPU what the system says is available."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return 2**32


@contextlib.contextmanager
def out_of_memory_is_explained(batch: int, dtype: torch.dtype) -> Iterator[None]:
    """Where the memory does not suffice for `batch` pictures with weights of `dtype`, say what to lower."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        half = ", or load the model with torch_dtype=torch.bfloat16 (torch.float16 on a GPU)" * (dtype.itemsize > 2)
        raise MemoryError(
            f"the memory does not suffice for {batch} picture{'s' * (batch > 1)} at once: give fewer prompts, a lower "
            f"num_images_per_prompt{half}"
        ) from error
