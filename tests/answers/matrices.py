"""Answers to the exercises of notebook 02: the library's, and wrong ones with what names them."""

import torch

from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import transition_matrix


def step(alpha, gamma, num_codes):
    return transition_matrix(MaskReplaceSchedule([1, alpha], [0, gamma], num_codes=num_codes), 1)


def filled(diagonal, beside, last_column, corner):
    """A matrix from functions of alpha, beta, gamma and K, block by block."""

    def attempt(alpha, gamma, num_codes):
        given = alpha, (1 - alpha - gamma) / num_codes, gamma, num_codes
        matrix = torch.full((num_codes + 1, num_codes + 1), float(beside(*given))).double()
        matrix += torch.eye(num_codes + 1) * (diagonal(*given) - beside(*given))
        matrix[num_codes, :num_codes] = gamma
        matrix[:num_codes, num_codes] = last_column(*given)
        matrix[num_codes, num_codes] = corner(*given)
        return matrix

    return attempt


def kept(a, b, g, K):
    return a + b


def one_code(a, b, g, K):
    return b


def masked(a, b, g, K):
    return g


def nothing(*given):
    return 0.0


def everything(*given):
    return 1.0


def product_of_steps(alpha, gamma, num_codes):
    whole = torch.eye(num_codes + 1).double()
    for a, g in zip(alpha, gamma, strict=True):
        whole = step(float(a), float(g), num_codes) @ whole
    return torch.stack([whole[0, 0] - whole[0, 1], whole[0, 1], whole[-1, 0]])


def bars(beta_bar=None, gamma_bar=None):
    """The three numbers with a mistaken beta_bar (of the betas and K) or gamma_bar (of the gammas)."""

    def attempt(alpha, gamma, num_codes):
        end = 1 - (1 - gamma).prod() if gamma_bar is None else gamma_bar(gamma)
        beta = (1 - alpha - gamma) / num_codes
        rest = (1 - alpha.prod() - end) / num_codes if beta_bar is None else beta_bar(beta)
        return torch.stack([alpha.prod(), rest, end])

    return attempt


def dense(v, alpha, beta, gamma):
    return step(alpha, gamma, len(v) - 1) @ v


def parts(v, codes, mask):
    return torch.cat([codes, torch.as_tensor(mask).double().reshape(1)])


LIBRARY = {"one_step": step, "cumulative_shares": product_of_steps, "apply_shares": dense}
WRONG = [
    ("one_step", lambda *case: step(*case).T, "[from, to]"),
    ("one_step", filled(lambda a, b, g, K: a, one_code, nothing, everything), "diagonal is alpha + beta"),
    (
        "one_step",
        filled(lambda a, b, g, K: a + K * b, lambda a, b, g, K: K * b, nothing, everything),
        "share 1 - alpha - gamma",
    ),
    ("one_step", filled(lambda a, b, g, K: a, lambda a, b, g, K: K * b / (K - 1), nothing, everything), "K - 1 others"),
    (
        "one_step",
        filled(lambda a, b, g, K: a + K * b / (K + 1), lambda a, b, g, K: K * b / (K + 1), nothing, everything),
        "K + 1 states",
    ),
    ("one_step", filled(kept, one_code, one_code, everything), "nothing leaves the mask"),
    ("one_step", filled(kept, one_code, one_code, masked), "nothing leaves the mask"),
    ("one_step", filled(kept, one_code, nothing, masked), "nothing leaves the mask"),
    ("one_step", filled(kept, one_code, nothing, nothing), "nothing leaves the mask"),
    ("cumulative_shares", bars(beta_bar=torch.prod), "beta_bar is not a product"),
    ("cumulative_shares", bars(beta_bar=torch.prod, gamma_bar=torch.prod), "beta_bar is not a product"),
    ("cumulative_shares", bars(gamma_bar=torch.prod), "gamma_bar is not a product"),
    ("cumulative_shares", bars(gamma_bar=torch.sum), "a token is masked once"),
    ("cumulative_shares", bars(gamma_bar=lambda gamma: (1 - gamma).prod()), "escaped the mask"),
    ("cumulative_shares", bars(beta_bar=torch.sum), "the sum of betas"),
    ("cumulative_shares", lambda a, g, K: product_of_steps(a, g, K) * torch.tensor([1, K, 1]), "divide by K"),
    ("cumulative_shares", lambda *case: product_of_steps(*case)[[0, 2, 1]], "the order is"),
    (
        "cumulative_shares",
        lambda a, g, K: bars()(a, g, K) + torch.tensor([a.sum() - a.prod(), (a.prod() - a.sum()) / K, 0]),
        "not a sum",
    ),
    ("cumulative_shares", lambda a, g, K: product_of_steps(a[-1:], g[-1:], K), "the last step alone"),
    ("apply_shares", lambda v, a, b, g: parts(v, a * v[:-1] + b, g + v[-1]), "v need not sum to 1"),
    (
        "apply_shares",
        lambda v, a, b, g: parts(v, a * v[:-1] + b * v.sum(), g * v.sum() + v[-1]),
        "without the mask's entry",
    ),
    (
        "apply_shares",
        lambda v, a, b, g: parts(v, a * v[:-1] + b * v[:-1].sum(), g * v[:-1].sum()),
        "what is masked stays masked",
    ),
    (
        "apply_shares",
        lambda v, a, b, g: parts(v, a * v[:-1] + b * v[:-1].sum(), g * v[:-1].sum() + a * v[-1]),
        "not multiplied by alpha",
    ),
    ("apply_shares", lambda v, a, b, g: step(a, g, len(v) - 1).T @ v, "the transposed matrix"),
    (
        "apply_shares",
        lambda v, a, b, g: parts(v, a * v[:-1] + (1 - a - g) * v[:-1].sum(), g * v[:-1].sum() + v[-1]),
        "not K beta V",
    ),
    (
        "apply_shares",
        lambda v, a, b, g: parts(v, a * v[:-1] + b * v[:-1].mean(), g * v[:-1].sum() + v[-1]),
        "do not divide V by K",
    ),
]
