"""Small networks, for tests of everything but how good they are."""

import torch

from vqlearn import Transformer2DModel
from vqlearn.networks.vqvae import VQModel


def first_layers(network: Transformer2DModel, count: int = 2) -> Transformer2DModel:
    """A network with the same weights, device and dtype, which ends after `count` layers."""
    settings = {key: value for key, value in network.config.items() if key[0] != "_" and key != "norm_type"}
    short = Transformer2DModel(**settings | {"num_layers": count}).to(network.out.weight)
    weights = network.state_dict()
    short.load_state_dict({name: weights[name] for name in short.state_dict()})
    return short.eval()


def small_codec() -> VQModel:
    """An untrained codec, always the same: 32 codes of 4 x 4 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VQModel(
            down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
            block_out_channels=(4, 4, 8), latent_channels=8, num_vq_embeddings=32, norm_num_groups=2, vq_embed_dim=4,
            mid_block_add_attention=False,
        )  # fmt: skip
