"""What a redraw of each widget costs, and how long a slider waits for its picture.

`python -m tests.benchmarks.widgets` prints the processor time of this process, without the wait that gathers changes.
With `--load N` each slider is moved in asyncio's loop, as in a kernel, beside N busy processes per core: time by the
clock, from the change to the new picture.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from vqlearn import plots, widgets

SLIDERS = {
    "schedule_explorer": "masked at t = T",
    "posterior_microscope": "later time t",
    "corruption_player": "time t",
    "denoising_player": "step",
    "sampler_race": None,  # draws as pictures come
}
MOVES = 24


def panels() -> Iterator[tuple[str, Any, Any]]:
    """Name, panel and slider of each widget; those that generate have done so."""
    for name, control in SLIDERS.items():
        panel = getattr(widgets, name)()
        if isinstance(panel, widgets.Run):
            named(panel, "steps").value = 6
            panel.start.click()
            panel.wait()
        yield name, panel, control and named(panel, control)


def named(panel: Any, description: str) -> Any:
    """The control of a panel with this description."""
    inside = [part for child in panel.children for part in (child, *getattr(child, "children", ()))]
    return next(one for one in inside if getattr(one, "description", None) == description)


def places(slider: Any, beside: float = 0.0) -> list[Any]:
    """Values one after another, back and forth, none of them twice running; others for another `beside` below 1."""
    low, high = slider.min, slider.max
    parts = [0.2 + 0.6 * ((7 * move) % MOVES + beside) / MOVES for move in range(MOVES)]
    values = [type(slider.value)(low + (high - low) * part) for part in parts]
    return [value for value, before in zip(values, [slider.value, *values], strict=False) if value != before]


def processor(panel: Any, slider: Any) -> list[float]:
    """Milliseconds of this process for each redraw; of a widget without a slider, for a redraw of what is shown."""
    found = []
    for value in places(slider) if slider else range(4):
        begun = time.process_time()
        if slider:
            slider.value = value
        else:
            panel.refresh()
        found.append(1000 * (time.process_time() - begun))
    return found[1:]


async def clock(panel: Any, slider: Any) -> list[float]:
    """Milliseconds by the clock from a change to the picture."""
    found, drawn = [], asyncio.Event()
    panel.image.observe(lambda change: drawn.set(), "value")
    for value in places(slider, beside=0.5):  # where a widget has many, those that it has not drawn yet
        await asyncio.sleep(0.05)
        drawn.clear()
        begun = time.perf_counter()
        slider.value = value
        await asyncio.wait_for(drawn.wait(), 10)
        found.append(1000 * (time.perf_counter() - begun))
    return found


@contextmanager
def busy(each: int) -> Iterator[None]:
    """So many processes per core that do nothing but work."""
    loops = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(each * (os.cpu_count() or 1))]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()


def _spin() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.widgets", description=__doc__.partition("\n")[0])
    parser.add_argument("--load", type=int, metavar="N", help="busy processes per core, for the time by the clock")
    load = parser.parse_args().load
    torch.set_num_threads(1)
    plots.set_style()
    for name, panel, slider in panels():
        found = {"ms of processor per redraw": processor(panel, slider)}
        if load is not None and slider:
            with busy(load):
                found["ms from a change to its picture"] = asyncio.run(clock(panel, slider))
        words = (f"{median(times):.0f} (up to {max(times):.0f}) {what}" for what, times in found.items())
        print(f"{name}: {', '.join(words)}", flush=True)


if __name__ == "__main__":
    main()
