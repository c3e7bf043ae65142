"""diffusers' pipeline around our weights: its own loop, scheduler and, where its class allows, its own denoiser."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch

from vqlearn import VQDiffusionPipeline


class Adapter(torch.nn.Module):
    """Our denoiser as diffusers' pipeline calls its own: class-first log probabilities from a normalised text."""

    def __init__(self, pipe: VQDiffusionPipeline):
        super().__init__()
        self.network, side = pipe.transformer, round(pipe.length**0.5)
        self.num_latent_pixels, self.height, self.width = pipe.length, side, side
        self.num_vector_embeds = pipe.schedule.num_codes + 1
        self.device, self.dtype = pipe.device, pipe.dtype

    def forward(self, tokens, encoder_hidden_states, timestep):
        logits = self.network(tokens, encoder_hidden_states, timestep)
        return SimpleNamespace(sample=logits.double().log_softmax(-1).float().transpose(1, 2))


class NoCodec(torch.nn.Module):
    """In the codec's place: tokens are taken from the callback, and no picture is wanted."""

    config, dtype = SimpleNamespace(vq_embed_dim=1), torch.float32
    quantize = SimpleNamespace(get_codebook_entry=lambda sample, shape: sample)

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device  # that of the whole pipeline, as diffusers sees it

    def decode(self, tokens, force_not_quantize):
        return SimpleNamespace(sample=torch.zeros(len(tokens), 3, 1, 1))


def diffusers_pipeline(pipe: VQDiffusionPipeline, network: torch.nn.Module):
    """Its pipeline with our text encoder, tokenizer, null text and schedule, and a denoiser."""
    import diffusers
    from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
        LearnedClassifierFreeSamplingEmbeddings,
    )

    config = {key: value for key, value in pipe.scheduler.config.items() if key not in ("_class_name", "spacing")}
    text = pipe.null_embeds()[0]
    null_text = LearnedClassifierFreeSamplingEmbeddings(True, text.shape[1], text.shape[0])
    null_text.embeddings.data = text
    theirs = diffusers.VQDiffusionPipeline(
        NoCodec(pipe.device),
        pipe.text_encoder,
        pipe.tokenizer,
        network,
        diffusers.VQDiffusionScheduler(**config),
        null_text,
    )
    theirs.set_progress_bar_config(disable=True)
    return theirs


def diffusers_transformer(pipe: VQDiffusionPipeline) -> torch.nn.Module:
    """Its denoiser with our very tensors, not copied; for the published form, without our convolutions."""
    import diffusers

    names = ("num_attention_heads", "attention_head_dim", "num_layers", "cross_attention_dim", "num_vector_embeds",
             "sample_size", "num_embeds_ada_norm", "attention_bias", "activation_fn", "norm_type")  # fmt: skip
    with torch.device("meta"):
        network = diffusers.Transformer2DModel(**{name: pipe.transformer.config[name] for name in names})
    network.load_state_dict(pipe.transformer.state_dict(), assign=True, strict=False)
    if any(tensor.is_meta for tensor in network.state_dict().values()):
        raise ValueError("this denoiser is not of the published form")
    return network.eval()


def drawing(theirs, **call) -> Callable:
    """`draw(prompts, steps, generator, callback) -> tokens`."""

    def draw(prompts: list[str], steps: int, generator: torch.Generator, callback=lambda *_: None) -> torch.Tensor:
        last = []

        def each(number, t, sample):
            last.append(sample)
            callback(number, t, sample)

        theirs(prompts, num_inference_steps=steps, generator=generator, output_type="np", callback=each, **call)
        return last[-1]

    return draw


def mean_step(draw, count: int, device: torch.device) -> float:
    """Seconds of a step, the mean of `count` after a first one; a GPU is waited for before and after, not between."""
    at: list[float] = []

    def note(number, *_):
        if number in (0, count):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            at.append(time.perf_counter())

    draw(count + 1, torch.Generator(device).manual_seed(0), note)
    return (at[1] - at[0]) / count


def seconds_per_step(draw, count: int, device: str = "cpu") -> list[float]:
    """Of each step but the first."""
    at: list[float] = []

    def note(*_):
        if device != "cpu":
            torch.cuda.synchronize()
        at.append(time.perf_counter())

    draw(count + 1, torch.Generator(device).manual_seed(0), note)
    return [later - earlier for earlier, later in itertools.pairwise(at)]
