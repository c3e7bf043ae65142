"""What a codec keeps of pictures, and how much of its codebook they use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vqlearn.evaluation.distances import Mean, check_torchmetrics, mean

if TYPE_CHECKING:
    from vqlearn.components import Components

WINDOW = 11  # pixels along a side of the window of SSIM, a Gaussian of standard deviation 1.5


@dataclass(frozen=True)
class Codebook:
    """How many of the codes some pictures use, and how evenly: the perplexity is as if so many were used alike."""

    codes: int
    used: int
    perplexity: float
    tokens: int  # that were counted; fewer than codes cannot use them all

    @property
    def share(self) -> float:
        """Used codes of all."""
        return self.used / self.codes


@dataclass(frozen=True)
class Reconstruction:
    """How like pictures are what comes back from the codec, and the codes that they use."""

    pictures: int
    psnr: float  # decibels, of the mean squared error over all pictures
    ssim: Mean | None  # None for pictures smaller than its window, and for a single one
    codebook: Codebook


@torch.no_grad()
def reconstruction(pipe: Components, batches: Iterable[Tensor]) -> Reconstruction:
    """A codec's round trip of batches of pictures `[B, 3, H, W]` in [-1, 1].

    SSIM (Wang et al. 2004) is that of torchmetrics: a Gaussian window of 11 x 11 pixels, over three colours in [0, 1].
    """
    count, error = 0, torch.zeros((), dtype=torch.float64)
    similar: list[Tensor] = []
    uses = torch.zeros(pipe.transformer.num_codes, dtype=torch.int64)
    for images in batches:
        tokens = pipe.encode(images)
        again = pipe.decode(tokens).cpu()
        error += ((again - images) / 2).double().square().mean((1, 2, 3)).sum()
        count += len(images)
        uses += tokens.flatten().bincount(minlength=len(uses)).cpu()
        if min(images.shape[2:]) >= WINDOW:
            similar.append(ssim(images, again))
    known = torch.cat(similar) if similar else torch.empty(0)
    psnr = float(-10 * (error / count).log10())
    return Reconstruction(count, psnr, mean(known) if len(known) > 1 else None, codebook(uses))


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """The structural similarity of pictures `[B, 3, H, W]` in [-1, 1] with others, 1 for the same: `[B]`."""
    check_torchmetrics()
    from torchmetrics.functional.image import structural_similarity_index_measure

    how: Any = {"kernel_size": WINDOW, "sigma": 1.5, "data_range": 1.0, "reduction": "none", "return_full_image": True}
    _, found = structural_similarity_index_measure(others / 2 + 0.5, images / 2 + 0.5, **how)
    border = WINDOW // 2  # where windows would reach over the edge; torchmetrics' own mean has them, reflected
    each: Tensor = found[..., border:-border, border:-border].mean((1, 2, 3))
    return each


def codebook(uses: Tensor) -> Codebook:
    """From how often each code was used, int64 `[K]`."""
    shares = uses[uses > 0].double() / uses.sum()
    entropy = -(shares * shares.log()).sum()
    return Codebook(len(uses), int((uses > 0).sum()), float(entropy.exp()), int(uses.sum()))
