import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from damage import survey
from hub_server import hub, silent_server
from safetensors.torch import load_file, save_file

from vqlearn import CheckpointError, VQDiffusionPipeline
from vqlearn.__main__ import main
from vqlearn.checkpoints.hub import locate, needed
from vqlearn.checkpoints.layout import CHECKSUMS, INDEX
from vqlearn.checkpoints.loading import load_text_tokenizer
from vqlearn.checkpoints.reading import read_tensors
from vqlearn.data import files

LEARNED = "learned_classifier_free_sampling_embeddings"
LEARNED_CLASS = "LearnedClassifierFreeSamplingEmbeddings"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path, data):
    """A small pipeline in the hub's form that a test may damage."""
    return shutil.copytree(data / "tiny_pipeline", tmp_path / "model")


def test_a_folder_loads_saves_and_loads_the_same(folder, tmp_path):
    pipe = VQDiffusionPipeline.from_pretrained(folder)
    pipe.save_pretrained(tmp_path / "again")
    again = VQDiffusionPipeline.from_pretrained(tmp_path / "again")
    for name in ("vqvae", "transformer", "text_encoder", "learned_classifier_free_sampling_embeddings"):
        first, second = getattr(pipe, name).state_dict(), getattr(again, name).state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert again.scheduler.config == pipe.scheduler.config
    text = ["red circle on the left!"]
    assert again.tokenizer(text)["input_ids"] == pipe.tokenizer(text)["input_ids"]
    assert torch.equal(again.encode_prompt(text), pipe.encode_prompt(text))


def test_the_null_text_may_be_the_empty_prompt(folder, tmp_path):
    from vqlearn import LearnedClassifierFreeSamplingEmbeddings

    pipe = VQDiffusionPipeline.from_pretrained(folder)
    pipe.learned_classifier_free_sampling_embeddings = LearnedClassifierFreeSamplingEmbeddings(False)
    pipe.save_pretrained(tmp_path / "empty")
    again = VQDiffusionPipeline.from_pretrained(tmp_path / "empty")
    assert not again.learned_classifier_free_sampling_embeddings.learnable
    torch.testing.assert_close(again.null_embeds(), pipe.encode_prompt([""]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_can_be_cast_while_loading(folder, dtype):
    pipe = VQDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.transformer.out.weight.dtype == pipe.text_encoder.dtype == dtype
    assert pipe("a red circle", num_inference_steps=2, output_type="np").images.shape == (1, 16, 16, 3)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _drop(path, *keys):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key not in keys}))


# ------------------------------------------------------------------------------------------ the forms that exist


def _bin(folder):
    """Weights as the hub had them in 2022."""
    for path in list(folder.rglob("*.safetensors")):
        name = "pytorch_model.bin" if path.parent.name == "text_encoder" else path.with_suffix(".bin").name
        torch.save(load_file(path), path.with_name(name))
        path.unlink()


def _legacy_bin(folder):
    """The format of torch before 1.6, which cannot be mapped."""
    _bin(folder)
    for path in folder.rglob("*.bin"):
        torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)


def _old_attention(folder):
    path = folder / "vqvae/diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for new, old in names.items():
        tensors = {
            key.replace(f".{new}.", f".{old}.") if "attentions" in key else key: tensor
            for key, tensor in tensors.items()
        }
    assert any(".proj_attn." in key for key in tensors)
    save_file(tensors, path)


