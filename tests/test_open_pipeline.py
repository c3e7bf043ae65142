"""What a user may bring to the pipeline: a schedule, a sampler, scales per token, sequences without pictures."""

import copy
import json
import warnings

import pytest
import torch

import vqlearn
from vqlearn import MaskReplaceSchedule, Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler

PROMPT = "a small red circle"


@pytest.fixture
def pipe(shallow):
    return copy.deepcopy(shallow)


def schedules() -> dict[str, MaskReplaceSchedule]:
    """Linear ones and others; "peak" replaces most half-way and only masks at the end, in the manner of SCDD."""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    cosine = torch.cos(t * torch.pi / 2)
    return {
        "released": MaskReplaceSchedule.released(1024),
        "cosine": MaskReplaceSchedule(cosine, 1 - cosine, num_codes=1024),
        "mask only": MaskReplaceSchedule(1 - t, t, num_codes=1024),
        "uniform only": MaskReplaceSchedule(1 - t, 0 * t, num_codes=1024),
        "peak": MaskReplaceSchedule((1 - t) * (1 - 0.8 * t), t, num_codes=1024),
        "late": MaskReplaceSchedule(1 - t**3, 0.5 * t**3, num_codes=1024),
        "paper, moved": MaskReplaceSchedule.from_ends(num_codes=1024, gamma_end=0.7, alpha_end=0.01),
    }


SCHEDULES = schedules()


def test_a_codec_may_have_codes_that_the_network_lacks_and_gives_none(pipe):
    """Published codecs do. A picture of such a code has no tokens for the network; a picture of others has."""
    settings = {name: value for name, value in pipe.transformer.config.items() if name[0] != "_"}
    images = torch.stack([torch.full((3, 32, 32), value) for value in (-0.86, 0.0, 0.91)])  # black, gray, white
    found = pipe.encode(images)
    few, many = found.amax(1).argmin(), found.amax(1).argmax()
    most, token = int(found[few].max()) + 1, int(found[many].max())
    assert most <= token
    pipe.transformer = Transformer2DModel(**{**settings, "num_vector_embeds": most + 1})
    pipe.scheduler = VQDiffusionScheduler(most + 1)
    assert torch.equal(pipe.encode(images[few][None]), found[few][None])
    with pytest.raises(ValueError, match=f"the codec gave token {token}, the transformer has {most} codes"):
        pipe.encode(images)


# ------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_takes_the_place_of_another_is_saved_and_comes_back_equal(pipe, tmp_path, name):
    schedule = SCHEDULES[name]
    pipe.schedule = schedule
    drawn = pipe(PROMPT, 6, generator=torch.Generator().manual_seed(0), output_type="latent").images
    pipe.save_pretrained(tmp_path / "model")
    again = VQDiffusionPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    assert again.schedule == schedule and pipe.schedule == schedule
    assert torch.equal(again.schedule.alpha_bar, schedule.alpha_bar)
    assert torch.equal(again.schedule.between(3, 70).beta, schedule.between(3, 70).beta)
    assert torch.equal(drawn, again(PROMPT, 6, generator=torch.Generator().manual_seed(0), output_type="latent").images)


def test_another_schedule_draws_other_tokens(pipe):
    def draw():
        return pipe(PROMPT, 6, generator=torch.Generator().manual_seed(0), output_type="latent").images

    before = draw()
    pipe.schedule = SCHEDULES["uniform only"]
    assert not torch.equal(before, draw())


def test_a_linear_schedule_is_written_in_the_keys_of_diffusers(pipe, tmp_path):
    pipe.schedule = SCHEDULES["paper, moved"]
    pipe.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "scheduler" / "scheduler_config.json").read_text())
    assert config["gamma_cum_end"] == 0.7 and config["alpha_cum_end"] == 0.01 and "alpha_bar" not in config


