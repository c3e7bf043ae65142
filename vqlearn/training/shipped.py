"""The shipped model of the toy world: its sizes, and its making from nothing in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from vqlearn.arguments import shown, whole
from vqlearn.autoregression import AutoregressivePipeline
from vqlearn.data import scenes
from vqlearn.networks.autoregressive import AutoregressiveTransformer
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings, clip_tokenizer, word_merges
from vqlearn.networks.transformer import Transformer2DModel
from vqlearn.networks.vqvae import VQModel
from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.scheduler import VQDiffusionScheduler
from vqlearn.training import processes
from vqlearn.training.autoregressive import autoregressive_scene_stage
from vqlearn.training.batches import Source
from vqlearn.training.codec import CodecStage
from vqlearn.training.recipes import CodecRecipe, SceneRecipe, WorldRecipe
from vqlearn.training.runs import fit
from vqlearn.training.scenes import ScenePictures, scene_stage
from vqlearn.training.stage import TokenStage
from vqlearn.training.start import initialise
from vqlearn.training.updates import has_fast_bfloat16

NUM_CODES, TEXT_LENGTH, TEXT_WIDTH, WIDTH, LAYERS = 1024, 32, 96, 128, 6
TEXT_PARTS = ("text_encoder", "tokenizer", "learned_classifier_free_sampling_embeddings")


def networks(
    seed: int = 0, *, words: Iterable[str] | None = (*sorted(scenes.VOCABULARY), ","), side: int = scenes.SIZE
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
        codec = patch_codec(NUM_CODES, (32, 64, 64))
        text_width = None if words is None else TEXT_WIDTH
        transformer = small_denoiser(
            NUM_CODES, side // codec.factor, width=WIDTH, heads=4, layers=LAYERS, text_width=text_width
        )
        text = dict.fromkeys(TEXT_PARTS) if words is None else text_parts(word_merges(words), TEXT_WIDTH, TEXT_LENGTH)
    scheduler = VQDiffusionScheduler(NUM_CODES + 1, gamma_cum_end=0.9)
    return {"vqvae": codec, "transformer": transformer, "scheduler": scheduler, **text}


def patch_codec(num_codes: int, channels: tuple[int, int, int]) -> VQModel:
    """A codec of toy size, untrained: one token for each patch of 4 x 4 pixels, from the patch alone."""
    return VQModel(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=channels,
        latent_channels=32,
        num_vq_embeddings=num_codes,
        norm_num_groups=8,
        vq_embed_dim=16,
        mid_block_add_attention=False,
        encoder_context="patch",
    )


def small_denoiser(
    num_codes: int, side: int, *, width: int, heads: int, layers: int, text_width: int | None
) -> Transformer2DModel:
    """A denoiser of toy size, untrained: 3 x 3 convolutions in its feed-forward, `side` x `side` tokens."""
    return Transformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        num_layers=layers,
        cross_attention_dim=text_width,
        num_vector_embeds=num_codes + 1,
        sample_size=side,
        feed_forward="convolution",
        feed_forward_mult=1,
    )


def rival_networks(
    seed: int = 0,
    *,
    words: Iterable[str] | None = (*sorted(scenes.VOCABULARY), ","),
    side: int = scenes.SIZE,
    order: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The five components of an autoregressive pipeline of the shipped model's sizes, untrained, as in `networks`.

    A 3 x 3 convolution over the grid sees what comes later, so the feed-forward is linear here. With nine times the
    width inside it has as many weights, 18 C^2, and does as many operations per token. `order` is the network's.
    """
    parts = networks(seed, words=words, side=side)
    del parts["scheduler"]
    old = parts["transformer"].config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts["transformer"] = AutoregressiveTransformer(
            num_codes=NUM_CODES,
            num_positions=old.sample_size**2,
            num_attention_heads=old.num_attention_heads,
            attention_head_dim=old.attention_head_dim,
            num_layers=old.num_layers,
            cross_attention_dim=old.cross_attention_dim,
            feed_forward_mult=9 * old.feed_forward_mult,
            order=order,
        )
    return parts


