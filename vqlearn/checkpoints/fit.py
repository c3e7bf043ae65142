"""Whether the parts of a model are what they should be, and go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vqlearn.arguments import shown
from vqlearn.checkpoints.layout import LEARNED, PARTS
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.scheduler import VQDiffusionScheduler

OURS = {
    "vqvae": VQModel,
    "transformer": Transformer2DModel,
    "scheduler": VQDiffusionScheduler,
    LEARNED: LearnedClassifierFreeSamplingEmbeddings,
}
FROM_ELSEWHERE = {"text_encoder": ("config",), "tokenizer": ("model_max_length", "backend_tokenizer")}
ALWAYS = ("transformer", "scheduler")


def stranger(parts: Mapping[str, Any]) -> str:
    """Which of some parts is of another kind, as a sentence; "" if none is. What torch.compile made of one is that."""
    for name, part in parts.items():
        if part is None and name not in ALWAYS:
            continue
        kind = OURS.get(name)
        known = all(hasattr(part, need) for need in FROM_ELSEWHERE.get(name, ()))
        if not known or (kind is not None and not isinstance(getattr(part, "_orig_mod", part), kind)):
            return f"{name} must be a {PARTS[name].kind}, got {shown(part)}"
    return ""


def misfit(parts: Mapping[str, Any]) -> str:
    """What differs between parts that are of different models, as a sentence; "" where they go together.

    A codec may have more codes than the transformer draws, and a text encoder more words than the tokenizer names.
    """
    if wrong := stranger(parts):
        return wrong
    for what, first, second in _pairs(parts):
        if first != second:
            return f"the {what} differ: {first} and {second}"
    return ""


def _pairs(parts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What has to be equal: what it is, and its two values."""
    network, scheduler, codec = parts["transformer"].config, parts["scheduler"].config, parts["vqvae"]
    codes = network.num_vector_embeds - 1
    yield "codes of the scheduler and of the transformer", scheduler["num_vec_classes"] - 1, codes
    yield "steps of scheduler and transformer", scheduler["num_train_timesteps"], network.num_embeds_ada_norm
    if codec is not None:
        yield "codes of the transformer and of the codec", codes, min(codes, codec.num_tokens)
    encoder, tokenizer, null_text = parts["text_encoder"], parts["tokenizer"], parts[LEARNED]
    if network.cross_attention_dim is None or encoder is None or tokenizer is None:
        return  # without them a caller gives embeddings
    length, width, words = tokenizer.model_max_length, network.cross_attention_dim, len(tokenizer)
    yield "text widths of encoder and transformer", encoder.config.hidden_size, width
    yield "tokens of the tokenizer and of the text encoder", words, min(words, encoder.config.vocab_size)
    yield "lengths of tokenizer and text encoder", length, min(length, encoder.config.max_position_embeddings)
    if null_text is not None and null_text.learnable:
        yield "shapes of the null text and of a prompt", list(null_text.embeddings.shape), [length, width]
