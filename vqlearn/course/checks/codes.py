"""Checks of notebook 01, images as tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vqlearn.course.checks.cases import number, whole
from vqlearn.course.checks.check import Check, normalised, then
from vqlearn.course.outcomes import Case, Function


def nearest(latents: Tensor, vectors: Tensor) -> Tensor:
    return torch.cdist(latents, vectors).argmin(1)


def largest_product(latents: Tensor, vectors: Tensor) -> Tensor:
    return (latents @ vectors.T).argmax(1)


def smallest_product(latents: Tensor, vectors: Tensor) -> Tensor:
    return (latents @ vectors.T).argmin(1)


def largest_cosine(latents: Tensor, vectors: Tensor) -> Tensor:
    return largest_product(latents, F.normalize(vectors, dim=1))


def absolute(latents: Tensor, vectors: Tensor) -> Tensor:
    return torch.cdist(latents, vectors, p=1).argmin(1)


def cubed(latents: Tensor, vectors: Tensor) -> Tensor:
    return torch.cdist(latents, vectors, p=3).argmin(1)


def largest_difference(latents: Tensor, vectors: Tensor) -> Tensor:
    return torch.cdist(latents, vectors, p=torch.inf).argmin(1)


def signed(latents: Tensor, vectors: Tensor) -> Tensor:
    return (latents[:, None] - vectors).sum(-1).argmin(1)


def half_of_the_product(latents: Tensor, vectors: Tensor) -> Tensor:
    return (vectors.pow(2).sum(1) - latents @ vectors.T).argmin(1)


def farthest(latents: Tensor, vectors: Tensor) -> Tensor:
    return torch.cdist(latents, vectors).argmax(1)


PRODUCTS = "the largest product is not the smallest distance: the length of the vectors counts too, |e|^2 - 2 z e"


def scattered(seed: int, count: int, codes: int, dim: int) -> Case:
    """Latents and codes in so many dimensions that every other distance has another nearest code."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(rows, dim, dtype=torch.float64, generator=generator).round(decimals=1) for rows in (count, codes)
    )


def other_vectors(case: Case, generator: Generator) -> Case:
    return tuple(torch.randn(vectors.shape, generator=generator) for vectors in case)


nearest_code = Check(
    name="nearest_code",
    question="the number of the nearest vector, `[N, D], [K, D] -> [N]`",
    solution=nearest,
    cases=[
        (
            torch.tensor([[0.5, 0.2], [-0.9, 0.4], [0.2, 0.9], [1.0, 1.6]]),
            torch.tensor([[-1.0, -0.4], [1.6, 1.3], [-0.4, 1.0], [0.6, -0.8]]),
        ),
        (
            torch.tensor([[0.3, 0.3, 0.3], [-0.1, 0.2, 0.9], [1.1, 0.2, 0.8], [-0.4, -0.4, 0.6]]),
            torch.tensor([[0.9, 0.9, 0.9], [0.2, 0.1, 1.5], [-1.0, 0.3, -0.2], [0.1, -0.3, 0.2]]),
        ),
        scattered(1, 9, 7, 5),
    ],
    mistakes=[
        (PRODUCTS, largest_product),
        (PRODUCTS, largest_cosine),
        ("that is the smallest product of latent and vector, not the smallest distance", smallest_product),
        ("that is the farthest vector: argmin, not argmax", farthest),
        ("differences of both signs cancel in that sum: square them first", signed),
        ("that sums absolute differences; the nearest in Euclidean distance has the least sum of squares", absolute),
        ("that sums cubes of the differences; Euclidean distance sums squares", cubed),
        ("that is the largest single difference; Euclidean distance sums the squares of all", largest_difference),
        ("the product counts twice: |z - e|^2 holds - 2 z e", half_of_the_product),
        (
            "that finds a latent for each vector; a vector for each latent is wanted: the other dimension",
            lambda latents, vectors: nearest(vectors, latents),
        ),
        ("codes are counted from 0", then(nearest, lambda codes: codes + 1)),
    ],
    praise="the least distance, for every latent at once.",
    vary=other_vectors,
)


def entropy(counts: Tensor) -> Tensor:
    """In nats."""
    p = normalised(counts)
    return -torch.special.xlogy(p, p).sum()


