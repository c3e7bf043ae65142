"""Losses that ask a codec for detail: a vision model's features, and a discriminator of patches (Esser et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqlearn.arguments import real, whole
from vqlearn.checkpoints.reading import one_line
from vqlearn.evaluation.features import fetched
from vqlearn.training import processes
from vqlearn.training.checkpoint import check_form
from vqlearn.training.updates import load_optimizer

Maps = Callable[
    [Tensor], Sequence[Tensor]
]  # images float [B, 3, H, W] in [-1, 1] -> features [B, C, h, w] or [B, S, C]
MOST = 1e4  # the largest weight that the discriminator's loss is given (Esser et al. 2021, public code)
TINY = 1e-10


class FeatureLoss:
    """How far two batches of images are apart in a network's features, a mean over its maps (Zhang et al. 2018, Eq. 1).

    `maps` is a function from images float `[B, 3, H, W]` in [-1, 1] to feature maps `[B, C, h, w]` or `[B, S, C]`. Each
    position's features are scaled to unit length; the squared distances are summed over channels and averaged over
    positions, with equal weights (the published measure has learned ones).
    """

    def __init__(self, maps: Maps):
        self.maps = maps

    def __call__(self, images: Tensor, again: Tensor) -> Tensor:
        """The loss of images `again` in place of `images`, a scalar; gradients reach `again`."""
        with torch.no_grad():
            wanted = self.maps(images)
        found = self.maps(again)
        parts = [(_unit(a) - _unit(b)).square().sum(1).mean() for a, b in zip(wanted, found, strict=True)]
        return torch.stack(parts).mean()


def _unit(features: Tensor) -> Tensor:
    """With channels in dimension 1, of unit length."""
    features = features.mT if features.ndim == 3 else features
    return features / (features.square().sum(1, keepdim=True) + TINY).sqrt()


class HiddenStates:
    """The feature maps of a vision model of transformers: its embedding and the output of each of its layers.

    `model` is a folder or a name on the hub; images are scaled and normalised as its image processor says. Raises
    ValueError where there is none that reads pictures and gives the states of its layers.
    """

    def __init__(self, model: str, device: str = "cpu"):
        from transformers import AutoImageProcessor, AutoModel

        folder = fetched(model)
        try:
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
            found = AutoModel.from_pretrained(folder)
            self.network = getattr(found, "vision_model", found).eval().requires_grad_(False).to(device)
            self.side = _side(processor)
            self.mean, self.scale = (
                torch.tensor(getattr(processor, name, None) or [0.5] * 3, device=device)[:, None, None]
                for name in ("image_mean", "image_std")
            )
            with torch.no_grad():
                self(torch.zeros(1, 3, self.side or 64, self.side or 64, device=device))
        except Exception as error:  # of a folder of any kind
            raise ValueError(
                f"{model!r} is no vision model whose layers transformers can show ({one_line(error)})"
            ) from None

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        """Images float `[B, 3, H, W]` in [-1, 1]."""
        if self.side:
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        output = self.network(pixel_values=((images + 1) / 2 - self.mean) / self.scale, output_hidden_states=True)
        return list(output.hidden_states)


def _side(processor: Any) -> int | None:
    """Pixels along a side that an image processor asks for, None if it takes any."""
    size = getattr(processor, "crop_size", None) or getattr(processor, "size", None) or {}
    found = size.get("height") or size.get("shortest_edge")
    return int(found) if found else None


class PatchDiscriminator(nn.Sequential):
    """Tells decoded images from real ones, patch by patch: logits `[B, 1, h, w]`, high for real (Isola et al. 2017).

    `layers` halvings: 3 see patches of 70 pixels, 2 of 34, 1 of 16. Norms are over groups of channels and not over a
    batch as published, so that an image's logits do not depend on the others in its batch.
    """

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3, seed: int = 0):
        whole("layers", layers, 1, 8)
        widths = [width * min(2**n, 8) for n in range(layers + 1)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
            for n in range(1, layers + 1):
                stride = 2 if n < layers else 1
                parts += [nn.Conv2d(widths[n - 1], widths[n], 4, stride, 1, bias=False)]
                parts += [nn.GroupNorm(math.gcd(32, widths[n]), widths[n]), nn.LeakyReLU(0.2)]
            super().__init__(*parts, nn.Conv2d(widths[-1], 1, 4, 1, 1))
            for one in self.modules():
                if isinstance(one, nn.Conv2d):
                    nn.init.normal_(one.weight, 0.0, 0.02)
                    if one.bias is not None:
                        nn.init.zeros_(one.bias)


def discriminator_for(side: int) -> PatchDiscriminator:
    """A discriminator for pictures of so many pixels along a side, whose patches are smaller than that."""
    return PatchDiscriminator(layers=1 if side < 64 else 2 if side < 128 else 3)


@dataclass(frozen=True)
class AdversaryRecipe:
    """How a discriminator takes part: from update `start` on, with `weight` times the adaptive weight.

    Raises ValueError for numbers out of range.
    """

    start: int = 0
    weight: float = 0.8
    learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        whole("start", self.start, 0)
        real("weight", self.weight, 0.0, 1e6)
        real("learning_rate", self.learning_rate, 0.0, 1.0)


class Adversary:
    """A discriminator that learns beside a codec, and the loss that it gives the codec.

    The codec's loss is -mean D(decoded) times `weight` and an adaptive weight, the ratio of the norms of two gradients
    in the decoder's last layer, that of the reconstruction and that of this loss (Esser et al. 2021, Eq. 7). The
    discriminator minimises the hinge loss.
    """

    def __init__(self, discriminator: nn.Module, recipe: AdversaryRecipe | None = None):
        self.discriminator, self.recipe = discriminator, AdversaryRecipe() if recipe is None else recipe
        self.optimizer = torch.optim.Adam(discriminator.parameters(), self.recipe.learning_rate, betas=(0.5, 0.9))
        self.learners: Any = processes.Learners(discriminator.parameters())

    def to(self, device: str) -> Adversary:
        self.discriminator.to(device).train()
        self.learners = processes.replicated(self.discriminator.parameters())
        return self

    def loss(self, number: int, error: Tensor, decoded: Tensor, last: Tensor) -> Tensor:
        """The codec's loss in update `number`, a scalar, 0 before the start.

        `error` is the loss of the reconstruction, `decoded` images `[B, C, H, W]`, `last` the weight of the decoder's
        last layer, on which both depend.
        """
        if number < self.recipe.start:
            return error.new_zeros(())
        self.discriminator.requires_grad_(False)
        fooled = -self.discriminator(decoded).mean()
        self.discriminator.requires_grad_(True)
        norms = [_gradient(one, last).norm() for one in (error, fooled)]
        adaptive = (norms[0] / (norms[1] + 1e-4)).clamp(0.0, MOST).detach()
        return self.recipe.weight * adaptive * fooled

    def update(self, number: int, images: Tensor, decoded: Tensor) -> dict[str, float]:
        """One update of the discriminator on real and decoded images `[B, C, H, W]`; its loss and its accuracy."""
        if number < self.recipe.start:
            return {"discriminator": math.nan, "told_apart": math.nan}
        self.optimizer.zero_grad(set_to_none=True)
        loss, accuracy = processes.learn(self.learners, self._hinge, images, decoded.detach())
        found = processes.means([float(loss), float(accuracy)])
        if not math.isfinite(found[0]):
            raise FloatingPointError(f"the discriminator's loss of step {number + 1} is {found[0]}")
        self.optimizer.step()
        return dict(zip(("discriminator", "told_apart"), found, strict=True))

    def _hinge(self, images: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of the discriminator, and its accuracy."""
        real_logits, decoded_logits = self.discriminator(images), self.discriminator(decoded)
        accuracy = ((real_logits > 0).float().mean() + (decoded_logits < 0).float().mean()) / 2
        return (F.relu(1 - real_logits).mean() + F.relu(1 + decoded_logits).mean()) / 2, accuracy

    def state_dict(self) -> dict[str, Any]:
        """The discriminator's weights and its optimizer's state."""
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; a state of another form raises."""
        check_form({**state, "optimizer": None}, {**self.state_dict(), "optimizer": None})
        self.discriminator.load_state_dict(state["discriminator"])
        load_optimizer(self.optimizer, state["optimizer"])


def _gradient(loss: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a loss in one weight, the mean over the processes."""
    (found,) = torch.autograd.grad(loss, weight, retain_graph=True)
    return processes.gathered(found[None]).mean(0)
