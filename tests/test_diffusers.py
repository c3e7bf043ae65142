"""The pipeline beside diffusers': its golden outputs, and the living package with the same random weights."""

import json
import warnings

import numpy as np
import pytest
import torch

from vqlearn import (
    LearnedClassifierFreeSamplingEmbeddings,
    Sampler,
    Transformer2DModel,
    VQDiffusionPipeline,
    VQDiffusionScheduler,
    VQModel,
)
from vqlearn.drop_in import ABSENT
from vqlearn.networks.models import KERNELS, NETWORKS

PARTS = ("vqvae", "transformer", "text_encoder", "learned_classifier_free_sampling_embeddings")


@pytest.fixture(scope="module")
def golden(data):
    return np.load(data / "golden_tiny_pipeline.npz")


@pytest.fixture(scope="module")
def meta(golden):
    return json.loads(str(golden["meta_json"]))


@pytest.fixture(scope="module")
def pipe(data):
    """The golden pipeline with a scheduler that steps as diffusers does."""
    pipe = VQDiffusionPipeline.from_pretrained(data / "tiny_pipeline")
    ends = {key: value for key, value in pipe.scheduler.config.items() if key.endswith(("start", "end"))}
    pipe.scheduler = VQDiffusionScheduler(33, 100, **ends, spacing="consecutive")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-5), (torch.float64, 1e-10)])
def test_network_and_codec(data, golden, dtype, tolerance):
    pipe = VQDiffusionPipeline.from_pretrained(data / "tiny_pipeline", torch_dtype=dtype)
    tokens = torch.tensor(golden["tr_x"])
    text = torch.tensor(golden["prompt_embeds_cfg"]).to(dtype)
    for t in (0, 1, 50, 99):
        with torch.no_grad():
            logits = pipe.transformer(tokens, text, torch.tensor(t))
        if dtype == torch.float64 and t != 1:
            torch.testing.assert_close(logits, torch.tensor(golden[f"tr_logits64_t{t}"]), atol=tolerance, rtol=0)
        if dtype == torch.float32:
            expected = torch.tensor(golden[f"tr_logprob_t{t}"]).transpose(1, 2)
            torch.testing.assert_close(logits.log_softmax(-1), expected, atol=tolerance, rtol=0)
    suffix = "64" if dtype == torch.float64 else ""
    with torch.no_grad():
        drawn = pipe.vqvae.decode(torch.tensor(golden["vq_idx"]))
        latents = pipe.vqvae.latents(torch.tensor(golden["vq_image"]).to(dtype))
    torch.testing.assert_close(drawn, torch.tensor(golden[f"vq_decode{suffix}"]).to(dtype), atol=tolerance, rtol=0)
    torch.testing.assert_close(latents, torch.tensor(golden[f"vq_encode{suffix}"]).to(dtype), atol=tolerance, rtol=0)
    assert pipe.encode(torch.tensor(golden["vq_image"])).tolist() == golden["vq_encode_idx"].tolist()


