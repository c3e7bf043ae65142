"""Encoder and decoder of the VQ-VAE; module and tensor names are those of diffusers' `VQModel`."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Encoder(nn.Module):
    """Images `[B, 3, H, W]` to latents `[B, D, h, w]`; not `wide`, it sees one patch at a time."""

    def __init__(
        self,
        *,
        channels: tuple[int, int],
        stem: int,
        widths: Sequence[int],
        attends: Sequence[bool],
        layers: int,
        groups: int,
        mid_attention: bool,
        wide: bool,
    ):
        super().__init__()
        self.conv_in = _conv(channels[0], stem, wide)
        ins = [stem, *widths[:-1]]
        self.down_blocks = nn.ModuleList(
            DownBlock(i, o, layers, groups, attention, last=k == len(widths) - 1, wide=wide)
            for k, (i, o, attention) in enumerate(zip(ins, widths, attends, strict=True))
        )
        self.mid_block = MidBlock(widths[-1], groups, mid_attention and wide, wide)
        self.conv_norm_out = _norm(groups, widths[-1], wide)
        self.conv_out = _conv(widths[-1], channels[1], wide)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents `[B, D, h, w]` to images `[B, 3, H, W]`."""

    def __init__(
        self,
        *,
        channels: tuple[int, int],
        widths: Sequence[int],
        attends: Sequence[bool],
        layers: int,
        groups: int,
        mid_attention: bool,
    ):
        super().__init__()
        self.conv_in = _conv(channels[0], widths[0])
        self.mid_block = MidBlock(widths[0], groups, mid_attention)
        ins = [widths[0], *widths[:-1]]
        self.up_blocks = nn.ModuleList(
            UpBlock(i, o, layers, groups, attention, last=k == len(widths) - 1)
            for k, (i, o, attention) in enumerate(zip(ins, widths, attends, strict=True))
        )
        self.conv_norm_out = _norm(groups, widths[-1])
        self.conv_out = _conv(widths[-1], channels[1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class DownBlock(nn.Module):
    """Residual blocks at one resolution, and, but for the last, a step to half of it."""

    def __init__(self, ins: int, outs: int, layers: int, groups: int, attention: bool, last: bool, wide: bool):
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
    """Residual blocks at one resolution, and, but for the last, a step to twice it."""

    def __init__(self, ins: int, outs: int, layers: int, groups: int, attention: bool, last: bool):
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
    """Two residual blocks at the lowest resolution, with attention between them if it is wanted."""

    def __init__(self, width: int, groups: int, attention: bool, wide: bool = True):
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
    """Twice norm, SiLU and convolution, added to the input."""

    def __init__(self, ins: int, outs: int, groups: int, wide: bool = True):
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

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.group_norm = _norm(groups, width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x).flatten(2).transpose(1, 2)  # [B, h w, C]
        h = F.scaled_dot_product_attention(self.to_q(h), self.to_k(h), self.to_v(h))
        return x + self.to_out[0](h).transpose(1, 2).unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """A convolution of stride 2."""

    def __init__(self, width: int, wide: bool):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3 if wide else 2, stride=2)
        self.padding = (0, 1, 0, 1) if wide else (0, 0, 0, 0)  # right and bottom only, as published

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding))


class Upsample(nn.Module):
    """Each pixel four times, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _conv(ins: int, outs: int, wide: bool = True) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, 3, padding=1) if wide else nn.Conv2d(ins, outs, 1)


def _norm(groups: int, width: int, wide: bool = True) -> nn.Module:
    return nn.GroupNorm(groups, width, eps=1e-6) if wide else nn.Identity()
