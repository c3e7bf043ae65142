"""Answers to the exercises of notebook 01: the library's, and wrong ones with what names them."""

import math

import torch

from vqlearn.networks.codebook import Codebook


def nearest(latents, vectors):
    book = Codebook(*vectors.shape).requires_grad_(False)
    book.embedding.weight.copy_(vectors)
    return book.codes(latents.T[None, :, :, None]).flatten().double()


def effective(counts):
    return torch.distributions.Categorical(probs=counts).entropy().exp()


def smaller(height, width, factor, num_codes):
    return torch.tensor(height * width * 24 / (height * width / factor**2 * math.log2(num_codes)))


def with_zeros(counts):
    p = counts / counts.sum()
    return 2 ** -(p * p.log2()).sum()


def squares(latents, vectors):
    return (latents[:, None] - vectors).pow(2).sum(-1)


def codebook(batches, vectors, decay, limit, restart=True, reset=(1, 1), far_first=True, share=False):
    """Latent by latent and code by code."""
    codes = [vector.clone() for vector in vectors]
    counts, sums = [1.0] * len(codes), [vector.clone() for vector in vectors]
    for latents in batches:
        squares = torch.stack([(latents - code).pow(2).sum(-1) for code in codes], 1)
        least, which = squares.min(1)
        for k in range(len(codes)):
            own = latents[which == k]
            counts[k] = decay * counts[k] + (1 - decay) * len(own)
            sums[k] = decay * sums[k] + (1 - decay) * own.sum(0)
            codes[k] = sums[k] / counts[k]
        homes = sorted(range(len(latents)), key=lambda i: least[i].item(), reverse=far_first)
        for k in [k for k in range(len(codes)) if counts[k] < limit and restart]:
            codes[k] = latents[homes[0] if share else homes.pop(0)]
            counts[k] = 1.0 if reset[0] else counts[k]
            sums[k] = codes[k] * 1.0 if reset[1] else sums[k]
    return torch.stack(codes)


def changed(**options):
    return lambda *case: codebook(*case, **options)


LIBRARY = {"nearest_code": nearest, "perplexity": effective, "compression": smaller, "learned_codebook": codebook}
WRONG = [
    ("nearest_code", lambda z, e: (z @ e.T).argmax(-1), "the length of the vectors counts too"),
    (
        "nearest_code",
        lambda z, e: torch.cosine_similarity(z[:, None], e, dim=-1).argmax(-1),
        "the length of the vectors",
    ),
    ("nearest_code", lambda z, e: (z @ e.T).argmin(-1), "the smallest product"),
    ("nearest_code", lambda z, e: squares(z, e).argmax(-1), "the farthest vector"),
    ("nearest_code", lambda z, e: (z[:, None] - e).sum(-1).argmin(-1), "both signs cancel"),
    ("nearest_code", lambda z, e: (z[:, None] - e).abs().sum(-1).argmin(-1), "absolute differences"),
    ("nearest_code", lambda z, e: (e.pow(2).sum(-1) - z @ e.T).argmin(-1), "counts twice"),
    ("nearest_code", lambda z, e: squares(z, e).argmin(0), "the other dimension"),
    ("nearest_code", lambda z, e: nearest(z, e) + 1, "counted from 0"),
    ("perplexity", with_zeros, "0 log 0"),
    ("perplexity", lambda c: effective(c).log2(), "the entropy in bits"),
    ("perplexity", lambda c: effective(c).log(), "the entropy in nats"),
    ("perplexity", lambda c: 2 ** effective(c).log(), "different bases"),
    ("perplexity", lambda c: effective(c).log2().exp(), "different bases"),
    ("perplexity", lambda c: (c > 0).sum(), "however rarely"),
    ("perplexity", lambda c: 2 ** -(c[c > 0] * c[c > 0].log2()).sum(), "divide by their sum"),
    ("perplexity", lambda c: 2 ** -effective(c).log2(), "the sign of the entropy"),
    ("perplexity", lambda c: c.sum() ** 2 / c.pow(2).sum(), "another measure"),
    ("compression", lambda h, w, f, k: 8 * f**2 / math.log2(k), "red, green and blue"),
    ("compression", lambda h, w, f, k: 3 * f**2 / math.log2(k), "8 bits"),
    ("compression", lambda h, w, f, k: 24 * f**2 / math.log(k), "natural logarithm"),
    ("compression", lambda h, w, f, k: 24 * f**2 / k, "log2(K) bits, not K"),
    ("compression", lambda h, w, f, k: 24 * f / math.log2(k), "the factor counts twice"),
    ("compression", lambda *case: 1 / smaller(*case), "the part of the bits that is left"),
    ("compression", lambda h, w, f, k: (h // f) * (w // f) * math.log2(k), "how many bits the tokens have"),
    ("compression", lambda h, w, f, k: h * w * 3 / ((h // f) * (w // f)), "numbers for tokens"),
    ("nearest_code", lambda z, e: (z[:, None] - e).abs().pow(3).sum(-1).argmin(-1), "sums cubes"),
    ("nearest_code", lambda z, e: (z[:, None] - e).abs().amax(-1).argmin(-1), "the largest single difference"),
    ("perplexity", lambda c: torch.tensor(len(c)), "how evenly they are used"),
    ("compression", lambda h, w, f, k: 24 * f**2 / int(math.log2(k)), "do not round"),
    ("compression", lambda h, w, f, k: 24 * f**2 / math.ceil(math.log2(k)), "do not round"),
    ("learned_codebook", changed(restart=False), "dead codes stay"),
    ("learned_codebook", changed(reset=(0, 0)), "the next update undoes it"),
    ("learned_codebook", changed(far_first=False), "nearest to their codes"),
    ("learned_codebook", changed(share=True), "a latent of its own"),
    ("learned_codebook", lambda b, v, decay, limit: codebook(b, v, 1 - decay, limit), "the weight of what was there"),
    ("learned_codebook", lambda b, v, decay, limit: codebook(b[:1], v, decay, limit), "after the first batch"),
]
