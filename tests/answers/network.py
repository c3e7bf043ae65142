"""Answers to the exercises of notebook 05b: the library's, and wrong ones with what names them."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

import vqlearn
from vqlearn.networks.transformer import AdaLayerNorm, Attention, FeedForward, TokenEmbedding


def filled(module, **tensors):
    """A module of the library with these numbers, and zeros elsewhere."""
    with torch.no_grad():
        for name, parameter in module.double().named_parameters():
            parameter.copy_(tensors.get(name.replace(".", "_"), torch.zeros(())))
    return module


def embedded(tokens, codes, rows, columns):
    table = TokenEmbedding(len(codes), codes.shape[1], 1)
    for name, numbers in {"emb": codes, "height_emb": rows, "width_emb": columns}.items():
        setattr(table, name, nn.Embedding.from_pretrained(numbers))
    return table(tokens[None])[0]


def normed(x, time, weight, bias):
    norm = AdaLayerNorm(x.shape[1], 1)
    filled(norm, emb_weight=time[None], linear_weight=weight, linear_bias=bias)
    return norm(x[None], torch.tensor(0))[0].detach()


def found(q, k, v, heads):
    """With the identity for every projection."""
    one = torch.eye(q.shape[1])
    layer = Attention(q.shape[1], heads, True, 0.0, q.shape[1])
    filled(layer, to_q_weight=one, to_k_weight=one, to_v_weight=one, to_out_0_weight=one)
    keys, values = layer._heads(k[None]), layer._heads(v[None])
    return layer.read(layer.queries(q[None]), keys, values)[0].detach()


def passed(x, text, norms, own, cross, up, down):
    """Of the library's layers; scale and shift come from a time table of zeros and a bias."""
    names = "to_q_weight", "to_k_weight", "to_v_weight", "to_out_0_weight"
    width = x.shape[1]
    ada = [filled(AdaLayerNorm(width, 1), linear_bias=one.flatten()) for one in norms]
    first, second = (
        filled(Attention(width, 1, True, 0.0, width), **dict(zip(names, w, strict=True))) for w in (own, cross)
    )
    inner = FeedForward(width, len(up) / width, False, 0.0)
    filled(inner, net_0_proj_weight=up, net_2_weight=down)
    t, x = torch.tensor(0), x[None]
    h = ada[0](x, t)
    x = x + first(h, h)
    x = x + second(ada[1](x, t), text[None])
    return (x + inner(F.layer_norm(x, (width,))))[0].detach()


@functools.cache
def size(width, layers, side, text, codes, steps):
    with torch.device("meta"):
        network = vqlearn.Transformer2DModel(
            num_attention_heads=1, attention_head_dim=width, num_layers=layers, cross_attention_dim=text,
            num_vector_embeds=codes + 1, sample_size=side, num_embeds_ada_norm=steps,
        )  # fmt: skip
    return torch.tensor(network.num_parameters(), dtype=torch.float64)


def scores(q, k, heads):
    q, k = (x.view(len(x), heads, -1) for x in (q, k))
    return torch.einsum("lhd,shd->hls", q, k)


def with_scores(change):
    """Attention whose scores before the softmax are changed."""

    def answer(q, k, v, heads):
        weights = change(scores(q, k, heads), q.shape[1] // heads).softmax(-1)
        return torch.einsum("hls,shd->lhd", weights, v.view(len(v), heads, -1)).flatten(1)

    return answer


def without_residuals(x, text, norms, own, cross, up, down):
    right = with_scores(lambda s, d: s / d**0.5)
    for (scale, shift), w, context in zip(norms, (own, cross), (None, text), strict=True):
        h = F.layer_norm(x, (x.shape[1],)) * (1 + scale) + shift
        other = h if context is None else context
        x = right(h @ w[0].T, other @ w[1].T, other @ w[2].T, 1) @ w[3].T
    z = F.layer_norm(x, (x.shape[1],)) @ up.T
    return (z * torch.sigmoid(1.702 * z)) @ down.T


LIBRARY = {
    "embed": embedded,
    "adaptive_norm": normed,
    "attention": found,
    "block": passed,
    "parameter_count": size,
}
WRONG = [
    ("embed", lambda x, codes, rows, columns: codes[x], "positions are missing"),
    ("embed", lambda x, codes, rows, columns: embedded(x, codes, rows, columns * 0), "columns are missing"),
    (
        "embed",
        lambda x, codes, *more: embedded(x.clamp(max=len(codes) - 2), codes, *more),
        "not the last code",
    ),
    ("adaptive_norm", lambda x, t, w, b: normed(x, t, w, b) - F.layer_norm(x, x.shape[1:]), "1 + scale"),
    ("adaptive_norm", lambda x, t, w, b: normed(x, t, *(torch.cat(p.chunk(2)[::-1]) for p in (w, b))), "first half"),
    ("adaptive_norm", lambda x, t, w, b: normed(x, -20 * torch.ones_like(t), w, b + w @ t), "SiLU of the time"),
    ("attention", with_scores(lambda s, d: s), "divide the scores by the root"),
    ("attention", with_scores(lambda s, d: s / d), "not by d"),
    ("attention", with_scores(lambda s, d: s / (d * len(s)) ** 0.5), "size of a head, not of C"),
    ("attention", lambda q, k, v, heads: found(q, k, v, 1), "that is one head"),
    ("block", without_residuals, "added to the main path"),
    ("block", lambda x, y, norms, *more: passed(x, y, norms[[1, 0]], *more), "norms[0] is that of self-attention"),
    (
        "block",
        lambda x, y, n, own, cross, *more: passed(
            x, y, n, *(torch.cat([w[:3], torch.eye(w.shape[1])[None]]) for w in (own, cross)), *more
        ),
        "output projection",
    ),
    ("parameter_count", lambda *sizes: size(*sizes) + 4 * sizes[1] * (sizes[0] ** 2 + sizes[0]), "not gated"),
    ("parameter_count", lambda *sizes: size(*sizes) - sizes[0], "K + 1"),
    ("parameter_count", lambda *sizes: size(*sizes) + sizes[0] + 1, "K outputs"),
    ("parameter_count", lambda w, n, side, *more: size(w, n, side, *more) + (side**2 - 2 * side) * w, "side squared"),
]
