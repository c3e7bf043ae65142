"""Checks of notebook 05, the posterior."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import at_other_speed, number, redistributed, redrawn
from vqlearn.course.checks.check import Check, at_times, normalised, small_schedule, then
from vqlearn.course.outcomes import Case
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import transition_matrix

FOUR, SIX, THREE = small_schedule(), small_schedule(6), small_schedule(3, 8)


def row(x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return transition_matrix(schedule, t, s)[x_t]


def column(x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return transition_matrix(schedule, t, s)[:, x_t]


def row_without_beta(x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    found = row(x_t, s, t, schedule)
    found[x_t] -= 0 if x_t == schedule.mask_id else schedule.between(s, t).beta
    return found


def row_with_all_replacements(x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    alpha, beta, _ = schedule.between(s, t)
    found = row(x_t, s, t, schedule)
    if x_t != schedule.mask_id:
        found[:-1] = schedule.num_codes * beta
        found[x_t] += alpha
    return found


def mask_left(x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    """The mask is replaced by a code, and masked with probability gamma."""
    found = row(x_t, s, t, schedule)
    found[-1] = schedule.between(s, t).gamma if x_t == schedule.mask_id else schedule.between(s, t).beta
    return found


def mask_as_a_code(x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    alpha, beta, _ = schedule.between(s, t)
    if x_t == schedule.mask_id:
        return beta + alpha * torch.eye(schedule.num_codes + 1)[x_t]
    return mask_left(x_t, s, t, schedule)


def mask_of_the_notebook(x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    """The solution with the notebook's MASK, which is 4."""
    alpha, beta, gamma = schedule.between(s, t)
    found = torch.full((schedule.num_codes + 1,), float(gamma if x_t == FOUR.mask_id else beta)).double()
    found[x_t] += 0.0 if x_t == FOUR.mask_id else alpha
    if len(found) > FOUR.mask_id:
        found[FOUR.mask_id] = 1.0 if x_t == FOUR.mask_id else 0.0
    return found


