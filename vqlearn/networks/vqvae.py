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

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


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


class Codebook(nn.Module):
    """K vectors. A latent's code is the closest one in Euclidean distance, or, for a Gumbel codec, its largest logit.

    With `num_tokens` only so many of the codes are in use, `kept` `[num_tokens]` in rising order: token i is code
    kept[i], and a code that is not kept becomes token 0 (as in the published mappings of 8192 to 2887 codes). The
    public code draws a Gumbel codec's code at random from the softmax of its logits; this takes the most likely one.
    """

    kept: Tensor

    def __init__(self, num_codes: int, dim: int, gumbel: bool = False, num_tokens: int | None = None):
        super().__init__()
        self.embedding = nn.Embedding(num_codes, dim)
        nn.init.uniform_(self.embedding.weight, -1 / num_codes, 1 / num_codes)
        if gumbel:
            self.proj = nn.Conv2d(dim, num_codes, 1)
        if num_tokens is not None:
            self.register_buffer("kept", torch.arange(num_tokens))

    def codes(self, latents: Tensor) -> Tensor:
        """`[B, D, h, w]` -> int64 `[B, h, w]`."""
        if hasattr(self, "proj"):
            return self.proj(latents).argmax(1)
        wide = torch.promote_types(latents.dtype, torch.float32)  # half precision would mistake near ones
        flat, book = latents.permute(0, 2, 3, 1).to(wide), self.embedding.weight.to(wide)  # [B, h, w, D], [K, D]
        # |z - e|^2 without |z|^2, which does not change the order
        return (book.pow(2).sum(-1) - 2 * flat @ book.T).argmin(-1)

    def tokens(self, codes: Tensor) -> Tensor:
        """Tokens of codes, of any shape."""
        if not hasattr(self, "kept"):
            return codes
        at = torch.searchsorted(self.kept, codes).clamp(max=len(self.kept) - 1)
        return torch.where(self.kept[at] == codes, at, 0)

    def vectors(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens, `[...]` -> `[..., D]`."""
        return self.embedding(self.kept[tokens] if hasattr(self, "kept") else tokens)

    def straight_through(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest vectors, passing the gradient to `latents` unchanged, and the codes `[B, h, w]`."""
        codes = self.codes(latents)
        quantized = self.embedding(codes).permute(0, 3, 1, 2)
        return latents + (quantized - latents).detach(), codes


class CodebookEMA:
    """Moves a codebook to the running mean of the latents assigned to it (van den Oord et al. 2017, appendix A.1).

    A code used less than `dead` times per batch on average restarts at a latent of the batch, drawn in
    proportion to its squared distance from its code (as k-means++ seeds), so codes go where they are missing.
    The running sums live here and not in the model, whose tensors stay those of the published layout.
    """

    def __init__(self, codebook: Codebook, decay: float = 0.95, dead: float = 0.05):
        self.codebook, self.decay, self.dead = codebook, decay, dead
        weight = codebook.embedding.weight
        self.counts, self.sums = torch.zeros(len(weight), device=weight.device), weight.detach().clone()

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor, generator: Generator | None = None) -> int:
        """One step on latents `[B, D, h, w]` and their codes `[B, h, w]`; returns how many codes restarted."""
        flat, codes = latents.permute(0, 2, 3, 1).flatten(0, 2).float(), codes.flatten()
        sums = torch.zeros_like(self.sums).index_add_(0, codes, flat)
        self.counts.lerp_(codes.bincount(minlength=len(self.counts)).float(), 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        dead = (self.counts < self.dead).nonzero()[:, 0]
        if len(dead):
            error = (flat - self.codebook.embedding.weight[codes]).pow(2).sum(-1).cpu() + 1e-12
            chosen = torch.multinomial(error, min(len(dead), len(error)), generator=generator).to(flat.device)
            dead = dead[: len(chosen)]
            self.counts[dead], self.sums[dead] = 1.0, flat[chosen]
        self.codebook.embedding.weight.copy_(self.sums / self.counts.clamp(min=1e-6)[:, None])
        return len(dead)

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])


# ------------------------------------------------------------------------------------------ encoder, decoder


