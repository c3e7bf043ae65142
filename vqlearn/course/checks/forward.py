"""Checks of notebook 03, the forward process."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import at_other_speed, redrawn
from vqlearn.course.checks.check import Check, normalised, small_schedule, then
from vqlearn.course.outcomes import Case, Function
from vqlearn.schedule import MaskReplaceSchedule


def expected_wrong(length: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return length * (schedule.num_codes - 1) * schedule.beta_bar[t]


wrong_tokens = Check(
    name="wrong_tokens",
    question="the expected number of visible tokens that are not x_0",
    solution=expected_wrong,
    cases=[
        (length, t, schedule)
        for schedule in (small_schedule(), MaskReplaceSchedule.paper(8, 10))
        for length, t in ((64, 3), (49, 9), (10, 6))
    ],
    mistakes=[
        (
            "a replaced token draws its own code back once in K, and is right then: K - 1 codes are wrong",
            lambda length, t, schedule: length * schedule.num_codes * schedule.beta_bar[t],
        ),
        (
            "beta_bar is the chance of each single code, and there are K - 1 wrong ones",
            lambda length, t, schedule: length * schedule.beta_bar[t],
        ),
        (
            "that counts masked tokens too: they are not visible",
            lambda length, t, schedule: length * (1 - schedule.alpha_bar[t]),
        ),
        ("that is the number of masked tokens", lambda length, t, schedule: length * schedule.gamma_bar[t]),
        (
            "that is what one step, t - 1 to t, replaces: the bar means from clean data",
            lambda length, t, schedule: length * (schedule.num_codes - 1) * schedule.beta[t],
        ),
        (
            "the betas of the steps do not add: a token can be replaced twice, or be masked later",
            lambda length, t, schedule: length * (schedule.num_codes - 1) * schedule.beta[1 : t + 1].sum(),
        ),
        (
            "K is schedule.num_codes: your answer takes the number of codes from the notebook",
            lambda length, t, schedule: length * 1023 * schedule.beta_bar[t],
        ),
        (
            "that is a share; the question asks for a number of tokens",
            lambda length, t, schedule: expected_wrong(1, t, schedule),
        ),
        (
            "that counts the visible tokens that are right",
            lambda length, t, schedule: length * (schedule.alpha_bar[t] + schedule.beta_bar[t]),
        ),
    ],
    praise="K - 1 codes are wrong, and each is as likely.",
    vary=at_other_speed,
)


def corrupted(
    x_0: Tensor, u: Tensor, u_code: Tensor, t: int, schedule: MaskReplaceSchedule, *, codes: int = 0
) -> Tensor:
    """x_t, where the replacement is drawn from `codes` more than K codes."""
    other = (u_code * (schedule.num_codes + codes)).long()
    return by_parts(x_0, u, schedule.alpha_bar[t], 1 - schedule.gamma_bar[t], other, schedule.mask_id)


def by_parts(x_0: Tensor, u: Tensor, kept: Tensor, visible: Tensor, other: Tensor, mask_id: int) -> Tensor:
    """x_0 where u < `kept`, else `other` where u < `visible`, else the mask."""
    return torch.where(u < kept, x_0, torch.where(u < visible, other, mask_id))


def masked_in_the_middle(x_0: Tensor, u: Tensor, u_code: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    other = (u_code * schedule.num_codes).long()
    kept, masked = schedule.alpha_bar[t], schedule.gamma_bar[t]
    return torch.where(u < kept, x_0, torch.where(u < kept + masked, schedule.mask_id, other))


def masked_below_gamma(x_0: Tensor, u: Tensor, u_code: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    other = (u_code * schedule.num_codes).long()
    lost = torch.where(u < schedule.gamma_bar[t], schedule.mask_id, other)
    return torch.where(u < schedule.alpha_bar[t], x_0, lost)


def replaced_by_one_code(x_0: Tensor, u: Tensor, u_code: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    kept, other = schedule.alpha_bar[t], (u_code * schedule.num_codes).long()
    return by_parts(x_0, u, kept, kept + schedule.beta_bar[t], other, schedule.mask_id)


def one_step(x_0: Tensor, u: Tensor, u_code: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    other = (u_code * schedule.num_codes).long()
    return by_parts(x_0, u, schedule.alpha[t], 1 - schedule.gamma[t], other, schedule.mask_id)


def never_itself(x_0: Tensor, u: Tensor, u_code: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    other = (u_code * (schedule.num_codes - 1)).long()
    other = other + (other >= x_0)
    return by_parts(x_0, u, schedule.alpha_bar[t], 1 - schedule.gamma_bar[t], other, schedule.mask_id)


def always_masked(x_0: Tensor, u: Tensor, u_code: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return torch.where(u < schedule.alpha_bar[t], x_0, schedule.mask_id)


def last_code_as_mask(x_0: Tensor, u: Tensor, u_code: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    other = (u_code * schedule.num_codes).long()
    return by_parts(x_0, u, schedule.alpha_bar[t], 1 - schedule.gamma_bar[t], other, schedule.mask_id - 1)


def corrupt_cases() -> list[tuple[Tensor, Tensor, Tensor, int, MaskReplaceSchedule]]:
    generator, cases = torch.Generator().manual_seed(0), []
    for K, T, t in ((4, 10, 3), (6, 8, 5), (3, 10, 8)):
        u, u_code = torch.rand(2, 6 * K, dtype=torch.float64, generator=generator)
        cases.append((torch.arange(K).repeat(6), u, u_code, t, small_schedule(K, T)))
    return cases


def notebook_codes(x_0: Tensor, u: Tensor, u_code: Tensor, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return corrupted(x_0, u, u_code, t, schedule, codes=1024 - schedule.num_codes)


LAST = "the mask is in the last gamma_bar of the interval, from 1 - gamma_bar on"


def other_numbers(case: Case, generator: Generator) -> Case:
    x_0, u, u_code, *rest = at_other_speed(case, generator)
    return x_0, redrawn(u, generator), redrawn(u_code, generator), *rest


corrupt = Check(
    name="corrupt",
    question="x_t `[L]` from two uniform numbers per token, u for what happens to it and u_code for its new code",
    solution=corrupted,
    cases=corrupt_cases(),
    mistakes=[
        (
            LAST + "; the distribution is right, but not the order that is asked for",
            masked_in_the_middle,
        ),
        (LAST + ", not in the first", masked_below_gamma),
        ("K * beta_bar is the chance of being replaced; beta_bar is that of each single code", replaced_by_one_code),
        ("those are the shares of one step, t - 1 to t: the bar means from clean data", one_step),
        (
            "the replacement is one of the K codes: with K + 1 the mask is among them",
            lambda *case: corrupted(*case, codes=1),
        ),
        ("the replacement is one of all K codes, x_0 itself among them", never_itself),
        ("K is schedule.num_codes: your answer takes the number of codes from the notebook", notebook_codes),
        (
            "u says what happens to the token and u_code which code it gets, not the other way round",
            lambda x_0, u, u_code, t, schedule: corrupted(x_0, u_code, u, t, schedule),
        ),
        ("with K - 1 the last code is never drawn", lambda *case: corrupted(*case, codes=-1)),
        ("the replaced tokens are missing: what is not kept is masked or replaced", always_masked),
        (
            "what happens to a token and its new code need a number each: the code is floor(K u_code)",
            lambda x_0, u, u_code, t, schedule: corrupted(x_0, u, u, t, schedule),
        ),
        ("the mask is mask_id itself, not mask_id - 1, which is the last code", last_code_as_mask),
    ],
    praise="one number for what happens to the token, one for its code.",
    vary=other_numbers,
)


def joint(x_0: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    """The probability of each code and of being visible, `[K]`."""
    found = schedule.beta_bar[t].repeat(schedule.num_codes)
    found[x_0] += schedule.alpha_bar[t]
    return found


def given_visible(x_0: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return joint(x_0, t, schedule) / (1 - schedule.gamma_bar[t])


def exactly_kept(x_0: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    found = joint(x_0, t, schedule)
    found[x_0] -= schedule.beta_bar[t]
    return found / (1 - schedule.gamma_bar[t])


def all_replaced(x_0: int, t: int, schedule: MaskReplaceSchedule) -> Tensor:
    found = schedule.num_codes * schedule.beta_bar[t].repeat(schedule.num_codes)
    found[x_0] += schedule.alpha_bar[t]
    return found / (1 - schedule.gamma_bar[t])


def divided_by(chance: Function) -> Function:
    return lambda x_0, t, schedule: joint(x_0, t, schedule) / chance(schedule, t)


BACK = "a replaced token can draw x_0 back: the entry at x_0 is alpha_bar + beta_bar, over the chance of visible"
EACH = "beta_bar is the chance of each single code; K * beta_bar is that of all of them"

visible_distribution = Check(
    name="visible_distribution",
    question="the probabilities of the K codes given that the token is visible, `[K]`",
    solution=given_visible,
    cases=[(1, 3, small_schedule()), (5, 6, small_schedule(6)), (0, 7, small_schedule(3, 8))],
    mistakes=[
        ("divide by the probability of the condition: it is visible, 1 - gamma_bar", joint),
        (BACK, exactly_kept),
        (BACK, then(exactly_kept, normalised)),
        (EACH, all_replaced),
        (EACH, then(all_replaced, normalised)),
        ("1 - gamma is what one step, t - 1 to t, leaves visible", divided_by(lambda one, t: 1 - one.gamma[t])),
        ("visible is kept or replaced: 1 - gamma_bar, not alpha_bar", divided_by(lambda one, t: one.alpha_bar[t])),
        (
            "that divides by the chance of the mask: visible is 1 - gamma_bar",
            divided_by(lambda schedule, t: schedule.gamma_bar[t]),
        ),
    ],
    praise="the probabilities of the codes, over the probability of seeing one.",
    vary=at_other_speed,
)
