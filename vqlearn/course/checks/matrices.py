"""Checks of notebook 02, transition matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import number, power, shaken, whole
from vqlearn.course.checks.check import Check, small_schedule, then
from vqlearn.course.outcomes import Case, Function
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import transition_matrix


def step_matrix(alpha: float, gamma: float, num_codes: int) -> Tensor:
    return transition_matrix(MaskReplaceSchedule([1, alpha], [0, gamma], num_codes=num_codes), 1)


def blocks(
    own: float = 1.0,
    more: Callable[[int], int] = lambda num_codes: 0,
    column: float = 0.0,
    corner: float | Literal["gamma"] = 1.0,
) -> Function:
    """The matrix from its blocks, with a mistake in one of them.

    `own` times beta is added on the diagonal, beta is shared among `more` states than K, `column` times beta is the
    mask's column, and `corner` its last entry.
    """

    def matrix(alpha: float, gamma: float, num_codes: int) -> Tensor:
        beta = (1 - alpha - gamma) / (num_codes + more(num_codes))
        found = torch.full((num_codes + 1, num_codes + 1), beta).double()
        found.fill_diagonal_(alpha + own * beta)
        found[:, -1] *= column
        found[-1, :-1], found[-1, -1] = gamma, gamma if corner == "gamma" else corner
        return found

    return matrix


LEAVES = "nothing leaves the mask: its column is 0, ..., 0, 1"


def other_shares(case: Case, generator: Generator) -> Case:
    return number(generator, 0.2, 0.6), number(generator, 0.0, 0.3), whole(generator, 2, 6)


one_step = Check(
    name="one_step",
    question="the matrix of one step, `[K + 1, K + 1]` as `[to, from]`",
    solution=step_matrix,
    cases=[(0.7, 0.1, 4), (0.5, 0.3, 3), (0.6, 0.0, 5)],
    mistakes=[
        ("that is [from, to]; here a column says where a state goes, [to, from]", then(step_matrix, lambda m: m.T)),
        (
            "beta is the chance of each single code: share 1 - alpha - gamma among the K codes",
            blocks(more=lambda num_codes: 1 - num_codes),
        ),
        ("a uniform draw may hit the token's own code: the diagonal is alpha + beta", blocks(own=0.0)),
        (
            "the draw is from all K codes, the token's own included, not from the K - 1 others",
            blocks(own=0.0, more=lambda num_codes: -1),
        ),
        ("the draw is from the K codes, not from all K + 1 states", blocks(more=lambda num_codes: 1)),
        (LEAVES, blocks(column=1.0)),
        (LEAVES, blocks(column=1.0, corner="gamma")),
        (LEAVES, blocks(corner="gamma")),
        (LEAVES, blocks(corner=0.0)),
    ],
    praise="every column sums to 1, and nothing leaves the mask.",
    vary=other_shares,
)


def bars(alpha: Tensor, gamma: Tensor, num_codes: int) -> Tensor:
    return with_the_rest(alpha.prod(), 1 - (1 - gamma).prod(), num_codes)


def with_the_rest(alpha_bar: Tensor, gamma_bar: Tensor, num_codes: int) -> Tensor:
    return torch.stack([alpha_bar, (1 - alpha_bar - gamma_bar) / num_codes, gamma_bar])


def mistaken_beta(combine: Function, masked: Function | None = None) -> Function:
    """beta_bar as some combination of the betas; and gamma_bar as some combination of the gammas."""

    def answer(alpha: Tensor, gamma: Tensor, num_codes: int) -> Tensor:
        found = bars(alpha, gamma, num_codes)
        found[1] = combine((1 - alpha - gamma) / num_codes)
        found[2] = found[2] if masked is None else masked(gamma)
        return found

    return answer


def mistaken_gamma(masked: Function) -> Function:
    return lambda alpha, gamma, num_codes: with_the_rest(alpha.prod(), masked(gamma), num_codes)


def undivided(alpha: Tensor, gamma: Tensor, num_codes: int) -> Tensor:
    return bars(alpha, gamma, num_codes) * torch.tensor([1, num_codes, 1])


PRODUCT = "beta_bar is not a product of betas: that is to be replaced in every step; it is what is left"
SMALL = small_schedule()


def other_steps(case: Case, generator: Generator) -> Case:
    alpha, gamma, num_codes = case
    speed = power(generator)
    return alpha**speed, 1 - (1 - gamma) ** speed, num_codes


cumulative_shares = Check(
    name="cumulative_shares",
    question="alpha_bar, beta_bar, gamma_bar of all the steps `[t]` together",
    solution=bars,
    cases=[(SMALL.alpha[s:t], SMALL.gamma[s:t], num_codes) for s, t, num_codes in ((2, 5, 4), (4, 6, 5), (3, 8, 3))],
    mistakes=[
        (PRODUCT, mistaken_beta(torch.prod)),
        (PRODUCT, mistaken_beta(torch.prod, torch.prod)),
        ("gamma_bar is not a product of gammas: that is to be masked in every step", mistaken_gamma(torch.prod)),
        (
            "a token is masked once: the gammas of later steps meet only what is not masked yet",
            mistaken_gamma(torch.sum),
        ),
        (
            "alpha_bar is a product, not a sum: kept in every step",
            lambda a, g, K: with_the_rest(a.sum(), bars(a, g, K)[2], K),
        ),
        ("that is the last step alone", lambda a, g, K: bars(a[-1:], g[-1:], K)),
        (
            "that is the share that escaped the mask: take it from 1",
            mistaken_gamma(lambda gamma: (1 - gamma).prod()),
        ),
        (
            "the sum of betas counts a token again that is replaced again, or masked afterwards",
            mistaken_beta(torch.sum),
        ),
        ("beta_bar is the chance of each single code: divide by K", undivided),
        ("the order is alpha_bar, beta_bar, gamma_bar", then(bars, lambda found: found[[0, 2, 1]])),
    ],
    praise="two products, and beta_bar is what is left.",
    vary=other_steps,
)


def product(v: Tensor, alpha: float, beta: float, gamma: float, *, codes: Tensor | None = None) -> Tensor:
    """Q v; `codes` is what the shares are multiplied by, the sum of the codes' entries."""
    total = v[:-1].sum() if codes is None else codes
    return torch.cat([alpha * v[:-1] + beta * total, (gamma * total + v[-1])[None]])


