"""Settings of the networks: ranges, what is not implemented, and that each does what it does in diffusers."""

import dataclasses
import inspect
import math

import pytest
import torch
from transformers import CLIPTextConfig

from vqlearn import Transformer2DModel, VQModel
from vqlearn.networks.clip import CLIPTextEncoder
from vqlearn.networks.configuration import DEEPEST

SMALL = {
    "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "cross_attention_dim": 8,
    "num_vector_embeds": 17, "sample_size": 4, "num_embeds_ada_norm": 10,
}  # fmt: skip


def test_a_configuration_reads_as_attributes_items_and_mapping():
    config = Transformer2DModel(**SMALL).config
    assert config.num_layers == config["num_layers"] == dataclasses.asdict(config)["num_layers"] == 2
    assert config.get("no such key") is None and "dropout" in config and config["_class_name"] == "Transformer2DModel"
    assert Transformer2DModel(**config).config == config == dict(config)
    with pytest.raises(KeyError, match="layers"):
        config["layers"]  # a property, no setting
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_layers = 3


# ------------------------------------------------------------------------------------------ denoiser


def test_every_key_of_diffusers_is_a_setting_here():
    theirs = pytest.importorskip("diffusers")
    for ours in (Transformer2DModel, VQModel):
        known = set(inspect.signature(getattr(theirs, ours.__name__).__init__).parameters) - {"self"}
        assert known <= set(ours.config_class())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of diffusers, about its own outputs
@pytest.mark.parametrize(
    "setting",
    [{}, {"norm_eps": 0.1}, {"attention_bias": False}, {"norm_num_groups": 8}, {"norm_type": "layer_norm"},
     {"dropout": 0.5}, {"cross_attention_dim": None}, {"use_linear_projection": True}, {"out_channels": 3},
     {"upcast_attention": True}, {"interpolation_scale": 2.0}, {"use_additional_conditions": True},
     {"caption_channels": 5}],
)  # fmt: skip
def test_what_a_setting_of_diffusers_does_it_does_here(setting):
    settings = {**SMALL, "attention_bias": True, "activation_fn": "geglu-approximate", "norm_type": "ada_norm"}
    settings |= setting
    torch.manual_seed(0)
    peer = pytest.importorskip("diffusers").Transformer2DModel(**settings).eval()
    for weight in peer.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    ours = Transformer2DModel(**settings).eval()
    ours.load_state_dict(peer.state_dict())
    tokens = torch.randint(17, (2, 16))
    text = torch.randn(2, 5, 8) if settings["cross_attention_dim"] else None
    expected = peer(tokens, encoder_hidden_states=text, timestep=torch.tensor(3)).sample  # [B, K, L]
    found = ours(tokens, text, torch.tensor(3)).log_softmax(-1)
    torch.testing.assert_close(found.transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("norm_eps", math.nan), ("norm_eps", 1e9), ("norm_eps", 0.0), ("num_layers", 0), ("num_layers", 10**9),
     ("num_attention_heads", -1), ("attention_head_dim", 2**21), ("sample_size", 10**6), ("num_vector_embeds", 1),
     ("num_embeds_ada_norm", None), ("cross_attention_dim", 0), ("feed_forward_mult", 0), ("feed_forward_mult", 1e300),
     ("feed_forward_mult", "4"), ("dropout", 1.5), ("attention_bias", "no"), ("num_positions", 17), ("num_classes", 0),
     ("activation_fn", "geglu"), ("activation_fn", "gelu-approximate"), ("norm_type", "ada_norm_zero"),
     ("double_self_attention", True), ("only_cross_attention", True), ("norm_elementwise_affine", False),
     ("attention_type", "gated"), ("in_channels", 4), ("patch_size", 2)],
)  # fmt: skip
def test_a_setting_that_is_out_of_range_or_not_implemented_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        Transformer2DModel(**{**SMALL, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_attention_heads", 1), ("attention_head_dim", 1), ("num_layers", 1), ("num_layers", DEEPEST),
     ("num_vector_embeds", 2), ("num_embeds_ada_norm", 1), ("sample_size", 1), ("cross_attention_dim", 1),
     ("norm_eps", 0.1), ("feed_forward_mult", 64), ("dropout", 0), ("dropout", 1)],
)  # fmt: skip
def test_a_setting_at_the_end_of_its_range_is_right(name, value):
    assert Transformer2DModel.config_class(**{**SMALL, name: value})[name] == value