def _old_text_names(folder):
    path = folder / "text_encoder/model.safetensors"
    tensors = {f"text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in load_file(path).items()}
    save_file({**tensors, "text_model.embeddings.position_ids": torch.arange(16)[None]}, path)


def _shards(folder):
    for path in list(folder.rglob("*.safetensors")):
        tensors = load_file(path)
        names = sorted(tensors)
        halves = {1: names[: len(names) // 2], 2: names[len(names) // 2 :]}
        files = {number: f"{path.stem}-0000{number}-of-00002.safetensors" for number in halves}
        weight_map = {name: files[number] for number, half in halves.items() for name in half}
        for number, half in halves.items():
            save_file({name: tensors[name] for name in half}, path.with_name(files[number]))
        path.with_name(path.name + ".index.json").write_text(json.dumps({"weight_map": weight_map}))
        path.unlink()


def _modern_tokenizer(folder):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    shutil.rmtree(folder / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    assert (folder / "tokenizer/tokenizer.json").is_file()
    (folder / "tokenizer/vocab.json").unlink(missing_ok=True)


FORMS = {
    "as saved by diffusers": lambda f: None,
    "the hub's index": lambda f: _edit(
        f / INDEX, **{LEARNED: ["vq_diffusion", "LearnedClassifierFreeSamplingEmbeddings"]}
    ),
    "no norm_type": lambda f: _drop(f / "transformer/config.json", "norm_type"),
    "norm_type layer_norm": lambda f: _edit(f / "transformer/config.json", norm_type="layer_norm"),
    ".bin": _bin,
    ".bin before torch 1.6": _legacy_bin,
    "attention names of 2022": _old_attention,
    "text encoder names of 2022": _old_text_names,
    "shards": _shards,
    "a tokenizer.json": _modern_tokenizer,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_is_the_same_model(folder, form, data):
    FORMS[form](folder)
    pipe, known = (
        VQDiffusionPipeline.from_pretrained(folder),
        VQDiffusionPipeline.from_pretrained(data / "tiny_pipeline"),
    )
    for name in ("vqvae", "transformer", "text_encoder", LEARNED):
        first, second = getattr(pipe, name).state_dict(), getattr(known, name).state_dict()
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    text = ["red circle on the left!", "Ünïcode"]
    assert torch.equal(pipe.encode_prompt(text), known.encode_prompt(text))


def test_without_the_embeddings_part_the_null_text_is_the_empty_prompt(folder):
    """As in the published model's revision "fp16"."""
    _drop(folder / INDEX, LEARNED)
    shutil.rmtree(folder / LEARNED)
    pipe = VQDiffusionPipeline.from_pretrained(folder)
    assert not pipe.learned_classifier_free_sampling_embeddings.learnable
    torch.testing.assert_close(pipe.null_embeds(), pipe.encode_prompt([""]))


def test_an_empty_tensor_of_embeddings_is_not_learned(folder):
    _edit(folder / LEARNED / "config.json", learnable=False)
    save_file({"embeddings": torch.empty(0)}, folder / LEARNED / "diffusion_pytorch_model.safetensors")
    assert not VQDiffusionPipeline.from_pretrained(folder).learned_classifier_free_sampling_embeddings.learnable


def test_weights_are_mapped_and_not_copied(folder):
    """What is written to a mapped file shows in the weights; a copy would not change."""
    pipe = VQDiffusionPipeline.from_pretrained(folder)
    bias = pipe.transformer.out.bias
    tensors = load_file(folder / WEIGHTS)
    content = bytearray((folder / WEIGHTS).read_bytes())
    at = content.find(tensors["out.bias"].numpy().tobytes())
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(at)
        file.write(torch.full_like(tensors["out.bias"], 7.0).numpy().tobytes())
    assert (bias == 7).all()


# ------------------------------------------------------------------------------------------ damage


def test_a_tokenizer_that_states_no_length_has_clips(folder):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    tokenizer = load_text_tokenizer(folder / "tokenizer")
    assert tokenizer.model_max_length == 77
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|startoftext|>", "<|endoftext|>")
    assert tokenizer.pad_token == tokenizer.unk_token == "<|endoftext|>"


@pytest.mark.parametrize("length", [1, 2, 10_000, 10_001])
def test_a_text_holds_its_first_and_its_last_token(folder, length):
    (folder / "tokenizer" / "special_tokens_map.json").unlink(missing_ok=True)
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))
    if 2 <= length <= 10_000:
        assert load_text_tokenizer(folder / "tokenizer").model_max_length == length
        return
    with pytest.raises(CheckpointError, match=f"model_max_length must be a whole number from 2 to 10000, got {length}"):
        load_text_tokenizer(folder / "tokenizer")


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [("learnable", "no", "bool"), ("hidden_size", "8", r"int \| None"), ("length", 1.5, "int")],
)
def test_a_setting_of_another_type_is_named_with_the_right_one(folder, name, value, right):
    path = folder / "learned_classifier_free_sampling_embeddings" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(CheckpointError, match=rf"{name} must be {right}.*, got {value!r}$"):
        VQDiffusionPipeline.from_pretrained(folder)


OUTSIDE = ("../x.safetensors", "a/b.safetensors", "a\\b.safetensors", ".", "..", "", "weights.bin", "/x.safetensors")


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_names_files_of_its_own_folder_alone(folder, name):
    _shards(folder)
    for path in folder.rglob("*.index.json"):
        weight_map = json.loads(path.read_text())["weight_map"]
        path.write_text(json.dumps({"weight_map": dict.fromkeys(weight_map, name)}))
    (folder / CHECKSUMS).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"which is no \.safetensors file of its own folder"):
        VQDiffusionPipeline.from_pretrained(folder)


DAMAGE = {
    "no index": (lambda f: (f / INDEX).unlink(), "model_index.json is missing"),
    "half an index": (lambda f: _truncate(f / INDEX), "not readable JSON"),
    "an index that is a list": (lambda f: (f / INDEX).write_text("[]"), "must hold a JSON object, got list"),
    "another pipeline": (lambda f: _edit(f / INDEX, _class_name="DDPMPipeline"), "describes a DDPMPipeline"),
    "no name": (lambda f: _edit(f / INDEX, _class_name="\ud800\n" * 999), r"describes a '\\ud800\\n.{0,80}, not a"),
    "a part of another kind": (lambda f: _edit(f / INDEX, vqvae=["diffusers", "AutoencoderKL"]), "should be a VQModel"),
    "no codec": (lambda f: _drop(f / INDEX, "vqvae"), "None as its vqvae"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no weights"),
    "half the weights": (lambda f: _truncate(f / WEIGHTS), "may be damaged"),
    "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), "may be damaged"),
    "more layers": (lambda f: _edit(f / "transformer/config.json", num_layers=3), "lacks 28 tensors"),
    "fewer layers": (lambda f: _edit(f / "transformer/config.json", num_layers=1), "has 28 tensors"),
    "a billion layers": (
        lambda f: _edit(f / "transformer/config.json", num_layers=10**9),
        "num_layers must be a whole number from 1 to",
    ),
    "layers in words": (
        lambda f: _edit(f / "transformer/config.json", num_layers="two"),
        "num_layers must be a whole number",
    ),
    "another norm": (lambda f: _edit(f / "transformer/config.json", norm_type="ada_norm_zero"), "norm_type"),
    "another activation": (
        lambda f: _edit(f / "transformer/config.json", activation_fn="geglu"),
        "activation_fn must be",
    ),
    "more codes": (lambda f: _edit(f / "vqvae/config.json", num_vq_embeddings=64), "has shape"),
    "unknown blocks": (
        lambda f: _edit(f / "vqvae/config.json", up_block_types=["X", "Y"]),
        "does not describe a VQModel",
    ),
    "no vocabulary": (lambda f: (f / "tokenizer/vocab.json").unlink(), "vocab.json is missing"),
    "no merges": (lambda f: (f / "tokenizer/merges.txt").unlink(), "merges.txt is missing"),
    "half a vocabulary": (lambda f: _truncate(f / "tokenizer/vocab.json"), "no text in UTF-8"),
    "a vocabulary with a hole": (lambda f: _edit(f / "tokenizer/vocab.json", zzz=99999), "its own id"),
    "merges of another vocabulary": (
        lambda f: (f / "tokenizer/merges.txt").write_text("#version: 0.2\nqq zz\n"),
        "'qq zz' gives no token",
    ),
    "half a text encoder": (lambda f: _truncate(f / "text_encoder/model.safetensors"), "may be damaged"),
    "no text encoder": (lambda f: shutil.rmtree(f / "text_encoder"), "config.json is missing"),
    "a small text encoder": (lambda f: _edit(f / "text_encoder/config.json", vocab_size=500), "has shape"),
    "a scheduler of other codes": (
        lambda f: _edit(f / "scheduler/scheduler_config.json", num_vec_classes=9),
        "codes of the",
    ),
    "a scheduler of other steps": (
        lambda f: _edit(f / "scheduler/scheduler_config.json", num_train_timesteps=500),
        "steps of scheduler and transformer differ",
    ),
    "no schedule": (
        lambda f: _edit(f / "scheduler/scheduler_config.json", gamma_cum_end=7),
        "does not describe a VQDiff",
    ),
    "an unsaid end of the schedule": (
        lambda f: _drop(f / "scheduler/scheduler_config.json", "gamma_cum_end"),
        "lacks gamma_cum_end",
    ),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler_config.json is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_one_clear_error(folder, damage):
    do, sentence = DAMAGE[damage]
    do(folder)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        VQDiffusionPipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # of torch, when odd tensors are made
def test_hundreds_of_damaged_folders_are_one_clear_error_each():
    """`python -m tests.damage` does a thousand."""
    ended, _ = survey(140, seed=1)
    assert {kind: dict(counts) for kind, counts in ended.items()} == {kind: {"error": 10} for kind in ended}
    assert len(ended) == 14


def test_the_command_line_says_the_same_in_one_sentence(folder, capsys):
    _truncate(folder / WEIGHTS)
    for command in (
        ["info", str(folder)],
        ["generate", "a bear", "--model", str(folder)],
        ["doctor", "--model", str(folder)],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith("vqlearn: ") and error.count("\n") == 1 and "may be damaged" in error


def test_checksums_see_what_nothing_else_can(folder, tmp_path):
    pipe = VQDiffusionPipeline.from_pretrained(folder)
    pipe.save_pretrained(tmp_path / "saved")
    _edit(tmp_path / "saved/scheduler/scheduler_config.json", gamma_cum_end=0.5)  # another schedule, and a possible one
    with pytest.raises(
        CheckpointError, match=r"scheduler_config.json is not the file that was saved.*delete checksums"
    ):
        VQDiffusionPipeline.from_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / CHECKSUMS).unlink()
    assert VQDiffusionPipeline.from_pretrained(tmp_path / "saved").schedule.gamma_bar[-1] == 0.5


# ------------------------------------------------------------------------------------------ saving


def test_saving_keeps_a_card_and_refuses_what_is_no_model(folder, tmp_path):
    pipe = VQDiffusionPipeline.from_pretrained(folder)
    (folder / "README.md").write_text("a card")
    (folder / "vqvae" / "notes.txt").write_text("mine")
    (folder / "vqvae" / "diffusion_pytorch_model.bin").write_text("weights of the old model")
    pipe.save_pretrained(folder)  # into the very folder that its weights are mapped from
    assert (folder / "README.md").read_text() == "a card" and (folder / "vqvae" / "notes.txt").read_text() == "mine"
    assert not (folder / "vqvae" / "diffusion_pytorch_model.bin").exists()
    assert VQDiffusionPipeline.from_pretrained(folder).scheduler.config == pipe.scheduler.config
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for name, sentence in (("thesis", "holds something else than a model"), ("file", "is a file")):
        with pytest.raises(CheckpointError, match=sentence):
            pipe.save_pretrained(tmp_path / name)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_a_model_goes_through_a_link_to_the_current_folder_and_stays_whole(folder, tmp_path, monkeypatch):
    """`tests/test_files.py` has what may go wrong on the way."""
    pipe = VQDiffusionPipeline.from_pretrained(folder)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    pipe.save_pretrained(tmp_path / "link")
    monkeypatch.chdir(tmp_path / "link")
    pipe.save_pretrained(".")
    assert (tmp_path / "link").is_symlink() and VQDiffusionPipeline.from_pretrained(".").schedule == pipe.schedule
    assert {path.stat().st_mode for path in Path().rglob("*.safetensors")} == {Path(INDEX).stat().st_mode}


def test_a_save_that_fails_leaves_the_old_model(folder, monkeypatch):
    pipe = VQDiffusionPipeline.from_pretrained(folder)
    pipe.save_pretrained(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    put, full = files._put, iter([False] * 5 + [True] * 99)

    def fails(source, place):
        if next(full):
            raise OSError("no space left")
        put(source, place)

    monkeypatch.setattr(files, "_put", fails)
    pipe.defaults = {"guidance_scale": 2.0}
    with pytest.raises(OSError, match="no space left"):
        pipe.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert VQDiffusionPipeline.from_pretrained(folder).defaults == {}


def test_a_folder_that_a_killed_save_left_is_read_and_saved_to(folder, tmp_path):
    pipe = VQDiffusionPipeline.from_pretrained(folder)
    pipe.save_pretrained(tmp_path / "whole")
    (tmp_path / "saved").mkdir()
    shutil.copytree(tmp_path / "whole", tmp_path / "saved" / files.SAVED)  # killed before the first file was moved
    (tmp_path / "saved" / f"{files.SAVING}{0:016x}").mkdir()
    assert VQDiffusionPipeline.from_pretrained(tmp_path / "saved").schedule == pipe.schedule
    pipe.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


# ------------------------------------------------------------------------------------------ the hub


def _python(code, **environment):
    """Run code in a process of its own, where huggingface_hub reads its environment anew."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [
        sys.executable,
        "-c",
        f"from vqlearn import VQDiffusionPipeline as P\nfrom vqlearn.checkpoints import hub\n{code}",
    ]
    return subprocess.run(command, env={**variables, **environment}, capture_output=True, text=True, timeout=600)


LOADED_AGAIN = """
import contextlib, os, urllib.error, urllib.request
from pathlib import Path
from vqlearn.checkpoints.hub import lacking
def mark():
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/mark")
for _ in range(2):
    print(P.from_pretrained("owner/tiny", cache_dir={cache!r}).schedule)
    mark()
snapshot = next(Path({cache!r}).rglob("model_index.json")).parent
(snapshot / "vqvae" / "config.json").unlink()
assert lacking(snapshot) == "vqvae/config.json"
print(P.from_pretrained("owner/tiny", cache_dir={cache!r}).schedule)
"""  # in one process: a file that is gone from the cache is fetched again, and no other


def test_the_hub_gives_what_is_needed_once(folder, tmp_path):
    (folder / "README.md").write_text("a card")
    (folder / "flax_model.msgpack").write_text("x")
    torch.save({}, folder / "transformer/diffusion_pytorch_model.bin")
    cache = str(tmp_path / "cache")
    slow = {"HF_HUB_ETAG_TIMEOUT": "600", "HF_HUB_DOWNLOAD_TIMEOUT": "600"}  # the machine may be
    code = LOADED_AGAIN.format(cache=cache)
    with hub(folder, "owner/tiny") as (address, seen):
        done = _python(code, HF_ENDPOINT=address, **slow)
    assert done.returncode == 0 and done.stdout.count("num_codes=32") == 3, done.stderr
    assert "Fetching" in done.stderr  # a progress bar
    marks = [number for number, (_, path, _) in enumerate(seen) if path == "/mark"]
    first, again, last = seen[: marks[0]], seen[marks[0] + 1 : marks[1]], seen[marks[1] + 1 :]

    def fetched(seen):
        return {path.partition("/resolve/")[2].partition("/")[2] for method, path, _ in seen if method == "GET"} - {""}

    got = fetched(first)
    assert got == set(needed([p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]))
    assert not {name for name in got if name.endswith((".bin", ".msgpack", ".md"))}
    assert not [path for _, path, _ in again if "tiny" in path]  # a whole copy never asks
    assert fetched(last) <= {"vqvae/config.json"}  # or its content was still there under another name


PART_BY_PART = """
from vqlearn import VQDiffusionScheduler, VQModel
from pathlib import Path
def got(loaded):
    print(*sorted(p.relative_to(snapshot(p)).as_posix() for p in Path(cache).rglob("*") if p.is_file() and snapshot(p)))
    return loaded
def snapshot(path):
    return next((one for one in path.parents if one.parent.name == "snapshots"), None)
got(VQDiffusionScheduler.load_config("owner/tiny", subfolder="deep/scheduler/", cache_dir=cache))
got(VQModel.from_pretrained("owner/tiny", subfolder="deep/vqvae", cache_dir=cache))
try:
    VQModel.from_pretrained("owner/tiny", subfolder="deep", cache_dir=cache)
except OSError as error:
    print(error)
got(P.from_pretrained("owner/tiny", subfolder="./deep", cache_dir=cache)).save_pretrained(cache + "/saved")
P.from_pretrained("owner/tiny", subfolder="deep", cache_dir=cache, local_files_only=True)
"""


def test_of_a_part_or_a_folder_of_a_repository_no_more_is_fetched(folder, tmp_path):
    whole = tmp_path / "repository" / "deep"
    VQDiffusionPipeline.from_pretrained(folder).save_pretrained(whole)
    shutil.copytree(whole, tmp_path / "repository" / "other")
    shutil.copytree(whole / "vqvae", tmp_path / "repository" / "vqvae")
    slow = {"HF_HUB_ETAG_TIMEOUT": "600", "HF_HUB_DOWNLOAD_TIMEOUT": "600"}
    with hub(tmp_path / "repository", "owner/tiny") as (address, _):
        done = _python(f"cache = {str(tmp_path / 'cache')!r}\n{PART_BY_PART}", HF_ENDPOINT=address, **slow)
    assert done.returncode == 0, done.stderr
    scheduler, codec, none, model = done.stdout.splitlines()
    assert scheduler.split() == ["deep/checksums.json", "deep/scheduler/scheduler_config.json"]
    added = ["deep/vqvae/config.json", "deep/vqvae/diffusion_pytorch_model.safetensors"]
    assert codec.split() == scheduler.split() + added
    assert none == (
        "'owner/tiny' holds no deep/config.json; it is in its vqvae or text_encoder or transformer or "
        "learned_classifier_free_sampling_embeddings: subfolder='deep/vqvae'"
    )
    names = [path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()]
    assert model.split() == sorted(f"deep/{name}" for name in needed(names))


def test_without_a_network_one_sentence_says_what_to_do(tmp_path):
    code = (
        "from huggingface_hub import constants\n"
        "for constants.HF_HUB_OFFLINE in (False, True):\n"  # nobody answers; nobody is to be asked
        f"    try: P.from_pretrained('owner/tiny', cache_dir={str(tmp_path)!r}, revision='fp16')\n"
        "    except OSError as error: print(type(error).__name__, error)"
    )
    done = _python(code, HF_ENDPOINT="http://127.0.0.1:9")
    refused, offline = done.stdout.splitlines()
    for line in (refused, offline):
        assert line.startswith("CheckpointError 'owner/tiny'") and "all of it is missing" in line
        assert f"hf download owner/tiny --revision fp16 --cache-dir {tmp_path}" in line
    assert refused != offline  # each names its cause


def test_a_hub_that_never_answers_is_given_up_after_one_wait_of_five_seconds(tmp_path):
    """It is asked once, and all waits for it, those of the hub's library too, are limited to 10 s in sum.

    The test reads the limits and not a clock, so the speed of the machine does not matter, and then waits for less.
    """
    code = (
        "import json\nfrom huggingface_hub import get_session\n"
        "def note(request):\n"
        "    print(json.dumps([request.url.path, request.extensions['timeout']]))\n"
        "    request.extensions['timeout'] = request.extensions['timeout'] | {'read': 0.1}\n"
        "get_session().event_hooks = {'request': [*get_session().event_hooks['request'], note]}\n"
        f"try: P.from_pretrained('owner/tiny', cache_dir={str(tmp_path)!r})\n"
        "except OSError as error: print(type(error).__name__, error)"
    )
    with silent_server() as (address, seen):
        done = _python(code, HF_ENDPOINT=address)
    *asked, outcome = done.stdout.splitlines()
    assert outcome.startswith("CheckpointError 'owner/tiny' is no folder here") and "Timeout: " in outcome, done.stderr
    limits = list(map(json.loads, asked))
    ours = [limit for path, limit in limits if path == "/api/models/owner/tiny"]
    assert ours == [dict.fromkeys(("connect", "read", "write", "pool"), 5)]
    assert sum(limit["read"] for _, limit in limits) <= 10
    assert [line.split(b" ")[1].decode() for line in seen] == [path for path, _ in limits]  # and no other attempt


def test_what_is_no_model_is_named(tmp_path):
    for name in (str(tmp_path / "nowhere"), "my models/vq diffusion", "C:/models", "owner/na:me", "a/b/c", "x" * 5000,
                 f"{'x' * 300}/y", "a\0b", "~/models", "owner/name.git", "owner/..", "-a/b"):  # fmt: skip
        with pytest.raises(CheckpointError, match="there is no model folder") as caught:
            locate(name)
        assert len(str(caught.value)) < 300
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file"):
        locate(tmp_path / "file")
    with pytest.raises(CheckpointError, match="is missing"):
        read_tensors([tmp_path / "none.safetensors"])


def test_a_hub_name_that_is_not_cached_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"'nobody/nothing' is not whole on this machine \(all of it is missing"):
        locate("nobody/nothing", local_files_only=True, cache_dir=tmp_path)


def test_the_shipped_model_has_a_name_and_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("scenes") == locate(None)
    (tmp_path / "scenes").mkdir()
    assert locate("scenes").resolve() == tmp_path / "scenes"
    with pytest.raises(CheckpointError, match="there is no model folder 'scene'"):
        locate("scene")
