"""The VQ-VAE of the published pipeline: images to tokens and back.

Module and tensor names are those of diffusers' `VQModel`, so published weights load by name. The
configuration decides the size, and covers the four codecs of the original code (the patch VQ-VAE of ITHQ, the
Gumbel VQGAN, VQGAN at factor 16, that of FFHQ). One setting is ours: `encoder_context="patch"` makes every
encoder convolution see its own patch only (1 x 1, no normalisation, no attention), so a token describes one
patch and equal patches get equal tokens; the decoder keeps its wide view either way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vqlearn.arguments import real, shown, whole
from vqlearn.compatibility import Output, unneeded
from vqlearn.networks.codebook import Codebook
from vqlearn.networks.configuration import DEEPEST, Configuration, flag, one_of, optional, size
from vqlearn.networks.convolutions import Decoder, Encoder
from vqlearn.networks.models import Model

MOST_LEVELS = 16  # halvings of a picture's side, one less
BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
}


@dataclass(frozen=True, eq=False)
class VQConfiguration(Configuration):
    """The settings of `VQModel`: diffusers' names, then our own, then what diffusers' class has besides.

    Ours are `encoder_context` ("wide", or "patch"), `stem_channels`, the width of the encoder's first convolution where
    it is not that of its first block, and `quantizer` ("nearest" or "gumbel") and `num_tokens`, those of `Codebook`.
    """

    _class_name: str = field(default="VQModel", init=False)
    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 3
    num_vq_embeddings: int = 256
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    mid_block_add_attention: bool = True
    encoder_context: str = "wide"
    stem_channels: int | None = None
    quantizer: str = "nearest"
    num_tokens: int | None = None
    act_fn: str = "silu"
    norm_type: str = "group"
    # These mean nothing for a codec that is asked for tokens
    sample_size: int = 32
    scaling_factor: float = 0.18215
    lookup_from_codebook: bool = False
    force_upcast: bool = False

    def __post_init__(self) -> None:
        self._check(size, "in_channels", "out_channels", "layers_per_block", "latent_channels", "num_vq_embeddings",
                    "norm_num_groups", "sample_size")  # fmt: skip
        self._check(optional(size), "vq_embed_dim", "stem_channels")
        self._check(real, "scaling_factor")
        self._check(flag, "mid_block_add_attention", "lookup_from_codebook", "force_upcast")
        self._check(one_of("wide", "patch"), "encoder_context")
        self._check(one_of("nearest", "gumbel"), "quantizer")
        self._check(one_of("silu", "swish"), "act_fn")  # two names of one function
        self._check(one_of("group"), "norm_type")
        self._check(optional(partial(whole, most=self.num_vq_embeddings)), "num_tokens")
        self._check(_widths, "block_out_channels")
        self._check(partial(_blocks, len(self.block_out_channels)), "down_block_types", "up_block_types")
        whole("layers_per_block * len(block_out_channels)", self.layers, 1, DEEPEST)

    @property
    def layers(self) -> int:
        return self.layers_per_block * len(self.block_out_channels)


def _widths(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_LEVELS:
        raise ValueError(f"{name} must be a list of 1 to {MOST_LEVELS} whole numbers, got {shown(value)}")
    return tuple(size(f"{name}[{level}]", width) for level, width in enumerate(value))


def _blocks(levels: int, name: str, value: Any) -> tuple[str, ...]:
    known = BLOCKS[name]
    if not isinstance(value, list | tuple) or len(value) != levels or any(one not in known for one in value):
        raise ValueError(
            f"{name} must be {levels} names (as many as block_out_channels), each {' or '.join(known)}, got "
            f"{shown(value)}"
        )
    return tuple(value)


class _Decoded(NamedTuple):
    sample: Tensor
    commit_loss: Tensor


class DecoderOutput(Output, _Decoded):
    """Images `[B, C, H, W]`, and the loss that holds latents near their codes (0 where they were codes already)."""


AT_ONCE = "pictures are encoded and decoded as one batch, give fewer at a time"


@unneeded(dict.fromkeys(("enable_slicing", "disable_slicing", "enable_tiling", "disable_tiling"), AT_ONCE))
class VQModel(Model):
    """Encoder, codebook and decoder of VQ-VAE (van den Oord et al. 2017) in the form that VQ-Diffusion uses.

    Images are float `[B, in_channels, H, W]` in [-1, 1]; tokens int64 `[B, L]`, row by row, with L = H W / factor^2.
    The arguments are the fields of `VQConfiguration`, which `config` is. Raises ValueError for sizes out of range and
    for settings of diffusers' class that are not implemented, TypeError for unknown names.
    """

    config_class = VQConfiguration

    def __init__(self, *sizes: Any, **settings: Any) -> None:
        super().__init__()
        self.config = config = VQConfiguration.of(*sizes, **settings)
        latent, embed = config.latent_channels, config.vq_embed_dim or config.latent_channels
        self.num_tokens = config.num_tokens or config.num_vq_embeddings
        self.encoder = Encoder(
            channels=(config.in_channels, latent),
            stem=config.stem_channels or config.block_out_channels[0],
            widths=config.block_out_channels,
            attends=[kind.startswith("Attn") for kind in config.down_block_types],
            layers=config.layers_per_block,
            groups=config.norm_num_groups,
            mid_attention=config.mid_block_add_attention,
            wide=config.encoder_context == "wide",
        )
        self.quant_conv = nn.Conv2d(latent, embed, 1)
        self.quantize = Codebook(config.num_vq_embeddings, embed, config.quantizer == "gumbel", config.num_tokens)
        self.post_quant_conv = nn.Conv2d(embed, latent, 1)
        self.decoder = Decoder(
            channels=(latent, config.out_channels),
            widths=config.block_out_channels[::-1],
            attends=[kind.startswith("Attn") for kind in config.up_block_types],
            layers=config.layers_per_block + 1,
            groups=config.norm_num_groups,
            mid_attention=config.mid_block_add_attention,
        )

    @property
    def factor(self) -> int:
        """Pixels per token along one side."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    def latents(self, images: Tensor) -> Tensor:
        """The encoder's output before quantisation, `[B, C, H, W]` -> `[B, D, h, w]`; raises ValueError."""
        channels, factor = self.config.in_channels, self.factor
        if not isinstance(images, Tensor) or not images.is_floating_point():
            raise ValueError(f"images must be a tensor of floats in [-1, 1], got {shown(images)}")
        if images.ndim != 4 or images.shape[1] != channels or images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(
                f"images must be [B, {channels}, H, W] with sides divisible by {factor}, got {list(images.shape)}"
            )
        return self.quant_conv(self.encoder(images))

    def encode(self, images: Tensor, return_dict: bool = True) -> Any:
        """Tokens of images, `[B, C, H, W]` in [-1, 1] -> int64 `[B, L]`; raises ValueError for a wrong shape.

        As diffusers has it, their attribute `latents` holds the latents, which are all with `return_dict=False`.
        """
        latents = self.latents(images)
        tokens: Any = self.quantize.tokens(self.quantize.codes(latents)).flatten(1)
        tokens.latents = latents
        return tokens if return_dict else (latents,)

    def decode(self, h: Tensor, force_not_quantize: bool = False, return_dict: bool = True, shape: Any = None) -> Any:
        """Images of tokens, int64 `[B, L]` on a square grid -> `[B, C, H, W]`, about [-1, 1] and not clamped.

        Of latents, float `[B, D, h, w]`, a `DecoderOutput`, as in diffusers; `force_not_quantize` takes them for
        vectors of codes. Raises ValueError for a length that is no square and for tokens outside the codebook, the mask
        among them.
        """
        if not isinstance(h, Tensor):
            raise ValueError(f"decode takes a tensor of tokens or of latents, got {shown(h)}")
        if not h.is_floating_point():
            return self.decode_latents(self._vectors(h))
        if h.ndim != 4 or h.shape[1] != self.post_quant_conv.in_channels:
            wanted = f"[B, {self.post_quant_conv.in_channels}, h, w]"
            raise ValueError(f"latents must be {wanted}, got {list(h.shape)}")
        quantized, loss = h, h.new_zeros(len(h))
        if not force_not_quantize:
            quantized, loss, _ = self.quantize(h)
        found = DecoderOutput(self.decode_latents(quantized), loss)
        return found if return_dict else found.to_tuple()

    def _vectors(self, tokens: Tensor) -> Tensor:
        side, count = round(tokens.shape[-1] ** 0.5) if tokens.ndim else 0, self.num_tokens
        if tokens.ndim != 2 or side * side != tokens.shape[1] or tokens.dtype not in (torch.int64, torch.int32):
            got = f"{tokens.dtype} {list(tokens.shape)}"
            raise ValueError(f"tokens must be [B, L] with L a square number, int64, got {got}")
        if tokens.numel() and not (0 <= int(tokens.min()) and int(tokens.max()) < count):
            raise ValueError(
                f"tokens must lie in 0 ... {count - 1}, got up to {int(tokens.max())} (a mask cannot be decoded)"
            )
        return self.quantize.vectors(tokens).unflatten(1, (side, side)).permute(0, 3, 1, 2)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        """Images of quantised latents, `[B, D, h, w]` -> `[B, C, H, W]`."""
        return self.decoder(self.post_quant_conv(quantized))

    def forward(self, images: Tensor, return_dict: bool = True) -> Any:
        """The round trip: images, encoded, quantised and decoded, as a `DecoderOutput`."""
        return self.decode(self.latents(images), return_dict=return_dict)
