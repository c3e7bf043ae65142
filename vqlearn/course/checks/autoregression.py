"""Checks of notebook 11, against autoregression."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import whole
from vqlearn.course.checks.check import Check
from vqlearn.course.outcomes import Case


def prefixes(length: int, each: float, attention: float) -> float:
    return sum(n * (each + n * attention) for n in range(1, length + 1))


def cached(length: int, each: float, attention: float) -> float:
    return sum(each + n * attention for n in range(1, length + 1))


def one_short(length: int, each: float, attention: float) -> float:
    return prefixes(length - 1, each, attention)


def whole_passes(length: int, each: float, attention: float) -> float:
    return length * length * (each + length * attention)


def attention_once(length: int, each: float, attention: float) -> float:
    return sum(n * (each + attention) for n in range(1, length + 1))


def other_work(case: Case, generator: Generator) -> Case:
    return whole(generator, 3, 60), whole(generator, 2, 40), whole(generator, 1, 9)


prefix_work = Check(
    name="prefix_work",
    question="the operations of drawing `length` tokens without a cache",
    solution=prefixes,
    cases=[(4, 10, 1), (64, 100, 3), (7, 5, 2)],
    mistakes=[
        ("that is the work with a cache: without one, all n positions are computed for the n-th token", cached),
        ("the last token is missing: n runs from 1 to `length`", one_short),
        ("the prefix grows: only the last token takes a pass over all `length` positions", whole_passes),
        ("each of n positions attends to n: the attention of one pass is n * n * attention", attention_once),
        (
            "that is one pass over the whole picture, not one for every token",
            lambda length, each, attention: length * (each + length * attention),
        ),
    ],
    praise="a pass over 1, 2, ... positions: the square of the length, and with attention its cube.",
    vary=other_work,
)


def attended(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, shift: int = 1, dim: int = -1) -> Tensor:
    """Causal attention; the options are mistakes: another scale, diagonal or dimension of the softmax."""
    scores = q @ k.T / (math.sqrt(q.shape[1]) if scale is None else scale)
    later = torch.ones(scores.shape).triu(shift).bool()
    return scores.masked_fill(later, -torch.inf).softmax(dim).nan_to_num(0.0) @ v


def seeing_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attended(q, k, v, shift=len(q))


def masked_late(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(-1).tril() @ v


def masked_by_zero(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.T / math.sqrt(q.shape[1])).tril().softmax(-1) @ v


def seeing_later(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.T / math.sqrt(q.shape[1])
    return scores.masked_fill(torch.ones(scores.shape).tril(-1).bool(), -torch.inf).softmax(-1) @ v


def attention_case(length: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> Case:
    generator = Generator().manual_seed(seed)
    return tuple(torch.randn(length, width, generator=generator, dtype=dtype) for _ in range(3))


def other_attention(case: Case, generator: Generator) -> Case:
    return attention_case(whole(generator, 3, 9), whole(generator, 3, 12), whole(generator, 0, 10**6))


causal_attention = Check(
    name="causal_attention",
    question="the output of one head, in which every position attends to those up to itself",
    solution=attended,
    cases=[attention_case(4, 3, 0), attention_case(6, 5, 1, torch.float64), attention_case(2, 8, 2)],
    mistakes=[
        ("nothing is masked: a position must not attend to later ones", seeing_all),
        ("a position may attend to itself: its input is the token before the one that is predicted",
         lambda q, k, v: attended(q, k, v, shift=0)),
        ("the scores are not divided by the square root of the size d of a head",
         lambda q, k, v: attended(q, k, v, scale=1.0)),
        ("the scores are divided by d, not by its square root",
         lambda q, k, v: attended(q, k, v, scale=float(q.shape[1]))),
        ("that divides by the square root of the length; it is that of the size d of a head",
         lambda q, k, v: attended(q, k, v, scale=math.sqrt(len(q)))),
        ("the mask comes before the softmax: the weights of a row must sum to 1", masked_late),
        ("a score of 0 is not a weight of 0: later positions need the score minus infinity", masked_by_zero),
        ("the mask is upside down: that attends to later positions", seeing_later),
        ("the softmax runs over the keys, the last dimension", lambda q, k, v: attended(q, k, v, dim=0)),
    ],
    praise="later scores are minus infinity before the softmax, so that each row of weights sums to 1.",
    vary=other_attention,
)  # fmt: skip


def next_output(
    q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, *, scale: float | None = None
) -> Tensor:
    keys, values = torch.cat([past_k, k[None]]), torch.cat([past_v, v[None]])
    return (keys @ q / (math.sqrt(len(q)) if scale is None else scale)).softmax(0) @ values


def without_itself(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
    return (past_k @ q / math.sqrt(len(q))).softmax(0) @ past_v


def not_normalised(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
    return (torch.cat([past_k, k[None]]) @ q / math.sqrt(len(q))).exp() @ torch.cat([past_v, v[None]])


def out_of_step(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
    return next_output(q, k, v, past_k, past_v.flip(0))


def cache_case(length: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> Case:
    q, k, v = attention_case(length, width, seed, dtype)
    return q[-1], k[-1], v[-1], k[:-1], v[:-1]


def other_cache(case: Case, generator: Generator) -> Case:
    return cache_case(whole(generator, 3, 9), whole(generator, 3, 12), whole(generator, 0, 10**6))


cached_step = Check(
    name="cached_step",
    question="the output of a new token, which attends to itself and to the tokens before it",
    solution=next_output,
    cases=[cache_case(4, 3, 3), cache_case(6, 5, 4, torch.float64), cache_case(3, 8, 5)],
    mistakes=[
        ("the new token attends to itself too: append its key and its value", without_itself),
        ("the scores are not divided by the square root of the size d of a head",
         lambda *case: next_output(*case, scale=1.0)),
        ("the scores are divided by d, not by its square root",
         lambda *case: next_output(*case, scale=float(len(case[0])))),
        ("keys and values are out of step: the n-th value belongs to the n-th key", out_of_step),
        ("that is the output of the last position for q, k and v in another order",
         lambda q, k, v, past_k, past_v: next_output(k, q, v, past_k, past_v)),
        ("the weights must sum to 1: a softmax, not exponentials alone", not_normalised),
    ],
    praise="one row of the causal attention, and nothing of the past is computed again.",
    vary=other_cache,
)  # fmt: skip