def test_text(pipe, golden, meta):
    prompts = meta["prompts"]
    text, null = pipe.encode_prompt(prompts), pipe.null_embeds()
    torch.testing.assert_close(text, torch.tensor(golden["prompt_embeds_nocfg"]), atol=1e-5, rtol=0)
    both = torch.cat([null.expand(4, -1, -1), text.repeat_interleave(2, 0)])
    torch.testing.assert_close(both, torch.tensor(golden["prompt_embeds_cfg_n2"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", "ABCDEF")
def test_trajectories_token_by_token(pipe, golden, meta, name):
    case, prompts = meta["cases"][name], meta["prompts"]
    seen, predictions = [], {}

    class Watched(Sampler):
        """The scheduler as a sampler, with a note of what is predicted."""

        start, times = pipe.scheduler.start, pipe.scheduler.times

        def __call__(self, denoise, x_t, schedule, times, **more):
            def noted(x_t, t):
                predictions[len(seen)] = denoise(x_t, t).transpose(1, 2)
                return predictions[len(seen)].transpose(1, 2)

            return pipe.scheduler(noted, x_t, schedule, times, **more)

    images = pipe(
        prompts, case["n"], case["gs"], case["tr_rate"], case.get("npp", 1),
        torch.Generator().manual_seed(case["seed"]), output_type="np", sampler=Watched(),
        callback=lambda number, timestep, tokens: seen.append((timestep, tokens.clone())),
    ).images  # fmt: skip
    assert [timestep for timestep, _ in seen] == list(range(case["n"] - 1, -1, -1))
    for number, (_, tokens) in enumerate(seen):
        assert tokens.tolist() == golden[f"traj_{name}/x"][number].tolist(), f"after step {number}"
    np.testing.assert_allclose(images, golden[f"traj_{name}/image"], atol=2e-5)
    for key in golden.files:
        if key.startswith(f"traj_{name}/log_p_x_0_step"):
            theirs = torch.tensor(golden[key])
            ours = predictions[int(key.rpartition("step")[2])].clamp(min=-70)
            torch.testing.assert_close(ours.exp(), theirs.exp(), atol=2e-5, rtol=0)
            if case["tr_rate"] < 1:  # at 1 theirs drops what comes after a rounded sum reaches 1, ours nothing
                assert torch.equal(ours == -70, theirs == -70)


# ------------------------------------------------------------------------------------------ the living package


@pytest.fixture(scope="module")
def peer(data):
    """The same weights in diffusers, put together from its parts, since it cannot load the folder."""
    pytest.importorskip("diffusers", reason="diffusers is not installed, so nothing is compared with it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers
        from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
            LearnedClassifierFreeSamplingEmbeddings,
        )
        from transformers import CLIPTextModel, CLIPTokenizer

        folder = data / "tiny_pipeline"
        parts = {
            "vqvae": diffusers.VQModel.from_pretrained(folder / "vqvae"),
            "transformer": diffusers.Transformer2DModel.from_pretrained(folder / "transformer"),
            "scheduler": diffusers.VQDiffusionScheduler.from_pretrained(folder / "scheduler"),
            "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
            "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            "learned_classifier_free_sampling_embeddings": LearnedClassifierFreeSamplingEmbeddings.from_pretrained(
                folder / "learned_classifier_free_sampling_embeddings"
            ),
        }
        generator = torch.Generator().manual_seed(5)
        for name in PARTS:
            for parameter in parts[name].parameters():
                parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        pipe = diffusers.VQDiffusionPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.filterwarnings("ignore")
def test_what_diffusers_saves_is_read_and_draws_the_same(peer, tmp_path, seeded):
    peer.save_pretrained(tmp_path)
    ours = VQDiffusionPipeline.from_pretrained(tmp_path)
    for name in PARTS:
        theirs = dict(getattr(peer, name).state_dict())
        for key, tensor in getattr(ours, name).state_dict().items():
            assert torch.equal(tensor, theirs[key]), f"{name}: {key}"
    ours.set_progress_bar_config(disable=True)
    ours.scheduler = VQDiffusionScheduler(33, 100, spacing="consecutive")
    prompt = ["a teddy bear playing in the pool", "red circle on the left!"]
    call = {"num_inference_steps": 12, "guidance_scale": 3.0, "truncation_rate": 0.9, "output_type": "np"}
    drawn = ours(prompt, generator=seeded(1), sampler=ours.scheduler, **call).images
    expected = peer(prompt, generator=seeded(1), **call).images
    np.testing.assert_allclose(drawn, expected, atol=1e-4)
    assert isinstance(ours(prompt, generator=seeded(1), sampler=ours.scheduler, return_dict=False, **call), tuple)


@pytest.mark.filterwarnings("ignore")
def test_what_we_save_diffusers_parts_read(pipe, tmp_path):
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    pipe.save_pretrained(tmp_path)
    with torch.no_grad():
        codec = diffusers.VQModel.from_pretrained(tmp_path / "vqvae")
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        torch.testing.assert_close(codec(images).sample, pipe.vqvae(images).sample, atol=1e-5, rtol=0)
        network = diffusers.Transformer2DModel.from_pretrained(tmp_path / "transformer").eval()
        tokens, text = torch.randint(33, (2, 64)), pipe.encode_prompt(["a", "b"])
        theirs = network(tokens, encoder_hidden_states=text, timestep=torch.tensor(3)).sample
        ours = pipe.transformer(tokens, text, torch.tensor(3)).log_softmax(-1).transpose(1, 2)
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    scheduler = diffusers.VQDiffusionScheduler.from_pretrained(tmp_path / "scheduler")
    torch.testing.assert_close(scheduler.log_cumprod_at[:-1].double().exp(), pipe.schedule.alpha_bar[1:])
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    text = "a Teddy bear!"
    assert tokenizer(text)["input_ids"] == pipe.tokenizer(text)["input_ids"]
    assert tokenizer.pad_token_id == 0 and tokenizer.model_max_length == 16
    encoder = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    ids = torch.tensor([tokenizer(text, padding="max_length")["input_ids"]])
    torch.testing.assert_close(encoder(ids)[0], pipe.text_encoder(ids)[0])


@pytest.mark.filterwarnings("ignore")
def test_a_script_for_diffusers_runs_with_the_import_line_changed(peer, pipe, tmp_path):
    """One text, run with either import line."""
    script = """
import torch
{line}
pipe = load(VQDiffusionPipeline)
pipe = pipe.to("cpu")
pipe.set_progress_bar_config(disable=True)
seen = []
output = pipe("teddy bear playing in the pool", num_inference_steps=4, guidance_scale=2.0, truncation_rate=0.9,
              num_images_per_prompt=2, generator=torch.Generator().manual_seed(0),
              callback=lambda step, timestep, tokens: seen.append((step, int(timestep), tokens.shape)),
              callback_steps=2)
picture = output.images[0]
again = type(pipe)(**pipe.components)
result = (picture.size, picture.mode, len(output.images), seen[0][2], again.transformer is pipe.transformer)
"""
    peer_names: dict = {"load": lambda kind: kind(**peer.components)}
    our_names: dict = {"load": lambda kind: kind(**pipe.components)}
    exec(script.format(line="from diffusers import VQDiffusionPipeline"), peer_names)
    exec(script.format(line="from vqlearn import VQDiffusionPipeline"), our_names)
    assert peer_names["result"] == our_names["result"]
    assert [step for step, *_ in peer_names["seen"]] == [step for step, *_ in our_names["seen"]] == [0, 2]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.86, 0.999])
