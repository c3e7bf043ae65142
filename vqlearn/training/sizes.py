"""The sizes of networks that have a name: two that learn on a CPU, and those of the papers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.training.shipped import patch_codec


@dataclass(frozen=True)
class Size:
    """A codec and a denoiser that go together, untrained; `side` is that of the pictures, in pixels."""

    side: int
    codec: Callable[[], VQModel]
    layers: int
    heads: int
    width: int
    convolution: bool  # 3 x 3 convolutions in the feed-forward
    mult: int  # the width inside the feed-forward, in widths
    text_width: int
    text_length: int

    @property
    def factor(self) -> int:
        """Pixels of a token along a side."""
        with torch.device("meta"):  # the networks themselves are not needed
            return self.codec().factor

    def denoiser(self, codes: int, tokens: int, classes: int | None, text: bool) -> Transformer2DModel:
        """For `tokens` x `tokens` positions of `codes` codes; reads a text, a class or nothing."""
        return Transformer2DModel(
            num_attention_heads=self.heads,
            attention_head_dim=self.width // self.heads,
            num_layers=self.layers,
            cross_attention_dim=self.text_width if text else None,
            num_vector_embeds=codes + 1,
            sample_size=tokens,
            feed_forward="convolution" if self.convolution else "linear",
            feed_forward_mult=self.mult,
            num_classes=classes,
            learnable_null_class=classes is not None,
        )


def published_codec() -> VQModel:
    """The codec of the published pipeline, untrained: 8 x 8 pixels a token, 4096 codes, 64 million parameters."""
    return VQModel(
        down_block_types=[*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
        block_out_channels=(64, 128, 256, 512),
        layers_per_block=2,
        latent_channels=256,
        num_vq_embeddings=4096,
        vq_embed_dim=128,
    )


_SMALL = partial(patch_codec, 1024, (32, 64, 64))
SIZES = {
    "tiny": Size(32, _SMALL, 6, 4, 128, True, 1, 96, 32),  # that of the scenes
    "tiny-wide": Size(32, _SMALL, 4, 5, 160, True, 1, 96, 32),  # that of the emoji
    "S": Size(256, published_codec, 18, 12, 192, True, 2, 512, 77),  # Gu et al. 2021, section 5.1
    "B": Size(256, published_codec, 19, 16, 1024, False, 4, 512, 77),
    "L": Size(256, published_codec, 36, 16, 1408, False, 4, 512, 77),  # Improved VQ-Diffusion on ITHQ
}
