"""The shipped model of the toy world: its sizes, and its making from nothing in one call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vqlearn.data import scenes
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings, clip_tokenizer, word_merges
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.scheduler import VQDiffusionScheduler
from vqlearn.training.codec import CodecStage
from vqlearn.training.denoiser import DenoiserStage
from vqlearn.training.recipes import CodecRecipe, DenoiserRecipe
from vqlearn.training.runs import fit
from vqlearn.training.start import initialise
from vqlearn.training.updates import has_fast_bfloat16

NUM_CODES, TEXT_LENGTH, TEXT_WIDTH, WIDTH, LAYERS = 1024, 32, 96, 128, 6


def networks(seed: int = 0) -> dict[str, Any]:
    """The six components of the shipped pipeline, untrained; the same for the same seed."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = VQModel(
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
        transformer = Transformer2DModel(
            num_attention_heads=4,
            attention_head_dim=WIDTH // 4,
            num_layers=LAYERS,
            cross_attention_dim=TEXT_WIDTH,
            num_vector_embeds=NUM_CODES + 1,
            sample_size=scenes.SIZE // codec.factor,
            feed_forward="convolution",
            feed_forward_mult=1,
        )
        tokenizer = clip_tokenizer(word_merges(scenes.VOCABULARY | {","}), max_length=TEXT_LENGTH)
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
    return {
        "vqvae": codec,
        "transformer": transformer,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "scheduler": VQDiffusionScheduler(NUM_CODES + 1, gamma_cum_end=0.9),
        "learned_classifier_free_sampling_embeddings": null_text,
    }


LARGE_BATCH = DenoiserRecipe(steps=12000, batch=512, learning_rate=2e-3, own_from=1500)  # no GPU has run it yet


def recipe(device: str, *, from_nothing: bool = True) -> DenoiserRecipe:
    """How the shipped model's denoiser learns on a device: on a GPU in batches that are large enough for it.

    A model that learns on has trajectories worth learning from at once.
    """
    found = DenoiserRecipe() if torch.device(device).type == "cpu" else LARGE_BATCH
    return found if from_nothing else replace(found, own_from=0)


def learning_parts(pipe: VQDiffusionPipeline) -> tuple[Any, Any, Any, Any, Any, Any]:
    """What `DenoiserStage` takes of a pipeline."""
    null_text = pipe.learned_classifier_free_sampling_embeddings
    return pipe.vqvae, pipe.transformer, pipe.text_encoder, null_text, pipe.tokenizer, pipe.schedule


def train(
    out: str | Path,
    *,
    codec: CodecRecipe | None = None,
    denoiser: DenoiserRecipe | None = None,
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
        parts = networks()
        codec_stage = CodecStage(parts["vqvae"], codec or CodecRecipe(), device, fast)
        fit(codec_stage, out / "codec", save_every=save_every, progress=progress)
        pipe = VQDiffusionPipeline(**parts)
        initialise(pipe.transformer, pipe.vqvae.quantize.embedding.weight.cpu())
    else:
        pipe = start_from.to(torch.float32)
    dtype = torch.bfloat16 if fast else None
    stage = DenoiserStage(
        *learning_parts(pipe), denoiser or recipe(device, from_nothing=start_from is None), device=device, dtype=dtype
    )
    fit(stage, out / "denoiser", save_every=save_every, progress=progress)
    stage.averaged()
    pipe.to("cpu")
    pipe.text_encoder.eval()
    pipe.transformer.eval()
    pipe.defaults = {"guidance_scale": 1.15, "truncation_rate": 0.6, "words": sorted(scenes.VOCABULARY)}
    pipe.transformer.half()  # 10.5 MB on disk instead of 17.2; loading casts back
    pipe.save_pretrained(out / "model")
    return VQDiffusionPipeline.from_pretrained(out / "model")
