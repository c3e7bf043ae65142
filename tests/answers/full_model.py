"""Answers to the exercises of notebook 10: the library's, and wrong ones with what names them."""

import functools
import itertools

import torch

import vqlearn
from vqlearn.networks import cost


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


def last_seen(grids, mask_id):
    """Counts code, mask, other code as a change."""
    columns = [[code for code in column if code != mask_id] for column in grids.T.tolist()]
    return sum(a != b for column in columns for a, b in itertools.pairwise(column))


@functools.cache
def work(width, layers, positions, text, codes):
    """By the library, from a network on the meta device; it leaves out that tokens meet the text."""
    with torch.device("meta"):
        network = vqlearn.Transformer2DModel(
            num_attention_heads=1, attention_head_dim=width, num_layers=layers, cross_attention_dim=text,
            num_vector_embeds=codes + 1, sample_size=round(positions**0.5),
        )  # fmt: skip
    return torch.tensor(cost.work(network) + 4.0 * layers * positions * text * width, dtype=torch.float64)


LIBRARY = {"visible_changes": changes, "fit_prompt": fitted, "evaluation_work": work}
WRONG = [
    ("visible_changes", uncovered_too, "has not changed its code"),
    ("visible_changes", lambda grids, mask: changes([grids[0], grids[-1]], mask), "with the next one"),
    ("visible_changes", lambda grids, mask: changes(grids, mask) / len(grids[0]), "that is a share"),
    ("visible_changes", lambda grids, mask: changes(grids, mask) / (len(grids) - 1), "average per step"),
    ("visible_changes", lambda grids, mask: changes(grids, mask - 1), "the last code"),
    ("visible_changes", last_seen, "masked again and comes back"),
    ("fit_prompt", lambda ids, n, pad: (ids + [pad] * n)[:n], "keep the last id"),
    ("fit_prompt", lambda ids, n, pad: fitted(ids[-n:], n, pad), "loses its start token"),
    ("fit_prompt", lambda ids, n, pad: [*(ids[:-1] + [pad] * n)[: n - 1], ids[-1]], "after the end token"),
    ("fit_prompt", lambda ids, n, pad: fitted(ids, n, ids[-1]), "not the end token"),
    (
        "fit_prompt",
        lambda ids, n, pad: fitted(ids, n, pad) if len(ids) >= n else [pad] * (n - len(ids)) + ids,
        "not before",
    ),
    ("evaluation_work", lambda *case: work(*case) / 2, "multiplications alone"),
    ("evaluation_work", lambda *case: work(*case) / case[2], "that is per token"),
    ("evaluation_work", lambda d, n, length, text, k: work(d, n, length, text, k) - 2 * length * d * k, "output layer"),
    ("evaluation_work", lambda d, n, length, text, k: work(d, n, length, 1, k) - 4 * n * length * d, "meets the text"),
]
