"""Checks of notebook 05, the posterior."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from vqlearn.course.checks.judge import at, judge, share, small_schedule, then
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import transition_matrix


def likelihood_row(attempt: Callable) -> None:
    """Check `attempt(x_t, s, t, schedule)`: q(x_t | x_s = k) for the K codes and the mask, `[K + 1]`."""

    def right(x_t, s, t, schedule):
        return transition_matrix(schedule, t, s)[x_t]

    def column(x_t, s, t, schedule):
        return transition_matrix(schedule, t, s)[:, x_t]

    def no_beta(x_t, s, t, schedule):
        row = right(x_t, s, t, schedule)
        row[x_t] -= 0 if x_t == schedule.mask_id else schedule.between(s, t).beta
        return row

    def shared_beta(x_t, s, t, schedule):
        alpha, beta, _ = schedule.between(s, t)
        row = right(x_t, s, t, schedule)
        if x_t != schedule.mask_id:
            row[:-1] = schedule.num_codes * beta
            row[x_t] += alpha
        return row

    def mask_leaves(x_t, s, t, schedule, as_code=False):
        alpha, beta, gamma = schedule.between(s, t)
        row = right(x_t, s, t, schedule)
        if x_t != schedule.mask_id:
            row[-1] = beta
        elif as_code:
            row[:] = beta + alpha * torch.eye(len(row))[x_t]
        else:
            row[-1] = gamma
        return row

    def comes_from_mask(x_t, s, t, schedule):
        return mask_leaves(x_t, s, t, schedule) if x_t != schedule.mask_id else right(x_t, s, t, schedule)

    never = "the mask is never left: coming from the mask, the mask is sure and a code impossible"
    schedule = small_schedule()
    mistakes: list[tuple[str, Callable]] = [
        (
            "that is the column of x_t (where it goes), not its row (where it came from): the mask tells them apart",
            column,
        ),
        (
            "those are the shares of a jump from clean data: between(0, t) for between(s, t)",
            at(right, lambda s, t: (0, t)),
        ),
        ("those are the shares of one step, t - 1 to t, for the jump from s to t", at(right, lambda s, t: (t - 1, t))),
        ("a uniform draw can also return the token's own code: the entry at x_t is alpha + beta", no_beta),
        ("beta is the chance of each single code; K * beta is the chance of being replaced at all", shared_beta),
        (never, mask_leaves),
        (never, partial(mask_leaves, as_code=True)),
        (never, comes_from_mask),
        (
            "you normalised when you should not: a likelihood need not sum to 1 over its conditions",
            then(right, share),
        ),
    ]
    cases = [(x_t, s, t, schedule) for x_t in (0, 2, schedule.mask_id) for s, t in ((2, 5), (4, 8))]
    judge(attempt, cases, right, mistakes, "Right: one row of the matrix, the mask row included, and no matrix built.")


def apply_in_logs(attempt: Callable) -> None:
    """Check `attempt(log_v, log_alpha, log_beta)`: log(alpha v + beta sum(v)), `[K] -> [K]`, for any positive v."""

    def right(log_v, log_alpha, log_beta):
        return torch.logaddexp(log_v + log_alpha, log_v.logsumexp(-1, keepdim=True) + log_beta)

    def no_sum(log_v, log_alpha, log_beta):
        return torch.logaddexp(log_v + log_alpha, log_beta)

    def left_normalised(log_v, log_alpha, log_beta):
        return torch.logaddexp(log_v.log_softmax(-1) + log_alpha, log_beta)

    def underflow(log_v, log_alpha, log_beta):
        v = log_v.exp()
        return (log_alpha.exp() * v + log_beta.exp() * v.sum()).log()

    def logs_added(log_v, log_alpha, log_beta):
        return log_v + log_alpha + log_v.logsumexp(-1, keepdim=True) + log_beta

    def average(log_v, log_alpha, log_beta):
        total = log_v.logsumexp(-1, keepdim=True) - torch.tensor(float(log_v.shape[-1])).log()
        return torch.logaddexp(log_v + log_alpha, total + log_beta)

    mistakes: list[tuple[str, Callable]] = [
        ("beta was added as it is, right only if v sums to 1: normalise first, or multiply beta by the sum", no_sum),
        ("you normalised and forgot to un-normalise: add logsumexp(log_v) back at the end", left_normalised),
        ("exp, then log: exp(-800) is 0 in every float, and its log is -inf; stay in logs", underflow),
        ("adding logs multiplies: a sum of probabilities needs logaddexp (the public code's log_add_exp)", logs_added),
        ("you divided by K once too often: beta is already the share of each single code", average),
    ]
    log_alpha, log_beta = torch.tensor([0.7, 0.05], dtype=torch.float64).log()
    v = torch.tensor([0.5, 2.0, 0.0, 7.0], dtype=torch.float64).log()
    cases = [(v + shift, log_alpha, log_beta) for shift in (0.0, -2.0, -800.0)]
    judge(attempt, cases, right, mistakes, "Right: exact for any v, even for one too small for exp.")


def posterior(attempt: Callable) -> None:
    """Check `attempt(p_x0, x_t, s, t, schedule)`: p(x_s | x_t), `[K] -> [K + 1]`, for one token, in probabilities."""

    def right(p_x0, x_t, s, t, schedule, *, prior_time=None, divide=True, push=torch.matmul):
        seen = transition_matrix(schedule, t, 0)[x_t, :-1] if divide else 1.0
        came = transition_matrix(schedule, t, s)[x_t]
        prior = transition_matrix(schedule, s if prior_time is None else prior_time(s, t), 0)[:, :-1]
        return came * push(prior, p_x0 / seen)

    def beta_alone(prior, ratio):
        return prior @ ratio + (1 - ratio.sum()) * prior.amin(1)  # adds beta_bar and gamma_bar once, not sum(r) times

    def mask_as_code(p_x0, x_t, s, t, schedule, mask_entry=0.0):
        if x_t != schedule.mask_id:
            return right(p_x0, x_t, s, t, schedule)
        ratio = p_x0 / schedule.beta_bar[t]
        out = schedule.between(s, t).beta * (transition_matrix(schedule, s, 0)[:, :-1] @ ratio)
        out[-1] *= mask_entry
        return out

    def mask_column(p_x0, x_t, s, t, schedule):
        columns = transition_matrix(schedule, t, 0)[:, x_t], transition_matrix(schedule, t, s)[:, x_t]
        return columns[1] * (transition_matrix(schedule, s, 0)[:, :-1] @ (p_x0 / columns[0][:-1]))

    def no_mask_entry(*case):
        return torch.cat([right(*case)[:-1], torch.zeros(1).double()])

    forgot = "you forgot to divide by the likelihood: r = p(x_0 | x_t) / q(x_t | x_0) comes first"
    forgot_mask = "the mask row is forgotten: for a masked x_t the likelihood of every code is gamma, and of the mask 1"
    mistakes: list[tuple[str, Callable]] = [
        (forgot, partial(right, divide=False)),
        (forgot + ", and normalising at the end does not replace it", then(partial(right, divide=False), share)),
        (
            "t for s: r is carried to time s, with the cumulative shares of s, not t",
            partial(right, prior_time=lambda s, t: t),
        ),
        ("t - 1 for s: the jump ends at s, whatever the stride", partial(right, prior_time=lambda s, t: t - 1)),
        ("t - 1 for s: the jump ends at s, whatever the stride", at(right, lambda s, t: (t - 1, t))),
        (
            "you forgot to re-multiply: r was normalised, carried to time s, and its sum never came back",
            partial(right, push=lambda prior, ratio: prior @ share(ratio)),
        ),
        (
            "beta and gamma go to the sum of r, and r does not sum to 1: normalise it, or multiply",
            partial(right, push=beta_alone),
        ),
        (forgot_mask, mask_as_code),
        (forgot_mask, partial(mask_as_code, mask_entry=1.0)),
        (forgot_mask + " (a column in its place holds zeros, and dividing by them gives nan)", mask_column),
        ("the entry of the mask is missing: a masked token may have been masked already at time s", no_mask_entry),
        ("you normalised when you should not: a truncated belief of mass 0.9 keeps it", then(right, share)),
    ]
    whole = torch.tensor([0.1, 0.6, 0.1, 0.2], dtype=torch.float64)
    truncated = torch.tensor([0.0, 0.6, 0.1, 0.2], dtype=torch.float64)  # keeps its mass of 0.9
    schedule = small_schedule()
    cases = [(p, x_t, 4, 7, schedule) for p in (whole, truncated) for x_t in (2, 1, schedule.mask_id)]
    judge(attempt, cases, right, mistakes, "Right: Bayes, averaged over the belief, for a code and for the mask.")


def repair_rate(attempt: Callable) -> None:
    """Check `attempt(t, schedule)`: the chance that one step back changes a visible x_t that is surely not x_0."""

    def ways(t, schedule, s=None):
        s = t - 1 if s is None else s
        kept, lost, _ = schedule.between(t - 1, t)
        alpha_bar, beta_bar = schedule.alpha_bar[s], schedule.beta_bar[s]
        return kept * beta_bar, lost * alpha_bar, lost * beta_bar * schedule.num_codes, schedule.beta_bar[t]

    def right(t, schedule):
        stay, _, anything, total = ways(t, schedule)
        return 1 - (stay + anything / schedule.num_codes) / total

    def returns_counted(t, schedule):
        _, own, anything, total = ways(t, schedule)
        return (own + anything) / total

    def own_alone(t, schedule):
        _, own, _, total = ways(t, schedule)
        return own / total

    def not_divided(t, schedule):
        _, own, anything, _ = ways(t, schedule)
        return own + anything * (1 - 1 / schedule.num_codes)

    def end_for_start(t, schedule):
        stay, _, anything, total = ways(t, schedule, s=t)
        return 1 - (stay + anything / schedule.num_codes) / total

    def forward(t, schedule):
        return schedule.num_codes * schedule.beta[t]

    mistakes: list[tuple[str, Callable]] = [
        ("a uniform draw may land on x_t again, once in K: that token has not changed", returns_counted),
        ("a uniform draw counts too: x_s need not be x_0 to be another code than x_t", own_alone),
        (
            "you forgot to divide by the likelihood q(x_t | x_0): it is a beta_bar, and the ratio does not vanish",
            not_divided,
        ),
        ("t for t - 1: the prior q(x_s | x_0) belongs to s = t - 1", end_for_start),
        ("that is the forward rate K * beta of being replaced; the question is about the way back", forward),
        ("that is the chance of staying: take it from 1", then(right, lambda stays: 1 - stays)),
    ]
    schedules = (small_schedule(), MaskReplaceSchedule.paper(4, 10), MaskReplaceSchedule.released(4, 10))
    cases = [(t, schedule) for schedule in schedules for t in (2, 6, 9)]
    judge(attempt, cases, right, mistakes, "Right: a ratio of betas, alive even where beta itself is a millionth.")
