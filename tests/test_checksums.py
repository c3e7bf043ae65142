"""Saved files are distinguished from changed ones, and nothing large is read on the word of a stranger's folder."""

import json
import os
import shutil
import time

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from vqlearn import CheckpointError, Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, VQModel
from vqlearn.__main__ import main
from vqlearn.checkpoints.checksums import checksum
from vqlearn.checkpoints.layout import CHECKSUMS

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("saved") / "model"
    VQDiffusionPipeline.from_pretrained(data / "tiny_pipeline").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def refused(load, *arguments, **options):
    """The message of a CheckpointError, given in one line and in little time."""
    begin = time.process_time()
    with pytest.raises(CheckpointError) as error:
        load(*arguments, **options)
    assert "\n" not in str(error.value) and time.process_time() - begin < 2
    return str(error.value)


@pytest.mark.parametrize(
    "name", ["vqvae/config.json", "tokenizer/vocab.json", f"vqvae/{WEIGHTS}", "text_encoder/model.safetensors"]
)
def test_a_flipped_bit_is_seen_with_or_without_the_rest(folder, name):
    flip(folder / name)
    assert "is not the file that was saved" in refused(VQDiffusionPipeline.from_pretrained, folder)
    if name.startswith("vqvae"):
        for place in ({"name": folder, "subfolder": "vqvae"}, {"name": folder / "vqvae"}):
            assert "is not the file that was saved" in refused(VQModel.from_pretrained, **place)
        shutil.copytree(folder / "vqvae", folder.parent / "elsewhere")  # where nothing says what it should be
        assert name.endswith("json") or VQModel.from_pretrained(folder.parent / "elsewhere")
    Transformer2DModel.from_pretrained(folder, subfolder="transformer")  # the other parts are whole


def test_a_part_that_is_given_is_not_looked_for(folder):
    transformer = Transformer2DModel.from_pretrained(folder, subfolder="transformer")
    flip(folder / "transformer" / WEIGHTS)
    assert VQDiffusionPipeline.from_pretrained(folder, transformer=transformer).transformer is transformer


@pytest.mark.skipif(os.name == "nt", reason="sparse files")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vqvae/config.json", "no such file needs more"),
        ("vqvae/notes", "no such file needs more"),
        (f"vqvae/{WEIGHTS}", "is not a readable safetensors file"),
    ],
)
def test_a_file_of_a_terabyte_is_not_read_because_it_is_listed(folder, name, message):
    with (folder / name).open("ab") as file:
        file.truncate(2**40)  # zeros that are on no disk
    sums = json.loads((folder / CHECKSUMS).read_text())
    (folder / CHECKSUMS).write_text(json.dumps({**sums, name: "0" * 64}))
    assert message in refused(VQDiffusionPipeline.from_pretrained, folder)
    assert message in refused(VQModel.from_pretrained, folder, subfolder="vqvae")


@pytest.mark.skipif(os.name == "nt", reason="sparse files")
def test_weights_behind_which_a_terabyte_follows_are_refused_and_others_that_are_listed_are_not_read(folder):
    path = folder / "vqvae" / "diffusion_pytorch_model.bin"
    torch.save(load_file(folder / "vqvae" / WEIGHTS), path, _use_new_zipfile_serialization=False)
    sums = json.loads((folder / CHECKSUMS).read_text())
    with path.open("ab") as file:
        file.truncate(2**40)
    (folder / CHECKSUMS).write_text(json.dumps({**sums, f"vqvae/{path.name}": "0" * 64}))
    begin = time.process_time()
    VQDiffusionPipeline.from_pretrained(folder)
    assert time.process_time() - begin < 2
    other = {"subfolder": "vqvae", "use_safetensors": False}
    assert "numbers were read from it" in refused(VQModel.from_pretrained, folder, **other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_weights_of_another_precision_are_compared_too(folder, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "vqvae" / WEIGHTS).items()}
    (folder / "vqvae" / WEIGHTS).unlink()
    path = folder / "vqvae" / "diffusion_pytorch_model.bin"
    torch.save(tensors, path)
    sums = json.loads((folder / CHECKSUMS).read_text())
    del sums[f"vqvae/{WEIGHTS}"]
    (folder / CHECKSUMS).write_text(json.dumps({**sums, f"vqvae/{path.name}": checksum(path)}))
    VQDiffusionPipeline.from_pretrained(folder)
    with path.open("ab") as file:
        file.write(b"\0")  # as good a zip file
    assert "is not" in refused(VQDiffusionPipeline.from_pretrained, folder)


