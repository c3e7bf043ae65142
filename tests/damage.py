"""A seeded mutator of model folders: every way in which a disk, a network or a person may damage one.

    python -m tests.damage --count 1000

makes that many damaged copies of the small pipeline in `tests/data`, loads each, and prints how each kind ended.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import pickle
import random
import resource
import shutil
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from vqlearn import CheckpointError, VQDiffusionPipeline
from vqlearn.checkpoints.checksums import checksum
from vqlearn.checkpoints.layout import CHECKSUMS, INDEX, LEARNED

SAMPLE = Path(__file__).parent / "data" / "tiny_pipeline"
OTHER_FORMS = ("tokenizer.json", "merges.txt", "vocab.json")  # of one tokenizer: either form is enough
HARMLESS = {  # keys of which other values load, because they mean nothing here or nothing wrong
    "act_fn", "norm_type", "quantizer", "dropout", "scaling_factor", "upcast_attention", "use_linear_projection",
    "lookup_from_codebook", "force_upcast", "interpolation_scale", "use_additional_conditions", "caption_channels",
    "out_channels", "norm_num_groups",
}  # fmt: skip
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
        if (key.startswith("_") and path.name != INDEX) or key in HARMLESS:
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


# ------------------------------------------------------------------------------------------ attacks

HUGE = 10**9


def configuration_attack(folder: Path, rng: random.Random) -> str:
    """A configuration that asks for too much, for what is not implemented, or for nothing that is known."""
    path, change = rng.choice(
        [
            ("transformer", {"num_layers": HUGE}),
            ("transformer", {"num_layers": 500}),
            ("transformer", {"norm_eps": float(rng.choice(["nan", "inf", "1e9", "-1", "0"]))}),
            ("transformer", {"num_attention_heads": HUGE, "attention_head_dim": HUGE}),
            ("transformer", {"sample_size": HUGE}),
            ("transformer", {"feed_forward_mult": rng.choice([1e300, 0, -1])}),
            ("transformer", {rng.choice(["double_self_attention", "only_cross_attention"]): True}),
            ("transformer", {"norm_type": rng.choice(["ada_norm_zero", "ada_norm_single", None])}),
            ("transformer", {"activation_fn": rng.choice(["geglu", "gelu", "swiglu", ""])}),
            ("transformer", {rng.choice(["in_channels", "patch_size"]): 4}),
            ("transformer", {"_class_name": "UNet2DModel"}),
            ("transformer", {"a_key_of_tomorrow": 1}),
            ("transformer", {"self": 1}),
            ("vqvae", {"act_fn": rng.choice(["gelu", "relu", "mish"])}),
            ("vqvae", {"norm_type": "spatial"}),
            ("vqvae", {"layers_per_block": rng.choice([HUGE, 300])}),
            ("vqvae", {"block_out_channels": [16] * rng.choice([3, 16, 10_000])}),
            ("vqvae", {"num_tokens": 5}),
            ("text_encoder", {"num_labels": HUGE}),
            ("text_encoder", {"attn_implementation": "owner/repo"}),
            ("text_encoder", {"num_hidden_layers": HUGE}),
            ("text_encoder", {"hidden_act": "os.system"}),
            ("text_encoder", {"vocab_size": HUGE, "max_position_embeddings": HUGE}),
            ("text_encoder", {"layer_norm_eps": float("nan")}),
            ("text_encoder", {"quantization_config": {"load_in_8bit": True}}),
        ]
    )
    file = folder / path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return f"{path}: {change!r:.80}"


def index_attack(folder: Path, rng: random.Random) -> str:
    """An index, or what it says of a call, that is of another kind."""
    part = rng.choice(["vqvae", "text_encoder", "tokenizer", "transformer", "scheduler", LEARNED])
    change = rng.choice(
        [
            {part: None}, {part: [None]}, {part: ["diffusers", None]}, {part: [[], {}]}, {part: "VQModel"},
            {"_vqlearn": rng.choice([[], "x", {"guidance_scale": "many"}, {"guidance_scale": float("inf")}])},
            {"_vqlearn": rng.choice([{"truncation_rate": 2}, {"words": "red"}, {"labels": [1]}, {"words": [[]]}])},
            {"_class_name": rng.choice([None, [], "StableDiffusionPipeline"])},
        ]
    )  # fmt: skip
    path = folder / INDEX
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return repr(change)


def no_file(folder: Path, rng: random.Random) -> str:
    """In place of a file something that never ends, is no file, leads nowhere or is far too large."""
    path = rng.choice([path for path in files(folder) if path.name not in ("tokenizer.json", "tokenizer_config.json")])
    if path.name == "vocab.json":
        (folder / "tokenizer/tokenizer.json").unlink(missing_ok=True)
    how = rng.choice(["fifo", "device", "folder", "loop", "long link", "large", "deep"])
    path.unlink()
    if how == "fifo":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    elif how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path)
    elif how == "long link":
        path.symlink_to("/".join(["x" * 200] * 19))
    elif how == "large":
        with path.open("wb") as file:
            file.truncate(2**40)  # of zeros, on no disk
    else:
        path.write_text("[" * 1_000_000)
    return f"{path.name}: {how}"


def tensor_attack(folder: Path, rng: random.Random) -> str:
    """A torch file whose tensors are no plain ones, or more than the file holds."""
    part = rng.choice(["transformer", "vqvae", "text_encoder"])
    (path,) = (folder / part).glob("*.safetensors")
    tensors = dict(load_file(path))
    path.unlink()
    path = path.with_name("pytorch_model.bin") if part == "text_encoder" else path.with_suffix(".bin")
    name = rng.choice(sorted(tensors))
    one = tensors[name]
    how = rng.choice(sorted(TENSORS))
    tensors[name] = TENSORS[how](one)
    torch.save(tensors, path, _use_new_zipfile_serialization=rng.random() < 0.7)
    if how == "deflated":
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("archive/data.pkl", b"\x80\x02}.")
            out.writestr("archive/data/0", bytes(10**7))
        path.write_bytes(content.getvalue())
    return f"{part}: {name} {how}"


class _Bytes:
    def __reduce__(self):
        return bytearray, (3 * 10**9,)


TENSORS = {
    "expanded": lambda x: torch.zeros(1).expand(10**9),
    "expanded to its shape": lambda x: torch.zeros(()).expand(2, *x.shape),
    "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "nested": lambda x: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "quantised": lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
    "0-d": lambda x: torch.zeros(()),
    "4-d": lambda x: torch.zeros(*x.shape, 0, 0),
    "complex": lambda x: x.to(torch.complex64),
    "bytes": lambda x: _Bytes(),
    "number": lambda x: 3,
    "deflated": lambda x: x,
}


def sums_attack(folder: Path, rng: random.Random) -> str:
    """A file that has checksums, and behind what it holds a terabyte of zeros, on no disk."""
    name = rng.choice(sorted(name for name in json.loads((folder / CHECKSUMS).read_text()) if "tokenizer" not in name))
    path = folder / name
    if rng.random() < 0.5 and path.suffix == ".safetensors" and "learned" not in name:  # behind a pickle it may stand
        tensors, old = dict(load_file(path)), path
        path = path.with_name("pytorch_model.bin" if "text" in name else "diffusion_pytorch_model.bin")
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
        old.unlink()
        sums = json.loads((folder / CHECKSUMS).read_text())
        del sums[name]
        (folder / CHECKSUMS).write_text(json.dumps({**sums, path.relative_to(folder).as_posix(): checksum(path)}))
    with path.open("ab") as file:
        file.truncate(2**40)
    return str(path.relative_to(folder))


def words_attack(folder: Path, rng: random.Random) -> str:
    """A vocabulary, merges or special tokens of another kind."""
    place = folder / "tokenizer"
    vocab, merges = json.loads((place / "vocab.json").read_text()), (place / "merges.txt").read_text().splitlines()
    odd = rng.choice([[1], [None], [["a"]], [["a", 1]], [[["a"], "b"]], ["a b c"], [""], ["a"], {"a": "b"}, 3, [True]])
    how = rng.choice(["json merges", "text merges", "ids", "special", "length", "unknown"])
    if how == "json merges":
        (place / "vocab.json").unlink()
        (place / "merges.txt").unlink()
        (place / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab, "merges": odd}}))
    elif how == "text merges":
        extra = rng.choice(["a", "a b c", " ", "zq qz", "a  b", "\u0000 x"])
        (place / "merges.txt").write_text("\n".join([*merges, extra]) + "\n")
    elif how == "ids":
        changed = rng.choice([{"!": True}, {"!": 0.5}, {"!": None}, {"!": HUGE}, {"!": -1}, {"!": 1}])
        (place / "vocab.json").write_text(json.dumps({**vocab, **changed}))
    elif how == "unknown":
        (place / "vocab.json").write_text(json.dumps(rng.choice([{}, [], {"a": {}}, "x", None])))
    else:
        change = {"special": ("pad_token", rng.choice([1, "no such", {}, {"content": 1}, []])),
                  "length": ("model_max_length", rng.choice([HUGE, 0, "77", True, 1e30, 10_000]))}[how]  # fmt: skip
        (place / "tokenizer_config.json").write_text(json.dumps(dict([change])))
        (place / "special_tokens_map.json").unlink(missing_ok=True)
    return how


LOUD = (
    tensors_changed, pickled, escaping, deleted, wrong_type, configuration_attack, index_attack, no_file, tensor_attack,
    words_attack,
)  # fmt: skip
SILENT = (truncated, bit_flipped, swapped, sums_attack)  # some of them are seen by checksums alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ended, slowest = survey(arguments.count, arguments.seed)
    print("| damage | copies | one clear error | loaded | something else |\n|---|---|---|---|---|")
    for kind, counts in ended.items():
        print(f"| {kind} | {sum(counts.values())} | {counts['error']} | {counts['loaded']} | {counts['other']} |")
    print(f"slowest {slowest:.2f} s of processor time, at most {_memory() / 1e6:.0f} MB of memory")


def _memory() -> float:
    """The most bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1e3


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
