"""Original checkpoints in half precision, with other things beside the tensors, or of odd shapes."""

import collections

import numpy as np
import pytest
import torch

from vqlearn import CheckpointError, MaskReplaceSchedule, VQDiffusionPipeline
from vqlearn.checkpoints.original import SHARE


@pytest.fixture(scope="module")
def read(data):
    """`read(change, kind)`: the pipeline of a tiny original checkpoint whose content `change` has changed."""

    def changed(folder, change, kind="class_pretrained"):
        files = data / "original" / kind
        content = torch.load(files / "ckpt.pth", weights_only=True)
        found = change(content)
        path = folder / f"{len(list(folder.iterdir()))}.pth"  # weights are mapped from it
        torch.save(content if found is None else found, path)
        mapping = files / "mapping.pt"
        return VQDiffusionPipeline.from_original(
            path, files / "config.yaml", codec_config=files / "codec.yaml",
            mapping=mapping if mapping.exists() else None,
        )  # fmt: skip

    return changed


def each(change):
    """A change of every tensor, by its name."""

    def apply(content):
        for part in ("model", "ema"):
            tensors = content.get(part) or {}
            tensors.update({name: change(name, tensor) for name, tensor in tensors.items()})

    return apply


def test_what_training_left_beside_the_tensors_does_not_matter(read, tmp_path):
    def change(content):
        content["scheduler"] = {"best": np.float64(0.5), "counts": collections.defaultdict(list, {"a": [np.int64(1)]})}
        content["last_epoch"] = np.int64(3)

    pipe, plain = read(tmp_path, change), read(tmp_path, lambda content: None)
    assert torch.equal(pipe.transformer.out.weight, plain.transformer.out.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_checkpoint_in_another_precision_has_the_released_schedule(read, tmp_path, dtype):
    pipe = read(tmp_path, each(lambda name, x: x.to(dtype) if x.is_floating_point() else x))
    assert pipe.schedule == MaskReplaceSchedule.released(num_codes=16, num_steps=100)
    assert pipe.transformer.out.weight.dtype == torch.float32


@pytest.mark.parametrize(("share", "accepted"), [(0.5, True), (1.5, False)])
@pytest.mark.parametrize("letter", ["a", "c"])
def test_a_curve_that_is_not_linear_is_named(read, tmp_path, letter, share, accepted):
    def bent(name, x):
        if not name.endswith(f"log_cumprod_{letter}t"):
            return x
        curve = x.double().exp()
        curve[50] += share * SHARE
        return curve.log()

    if accepted:
        read(tmp_path, each(bent))
        return
    with pytest.raises(CheckpointError, match=f"{'alpha' if letter == 'a' else 'gamma'}_bar is not linear"):
        read(tmp_path, each(bent))


def nothing_like(*shape):
    return lambda x: torch.zeros(shape, dtype=x.dtype)


@pytest.mark.parametrize("shape", [(), (3, 3, 0, 0), (2, 2, 2, 2)])
@pytest.mark.parametrize(
    ("kind", "part"),
    [("text_ithq", "attn1.key.weight"), ("text_ithq", "in_proj_weight"), ("text_ithq", "empty_text_embed"),
     ("text_ithq", "positional_embedding"), ("text_ithq", "token_embedding.weight"),
     ("class_pretrained", "mid.attn_1.q.weight"), ("class_pretrained", "quantize.embedding.weight"),
     ("class_pretrained", "encoder.conv_in.weight"), ("class_pretrained", "log_cumprod_at"),
     ("class_pretrained", "blocks.0.attn.query.weight"), ("uncond", "to_logits.1.bias")],
)  # fmt: skip
def test_a_tensor_of_another_shape_is_one_sentence(read, tmp_path, kind, part, shape):
    met = []

    def change(name, x):
        if not name.endswith(part) or x.shape == shape:
            return x
        met.append(name)
        return nothing_like(*shape)(x)

    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, each(change), kind)
    assert met and "\n" not in str(caught.value) and "cannot be read as a model" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {"model": None}, lambda c: {"model": []}, lambda c: [], lambda c: {"model": {}}, lambda c: 3,
        lambda c: {**c, "ema": 3}, lambda c: {**c, "ema": {"x": torch.zeros(1)}},
        lambda c: {"model": {1: torch.zeros(1)}},
        lambda c: {"model": {f"content_codec.enc.encoder.down.{'9' * 5000}.x": torch.zeros(1)}},
        lambda c: {"model": {**c["model"], f"content_codec.dec.decoder.up.{'9' * 5000}.x": torch.zeros(1)}},
    ],
)  # fmt: skip
def test_content_of_another_kind_is_one_sentence(read, tmp_path, change):
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, change)
    assert "\n" not in str(caught.value) and "cannot be read as a model" not in str(caught.value)