def wrong_beta(factor: Callable[[int], float]) -> Function:
    """beta multiplied by a function of K, gamma as it is."""

    def answer(v: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
        return product(v, alpha, beta * factor(len(v) - 1), gamma)

    return answer


def transposed(v: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    return torch.cat([alpha * v[:-1] + beta * v[:-1].sum() + gamma * v[-1], v[-1:]])


def mask_entry_lost(v: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    return product(torch.cat([v[:-1], torch.zeros(1).double()]), alpha, beta, gamma)


def mask_as_a_code(v: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    return product(torch.cat([v[:-1], alpha * v[-1:]]), alpha, beta, gamma)


def other_vector(case: Case, generator: Generator) -> Case:
    alpha, gamma, _ = other_shares(case, generator)
    return shaken(case[0], generator), alpha, (1 - alpha - gamma) / (len(case[0]) - 1), gamma


apply_shares = Check(
    name="apply_shares",
    question="Q v for any vector v `[K + 1]`, without the matrix",
    solution=product,
    cases=[
        (torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2]).double(), 0.7, 0.05, 0.1),
        (torch.tensor([3.6, 50.4, 0.4, 2.0]).double(), 0.4, 0.5 / 3, 0.1),
        (torch.tensor([0.0, 1.0, 0.0, -1.0, 0.5, 0.25, 4.0]).double(), 0.5, 0.1 / 6, 0.4),
    ],
    mistakes=[
        (
            "beta and gamma multiply the sum V of the codes: v need not sum to 1",
            lambda *case: product(*case, codes=torch.ones(()).double()),
        ),
        (
            "V is the sum of the K codes, without the mask's entry",
            lambda v, *shares: product(v, *shares, codes=v.sum()),
        ),
        ("what is masked stays masked: add the mask's own entry", mask_entry_lost),
        (
            "the mask's own entry stays whole: nothing leaves the mask, it is not multiplied by alpha",
            mask_as_a_code,
        ),
        ("that is the transposed matrix: the mask gives nothing back to the codes", transposed),
        ("beta is the chance of each single code: every code gets beta V, not K beta V", wrong_beta(lambda K: K)),
        ("beta is the chance of each single code already: do not divide V by K", wrong_beta(lambda K: 1 / K)),
    ],
    praise="the sum of the codes is all that the matrix adds to the vector.",
    vary=other_vector,
)
