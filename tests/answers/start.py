"""Answers to the exercises of notebook 00: the library's, and wrong ones with what names them."""

import torch

import vqlearn


def visible(t, schedule):
    last = vqlearn.q_log_probs(torch.tensor([[0]]), t, schedule, dtype=torch.float64)[0, 0, -1]
    return -torch.expm1(last)


def counted(x_0, x_t, mask_id):
    kinds = [mask_id if b == mask_id else int(a == b) for a, b in zip(x_0.tolist(), x_t.tolist(), strict=True)]
    return torch.tensor([kinds.count(kind) for kind in (1, 0, mask_id)]).double()


LIBRARY = {"visible_share": visible, "token_counts": counted}
WRONG = [
    ("visible_share", lambda t, schedule: schedule.alpha_bar[t], "a replaced token is visible too"),
    ("visible_share", lambda t, schedule: schedule.alpha_bar[t] + schedule.beta_bar[t], "each single code"),
    ("visible_share", lambda t, schedule: schedule.gamma_bar[t], "the share of masked tokens"),
    ("visible_share", lambda t, schedule: 1 - schedule.gamma[t], "the bar means from clean data"),
    ("visible_share", lambda t, schedule: 1 - schedule.alpha_bar[t], "what is not kept"),
    ("visible_share", lambda t, one: one.alpha_bar[t] + 1024 * one.beta_bar[t], "from the notebook"),
    ("visible_share", lambda t, one: visible(t, one) - one.alpha_bar[t], "a kept token is visible too"),
    ("visible_share", lambda t, one: 1 - sum(one.between(i - 1, i).gamma for i in range(1, t + 1)), "do not add"),
    ("visible_share", lambda t, one: one.alpha_bar[t] + 4 * one.beta_bar[t], "no common mistake"),
    ("token_counts", lambda a, b, m: counted(a, b, 4), "from the notebook"),
    ("token_counts", lambda a, b, m: counted(a, b, 1024), "from the notebook"),
    ("token_counts", lambda a, b, m: ((a == b).sum(), (a != b).sum(), (b == m).sum()), "a mask differs from x_0 too"),
    ("token_counts", lambda *case: counted(*case) / len(case[0]), "those are shares"),
    ("token_counts", lambda *case: counted(*case)[[2, 1, 0]], "kept, replaced, masked"),
    ("token_counts", lambda *case: counted(*case)[[0, 2, 1]], "kept, replaced, masked"),
    (
        "token_counts",
        lambda a, b, m: ((b != m).sum(), ((a != b) & (b != m)).sum(), (b == m).sum()),
        "visible and wrong",
    ),
    (
        "token_counts",
        lambda a, b, m: ((a == b).sum(), ((a != b) & (b != m - 1)).sum(), (b == m - 1).sum()),
        "the last code",
    ),
]
