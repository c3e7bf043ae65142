"""How good is each sampler for how many network evaluations? The shipped model draws held-out captions, all is parsed.

    python -m tests.benchmarks.samplers           # measure, and print a table
    python -m tests.benchmarks.docs               # write what is kept into the pages

The table, sampler by network evaluations, has the pictures that are right in every part, with half of a 95 % interval.
Each number is kept in tests/benchmarks/results/samplers.json as soon as it is known: an interrupted run goes on, and
numbers of another model or of other captions are measured anew. The row "diffusers" is the loop of diffusers' own
pipeline, with its scheduler and its timesteps n - 1 ... 0, around the same weights. "ancestral, late" and
"high_quality, late" are these samplers with strides that grow shorter, `strided_times(T, n, power=1.25)`.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tests.benchmarks.peers import Adapter, diffusers_pipeline, drawing
from vqlearn import VQDiffusionPipeline, assets, scenes, strided_times
from vqlearn.evaluation.agreement import Report, report
from vqlearn.samplers import SAMPLERS

RESULTS = Path(__file__).parent / "results" / "samplers.json"
CALLS = (5, 10, 16, 25, 50, 100)
LATE = ", late"
LEFT_OUT = ("first_hitting", "reference")  # for schedules without replacement; for a comparison with diffusers
KNOWN = [name for name in SAMPLERS if name not in LEFT_OUT]
NAMES = [*KNOWN, "ancestral" + LATE, "high_quality" + LATE, "diffusers"]
MODEL = assets.FOLDER / "models" / "scenes"


def digest() -> dict[str, str]:
    """What the weights are, and the captions."""
    weights = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(MODEL.rglob("*.safetensors"))))
    captions = hashlib.sha256(" ".join(scenes.sample("test", index)[1] for index in range(50)).encode())
    return {"model": weights.hexdigest()[:16], "captions": captions.hexdigest()[:16]}


def measure(pipe: VQDiffusionPipeline, name: str, steps: int, count: int, batch: int) -> tuple[Report, float]:
    """What is right of `count` captions, and the mean number of network evaluations that a picture took."""
    captions = [scenes.sample("test", index)[1] for index in range(count)]
    generator, read, rows = torch.Generator().manual_seed(0), [], []
    theirs = None
    if name == "diffusers":
        call = {"guidance_scale": pipe.guidance_scale, "truncation_rate": pipe.defaults["truncation_rate"]}
        theirs = drawing(diffusers_pipeline(pipe, Adapter(pipe)), **call)
    counted = pipe.transformer.register_forward_hook(lambda module, given, logits: rows.append(len(logits)))
    try:
        for start in tqdm(range(0, count, batch), desc=f"{name}, {steps} steps", leave=False):
            some = captions[start : start + batch]
            if theirs:
                tokens = theirs(some, steps, generator)
            else:
                times = strided_times(pipe.schedule.num_steps, steps, 1.25 if name.endswith(LATE) else 1)
                call = {"times": times, "sampler": name.removesuffix(LATE), "output_type": "latent"}
                tokens = pipe(some, generator=generator, **call).images
            read += [scenes.read(image) for image in pipe.decode(tokens)]
    finally:
        counted.remove()
    return report(captions, read), sum(rows) / 2 / count  # guided: two rows per evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="captions")
    parser.add_argument("--calls", type=int, nargs="+", default=CALLS)
    parser.add_argument("--samplers", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the numbers are kept")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    pipe = VQDiffusionPipeline.from_pretrained(torch_dtype=getattr(torch, arguments.dtype))
    pipe.set_progress_bar_config(disable=True)
    chosen = {"guidance": pipe.guidance_scale, "truncation": pipe.defaults["truncation_rate"]}
    key = {**digest(), "dtype": arguments.dtype, **chosen}
    kept = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    kept = {**key, "rows": kept["rows"] if {k: kept.get(k) for k in key} == key else {}}
    for steps, name in itertools.product(arguments.calls, arguments.samplers):
        entry = row(name, steps)
        if kept["rows"].get(entry, {"count": 0})["count"] < arguments.count:
            found, calls = measure(pipe, name, steps, arguments.count, arguments.batch)
            kept["rows"][entry] = {"count": arguments.count, "all": round(found.all, 4),
                                   "margin": round(found.margin, 4), "calls": calls}  # fmt: skip
            arguments.out.parent.mkdir(exist_ok=True)
            arguments.out.write_text(json.dumps(kept, indent=1) + "\n")
    print(table(kept))


def table(kept: dict[str, Any]) -> str:
    """The kept numbers in Markdown; a cell that is not measured stays empty."""
    rows = kept["rows"]
    calls = [steps for steps in CALLS if any(row(name, steps) in rows for name in NAMES)]
    lines = [
        f"{kept['dtype']}, guidance {kept['guidance']:g}, truncation rate {kept['truncation']:g}, "
        f"{min(found['count'] for found in rows.values())} captions of the test split, in per cent:\n",
        "| sampler | " + " | ".join(f"{steps} evaluations" for steps in calls) + " |",
        "|---" * (len(calls) + 1) + "|",
    ]
    for name in NAMES:
        cells = [_cell(rows[row(name, steps)], steps) if row(name, steps) in rows else "" for steps in calls]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def row(name: str, steps: int) -> str:
    """Under which name a figure is kept; in as many steps as there are times no stride can be shorter."""
    return f"{name.removesuffix(LATE) if steps == max(CALLS) else name} {steps}"


def _cell(found: dict[str, float], steps: int) -> str:
    fewer = f" ({found['calls']:.0f} evaluations)" if found["calls"] < steps - 0.05 else ""
    return f"{100 * found['all']:.1f} ± {100 * found['margin']:.1f}{fewer}"


if __name__ == "__main__":
    main()
