"""Answers to the exercises of notebook 13: the library's, and wrong ones with what names them."""

import itertools
import math

import torch

from vqlearn.objective import bound_terms


def masked_term(p_right, s, t, schedule):
    """By the library, on a schedule whose last step is the jump from s to t."""
    codes = schedule.num_codes
    log_p = torch.stack([p_right, *[(1 - p_right) / (codes - 1)] * (codes - 1)]).double().log()[None, None]
    jump = type(schedule)(
        torch.stack([torch.ones(()).double(), schedule.alpha_bar[s], schedule.alpha_bar[t]]),
        torch.stack([torch.zeros(()).double(), schedule.gamma_bar[s], schedule.gamma_bar[t]]),
        num_codes=codes,
    )
    return bound_terms(log_p, torch.tensor([[0]]), torch.tensor([[codes]]), 2, jump)[0, 0]


def uncover_chance(sigma, s, t, schedule):
    stays = (1 - sigma) * schedule.alpha_bar[t]
    return (schedule.alpha_bar[s] - stays) / schedule.gamma_bar[t]


def pattern_weight(masked, length):
    """By counting orders in which the last `masked` tokens are masked and the last of all comes next."""
    orders = list(itertools.permutations(range(length)))
    visible = length - masked
    found = [o for o in orders if set(o[:visible]) == set(range(visible)) and o[visible] == length - 1]
    return torch.tensor(len(found) / len(orders), dtype=torch.float64)


def without_remasking(sigma, s, t, schedule):
    return uncover_chance(0.0, s, t, schedule)


LIBRARY = {"masked_term": masked_term, "uncover_chance": uncover_chance, "pattern_weight": pattern_weight}
WRONG = [
    ("masked_term", lambda p, s, t, schedule: -p.log(), "without its weight"),
    ("masked_term", lambda p, s, t, schedule: -masked_term(p, s, t, schedule), "needs a minus"),
    (
        "masked_term",
        lambda p, s, t, schedule: masked_term(p, s, t, schedule) * schedule.gamma_bar[t],
        "given that it is masked",
    ),
    ("masked_term", lambda p, s, t, schedule: masked_term(p, s, t, schedule) / math.log(2), "not in bits"),
    ("masked_term", lambda p, s, t, schedule: masked_term(p, t - 1, t, schedule), "of one step"),
    (
        "masked_term",
        lambda p, s, t, schedule: -p.log() - masked_term(p, s, t, schedule),
        "the chance of staying masked",
    ),
    ("uncover_chance", without_remasking, "the step without remasking"),
    ("uncover_chance", lambda *case: 1 - uncover_chance(*case), "take it from 1"),
    ("uncover_chance", lambda sigma, *rest: sigma + uncover_chance(0.0, *rest), "not equally many"),
    ("uncover_chance", lambda sigma, *rest: uncover_chance(1 - sigma, *rest), "a share 1 - sigma"),
    (
        "uncover_chance",
        lambda o, s, t, schedule: uncover_chance(o, s, t, schedule) * schedule.gamma_bar[t],
        "of all tokens",
    ),
    ("pattern_weight", lambda masked, length: torch.tensor(1 / masked), "together: share it"),
    ("pattern_weight", lambda masked, length: masked * pattern_weight(masked, length), "divide by their number"),
    ("pattern_weight", lambda n, length: n / (length + 1) * pattern_weight(n, length), "masked - 1, not masked"),
    ("pattern_weight", lambda n, length: math.factorial(length) * pattern_weight(n, length), "number of all orders"),
]
