"""Checkpoints of the original code (microsoft/VQ-Diffusion) as pipelines.

One file of the original holds codec, denoiser, text encoder and schedule under names of its own. The YAML file beside
it says what the tensors do not: the numbers of heads, positions and classes. The rest is read off the tensors.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqlearn import assets
from vqlearn.checkpoints.layout import TEXT_PARTS
from vqlearn.checkpoints.loading import assign_text_encoder
from vqlearn.checkpoints.reading import CheckpointError, described, read_pickle
from vqlearn.checkpoints.sections import Section
from vqlearn.checkpoints.weights import assign, build
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings, clip_tokenizer
from vqlearn.networks.transformer import Transformer2DModel, TransformerConfiguration
from vqlearn.networks.vqvae import VQModel
from vqlearn.scheduler import VQDiffusionScheduler

NULL_CLASS = 1000  # the original's literal, whatever the number of classes
SHARE = 1e-4  # how far a schedule in a file may be from the curves it is read as: EMA and float32 logs leave 1e-6,
ROUNDING = 0.5  # and logs in half precision this many times its rounding: a |log a| is at most 0.37
PUBLISHED = {  # guidance scale and truncation rate, by what a model reads and whether its null condition was learned
    ("text", True): (3.0, 1.0),
    ("text", False): (1.0, 0.86),
    ("class", True): (1.5, 0.94),
    ("class", False): (1.0, 0.86),
    ("nothing", False): (1.0, 0.86),
}
ITHQ_GUIDANCE = 5.0
Tensors = dict[str, Tensor]


def read_original(
    checkpoint: str | Path,
    config: str | Path,
    *,
    codec_config: str | Path | None = None,
    mapping: str | Path | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Components and defaults of an original `.pth` file and its YAML: of text, of classes or unconditional.

    EMA weights are taken where the file has them. `codec_config` (the codec's own YAML) and `mapping` (which of its
    codes are in use) are looked for where `config` names them. Nothing in the files is run. Raises CheckpointError.
    """
    checkpoint, config = Path(checkpoint), Path(config)
    with described(checkpoint):
        model = Section.read(config).at("model", "params")
        tensors = _merged(read_pickle(checkpoint), checkpoint)
        codec = _codec(_under(tensors, "content_codec."), model, codec_config, mapping, checkpoint)
        diffusion = model.at("diffusion_config", "params")
        transformer = _transformer(_under(tensors, "transformer.transformer."), diffusion, checkpoint)
        scheduler = _scheduler(_under(tensors, "transformer."), transformer.config, checkpoint)
        text: list[Any] = [None, None, None]
        if transformer.reads == "text":
            text = _text(_under(tensors, "transformer."), model, checkpoint)
        parts = {"vqvae": codec, "transformer": transformer, "scheduler": scheduler}
        return parts | dict(zip(TEXT_PARTS, text, strict=True)), _defaults(transformer, text[-1], model)


# ------------------------------------------------------------------------------------------ files


def _merged(content: Any, path: Path) -> Tensors:
    """All tensors of a training checkpoint, those of the EMA copy over the others."""
    tensors: Any = content.get("model") if isinstance(content, dict) else None
    average: Any = (content.get("ema") if isinstance(content, dict) else None) or {}
    for part in (tensors, average):
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise CheckpointError(f"{path} is no checkpoint of the original code: it has no tensors under 'model'")
    merged = {**tensors, **{f"transformer.{name}": tensor for name, tensor in average.items()}}
    if extra := sorted(merged.keys() - tensors.keys()):
        raise CheckpointError(f"{path}: 'ema' has {extra[0]!r}, which 'model' has not")
    return {name: tensor for name, tensor in merged.items() if isinstance(tensor, Tensor)}


def _under(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# ------------------------------------------------------------------------------------------ denoiser

NETWORK_NAMES = (
    (r"^content_emb\.", "latent_image_embedding."),
    (r"^blocks\.", "transformer_blocks."),
    (r"\.ln1\.", ".norm1."),
    (r"\.ln1_1\.", ".norm2."),
    (r"\.ln2\.", ".norm3."),
    (r"\.attn\.", ".attn1."),  # models without text have one attention
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"(\.attn\d)\.proj\.", r"\1.to_out.0."),
    (r"\.mlp\.(0|conv1)\.", ".ff.net.0.proj."),
    (r"\.mlp\.(2|conv2)\.", ".ff.net.2."),
    (r"^to_logits\.0\.", "norm_out."),
    (r"^to_logits\.1\.", "out."),
)