def test_info_says_whether_there_are_checksums(folder, capsys):
    assert main(["info", str(folder)]) == 0
    count = len(json.loads((folder / CHECKSUMS).read_text()))
    assert f"of {count} files, all as saved" in capsys.readouterr().out
    (folder / CHECKSUMS).unlink()
    assert main(["info", str(folder)]) == 0
    assert "a damaged file may go unnoticed" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ parts that are saved alone


def test_a_part_that_is_saved_into_its_model_is_what_the_model_has(folder):
    sums = json.loads((folder / CHECKSUMS).read_text())
    transformer = Transformer2DModel.from_pretrained(folder, subfolder="transformer")
    with torch.no_grad():
        transformer.out.bias += 1
    (folder / "transformer" / "notes").write_text("mine")
    transformer.save_pretrained(folder / "transformer")
    pipe = VQDiffusionPipeline.from_pretrained(folder)
    assert torch.equal(pipe.transformer.out.bias, transformer.out.bias)
    pipe.scheduler.from_config(pipe.scheduler.config, spacing="consecutive").save_pretrained(folder / "scheduler")
    pipe.vqvae.save_config(folder / "vqvae")
    assert VQDiffusionPipeline.from_pretrained(folder).scheduler.config.spacing == "consecutive"
    changed = json.loads((folder / CHECKSUMS).read_text())
    assert changed.keys() == sums.keys() and (folder / "transformer" / "notes").read_text() == "mine"
    assert {name for name in sums if sums[name] != changed[name]} == {
        f"transformer/{WEIGHTS}", "scheduler/scheduler_config.json",
    }  # fmt: skip
    flip(folder / "transformer" / WEIGHTS)
    assert "is not the file that was saved" in refused(VQDiffusionPipeline.from_pretrained, folder)


@pytest.mark.parametrize("both", [False, True])
def test_weights_in_another_form_go_when_a_part_is_saved(folder, both):
    codec = VQModel.from_pretrained(folder, subfolder="vqvae")
    for name in () if both else (WEIGHTS, "config.json"):
        (folder / "vqvae" / name).unlink()
    sums = json.loads((folder / CHECKSUMS).read_text())
    torch.save(codec.state_dict(), folder / "vqvae" / "diffusion_pytorch_model.bin")
    sums["vqvae/diffusion_pytorch_model.bin"] = sums.pop(f"vqvae/{WEIGHTS}")
    (folder / CHECKSUMS).write_text(json.dumps(sums))
    codec.save_pretrained(folder / "vqvae")
    assert sorted(path.name for path in (folder / "vqvae").iterdir()) == ["config.json", WEIGHTS]
    VQDiffusionPipeline.from_pretrained(folder)


def test_checksums_of_something_else_are_left_alone(folder, tmp_path):
    (tmp_path / CHECKSUMS).write_text('{"thesis.pdf": "abc"}')
    VQModel.from_pretrained(folder, subfolder="vqvae").save_pretrained(tmp_path / "vqvae")
    assert (tmp_path / CHECKSUMS).read_text() == '{"thesis.pdf": "abc"}'


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits and pipes")
def test_a_part_is_saved_whole_or_not_at_all(folder, tmp_path, monkeypatch):
    codec = VQModel.from_pretrained(folder, subfolder="vqvae")
    codec.save_pretrained(folder / "vqvae")  # whose weights are mapped from there
    before = {path.name: path.read_bytes() for path in (folder / "vqvae").iterdir()}

    def full(*_, **__):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    for save in (codec.save_pretrained, VQDiffusionPipeline.from_pretrained(folder).save_pretrained):
        for place in (tmp_path / "new", folder / "vqvae" if save == codec.save_pretrained else folder):
            with pytest.raises(OSError, match=r"cannot be written .*No space left"):
                save(place)
    assert not (tmp_path / "new").exists()
    assert {path.name: path.read_bytes() for path in (folder / "vqvae").iterdir()} == before
    os.mkfifo(tmp_path / "scheduler_config.json")
    with pytest.raises(OSError, match="is no regular file"):
        VQDiffusionScheduler(17).save_pretrained(tmp_path)
