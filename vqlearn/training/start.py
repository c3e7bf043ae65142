"""Where a denoiser begins."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vqlearn.networks.transformer import Transformer2DModel


@torch.no_grad()
def initialise(transformer: Transformer2DModel, codebook: Tensor, seed: int = 0) -> None:
    """Start the denoiser where similar codes are similar: its token table and its head are projections of the codebook.

    Also: smooth time tables, no effect of time at first, and residual branches scaled by their number.
    """
    generator = Generator().manual_seed(seed)
    table, head = transformer.latent_image_embedding.emb.weight, transformer.out.weight
    codes = (codebook - codebook.mean(0)) / codebook.std()
    for target, scale in ((table, 0.5), (head, 0.5 / math.sqrt(head.shape[1]))):
        projection = torch.randn(codes.shape[1], target.shape[1], generator=generator) / math.sqrt(codes.shape[1])
        target[: len(codes)] = scale * codes @ projection
    embedding = transformer.latent_image_embedding
    for grid in (embedding.height_emb.weight, embedding.width_emb.weight, table[-1:]):
        grid.copy_(0.5 * torch.randn(grid.shape, generator=generator))
    blocks: Any = transformer.transformer_blocks
    for block in blocks:
        for norm in (block.norm1, block.norm2):
            norm.emb.weight.copy_(_waves(*norm.emb.weight.shape))
            nn.init.zeros_(norm.linear.weight)
            nn.init.zeros_(norm.linear.bias)
        for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
            layer.weight /= math.sqrt(3 * len(blocks))


def _waves(count: int, width: int) -> Tensor:
    """Sines and cosines of the index, `[count, width]`."""
    angle = torch.arange(count)[:, None] * torch.exp(-math.log(1000) * torch.arange(width // 2) / (width // 2))
    return torch.cat([angle.sin(), angle.cos()], dim=1)