def _transformer(tensors: Tensors, diffusion: Section, path: Path) -> Transformer2DModel:
    asked, embedding = diffusion.at("transformer_config", "params"), diffusion.at("content_emb_config", "params")
    kind = asked.word("attn_type")
    if kind not in ("selfcross", "selfcondition", "self"):
        raise CheckpointError(f"{asked.place}.attn_type must be selfcross, selfcondition or self, got {kind!r:.60}")
    rows, columns = embedding.sides("spatial_size")
    width, heads = asked.number("n_embd"), asked.number("n_head")
    if rows != columns or heads < 1 or width % heads:
        raise CheckpointError(f"{asked.place}: a square grid and n_embd divisible by n_head are needed")
    classes = asked.number("class_number") if kind == "selfcondition" else None
    null_row = classes == NULL_CLASS + 1
    config = {
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "num_layers": asked.number("n_layer"),
        "cross_attention_dim": asked.number("condition_dim") if kind == "selfcross" else None,
        "num_vector_embeds": embedding.number("num_embed") + 1,
        "sample_size": rows,
        "num_embeds_ada_norm": diffusion.number("diffusion_step"),
        "feed_forward": "convolution" if asked.word("mlp_type") == "conv_mlp" else "linear",
        "feed_forward_mult": asked.number("mlp_hidden_times"),
        "num_positions": asked.number("content_seq_len"),
        "num_classes": classes - null_row if classes is not None else None,
        "learnable_null_class": null_row,
    }
    named = {}
    for name, tensor in tensors.items():
        if name.endswith(".attn2.mask"):
            continue  # a buffer that the original never reads
        for old, new in NETWORK_NAMES:
            name = re.sub(old, new, name)
        named[name] = tensor
    network: Transformer2DModel = build(Transformer2DModel, config, asked.place, most=len(named))
    assign(network, named, path)
    return network


# ------------------------------------------------------------------------------------------ schedule


def _scheduler(buffers: Tensors, network: TransformerConfiguration, path: Path) -> VQDiffusionScheduler:
    """The released schedule, after a look whether the file's own curves are linear between the ends that they have."""
    classes, steps = network.num_vector_embeds, network.num_embeds_ada_norm
    curves, near = {}, SHARE
    for name, letter in (("alpha", "a"), ("gamma", "c")):
        log = buffers.get(f"log_cumprod_{letter}t")
        if log is None or log.shape != (steps + 1,) or not log.is_floating_point():
            raise CheckpointError(f"{path} lacks the schedule's {steps + 1} values of {name}_bar")
        curves[name] = log[:steps].double().exp()
        near = max(near, ROUNDING * torch.finfo(log.dtype).eps)
    # Without the rounding of a logarithm in float32, 0.99999 and not 0.99998998; in half precision first as released
    ends: Any = {f"{name}_cum_{end}": round(float(curve[at]), 6) for name, curve in curves.items()
            for end, at in (("start", 0), ("end", -1))}  # fmt: skip
    for tried in ({}, ends) if near > SHARE else (ends,):
        scheduler: VQDiffusionScheduler = build(VQDiffusionScheduler, {
            "num_vec_classes": classes, "num_train_timesteps": steps, **tried}, path, device="cpu")  # fmt: skip
        far = [
            name
            for name, curve in curves.items()
            if not float((getattr(scheduler.schedule, f"{name}_bar")[1:] - curve).abs().max()) <= near
        ]
        if not far:
            return scheduler
    raise CheckpointError(f"{path}: the schedule's {far[0]}_bar is not linear, which no released model's is")


# ------------------------------------------------------------------------------------------ codec

CODEC_NAMES = (
    (r"^enc\.|^dec\.", ""),
    (r"\.down\.(\d+)\.", r".down_blocks.\1."),
    (r"\.block\.(\d+)\.", r".resnets.\1."),
    (r"\.attn\.(\d+)\.", r".attentions.\1."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"\.proj_out\.", ".to_out.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.downsample\.", ".downsamplers.0."),
    (r"\.upsample\.", ".upsamplers.0."),
    (r"coder\.norm_out\.", "coder.conv_norm_out."),
    (r"^quantize\.embed(ding)?(\.weight)?$", "quantize.embedding.weight"),
)
STATISTICS = ("quantize.cluster_size", "quantize.embedding_avg")  # of the EMA codebook's training


