import numpy as np
import pytest
import torch

from vqlearn.checkpoints.loading import load_module
from vqlearn.networks.codebook import CodebookEMA
from vqlearn.networks.vqvae import VQModel


@pytest.fixture(scope="module")
def peer(data):
    """The codec and arrays of diffusers 0.27.2."""
    return load_module(VQModel, data / "tiny_pipeline" / "vqvae"), np.load(data / "golden_tiny_pipeline.npz")


@torch.no_grad()
def test_agrees_with_diffusers(peer):
    codec, golden = peer
    images, codes = torch.tensor(golden["vq_image"]), torch.tensor(golden["vq_idx"]).long()
    torch.testing.assert_close(codec.decode(codes), torch.tensor(golden["vq_decode"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(codec.latents(images), torch.tensor(golden["vq_encode"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(codec(images).sample, torch.tensor(golden["vq_forward"]), atol=1e-5, rtol=0)
    assert codec.encode(images).tolist() == golden["vq_encode_idx"].tolist()


def test_has_the_published_names_and_shapes():
    with torch.device("meta"):
        codec = VQModel(
            down_block_types=["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
            up_block_types=["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3,
            block_out_channels=(64, 128, 256, 512),
            layers_per_block=2,
            latent_channels=256,
            num_vq_embeddings=4096,
            vq_embed_dim=128,
        )
    assert len(codec.state_dict()) == 303
    assert sum(p.numel() for p in codec.parameters()) == 64_009_667
    assert codec.factor == 8


def _patchwise() -> VQModel:
    torch.manual_seed(0)
    return VQModel(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        num_vq_embeddings=16,
        norm_num_groups=4,
        mid_block_add_attention=False,
        encoder_context="patch",
    )


def test_a_patch_encoder_sees_one_patch():
    codec = _patchwise()
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = images.clone()
    changed[..., 2:4, 4:6] += 1.0  # patch (1, 2)
    difference = (codec.latents(images) - codec.latents(changed)).abs().sum((0, 1))
    assert difference[1, 2] > 0
    difference[1, 2] = 0
    assert difference.max() == 0


def test_gradients_pass_straight_through():
    codec = _patchwise()
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    quantized, codes = codec.quantize.straight_through(latents)
    torch.testing.assert_close(quantized, codec.quantize.embedding(codes).permute(0, 3, 1, 2))
    (quantized * torch.arange(4.0)[:, None, None]).sum().backward()
    assert latents.grad[0, :, 0, 0].tolist() == [0, 1, 2, 3]


def test_the_codebook_finds_every_cluster_because_dead_codes_restart():
    codec = _patchwise()
    centres = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)) * 5
    ema, generator = CodebookEMA(codec.quantize), torch.Generator().manual_seed(0)
    for _ in range(200):
        which = torch.randint(12, (8, 4, 4), generator=generator)
        latents = centres[which].permute(0, 3, 1, 2)
        ema.update(latents, codec.quantize.codes(latents), generator)
    distance = torch.cdist(centres, codec.quantize.embedding.weight).min(1).values
    assert distance.max() < 1e-2
    again = CodebookEMA(_patchwise().quantize)
    again.load_state_dict(ema.state_dict())
    assert torch.equal(again.sums, ema.sums)


def test_wrong_input_is_named():
    codec = _patchwise()
    with pytest.raises(
        ValueError, match=r"images must be \[B, 3, H, W\] with sides divisible by 2, got \[1, 3, 7, 8\]"
    ):
        codec.encode(torch.zeros(1, 3, 7, 8))
    with pytest.raises(ValueError, match="a mask cannot be decoded"):
        codec.decode(torch.full((1, 16), 16))
    with pytest.raises(ValueError, match="L a square number"):
        codec.decode(torch.zeros(1, 15, dtype=torch.int64))
    with pytest.raises(ValueError, match="down_block_types must be 1 names"):
        VQModel(down_block_types=["Other"])
    with pytest.raises(ValueError, match="encoder_context must be"):
        VQModel(encoder_context="narrow")


@pytest.mark.parametrize("wrong", [-1, 256])
def test_what_is_no_token_is_not_decoded(wrong):
    codec = VQModel(block_out_channels=(32,), latent_channels=4, num_vq_embeddings=256)
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    tokens[0, 2] = wrong
    with pytest.raises(ValueError, match=r"tokens must lie in 0 \.\.\. 255"):
        codec.decode(tokens)
