"""Checks of notebook 02, transition matrices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vqlearn.course.checks.judge import judge, small_schedule, then
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import transition_matrix


def one_step(attempt: Callable) -> None:
    """Check `attempt(alpha, gamma, num_codes)`: the matrix of one step, `[K + 1, K + 1]` as `[to, from]`."""

    def right(alpha, gamma, num_codes):
        return transition_matrix(MaskReplaceSchedule([1, alpha], [0, gamma], num_codes=num_codes), 1)

    def blocks(own=1.0, among=0, column=0.0, corner=1.0):
        """Fill the blocks with mistakes: shares of beta on the diagonal, states that share, the mask's column."""

        def fill(alpha, gamma, num_codes):
            beta = (1 - alpha - gamma) / (num_codes + among)
            matrix = torch.full((num_codes + 1, num_codes + 1), beta).double()
            matrix.fill_diagonal_(alpha + own * beta)
            matrix[:, -1] *= column
            matrix[-1, :-1], matrix[-1, -1] = gamma, gamma if corner == "gamma" else corner
            return matrix

        return fill

    def unshared(alpha, gamma, num_codes):
        return blocks(among=1 - num_codes)(alpha, gamma, num_codes)

    leaves = "nothing leaves the mask: its column is 0, ..., 0, 1"
    mistakes: list[tuple[str, Callable]] = [
        ("that is [from, to]; here a column says where a state goes, [to, from]", then(right, lambda m: m.T)),
        ("beta is the chance of each single code: share 1 - alpha - gamma among the K codes", unshared),
        ("a uniform draw may hit the token's own code: the diagonal is alpha + beta", blocks(own=0.0)),
        ("the draw is from all K codes, the token's own included, not from the K - 1 others", blocks(0.0, -1)),
        ("the draw is from the K codes, not from all K + 1 states", blocks(among=1)),
        (leaves, blocks(column=1.0)),
        (leaves, blocks(column=1.0, corner="gamma")),
        (leaves, blocks(corner="gamma")),
        (leaves, blocks(corner=0.0)),
    ]
    cases = [(0.7, 0.1, 4), (0.5, 0.3, 3), (0.6, 0.0, 5)]
    judge(attempt, cases, right, mistakes, "Right: every column sums to 1, and nothing leaves the mask.")


def cumulative_shares(attempt: Callable) -> None:
    """Check `attempt(alpha, gamma, num_codes)`: alpha_bar, beta_bar, gamma_bar of all the steps `[t]` together."""

    def right(alpha, gamma, num_codes):
        return rest(alpha.prod(), 1 - (1 - gamma).prod(), num_codes)

    def rest(alpha_bar, gamma_bar, num_codes):
        return torch.stack([alpha_bar, (1 - alpha_bar - gamma_bar) / num_codes, gamma_bar])

    def with_beta(combine: Callable[[Tensor], Tensor], masked: Callable[..., Tensor] | None = None):
        def answer(alpha, gamma, num_codes):
            bars = right(alpha, gamma, num_codes)
            bars[1] = combine((1 - alpha - gamma) / num_codes)
            bars[2] = bars[2] if masked is None else masked(gamma)
            return bars

        return answer

    def with_gamma(masked: Callable[..., Tensor]):
        return lambda alpha, gamma, num_codes: rest(alpha.prod(), masked(gamma), num_codes)

    def undivided(alpha, gamma, num_codes):
        return right(alpha, gamma, num_codes) * torch.tensor([1, num_codes, 1])

    product = "beta_bar is not a product of betas: that is to be replaced in every step; it is what is left"
    mistakes: list[tuple[str, Callable]] = [
        (product, with_beta(torch.prod)),
        (product, with_beta(torch.prod, torch.prod)),
        ("gamma_bar is not a product of gammas: that is to be masked in every step", with_gamma(torch.prod)),
        ("a token is masked once: the gammas of later steps meet only what is not masked yet", with_gamma(torch.sum)),
        ("that is the share that escaped the mask: take it from 1", with_gamma(lambda gamma: (1 - gamma).prod())),
        ("the sum of betas counts a token again that is replaced again, or masked afterwards", with_beta(torch.sum)),
        ("beta_bar is the chance of each single code: divide by K", undivided),
        ("the order is alpha_bar, beta_bar, gamma_bar", then(right, lambda bars: bars[[0, 2, 1]])),
    ]
    schedule = small_schedule()
    cases = [(schedule.alpha[s : s + 3], schedule.gamma[s : s + 3], codes) for s, codes in ((2, 4), (4, 5), (6, 4))]
    judge(attempt, cases, right, mistakes, "Right: two products, and beta_bar is what is left.")


def apply_shares(attempt: Callable) -> None:
    """Check `attempt(v, alpha, beta, gamma)`: Q v for any vector v `[K + 1]`, without the matrix."""

    def right(v, alpha, beta, gamma, *, total=None, stays=1.0):
        total = v[:-1].sum() if total is None else total
        return torch.cat([alpha * v[:-1] + beta * total, (gamma * total + stays * v[-1])[None]])

    def scaled(factor: Callable[[int], float]):
        return lambda v, alpha, beta, gamma: (
            right(v, alpha, beta, gamma)
            + torch.cat([(factor(len(v) - 1) - 1) * beta * v[:-1].sum().expand(len(v) - 1), torch.zeros(1)])
        )

    def backwards(v, alpha, beta, gamma):
        return torch.cat([alpha * v[:-1] + beta * v[:-1].sum() + gamma * v[-1], v[-1:]])

    def as_a_code(v, alpha, beta, gamma):
        return torch.cat([right(v, alpha, beta, gamma)[:-1], (alpha * v[-1] + gamma * v[:-1].sum())[None]])

    mistakes: list[tuple[str, Callable]] = [
        ("beta and gamma meet the sum R of the codes: v need not sum to 1", lambda *case: right(*case, total=_one())),
        ("R is the sum of the K codes, without the mask's entry", lambda v, *abc: right(v, *abc, total=v.sum())),
        ("what is masked stays masked: add the mask's own entry", lambda *case: right(*case, stays=0.0)),
        ("the mask's own entry stays whole: nothing leaves the mask, it is not multiplied by alpha", as_a_code),
        ("that is the transposed matrix: the mask gives nothing back to the codes", backwards),
        ("beta is the chance of each single code: every code gets beta R, not K beta R", scaled(lambda K: K)),
        ("beta is the chance of each single code already: do not divide R by K", scaled(lambda K: 1 / K)),
    ]
    vectors = ([0.1, 0.2, 0.3, 0.2, 0.2], [3.6, 50.4, 0.4, 3.6, 2.0], [0.0, 1.0, 0.0, -1.0, 0.5])
    shares = (0.7, 0.05, 0.1), (0.4, 0.125, 0.1), (0.5, 0.025, 0.4)
    cases = [(torch.tensor(v).double(), *abc) for v, abc in zip(vectors, shares, strict=True)]
    judge(attempt, cases, right, mistakes, "Right: one sum, and then one product per code.")


def _one() -> Tensor:
    return torch.tensor(1.0).double()
