"""What a model folder is: `model_index.json`, and a folder for each part with its configuration and its weights.

This is the layout of diffusers. Everything that loads, saves or fetches a model asks here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

INDEX = "model_index.json"
CHECKSUMS = "checksums.json"
LEARNED = "learned_classifier_free_sampling_embeddings"
ENDINGS = ("safetensors", "bin")  # of weights, the better first


class Part(NamedTuple):
    """A part of a model: who names it how in the index, which files it has, and what they are called.

    Of `configs` the first `needed` must be there. `stems` are the names that weights have had, without ending.
    """

    library: str
    kind: str
    configs: tuple[str, ...] = ("config.json",)
    needed: int = 1
    stems: tuple[str, ...] = ()


class Files(NamedTuple):
    """Which files of weights are read: those of a variant ("fp16") where a part has them, and of which form."""

    variant: str | None = None
    safetensors: bool | None = None  # True: no others, False: the others

    @property
    def infixes(self) -> tuple[str, ...]:
        """What stands between a file's name and its ending, the better first."""
        return (f".{self.variant}", "") if self.variant else ("",)

    @property
    def endings(self) -> tuple[str, ...]:
        return {None: ENDINGS, True: ENDINGS[:1], False: ENDINGS[1:]}[self.safetensors]


ANY = Files()
OURS = ("diffusion_pytorch_model",)
PARTS = {
    "vqvae": Part("diffusers", "VQModel", stems=OURS),
    "text_encoder": Part("transformers", "CLIPTextModel", stems=("model", "pytorch_model")),
    "tokenizer": Part(
        "transformers",
        "CLIPTokenizer",
        ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"),
        needed=2,
    ),
    "transformer": Part("diffusers", "Transformer2DModel", stems=OURS),
    "scheduler": Part("diffusers", "VQDiffusionScheduler", ("scheduler_config.json",)),
    LEARNED: Part("diffusers", "LearnedClassifierFreeSamplingEmbeddings", stems=OURS),
}
LAYOUTS = {  # the parts of each kind of pipeline, by its name in the index
    "VQDiffusionPipeline": PARTS,
    "AutoregressivePipeline": {
        **{name: part for name, part in PARTS.items() if name != "scheduler"},
        "transformer": Part("vqlearn", "AutoregressiveTransformer", stems=OURS),
    },
}
TEXT_PARTS = ("text_encoder", "tokenizer", LEARNED)  # what a model of classes, or of nothing, does without


def is_named(index: dict[str, Any], part: str) -> bool:
    """Whether the index says that a model has a part."""
    return index.get(part) not in (None, [None, None])


def index_of(parts: dict[str, Any], extra: dict[str, Any], kind: str = "VQDiffusionPipeline") -> dict[str, Any]:
    """What the index of a model of some parts says, a pipeline of `kind`; `extra` joins it."""
    named = {
        name: [part.library, part.kind] if parts[name] is not None else [None, None]
        for name, part in LAYOUTS[kind].items()
    }
    return {"_class_name": kind, **extra, **named}