def test_diffusers_does_not_read_another_schedule_for_it(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    VQDiffusionScheduler.from_schedule(SCHEDULES["cosine"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert "alpha_bar and gamma_bar are its curves, and vqlearn reads them" in config["alpha_cum_end"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TypeError):
            diffusers.VQDiffusionScheduler.from_pretrained(tmp_path)


def test_a_schedule_of_another_size_is_refused(pipe):
    with pytest.raises(ValueError, match="this network has 1024 codes and 100 steps, the schedule 7 and 100"):
        pipe.schedule = MaskReplaceSchedule.paper(7)
    with pytest.raises(ValueError, match="the schedule 1024 and 50"):
        pipe.schedule = MaskReplaceSchedule.paper(1024, 50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha_bar": [1.0, 0.5]}, "1024|lengths|steps"),
        ({"gamma_bar": "none"}, "does not describe a schedule"),
        ({"num_train_timesteps": 99}, "num_train_timesteps is 99, the curves have 100 steps"),
        ({"alpha_bar": None}, "does not describe a schedule"),
    ],
)
def test_damaged_curves_are_one_clear_error(pipe, tmp_path, change, message):
    pipe.schedule = SCHEDULES["cosine"]
    pipe.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "checksums.json").unlink()
    path = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(vqlearn.CheckpointError, match=message):
        VQDiffusionPipeline.from_pretrained(tmp_path / "model")


# ------------------------------------------------------------------------------------------ predictions


@torch.no_grad()
def test_one_pass_gives_both_predictions(pipe):
    """As two passes of the network by hand, with the text and with the null text."""
    x_t = torch.randint(1025, (2, 64), generator=torch.Generator().manual_seed(0))
    prompts = [PROMPT, "a large blue square"]
    found = pipe.predictions(prompts)(x_t, 60)
    timestep, text = torch.tensor(59), pipe.encode_prompt(prompts)
    by_hand = pipe.transformer(x_t, text, timestep).log_softmax(-1)
    null = pipe.transformer(x_t, pipe.null_embeds().expand(2, -1, -1), timestep).log_softmax(-1)
    torch.testing.assert_close(found.conditional, by_hand, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.unconditional, null, atol=1e-4, rtol=0)
    guided = pipe.denoiser(prompts, guidance_scale=3.0)(x_t, 60)
    expected = (null + 3 * (by_hand - null)).log_softmax(-1)
    torch.testing.assert_close(guided.exp(), expected.exp(), atol=1e-4, rtol=0)


def test_predictions_have_gradients_where_they_are_asked_for(pipe):
    x_t = torch.full((1, 64), 1024)
    embeddings = pipe.encode_prompt([PROMPT]).clone().requires_grad_()
    pipe.predictions(embeddings)(x_t, 60).conditional.amax(-1).sum().backward()
    assert float(embeddings.grad.abs().sum()) > 0
    with torch.no_grad():
        assert not pipe.predictions(PROMPT)(x_t, 60).conditional.requires_grad


def test_a_callback_sees_the_predictions_of_every_evaluation(pipe):
    seen = []
    pipe(
        [PROMPT, "a small blue square"], 4, 2.0, output_type="latent",
        on_predictions=lambda t, x_t, predictions: seen.append((t, x_t, predictions)),
    )  # fmt: skip
    assert [t for t, *_ in seen] == [100, 75, 50, 25]
    for t, x_t, (conditional, unconditional) in seen:
        expected = pipe.predictions(prompt=[PROMPT, "a small blue square"])(x_t, t)
        torch.testing.assert_close(conditional, expected.conditional, atol=1e-3, rtol=0)
        torch.testing.assert_close(unconditional, expected.unconditional, atol=1e-3, rtol=0)
    alone = []
    pipe(PROMPT, 1, 1.0, on_predictions=lambda t, x_t, predictions: alone.append(predictions))
    assert alone[0].unconditional is None and alone[0].conditional.shape == (1, 64, 1024)


@torch.no_grad()
def test_embeddings_take_the_place_of_a_prompt(pipe):
    call = {"num_inference_steps": 3, "output_type": "latent"}
    by_text = pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call).images
    by_embeddings = pipe(pipe.encode_prompt([PROMPT]), generator=torch.Generator().manual_seed(0), **call).images
    assert torch.equal(by_text, by_embeddings)
    with pytest.raises(ValueError, match=r"must be floating point \[B, S, 96\], got torch.float32 \[1, 4\]"):
        pipe(torch.zeros(1, 4))


def test_the_prompt_is_read_once_per_call(pipe, monkeypatch):
    calls = []
    handle = pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    image = pipe(PROMPT, 2).images[0]
    assert len(calls) == 1
    pipe.inpaint(image, torch.ones(32, 32, dtype=torch.bool), PROMPT, num_inference_steps=2)
    assert len(calls) == 2
    handle.remove()


# ------------------------------------------------------------------------------------------ scales


