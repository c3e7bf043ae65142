"""Answers to the exercises of notebook 10: the library's, and wrong ones with what names them."""

import itertools

import torch


def changes(grids, mask_id):
    pairs = itertools.pairwise(grid.tolist() for grid in grids)
    return torch.tensor(
        sum(a != b and mask_id not in (a, b) for one, two in pairs for a, b in zip(one, two, strict=True))
    )


def fitted(ids, length, pad):
    """As `vqlearn.networks.text.tokenize` does it."""
    kept = [*ids[: length - 1], ids[-1]] if len(ids) > length else ids
    return torch.tensor([*kept, *[pad] * (length - len(kept))])


def uncovered_too(grids, mask_id):
    return sum(((a != b) & (b != mask_id)).sum() for a, b in itertools.pairwise(grids))


LIBRARY = {"visible_changes": changes, "fit_prompt": fitted}
WRONG = [
    ("visible_changes", uncovered_too, "has not changed its code"),
    ("visible_changes", lambda grids, mask: changes([grids[0], grids[-1]], mask), "with the next one"),
    ("visible_changes", lambda grids, mask: changes(grids, mask) / 5, "that is a share"),
    ("visible_changes", lambda grids, mask: changes(grids, mask) / (len(grids) - 1), "average per step"),
    ("visible_changes", lambda grids, mask: changes(grids, mask - 1), "the last code"),
    ("fit_prompt", lambda ids, n, pad: (ids + [pad] * n)[:n], "keep the last id"),
    ("fit_prompt", lambda ids, n, pad: fitted(ids[-n:], n, pad), "loses its start token"),
    ("fit_prompt", lambda ids, n, pad: [*(ids[:-1] + [pad] * n)[: n - 1], ids[-1]], "after the end token"),
    ("fit_prompt", lambda ids, n, pad: fitted(ids, n, ids[-1]), "not the end token"),
    (
        "fit_prompt",
        lambda ids, n, pad: fitted(ids, n, pad) if len(ids) >= n else [pad] * (n - len(ids)) + ids,
        "not before",
    ),
]
