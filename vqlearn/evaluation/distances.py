"""How far two sets of pictures are apart, from the features `[N, D]` of each, with errors where there are any.

Neither distance is called FID or KID here: those names mean Inception's features and a protocol of their own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

SUBSETS = 10  # of the kernel distance
AT_ONCE = 256  # rows whose distances to all others are held at a time
NEEDED = "these measures take torchmetrics: python -m pip install torchmetrics"


class Mean(NamedTuple):
    """A mean and its standard error."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.standard_error:.2g}"


def mean(values: Tensor) -> Mean:
    """Of independent values `[N]`, at least 2."""
    values = values.double()
    return Mean(float(values.mean()), float(values.std() / math.sqrt(len(values))))


def check_torchmetrics() -> None:
    """Raises ValueError where torchmetrics, an optional dependency, is not installed."""
    try:
        import torchmetrics  # noqa: F401
    except ImportError:
        raise ValueError(NEEDED) from None


class _AsTheyAre(nn.Module):
    """In place of a network: what is given are features already."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, drawn: Tensor) -> float:
    """The squared Fréchet distance of two normal distributions, with the mean and covariance of two sets of features.

    `[N, D]` and `[M, D]`. Heusel et al. 2017, Eq. (6). It is too large for small sets, the more the fewer pictures
    there are: compare only values of equally many. Raises ValueError for fewer than 2.
    """
    check_torchmetrics()
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(len(real), len(drawn)) < 2:
        raise ValueError(f"a Fréchet distance takes at least 2 pictures of each kind, got {len(real)} and {len(drawn)}")
    metric = FrechetInceptionDistance(_AsTheyAre(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return float(metric.compute())


def frechet_across(real: Tensor, drawn: Tensor, *, seed: int = 0) -> float:
    """The mean Fréchet distance of two random halves of the real pictures, each to what was drawn for the other.

    `[N, D]` and `[N, D]` of at least 4 pictures, drawn picture i for the caption of real picture i. Sets with the same
    captions are nearer to each other than two sets of real pictures are, so they are kept apart.
    """
    one, other = _parts(len(real), 2, seed)
    return (frechet_distance(real[one], drawn[other]) + frechet_distance(real[other], drawn[one])) / 2


def kernel_distance(real: Tensor, drawn: Tensor, *, subsets: int = SUBSETS, seed: int = 0) -> Mean:
    """The squared maximum mean discrepancy of two sets of features, by the cubic kernel `(x y / D + 1)^3`.

    `[N, D]` and `[N, D]`. Unbiased for any number of pictures (Bińkowski et al. 2018, section 3). It is the mean over
    disjoint random subsets of the real pictures, each compared with what was drawn for the next one, and its error
    comes from how these differ. Raises ValueError for fewer than 2 pictures in a subset.
    """
    check_torchmetrics()
    from torchmetrics.image.kid import poly_mmd

    if min(len(real), len(drawn)) < 2 * subsets:
        raise ValueError(
            f"a kernel distance takes at least {2 * subsets} pictures of each kind, 2 for each of its {subsets} "
            f"subsets, got {len(real)} and {len(drawn)}"
        )
    parts = _parts(min(len(real), len(drawn)), subsets, seed)
    others = [*parts[1:], parts[0]]
    pairs = zip(parts, others, strict=True)
    return mean(torch.stack([poly_mmd(real[some].double(), drawn[other].double()) for some, other in pairs]))


def _parts(count: int, number: int, seed: int) -> list[Tensor]:
    """Disjoint random subsets of 0 ... count - 1 of equal size."""
    order, size = torch.randperm(count, generator=Generator().manual_seed(seed)), count // number
    return [order[i * size : (i + 1) * size] for i in range(number)]


def nearest(features: Tensor, others: Tensor, *, same: bool = False) -> Tensor:
    """The Euclidean distance of each row `[N, D]` to the nearest of others `[M, D]`, float64 `[N]`.

    With `same` both are one set, and a row is not its own neighbour.
    """
    found = []
    for start in range(0, len(features), AT_ONCE):
        some = torch.cdist(features[start : start + AT_ONCE].double(), others.double())
        if same:
            rows = torch.arange(len(some))
            some[rows, rows + start] = math.inf
        found.append(some.amin(1))
    return torch.cat(found)


def share_smaller(some: Tensor, others: Tensor) -> Mean:
    """The probability that one of `some` `[N]` is smaller than one of `others` `[M]`, ties counted half.

    It is the statistic of Mann and Whitney, with its standard error after DeLong et al. 1988.
    """
    above, below = _share_above(some, others), 1 - _share_above(others, some)
    variance = above.var() / len(above) + below.var() / len(below)
    return Mean(float(above.mean()), float(variance.sqrt()))


def _share_above(some: Tensor, others: Tensor) -> Tensor:
    """For each of some `[N]` the share of others that are larger, ties counted half."""
    order = others.sort().values
    not_above = torch.searchsorted(order, some, right=True) + torch.searchsorted(order, some)
    return 1 - not_above.double() / (2 * len(order))
