"""Checks of notebook 10, the full model."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import whole
from vqlearn.course.checks.check import Check
from vqlearn.course.outcomes import Case


def changes(walk: Tensor, mask_id: int) -> Tensor:
    before, after = walk[:-1], walk[1:]
    return ((before != after) & (before != mask_id) & (after != mask_id)).sum()


def uncovered_too(walk: Tensor, mask_id: int) -> Tensor:
    return ((walk[:-1] != walk[1:]) & (walk[1:] != mask_id)).sum()


def stayed(walk: Tensor, mask_id: int) -> Tensor:
    return ((walk[:-1] == walk[1:]) & (walk[1:] != mask_id)).sum()


def other_trajectory(case: Case, generator: Generator) -> Case:
    walk, mask_id = case
    return torch.randint(mask_id + 1, walk.shape, generator=generator), mask_id


visible_changes = Check(
    name="visible_changes",
    question="how often a visible token of the trajectory became another visible one",
    solution=changes,
    cases=[
        (torch.tensor([[4, 4, 4, 4, 2], [4, 1, 4, 3, 2], [0, 1, 4, 3, 1], [0, 2, 2, 3, 2]]), 4),
        (torch.tensor([[4, 0, 1, 4, 4], [3, 0, 2, 4, 4], [3, 1, 2, 3, 0]]), 4),
    ],
    mistakes=[
        ("that counts uncovered tokens too: a masked one has not changed its code", uncovered_too),
        (
            "compare each grid with the next one, not the first with the last",
            lambda walk, mask_id: changes(walk[[0, -1]], mask_id),
        ),
        (
            "that is a share; the question asks for a number",
            lambda walk, mask_id: changes(walk, mask_id) / walk.shape[1],
        ),
        (
            "that is an average per step; the question asks for the sum",
            lambda walk, mask_id: changes(walk, mask_id) / (len(walk) - 1),
        ),
        ("that counts the tokens that stayed", stayed),
        (
            "the mask is mask_id itself, not mask_id - 1, which is the last code",
            lambda walk, mask_id: changes(walk, mask_id - 1),
        ),
    ],
    praise="visible before, visible after, and another code.",
    vary=other_trajectory,
)


def fitted(ids: list[int], length: int, pad: int) -> list[int]:
    short = ids[: length - 1] + ids[-1:] if len(ids) > length else ids
    return short + [pad] * (length - len(short))


def end_last(ids: list[int], length: int, pad: int) -> list[int]:
    return (ids[:-1] + [pad] * length)[: length - 1] + ids[-1:]


def padded_in_front(ids: list[int], length: int, pad: int) -> list[int]:
    return fitted(ids, length, pad) if len(ids) >= length else [pad] * (length - len(ids)) + ids


def other_prompt(case: Case, generator: Generator) -> Case:
    ids = [whole(generator, 10, 99) for _ in range(whole(generator, 4, 9))]
    return ids, whole(generator, 3, 12), whole(generator, 0, 9)


fit_prompt = Check(
    name="fit_prompt",
    question="exactly `length` ids, padded or cut, the end token kept",
    solution=fitted,
    cases=[([90, 1, 2, 3, 4, 91], 4, 0), ([90, 1, 2, 3, 4, 91], 6, 0), ([90, 1, 2, 3, 4, 91], 9, 0)],
    mistakes=[
        (
            "the end token is cut off with the rest: keep the last id",
            lambda ids, length, pad: (ids + [pad] * length)[:length],
        ),
        (
            "that keeps the end of the prompt and loses its start token",
            lambda ids, length, pad: (ids[-length:] + [pad] * length)[:length],
        ),
        ("the padding comes after the end token, not before it", end_last),
        ("the padding is `pad`, not the end token", lambda ids, length, pad: fitted(ids, length, ids[-1])),
        ("the padding comes after the prompt, not before it", padded_in_front),
    ],
    praise="a prompt that is cut keeps its end token.",
    vary=other_prompt,
)
