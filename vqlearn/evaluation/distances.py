"""How far two sets of pictures are apart, from the features `[N, D]` of each, with errors where there are any.

Neither distance is called FID or KID here: those names mean Inception's features and a protocol of their own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

LEAST = 20  # pictures that a kernel distance takes
SUBSET = 1000  # pictures that are compared with each other at most
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
    order, size = torch.randperm(len(real), generator=Generator().manual_seed(seed)), len(real) // 2
    one, other = order[:size], order[size : 2 * size]
    return (frechet_distance(real[one], drawn[other]) + frechet_distance(real[other], drawn[one])) / 2


def kernel_distance(real: Tensor, drawn: Tensor, *, seed: int = 0) -> Mean:
    """The squared maximum mean discrepancy of two sets of features, by the kernel k(x, y) = (x y / D + 1)^3.

    `[N, D]` and `[N, D]`: with z_i = (x_i, y_i) the mean of h(z_i, z_j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j)
    - k(x_j, y_i) over i != j (Gretton et al. 2012, Lemma 6), the kernel of Bińkowski et al. 2018. Unbiased for any
    number of pictures, also where y_i was drawn for the caption of x_i. Of more than 1000 pictures it is the mean over
    disjoint random subsets. The error is the jackknife's, which is rather too large than too small. Raises ValueError
    for fewer than 20 pictures.
    """
    check_torchmetrics()
    if min(len(real), len(drawn)) < LEAST:
        raise ValueError(
            f"a kernel distance takes at least {LEAST} pictures of each kind, got {len(real)} and {len(drawn)}"
        )
    order = torch.randperm(min(len(real), len(drawn)), generator=Generator().manual_seed(seed))
    parts = order.tensor_split(math.ceil(len(order) / SUBSET))
    found = [_kernel_distance(real[some].double(), drawn[some].double()) for some in parts]
    error = math.sqrt(sum(one.standard_error**2 for one in found)) / len(found)
    return Mean(sum(one.value for one in found) / len(found), error)


def _kernel_distance(x: Tensor, y: Tensor) -> Mean:
    from torchmetrics.image.kid import poly_kernel

    cross, count = poly_kernel(x, y), len(x)
    rows = (poly_kernel(x, x) + poly_kernel(y, y) - cross - cross.T).fill_diagonal_(0).sum(1)
    without = (rows.sum() - 2 * rows) / ((count - 1) * (count - 2))  # each pair left out in turn
    variance = (count - 1) / count * (without - without.mean()).square().sum()
    return Mean(float(rows.sum() / (count * (count - 1))), float(variance.sqrt()))


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