def test_settings_that_do_not_go_together_are_named():
    with pytest.raises(ValueError, match=r"num_attention_heads \* attention_head_dim must be"):
        Transformer2DModel(num_attention_heads=2**11, attention_head_dim=2**11)
    with pytest.raises(ValueError, match="num_positions must be a square"):
        Transformer2DModel(**SMALL, feed_forward="convolution", num_positions=15)
    with pytest.raises(TypeError, match="there is no setting 'depth', 'num_layer'"):
        Transformer2DModel(num_layer=2, depth=3)
    assert Transformer2DModel(**SMALL, _name_or_path="x").config == Transformer2DModel(**SMALL).config


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    network = Transformer2DModel(**SMALL, dropout=0.5)
    tokens, text = torch.randint(17, (2, 16)), torch.randn(2, 5, 8)
    first, second = (network(tokens, text, torch.tensor(3)) for _ in range(2))
    assert not torch.equal(first, second)
    network.eval()
    first, second = (network(tokens, text, torch.tensor(3)) for _ in range(2))
    assert torch.equal(first, second)


# ------------------------------------------------------------------------------------------ codec


@pytest.mark.parametrize(
    ("name", "value"),
    [("act_fn", "gelu"), ("act_fn", "mish"), ("norm_type", "spatial"), ("layers_per_block", 0),
     ("layers_per_block", 10**6), ("block_out_channels", []), ("block_out_channels", [64] * 17),
     ("block_out_channels", 64), ("block_out_channels", [0]), ("down_block_types", "DownEncoderBlock2D"),
     ("up_block_types", [["UpDecoderBlock2D"]]), ("num_tokens", 257), ("num_vq_embeddings", -1),
     ("latent_channels", "3"), ("vq_embed_dim", 0), ("norm_num_groups", True), ("mid_block_add_attention", None),
     ("stem_channels", 2**21), ("quantizer", "ema"), ("scaling_factor", math.inf)],
)  # fmt: skip
def test_a_setting_of_a_codec_that_is_out_of_range_or_not_implemented_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}.* must be "):
        VQModel(**{name: value})


def test_the_product_of_layers_and_levels_is_bounded():
    with pytest.raises(ValueError, match=r"layers_per_block \* len\(block_out_channels\) must be .* 512, got 600"):
        VQModel(
            layers_per_block=300,
            block_out_channels=[32, 32],
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
        )


# ------------------------------------------------------------------------------------------ text encoder


def test_every_key_that_transformers_writes_is_known():
    config = CLIPTextEncoder.config_class()
    for name in CLIPTextConfig(architectures=["CLIPTextModel"], dtype="float32").to_dict():
        assert name in config.ignored or name in config or name.startswith("_"), name


@pytest.mark.parametrize(
    ("name", "value"),
    [("layer_norm_eps", math.nan), ("num_hidden_layers", 10**9), ("vocab_size", 0), ("hidden_act", "silu"),
     ("attention_dropout", -0.1), ("pad_token_id", -1), ("max_position_embeddings", "77"), ("hidden_size", None)],
)  # fmt: skip
def test_a_setting_of_a_text_encoder_that_is_out_of_range_or_not_implemented_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        CLIPTextEncoder(**{name: value})


@pytest.mark.parametrize("name", ["num_labels", "attn_implementation", "per_layer_config", "quantization_config"])
def test_a_key_of_transformers_that_builds_or_changes_something_is_no_setting(name):
    with pytest.raises(TypeError, match=f"there is no setting '{name}'"):
        CLIPTextEncoder(**{name: 1})
