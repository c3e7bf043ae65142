"""The text encoder's own task in the toy world: to have the relation of an object at its noun."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqlearn.data import layouts, scenes
from vqlearn.training import processes
from vqlearn.training.conditioned import Task
from vqlearn.training.objectives import Conditions
from vqlearn.training.updates import step_generator


class RelationTask(Task):
    """Asks the text encoder, at the word that ends a noun, which relation the first object has to that one.

    Where an object belongs depends on position, relation and object together, and any two of the three say nothing.
    Cross-entropy on the tokens alone left the order of two objects a coin flip for 7000 steps; it learned the
    order once the text encoder had the relation at the noun. Only the caption is needed, no picture.
    """

    name = "relation"
    shapes: Tensor

    def __init__(self, texts: layouts.TextTable, width: int, *, weight: float = 1.0, seed: int = 0):
        super().__init__()
        self.weight = weight
        ids = texts.words[[layouts.WORDS.index(shape) for shape in scenes.SHAPES]]
        self.register_buffer("shapes", ids, persistent=False)
        self.head = nn.Linear(width, len(scenes.RELATIONS))
        with torch.no_grad():
            start = torch.randn(self.head.weight.shape, generator=step_generator(seed, 0, "cpu"))
            self.head.weight.copy_(start / math.sqrt(width))
            self.head.bias.zero_()

    def forward(self, hidden: Tensor, conditions: Conditions) -> Tensor:
        """Cross-entropy in nats of the relations that captions state, from hidden states `[B, S, D]`; 0 if none."""
        ids, claims = conditions.values, conditions.notes
        assert ids is not None
        ends_noun = torch.isin(ids, self.shapes)  # [B, S]
        number = ends_noun.cumsum(1)[:, None]  # [B, 1, S], of the noun that has ended
        which = torch.arange(1, layouts.MOST, device=ids.device)
        at = (ends_noun[:, None] & (number == which[:, None] + 1)).long().argmax(-1)  # [B, 2]
        rows, columns = (claims.relation[:, 1:] > 0).nonzero(as_tuple=True)
        found = hidden[rows, at[rows, columns]] * math.sqrt(hidden.shape[-1])  # unit variance
        targets = claims.relation[rows, columns + 1] - 1
        asked = processes.count() * processes.means([len(rows)])[0]  # in all rows of the batch
        return F.cross_entropy(self.head(found).float(), targets, reduction="sum") * processes.count() / max(1, asked)
