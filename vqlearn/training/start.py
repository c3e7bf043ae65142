"""Where a denoiser, or its autoregressive rival, begins."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vqlearn.arguments import whole
from vqlearn.networks.autoregressive import AutoregressiveTransformer
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.training.updates import of_kind

Network = Transformer2DModel | AutoregressiveTransformer


@torch.no_grad()
def initialise(transformer: Network, codec: VQModel | None = None, seed: int = 0) -> None:
    """Start a network with small residual branches; a denoiser with smooth time tables, and no effect of time at first.

    With a codec similar codes start similar: token table and head are projections of its codebook. Raises ValueError
    for a codec with another number of codes.
    """
    of_kind("transformer", transformer, Transformer2DModel, AutoregressiveTransformer)
    generator = Generator().manual_seed(whole("seed", seed, 0, 2**32 - 1))
    embedding = transformer.latent_image_embedding
    if codec is not None:
        of_kind("codec", codec, VQModel)
        if codec.num_tokens != len(transformer.out.weight):
            raise ValueError(
                f"the codec has {codec.num_tokens} codes, the transformer is for {len(transformer.out.weight)}"
            )
        codes = torch.arange(codec.num_tokens, device=codec.quantize.embedding.weight.device)
        _project(codec.quantize.vectors(codes).cpu(), transformer, generator)
    tables = [weight for name, weight in embedding.named_parameters() if name != "emb.weight"]
    rival = isinstance(transformer, AutoregressiveTransformer)
    others: Any = transformer.next_embedding.parameters() if rival else [embedding.emb.weight[-1:]]  # here the mask
    for table in (*tables, *others):  # positions first
        table.copy_(0.5 * torch.randn(table.shape, generator=generator))
    blocks: Any = transformer.transformer_blocks
    for block in blocks:
        reads_text = hasattr(block, "attn2")
        for norm in [] if rival else [block.norm1, block.norm2] if reads_text else [block.norm1]:
            norm.emb.weight.copy_(_waves(*norm.emb.weight.shape))
            nn.init.zeros_(norm.linear.weight)
            nn.init.zeros_(norm.linear.bias)
        attentions = [block.attn1, block.attn2] if reads_text else [block.attn1]
        for layer in (*(attention.to_out[0] for attention in attentions), block.ff.net[2]):
            layer.weight /= math.sqrt(3 * len(blocks))


def _project(codebook: Tensor, transformer: Network, generator: Generator) -> None:
    """Fill token table and head with random projections of a codebook `[K, D]`."""
    table, head = transformer.latent_image_embedding.emb.weight, transformer.out.weight
    codes = (codebook - codebook.mean(0)) / codebook.std()
    for target, scale in ((table, 0.5), (head, 0.5 / math.sqrt(head.shape[1]))):
        projection = torch.randn(codes.shape[1], target.shape[1], generator=generator) / math.sqrt(codes.shape[1])
        target[: len(codes)].copy_(scale * codes @ projection)


def _waves(count: int, width: int) -> Tensor:
    """Sines and cosines of the index, `[count, width]`."""
    angle = torch.arange(count)[:, None] * torch.exp(-math.log(1000) * torch.arange(width // 2) / (width // 2))
    return torch.cat([angle.sin(), angle.cos()], dim=1)