@torch.no_grad()
def test_a_scale_per_picture_and_per_token(pipe):
    """Each row, and each token, is guided as by its own number."""
    x_t = torch.randint(1025, (2, 64), generator=torch.Generator().manual_seed(1))
    prompts = [PROMPT, "a large blue square"]
    by_number = {w: pipe.denoiser(prompts, guidance_scale=w)(x_t, 50) for w in (0.0, 1.0, 2.5)}
    rows = pipe.denoiser(prompts, guidance_scale=torch.tensor([2.5, 1.0]))(x_t, 50)
    torch.testing.assert_close(rows[0].exp(), by_number[2.5][0].exp(), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows[1].exp(), by_number[1.0][1].exp(), atol=1e-5, rtol=0)
    scale = torch.zeros(2, 64)
    scale[:, ::2] = 2.5
    tokens = pipe.denoiser(prompts, guidance_scale=scale)(x_t, 50)
    torch.testing.assert_close(tokens[:, ::2].exp(), by_number[2.5][:, ::2].exp(), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens[:, 1::2].exp(), by_number[0.0][:, 1::2].exp(), atol=1e-5, rtol=0)
    assert pipe(prompts, 2, scale, output_type="latent").images.shape == (2, 64)
    same = [pipe.denoiser(prompts, guidance_scale=one)(x_t, 50) for one in (2.5, torch.tensor(2.5))]
    assert torch.equal(*same)  # a tensor of one number is that number


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (torch.ones(3), r"guidance_scale must be a number or \[2\] or \[2, 64\], got \[3\]"),
        (torch.ones(2, 63), r"got \[2, 63\]"),
        (torch.tensor(-1.0), "guidance_scale must be a number in"),
        (torch.ones(2, 64, 2), r"got \[2, 64, 2\]"),
        (torch.tensor([1.0, -1.0]), "must hold numbers from 0 to 1000"),
        (torch.tensor([1.0, float("nan")]), "must hold numbers from 0 to 1000"),
    ],
)
def test_a_wrong_tensor_of_scales_is_named(pipe, scale, message):
    with pytest.raises(ValueError, match=message):
        pipe([PROMPT, PROMPT], 2, scale)


def test_a_split_batch_keeps_the_scale_of_each_row(pipe, monkeypatch):
    prompts, scale = [PROMPT] * 3, torch.tensor([0.5, 2.0, 4.0])

    def draw():
        generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
        return pipe(prompts, 3, scale, generator=generators, output_type="latent").images

    whole = draw()
    monkeypatch.setattr("vqlearn.networks.cost.pictures_at_once", lambda transformer, branches: 2)
    assert torch.equal(whole, draw())


# ------------------------------------------------------------------------------------------ sequences


@pytest.fixture
def sequence():
    torch.manual_seed(0)
    network = Transformer2DModel(
        2, 8, 2, None, 8, sample_size=11, num_embeds_ada_norm=100, feed_forward_mult=2, positions="sequence"
    ).eval()
    pipe = VQDiffusionPipeline(None, None, None, network, VQDiffusionScheduler(8))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_sequences_are_drawn_saved_and_loaded_without_a_codec(sequence, tmp_path):
    def draw(pipe):
        return pipe(num_inference_steps=5, output_type="latent", generator=torch.Generator().manual_seed(0)).images

    tokens = draw(sequence)
    assert tokens.shape == (1, 11) and int(tokens.max()) < 7
    sequence.schedule = MaskReplaceSchedule(1 - torch.arange(101) / 100, torch.arange(101) / 100, num_codes=7)
    sequence.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "vqvae").exists()
    again = VQDiffusionPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(draw(again), draw(sequence)) and again.vqvae is None


def test_what_needs_a_codec_says_so(sequence):
    for call in (
        lambda: sequence(num_inference_steps=2),
        lambda: sequence.decode(torch.zeros(1, 11, dtype=torch.int64)),
    ):
        with pytest.raises(ValueError, match="this model has no codec, it draws tokens: use output_type='latent'"):
            call()


@torch.no_grad()
def test_each_position_of_a_sequence_has_a_vector_of_its_own(sequence):
    """A sequence knows no rows: two positions of one code differ, whatever the distance."""
    embedded = sequence.transformer.latent_image_embedding(torch.zeros(1, 11, dtype=torch.int64))[0]
    distances = torch.cdist(embedded, embedded)
    assert float(distances.fill_diagonal_(torch.inf).min()) > 0
    log_p = sequence.predictions()(torch.zeros(1, 11, dtype=torch.int64), 5)
    assert log_p.conditional.shape == (1, 11, 7)


def test_a_sequence_has_no_grid():
    for wrong in ({"feed_forward": "convolution"}, {"num_positions": 5}):
        with pytest.raises(ValueError, match="a sequence has sample_size positions and no grid"):
            Transformer2DModel(positions="sequence", **wrong)
    with pytest.raises(ValueError, match="positions must be 'grid' or 'sequence', got 'line'"):
        Transformer2DModel(positions="line")


@pytest.mark.parametrize(
    "part", ["transformer", "text_encoder", "vqvae", "learned_classifier_free_sampling_embeddings"]
)
def test_a_part_may_be_in_another_precision(part):
    """A user of diffusers casts one, to save memory or to be exact."""
    pipe = VQDiffusionPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "latent"}
    usual = pipe("a red star", generator=torch.Generator().manual_seed(1), **call).images
    getattr(pipe, part).to(torch.bfloat16)
    found = pipe("a red star", generator=torch.Generator().manual_seed(1), **call).images
    assert float((found == usual).double().mean()) > 0.5  # of tokens that are near ties in bfloat16
    assert pipe.decode(found).isfinite().all()
    assert pipe.encode_prompt("a red star").dtype == pipe.dtype
