"""Checks of notebook 10, the full model."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vqlearn.course.checks.cases import whole
from vqlearn.course.checks.check import Check
from vqlearn.course.outcomes import Case


def changes(trajectory: Tensor, mask_id: int) -> Tensor:
    before, after = trajectory[:-1], trajectory[1:]
    return ((before != after) & (before != mask_id) & (after != mask_id)).sum()


def uncovered_too(trajectory: Tensor, mask_id: int) -> Tensor:
    return ((trajectory[:-1] != trajectory[1:]) & (trajectory[1:] != mask_id)).sum()


def stayed(trajectory: Tensor, mask_id: int) -> Tensor:
    return ((trajectory[:-1] == trajectory[1:]) & (trajectory[1:] != mask_id)).sum()


def with_masks_between(trajectory: Tensor, mask_id: int) -> Tensor:
    """Also a token that is masked again and comes back as another code."""
    count, last = torch.zeros((), dtype=torch.int64), trajectory[0].clone()
    for now in trajectory[1:]:
        visible = now != mask_id
        count += (visible & (last != mask_id) & (last != now)).sum()
        last = torch.where(visible, now, last)
    return count


def other_trajectory(case: Case, generator: Generator) -> Case:
    mask_id, shape = whole(generator, 2, 9), (whole(generator, 3, 6), whole(generator, 6, 12))
    return torch.randint(2 * mask_id, shape, generator=generator).clamp(max=mask_id), mask_id


visible_changes = Check(
    name="visible_changes",
    question="how often a visible token of the trajectory became another visible one",
    solution=changes,
    cases=[
        (torch.tensor([[4, 4, 4, 4, 2], [4, 1, 4, 3, 2], [0, 1, 4, 3, 1], [0, 2, 2, 3, 2]]), 4),
        (torch.tensor([[4, 0, 1, 4, 4], [3, 0, 2, 4, 4], [3, 1, 2, 3, 0]]), 4),
        (torch.tensor([[6, 2, 5], [0, 6, 5], [0, 1, 6], [3, 1, 4]]), 6),
    ],
    mistakes=[
        ("that counts uncovered tokens too: a masked one has not changed its code", uncovered_too),
        (
            "compare each grid with the next one, not the first with the last",
            lambda trajectory, mask_id: changes(trajectory[[0, -1]], mask_id),
        ),
        (
            "that is a share; the question asks for a number",
            lambda trajectory, mask_id: changes(trajectory, mask_id) / trajectory.shape[1],
        ),
        (
            "that is an average per step; the question asks for the sum",
            lambda trajectory, mask_id: changes(trajectory, mask_id) / (len(trajectory) - 1),
        ),
        ("that counts the tokens that stayed", stayed),
        (
            "a token that is masked again and comes back has been drawn anew, not changed while visible",
            with_masks_between,
        ),
        (
            "the mask is mask_id itself, not mask_id - 1, which is the last code",
            lambda trajectory, mask_id: changes(trajectory, mask_id - 1),
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


def operations(
    width: int,
    layers: int,
    positions: int,
    text: int,
    codes: int,
    *,
    each: float = 2.0,
    attention: float = 2.0,
    cross: float = 2.0,
    feed_forward: float = 8.0,
    output: float = 1.0,
    times: float | None = None,
) -> float:
    """Floating-point operations of one evaluation; the options are mistakes: other factors, none per token."""
    meets = attention * (positions + text) * width
    block = (4 + cross + feed_forward) * width**2 + meets
    return each * (positions if times is None else times) * (layers * block + output * width * codes)


def without_text(width: int, layers: int, positions: int, text: int, codes: int) -> float:
    return operations(width, layers, positions, 0, codes)


def other_sizes(case: Case, generator: Generator) -> Case:
    width, layers, positions = 8 * whole(generator, 4, 200), whole(generator, 2, 40), whole(generator, 4, 40) ** 2
    return width, layers, positions, whole(generator, 8, 90), whole(generator, 100, 5000)


evaluation_work = Check(
    name="evaluation_work",
    question="the floating-point operations of one network evaluation for one picture",
    solution=operations,
    cases=[(1408, 36, 1024, 77, 4096), (128, 8, 64, 32, 1024), (512, 12, 256, 20, 900)],
    mistakes=[
        (
            "a multiplication and an addition are two operations: that counts multiplications alone",
            lambda *case: operations(*case, each=1.0),
        ),
        (
            "the feed-forward part is not gated: two products with 4 width^2 each, not three",
            lambda *case: operations(*case, feed_forward=12.0),
        ),
        (
            "attention itself costs too: every token meets every other one twice, and the text",
            lambda *case: operations(*case, attention=0.0),
        ),
        (
            "a token meets each other one twice: as query and key, and as weight and value",
            lambda *case: operations(*case, attention=1.0),
        ),
        (
            "the text's keys and values are computed once per prompt: cross-attention has two projections per token",
            lambda *case: operations(*case, cross=4.0),
        ),
        ("the output layer is missing: width times codes for each token", lambda *case: operations(*case, output=0.0)),
        ("that is per token: a picture has `positions` of them", lambda *case: operations(*case, times=1.0)),
        ("cross-attention meets the text, not only self-attention the tokens", without_text),
    ],
    praise="projections, attention, feed-forward and the output layer, for every token.",
    vary=other_sizes,
)
