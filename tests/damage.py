"""A seeded mutator of model folders: every way in which a disk, a network or a person may damage one.

    python -m tests.damage --count 1000

makes that many damaged copies of the small pipeline in `tests/data`, loads each, and prints how each kind ended.
"""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import random
import shutil
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from vqlearn import CheckpointError, VQDiffusionPipeline
from vqlearn.checkpoints.layout import CHECKSUMS, INDEX

SAMPLE = Path(__file__).parent / "data" / "tiny_pipeline"
OTHER_FORMS = ("tokenizer.json", "merges.txt", "vocab.json")  # of one tokenizer: either form is enough
VALUES = (None, True, -1, 0, 0.5, 1e300, 10**12, "", "many", [], [[]], ["x"], {}, {"a": 1}, "../../x")


class Evil:
    """A pickle that leaves a trace if anything in it is run."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def files(folder: Path, *endings: str) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return [path for path in found if not endings or path.suffix in endings]


def truncated(folder: Path, rng: random.Random) -> str:
    path = rng.choice(files(folder))
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])
    return path.name


def bit_flipped(folder: Path, rng: random.Random) -> str:
    path = rng.choice(files(folder))
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return path.name


def swapped(folder: Path, rng: random.Random) -> str:
    first, second = rng.sample(files(folder), 2)
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a if a != b else b"")
    return f"{first.name}, {second.name}"


def deleted(folder: Path, rng: random.Random) -> str:
    path = rng.choice([path for path in files(folder) if path.name not in OTHER_FORMS])
    path.unlink()
    return path.name


def wrong_type(folder: Path, rng: random.Random) -> str:
    """A value of a configuration that decides something becomes one that cannot be meant."""
    unsure = {"norm_eps", "attention_bias", "spacing", "encoder_context", "mid_block_add_attention", "in_channels"}
    while True:
        path = rng.choice([folder / "transformer/config.json", folder / "vqvae/config.json",
                           folder / "scheduler/scheduler_config.json", folder / INDEX])  # fmt: skip
        config = json.loads(path.read_text())
        key = rng.choice(sorted(set(config) - unsure - {"num_positions", "num_classes", "stem_channels", "num_tokens"}))
        value = rng.choice(VALUES)
        if path.name == INDEX and key.startswith("learned") and value in (None, []):
            continue  # a model without it is one of the published forms
        if (key.startswith("_") and path.name != INDEX) or key in ("act_fn", "norm_type", "quantizer"):
            continue
        if value == config[key] or (isinstance(value, bool) and value == config[key]):
            continue
        if isinstance(config[key], float) and isinstance(value, int | float) and 0 <= value <= 1:
            continue  # another schedule, a wrong one perhaps, but a schedule
        if (key == "feed_forward_mult" and value == 0.5) or key == "learnable_null_class":
            continue
        path.write_text(json.dumps({**config, key: value}))
        return f"{path.name}: {key} = {value!r}"


def tensors_changed(folder: Path, rng: random.Random) -> str:
    path = rng.choice([path for path in files(folder, ".safetensors") if "learned" not in str(path)])
    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    how = rng.choice(["missing", "renamed", "shape", "type", "nan", "extra"])
    if how == "missing":
        del tensors[name]
    elif how == "renamed":
        tensors[name + "x"] = tensors.pop(name)
    elif how == "shape":
        tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    elif how == "type":
        tensors[name] = tensors[name].to(torch.int32)
    elif how == "nan":
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[rng.randrange(tensors[name].numel())] = rng.choice([torch.nan, torch.inf])
    else:
        tensors["extra.weight"] = torch.zeros(3)
    save_file(tensors, path)
    return f"{path.parent.name}: {name} {how}"


def pickled(folder: Path, rng: random.Random) -> str:
    path = rng.choice([path for path in files(folder, ".safetensors") if "learned" not in str(path)])
    tensors = dict(load_file(path))
    path.unlink()
    path = path.with_name("pytorch_model.bin") if path.parent.name == "text_encoder" else path.with_suffix(".bin")
    trace = folder / "trace"
    kind = rng.choice(["beside", "alone", "raw", "list"])
    if kind == "raw":
        path.write_bytes(pickle.dumps(Evil(trace)))
    elif kind == "list":
        torch.save(list(tensors.values()), path)
    else:
        torch.save({**tensors, "x": Evil(trace)} if kind == "beside" else Evil(trace), path)
    return f"{path.parent.name}: {kind}"


def escaping(folder: Path, rng: random.Random) -> str:
    name = rng.choice(
        ["../vqvae/x.safetensors", "/etc/hostname", "..", "a/../../b.safetensors", "c:\\x.safetensors", ""]
    )
    if rng.random() < 0.5:
        (folder / CHECKSUMS).write_text(json.dumps({name: "0" * 64}))
        return f"checksums: {name}"
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    path.unlink()
    path.with_name(path.name + ".index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, name)}))
    return f"shards: {name}"


LOUD = (tensors_changed, pickled, escaping, deleted, wrong_type)  # seen without checksums
SILENT = (truncated, bit_flipped, swapped)  # some of them are seen by checksums alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ended, slowest = survey(arguments.count, arguments.seed)
    print("| damage | copies | one clear error | loaded | something else |\n|---|---|---|---|---|")
    for kind, counts in ended.items():
        print(f"| {kind} | {sum(counts.values())} | {counts['error']} | {counts['loaded']} | {counts['other']} |")
    print(f"slowest {slowest:.2f} s of processor time")


def survey(count: int, seed: int = 0) -> tuple[dict[str, collections.Counter], float]:
    """Load `count` damaged copies; how they ended by kind, and the seconds of processor time that the slowest took."""
    ended: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    slowest = 0.0
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        VQDiffusionPipeline.from_pretrained(SAMPLE).save_pretrained(whole)
        for number in range(count):
            rng = random.Random(seed * 1_000_003 + number)
            change = (SILENT + LOUD)[number % (len(SILENT) + len(LOUD))]
            copy = Path(shutil.copytree(whole, Path(place) / "copy"))
            if change in LOUD:
                (copy / CHECKSUMS).unlink()
            what = change(copy, rng)
            begin = time.thread_time()
            try:
                VQDiffusionPipeline.from_pretrained(copy)
                how, why = "loaded", ""
            except CheckpointError as error:
                how, why = ("error" if "\n" not in str(error) else "other"), str(error)
            except Exception as error:
                how, why = "other", repr(error)
            slowest = max(slowest, time.thread_time() - begin)
            if (copy / "trace").exists():
                how, why = "other", "code was run"
            ended[change.__name__.replace("_", " ")][how] += 1
            if how != "error":
                print(f"{change.__name__} {number} ({what}): {how} {why}")
            shutil.rmtree(copy)
    return ended, slowest


if __name__ == "__main__":
    main()
