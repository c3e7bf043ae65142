"""The networks that learn together: the transformer and, for text, its encoder, its null text and a task for them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqlearn.arguments import shown, whole
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings, encode_ids, tokenize
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.training.batches import Read, RowError
from vqlearn.training.objectives import Conditions


class Task(nn.Module):
    """A second task that the text encoder learns, with parameters of its own; it is not shipped.

    Its loss is added to the objective `weight` times, and written to the log under `name`.
    """

    name: str
    weight: float

    def forward(self, hidden: Tensor, conditions: Conditions) -> Tensor:
        """The loss, a scalar, from the text's hidden states `[B, S, D]`."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")


class Conditioned(nn.Module):
    """Transformer, text encoder and null text (None for a network that reads no text), and a task (None for none)."""

    null_ids: Tensor | None

    def __init__(
        self,
        transformer: Transformer2DModel,
        text_encoder: nn.Module | None = None,
        null_text: LearnedClassifierFreeSamplingEmbeddings | None = None,
        task: Task | None = None,
        null_ids: Tensor | None = None,
    ):
        super().__init__()
        self.transformer, self.text_encoder, self.null_text, self.task = transformer, text_encoder, null_text, task
        self.register_buffer("null_ids", null_ids, persistent=False)  # of the empty prompt, where no null text learns

    def forward(self, tokens: Tensor, conditions: Conditions, *more: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits `[B, L, K]` of the transformer, which is given `more` besides, and the task's loss or None."""
        values, is_null = conditions.values, conditions.is_null
        if self.text_encoder is None or values is None:
            if values is not None:  # classes, of which the last is the null class
                values = torch.where(is_null, self.transformer.config["num_classes"], values)
            return self.transformer(tokens, values, *more), None
        if self.null_ids is not None:
            values = torch.where(is_null[:, None], self.null_ids, values)
        with sdpa_kernel([SDPBackend.MATH] if tokens.device.type == "cpu" else list(SDPBackend.__members__.values())):
            text = hidden = encode_ids(self.text_encoder, values)
        if self.null_ids is None and self.null_text is not None:
            text = torch.where(is_null[:, None, None], self.null_text.embeddings, hidden)
        logits = self.transformer(tokens, text, *more)
        return logits, None if self.task is None else self.task(hidden, conditions)


def conditioned(pipe: VQDiffusionPipeline, task: Task | None = None) -> Conditioned:
    """The networks of a pipeline that learn together."""
    null_text = pipe.learned_classifier_free_sampling_embeddings
    if pipe.transformer.reads != "text" or null_text is None:
        return Conditioned(pipe.transformer)
    null_ids = None if null_text.learnable else tokenize(pipe.tokenizer, [""])[0]
    return Conditioned(pipe.transformer, pipe.text_encoder, null_text, task, null_ids)


def condition_reader(pipe: VQDiffusionPipeline) -> Read:
    """What makes of a list of captions or class numbers what the network of a pipeline is given.

    A network that is conditioned on nothing is given nothing. What is made raises RowError for a condition of another
    kind.
    """
    reads: str = pipe.transformer.reads
    if reads == "text":
        return lambda captions: _token_ids(pipe.tokenizer, captions)
    if reads == "class":
        return lambda labels: _classes(labels, pipe.transformer.config["num_classes"])
    return lambda _: None


def _token_ids(tokenizer: Any, captions: Sequence[Any]) -> Tensor:
    for row, caption in enumerate(captions):
        if not isinstance(caption, str) or not caption.strip():
            raise RowError(row, f"must have a caption, which this network reads, got {shown(caption)}")
    ids, cut = tokenize(tokenizer, list(captions))
    for text in filter(None, cut):
        warnings.warn(f"a caption is longer than {ids.shape[1]} tokens; this part is not read: {text!r}", stacklevel=2)
    return ids


def _classes(labels: Sequence[Any], count: int) -> Tensor:
    found = []
    for row, label in enumerate(labels):
        try:
            found.append(whole("its class", label, 0, count - 1))
        except ValueError as error:
            raise RowError(row, f"does not fit this network: {error}") from None
    return torch.tensor(found)
