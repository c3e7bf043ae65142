"""Answers to the exercises of notebook 03: the library's, and wrong ones with what names them."""

import torch

import vqlearn


def distribution(x_0, t, schedule):
    return vqlearn.q_log_probs(torch.tensor([[x_0]]), t, schedule, dtype=torch.float64)[0, 0].exp()


def wrong(length, t, schedule):
    return length * distribution(0, t, schedule)[1:-1].sum()


def noised(x_0, u, v, t, schedule):
    """By the inverse of the cumulative sum of three shares."""
    alpha_bar, beta_bar, _ = schedule.bar(t)
    ends = torch.stack([alpha_bar, alpha_bar + schedule.num_codes * beta_bar])
    kind = torch.searchsorted(ends, u, right=True)
    other = (v * schedule.num_codes).floor().long()
    return torch.stack([x_0, other, torch.full_like(x_0, schedule.mask_id)]).gather(0, kind[None])[0].double()


def seen(x_0, t, schedule):
    return distribution(x_0, t, schedule)[:-1] / distribution(x_0, t, schedule)[:-1].sum()


def by_parts(x_0, u, keep, replace, other, mask):
    return torch.where(u < keep, x_0, torch.where(u < keep + replace, other, mask))


def masked_in_the_middle(x_0, u, v, t, one):
    return by_parts(x_0, u, one.alpha_bar[t], one.gamma_bar[t], one.mask_id, (v * one.num_codes).long())


def masked_below_gamma(x_0, u, v, t, one):
    other = (v * one.num_codes).long()
    return torch.where(u < one.alpha_bar[t], x_0, torch.where(u < one.gamma_bar[t], one.mask_id, other))


def replaced_once_in_k(x_0, u, v, t, one):
    return by_parts(x_0, u, one.alpha_bar[t], one.beta_bar[t], (v * one.num_codes).long(), one.mask_id)


def one_step(x_0, u, v, t, one):
    alpha, beta, _ = one.between(t - 1, t)
    return by_parts(x_0, u, alpha, one.num_codes * beta, (v * one.num_codes).long(), one.mask_id)


def with_codes(count):
    def answer(x_0, u, v, t, one):
        replace = one.num_codes * one.beta_bar[t]
        return by_parts(x_0, u, one.alpha_bar[t], replace, (v * (one.num_codes + count)).long(), one.mask_id)

    return answer


def with_codes_of(num_codes):
    return lambda x_0, u, v, t, one: with_codes(num_codes - one.num_codes)(x_0, u, v, t, one)


def mask_is_last_code(x_0, u, v, t, one):
    found = noised(x_0, u, v, t, one)
    return torch.where(found == one.mask_id, one.mask_id - 1, found)


LIBRARY = {"wrong_tokens": wrong, "corrupt": noised, "visible_distribution": seen}
WRONG = [
    ("wrong_tokens", lambda n, t, one: n * one.num_codes * one.beta_bar[t], "its own code back once in K"),
    ("wrong_tokens", lambda n, t, one: n * (1 - one.alpha_bar[t] - one.gamma_bar[t]), "its own code back once in K"),
    ("wrong_tokens", lambda n, t, one: n * one.beta_bar[t], "each single code"),
    ("wrong_tokens", lambda n, t, one: n * (1 - one.alpha_bar[t]), "not visible"),
    ("wrong_tokens", lambda n, t, one: n * one.gamma_bar[t], "the number of masked tokens"),
    ("wrong_tokens", lambda n, t, one: n * (one.num_codes - 1) * one.beta[t], "the bar means from clean data"),
    ("wrong_tokens", lambda n, t, one: wrong(1, t, one), "that is a share"),
    ("wrong_tokens", lambda n, t, one: n * distribution(0, t, one)[0], "visible tokens that are right"),
    ("wrong_tokens", lambda n, t, one: n * (one.num_codes - 1) * one.beta[: t + 1].sum(), "do not add"),
    ("wrong_tokens", lambda n, t, one: n * 1023 * one.beta_bar[t], "from the notebook"),
    ("wrong_tokens", lambda n, t, one: n * 3 * one.beta_bar[t], "no common mistake"),
    ("corrupt", with_codes_of(1024), "from the notebook"),
    ("corrupt", lambda x_0, u, v, t, one: noised(x_0, v, u, t, one), "the other way round"),
    ("corrupt", with_codes_of(4), "no common mistake"),
    ("corrupt", masked_in_the_middle, "not the order"),
    ("corrupt", masked_below_gamma, "not in the first"),
    ("corrupt", replaced_once_in_k, "the chance of being replaced"),
    ("corrupt", one_step, "the shares of one step"),
    ("corrupt", with_codes(1), "the mask is among them"),
    ("corrupt", with_codes(-1), "the last code is never drawn"),
    (
        "corrupt",
        lambda x_0, u, v, t, one: torch.where(u < one.alpha_bar[t], x_0, one.mask_id),
        "replaced tokens are missing",
    ),
    ("corrupt", lambda x_0, u, v, t, one: noised(x_0, u, u, t, one), "a number each"),
    ("corrupt", mask_is_last_code, "the last code"),
    ("visible_distribution", lambda *case: distribution(*case)[:-1], "the probability of the condition"),
    ("visible_distribution", lambda x_0, t, one: (distribution(x_0, t, one)[:-1]) / (1 - one.gamma[t]), "one step"),
    ("visible_distribution", lambda x_0, t, one: (distribution(x_0, t, one)[:-1]) / one.alpha_bar[t], "not alpha_bar"),
    (
        "visible_distribution",
        lambda x_0, t, one: (distribution(x_0, t, one)[:-1]) / one.gamma_bar[t],
        "the chance of the mask",
    ),
    (
        "visible_distribution",
        lambda x_0, t, one: (
            seen(x_0, t, one) - torch.eye(one.num_codes)[x_0] * one.beta_bar[t] / (1 - one.gamma_bar[t])
        ),
        "can draw x_0 back",
    ),
    (
        "visible_distribution",
        lambda x_0, t, one: (
            distribution(x_0, t, one)[:-1] / (1 - one.gamma_bar[t])
            + (one.num_codes - 1) * one.beta_bar[t] / (1 - one.gamma_bar[t])
        ),
        "each single code",
    ),
]
