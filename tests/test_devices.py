"""Training and measuring leave no tensor behind: as on a GPU, but on any machine, see `elsewhere`."""

import dataclasses

import pytest
import torch
from elsewhere import second_device
from shallow import first_layers

from vqlearn import AutoregressivePipeline, VQDiffusionPipeline
from vqlearn.evaluation import agreement
from vqlearn.evaluation import emoji as measured_emoji
from vqlearn.training import (
    CodecRecipe,
    CodecStage,
    DenoiserStage,
    SceneRecipe,
    WorldRecipe,
    emoji,
    initialise,
    shipped,
)
from vqlearn.training.scenes import OBJECTIVES, scene_stage
from vqlearn.training.shipped import autoregressive_scene_stage


def pipeline(networks=shipped.networks):
    """A pipeline whose denoiser has two layers, which have learned nothing."""
    parts = networks()
    return VQDiffusionPipeline(**parts | {"transformer": first_layers(parts["transformer"])})


def test_the_second_device_refuses_what_was_left_behind():
    with second_device() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        with pytest.raises(RuntimeError, match="two devices"):
            there + here
        with pytest.raises(RuntimeError, match="two devices"):
            torch.nn.Linear(3, 2).to(device)(here)
        with pytest.raises(TypeError, match="cpu"):
            there.numpy()
        total = there + here.to(device)
        assert total.device.type == device and total.sum().item() == 6
        assert torch.equal(total.cpu(), torch.full((3,), 2.0)) and total[torch.tensor([0])].device.type == device


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_denoiser_learns_scenes(objective):
    with second_device() as device:
        pipe = pipeline()
        initialise(pipe.transformer, pipe.vqvae)
        stage = scene_stage(pipe, SceneRecipe(batch=2, objective=objective, own_from=1), device=device)
        assert all(stage.step(number)["loss"] > 0 for number in range(1 + (objective == "ideal")))
        assert all(one.device.type == device for one in stage.model.parameters())


def test_a_rival_learns_scenes():
    with second_device() as device:
        pipe = AutoregressivePipeline(**shipped.rival_networks())
        stage = autoregressive_scene_stage(pipe, WorldRecipe(batch=2), device=device)
        assert stage.step(0)["loss"] > 0


def test_a_codec_and_then_a_denoiser_learn_emoji(monkeypatch):
    few = emoji.combinations("train")[:8]
    monkeypatch.setattr(emoji, "combinations", lambda *_: few)
    with second_device() as device:
        pipe = pipeline(networks=emoji.networks)
        codec = CodecStage(pipe.vqvae, emoji.EmojiPictures(), CodecRecipe(steps=10, batch=2), device=device)
        assert all(codec.step(number)["loss"] > 0 for number in (0, 9))  # the last trains the decoder alone
        initialise(pipe.transformer, pipe.vqvae)
        stage = emoji.emoji_stage(pipe, dataclasses.replace(emoji.EmojiRecipe(), batch=2), device=device)
        assert stage.step(0)["loss"] > 0
        assert stage.averaged().to("cpu").transformer.device.type == "cpu"


def test_pictures_are_encoded_where_the_denoiser_learns():
    images = [(torch.rand(3, 32, 32) * 2 - 1, "a large red circle") for _ in range(4)]
    with second_device() as device:
        stage = DenoiserStage(pipeline(), images, dataclasses.replace(emoji.EmojiRecipe(), batch=2), device=device)
        assert stage.step(0)["loss"] > 0


def test_pictures_drawn_there_are_read_back():
    call = {"count": 1, "num_inference_steps": 1, "progress": False}
    with second_device() as device:
        pipe = pipeline().to(device)
        assert agreement.evaluate(pipe, **call).pictures == 1
        assert set(agreement.excess(pipe, (50,), count=1)) == {50}
        of_emoji = pipeline(networks=emoji.networks).to(device)
        assert measured_emoji.evaluate(of_emoji, **call).pictures == 1
        assert measured_emoji.reconstruction(of_emoji, count=1).psnr > 0
