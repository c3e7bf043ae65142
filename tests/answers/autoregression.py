"""Answers to the exercises of notebook 11: the library's, and wrong ones with what names them."""

import torch
import torch.nn.functional as F

from vqlearn.networks.autoregressive import Past


def work(length, each, attention):
    """In closed form: sums of n and of its square."""
    return torch.tensor(length * (length + 1) * (each / 2 + attention * (2 * length + 1) / 6))


def causal(q, k, v):
    return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]


def step(q, k, v, past_k, past_v):
    """With the memory of the library's layers, `[B, heads, n, D]`."""
    past = Past(len(past_k) + 1)
    past.extended(past_k[None, None], past_v[None, None])
    keys, values = past.extended(k[None, None, None], v[None, None, None])
    return F.scaled_dot_product_attention(q[None, None, None], keys, values)[0, 0, 0]


def masked(q, k, v, fill, diagonal=1, scale=None):
    scores = q @ k.T / (scale or q.shape[1] ** 0.5)
    return scores.masked_fill(torch.ones(len(q), len(q)).triu(diagonal).bool(), fill).softmax(1) @ v


LIBRARY = {"prefix_work": work, "causal_attention": causal, "cached_step": step}
WRONG = [
    ("prefix_work", lambda n, w, a: n * w + a * n * (n + 1) / 2, "with a cache"),
    ("prefix_work", lambda n, w, a: work(n - 1, w, a), "from 1 to"),
    ("prefix_work", lambda n, w, a: n**2 * (w + a * n), "the prefix grows"),
    ("prefix_work", lambda n, w, a: n * (n + 1) / 2 * (w + a), "attends to n"),
    ("prefix_work", lambda n, w, a: n * (w + a * n), "one pass over the whole picture"),
    (
        "causal_attention",
        lambda q, k, v: F.scaled_dot_product_attention(q[None], k[None], v[None])[0],
        "nothing is masked",
    ),
    ("causal_attention", lambda q, k, v: masked(q, k, v, -torch.inf, 0).nan_to_num(), "may attend to itself"),
    ("causal_attention", lambda q, k, v: masked(q, k, v, -torch.inf, scale=1), "not divided"),
    ("causal_attention", lambda q, k, v: masked(q, k, v, -torch.inf, scale=q.shape[1]), "by d, not"),
    ("causal_attention", lambda q, k, v: masked(q, k, v, -torch.inf, scale=len(q) ** 0.5), "of the length"),
    ("causal_attention", lambda q, k, v: masked(q, k, v, 0.0), "minus infinity"),
    ("causal_attention", lambda q, k, v: ((q @ k.T / q.shape[1] ** 0.5).softmax(1)).tril() @ v, "before the softmax"),
    ("causal_attention", lambda q, k, v: causal(q.flip(0), k.flip(0), v.flip(0)).flip(0), "upside down"),
    ("cached_step", lambda q, k, v, pk, pv: (pk @ q / len(q) ** 0.5).softmax(0) @ pv, "append its key"),
    ("cached_step", lambda q, k, v, pk, pv: step(q * len(q) ** 0.5, k, v, pk, pv), "not divided"),
    ("cached_step", lambda q, k, v, pk, pv: step(q / len(q) ** 0.5, k, v, pk, pv), "by d, not"),
    ("cached_step", lambda q, k, v, pk, pv: step(q, k, v, pk, pv.flip(0)), "out of step"),
    ("cached_step", lambda q, k, v, pk, pv: step(k, q, v, pk, pv), "in another order"),
]
