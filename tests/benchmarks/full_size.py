"""The published model's size, with random weights, on this machine: loading it, beside diffusers, and a picture.

    python -m tests.benchmarks.full_size
    python -m tests.benchmarks.full_size --folder DIR --sides vqlearn --picture 25

builds a pipeline of 1.4 billion parameters, writes it as the hub had it in 2022 (6 GB in a temporary folder), and loads
it with this package and, put together from its parts, with diffusers, as it is and as bfloat16. Each row is a process
of its own that reports the peak of its resident memory, all of it and what is not mapped from files. A picture is one
call of the pipeline, guided, with everything from the text to the pixels. `tests.benchmarks.speed` has the steps of
both in turns. Needs about 16 GB of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import torch

PARTS = ("transformer", "vqvae", "text_encoder", "learned_classifier_free_sampling_embeddings")
NETWORK = {"num_attention_heads": 16, "attention_head_dim": 88, "num_layers": 36, "cross_attention_dim": 512,
           "num_vector_embeds": 4097, "sample_size": 32, "num_embeds_ada_norm": 100}  # fmt: skip
CODEC = {"block_out_channels": [64, 128, 256, 512], "layers_per_block": 2, "latent_channels": 256,
         "num_vq_embeddings": 4096, "norm_num_groups": 32, "vq_embed_dim": 128, "in_channels": 3, "out_channels": 3,
         "down_block_types": ["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
         "up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3}  # fmt: skip
TEXT = {"model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
        "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1}  # fmt: skip
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def modules(network: dict = NETWORK, codec: dict = CODEC, text: dict = TEXT) -> dict[str, torch.nn.Module]:
    """The four networks of the published pipeline, or of others of its form, on torch's "meta" device."""
    from transformers import CLIPTextConfig, CLIPTextModel

    from vqlearn import LearnedClassifierFreeSamplingEmbeddings, Transformer2DModel, VQModel

    with torch.device("meta"):
        return {
            "transformer": Transformer2DModel(**network),
            "vqvae": VQModel(**codec),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text)),
            "learned_classifier_free_sampling_embeddings": LearnedClassifierFreeSamplingEmbeddings(
                True, text["hidden_size"], text["max_position_embeddings"]
            ),
        }


def write_model(folder: Path) -> float:
    """A pipeline folder in the hub's form of 2022; returns the weights' size in GB."""
    from vqlearn.checkpoints.original import published_tokenizer
    from vqlearn.checkpoints.saving import save_tokenizer

    torch.manual_seed(0)
    total = 0
    for name, module in modules().items():
        (folder / name).mkdir(parents=True)
        tensors = {}
        for key, tensor in module.state_dict().items():
            weight = torch.empty(tensor.shape).normal_(std=0.02)
            weight = weight + 1 if key.endswith("norm.weight") else weight
            if name == "vqvae" and ".attentions." in key:
                key = next((key.replace(new, old) for new, old in OLD_NAMES.items() if new in key), key)
            tensors[key] = weight
            total += weight.numel() * 4
        file = "pytorch_model.bin" if name == "text_encoder" else "diffusion_pytorch_model.bin"
        torch.save(tensors, folder / name / file)
    configs = {
        "transformer": {"_class_name": "Transformer2DModel", **NETWORK, "activation_fn": "geglu-approximate",
                        "attention_bias": True, "dropout": 0.0, "in_channels": None, "norm_num_groups": 32},
        "vqvae": {"_class_name": "VQModel", **CODEC, "act_fn": "silu", "sample_size": 32},
        "text_encoder": TEXT,
        "learned_classifier_free_sampling_embeddings": {"learnable": True, "hidden_size": 512, "length": 77},
    }  # fmt: skip
    for name, config in configs.items():
        (folder / name / "config.json").write_text(json.dumps(config))
    save_tokenizer(published_tokenizer(), folder / "tokenizer")
    (folder / "scheduler").mkdir()
    schedule = {"num_vec_classes": 4097, "num_train_timesteps": 100, "alpha_cum_start": 0.99999,
                "alpha_cum_end": 9e-06, "gamma_cum_start": 9e-06, "gamma_cum_end": 0.99999}  # fmt: skip
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    index = {"_class_name": "VQDiffusionPipeline", "scheduler": ["diffusers", "VQDiffusionScheduler"],
             "transformer": ["diffusers", "Transformer2DModel"], "vqvae": ["diffusers", "VQModel"],
             "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
             "learned_classifier_free_sampling_embeddings":
                 ["vq_diffusion", "LearnedClassifierFreeSamplingEmbeddings"]}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    return total / 1e9


