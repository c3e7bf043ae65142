"""One part's results: rows in a JSON file, which is written anew, in one move, after every row."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


class Record:
    """What one part has found so far. A part that is cut off has left all of its rows but `complete`."""

    def __init__(self, out: Path, part: str, device: torch.device):
        self.path, self.begin = out / f"{part}.json", time.perf_counter()
        self.content: dict[str, Any] = {
            "part": part, "machine": machine(device), "seconds": 0.0, "complete": False, "rows": [], "bars": [],
        }  # fmt: skip
        self.write()

    def add(self, **row: Any) -> dict[str, Any]:
        """A row of results; returns it, so that more can be put into it before the next `write`."""
        self.content["rows"].append(row)
        self.write()
        return row

    def judge(self, *bars: dict[str, Any]) -> None:
        """Which bars are met so far: dictionaries of `bar`."""
        self.content["bars"] = list(bars)
        self.write()

    def finish(self) -> None:
        """Nothing was left out."""
        self.content["complete"] = True
        self.write()

    def passed(self) -> float:
        """Seconds since this part began."""
        return time.perf_counter() - self.begin

    def write(self) -> None:
        self.content["seconds"] = round(self.passed(), 1)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)


def bar(name: str, value: float, met: bool) -> dict[str, Any]:
    """A bar, what was measured, and whether that meets it."""
    return {"bar": name, "value": value, "met": met}


def machine(device: torch.device) -> dict[str, Any]:
    """What the results were measured on; `card` is None where a CPU stood in for a GPU."""
    found: dict[str, Any] = {"card": None, "date": time.strftime("%Y-%m-%d", time.gmtime())}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found.update(card=properties.name, memory_GB=round(properties.total_memory / 1e9, 1), cuda=torch.version.cuda)
    versions = {name: version(name) for name in ("torch", "transformers", "diffusers")}
    return {**found, "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def version(name: str) -> str | None:
    """The version of an installed library, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
