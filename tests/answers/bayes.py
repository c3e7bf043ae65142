"""Answers to the exercises of notebook 05: the library's, and wrong ones with what names them."""

import math

import torch

import vqlearn
from vqlearn.transition import q_likelihood, transition_matrix


def row(x_t, s, t, schedule):
    return q_likelihood(torch.tensor([[x_t]]), t, schedule, s=s, dtype=torch.float64)[0, 0].exp()


def apply(log_v, log_alpha, log_beta):
    return torch.logaddexp(log_v + log_alpha, log_beta + log_v.logsumexp(-1))


def whole(p_x0, x_t, s, t, schedule):
    return vqlearn.q_posterior(p_x0.log()[None, None], torch.tensor([[x_t]]), t, schedule, s=s)[0, 0].exp()


def repair(t, schedule):
    sure = torch.full((1, 1, schedule.num_codes), -torch.inf).double()
    sure[..., 1] = 0.0
    return 1 - vqlearn.q_posterior(sure, torch.tensor([[0]]), t, schedule)[0, 0, 0].exp()


def column_for_row(x_t, s, t, schedule):
    return transition_matrix(schedule, t, s)[:, x_t]


def row_of_mask_as_a_code(x_t, s, t, schedule):
    alpha, beta, _ = schedule.between(s, t)
    out = torch.full((schedule.num_codes + 1,), float(beta)).double()
    out[x_t] += alpha
    return out


def row_with_uniform_share(x_t, s, t, schedule):
    alpha, beta, gamma = schedule.between(s, t)
    if x_t == schedule.mask_id:
        return torch.tensor([gamma] * schedule.num_codes + [1.0])
    out = torch.tensor([schedule.num_codes * beta] * schedule.num_codes + [0.0])
    out[x_t] += alpha
    return out


def row_with_alpha_alone(x_t, s, t, schedule):
    out = row(x_t, s, t, schedule)
    if x_t != schedule.mask_id:
        out[x_t] = schedule.between(s, t).alpha
    return out


def through_probabilities(log_v, log_alpha, log_beta):
    return (log_alpha.exp() * log_v.exp() + log_beta.exp() * log_v.exp().sum()).log()


def posterior_of(divide=True, time="s", remultiply=True, normalise=False):
    def attempt(p_x0, x_t, s, t, schedule):
        r = p_x0 / transition_matrix(schedule, t, 0)[x_t, :-1] if divide else p_x0
        alpha, beta, gamma = schedule.bar({"s": s, "t": t, "t - 1": t - 1}[time])
        mass = r.sum()
        carried = torch.cat([alpha * r / mass + beta, gamma[None]]) * (mass if remultiply else 1)
        out = transition_matrix(schedule, t, s)[x_t] * carried
        return out / out.sum() if normalise else out

    return attempt


def posterior_without_mask_row(p_x0, x_t, s, t, schedule):
    """The public code without its two overwritten lines: columns in place of the mask's rows."""
    r = p_x0 / transition_matrix(schedule, t, 0)[:, x_t][:-1]
    return transition_matrix(schedule, t, s)[:, x_t] * (transition_matrix(schedule, s, 0)[:, :-1] @ r)


def posterior_with_r_taken_for_a_distribution(p_x0, x_t, s, t, schedule):
    r = p_x0 / transition_matrix(schedule, t, 0)[x_t, :-1]
    alpha, beta, gamma = schedule.bar(s)
    return transition_matrix(schedule, t, s)[x_t] * torch.cat([alpha * r + beta, gamma[None]])


def posterior_that_ends_the_mask(*case):
    out = whole(*case)
    out[-1] = 0.0
    return out


LIBRARY = {"likelihood_row": row, "apply_in_logs": apply, "posterior": whole, "repair_rate": repair}
WRONG = [
    ("likelihood_row", column_for_row, "the column of x_t"),
    ("likelihood_row", row_with_uniform_share, "beta is the chance of each single code"),
    ("likelihood_row", row_with_alpha_alone, "alpha + beta"),
    ("likelihood_row", lambda x, s, t, schedule: row(x, 0, t, schedule), "from clean data"),
    ("likelihood_row", lambda x, s, t, schedule: row(x, t - 1, t, schedule), "one step"),
    ("likelihood_row", lambda *case: row(*case) / row(*case).sum(), "normalised"),
    ("likelihood_row", row_of_mask_as_a_code, "the mask is never left"),
    ("apply_in_logs", lambda v, a, b: torch.logaddexp(v + a, v.mean() + math.log(4) + b), "no common mistake"),
    ("apply_in_logs", lambda v, a, b: torch.logaddexp(v + a, b), "only if v sums to 1"),
    ("apply_in_logs", lambda v, a, b: torch.logaddexp(v.log_softmax(-1) + a, b), "forgot to un-normalise"),
    ("apply_in_logs", through_probabilities, "exp(-800)"),
    ("apply_in_logs", lambda v, a, b: v + a + b + v.logsumexp(-1), "needs logaddexp"),
    ("apply_in_logs", lambda v, a, b: apply(v, a, b - math.log(len(v))), "divided by K once too often"),
    ("posterior", lambda p, x, s, t, schedule: whole(p, x, t - 3, t, schedule), "no common mistake"),
    ("posterior", posterior_of(divide=False), "forgot to divide by the likelihood"),
    ("posterior", posterior_of(divide=False, normalise=True), "forgot to divide by the likelihood"),
    ("posterior", posterior_of(time="t"), "t for s"),
    ("posterior", posterior_of(time="t - 1"), "t - 1 for s"),
    ("posterior", lambda p, x, s, t, schedule: whole(p, x, t - 1, t, schedule), "t - 1 for s"),
    ("posterior", posterior_of(remultiply=False), "forgot to re-multiply"),
    ("posterior", posterior_of(normalise=True), "normalised when you should not"),
    ("posterior", posterior_without_mask_row, "mask row is forgotten"),
    ("posterior", posterior_with_r_taken_for_a_distribution, "v does not sum to 1"),
    ("posterior", posterior_that_ends_the_mask, "entry of the mask is missing"),
    ("repair_rate", lambda t, schedule: schedule.num_codes * schedule.beta[t], "the forward rate"),
    ("repair_rate", lambda t, schedule: 1 - repair(t, schedule), "the chance of staying"),
    ("repair_rate", lambda t, schedule: 1 - schedule.alpha[t], "in general their ratio counts"),
    ("repair_rate", lambda t, schedule: repair(t, schedule) * schedule.beta_bar[t], "forgot to divide"),
    (
        "repair_rate",
        lambda t, schedule: 1 - schedule.alpha[t] * schedule.beta_bar[t - 1] / schedule.beta_bar[t],
        "land on x_t again",
    ),
    ("repair_rate", lambda t, schedule: 1 - schedule.alpha[t] - schedule.beta[t], "t for t - 1"),
]