def ours(folder: Path, dtype: torch.dtype = torch.float32):
    from vqlearn import VQDiffusionPipeline

    return VQDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)


def theirs(folder: Path, dtype: torch.dtype = torch.float32):
    """diffusers' pipeline from its parts: it loads neither this folder nor a transformer without `norm_type`."""
    import diffusers
    from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
        LearnedClassifierFreeSamplingEmbeddings,
    )
    from transformers import CLIPTextModel, CLIPTokenizer

    config = folder / "transformer" / "config.json"
    text = config.read_text()
    config.write_text(json.dumps({**json.loads(text), "norm_type": "ada_norm"}))
    try:
        return diffusers.VQDiffusionPipeline(
            diffusers.VQModel.from_pretrained(folder / "vqvae", torch_dtype=dtype),
            CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype),
            CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            diffusers.Transformer2DModel.from_pretrained(folder / "transformer", torch_dtype=dtype),
            diffusers.VQDiffusionScheduler.from_pretrained(folder / "scheduler"),
            LearnedClassifierFreeSamplingEmbeddings.from_pretrained(
                folder / "learned_classifier_free_sampling_embeddings", torch_dtype=dtype
            ),
        )
    finally:
        config.write_text(text)


def measure(which: str, folder: Path, dtype: str, steps: int) -> dict[str, float]:
    """In this process: seconds of loading, the memory (GB) at its peak, and, where asked for, seconds of a picture."""
    began = time.perf_counter()
    with own_memory() as own:
        pipe = {"vqlearn": ours, "diffusers": theirs}[which](folder, getattr(torch, dtype))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"load": seconds, "peak": peak / 1e9, "own": max(own) / 1e9}
    if steps:
        began = time.perf_counter()
        pipe("teddy bear playing in the pool", num_inference_steps=steps, generator=torch.Generator().manual_seed(0))
        found["picture"] = time.perf_counter() - began
    return found


@contextlib.contextmanager
def own_memory():
    """A list that fills with the bytes of resident memory that is no mapped file: the system cannot take it back."""
    found, done = [0], threading.Event()

    def watch():
        while not done.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            found.append(1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1]))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        done.set()
        watching.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--sides", nargs="+", choices=["vqlearn", "diffusers"], default=["vqlearn", "diffusers"])
    parser.add_argument("--picture", type=int, default=0, metavar="STEPS", help="also draw a picture in so many steps")
    parser.add_argument("--folder", help="keep the model here")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.only:
        print(json.dumps(measure(arguments.only[0], Path(arguments.folder), arguments.only[1], arguments.picture)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(arguments.folder or place) / "model"
        size = sum(f.stat().st_size for f in folder.rglob("*.bin")) / 1e9 if folder.exists() else write_model(folder)
        load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
        print(f"{torch.get_num_threads()} threads, weights {size:.2f} GB in float32, load {load}\n")
        print("| | load, s | peak of resident memory, GB | without mapped files | a picture, s |\n" + "|---" * 5 + "|")
        for dtype, side in itertools.product(arguments.dtypes, arguments.sides):
            steps = arguments.picture if side == "vqlearn" else 0
            command = [sys.executable, "-m", "tests.benchmarks.full_size", "--only", side, dtype,
                       "--folder", str(folder), "--picture", str(steps)]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            picture = f"{found['picture']:.1f}" if "picture" in found else ""
            print(f"| {side}, {dtype} | {found['load']:.1f} | {found['peak']:.2f} | {found['own']:.2f} | {picture} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