def text_parts(merges: list[tuple[str, str]], width: int, length: int) -> dict[str, Any]:
    """What reads a text of up to `length` tokens, untrained: an encoder of two layers, the tokenizer, the null text."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = clip_tokenizer(merges, max_length=length)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    null_text = LearnedClassifierFreeSamplingEmbeddings(True, width, length)
    torch.nn.init.normal_(null_text.embeddings, std=width**-0.5)
    return dict(zip(TEXT_PARTS, (text_encoder, tokenizer, null_text), strict=True))


LARGE_BATCH = SceneRecipe(steps=12000, batch=512, learning_rate=2e-3, own_from=1500)  # no GPU has run it to its end
WORDS = {"words": sorted((*scenes.VOCABULARY, ","))}
GUIDED = {"guidance_scale": 1.15, "truncation_rate": 0.6, **WORDS}


def recipe(device: str, *, from_nothing: bool = True) -> SceneRecipe:
    """How the shipped model's denoiser learns on a device: on a GPU in batches that are large enough for it.

    A model that learns on has trajectories worth learning from at once.
    """
    found = SceneRecipe() if torch.device(device).type == "cpu" else LARGE_BATCH
    return found if from_nothing else replace(found, own_from=0)


def rival_recipe(device: str) -> WorldRecipe:
    """How its autoregressive rival learns: in as many updates, on as many scenes, as the denoiser."""
    of_denoiser = recipe(device)
    return WorldRecipe(**{field.name: getattr(of_denoiser, field.name) for field in fields(WorldRecipe)})


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
    run = Run(Path(out), device, {"save_every": save_every, "progress": progress})
    if start_from is None:
        pipe = VQDiffusionPipeline(**networks())
        run.codec(pipe.vqvae, ScenePictures(), codec)
        initialise(pipe.transformer, pipe.vqvae)
    else:
        pipe = start_from.to(torch.float32)
    chosen = denoiser or recipe(device, from_nothing=start_from is None)
    return run.finished(scene_stage(pipe, chosen, device=device, dtype=run.dtype), "denoiser", GUIDED)


def train_rival(
    out: str | Path,
    *,
    codec: CodecRecipe | None = None,
    rival: WorldRecipe | None = None,
    start_from: VQDiffusionPipeline | AutoregressivePipeline | None = None,
    device: str = "cpu",
    save_every: int = 250,
    progress: bool = True,
) -> AutoregressivePipeline:
    """Train the autoregressive rival in `out`, as `train` does the shipped model.

    With `start_from` the codec of that pipeline is kept, and if it is autoregressive too, its networks learn on.
    """
    run = Run(Path(out), device, {"save_every": save_every, "progress": progress})
    if isinstance(start_from, AutoregressivePipeline):
        pipe = start_from.to(torch.float32)
    else:
        pipe = AutoregressivePipeline(**rival_networks())
        if start_from is None:
            run.codec(pipe.vqvae, ScenePictures(), codec)
        else:
            pipe.vqvae = start_from.to(torch.float32).vqvae
        initialise(pipe.transformer, pipe.vqvae)
    stage = autoregressive_scene_stage(pipe, rival or rival_recipe(device), device=device, dtype=run.dtype)
    halved = "transformer", "text_encoder", "vqvae"  # the tokens of all patches of the toy world stay what they are
    return run.finished(stage, "autoregressive", {"guidance_scale": 1.0, **WORDS}, halved)


class Run:
    """The folder of a run, and its stages."""

    def __init__(self, out: Path, device: str, how: dict[str, Any]):
        self.out, self.device, self.how = out, device, how
        fast = torch.device(device).type != "cpu" or has_fast_bfloat16()
        self.dtype = torch.bfloat16 if fast else None

    def codec(self, codec: VQModel, data: Source, recipe: CodecRecipe | None) -> None:
        """Train a codec."""
        stage = CodecStage(codec, data, recipe, device=self.device, autocast=self.dtype is not None)
        fit(stage, self.out / "codec", **self.how)

    def finished(
        self, stage: TokenStage, name: str, defaults: dict[str, Any], halved: Sequence[str] = ("transformer",)
    ) -> Any:
        """The pipeline of a stage, trained, written, and read back; `defaults` are those of its calls.

        The `halved` parts are written in float16.
        """
        fit(stage, self.out / name, **self.how)
        pipe = stage.averaged().to("cpu")
        pipe.defaults = defaults
        for part in halved:  # half the size on disk; loading casts back
            getattr(pipe, part).half()
        with processes.first_alone():
            if not processes.rank():
                pipe.save_pretrained(self.out / "model")
        return type(pipe).from_pretrained(self.out / "model")
