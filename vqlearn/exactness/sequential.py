"""Autoregressive models on tiny joints: the ideal conditionals, and the distribution that a model draws from.

A model is a function `predict(tokens [B, L], n) -> log p [B, K]` of the n-th position in its order, given the tokens at
those before it, as `AutoregressiveTransformer.predictor` makes one; what the other positions hold does not matter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqlearn.arguments import permutation, shown, whole
from vqlearn.exactness.enumeration import Outcome, grids, numbers

Predict = Callable[[Tensor, int], Tensor]


def ideal_conditionals(joint: Tensor, num_codes: int, order: Sequence[int] | None = None) -> Predict:
    """The ideal model of a joint `[K^L]`: log p(x_i = k | tokens before it in the order), float64 `[B, K]`.

    `order` None is from the first position to the last. Where the tokens are impossible any prediction will do, and
    all codes are equally likely. Raises ValueError for an order that is none.
    """
    codes = whole("num_codes", num_codes, 2)
    length = round(math.log(len(joint), codes))
    positions = permutation("order", range(length) if order is None else order, length)
    sorted_joint = joint.double().view([codes] * length).permute(positions)  # the first dimension is drawn first

    @functools.cache
    def table(number: int) -> Tensor:
        weight = sorted_joint.reshape(codes ** (number + 1), -1).sum(-1).view(-1, codes)  # [K^n, K]
        total = weight.sum(-1, keepdim=True)
        return torch.where(total > 0, weight / total, 1 / codes).log()

    def predict(tokens: Tensor, number: int) -> Tensor:
        if tokens.shape[-1] != length:
            raise ValueError(f"these conditionals are those of a joint over {length} tokens, got {tokens.shape[-1]}")
        return table(number)[numbers(tokens[:, positions[:number]], codes)]

    return predict


def sequential_outcome(predict: Predict, num_codes: int, length: int, order: Sequence[int] | None = None) -> Outcome:
    """The exact distribution of tokens that are drawn one after the other, over all grids `[K^L]`, by the chain rule.

    It takes as many evaluations as positions. A prediction that does not sum to 1 is normalised, as by the draw.
    Raises ValueError for predictions of another shape and an order that is none.

    >>> from vqlearn.exactness import markov_chain, total_variation
    >>> joint = markov_chain(num_codes=2, length=3, stay=0.9)
    >>> found = sequential_outcome(ideal_conditionals(joint, num_codes=2), num_codes=2, length=3)
    >>> round(total_variation(found.law, joint), 12), found.calls
    (0.0, 3.0)
    """
    x_0, positions = grids(num_codes, length), permutation("order", range(length) if order is None else order, length)
    p = torch.ones(len(x_0), dtype=torch.float64)
    for number, position in enumerate(positions):
        log_p = predict(x_0, number)
        if not isinstance(log_p, Tensor) or log_p.shape != (len(x_0), num_codes):
            got = [*log_p.shape] if isinstance(log_p, Tensor) else shown(log_p)
            raise ValueError(f"predict must give [{len(x_0)}, {num_codes}] ([B, K]) of log-probabilities, got {got}")
        p *= log_p.double().softmax(-1).gather(-1, x_0[:, position, None])[:, 0]
    return Outcome(p, float(length))
