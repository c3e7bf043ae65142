"""Checks of notebook 14, your own pictures."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import whole
from vqlearn.course.checks.check import Check
from vqlearn.course.outcomes import Case


def as_image(pixels: Tensor) -> Tensor:
    return pixels.permute(2, 0, 1).float() / 127.5 - 1


def pixels_case(height: int, width: int, seed: int) -> Case:
    drawn = torch.randint(256, (height, width, 3), generator=Generator().manual_seed(seed), dtype=torch.uint8)
    drawn[0, 0] = torch.tensor([0, 255, 0], dtype=torch.uint8)
    return (drawn,)


def other_pixels(case: Case, generator: Generator) -> Case:
    return pixels_case(whole(generator, 3, 9), whole(generator, 3, 9), whole(generator, 0, 10**6))


image_of = Check(
    name="image_of",
    question="the image float [3, H, W] in [-1, 1] of pixels uint8 [H, W, 3]",
    solution=as_image,
    cases=[pixels_case(2, 3, 0), pixels_case(4, 4, 1), pixels_case(3, 2, 2)],
    mistakes=[
        ("that reshapes, and mixes colours and places up; move the dimension with permute",
         lambda p: p.reshape(3, p.shape[0], p.shape[1]).float() / 127.5 - 1),
        ("that runs from 0 to 1; 0 must become -1", lambda p: p.permute(2, 0, 1).float() / 255),
        ("255 must become 1: divide by 127.5", lambda p: p.permute(2, 0, 1).float() / 128 - 1),
        ("uint8 arithmetic wraps around: turn the pixels into floats first",
         lambda p: (p.permute(2, 0, 1) * 2 - 1).float() / 255),
        ("red and blue have changed places", lambda p: as_image(p.flip(2))),
        ("light and dark have changed places", lambda p: -as_image(p)),
    ],
    praise="channels first, and both ends of the range are reached.",
    vary=other_pixels,
)  # fmt: skip


def gradients_apart(images: Tensor, again: Tensor) -> Tensor:
    return (images.diff(dim=-1) - again.diff(dim=-1)).abs().mean() + (
        images.diff(dim=-2) - again.diff(dim=-2)
    ).abs().mean()


def strengths_apart(images: Tensor, again: Tensor) -> Tensor:
    parts = [(images.diff(dim=dim).abs() - again.diff(dim=dim).abs()).abs().mean() for dim in (-1, -2)]
    return parts[0] + parts[1]


def squared_apart(images: Tensor, again: Tensor) -> Tensor:
    parts = [(images.diff(dim=dim) - again.diff(dim=dim)).square().mean() for dim in (-1, -2)]
    return parts[0] + parts[1]


def all_at_once(images: Tensor, again: Tensor) -> Tensor:
    parts = [(images.diff(dim=dim) - again.diff(dim=dim)).abs().flatten() for dim in (-1, -2)]
    return torch.cat(parts).mean()


def images_case(batch: int, height: int, width: int, seed: int) -> Case:
    generator = Generator().manual_seed(seed)
    return tuple(2 * torch.rand(batch, 3, height, width, generator=generator) - 1 for _ in range(2))


def other_images(case: Case, generator: Generator) -> Case:
    return images_case(2, whole(generator, 3, 6), whole(generator, 7, 9), whole(generator, 0, 10**6))


edge_loss = Check(
    name="edge_loss",
    question="the mean absolute difference of horizontal gradients, plus that of vertical ones",
    solution=gradients_apart,
    cases=[images_case(1, 3, 4, 0), images_case(2, 5, 3, 1), images_case(3, 2, 6, 2)],
    mistakes=[
        ("that compares the pixels, not their gradients", lambda a, b: (a - b).abs().mean()),
        ("the vertical differences are missing", lambda a, b: (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean()),
        ("the horizontal differences are missing", lambda a, b: (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()),
        ("the two averages are to be added, not averaged", lambda a, b: gradients_apart(a, b) / 2),
        ("that is one average over all differences; take one of each direction and add them", all_at_once),
        ("absolute differences, not squared ones", squared_apart),
        ("that compares how strong the edges are, and not in which direction they go", strengths_apart),
        ("the absolute value belongs to each pixel, before the mean",
         lambda a, b: sum(((a - b).diff(dim=dim).mean().abs() for dim in (-1, -2)), torch.zeros(()))),
    ],
    praise="zero for images that differ by a constant alone: edges, and nothing else.",
    vary=other_images,
)  # fmt: skip


def kernel(a: Tensor, b: Tensor, *, degree: int = 3, divided: bool = True, shift: float = 1.0) -> Tensor:
    return (a @ b.T / (a.shape[1] if divided else 1) + shift) ** degree


def apart(values: Tensor) -> Tensor:
    return (values.sum() - values.trace()) / (len(values) * (len(values) - 1))


def unbiased(x: Tensor, y: Tensor, *, degree: int = 3, divided: bool = True, shift: float = 1.0) -> Tensor:
    def k(a: Tensor, b: Tensor) -> Tensor:
        return kernel(a, b, degree=degree, divided=divided, shift=shift)

    return apart(k(x, x)) + apart(k(y, y)) - 2 * k(x, y).mean()


def biased(x: Tensor, y: Tensor) -> Tensor:
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()


def half_mended(x: Tensor, y: Tensor) -> Tensor:
    def without(values: Tensor) -> Tensor:
        return (values.sum() - values.trace()) / values.numel()

    return without(kernel(x, x)) + without(kernel(y, y)) - 2 * kernel(x, y).mean()


def pairs_left_out(x: Tensor, y: Tensor) -> Tensor:
    n = min(len(x), len(y))
    return apart(kernel(x, x)) + apart(kernel(y, y)) - 2 * apart(kernel(x[:n], y[:n]))


def features_case(n: int, m: int, width: int, seed: int) -> Case:
    generator = Generator().manual_seed(seed)
    x, y = (torch.rand(count, width, generator=generator, dtype=torch.float64) for count in (n, m))
    return x, 0.5 + y


def other_features(case: Case, generator: Generator) -> Case:
    sizes = whole(generator, 3, 7), whole(generator, 8, 11), whole(generator, 2, 6)
    return features_case(*sizes, whole(generator, 0, 10**6))


kernel_distance = Check(
    name="kernel_distance",
    question="the kernel distance of two sets of features, without the pairs of a picture with itself",
    solution=unbiased,
    cases=[features_case(4, 5, 3, 0), features_case(6, 3, 2, 1), features_case(5, 7, 4, 2)],
    mistakes=[
        ("each picture is still compared with itself: leave the diagonals of the first two out", biased),
        ("the sums lack the diagonals, so divide by n (n - 1), not by n n", half_mended),
        ("no pair of the third mean is to be left out: x_i and y_i are different pictures", pairs_left_out),
        ("the third mean counts twice: minus 2 times", lambda x, y: unbiased(x, y) + kernel(x, y).mean()),
        ("the kernel divides x . y by the number of features D", lambda x, y: unbiased(x, y, divided=False)),
        ("the kernel adds 1 before the power", lambda x, y: unbiased(x, y, shift=0.0)),
        ("the power is 3", lambda x, y: unbiased(x, y, degree=2)),
        ("the square root is not asked for: the squared distance may be negative",
         lambda x, y: unbiased(x, y).clamp(0).sqrt()),
    ],
    praise="its mean over many draws is zero for equal sets, whatever their size.",
    vary=other_features,
)  # fmt: skip
