"""Checks for the exercises: each takes the reader's function and prints one verdict.

`not attempted yet` for a stub, a line of praise for a right answer, and for a wrong one the likely mistake: the answer
is compared with what each common mistake would give. A check never raises, so an unsolved notebook runs to its end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import transition_matrix

RELATIVE, ABSOLUTE = 1e-4, 1e-7  # loose enough for float32, tight enough to tell every mistake from the truth


def visible_share(attempt: Callable) -> None:
    """Check `attempt(t, schedule)`: the share of the tokens of x_t that are not masked."""

    def right(t, schedule):
        return 1 - schedule.gamma_bar[t]

    mistakes: list[tuple[str, Callable]] = [
        ("that is the share of kept tokens; a replaced token is visible too", lambda t, one: one.alpha_bar[t]),
        (
            "beta_bar is the chance of each single code; K * beta_bar is the share of all replaced tokens",
            lambda t, one: one.alpha_bar[t] + one.beta_bar[t],
        ),
        ("that is the share of masked tokens: take it from 1", _then(right, lambda visible: 1 - visible)),
        ("that is what one step, t - 1 to t, leaves: the bar means from clean data", lambda t, one: 1 - one.gamma[t]),
        (
            "that is what is not kept; of these tokens only the masked ones are hidden",
            lambda t, one: 1 - one.alpha_bar[t],
        ),
    ]
    cases = [(t, schedule) for schedule in (_schedule(), MaskReplaceSchedule.paper(4, 10)) for t in (0, 2, 6, 10)]
    _judge(attempt, cases, right, mistakes, "Right: visible is kept or replaced, everything but masked.")


def fates(attempt: Callable) -> None:
    """Check `attempt(x_0, x_t, mask_id)`: how many tokens are kept, replaced and masked, three numbers."""

    def right(x_0, x_t, mask_id):
        masked = x_t == mask_id
        same = x_t == x_0
        return torch.stack([same.sum(), (~same & ~masked).sum(), masked.sum()]).double()

    def masks_as_replaced(x_0, x_t, mask_id):
        return torch.stack([(x_t == x_0).sum(), (x_t != x_0).sum(), (x_t == mask_id).sum()])

    def last_code(x_0, x_t, mask_id):
        return right(x_0, x_t, mask_id - 1)

    def visible_as_kept(x_0, x_t, mask_id):
        kept, replaced, masked = right(x_0, x_t, mask_id)
        return torch.stack([kept + replaced, replaced, masked])

    mistakes: list[tuple[str, Callable]] = [
        ("a mask differs from x_0 too: count as replaced only what is visible", masks_as_replaced),
        ("those are shares; the question asks for numbers of tokens", _then(right, _share)),
        ("the order is kept, replaced, masked", _then(right, lambda counts: counts[[0, 2, 1]])),
        ("the order is kept, replaced, masked", _then(right, lambda counts: counts.flip(0))),
        ("that counts all visible tokens as kept; a replaced one is visible and wrong", visible_as_kept),
        ("the mask is mask_id itself, not mask_id - 1, which is the last code", last_code),
    ]
    x_0 = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    cases = [(x_0, torch.tensor(x_t), 4) for x_t in ([0, 1, 4, 3, 4, 4, 2, 0], [4, 3, 4, 4, 4, 2, 4, 4])]
    _judge(attempt, [*cases, (x_0, x_0, 4)], right, mistakes, "Right: three fates, and every token has one of them.")


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
    schedule = _schedule()
    mistakes: list[tuple[str, Callable]] = [
        (
            "that is the column of x_t (where it goes), not its row (where it came from): the mask tells them apart",
            column,
        ),
        (
            "those are the shares of a jump from clean data: between(0, t) for between(s, t)",
            _at(right, lambda s, t: (0, t)),
        ),
        ("those are the shares of one step, t - 1 to t, for the jump from s to t", _at(right, lambda s, t: (t - 1, t))),
        ("a uniform draw can also return the token's own code: the entry at x_t is alpha + beta", no_beta),
        ("beta is the chance of each single code; K * beta is the chance of being replaced at all", shared_beta),
        (never, mask_leaves),
        (never, partial(mask_leaves, as_code=True)),
        (never, comes_from_mask),
        (
            "you normalised when you should not: a likelihood need not sum to 1 over its conditions",
            _then(right, _share),
        ),
    ]
    cases = [(x_t, s, t, schedule) for x_t in (0, 2, schedule.mask_id) for s, t in ((2, 5), (4, 8))]
    _judge(attempt, cases, right, mistakes, "Right: one row of the matrix, the mask row included, and no matrix built.")


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
    _judge(attempt, cases, right, mistakes, "Right: exact for any v, even for one too small for exp.")


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
        (forgot + ", and normalising at the end does not replace it", _then(partial(right, divide=False), _share)),
        (
            "t for s: r is carried to time s, with the cumulative shares of s, not t",
            partial(right, prior_time=lambda s, t: t),
        ),
        ("t - 1 for s: the jump ends at s, whatever the stride", partial(right, prior_time=lambda s, t: t - 1)),
        ("t - 1 for s: the jump ends at s, whatever the stride", _at(right, lambda s, t: (t - 1, t))),
        (
            "you forgot to re-multiply: r was normalised, carried to time s, and its sum never came back",
            partial(right, push=lambda prior, ratio: prior @ _share(ratio)),
        ),
        (
            "beta and gamma go to the sum of r, and r does not sum to 1: normalise it, or multiply",
            partial(right, push=beta_alone),
        ),
        (forgot_mask, mask_as_code),
        (forgot_mask, partial(mask_as_code, mask_entry=1.0)),
        (forgot_mask + " (a column in its place holds zeros, and dividing by them gives nan)", mask_column),
        ("the entry of the mask is missing: a masked token may have been masked already at time s", no_mask_entry),
        ("you normalised when you should not: a truncated belief of mass 0.9 keeps it", _then(right, _share)),
    ]
    whole = torch.tensor([0.1, 0.6, 0.1, 0.2], dtype=torch.float64)
    truncated = torch.tensor([0.0, 0.6, 0.1, 0.2], dtype=torch.float64)  # keeps its mass of 0.9
    schedule = _schedule()
    cases = [(p, x_t, 4, 7, schedule) for p in (whole, truncated) for x_t in (2, 1, schedule.mask_id)]
    _judge(attempt, cases, right, mistakes, "Right: Bayes, averaged over the belief, for a code and for the mask.")


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
        ("that is the chance of staying: take it from 1", _then(right, lambda stays: 1 - stays)),
    ]
    schedules = (_schedule(), MaskReplaceSchedule.paper(4, 10), MaskReplaceSchedule.released(4, 10))
    cases = [(t, schedule) for schedule in schedules for t in (2, 6, 9)]
    _judge(attempt, cases, right, mistakes, "Right: a ratio of betas, alive even where beta itself is a millionth.")


# ------------------------------------------------------------------------------------------ inside


def _judge(
    attempt: Callable, cases: Sequence[tuple], right: Callable, mistakes: Sequence[tuple[str, Callable]], praise: str
) -> None:
    """Run the attempt on every case and print the verdict."""
    try:
        answers = [attempt(*case) for case in cases]
        found = [torch.as_tensor(answer).double() for answer in answers if answer is not None]
    except NotImplementedError:
        print("not attempted yet")
        return
    except Exception as error:  # whatever a reader's function may raise
        print(f"Not yet: your function stopped with {type(error).__name__}: {error}")
        return
    if len(found) < len(answers):
        print("Not yet: your function returned None. Is a `return` missing?")
        return
    wanted = _each(right, cases)
    wrong = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if not _close(a, b)), None)
    if wrong is None:
        print(praise)
        return
    shape, expected = list(found[wrong].shape), list(wanted[wrong].shape)
    if shape != expected:
        print(f"Not yet: the answer has shape {shape}, it should have {expected}.")
        return
    likely = (
        text
        for text, mistake in mistakes
        if all(_close(a, b) for a, b in zip(found, _each(mistake, cases), strict=True))
    )
    print(f"Not yet: {next(likely, 'no common mistake gives this; compare the numbers by hand')}.")
    print(f"  for {_spell(right, cases[wrong])}")
    print(f"  you say   {_numbers(found[wrong])}\n  expected  {_numbers(wanted[wrong])}")


def _then(right: Callable, change: Callable) -> Callable:
    return lambda *case: change(right(*case))


def _at(right: Callable, times: Callable) -> Callable:
    """The right answer to another pair of times; the last arguments of a case are s, t, schedule."""
    return lambda *case: right(*case[:-3], *times(*case[-3:-1]), case[-1])


def _share(values: Tensor) -> Tensor:
    return values / values.sum()


def _each(function: Callable, cases: Sequence[tuple]) -> list[Tensor]:
    return [torch.as_tensor(function(*case)).double() for case in cases]


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)


def _spell(function: Callable, case: tuple) -> str:
    """A case in words, by the names of the function's parameters; the schedule goes without saying."""
    pairs = zip(inspect.signature(function).parameters, case, strict=False)
    return ", ".join(f"{name} = {_numbers(torch.as_tensor(value))}" for name, value in pairs if name != "schedule")


def _numbers(values: Tensor) -> str:
    return str([round(v, 4) for v in values.tolist()] if values.ndim else round(values.item(), 4))


def _schedule() -> MaskReplaceSchedule:
    """K = 4, T = 10, with more replacement than the presets have, so that no mistake hides in a small number."""
    return MaskReplaceSchedule.from_ends(num_codes=4, num_steps=10, gamma_end=0.5)