def two_to_the_entropy(counts: Tensor) -> Tensor:
    return entropy(counts).exp()


def with_zero_counts(counts: Tensor) -> Tensor:
    p = normalised(counts)
    return torch.exp2(-(p * p.log2()).sum())


def without_shares(counts: Tensor) -> Tensor:
    return torch.exp2(-(torch.special.xlogy(counts, counts) / math.log(2)).sum())


MIXED = "the logarithm and the power have different bases: 2 goes with log2, e with log"

perplexity = Check(
    name="perplexity",
    question="2 to the entropy in bits of the codes' use, `[K] -> one number`",
    solution=two_to_the_entropy,
    cases=[
        (torch.tensor([8, 4, 2, 2, 0]).double(),),
        (torch.tensor([5, 5, 5, 5]).double(),),
        (torch.tensor([30, 9, 1, 0, 0, 3]),),
    ],
    mistakes=[
        ("0 log 0 gives nan: leave out the codes that do not occur, or use torch.special.xlogy", with_zero_counts),
        ("that is the entropy in bits: 2 to this power is the perplexity", lambda c: entropy(c) / math.log(2)),
        ("that is the entropy in nats; the perplexity is e to this power", entropy),
        (MIXED, lambda counts: torch.exp2(entropy(counts))),
        (MIXED, lambda counts: (entropy(counts) / math.log(2)).exp()),
        (
            "that is the largest perplexity that K codes can have, K; how evenly they are used counts",
            lambda counts: torch.tensor(len(counts)),
        ),
        ("that is the number of codes that occur, however rarely", lambda counts: (counts > 0).sum()),
        ("counts are no shares yet: divide by their sum", without_shares),
        ("the sign of the entropy is lost: it is minus the sum of p log p", then(two_to_the_entropy, lambda p: 1 / p)),
        (
            "1 over the sum of squares is another measure of the same thing; here 2 to the entropy is asked for",
            lambda counts: 1 / normalised(counts).pow(2).sum(),
        ),
    ],
    praise="as many equally frequent codes would carry as much.",
    vary=lambda case, generator: (case[0] * whole(generator, 2, 5) + (case[0] > 0) * whole(generator, 1, 9),),
)


def times_smaller(height: int, width: int, factor: int, num_codes: int) -> float:
    return 24 * factor**2 / math.log2(num_codes)


def scaled(by: float) -> Function:
    return then(times_smaller, lambda times: times * by)


compression = Check(
    name="compression",
    question="bits of the pixels over bits of the tokens",
    solution=times_smaller,
    cases=[(32, 32, 4, 1024), (256, 256, 8, 4096), (256, 128, 16, 1000), (64, 32, 2, 3)],
    mistakes=[
        ("a pixel has three numbers, for red, green and blue", scaled(1 / 3)),
        ("a byte has 8 bits", scaled(1 / 8)),
        ("a natural logarithm does not count bits: log2", scaled(1 / math.log(2))),
        ("a token is one of K names, and that takes log2(K) bits, not K", lambda h, w, f, k: 24 * f**2 / k),
        ("a token covers factor x factor pixels: the factor counts twice", lambda h, w, f, k: 24 * f / math.log2(k)),
        (
            "that is the part of the bits that is left: how many times fewer is asked for",
            then(times_smaller, lambda times: 1 / times),
        ),
        (
            "that is how many bits the tokens have; how many times fewer is asked for",
            lambda h, w, f, k: h * w / f**2 * math.log2(k),
        ),
        ("log2(K) need not be a whole number: do not round it", lambda h, w, f, k: 24 * f**2 / int(math.log2(k))),
        (
            "log2(K) need not be a whole number: do not round it",
            lambda h, w, f, k: 24 * f**2 / math.ceil(math.log2(k)),
        ),
        ("that counts numbers for tokens; a number has 8 bits, a token log2(K)", lambda h, w, f, k: 3 * f**2),
    ],
    praise="the size of the picture cancels, and the factor counts squared.",
    vary=lambda case, generator: (*case[:2], 2 ** whole(generator, 1, 5), whole(generator, 2, 5000)),
)


