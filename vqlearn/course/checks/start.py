"""Checks of notebook 00, start here."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vqlearn.course.checks.judge import judge, share, small_schedule, then
from vqlearn.schedule import MaskReplaceSchedule


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
        ("that is the share of masked tokens: take it from 1", then(right, lambda visible: 1 - visible)),
        ("that is what one step, t - 1 to t, leaves: the bar means from clean data", lambda t, one: 1 - one.gamma[t]),
        (
            "that is what is not kept; of these tokens only the masked ones are hidden",
            lambda t, one: 1 - one.alpha_bar[t],
        ),
    ]
    cases = [(t, schedule) for schedule in (small_schedule(), MaskReplaceSchedule.paper(4, 10)) for t in (0, 2, 6, 10)]
    judge(attempt, cases, right, mistakes, "Right: visible is kept or replaced, everything but masked.")


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
        ("those are shares; the question asks for numbers of tokens", then(right, share)),
        ("the order is kept, replaced, masked", then(right, lambda counts: counts[[0, 2, 1]])),
        ("the order is kept, replaced, masked", then(right, lambda counts: counts.flip(0))),
        ("that counts all visible tokens as kept; a replaced one is visible and wrong", visible_as_kept),
        ("the mask is mask_id itself, not mask_id - 1, which is the last code", last_code),
    ]
    x_0 = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    cases = [(x_0, torch.tensor(x_t), 4) for x_t in ([0, 1, 4, 3, 4, 4, 2, 0], [4, 3, 4, 4, 4, 2, 4, 4])]
    judge(attempt, [*cases, (x_0, x_0, 4)], right, mistakes, "Right: three fates, and every token has one of them.")