def _codec(
    tensors: Tensors, model: Section, codec_config: str | Path | None, mapping: str | Path | None, path: Path
) -> VQModel:
    levels = len({match[1] for name in tensors if (match := re.match(r"enc\.encoder\.down\.(\d{1,2})\.", name))})
    named = {}
    for name, tensor in tensors.items():
        name = re.sub(r"\.up\.(\d{1,2})\.", lambda match: f".up_blocks.{levels - 1 - int(match[1])}.", name)
        for old, new in CODEC_NAMES:
            name = re.sub(old, new, name)
        if name not in STATISTICS:
            pointwise = ".attentions." in name and tensor.shape[2:] == (1, 1)
            named[name] = tensor.flatten(1) if pointwise else tensor
    asked = model.at("content_codec_config", "params")
    config = _codec_config(named, levels, path)
    _check_codec(config, model, codec_config)
    if kept := _kept(asked, mapping, config["num_vq_embeddings"], model.place):
        config["num_tokens"] = len(kept)
        named["quantize.kept"] = torch.tensor(kept)
    codec: VQModel = build(VQModel, config, path, most=len(named))
    assign(codec, named, path)
    return codec


def _codec_config(tensors: Tensors, levels: int, path: Path) -> dict[str, Any]:
    """The configuration of a codec, read off its tensors."""

    def size(name: str, axis: int = 0) -> int:
        if name not in tensors or tensors[name].ndim <= axis:
            raise CheckpointError(f"{path} holds no codec of the original code: {name!r} is missing")
        return tensors[name].shape[axis]

    widths = [size(f"encoder.down_blocks.{level}.resnets.0.conv1.weight") for level in range(levels)]
    attends = [f"encoder.down_blocks.{level}.attentions.0.to_q.weight" in tensors for level in range(levels)]
    layers = len({name.split(".")[4] for name in tensors if name.startswith("encoder.down_blocks.0.resnets.")})
    return {
        "in_channels": size("encoder.conv_in.weight", 1),
        "out_channels": size("decoder.conv_out.weight"),
        "down_block_types": ["AttnDownEncoderBlock2D" if attention else "DownEncoderBlock2D" for attention in attends],
        "up_block_types": ["AttnUpDecoderBlock2D" if attention else "UpDecoderBlock2D" for attention in attends[::-1]],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "latent_channels": size("encoder.conv_out.weight"),
        "num_vq_embeddings": size("quantize.embedding.weight"),
        "vq_embed_dim": size("quantize.embedding.weight", 1),
        "norm_num_groups": 32,
        "stem_channels": size("encoder.conv_in.weight"),
        "quantizer": "gumbel" if "quantize.proj.weight" in tensors else "nearest",
    }


def _beside(named: str, config: str) -> Path | None:
    """The file that a configuration names, from its own folder or one above, or beside it under its bare name."""
    if not named or named == "None":
        return None
    here = Path(config).absolute().parent
    places = [folder / named for folder in (here, *here.parents)] + [here / Path(named).name]
    return next((place for place in places if place.is_file()), None)


def _check_codec(found: dict[str, Any], model: Section, codec_config: str | Path | None) -> None:
    """The codec's own YAML, where it is at hand, must describe the codec in the file."""
    asked = model.at("content_codec_config", "params")
    path = Path(codec_config) if codec_config else _beside(asked.word("config_path"), model.place.split(": ")[0])
    if path is None:
        return
    section = Section.read(path).at("model", "params")
    if "first_stage_config" in section.values:  # FFHQ's file holds the codec inside another model
        section = section.at("first_stage_config", "params")
    pairs = [("n_embed", found["num_vq_embeddings"]), ("embed_dim", found["vq_embed_dim"])]
    for name, value in pairs:
        if (said := section.number(name)) != value:
            raise CheckpointError(f"{section.place}.{name} is {said}, the codec in the checkpoint has {value}")


