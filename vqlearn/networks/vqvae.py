"""The VQ-VAE of the published pipeline: images to tokens and back.

Module and tensor names are those of diffusers' `VQModel`, so published weights load by name. The
configuration decides the size, and covers the four codecs of the original code (the patch VQ-VAE of ITHQ, the
Gumbel VQGAN, VQGAN at factor 16, that of FFHQ). One setting is ours: `encoder_context="patch"` makes every
encoder convolution see its own patch only (1 x 1, no normalisation, no attention), so a token describes one
patch and equal patches get equal tokens; the decoder keeps its wide view either way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from vqlearn.networks.codebook import Codebook
from vqlearn.networks.convolutions import Decoder, Encoder


class VQModel(nn.Module):
    """Encoder, codebook and decoder of VQ-VAE (van den Oord et al. 2017) in the form that VQ-Diffusion uses.

    Images are float `[B, in_channels, H, W]` in [-1, 1]; tokens int64 `[B, L]`, row by row, with
    L = H W / factor^2. Arguments are those of diffusers' VQModel; beyond them `stem_channels` is the width of the
    encoder's first convolution where it is not that of its first block, `quantizer` and `num_tokens` are those of
    `Codebook`. Raises ValueError for unknown block types and settings.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Iterable[str] = ("DownEncoderBlock2D",),
        up_block_types: Iterable[str] = ("UpDecoderBlock2D",),
        block_out_channels: Iterable[int] = (64,),
        layers_per_block: int = 1,
        latent_channels: int = 3,
        num_vq_embeddings: int = 256,
        norm_num_groups: int = 32,
        vq_embed_dim: int | None = None,
        mid_block_add_attention: bool = True,
        encoder_context: str = "wide",
        stem_channels: int | None = None,
        quantizer: str = "nearest",
        num_tokens: int | None = None,
    ):
        super().__init__()
        for name, value, known in (
            ("encoder_context", encoder_context, ("wide", "patch")),
            ("quantizer", quantizer, ("nearest", "gumbel")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be {known[0]!r} or {known[1]!r}, got {value!r}")
        if num_tokens is not None and not 1 <= num_tokens <= num_vq_embeddings:
            raise ValueError(f"num_tokens must lie in 1 ... {num_vq_embeddings} (the codes), got {num_tokens}")
        widths, embed = list(block_out_channels), vq_embed_dim or latent_channels
        down, up = _attends(down_block_types, "down", widths), _attends(up_block_types, "up", widths)
        self.config: dict[str, Any] = {
            "_class_name": "VQModel",
            "in_channels": in_channels,
            "out_channels": out_channels,
            "down_block_types": list(down_block_types),
            "up_block_types": list(up_block_types),
            "block_out_channels": widths,
            "layers_per_block": layers_per_block,
            "act_fn": "silu",
            "latent_channels": latent_channels,
            "num_vq_embeddings": num_vq_embeddings,
            "norm_num_groups": norm_num_groups,
            "vq_embed_dim": embed,
            "mid_block_add_attention": mid_block_add_attention,
            "encoder_context": encoder_context,
            "stem_channels": stem_channels,
            "quantizer": quantizer,
            "num_tokens": num_tokens,
        }
        wide = encoder_context == "wide"
        groups = norm_num_groups
        self.num_tokens = num_tokens or num_vq_embeddings
        stem = stem_channels or widths[0]
        self.encoder = Encoder(
            in_channels, stem, latent_channels, widths, down, layers_per_block, groups, mid_block_add_attention, wide
        )
        self.quant_conv = nn.Conv2d(latent_channels, embed, 1)
        self.quantize = Codebook(num_vq_embeddings, embed, quantizer == "gumbel", num_tokens)
        self.post_quant_conv = nn.Conv2d(embed, latent_channels, 1)
        self.decoder = Decoder(
            latent_channels, out_channels, widths[::-1], up, layers_per_block + 1, groups, mid_block_add_attention
        )

    @property
    def factor(self) -> int:
        """Pixels per token along one side."""
        return 2 ** (len(self.config["block_out_channels"]) - 1)

    def latents(self, images: Tensor) -> Tensor:
        """The encoder's output before quantisation, `[B, C, H, W]` -> `[B, D, h, w]`."""
        return self.quant_conv(self.encoder(images))

    def encode(self, images: Tensor) -> Tensor:
        """Tokens of images, `[B, C, H, W]` in [-1, 1] -> int64 `[B, L]`; raises ValueError for a wrong shape."""
        channels, factor = self.config["in_channels"], self.factor
        if images.ndim != 4 or images.shape[1] != channels or images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(
                f"images must be [B, {channels}, H, W] with sides divisible by {factor}, got {list(images.shape)}"
            )
        return self.quantize.tokens(self.quantize.codes(self.latents(images))).flatten(1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Images of tokens, int64 `[B, L]` on a square grid -> `[B, C, H, W]`, about [-1, 1] and not clamped.

        Raises ValueError for a length that is no square and for tokens outside the codebook, the mask among them.
        """
        side, count = round(tokens.shape[-1] ** 0.5), self.num_tokens
        if tokens.ndim != 2 or side * side != tokens.shape[1]:
            raise ValueError(f"tokens must be [B, L] with L a square number, got {list(tokens.shape)}")
        if tokens.numel() and not (0 <= int(tokens.min()) and int(tokens.max()) < count):
            raise ValueError(
                f"tokens must lie in 0 ... {count - 1}, got up to {int(tokens.max())} (a mask cannot be decoded)"
            )
        quantized = self.quantize.vectors(tokens).unflatten(1, (side, side)).permute(0, 3, 1, 2)
        return self.decode_latents(quantized)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        """Images of quantised latents, `[B, D, h, w]` -> `[B, C, H, W]`."""
        return self.decoder(self.post_quant_conv(quantized))

    def forward(self, images: Tensor) -> Tensor:
        """The round trip: images, encoded, quantised and decoded."""
        return self.decode_latents(self.quantize.straight_through(self.latents(images))[0])


def _attends(names: Iterable[str], way: str, widths: list[int]) -> list[bool]:
    plain, attention = {
        "down": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
    }[way]
    names = list(names)
    if len(names) != len(widths) or any(name not in (plain, attention) for name in names):
        raise ValueError(
            f"{way}_block_types must be {len(widths)} names (as many as block_out_channels), "
            f"each {plain} or {attention}, got {names}"
        )
    return [name == attention for name in names]