class Encoder(nn.Module):
    def __init__(self, in_channels, stem, out_channels, widths, attends, layers, groups, mid_attention, wide):
        super().__init__()
        self.conv_in = _conv(in_channels, stem, wide)
        ins = [stem, *widths[:-1]]
        self.down_blocks = nn.ModuleList(
            DownBlock(i, o, layers, groups, attention, last=k == len(widths) - 1, wide=wide)
            for k, (i, o, attention) in enumerate(zip(ins, widths, attends, strict=True))
        )
        self.mid_block = MidBlock(widths[-1], groups, mid_attention and wide, wide)
        self.conv_norm_out = _norm(groups, widths[-1], wide)
        self.conv_out = _conv(widths[-1], out_channels, wide)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self, in_channels, out_channels, widths, attends, layers, groups, mid_attention):
        super().__init__()
        self.conv_in = _conv(in_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, mid_attention)
        ins = [widths[0], *widths[:-1]]
        self.up_blocks = nn.ModuleList(
            UpBlock(i, o, layers, groups, attention, last=k == len(widths) - 1)
            for k, (i, o, attention) in enumerate(zip(ins, widths, attends, strict=True))
        )
        self.conv_norm_out = _norm(groups, widths[-1])
        self.conv_out = _conv(widths[-1], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class DownBlock(nn.Module):
    def __init__(self, ins, outs, layers, groups, attention, last, wide):
        super().__init__()
        if attention and wide:
            self.attentions = nn.ModuleList(SelfAttention2D(outs, groups) for _ in range(layers))
        self.resnets = nn.ModuleList(ResnetBlock(ins if k == 0 else outs, outs, groups, wide) for k in range(layers))
        if not last:
            self.downsamplers = nn.ModuleList([Downsample(outs, wide)])

    def forward(self, x: Tensor) -> Tensor:
        for k, resnet in enumerate(self.resnets):
            x = resnet(x)
            if hasattr(self, "attentions"):
                x = self.attentions[k](x)
        return self.downsamplers[0](x) if hasattr(self, "downsamplers") else x


class UpBlock(nn.Module):
    def __init__(self, ins, outs, layers, groups, attention, last):
        super().__init__()
        if attention:
            self.attentions = nn.ModuleList(SelfAttention2D(outs, groups) for _ in range(layers))
        self.resnets = nn.ModuleList(ResnetBlock(ins if k == 0 else outs, outs, groups) for k in range(layers))
        if not last:
            self.upsamplers = nn.ModuleList([Upsample(outs)])

    def forward(self, x: Tensor) -> Tensor:
        for k, resnet in enumerate(self.resnets):
            x = resnet(x)
            if hasattr(self, "attentions"):
                x = self.attentions[k](x)
        return self.upsamplers[0](x) if hasattr(self, "upsamplers") else x


class MidBlock(nn.Module):
    def __init__(self, width, groups, attention, wide=True):
        super().__init__()
        if attention:
            self.attentions = nn.ModuleList([SelfAttention2D(width, groups)])
        self.resnets = nn.ModuleList(ResnetBlock(width, width, groups, wide) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        if hasattr(self, "attentions"):
            x = self.attentions[0](x)
        return self.resnets[1](x)


class ResnetBlock(nn.Module):
    def __init__(self, ins, outs, groups, wide=True):
        super().__init__()
        self.norm1, self.conv1 = _norm(groups, ins, wide), _conv(ins, outs, wide)
        self.norm2, self.conv2 = _norm(groups, outs, wide), _conv(outs, outs, wide)
        if ins != outs:
            self.conv_shortcut = nn.Conv2d(ins, outs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class SelfAttention2D(nn.Module):
    """Single-head self-attention over all positions, with its own GroupNorm and residual."""

    def __init__(self, width, groups):
        super().__init__()
        self.group_norm = _norm(groups, width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x).flatten(2).transpose(1, 2)  # [B, h w, C]
        h = F.scaled_dot_product_attention(self.to_q(h), self.to_k(h), self.to_v(h))
        return x + self.to_out[0](h).transpose(1, 2).unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    def __init__(self, width, wide):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3 if wide else 2, stride=2)
        self.padding = (0, 1, 0, 1) if wide else (0, 0, 0, 0)  # right and bottom only, as published

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding))


class Upsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _conv(ins: int, outs: int, wide: bool = True) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, 3, padding=1) if wide else nn.Conv2d(ins, outs, 1)


def _norm(groups: int, width: int, wide: bool = True) -> nn.Module:
    return nn.GroupNorm(groups, width, eps=1e-6) if wide else nn.Identity()


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