def _kept(asked: Section, mapping: str | Path | None, codes: int, place: str) -> list[int]:
    """Which codes of the codec are tokens of the denoiser, in rising order; [] if all are."""
    count = asked.number("quantize_number", 0)
    if not count:
        return []
    path = Path(mapping) if mapping else _beside(asked.word("mapping_path"), place.split(": ")[0])
    if path is None:
        raise CheckpointError(
            f"{asked.place} uses {count} of {codes} codes, and the file that says which, "
            f"{asked.word('mapping_path')!r}, was not found; give it with --mapping"
        )
    table = read_pickle(path)
    if not isinstance(table, Tensor) or table.dtype != torch.int64 or table.shape != (codes,):
        raise CheckpointError(f"{path} must hold {codes} whole numbers, the token of each code")
    tokens, first = np.unique(table.numpy(), return_index=True)  # of each token the first code
    if tokens.tolist() != list(range(min(count, codes + 1))) or (np.diff(first) < 0).any():
        raise CheckpointError(f"{path} must map {codes} codes onto the tokens 0 ... {count - 1}, in rising order")
    kept: list[int] = first.tolist()
    return kept


# ------------------------------------------------------------------------------------------ text

TEXT_NAMES = (
    (r"^token_embedding\.", "embeddings.token_embedding."),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^ln_final\.", "final_layer_norm."),
)
HEAD_WIDTH = 64  # CLIP's text towers have one head for each 64 of their width


def _text(tensors: Tensors, model: Section, path: Path) -> list[Any]:
    """Text encoder, tokenizer and null text."""
    named: Tensors = {}
    for name, tensor in _under(tensors, "condition_emb.").items():
        for old, new in TEXT_NAMES:
            name = re.sub(old, new, name)
        if match := re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", name):
            if not tensor.ndim or len(tensor) % 3:
                raise CheckpointError(f"{path}: the text encoder's {name!r} must hold queries, keys and values")
            for part, share in zip("qkv", tensor.chunk(3), strict=True):
                named[f"{match[1]}.self_attn.{part}_proj.{match[2]}"] = share
        elif name != "text_projection":  # for the pooled embedding, which this model does not use
            named[name] = tensor
    for name in ("embeddings.token_embedding.weight", "embeddings.position_embedding.weight"):
        if name not in named or named[name].ndim != 2:
            raise CheckpointError(f"{path} lacks the text encoder's {name!r}")
    (words, width), length = named["embeddings.token_embedding.weight"].shape, len(named[name])
    layers = {name.split(".")[2] for name in named if name.startswith("encoder.layers.")}
    config = {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": length,
        "hidden_act": "quick_gelu",
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": 0,
    }
    learned = tensors.get("empty_text_embed")
    if learned is None:
        null_text: Any = LearnedClassifierFreeSamplingEmbeddings(False)
    else:
        if learned.ndim != 2:
            raise CheckpointError(f"{path}: the null text must be [S, D], got {list(learned.shape)}")
        sizes = {"learnable": True, "length": len(learned), "hidden_size": learned.shape[1]}
        null_text = build(LearnedClassifierFreeSamplingEmbeddings, sizes, path)
        assign(null_text, {"embeddings": learned}, path)
    return [assign_text_encoder(config, named, path, path), published_tokenizer(words, length), null_text]


def published_tokenizer(words: int = 49408, length: int = 77) -> Any:
    """CLIP's tokenizer with as many of its first merges as a vocabulary of `words` has; the checkpoint holds none.

    The original mends HTML and curly quotes first and knows runs of "!"; here, as in the published pipeline, padding is
    "!", so every "!" in a prompt is one padding token.
    """
    with gzip.open(assets.FOLDER / "clip_merges.txt.gz", "rt", encoding="utf-8") as file:
        merges: Any = [tuple(line.split()) for line in file]
    count = words - 2 * 256 - 2
    if not 0 <= count <= len(merges):
        raise CheckpointError(
            f"a CLIP vocabulary has 514 to {514 + len(merges)} entries, this text encoder has {words}"
        )
    return clip_tokenizer(merges[:count], max_length=length)


# ------------------------------------------------------------------------------------------ defaults


def _defaults(transformer: Transformer2DModel, null_text: Any, model: Section) -> dict[str, Any]:
    """Guidance and truncation as published for this kind of model, and the names of ImageNet's classes."""
    reads, network = transformer.reads, transformer.config
    learned = network.learnable_null_class if null_text is None else null_text.learnable
    scale, rate = PUBLISHED[reads, learned]
    if reads == "text" and learned and model.at("content_codec_config").word("target").endswith("PatchVQVAE"):
        scale = ITHQ_GUIDANCE
    defaults: dict[str, Any] = {"guidance_scale": scale, "truncation_rate": rate}
    if reads == "class" and network.num_classes == NULL_CLASS:
        defaults["labels"] = (assets.FOLDER / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    return defaults
