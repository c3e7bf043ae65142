"""Answers to the exercises of notebook 06: the library's, and wrong ones with what names them."""

import math

import torch

from vqlearn.objective import TimeSampler, bound_terms
from vqlearn.transition import q_posterior


def cost(x_0, x_t, p_x0, t, schedule):
    return bound_terms(p_x0.log()[None, None], torch.tensor([[x_0]]), torch.tensor([[x_t]]), t, schedule)[0, 0]


def two_posteriors(x_0, x_t, p_x0, t, schedule):
    seen = torch.tensor([[x_t]])
    certain = torch.nn.functional.one_hot(torch.tensor(x_0), len(p_x0)).double()
    return (q_posterior(p.log()[None, None], seen, t, schedule)[0, 0].exp() for p in (certain, p_x0))


def turned_round(*case):
    q, p = two_posteriors(*case)
    return (p * (p / q).log())[p > 0].sum()


def with_impossible(*case):
    q, p = two_posteriors(*case)
    return (q * (q.log() - p.log())).sum()


def entropy_left_in(*case):
    q, p = two_posteriors(*case)
    return -(q * p.log())[q > 0].sum()


def weight(s, t, schedule):
    """The chance of becoming visible in the jump, from the posterior of a certain prediction."""
    sure = torch.eye(schedule.num_codes).double()[:1].log()[None]
    return q_posterior(sure, torch.tensor([[schedule.mask_id]]), t, schedule, s=s)[0, 0, 0].exp()


def odds(history):
    sampler = TimeSampler(len(history) - 1)
    sampler.history, sampler.counts = history.double(), torch.full((len(history),), 11)
    return sampler.probabilities()


def changed(history, **entries):
    found = (history + 1e-10).sqrt() + 1e-4
    for name, value in {"one": found[2], "zero": 0.0, **entries}.items():
        found[("zero", "one", "two").index(name)] = value
    return found


def share(weights):
    return weights / weights.sum()


def root(history, floor=1e-4):
    return (history + 1e-10).sqrt() + floor


LIBRARY = {"step_cost": cost, "jump_weight": weight, "time_odds": odds}
WRONG = [
    ("step_cost", turned_round, "not over the model's distribution"),
    ("step_cost", with_impossible, "0 times infinity"),
    ("step_cost", entropy_left_in, "the entropy of q"),
    ("step_cost", lambda x_0, x_t, p, t, one: -math.log(p[x_0]), "the auxiliary term"),
    ("step_cost", lambda *case: -cost(*case), "the sign is turned"),
    ("step_cost", lambda *case: cost(*case) / math.log(2), "in bits"),
    ("jump_weight", lambda s, t, one: 1 - weight(s, t, one), "masked at s already"),
    ("jump_weight", lambda s, t, one: one.gamma_bar[t] - one.gamma_bar[s], "divide by gamma_bar_t"),
    ("jump_weight", lambda s, t, one: 1 - (1 - one.gamma_bar[t]) / (1 - one.gamma_bar[s]), "the jump forward"),
    ("jump_weight", lambda s, t, one: weight(t - 1, t, one), "that is one step"),
    ("jump_weight", lambda s, t, one: one.gamma_bar[t] / one.gamma_bar[s] - 1, "not gamma_bar_s"),
    (
        "time_odds",
        lambda h: share(torch.cat([h.new_zeros(1), h[[2]], h[2:]]) + 1e-4 * (h.cumsum(0) > 0.01)),
        "take the root",
    ),
    ("time_odds", lambda h: share(root(h) * (torch.arange(len(h)) > 0)), "the odd line is missing"),
    ("time_odds", lambda h: share(changed(h, zero=root(h)[0])), "must never be drawn"),
    ("time_odds", lambda h: share(changed(h, zero=root(h)[1], one=root(h)[1])), "counts from 0"),
    ("time_odds", lambda h: share(changed(h, one=root(h)[1], two=root(h)[1])), "the other way round"),
    ("time_odds", lambda h: changed(h), "divide by the sum"),
    ("time_odds", lambda h: share(changed(h) - 1e-4 * (torch.arange(len(h)) > 0)), "the 1e-4 is missing"),
]