def updates(
    batches: Tensor,
    vectors: Tensor,
    decay: float,
    limit: float,
    *,
    start: float = 1.0,
    restart: str = "count and sum",
    order: Callable[[Tensor], Tensor] = lambda far: far,
    judged: str = "running count",
    moved: bool = False,
) -> Tensor:
    """The codebook after all batches; the options are mistakes."""
    counts, sums = torch.full_like(vectors[:, 0], start), vectors * start
    for latents in batches:
        squares = (latents[:, None] - vectors).pow(2).sum(-1)  # [N, K]
        chosen = F.one_hot(squares.argmin(1), len(vectors)).to(latents)
        counts = decay * counts + (1 - decay) * chosen.sum(0)
        sums = decay * sums + (1 - decay) * chosen.T @ latents
        if moved:
            squares = (latents[:, None] - sums / counts[:, None]).pow(2).sum(-1)
        far = order((squares * chosen).sum(1).argsort(descending=True))
        dead = ((counts if judged == "running count" else chosen.sum(0)) < limit).nonzero()[:, 0]
        homes = latents[far[: len(dead)]]
        if restart in ("count and sum", "sum"):
            sums[dead] = homes
        if restart == "count and sum":
            counts[dead] = 1.0
        vectors = sums / counts[:, None]
        if restart == "vector":
            vectors[dead] = homes
    return vectors


def one_home(far: Tensor) -> Tensor:
    return far[:1].expand(len(far))


def heap(generator: Generator, shape: tuple[int, ...], codes: int, dtype: torch.dtype, limit: float) -> Case:
    """Batches of latents in two clusters, and codes in a heap at one side, of which some are never chosen."""
    sides = torch.randint(2, shape[:-1], generator=generator)[..., None].double() * 4 - 2
    latents = sides + torch.randn(shape, dtype=torch.float64, generator=generator)
    vectors = 3 + 0.1 * torch.randn(codes, shape[-1], dtype=torch.float64, generator=generator)
    return latents.to(dtype), vectors.to(dtype), 0.6 + 0.1 * number(generator, -1, 1), limit


def other_heap(case: Case, generator: Generator) -> Case:
    batches, vectors, _, limit = case
    return heap(generator, tuple(batches.shape), len(vectors), batches.dtype, limit)


ONLY = "a restart sets the running count and the running sum; otherwise the next update undoes it"

learned_codebook = Check(
    name="learned_codebook",
    question="the codebook after all batches, with restarts, `[batches, N, D], [K, D] -> [K, D]`",
    solution=updates,
    cases=[
        heap(torch.Generator().manual_seed(0), (8, 9, 2), 5, torch.float64, 0.2),
        heap(torch.Generator().manual_seed(1), (7, 12, 3), 4, torch.float64, 0.3),
        heap(torch.Generator().manual_seed(2), (9, 8, 4), 6, torch.float32, 0.25),
    ],
    mistakes=[
        ("dead codes stay where they are: restart those with a count below the limit", partial(updates, restart="no")),
        (ONLY, partial(updates, restart="vector")),
        ("a restarted code has the count 1: its sum alone leaves it dead", partial(updates, restart="sum")),
        (
            "that takes the latents nearest to their codes; a code is missing where latents are far away",
            partial(updates, order=lambda far: far.flip(0)),
        ),
        (
            "every restarted code needs a latent of its own: the farthest, the second farthest and so on",
            partial(updates, order=one_home),
        ),
        (
            "that takes the first latents of the batch, whatever their distance",
            partial(updates, order=lambda far: torch.arange(len(far))),
        ),
        (
            "a code is dead if its running count is low; in one batch any code may be missing",
            partial(updates, judged="batch"),
        ),
        (
            "the distances are those to the codes by which the latents were assigned, before the update",
            partial(updates, moved=True),
        ),
        (
            "decay is the weight of what was there; the new batch has 1 - decay",
            lambda batches, vectors, decay, limit: updates(batches, vectors, 1 - decay, limit),
        ),
        (
            "the means are running ones: that keeps nothing of the earlier batches",
            lambda batches, vectors, decay, limit: updates(batches, vectors, 1e-9, limit),
        ),
        ("before the first batch each code has the count 1 and its vector as sum", partial(updates, start=0.1)),
        ("that is the codebook after the first batch", lambda b, v, decay, limit: updates(b[:1], v, decay, limit)),
    ],
    praise="an assignment, two running sums and a restart: the codebook of a VQ-VAE.",
    vary=other_heap,
)
