"""What a call of the denoiser takes, in time and in memory, before it is made."""

from __future__ import annotations

import contextlib
import time
import warnings
from pathlib import Path

import torch

from vqlearn.transformer import Transformer2DModel

LONG = 60  # seconds of work on a CPU that are announced before they begin
SHARE_OF_MEMORY = 0.5  # of what is free, for one network call
CACHED = 2**21  # bytes of one layer's activations per thread; a CPU took 5 to 15 % longer with twice or half of it


def work(transformer: Transformer2DModel) -> float:
    """Floating-point operations of one call for one picture and one branch."""
    length = transformer.num_positions
    each = sum(p.numel() for p in transformer.parameters() if p.ndim > 1) + 2 * length * transformer.width
    return 2.0 * each * length


def announce(transformer: Transformer2DModel, calls: int, pictures: int) -> None:
    """Warn of a long run on a CPU: its work, at the speed of a timed matrix product.

    `pictures` are all pictures of all calls, those with guidance counted twice.
    """
    weight = transformer.out.weight
    if weight.device.type != "cpu":
        return
    total = work(transformer) * pictures
    if total < 1e13:  # a few seconds anywhere
        return
    seconds = total / matmul_rate(weight.device, weight.dtype)
    if seconds > LONG:
        long = f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
        warnings.warn(
            f"this will take about {long} on this CPU ({calls} network calls of {total / calls / 1e12:.2g} TFLOP "
            "each); a CUDA GPU, fewer steps or torch_dtype=torch.bfloat16 are faster",
            stacklevel=3,
        )


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


def pictures_at_once(transformer: Transformer2DModel, branches: int) -> int:
    """How many pictures a call should hold, each in one or two `branches`: what fits, on a CPU into its cache."""
    weight, config = transformer.out.weight, transformer.config
    inside = branches * (12 + config["feed_forward_mult"]) * transformer.width
    beliefs = (2 * branches + 4) * config["num_vector_embeds"]
    needed = transformer.num_positions * (inside + beliefs) * max(4, weight.itemsize)
    fits = SHARE_OF_MEMORY * free_bytes(weight.device) / needed
    if weight.device.type == "cpu":
        layer = branches * transformer.num_positions * transformer.width * 4
        fits = min(fits, CACHED * torch.get_num_threads() / layer)
    return max(1, int(fits))


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device; of a CPU what the system says is available."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return 2**32


@contextlib.contextmanager
def out_of_memory_is_explained(batch: int):
    """Where the memory does not suffice for `batch` pictures, say what to lower."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise MemoryError(
            f"the memory does not suffice for {batch} picture{'s' * (batch > 1)} at once: give fewer prompts, a lower "
            "num_images_per_prompt, or load the model with torch_dtype=torch.bfloat16 (torch.float16 on a GPU)"
        ) from error
