"""Checks of notebook 10, the full model."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vqlearn.course.checks.judge import judge


def visible_changes(attempt: Callable) -> None:
    """Check `attempt(walk, mask_id)`: how often a visible token of the walk became another visible one."""

    def right(walk, mask_id, *, uncovered=False, ends=False, mask=None):
        mask = mask_id if mask is None else mask
        steps = torch.stack([walk[0], walk[-1]] if ends else list(walk))
        before, after = steps[:-1], steps[1:]
        changed = (before != after) & (after != mask)
        return (changed if uncovered else changed & (before != mask)).sum()

    mistakes: list[tuple[str, Callable]] = [
        (
            "that counts uncovered tokens too: a masked one has not changed its mind",
            lambda w, m: right(w, m, uncovered=True),
        ),
        ("compare each grid with the next one, not the first with the last", lambda w, m: right(w, m, ends=True)),
        ("that is a share; the question asks for a number", lambda w, m: right(w, m) / w.shape[1]),
        ("that is an average per step; the question asks for the sum", lambda w, m: right(w, m) / (len(w) - 1)),
        ("that counts the tokens that stayed", lambda w, m: _stayed(w, m)),
        ("the mask is mask_id itself, not mask_id - 1, which is the last code", lambda w, m: right(w, m, mask=m - 1)),
    ]
    walks = (
        [[4, 4, 4, 4, 2], [4, 1, 4, 3, 2], [0, 1, 4, 3, 1], [0, 2, 2, 3, 2]],
        [[4, 0, 1, 4, 4], [3, 0, 2, 4, 4], [3, 1, 2, 3, 0]],
    )
    cases = [(torch.tensor(walk), 4) for walk in walks]
    judge(attempt, cases, right, mistakes, "Right: visible before, visible after, and another code.")


def _stayed(walk, mask_id):
    steps = torch.stack(list(walk))
    return ((steps[:-1] == steps[1:]) & (steps[1:] != mask_id)).sum()


def fit_prompt(attempt: Callable) -> None:
    """Check `attempt(ids, length, pad)`: exactly `length` ids, padded or cut, the end token kept."""

    def right(ids, length, pad):
        short = ids[: length - 1] + ids[-1:] if len(ids) > length else ids
        return torch.tensor(short + [pad] * (length - len(short)))

    def end_lost(ids, length, pad):
        return torch.tensor((ids + [pad] * length)[:length])

    def tail(ids, length, pad):
        return torch.tensor((ids[-length:] + [pad] * length)[:length])

    def end_last(ids, length, pad):
        return torch.tensor((ids[:-1] + [pad] * length)[: length - 1] + ids[-1:])

    def padded_with_end(ids, length, pad):
        return right(ids, length, ids[-1])

    def padded_in_front(ids, length, pad):
        return right(ids, length, pad) if len(ids) >= length else torch.tensor([pad] * (length - len(ids)) + ids)

    mistakes: list[tuple[str, Callable]] = [
        ("the end token is cut off with the rest: keep the last id", end_lost),
        ("that keeps the end of the prompt and loses its start token", tail),
        ("the padding comes after the end token, not before it", end_last),
        ("the padding is `pad`, not the end token", padded_with_end),
        ("the padding comes after the prompt, not before it", padded_in_front),
    ]
    cases = [([90, 1, 2, 3, 4, 91], length, 0) for length in (4, 6, 9)]
    praise = "Right: whoever cuts a prompt keeps its end token."
    judge(attempt, cases, right, mistakes, praise)