def test_truncation_class_first_as_in_the_pipeline_of_diffusers(pipe, rate):
    module = pytest.importorskip("diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion")
    log_p = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0)).double().log_softmax(1)
    theirs = module.VQDiffusionPipeline.truncate(None, log_p, rate)
    assert torch.equal(pipe.truncate(log_p, rate), theirs)


# ------------------------------------------------------------------------------------------ every name of the peer


def ours(pipe, kind):
    return {
        "VQDiffusionPipeline": pipe,
        "VQDiffusionScheduler": pipe.scheduler,
        "Transformer2DModel": pipe.transformer,
        "VQModel": pipe.vqvae,
    }[kind]


KINDS = ["VQDiffusionPipeline", "VQDiffusionScheduler", "Transformer2DModel", "VQModel"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_every_public_name_of_the_installed_diffusers_works_or_says_why_not(pipe, kind):
    """A name that a new version brings, and that is neither here nor in a table of sentences, fails this test."""
    peer = getattr(pytest.importorskip("diffusers", reason="diffusers is not installed"), kind)
    names = {name for name in dir(peer) if not name.startswith("_")}
    assert len(names) > 20
    assert not {name for name in names if not hasattr(ours(pipe, kind), name)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_meaning_says_why_in_one_sentence(pipe, kind):
    answers = {
        name for name in dir(type(ours(pipe, kind))) if "Not here: " in (getattr(ours(pipe, kind), name).__doc__ or "")
    }
    assert answers
    for name in answers:
        method, sentence = getattr(ours(pipe, kind), name), rf"{name}: [^\n]{{20,}}"
        if name in KERNELS or name.endswith(("slicing", "tiling")):  # a script is right without it
            with pytest.warns(UserWarning, match=sentence):
                assert method("anything") is None
        else:
            with pytest.raises(NotImplementedError, match=sentence):
                method("anything", push=True)
    wanted = {"VQDiffusionPipeline": ABSENT, "VQDiffusionScheduler": {}}.get(kind, NETWORKS | KERNELS)
    assert answers >= wanted.keys() | {"push_to_hub", "register_for_auto_class"}


# ------------------------------------------------------------------------------------------ called as the peer's are


def same(found, expected):
    """Equal numbers, under the same names, as attributes, items and in order."""
    assert [*found.keys()] == [*expected.keys()]
    for number, name in enumerate(expected):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
        assert found[number] is found[name] is getattr(found, name)


@torch.no_grad()
def test_the_codec_is_called_as_the_peers(peer, pipe, tmp_path):
    peer.vqvae.save_pretrained(tmp_path)
    codec, theirs = VQModel.from_pretrained(tmp_path, torch_dtype=torch.float32), peer.vqvae
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    same(codec(images), theirs(images))
    latents = theirs.encode(images).latents
    torch.testing.assert_close(codec.encode(images).latents, latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(codec.encode(images, return_dict=False)[0], latents, atol=1e-5, rtol=0)
    for call in ({}, {"force_not_quantize": True}):
        same(codec.decode(latents, **call), theirs.decode(latents, **call))
        pairs = zip(
            codec.decode(latents, return_dict=False, **call),
            theirs.decode(latents, return_dict=False, **call),
            strict=True,
        )
        for found, expected in pairs:
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    _, loss, (_, _, codes) = theirs.quantize(latents)
    assert codec.quantize(latents)[2][2].tolist() == codes.tolist() == codec.encode(images).flatten().tolist()
    torch.testing.assert_close(codec.quantize(latents)[1], loss)
    shape = (2, *latents.shape[2:], latents.shape[1])
    found, expected = (one.quantize.get_codebook_entry(codes, shape) for one in (codec, theirs))
    assert torch.equal(found, expected)
    assert torch.equal(codec.decode(found, force_not_quantize=True).sample, codec.decode(codec.encode(images)))


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_the_transformer_is_called_as_the_peers(peer, tmp_path):
    peer.transformer.save_pretrained(tmp_path)
    network = Transformer2DModel.from_pretrained(tmp_path)
    x_t = torch.randint(33, (2, 64), generator=torch.Generator().manual_seed(0))
    text, t = torch.randn(2, 16, network.config.cross_attention_dim), torch.tensor(40)
    expected = peer.transformer(x_t, encoder_hidden_states=text, timestep=t)
    same(network(x_t, encoder_hidden_states=text, timestep=t), expected)
    same(network(hidden_states=x_t, encoder_hidden_states=text, timestep=40, attention_mask=None), expected)
    (alone,) = network(x_t, text, t, return_dict=False)
    torch.testing.assert_close(alone, expected.sample, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(x_t, text, t).log_softmax(-1).transpose(1, 2), alone)
    with pytest.raises(ValueError, match="attention_mask must be None: every token attends to every other"):
        network(x_t, encoder_hidden_states=text, timestep=t, attention_mask=torch.ones(2, 64))


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_loop_by_hand_over_the_parts_is_the_peers(peer, pipe, tmp_path):
    """As research scripts have it: network, scheduler and codec without the pipeline, with either's parts."""
    peer.save_pretrained(tmp_path)
    mine = VQDiffusionPipeline.from_pretrained(tmp_path)
    text = mine.encode_prompt(["a red circle"])

    def run(transformer, scheduler, vqvae):
        generator, tokens = torch.Generator().manual_seed(0), torch.full((1, 64), 32)
        scheduler.set_timesteps(5)
        for t in scheduler.timesteps:
            log_p = transformer(tokens, encoder_hidden_states=text, timestep=t).sample.clamp(-70)
            tokens = scheduler.step(log_p, t, sample=tokens, generator=generator).prev_sample
        vectors = vqvae.quantize.get_codebook_entry(tokens, (1, 8, 8, vqvae.config.vq_embed_dim))
        return vqvae.decode(vectors, force_not_quantize=True).sample

    scheduler = VQDiffusionScheduler.from_config(mine.scheduler.config, spacing="consecutive")
    found, expected = run(mine.transformer, scheduler, mine.vqvae), run(peer.transformer, peer.scheduler, peer.vqvae)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------ parts of one's own


def tiny(codes=12, steps=12, network_steps=12, **more):
    """The parts that a test of the peer is made of, smaller; its codec has one code more than is drawn."""
    torch.manual_seed(0)
    pipe_text = VQDiffusionPipeline.from_pretrained()
    width = pipe_text.text_encoder.config.hidden_size
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    network = Transformer2DModel(
        attention_bias=True, cross_attention_dim=width, attention_head_dim=8, num_attention_heads=1,
        num_vector_embeds=codes, num_embeds_ada_norm=network_steps, norm_num_groups=32, sample_size=4,
        activation_fn="geglu-approximate",
    )  # fmt: skip
    parts = {
        "vqvae": VQModel(
            block_out_channels=[32, 64], in_channels=3, out_channels=3, latent_channels=3, vq_embed_dim=3,
            num_vq_embeddings=codes, **blocks,
        ),
        "text_encoder": pipe_text.text_encoder, "tokenizer": pipe_text.tokenizer, "transformer": network,
        "scheduler": VQDiffusionScheduler(codes, steps),
    }  # fmt: skip
    return parts | more


@pytest.mark.parametrize("learnable", [None, False, True])
def test_a_pipeline_of_parts_as_the_peers_test_makes_them(learnable, tmp_path):
    parts = tiny()
    if learnable is not None:
        size = {"hidden_size": parts["text_encoder"].config.hidden_size, "length": parts["tokenizer"].model_max_length}
        parts["learned_classifier_free_sampling_embeddings"] = LearnedClassifierFreeSamplingEmbeddings(
            learnable, **size
        )
    pipe = VQDiffusionPipeline(**parts).to("cpu")
    pipe.set_progress_bar_config(disable=None)
    call = {"num_inference_steps": 2, "output_type": "np"}
    images = pipe(["teddy bear"], generator=torch.Generator().manual_seed(0), **call).images
    as_tuple = pipe(["teddy bear"], generator=torch.Generator().manual_seed(0), return_dict=False, **call)[0]
    assert images.shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(images, as_tuple)
    pipe.save_pretrained(tmp_path / "model", safe_serialization=True)
    again = VQDiffusionPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    np.testing.assert_array_equal(
        again(["teddy bear"], generator=torch.Generator().manual_seed(0), **call).images, images
    )


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"steps": 100}, "the steps of scheduler and transformer differ: 100 and 12"),
        (
            {"scheduler": VQDiffusionScheduler(13, 12)},
            "the codes of the scheduler and of the transformer differ: 12 and 11",
        ),
        (
            {"vqvae": VQModel(block_out_channels=[32], num_vq_embeddings=10)},
            "of the transformer and of the codec differ: 11 and 10",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_named_when_the_pipeline_is_made(parts, sentence):
    with pytest.raises(ValueError, match=f"these parts cannot make a pipeline: the .*{sentence[4:]}"):
        VQDiffusionPipeline(**tiny(**parts))


def test_parts_that_are_replaced_are_looked_at_by_the_next_call(shipped):
    pipe = VQDiffusionPipeline.from_pipe(shipped)
    pipe.scheduler = VQDiffusionScheduler(1025, 50)
    with pytest.raises(ValueError, match="the steps of scheduler and transformer differ: 50 and 100"):
        pipe("a star")
    other = VQDiffusionPipeline.from_pretrained().transformer
    other.out.bias.data[7] = 1e4
    pipe.register_modules(scheduler=VQDiffusionScheduler(1025), transformer=other)
    pipe.set_progress_bar_config(disable=True)
    assert bool((pipe("a star", 1, 1.0, output_type="latent").images == 7).all())


@pytest.mark.parametrize("part", ["transformer", "vqvae"])
def test_a_network_is_made_from_its_configuration(pipe, part):
    """What changes a network is never left out in silence."""
    network = getattr(pipe, part)
    again = type(network).from_config({**network.config, "_diffusers_version": "0.30.0"})
    shapes = [{name: one.shape for name, one in each.state_dict().items()} for each in (network, again)]
    assert again.config == network.config and shapes[0] == shapes[1]
    with pytest.raises(ValueError, match="has no setting depth; what changes a network is never left out"):
        type(network).from_config({**network.config, "depth": 3})
    made, unused = type(network).from_config(network.config, return_unused_kwargs=True, depth=3)
    assert made.config == network.config and unused == {"depth": 3}


def test_the_numbers_and_bytes_of_a_network_are_counted(pipe):
    """By hand, of the two tables and of all tensors."""
    network = pipe.transformer
    tables = [one.weight for one in network.modules() if isinstance(one, torch.nn.Embedding)]
    numbers = sum(one.numel() for one in network.parameters())
    assert tables and network.num_parameters() == network.num_parameters(only_trainable=True) == numbers
    assert network.num_parameters(exclude_embeddings=True) == numbers - sum(one.numel() for one in tables)
    tensors = sum(one.nbytes for one in (*network.parameters(), *network.buffers()))
    weights = sum(one.nbytes for one in network.parameters())
    assert (network.get_memory_footprint(), network.get_memory_footprint(False)) == (tensors, weights)


@pytest.mark.parametrize(
    "line",
    ["pipe.vqvae.enable_slicing()", "pipe.transformer.enable_xformers_memory_efficient_attention()",
     "pipe.enable_xformers_memory_efficient_attention()", "pipe.transformer.num_layers",
     "type(pipe.scheduler).from_config({**pipe.scheduler.config, 'beta_start': 1})"],
)  # fmt: skip
def test_a_warning_shows_the_line_that_has_caused_it(pipe, line):
    with pytest.warns((UserWarning, FutureWarning)) as caught:
        exec(compile(line, "a user's script", "exec"), {"pipe": pipe})
    assert [one.filename for one in caught] == ["a user's script"]
