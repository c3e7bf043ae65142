"""Everything that needs a GPU, by one command, on a bare machine too: torch, transformers and pytest are enough.

    python -m tests.gpu --minutes 9 --out DIR        # in a clone, with nothing installed
    python -m tests.gpu --rehearse --out DIR         # the same on a CPU, with tiny sizes
    python -m tests.gpu --report DIR                 # a table of the results; with --docs into docs/speed.md

Four parts run one after the other, each in a process and with a time limit of its own: the tests that a GPU does what
a CPU does (90 s), the model of the published size beside diffusers (180 s), diffusion beside its autoregressive rival
(100 s), and the training of the shipped model (the rest). Each writes its file, JSON or CSV, anew after every row, so a
run that is cut off has lost only what it had not begun.
diffusers, where it is not installed, is taken from a wheel in the folder `wheels` (`python -m pip download --no-deps -d
wheels diffusers`); without one its figures are left out. Where another library has installed a package named `tests`,
`touch tests/__init__.py` puts this one before it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("correctness", "full", "speed", "training")
LIMITS = {"correctness": 90.0, "full": 180.0, "speed": 100.0}  # seconds; what is left is for training
GRACE = 10.0  # seconds after its time in which a part may still end by itself
REHEARSAL = 7200.0  # seconds of a part on a CPU, however busy it is


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, or one of them, or report."""
    chosen = parse(arguments)
    if chosen.report:
        from . import report

        if chosen.docs:
            report.write(report.PAGE, chosen.report)
        print(report.report(chosen.report))
        return 0
    if chosen.part:
        part(chosen)
        return 0
    chosen.out = chosen.out.resolve()
    chosen.out.mkdir(parents=True, exist_ok=True)
    return max(run(name, seconds, chosen) for name, seconds in limits(chosen))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="a folder for the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts together (default 9)")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny sizes")
    parser.add_argument("--start-from", type=Path, help="a folder of an earlier run, whose training goes on")
    parser.add_argument("--wheels", type=Path, default=ROOT / "wheels", help="wheels of what is not installed")
    parser.add_argument("--report", type=Path, metavar="DIR", help="print a table of the results in a folder")
    parser.add_argument("--docs", action="store_true", help="with --report: write it into docs/speed.md, too")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # in seconds of `time.time`
    chosen = parser.parse_args(arguments)
    if not (chosen.out or chosen.report):
        parser.error("give --out DIR for the results of a run, or --report DIR to print those of one")
    return chosen


def limits(chosen: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Each part and its seconds, when it begins."""
    end = time.monotonic() + 60 * chosen.minutes
    for name in PARTS:
        left = max(1.0, end - time.monotonic() - GRACE)
        yield name, REHEARSAL if chosen.rehearse else min(LIMITS.get(name, left), left)


def run(name: str, seconds: float, chosen: argparse.Namespace) -> int:
    """One part in a process of its own; 0 if it ended by itself and well."""
    command = [sys.executable, "-m", "tests.gpu", "--part", name, "--until", str(time.time() + seconds)]
    command += ["--out", str(chosen.out), "--wheels", str(chosen.wheels), *["--rehearse"] * chosen.rehearse]
    command += ["--start-from", str(chosen.start_from)] if chosen.start_from else []
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    print(f"{name}: {seconds:.0f} s", flush=True)
    begin = time.monotonic()
    try:
        code = subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds + GRACE).returncode
        print(f"{name}: ended with {code} after {time.monotonic() - begin:.0f} s", flush=True)
        return int(code != 0)
    except subprocess.TimeoutExpired:
        print(f"{name}: cut off after {time.monotonic() - begin:.0f} s", flush=True)
        return 1


def part(chosen: argparse.Namespace) -> None:
    """What a part's process does."""
    import torch

    if not (chosen.rehearse or torch.cuda.is_available()):
        raise SystemExit("there is no CUDA device here; --rehearse runs on the CPU")
    device = torch.device("cpu" if chosen.rehearse else "cuda")
    with carried(chosen.wheels):
        if chosen.part == "correctness":
            from . import correctness

            correctness.run(chosen.out, device)
        elif chosen.part == "full":
            from . import full

            full.run(chosen.out, device, chosen.until - time.time())
        elif chosen.part == "speed":
            from experiments import speed

            small = ["--shapes", "toy", "--batches", "1", "--sides"]
            size = small if device.type == "cpu" else ["--sides", "8", "16"]  # the largest grid takes minutes
            speed.main(["--device", device.type, "--out", str(chosen.out / "speed.csv"), *size])
        else:
            from . import training

            training.train(chosen.out, chosen.until - time.time(), device, chosen.start_from)


@contextlib.contextmanager
def carried(wheels: Path) -> Iterator[None]:
    """Pure Python wheels of a folder can be imported; what is installed comes before them."""
    from .record import version

    with tempfile.TemporaryDirectory() as folder:
        for wheel in sorted(wheels.glob("*.whl")):
            if version(wheel.name.partition("-")[0]) is None:
                zipfile.ZipFile(wheel).extractall(folder)
        sys.path.append(folder)
        yield


if __name__ == "__main__":
    sys.exit(main())
