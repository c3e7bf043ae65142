import json
import shutil

import pytest
import torch

from vqlearn import VQDiffusionPipeline
from vqlearn.checkpoints import locate, read_weights

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


DAMAGE = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "model_index.json is missing"),
    "half an index": (lambda f: _truncate(f / "model_index.json"), "not readable JSON"),
    "an index that is a list": (
        lambda f: (f / "model_index.json").write_text("[]"),
        "must hold a JSON object, got list",
    ),
    "another pipeline": (
        lambda f: _edit(f / "model_index.json", _class_name="DDPMPipeline"),
        "describes a DDPMPipeline",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "is missing"),
    "half the weights": (lambda f: _truncate(f / WEIGHTS), "may be truncated"),
    "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), "may be truncated"),
    "more layers": (lambda f: _edit(f / "transformer/config.json", num_layers=3), "lacks 28 tensors"),
    "fewer layers": (lambda f: _edit(f / "transformer/config.json", num_layers=1), "has 28 tensors"),
    "more codes": (lambda f: _edit(f / "vqvae/config.json", num_vq_embeddings=64), "has shape"),
    "unknown blocks": (
        lambda f: _edit(f / "vqvae/config.json", up_block_types=["X", "Y"]),
        "does not describe a VQModel",
    ),
    "no vocabulary": (lambda f: (f / "tokenizer/vocab.json").unlink(), "vocab.json is missing"),
    "half a vocabulary": (lambda f: _truncate(f / "tokenizer/vocab.json"), "cannot be read by CLIPTokenizer"),
    "half a text encoder": (
        lambda f: _truncate(f / "text_encoder/model.safetensors"),
        "cannot be read by CLIPTextModel",
    ),
    "no text encoder": (lambda f: shutil.rmtree(f / "text_encoder"), "config.json is missing"),
    "a small text encoder": (lambda f: _edit(f / "text_encoder/config.json", vocab_size=500), "CLIPTextModel|differ"),
    "a scheduler of other codes": (
        lambda f: _edit(f / "scheduler/scheduler_config.json", num_vec_classes=9),
        "codes of the",
    ),
    "a scheduler of other steps": (
        lambda f: _edit(f / "scheduler/scheduler_config.json", num_train_timesteps=500),
        "steps of the",
    ),
    "no schedule": (
        lambda f: _edit(f / "scheduler/scheduler_config.json", gamma_cum_end=7),
        "does not describe a VQDiff",
    ),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler_config.json is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_folder_is_one_clear_error(folder, damage):
    do, sentence = DAMAGE[damage]
    do(folder)
    with pytest.raises(OSError, match=sentence) as caught:
        VQDiffusionPipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(OSError, match="there is no model folder"):
        locate(str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="is a file"):
        locate(tmp_path / "file")
    with pytest.raises(OSError, match="is missing"):
        read_weights(tmp_path / "none.safetensors")


def test_a_hub_name_that_is_not_cached_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match="'nobody/nothing' is no folder here, and the hub did not give it"):
        locate("nobody/nothing", local_files_only=True, cache_dir=tmp_path)
