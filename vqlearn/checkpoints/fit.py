"""Whether the parts of a model are what they should be, and go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vqlearn.arguments import shown
from vqlearn.checkpoints.layout import LAYOUTS, LEARNED
from vqlearn.networks.autoregressive import AutoregressiveTransformer
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.scheduler import VQDiffusionScheduler

CLASSES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        VQModel, Transformer2DModel, AutoregressiveTransformer, VQDiffusionScheduler,
        LearnedClassifierFreeSamplingEmbeddings,
    )
}  # fmt: skip
FROM_ELSEWHERE = {"text_encoder": ("config",), "tokenizer": ("model_max_length", "backend_tokenizer")}
ALWAYS = ("transformer", "scheduler")


def stranger(parts: Mapping[str, Any], pipeline: str) -> str:
    """Which of some parts is of another kind than in such a pipeline, as a sentence; "" if none is.

    What torch.compile made of a part is that part.
    """
    for name, part in parts.items():
        if part is None and name not in ALWAYS:
            continue
        named = LAYOUTS[pipeline][name].kind
        kind = CLASSES.get(named)
        known = all(hasattr(part, need) for need in FROM_ELSEWHERE.get(name, ()))
        if not known or (kind is not None and not isinstance(getattr(part, "_orig_mod", part), kind)):
            return f"{name} must be a {named}, got {shown(part)}"
    return ""


def misfit(parts: Mapping[str, Any], pipeline: str) -> str:
    """What differs between parts that are of different models, as a sentence; "" where they make such a pipeline.

    A codec may have more codes than the transformer draws, and a text encoder more words than the tokenizer names.
    """
    if wrong := stranger(parts, pipeline):
        return wrong
    for what, first, second in _pairs(parts):
        if first != second:
            return f"the {what} differ: {first} and {second}"
    return ""


def _pairs(parts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What has to be equal: what it is, and its two values."""
    network, codec, codes = parts["transformer"].config, parts["vqvae"], parts["transformer"].num_codes
    if "scheduler" in parts:
        scheduler = parts["scheduler"].config
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
