"""Checks of notebook 01, images as tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from vqlearn.course.checks.judge import judge, share, then


def nearest_code(attempt: Callable) -> None:
    """Check `attempt(latents, vectors)`: the number of the nearest vector, `[N, D], [K, D] -> [N]`."""

    def right(latents, vectors):
        return torch.cdist(latents, vectors).argmin(1)

    def dot(latents, vectors):
        return (latents @ vectors.T).argmax(1)

    def smallest_dot(latents, vectors):
        return (latents @ vectors.T).argmin(1)

    def cosine(latents, vectors):
        return dot(latents, F.normalize(vectors, dim=1))

    def absolute(latents, vectors):
        return torch.cdist(latents, vectors, p=1).argmin(1)

    def signed(latents, vectors):
        return (latents[:, None] - vectors).sum(-1).argmin(1)

    def half_product(latents, vectors):
        return (vectors.pow(2).sum(1) - latents @ vectors.T).argmin(1)

    def latent_of_code(latents, vectors):
        return right(vectors, latents)

    def farthest(latents, vectors):
        return torch.cdist(latents, vectors).argmax(1)

    products = "the largest product is not the smallest distance: the length of the vectors counts too, |e|^2 - 2 z e"
    mistakes: list[tuple[str, Callable]] = [
        (products, dot),
        (products, cosine),
        ("that is the smallest product of latent and vector, not the smallest distance", smallest_dot),
        ("that is the farthest vector: argmin, not argmax", farthest),
        ("differences of both signs cancel in that sum: square them first", signed),
        ("that sums absolute differences; the nearest in Euclidean distance has the least sum of squares", absolute),
        ("the product counts twice: |z - e|^2 holds - 2 z e", half_product),
        (
            "that finds a latent for each vector; a vector for each latent is wanted: the other dimension",
            latent_of_code,
        ),
        ("codes are counted from 0", then(right, lambda codes: codes + 1)),
    ]
    plane = torch.tensor([[-1.0, -0.4], [1.6, 1.3], [-0.4, 1.0], [0.6, -0.8]])
    space = torch.tensor([[0.9, 0.9, 0.9], [0.2, 0.1, 1.5], [-1.0, 0.3, -0.2], [0.1, -0.3, 0.2]])
    cases = [
        (torch.tensor([[0.5, 0.2], [-0.9, 0.4], [0.2, 0.9], [1.0, 1.6]]), plane),
        (torch.tensor([[0.3, 0.3, 0.3], [-0.1, 0.2, 0.9], [1.1, 0.2, 0.8], [-0.4, -0.4, 0.6]]), space),
    ]
    judge(attempt, cases, right, mistakes, "Right: the least distance, for every latent at once.")


def perplexity(attempt: Callable) -> None:
    """Check `attempt(counts)`: 2 to the entropy in bits of the codes' use, `[K] -> one number`."""

    def entropy(counts):
        p = share(counts)
        return -torch.special.xlogy(p, p).sum()  # in nats

    def right(counts):
        return entropy(counts).exp()

    def not_a_number(counts):
        p = share(counts)
        return 2 ** -(p * p.log2()).sum()

    def not_shares(counts):
        return 2 ** -(torch.special.xlogy(counts, counts) / math.log(2)).sum()

    mixed = "the logarithm and the power have different bases: 2 goes with log2, e with log"
    mistakes: list[tuple[str, Callable]] = [
        ("0 log 0 gives nan: leave out the codes that do not occur, or use torch.special.xlogy", not_a_number),
        ("that is the entropy in bits: 2 to this power is the perplexity", lambda c: entropy(c) / math.log(2)),
        ("that is the entropy in nats; the perplexity is e to this power", entropy),
        (mixed, lambda c: 2 ** entropy(c)),
        (mixed, lambda c: (entropy(c) / math.log(2)).exp()),
        ("that is the number of codes that occur, however rarely", lambda c: (c > 0).sum()),
        ("counts are no shares yet: divide by their sum", not_shares),
        ("the sign of the entropy is lost: it is minus the sum of p log p", lambda c: 1 / right(c)),
        ("1 over the sum of squares is another measure of the same thing; here 2 to the entropy is asked for",
         lambda c: 1 / share(c).pow(2).sum()),
    ]  # fmt: skip
    cases = [(torch.tensor(counts, dtype=torch.float64),) for counts in ([8, 4, 2, 2, 0], [5, 5, 5, 5], [30, 9, 1])]
    judge(attempt, cases, right, mistakes, "Right: as many equally frequent codes would carry as much.")


def compression(attempt: Callable) -> None:
    """Check `attempt(height, width, factor, num_codes)`: bits of the pixels over bits of the tokens."""

    def right(height, width, factor, num_codes):
        return 24 * factor**2 / math.log2(num_codes)

    def scaled(by):
        return lambda *case: right(*case) * by

    mistakes: list[tuple[str, Callable]] = [
        ("a pixel has three numbers, for red, green and blue", scaled(1 / 3)),
        ("a byte has 8 bits", scaled(1 / 8)),
        ("a natural logarithm does not count bits: log2", scaled(1 / math.log(2))),
        ("a token is one of K names, and that takes log2(K) bits, not K", lambda h, w, f, k: 24 * f**2 / k),
        ("a token covers factor x factor pixels: the factor counts twice", lambda h, w, f, k: 24 * f / math.log2(k)),
        ("that is the part of the bits that is left: how many times fewer is asked for", lambda *c: 1 / right(*c)),
        ("that is how many bits the tokens have; how many times fewer is asked for",
         lambda h, w, f, k: h * w / f**2 * math.log2(k)),
        ("that counts numbers for tokens; a number has 8 bits, a token log2(K)", lambda h, w, f, k: 3 * f**2),
    ]  # fmt: skip
    cases = [(32, 32, 4, 1024), (256, 256, 8, 4096), (256, 128, 16, 512)]
    judge(attempt, cases, right, mistakes, "Right: the size of the picture cancels, and the factor counts squared.")
