"""The shipped model of the toy world: its sizes, and its making from nothing in one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vqlearn.arguments import shown, whole
from vqlearn.data import scenes
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings, clip_tokenizer, word_merges
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.scheduler import VQDiffusionScheduler
from vqlearn.training.codec import CodecStage
from vqlearn.training.recipes import CodecRecipe, SceneRecipe
from vqlearn.training.runs import fit
from vqlearn.training.scenes import ScenePictures, scene_stage
from vqlearn.training.start import initialise
from vqlearn.training.updates import has_fast_bfloat16

NUM_CODES, TEXT_LENGTH, TEXT_WIDTH, WIDTH, LAYERS = 1024, 32, 96, 128, 6
TEXT_PARTS = ("text_encoder", "tokenizer", "learned_classifier_free_sampling_embeddings")


def networks(
    seed: int = 0, *, words: Iterable[str] | None = (*scenes.VOCABULARY, ","), side: int = scenes.SIZE
) -> dict[str, Any]:
    """The six components of a pipeline of the shipped model's sizes, untrained; the same for the same seed.

    Each of `words` is one token of the text, other words are spelled; None is a model that is conditioned on nothing.
    `side` is that of the pictures, in pixels, a multiple of 4. Raises ValueError.
    """
    seed, side = whole("seed", seed, 0, 2**32 - 1), whole("side", side, 4)
    if side % 4:
        raise ValueError(f"side must be a multiple of 4, got {side}")
    words = None if words is None else [words] if isinstance(words, str) else list(words)
    if not all(isinstance(word, str) for word in words or ()):
        raise ValueError(f"words must be strings, got {shown(words)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = _codec()
        transformer = _transformer(side // codec.factor, None if words is None else TEXT_WIDTH)
        text = dict.fromkeys(TEXT_PARTS) if words is None else _text_parts(words)
    scheduler = VQDiffusionScheduler(NUM_CODES + 1, gamma_cum_end=0.9)
    return {"vqvae": codec, "transformer": transformer, "scheduler": scheduler, **text}


def _codec() -> VQModel:
    return VQModel(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(32, 64, 64),
        latent_channels=32,
        num_vq_embeddings=NUM_CODES,
        norm_num_groups=8,
        vq_embed_dim=16,
        mid_block_add_attention=False,
        encoder_context="patch",
    )


def _transformer(side: int, text_width: int | None) -> Transformer2DModel:
    return Transformer2DModel(
        num_attention_heads=4,
        attention_head_dim=WIDTH // 4,
        num_layers=LAYERS,
        cross_attention_dim=text_width,
        num_vector_embeds=NUM_CODES + 1,
        sample_size=side,
        feed_forward="convolution",
        feed_forward_mult=1,
    )


def _text_parts(words: Iterable[str]) -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = clip_tokenizer(word_merges(words), max_length=TEXT_LENGTH)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    null_text = LearnedClassifierFreeSamplingEmbeddings(True, TEXT_WIDTH, TEXT_LENGTH)
    torch.nn.init.normal_(null_text.embeddings, std=TEXT_WIDTH**-0.5)
    return dict(zip(TEXT_PARTS, (text_encoder, tokenizer, null_text), strict=True))


LARGE_BATCH = SceneRecipe(steps=12000, batch=512, learning_rate=2e-3, own_from=1500)  # no GPU has run it yet


def recipe(device: str, *, from_nothing: bool = True) -> SceneRecipe:
    """How the shipped model's denoiser learns on a device: on a GPU in batches that are large enough for it.

    A model that learns on has trajectories worth learning from at once.
    """
    found = SceneRecipe() if torch.device(device).type == "cpu" else LARGE_BATCH
    return found if from_nothing else replace(found, own_from=0)


def train(
    out: str | Path,
    *,
    codec: CodecRecipe | None = None,
    denoiser: SceneRecipe | None = None,
    start_from: VQDiffusionPipeline | None = None,
    device: str = "cpu",
    save_every: int = 250,
    progress: bool = True,
) -> VQDiffusionPipeline:
    """Train both stages in `out` and write the pipeline to `out/model`; goes on where an earlier run stopped.

    With `start_from`, a pipeline of this kind, its codec is kept and its denoiser learns on.
    """
    out = Path(out)
    fast = torch.device(device).type != "cpu" or has_fast_bfloat16()
    if start_from is None:
        pipe = VQDiffusionPipeline(**networks())
        codec_stage = CodecStage(pipe.vqvae, ScenePictures(), codec, device=device, autocast=fast)
        fit(codec_stage, out / "codec", save_every=save_every, progress=progress)
        initialise(pipe.transformer, pipe.vqvae)
    else:
        pipe = start_from.to(torch.float32)
    chosen = denoiser or recipe(device, from_nothing=start_from is None)
    stage = scene_stage(pipe, chosen, device=device, dtype=torch.bfloat16 if fast else None)
    fit(stage, out / "denoiser", save_every=save_every, progress=progress)
    pipe = stage.averaged().to("cpu")
    pipe.defaults = {"guidance_scale": 1.15, "truncation_rate": 0.6, "words": sorted((*scenes.VOCABULARY, ","))}
    pipe.transformer.half()  # 10.5 MB on disk instead of 17.2; loading casts back
    pipe.save_pretrained(out / "model")
    return VQDiffusionPipeline.from_pretrained(out / "model")
