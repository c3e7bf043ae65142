"""Whether the parts of a model go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vqlearn.checkpoints.layout import LEARNED

Pair = tuple[str, Any, Any]  # what it is, and its two values


def misfit(parts: dict[str, Any]) -> str:
    """What differs between parts that are of different models, as a sentence; "" where they go together.

    A codec may have more codes than the transformer draws, and a text encoder more words than the tokenizer names.
    """
    for what, first, second in _pairs(parts):
        if first != second:
            return f"the {what} differ: {first} and {second}"
    return ""


def _pairs(parts: dict[str, Any]) -> Iterator[Pair]:
    network, scheduler, codec = parts["transformer"].config, parts["scheduler"].config, parts["vqvae"]
    codes = network["num_vector_embeds"] - 1
    yield "codes of the scheduler and of the transformer", scheduler["num_vec_classes"] - 1, codes
    yield "steps of scheduler and transformer", scheduler["num_train_timesteps"], network["num_embeds_ada_norm"]
    if codec is not None:
        yield "codes of the transformer and of the codec", codes, min(codes, codec.num_tokens)
    if network["cross_attention_dim"] is not None:
        yield from _text_pairs(parts, network["cross_attention_dim"])


def _text_pairs(parts: dict[str, Any], width: int) -> Iterator[Pair]:
    for name in ("text_encoder", "tokenizer"):
        if parts[name] is None:
            return  # a caller gives embeddings
    text, tokenizer = parts["text_encoder"].config, parts["tokenizer"]
    length = tokenizer.model_max_length
    yield "text widths of encoder and transformer", text.hidden_size, width
    yield "tokens of the tokenizer and of the text encoder", len(tokenizer), min(len(tokenizer), text.vocab_size)
    yield "lengths of tokenizer and text encoder", length, min(length, text.max_position_embeddings)
    if parts[LEARNED] is not None and parts[LEARNED].learnable:
        yield "shapes of the null text and of a prompt", list(parts[LEARNED].embeddings.shape), [length, width]
