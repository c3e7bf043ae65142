"""Answers to the exercises of notebook 12: the library's, and wrong ones with what names them."""

import torch

from vqlearn.transition import q_posterior


def distribution(x_0, x_t, s, t, schedule):
    sure = torch.nn.functional.one_hot(torch.as_tensor(x_0), schedule.num_codes).double().log()
    return q_posterior(sure[None, None], torch.tensor([[x_t]]), t, schedule, s=s)[0, 0].exp()


def step(x_0, x_t, u, s, t, schedule):
    """Token by token, from the library's distribution of a masked one."""
    found = []
    for clean, seen, number in zip(x_0.tolist(), x_t.tolist(), u.tolist(), strict=True):
        uncovered = seen == schedule.mask_id and number < distribution(clean, seen, s, t, schedule)[clean]
        found.append(clean if uncovered else seen)
    return torch.tensor(found).double()


def uncovering(share):
    def answer(x_0, x_t, u, s, t, one):
        goes = (x_t == one.mask_id) & (u < share(one.gamma_bar[s], one.gamma_bar[t]))
        return torch.where(goes, x_0, x_t)

    return answer


def exact(s, t):
    return (t - s) / t


def to_prediction(s, t, schedule):
    return distribution(0, 1, s, t, schedule)[0]


LIBRARY = {"mask_only_step": step, "repaired": to_prediction}
WRONG = [
    (
        "mask_only_step",
        lambda x_0, x_t, u, s, t, one: torch.where(u < exact(one.gamma_bar[s], one.gamma_bar[t]), x_0, x_t),
        "whatever is predicted",
    ),
    (
        "mask_only_step",
        lambda *case: torch.where(case[1] == case[-1].mask_id, step(*case), case[0].double()),
        "the prediction there instead",
    ),
    (
        "mask_only_step",
        lambda x_0, x_t, u, s, t, one: torch.where(u < exact(one.gamma_bar[s], one.gamma_bar[t]), x_0, one.mask_id),
        "never masked in the reverse process",
    ),
    ("mask_only_step", uncovering(lambda s, t: (t - s) / (1 - s)), "the forward process"),
    ("mask_only_step", uncovering(lambda s, t: t - s), "divide by gamma_bar_t"),
    ("mask_only_step", uncovering(lambda s, t: s / t), "staying masked"),
    ("mask_only_step", uncovering(lambda s, t: 2.0), "every mask is uncovered"),
    ("mask_only_step", lambda x_0, x_t, u, s, t, one: step(x_0, x_t, 1 - u, s, t, one), "not the order"),
    ("repaired", lambda s, t, one: one.between(s, t).beta * one.alpha_bar[s] / one.beta_bar[t], "drew x_0 again"),
    ("repaired", lambda s, t, one: 1 - distribution(0, 1, s, t, one)[1], "every change"),
    ("repaired", lambda s, t, one: to_prediction(s, t, one) * one.beta_bar[t], "divide by the evidence"),
    ("repaired", lambda s, t, one: one.num_codes * to_prediction(s, t, one), "that of one code"),
    ("repaired", lambda s, t, one: to_prediction(t - 1, t, one), "that is one step"),
    ("repaired", lambda s, t, one: torch.tensor(1.0), "the whole probability"),
]
