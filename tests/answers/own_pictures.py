"""Answers to the exercises of notebook 14: the library's, and wrong ones with what names them."""

import torch
import torch.nn.functional as F

HORIZONTAL = torch.tensor([[[[-1.0, 1.0]]]])


def image(pixels):
    """By numpy, as most data sets do."""
    return torch.from_numpy(pixels.numpy().transpose(2, 0, 1).astype("float32")) / 255 * 2 - 1


def edges(images, again):
    """By convolutions of each channel."""
    error = (images - again).flatten(0, 1)[:, None]
    kernel = HORIZONTAL.to(error.dtype)
    return F.conv2d(error, kernel).abs().mean() + F.conv2d(error, kernel.mT).abs().mean()


def distance(x, y):
    """Pair by pair."""

    def k(a, b):
        return (torch.dot(a, b) / len(a) + 1) ** 3

    def own(some):
        values = [k(a, b) for i, a in enumerate(some) for j, b in enumerate(some) if i != j]
        return sum(values) / len(values)

    return own(x) + own(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def gram(x, y, power=3, shift=1.0):
    return (torch.einsum("id,jd->ij", x, y) / x.shape[1] + shift).pow(power)


LIBRARY = {"image_of": image, "edge_loss": edges, "kernel_distance": distance}
WRONG = [
    ("image_of", lambda p: p.flatten().unflatten(0, (3, *p.shape[:2])) / 127.5 - 1, "mixes colours"),
    ("image_of", lambda p: (image(p) + 1) / 2, "0 must become -1"),
    ("image_of", lambda p: (p.permute(2, 0, 1) - 128.0) / 128, "divide by 127.5"),
    ("image_of", lambda p: ((p + p).permute(2, 0, 1) - 1) / 255, "wraps around"),
    ("image_of", lambda p: image(p)[[2, 1, 0]], "red and blue"),
    ("image_of", lambda p: 1 - p.permute(2, 0, 1) / 127.5, "light and dark"),
    ("edge_loss", lambda a, b: F.l1_loss(a, b), "compares the pixels"),
    ("edge_loss", lambda a, b: F.l1_loss(a[..., 1:] - a[..., :-1], b[..., 1:] - b[..., :-1]), "vertical"),
    ("edge_loss", lambda a, b: F.l1_loss(a[..., 1:, :] - a[..., :-1, :], b.diff(dim=2)), "horizontal"),
    ("edge_loss", lambda a, b: edges(a, b) / 2, "not averaged"),
    (
        "edge_loss",
        lambda a, b: (
            sum(F.l1_loss(a.diff(dim=d), b.diff(dim=d), reduction="sum") for d in (2, 3))
            / sum(a.diff(dim=d).numel() for d in (2, 3))
        ),
        "one average over all",
    ),
    ("edge_loss", lambda a, b: sum(F.mse_loss(a.diff(dim=d), b.diff(dim=d)) for d in (2, 3)), "not squared"),
    ("edge_loss", lambda a, b: sum(F.l1_loss(a.diff(dim=d).abs(), b.diff(dim=d).abs()) for d in (2, 3)), "how strong"),
    ("edge_loss", lambda a, b: sum((a.diff(dim=d) - b.diff(dim=d)).mean().abs() for d in (2, 3)), "to each pixel"),
    ("kernel_distance", lambda x, y: gram(x, x).mean() + gram(y, y).mean() - 2 * gram(x, y).mean(), "diagonals"),
    (
        "kernel_distance",
        lambda x, y: gram(x, x).fill_diagonal_(0).mean() + gram(y, y).fill_diagonal_(0).mean() - 2 * gram(x, y).mean(),
        "divide by n (n - 1)",
    ),
    ("kernel_distance", lambda x, y: distance(x, y) + gram(x, y).mean(), "minus 2 times"),
    ("kernel_distance", lambda x, y: distance(x * x.shape[1] ** 0.5, y * x.shape[1] ** 0.5), "number of features"),
    ("kernel_distance", lambda x, y: distance(x, y).clamp(min=0) ** 0.5, "square root"),
]
