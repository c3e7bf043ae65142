"""Two or more runs, one step of each in turn: what else a machine does then slows all of them alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

import torch


class Step(NamedTuple):
    """Of one step: seconds by the clock, and seconds of all processors in this process."""

    clock: float
    processor: float


def steps_in_turn(sides: dict[str, Callable], count: int, device: str = "cpu") -> dict[str, list[Step]]:
    """Times of `count` steps of each side, without a first one that warms up.

    A side is `draw(steps, generator, callback)`, with a callback after each step: there it waits until all others have
    made a step of their own, so at any time only one of them is at work. An error of a side is raised.
    """
    names = list(sides)
    turn = {name: threading.Semaphore(0) for name in names}
    found: dict[str, list[Step]] = {name: [] for name in names}

    def run(name: str, following: str) -> None:
        began = [0.0, 0.0]

        def wait() -> None:
            turn[name].acquire()
            began[:] = time.perf_counter(), time.process_time()

        def note(*_) -> None:
            if device != "cpu":
                torch.cuda.synchronize()
            found[name].append(Step(time.perf_counter() - began[0], time.process_time() - began[1]))
            turn[following].release()
            wait()

        try:
            wait()
            sides[name](count + 1, torch.Generator(device).manual_seed(0), note)
        finally:
            turn[following].release(count + 2)  # so that nobody waits for a side that has ended

    with ThreadPoolExecutor(len(names)) as pool:
        running = [pool.submit(run, *pair) for pair in zip(names, names[1:] + names[:1], strict=True)]
        turn[names[0]].release()
        for one in running:
            one.result()
    return {name: steps[1:] for name, steps in found.items()}


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