def code_from_mask(x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return (row if x_t == schedule.mask_id else mask_left)(x_t, s, t, schedule)


NEVER = "the mask is never left: coming from the mask, the mask is sure and a code impossible"

likelihood_row = Check(
    name="likelihood_row",
    question="q(x_t | x_s = k) for the K codes and the mask, `[K + 1]`",
    solution=row,
    cases=[
        (x_t, s, t, schedule)
        for schedule, s, t in ((FOUR, 2, 5), (SIX, 4, 8), (THREE, 1, 6))
        for x_t in (0, 2, schedule.mask_id)
    ],
    mistakes=[
        (
            "that is the column of x_t (where it goes), not its row (where it came from): the mask tells them apart",
            column,
        ),
        (
            "those are the shares of a jump from clean data: between(0, t) for between(s, t)",
            at_times(row, lambda s, t: (0, t)),
        ),
        (
            "those are the shares of one step, t - 1 to t, for the jump from s to t",
            at_times(row, lambda s, t: (t - 1, t)),
        ),
        ("a uniform draw can also return the token's own code: the entry at x_t is alpha + beta", row_without_beta),
        (
            "beta is the chance of each single code; K * beta is the chance of being replaced at all",
            row_with_all_replacements,
        ),
        ("the mask is schedule.mask_id: your answer takes the notebook's MASK", mask_of_the_notebook),
        (NEVER, mask_left),
        (NEVER, mask_as_a_code),
        (NEVER, code_from_mask),
        (
            "you normalised when you should not: a likelihood need not sum to 1 over its conditions",
            then(row, normalised),
        ),
    ],
    praise="one row of the matrix, the mask row included.",
    vary=at_other_speed,
)


def in_logs(log_v: Tensor, log_alpha: Tensor, log_beta: Tensor) -> Tensor:
    return torch.logaddexp(log_v + log_alpha, log_v.logsumexp(-1, keepdim=True) + log_beta)


def sum_left_out(log_v: Tensor, log_alpha: Tensor, log_beta: Tensor) -> Tensor:
    return torch.logaddexp(log_v + log_alpha, log_beta)


def left_normalised(log_v: Tensor, log_alpha: Tensor, log_beta: Tensor) -> Tensor:
    return sum_left_out(log_v.log_softmax(-1), log_alpha, log_beta)


def underflow(log_v: Tensor, log_alpha: Tensor, log_beta: Tensor) -> Tensor:
    v = log_v.exp()
    return (log_alpha.exp() * v + log_beta.exp() * v.sum()).log()


def logs_added(log_v: Tensor, log_alpha: Tensor, log_beta: Tensor) -> Tensor:
    return log_v + log_alpha + log_v.logsumexp(-1, keepdim=True) + log_beta


def mean_for_sum(log_v: Tensor, log_alpha: Tensor, log_beta: Tensor) -> Tensor:
    total = log_v.logsumexp(-1, keepdim=True) - torch.tensor(float(log_v.shape[-1])).log()
    return torch.logaddexp(log_v + log_alpha, total + log_beta)


LOG_V = torch.tensor([0.5, 2.0, 0.0, 7.0, 1.0, 0.25]).double().log()
LOG_SHARES = tuple(torch.tensor([0.7, 0.05], dtype=torch.float64).log())


def other_logs(case: Case, generator: Generator) -> Case:
    alpha = torch.tensor(number(generator, 0.3, 0.8)).double()
    return case[0] + redrawn(case[0], generator), alpha.log(), ((1 - alpha) * number(generator, 0.1, 0.25)).log()


apply_in_logs = Check(
    name="apply_in_logs",
    question="log(alpha v + beta sum(v)), `[K] -> [K]`, for any positive v",
    solution=in_logs,
    cases=[(LOG_V[:codes] + shift, *LOG_SHARES) for codes, shift in ((4, 0.0), (6, -2.0), (3, -800.0))],
    mistakes=[
        (
            "beta was added as it is, right only if v sums to 1: normalise first, or multiply beta by the sum",
            sum_left_out,
        ),
        ("you normalised and forgot to un-normalise: add logsumexp(log_v) back at the end", left_normalised),
        ("exp, then log: exp(-800) is 0 in every float, and its log is -inf; stay in logs", underflow),
        ("adding logs multiplies: a sum of probabilities needs logaddexp (the public code's log_add_exp)", logs_added),
        ("you divided by K once too often: beta is already the share of each single code", mean_for_sum),
    ],
    praise="exact for any v, even for one too small for exp.",
    vary=other_logs,
)


def averaged(
    p_x0: Tensor,
    x_t: int,
    s: int,
    t: int,
    schedule: MaskReplaceSchedule,
    *,
    prior_time: int | None = None,
    divide: bool = True,
    push: Callable[[Tensor, Tensor], Tensor] = torch.matmul,
) -> Tensor:
    """p(x_s | x_t); the options are mistakes: another time of the prior, no division, another way to push r to s."""
    seen = transition_matrix(schedule, t, 0)[x_t, :-1] if divide else 1.0
    prior = transition_matrix(schedule, s if prior_time is None else prior_time, 0)[:, :-1]
    return row(x_t, s, t, schedule) * push(prior, p_x0 / seen)


def prior_of(time: Callable[[int, int], int]) -> Callable[..., Tensor]:
    """The posterior with the prior of another time, a function of s and t."""
    return lambda p, x_t, s, t, schedule: averaged(p, x_t, s, t, schedule, prior_time=time(s, t))


def push_once(prior: Tensor, ratio: Tensor) -> Tensor:
    return prior @ ratio + (1 - ratio.sum()) * prior.amin(1)  # adds beta_bar and gamma_bar once, not sum(v) times


def mask_row_forgotten(
    p_x0: Tensor, x_t: int, s: int, t: int, schedule: MaskReplaceSchedule, *, mask_entry: float = 0.0
) -> Tensor:
    """A masked x_t is treated like a code: beta for gamma."""
    if x_t != schedule.mask_id:
        return averaged(p_x0, x_t, s, t, schedule)
    ratio = p_x0 / schedule.beta_bar[t]
    found = schedule.between(s, t).beta * (transition_matrix(schedule, s, 0)[:, :-1] @ ratio)
    found[-1] *= mask_entry
    return found


def columns_for_rows(p_x0: Tensor, x_t: int, s: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    ratio = p_x0 / column(x_t, 0, t, schedule)[:-1]
    return column(x_t, s, t, schedule) * (transition_matrix(schedule, s, 0)[:, :-1] @ ratio)


FORGOT = "you forgot to divide by the likelihood: v = p(x_0 | x_t) / q(x_t | x_0) comes first"
FORGOT_MASK = "the mask row is forgotten: for a masked x_t the likelihood of every code is gamma, and of the mask 1"
STRIDE = "t - 1 for s: the jump ends at s, whatever the stride"
PREDICTIONS: tuple[tuple[Tensor, int, int, MaskReplaceSchedule], ...] = (
    (torch.tensor([0.1, 0.6, 0.1, 0.2]).double(), 4, 7, FOUR),
    (torch.tensor([0.0, 0.6, 0.1, 0.2]).double(), 2, 6, FOUR),  # truncated: it keeps its mass of 0.9
    (torch.tensor([0.05, 0.4, 0.2, 0.15, 0.1, 0.1]).double(), 3, 8, SIX),
    (torch.tensor([0.3, 0.5, 0.1]).double(), 1, 6, THREE),
)


def other_prediction(case: Case, generator: Generator) -> Case:
    p_x0, *rest = at_other_speed(case, generator)
    return redistributed(p_x0, generator), *rest


posterior = Check(
    name="posterior",
    question="p(x_s | x_t), `[K] -> [K + 1]`, for one token, in probabilities",
    solution=averaged,
    cases=[(p, x_t, s, t, schedule) for p, s, t, schedule in PREDICTIONS for x_t in (2, 1, schedule.mask_id)],
    mistakes=[
        (FORGOT, partial(averaged, divide=False)),
        (
            FORGOT + ", and normalising at the end does not make up for it",
            then(partial(averaged, divide=False), normalised),
        ),
        ("t for s: v is carried to time s, with the cumulative shares of s, not t", prior_of(lambda s, t: t)),
        (STRIDE, prior_of(lambda s, t: t - 1)),
        (STRIDE, at_times(averaged, lambda s, t: (t - 1, t))),
        (
            "you forgot to re-multiply: v was normalised, carried to time s, and its sum never came back",
            partial(averaged, push=lambda prior, ratio: prior @ normalised(ratio)),
        ),
        (
            "beta and gamma go to the sum of v, and v does not sum to 1: normalise it, or multiply",
            partial(averaged, push=push_once),
        ),
        (FORGOT_MASK, mask_row_forgotten),
        (FORGOT_MASK, partial(mask_row_forgotten, mask_entry=1.0)),
        (FORGOT_MASK + " (a column in its place holds zeros, and dividing by them gives nan)", columns_for_rows),
        (
            "the entry of the mask is missing: a masked token may have been masked already at time s",
            then(averaged, lambda p: torch.cat([p[:-1], torch.zeros(1).double()])),
        ),
        ("you normalised when you should not: a truncated prediction of mass 0.9 keeps it", then(averaged, normalised)),
    ],
    praise="Bayes, averaged over the prediction, for a code and for the mask.",
    vary=other_prediction,
)


def changed(t: int, schedule: MaskReplaceSchedule) -> Tensor:
    stay, _, anything, total = ways(t, schedule)
    return 1 - (stay + anything / schedule.num_codes) / total


def ways(t: int, schedule: MaskReplaceSchedule, prior_time: int | None = None) -> tuple[Tensor, ...]:
    """How the wrong code comes about: kept from s, replaced from x_0, replaced from any code; and all of it."""
    s = t - 1 if prior_time is None else prior_time
    kept, lost, _ = schedule.between(t - 1, t)
    alpha_bar, beta_bar = schedule.alpha_bar[s], schedule.beta_bar[s]
    return kept * beta_bar, lost * alpha_bar, lost * beta_bar * schedule.num_codes, schedule.beta_bar[t]


def returns_counted(t: int, schedule: MaskReplaceSchedule) -> Tensor:
    _, own, anything, total = ways(t, schedule)
    return (own + anything) / total


def own_alone(t: int, schedule: MaskReplaceSchedule) -> Tensor:
    _, own, _, total = ways(t, schedule)
    return own / total


def not_divided(t: int, schedule: MaskReplaceSchedule) -> Tensor:
    _, own, anything, _ = ways(t, schedule)
    return own + anything * (1 - 1 / schedule.num_codes)


def prior_of_t(t: int, schedule: MaskReplaceSchedule) -> Tensor:
    stay, _, anything, total = ways(t, schedule, prior_time=t)
    return 1 - (stay + anything / schedule.num_codes) / total


repair_rate = Check(
    name="repair_rate",
    question="the chance that one step of the reverse process changes a visible x_t that is surely not x_0",
    solution=changed,
    cases=[
        (t, schedule)
        for schedule in (FOUR, SIX, MaskReplaceSchedule.paper(3, 10), MaskReplaceSchedule.released(4, 12))
        for t in (2, 6, 9)
    ],
    mistakes=[
        ("a uniform draw may land on x_t again, once in K: that token has not changed", returns_counted),
        ("a uniform draw counts too: x_s need not be x_0 to be another code than x_t", own_alone),
        (
            "you forgot to divide by the likelihood q(x_t | x_0): it is a beta_bar, and the ratio does not vanish",
            not_divided,
        ),
        ("t for t - 1: the prior q(x_s | x_0) belongs to s = t - 1", prior_of_t),
        (
            "that is the forward rate K * beta of being replaced; the question is about the reverse process",
            lambda t, schedule: schedule.num_codes * schedule.beta[t],
        ),
        (
            "1 - alpha is what is left where the two beta_bars are equal; in general their ratio counts",
            lambda t, schedule: 1 - schedule.alpha[t],
        ),
        ("that is the chance of staying: take it from 1", then(changed, lambda chance: 1 - chance)),
    ],
    praise="a ratio of betas, alive even where beta itself is a millionth.",
    vary=at_other_speed,
)
