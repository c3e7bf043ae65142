"""Checks of notebook 00, start here."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import at_other_speed
from vqlearn.course.checks.check import Check, normalised, small_schedule, then
from vqlearn.course.outcomes import Case, Function
from vqlearn.schedule import MaskReplaceSchedule


def visible(t: int, schedule: MaskReplaceSchedule) -> Tensor:
    return 1 - schedule.gamma_bar[t]


visible_share = Check(
    name="visible_share",
    question="the share of the tokens of x_t that are not masked",
    solution=visible,
    cases=[
        (t, schedule)
        for schedule in (small_schedule(6), MaskReplaceSchedule.paper(4, 10), small_schedule(3, 8))
        for t in (0, 2, 6, schedule.num_steps)
    ],
    mistakes=[
        (
            "that is the share of kept tokens; a replaced token is visible too",
            lambda t, schedule: schedule.alpha_bar[t],
        ),
        (
            "beta_bar is the chance of each single code; K * beta_bar is the share of all replaced tokens",
            lambda t, schedule: schedule.alpha_bar[t] + schedule.beta_bar[t],
        ),
        (
            "K is schedule.num_codes: your answer takes the number of codes from the notebook",
            lambda t, schedule: schedule.alpha_bar[t] + 1024 * schedule.beta_bar[t],
        ),
        (
            "those are the replaced tokens alone; a kept token is visible too",
            lambda t, schedule: schedule.num_codes * schedule.beta_bar[t],
        ),
        (
            "the gammas of the steps do not add: a later step masks only what is not masked yet",
            lambda t, schedule: 1 - schedule.gamma[1 : t + 1].sum(),
        ),
        ("that is the share of masked tokens: take it from 1", then(visible, lambda share: 1 - share)),
        (
            "that is what one step, t - 1 to t, leaves: the bar means from clean data",
            lambda t, schedule: 1 - schedule.gamma[t],
        ),
        (
            "that is what is not kept; of these tokens only the masked ones are hidden",
            lambda t, schedule: 1 - schedule.alpha_bar[t],
        ),
    ],
    praise="visible is kept or replaced, everything but masked.",
    vary=at_other_speed,
)


def counts(x_0: Tensor, x_t: Tensor, mask_id: int) -> Tensor:
    masked = x_t == mask_id
    same = x_t == x_0
    return torch.stack([same.sum(), (~same & ~masked).sum(), masked.sum()]).double()


def masks_as_replaced(x_0: Tensor, x_t: Tensor, mask_id: int) -> Tensor:
    return torch.stack([(x_t == x_0).sum(), (x_t != x_0).sum(), (x_t == mask_id).sum()])


def visible_as_kept(x_0: Tensor, x_t: Tensor, mask_id: int) -> Tensor:
    kept, replaced, masked = counts(x_0, x_t, mask_id)
    return torch.stack([kept + replaced, replaced, masked])


def fixed_mask(mask_id: int) -> Function:
    return lambda x_0, x_t, _: counts(x_0, x_t, mask_id)


X_0 = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
OWN_MASK = "the mask is the argument mask_id: your answer takes the number of the mask from the notebook"


def other_tokens(case: Case, generator: Generator) -> Case:
    x_0, x_t, mask_id = case
    same = torch.rand(len(x_0), generator=generator) < 0.4
    return x_0, torch.where(same, x_0, torch.randint(mask_id + 1, x_t.shape, generator=generator)), mask_id


token_counts = Check(
    name="token_counts",
    question="how many tokens are kept, replaced and masked, three numbers",
    solution=counts,
    cases=[
        (X_0, torch.tensor([0, 1, 4, 3, 4, 4, 2, 0]), 4),
        (X_0[:5], torch.tensor([7, 3, 7, 4, 6]), 7),
        (X_0, X_0, 5),
        (X_0.repeat(2), torch.tensor([11, 3, 4, 11, 11, 2, 10, 11, 0, 1, 2, 5, 3, 2, 11, 11]), 11),
    ],
    mistakes=[
        ("a mask differs from x_0 too: count as replaced only what is visible", masks_as_replaced),
        (OWN_MASK, fixed_mask(1024)),
        (OWN_MASK, fixed_mask(4)),
        ("those are shares; the question asks for numbers of tokens", then(counts, normalised)),
        ("the order is kept, replaced, masked", then(counts, lambda found: found[[0, 2, 1]])),
        ("the order is kept, replaced, masked", then(counts, lambda found: found.flip(0))),
        ("that counts all visible tokens as kept; a replaced one is visible and wrong", visible_as_kept),
        (
            "the mask is mask_id itself, not mask_id - 1, which is the last code",
            lambda x_0, x_t, mask_id: counts(x_0, x_t, mask_id - 1),
        ),
    ],
    praise="every token is kept, replaced or masked, and just one of them.",
    vary=other_tokens,
)
