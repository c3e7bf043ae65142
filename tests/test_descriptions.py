"""What a model, a picture and an installation are said to be."""

import importlib.metadata

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from vqlearn import MaskReplaceSchedule, VQDiffusionPipeline, scenes
from vqlearn.checkpoints.description import describe
from vqlearn.checkpoints.hub import SHIPPED
from vqlearn.evaluation.installation import findings, version
from vqlearn.evaluation.verdict import verdict


def in_file(part: str) -> int:
    """Numbers in the file of a part of the shipped model."""
    (path,) = (SHIPPED / part).glob("*.safetensors")
    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


def test_a_model_is_described_by_what_is_in_its_files(shipped):
    text = describe(shipped, SHIPPED)
    total = 0
    for part in ("vqvae", "text_encoder", "transformer", "learned_classifier_free_sampling_embeddings"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"{part} "))
        total += in_file(part)
        assert f" {in_file(part):,} parameters " in line
    (path,) = (SHIPPED / "transformer").glob("*.safetensors")
    assert f"{(path.stat().st_size + (SHIPPED / 'transformer' / 'config.json').stat().st_size) / 1e6:.1f} MB" in text
    lines = text.splitlines()
    assert "reads      text" in lines and "pictures   32 x 32, 8 x 8 tokens of 1024 codes" in lines
    assert "network    6 layers, 4 heads x 32 = 128 wide" in lines
    assert "schedule   100 steps; at the end kept 9e-06, replaced 0.1 (the uniform share), masked 0.9" in lines
    assert "defaults   guidance 1.15, truncation 0.6" in lines
    assert f"memory     {total * 4 / 2**30:8.2f} GiB for the weights in float32" in lines


def test_a_schedule_of_ones_own_is_described_as_it_is():
    pipe = VQDiffusionPipeline.from_pretrained()
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    pipe.schedule = MaskReplaceSchedule(1 - t, 0.25 * t, num_codes=1024)
    assert "schedule   100 steps; at the end kept 0, replaced 0.75 (the uniform share), masked 0.25" in describe(
        pipe, SHIPPED
    )


@pytest.fixture
def picture():
    return Image.fromarray(scenes.draw(scenes.Scene("white", (scenes.SceneObject("small", "red", "circle", 4, 8),))))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a small red circle", "(as asked)"),
        ("a small blue circle", "(not as asked: color)"),
        ("a large blue circle", "(not as asked: color, size)"),
        ("a red circle on a black background", "(not as asked: background)"),
        ("two red circles", "(the sentence is not one of the toy world, so it was not checked)"),
    ],
)
def test_a_picture_is_read_and_compared_with_its_sentence(picture, prompt, words):
    assert verdict(picture, prompt) == f"a small red circle on a white background {words}"


def test_a_picture_of_another_size_is_not_read():
    assert verdict(Image.new("RGB", (64, 64)), "a small red circle") == ""


def test_findings_name_every_version_and_the_model_comes_last(tmp_path):
    found = dict(findings())
    assert found["torch"] == torch.__version__ and found["numpy"] == importlib.metadata.version("numpy")
    assert list(found)[-1] == "model" and "scenes: whole, " in found["model"] and "3.3 M parameters" in found["model"]
    before = []
    with pytest.raises(OSError, match=r"model_index\.json is missing"):
        for name, _ in findings(tmp_path):
            before.append(name)
    assert "auto dtype" in before and "model" not in before


def test_a_missing_library_is_named_with_its_command():
    assert version("no-such-library") == "missing: python -m pip install no-such-library"
