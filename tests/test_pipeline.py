import copy
import functools
import itertools
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from together import together

from vqlearn import VQDiffusionPipeline, guidance, keeping
from vqlearn.networks import cost
from vqlearn.samplers import SAMPLERS

PROMPT = "a large red circle left of a small blue square"


def _draw(pipe, seed=0, **call):
    call = {"num_inference_steps": 4, "output_type": "latent", **call}
    return pipe(call.pop("prompt", PROMPT), generator=torch.Generator().manual_seed(seed), **call).images


def test_outputs_in_every_form(shallow):
    tokens = _draw(shallow)
    pictures = {form: _draw(shallow, output_type=form) for form in ("pil", "np", "pt")}
    assert tokens.shape == (1, 64) and tokens.dtype == torch.int64 and int(tokens.max()) < 1024
    assert isinstance(pictures["pil"][0], Image.Image) and pictures["pil"][0].size == (32, 32)
    assert pictures["np"].shape == (1, 32, 32, 3) and pictures["pt"].shape == (1, 3, 32, 32)
    np.testing.assert_array_equal(pictures["np"][0], pictures["pt"][0].permute(1, 2, 0))
    np.testing.assert_array_equal(np.asarray(pictures["pil"][0]), (pictures["np"][0] * 255).round().astype(np.uint8))
    torch.testing.assert_close(shallow.decode(tokens) / 2 + 0.5, pictures["pt"])


def test_tuple_and_batch(shallow):
    (images,) = shallow([PROMPT, "a star"], num_inference_steps=2, num_images_per_prompt=3, return_dict=False)
    assert len(images) == 6


def test_the_same_generator_gives_the_same_tokens(shallow):
    assert torch.equal(_draw(shallow, 1), _draw(shallow, 1))
    assert not torch.equal(_draw(shallow, 1), _draw(shallow, 2))


def test_a_generator_per_picture_makes_it_independent_of_its_batch(shallow):
    prompts = [PROMPT, "a small star", "a green cross"]
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    together = shallow(prompts, num_inference_steps=4, generator=generators, output_type="latent").images
    for row, (prompt, seed) in enumerate(zip(prompts, (5, 6, 7), strict=True)):
        generator = [torch.Generator().manual_seed(seed)]
        alone = shallow(prompt, num_inference_steps=4, generator=generator, output_type="latent").images
        assert torch.equal(together[row : row + 1], alone)


def test_a_run_begins_from_latents_that_are_given(shallow):
    """Under this schedule an unmasked token may stay: from x_T all of one code a run goes otherwise than from masks."""
    masks, code = torch.full((1, 64), 1024), torch.full((1, 64), 7)
    first = {}
    for name, latents in (("masks", masks), ("code", code)):
        keep = functools.partial(lambda step, _, x, n: first.setdefault(n, x), n=name)
        _draw(shallow, 3, latents=latents, times=[100, 98, 0], callback=keep)
    assert (first["masks"] == 1024).sum() > 50 and (first["code"] == 1024).sum() == 0


@pytest.mark.parametrize("count", [1, 3, 7, 100])
def test_any_number_of_steps_is_a_stride(shallow, count):
    seen = []
    tokens = _draw(shallow, num_inference_steps=count, callback=lambda *step: seen.append(step))
    assert [step for step, _, _ in seen] == list(range(count))
    times = [timestep for _, timestep, _ in seen]
    assert times[0] == 99 and all(a > b for a, b in itertools.pairwise(times))
    assert torch.equal(seen[-1][2], tokens)


def test_callback_steps(shallow):
    seen = []
    _draw(shallow, num_inference_steps=7, callback=lambda step, *_: seen.append(step), callback_steps=3)
    assert seen == [0, 3, 6]


def test_progress_bar_can_be_switched_off(shallow, capsys):
    _draw(shallow)
    assert capsys.readouterr().err == ""
    loud = VQDiffusionPipeline(**shallow.components)
    _draw(loud)
    assert "denoising" in capsys.readouterr().err


def test_guidance_is_the_formula(shallow):
    """Scale 1 is the text alone, 0 the null text alone, 3 extrapolates in log space and normalises."""
    x_t = torch.full((1, 64), 1024)
    log = {scale: shallow.denoiser(PROMPT, guidance_scale=scale)(x_t, 100) for scale in (0.0, 1.0, 3.0)}
    expected = (log[0.0] + 3 * (log[1.0] - log[0.0])).log_softmax(-1)
    torch.testing.assert_close(log[3.0], expected, atol=1e-4, rtol=1e-4)
    null = shallow.transformer(x_t, shallow.null_embeds(), torch.tensor(99)).log_softmax(-1)
    torch.testing.assert_close(log[0.0], null.detach(), atol=1e-5, rtol=1e-5)


def test_truncation_keeps_the_top(shallow):
    log_p = shallow.denoiser(PROMPT, truncation_rate=0.5)(torch.full((1, 64), 1024), 100)
    kept = (log_p > -torch.inf).sum(-1)
    assert 1 <= int(kept.min()) and int(kept.max()) < 1024


def test_components_are_shared(shallow):
    other = VQDiffusionPipeline(**shallow.components)
    assert other.transformer is shallow.transformer and other.device.type == "cpu"


def test_codec_round_trip(shallow):
    from vqlearn import scenes

    images = scenes.to_tensor([scenes.draw(scenes.sample("test", index)[0]) for index in range(8)])
    tokens = shallow.encode(images)
    assert tokens.shape == (8, 64)
    assert (shallow.decode(tokens) - images).abs().mean() < 0.05


WRONG = {
    "prompt must be a string or a non-empty list": {"prompt": []},
    "prompt must be a string or a non-empty list of strings, got 7": {"prompt": 7},
    "prompt must not be empty": {"prompt": "  "},
    "num_inference_steps must be a whole number from 1 to 100, got 0": {"num_inference_steps": 0},
    "num_inference_steps must be a whole number from 1 to 100, got 101": {"num_inference_steps": 101},
    "num_inference_steps must be a whole number from 1 to 100, got 2.5": {"num_inference_steps": 2.5},
    r"guidance_scale must be a number in \[0, 1000\], got -1": {"guidance_scale": -1},
    r"guidance_scale must be a number in \[0, 1000\], got nan": {"guidance_scale": float("nan")},
    r"guidance_scale must be a number in \[0, 1000\], got '2'": {"guidance_scale": "2"},
    r"truncation_rate must be a number in \[0, 1\], got 1.5": {"truncation_rate": 1.5},
    "num_images_per_prompt must be a whole number of at least 1, got 0": {"num_images_per_prompt": 0},
    "callback_steps must be a whole number of at least 1, got 0": {"callback_steps": 0},
    "output_type must be one of pil, np, pt, latent, got 'jpeg'": {"output_type": "jpeg"},
    r"generator must be one or a list of 1 \(one per picture\), got 2": {"generator": [torch.Generator()] * 2},
    r"latents must be int64 tokens \[1, 64\], got torch.int64 \[1, 32\]": {"latents": torch.zeros(1, 32).long()},
    r"latents must be int64 tokens \[1, 64\], got torch.float32": {"latents": torch.zeros(1, 64)},
    r"latents must be int64 tokens \[1, 64\], got list": {"latents": [0] * 64},
    r"latents must lie in 0 ... 1024 \(the mask\)": {"latents": torch.full((1, 64), 1025)},
    "latents must lie in 0 ... 1024": {"latents": torch.full((1, 64), -1)},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_arguments_are_named(shallow, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        shallow(**{"prompt": PROMPT, **WRONG[sentence]})
    assert "\n" not in str(caught.value)


def test_unknown_words_are_listed_with_what_is_known(shallow):
    with pytest.warns(UserWarning, match="never seen 'zebra'; it knows: a, above") as caught:
        shallow("a red zebra", num_inference_steps=1)
    assert len(caught) == 1
    assert shallow.conditions.unknown([PROMPT]) == []


def test_a_long_prompt_says_what_was_cut(shallow):
    with pytest.warns(UserWarning, match="longer than 32 tokens; this part was cut off: '.*star'"):
        shallow("a red circle and " * 8 + "a star", num_inference_steps=1)


@pytest.mark.parametrize(
    ("scale", "rows"), [(1.0, 2 * 3), (2.0, 2 * 2 * 3), (lambda t: 2.0 if t > 60 else 1.0, 3 + 2 * 3)]
)
def test_the_cost_counts_the_rows_of_all_evaluations(shallow, monkeypatch, scale, rows):
    """Three pictures in two steps, at t = 100 and 50; guided ones are two rows."""
    seen = []
    monkeypatch.setattr(
        "vqlearn.pipeline.cost.announce", lambda network, evaluations, pictures: seen.append((evaluations, pictures))
    )
    shallow(["a star"] * 3, num_inference_steps=2, guidance_scale=scale, output_type="latent")
    assert seen == [(2, rows)]


def test_a_long_run_on_a_cpu_is_announced_before_it_begins(shallow):
    with pytest.warns(
        UserWarning, match=r"about \d+.* (minutes|hours) on this CPU \(100 network evaluations of .* TFLOP each\)"
    ):
        cost.announce(shallow.transformer, 100, 100 * 20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cost.announce(shallow.transformer, 100, 100 * 8)  # a few seconds are not worth a word


# ------------------------------------------------------------------------------------------ samplers, guidance, editing


@pytest.mark.parametrize("name", [*SAMPLERS])
def test_every_sampler_has_a_name(shallow, name):
    """Each draws clean tokens, the same for the same seed, in at most as many evaluations as it was given steps."""
    if name == "first_hitting":
        with pytest.raises(ValueError, match="without replacement"):  # this model's schedule has some
            _draw(shallow, sampler=name)
        return
    tokens = _draw(shallow, sampler=name, num_inference_steps=5)
    assert tokens.shape == (1, 64) and int(tokens.max()) < 1024
    assert torch.equal(tokens, _draw(shallow, sampler=name, num_inference_steps=5))
    itself = shallow.scheduler if name == "reference" else SAMPLERS[name]
    assert torch.equal(tokens, _draw(shallow, sampler=itself, num_inference_steps=5))


def test_a_sampler_by_a_wrong_name(shallow):
    with pytest.raises(
        ValueError, match=r"sampler must be one of ancestral, corrector, .*, reference, or a function, got 'ddim'"
    ):
        _draw(shallow, sampler="ddim")


def test_given_times_are_the_times_of_the_walk(shallow):
    seen = []
    _draw(shallow, times=[100, 60, 10, 0], callback=lambda number, timestep, _: seen.append((number, timestep)))
    assert seen == [(0, 99), (1, 59), (2, 9)]
    assert torch.equal(_draw(shallow, times=range(100, -1, -25)), _draw(shallow, num_inference_steps=4))
    with pytest.raises(ValueError, match="times must begin with 100"):
        _draw(shallow, times=[50, 0])
    with pytest.raises(ValueError, match="fall strictly"):
        _draw(shallow, times=[100, 100, 0])


@pytest.fixture
def rows_seen(shallow):
    """How many rows the network is asked for, call by call."""
    seen = []
    handle = shallow.transformer.register_forward_hook(lambda module, given, logits: seen.append(len(logits)))
    yield seen
    handle.remove()


def test_guidance_within_an_interval_costs_half_outside(shallow, rows_seen):
    _draw(shallow, guidance_scale=guidance.within(2.0, 50, 75))  # at t = 100, 75, 50, 25
    assert rows_seen == [1, 2, 2, 1]
    rows_seen.clear()
    everywhere = _draw(shallow, guidance_scale=guidance.within(2.0, 0, 100))
    assert rows_seen == [2, 2, 2, 2]
    assert torch.equal(everywhere, _draw(shallow, guidance_scale=2.0))
    assert torch.equal(_draw(shallow, guidance_scale=guidance.within(2.0, 1, 2)), _draw(shallow, guidance_scale=1.0))


def test_a_schedule_of_scales_is_asked_at_each_time(shallow):
    asked = []
    _draw(shallow, guidance_scale=lambda t: asked.append(t) or 1.5)
    assert {25, 50, 75, 100} <= set(asked)
    with pytest.raises(ValueError, match=r"guidance_scale at t = 100 must be a number in .0, 1000., got 'much'"):
        _draw(shallow, guidance_scale=lambda t: "much")
    with pytest.raises(ValueError, match="high must be a whole number of at least 60, got 40"):
        guidance.within(2.0, 60, 40)


def test_the_null_text_alone_and_the_text_alone(shallow, rows_seen):
    """At scale 0 the words have no say, and at both ends one branch is enough."""
    other = "a small star"
    assert torch.equal(_draw(shallow, guidance_scale=0), _draw(shallow, guidance_scale=0, prompt=other))
    assert not torch.equal(_draw(shallow, guidance_scale=1), _draw(shallow, guidance_scale=1, prompt=other))
    assert set(rows_seen) == {1}


def test_a_negative_prompt_takes_the_place_of_the_null_text(shallow):
    x_t, negative = torch.full((1, 64), 1024), "a red circle"
    denoise = shallow.denoiser(PROMPT, guidance_scale=3.0, negative_prompt=negative)
    alone = [shallow.denoiser(text)(x_t, 80) for text in (PROMPT, negative)]
    torch.testing.assert_close(denoise(x_t, 80), guidance.guide(*alone, 3.0), atol=1e-4, rtol=1e-4)
    shallow.denoiser([PROMPT, PROMPT], guidance_scale=3.0, negative_prompt=[negative, "a star"])
    for wrong in (["a star"] * 3, 5, [None]):
        with pytest.raises(ValueError, match="negative_prompt must be a string or a list of 1 strings"):
            shallow.denoiser(PROMPT, guidance_scale=3.0, negative_prompt=wrong)


def test_top_k_leaves_k(shallow):
    x_t = torch.full((2, 64), 1024)
    log_p = shallow.denoiser([PROMPT, "a star"], top_k=3)(x_t, 50)
    assert bool(((log_p > -torch.inf).sum(-1) == 3).all())
    with pytest.raises(ValueError, match="top_k"):
        _draw(shallow, top_k=0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_a_batch_split_for_the_memory_draws_the_same(shallow, monkeypatch, rows_seen, scale):
    call = {"prompt": [PROMPT, "a star", "a small cross"], "num_images_per_prompt": 2, "guidance_scale": scale}
    monkeypatch.setattr(cost, "free_bytes", lambda device: 2**40)
    whole = _draw(shallow, **call)
    assert rows_seen[0] == 6 * (1 if scale in (0, 1) else 2)
    monkeypatch.setattr(cost, "free_bytes", lambda device: 1)  # room for less than one
    assert torch.equal(_draw(shallow, **call), whole)
    assert rows_seen[-1] == (1 if scale in (0, 1) else 2)


def test_a_call_holds_what_fits(shallow, monkeypatch):
    """Half as many pictures with two branches as with one; with little memory fewer, but never none."""
    monkeypatch.setattr(cost, "free_bytes", lambda device: 2**40)
    one, two = (cost.pictures_at_once(shallow.transformer, branches) for branches in (1, 2))
    assert one == 2 * two == 64 * torch.get_num_threads()
    needed = 64 * 2 * (12 + 1) * 128 * 4 + 64 * (2 * 2 + 4) * 1025 * 4  # bytes, of one picture with two branches
    monkeypatch.setattr(cost, "free_bytes", lambda device: 2 * 7.5 * needed)
    assert cost.pictures_at_once(shallow.transformer, 2) == 7
    monkeypatch.setattr(cost, "free_bytes", lambda device: 0)
    assert cost.pictures_at_once(shallow.transformer, 2) == 1


def test_free_memory_is_what_the_system_says():
    assert 2**20 < cost.free_bytes(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_lower(shallow, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(shallow, "_network", full)
    with pytest.raises(MemoryError, match="for 7 pictures at once: give fewer prompts, a lower num_images_per_prompt"):
        _draw(shallow, num_images_per_prompt=7)


def test_other_errors_stay_what_they_are(shallow, monkeypatch):
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(shallow, "_network", broken)
    with pytest.raises(RuntimeError, match="something else"):
        _draw(shallow)


def test_a_compiled_denoiser_predicts_the_same(shallow):
    """Compiled eagerly here: what torch.compile makes of it is its own matter, that the call reaches it is ours."""
    pipe = VQDiffusionPipeline(**shallow.components)
    x_t = torch.full((1, 64), 1024)
    expected = pipe.denoiser(PROMPT, guidance_scale=2.0)(x_t, 50)
    pipe.compile(backend="eager", mode=None)
    torch.testing.assert_close(pipe.denoiser(PROMPT, guidance_scale=2.0)(x_t, 50), expected)
    assert pipe._network is not shallow._network


@pytest.fixture(scope="module")
def picture(shallow):
    """A scene of the world, its tokens, and a mask over its upper left quarter that ends in the middle of a patch."""
    from vqlearn import scenes

    image = scenes.to_tensor([scenes.draw(scenes.sample("test", 3)[0])])
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:14, :17] = True
    return image, shallow.encode(image), mask


def test_a_mask_over_pixels_becomes_one_over_tokens(shallow, picture):
    tokens = shallow.token_mask(picture[2]).view(8, 8)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:4, :5] = True  # a patch of 4 x 4 pixels counts as soon as one of them is touched
    assert torch.equal(tokens, expected)
    as_image = Image.fromarray((picture[2].numpy() * 255).astype(np.uint8))
    assert torch.equal(shallow.token_mask(as_image).view(8, 8), expected)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "first_hitting"])
def test_inpainting_keeps_every_token_outside_the_mask(shallow, picture, name):
    image, x_0, mask = picture
    redrawn = shallow.token_mask(mask)
    call = {"num_inference_steps": 5, "output_type": "latent", "sampler": name}
    tokens = shallow.inpaint(image, mask, PROMPT, generator=torch.Generator().manual_seed(0), **call).images
    assert torch.equal(tokens[:, ~redrawn], x_0[:, ~redrawn])
    assert not torch.equal(tokens, x_0)
    nothing = shallow.inpaint(image, torch.zeros_like(mask), PROMPT, **call).images
    assert torch.equal(nothing, x_0)


def test_known_tokens_are_visible_from_the_start(shallow, picture):
    """To the network, at every evaluation, at times that fall (`keeping` says which); all others begin as masks."""
    image, x_0, mask = picture
    known, seen = ~shallow.token_mask(mask), []
    shallow.inpaint(
        image, mask, PROMPT, num_inference_steps=4, output_type="latent", generator=torch.Generator().manual_seed(0),
        on_predictions=lambda t, x_t, _: seen.append((t, x_t)),
    )  # fmt: skip
    times = [t for t, _ in seen]
    assert len(times) == 4 and times == sorted(set(times), reverse=True)
    assert all(torch.equal(x_t[:, known], x_0[:, known]) for _, x_t in seen)
    assert bool((seen[0][1][:, ~known] == 1024).all())


def test_inpainting_takes_pil_images_and_gives_several(shallow, picture):
    image, _, mask = picture
    as_image = Image.fromarray(((image[0] / 2 + 0.5) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8))
    as_mask = Image.fromarray((mask.numpy() * 255).astype(np.uint8))
    images = shallow.inpaint(as_image, as_mask, PROMPT, num_inference_steps=2, num_images_per_prompt=3).images
    assert len(images) == 3 and images[0].size == (32, 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"mask": torch.zeros(16, 16, dtype=torch.bool)},
            r"mask must be .* bool \[32, 32\], got torch.bool \[16, 16\]",
        ),
        ({"mask": torch.full((32, 32), 255.0)}, r"mask must lie in \[0, 1\], got values from 255"),
        ({"mask": "left"}, "mask must be .*got str"),
        ({"image": torch.zeros(3, 64, 64)}, "image must be 32 x 32 pixels"),
        ({"image": torch.zeros(32, 32)}, "image must be a PIL image or float"),
        ({"image": torch.zeros(2, 3, 32, 32)}, r"image must be one or 1 \(one per picture\), got 2"),
    ],
)
def test_inpainting_refuses_other_sizes(shallow, picture, change, words):
    call = {"image": picture[0], "mask": picture[2], **change}
    with pytest.raises(ValueError, match=words):
        shallow.inpaint(prompt=PROMPT, num_inference_steps=1, **call)


def test_variations_begin_at_the_pictures_own_noisy_tokens(shipped, picture):
    image, x_0, _ = picture
    call = {"output_type": "latent", "num_images_per_prompt": 8}
    changed = {}
    for strength in (0.05, 0.5, 1.0):
        steps = []
        tokens = shipped.variations(
            image, "a picture", strength, num_inference_steps=20, generator=torch.Generator().manual_seed(0),
            callback=lambda number, timestep, _, steps=steps: steps.append(timestep), guidance_scale=0, **call,
        ).images  # fmt: skip
        assert len(steps) == round(20 * strength) and steps[0] == round(100 * strength) - 1
        changed[strength] = float((tokens != x_0).float().mean())
    assert changed[0.05] <= changed[0.5] < changed[1.0]
    for wrong in (0, 1.5, "much"):
        with pytest.raises(ValueError, match=r"strength must be a number in \(0, 1\]"):
            shipped.variations(image, PROMPT, wrong)


def test_the_smallest_variation_is_one_step_from_t_1(shallow, picture):
    seen = []
    shallow.variations(picture[0], PROMPT, 1e-6, callback=lambda number, timestep, _: seen.append(timestep))
    assert seen == [0]


def test_keeping_passes_on_where_a_sampler_begins(shallow):
    known = (torch.arange(64) < 20)[None]
    kept = keeping.Keeping(SAMPLERS["halton"], torch.zeros(1, 64, dtype=torch.int64), known)
    start = kept.start(shallow.schedule, 1, 64)
    assert bool((start[known] == 0).all()) and bool((start[~known] == 1024).all())
    assert kept.times(shallow.schedule, 4) == [100, 75, 50, 25, 0]


@pytest.mark.parametrize("sampler", ["halton", SAMPLERS["ancestral"]])
def test_a_mask_of_its_own_for_each_picture(shallow, picture, sampler):
    """As a tensor [B, H, W], as a list of PIL images, and with a sampler by its name; each as if it were alone."""
    image, x_0, mask = picture
    masks = torch.stack([mask, mask.flip(1), torch.zeros_like(mask)])
    as_images = [Image.fromarray((one.numpy() * 255).astype(np.uint8)) for one in masks]
    call = {"num_inference_steps": 3, "output_type": "latent", "num_images_per_prompt": 3, "sampler": sampler}
    for given in (masks, as_images):
        generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
        tokens = shallow.inpaint(image, given, PROMPT, generator=generators, **call).images
        for row, one in zip(tokens, masks, strict=True):
            kept = ~shallow.token_mask(one)
            assert torch.equal(row[kept], x_0[0, kept])
        assert torch.equal(tokens[2], x_0[0]) and not torch.equal(tokens[0], x_0[0])
    with pytest.raises(ValueError, match="mask must be one or 2"):
        shallow.inpaint(image, masks, PROMPT, **{**call, "num_images_per_prompt": 2})


def test_a_float_mask_says_when_each_token_is_released(shallow, picture):
    """At 0.5 a token is known in the first half of the times and may change in the second; at 0 never, at 1 always."""
    image, x_0, _ = picture
    mask = torch.zeros(32, 32)
    mask[:, :16], mask[:16, 16:] = 1.0, 0.5
    amount, seen = shallow.token_mask(mask), []
    tokens = shallow.inpaint(
        image, mask, PROMPT, num_inference_steps=10, output_type="latent", generator=torch.Generator().manual_seed(0),
        on_predictions=lambda t, x_t, _: seen.append(x_t),
    ).images  # fmt: skip
    half = amount == 0.5
    assert set(amount.tolist()) == {0.0, 0.5, 1.0}
    assert torch.equal(tokens[:, amount == 0], x_0[:, amount == 0])
    assert torch.equal(seen[0][:, half], x_0[:, half]) and not torch.equal(seen[-1][:, half], x_0[:, half])


# ------------------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("sampler", ["ancestral", "reference", "scheduler"])
def test_calls_at_the_same_moment_draw_what_each_draws_alone(shallow, sampler):
    """Other prompts, lengths of text, steps and seeds, on one pipeline; nothing of it changes."""
    chosen = shallow.scheduler if sampler == "scheduler" else sampler
    prompts = ["a star", "a small red circle left of a large blue square", "a large green cross above a small star"]
    calls = [
        lambda number=number, prompt=prompt: _draw(
            shallow, number, prompt=prompt, num_inference_steps=2 + number, sampler=chosen
        )
        for number, prompt in enumerate(prompts)
    ]
    alone, timesteps = [call() for call in calls], shallow.scheduler.timesteps.clone()
    for expected, found in zip(alone, together(*calls), strict=True):
        assert all(torch.equal(expected, tokens) for tokens in found)
    assert torch.equal(shallow.scheduler.timesteps, timesteps)
    backend = shallow.tokenizer.backend_tokenizer
    assert backend.truncation is None and backend.padding is None


# ------------------------------------------------------------------------------------------ numbers, names and objects


def test_numbers_of_numpy_are_numbers(shallow):
    numbers = {"num_inference_steps": np.int64(3), "guidance_scale": np.float32(2), "truncation_rate": np.float64(0.5)}
    more = {"num_images_per_prompt": np.int32(2), "callback_steps": np.uint8(1), "top_k": np.int64(50)}
    plain = {"num_inference_steps": 3, "guidance_scale": 2.0, "truncation_rate": 0.5, "num_images_per_prompt": 2}
    assert torch.equal(_draw(shallow, **numbers, **more), _draw(shallow, **plain, top_k=50))
    assert torch.equal(_draw(shallow, times=np.array([100, 40, 0])), _draw(shallow, times=(100, 40, 0)))


OBJECTS = {
    "generator must be a torch.Generator, a list of them or None, got 5": {"generator": 5},
    "generator must be a torch.Generator, a list of them or None, got \\[1, 2\\]": {"generator": [1, 2]},
    "callback must be a function, got 5": {"callback": 5},
    "callback_on_step_end must be a function, got 'log'": {"callback_on_step_end": "log"},
    r"callback_on_step_end_tensor_inputs must be \['latents'\], got \['noise'\]": {
        "callback_on_step_end_tensor_inputs": ["noise"]
    },
    "latents must be a dense tensor with values, got torch.strided on meta": {
        "latents": torch.zeros(1, 64, dtype=torch.int64, device="meta")
    },
    "latents must be a dense tensor with values, got torch.sparse_coo": {
        "latents": torch.zeros(1, 64, dtype=torch.int64).to_sparse()
    },
    "on_predictions must be a function, got 5": {"on_predictions": 5},
    "callback_on_step_end must return a dict or None, got 'x'": {"callback_on_step_end": lambda *_: "x"},
    r"prompt embeddings must be \[1, 32, 96\] as those of the null text, got \[1, 4, 96\]": {
        "prompt": torch.zeros(1, 4, 96)
    },
    "num_images_per_prompt must be a whole number from 1 to 1048576, got 10": {"num_images_per_prompt": 10**18},
    "num_inference_steps must be a whole number from 1 to 100, got True": {"num_inference_steps": True},
    "each of times must be a whole number of at least 0, got 100.0": {"times": [100.0, 0.0]},
    "negative_prompt must be a string or a list of 1 strings": {"negative_prompt": 5, "guidance_scale": 1},
    "prompt must be a string or a non-empty list of strings, got b'a star'": {"prompt": b"a star"},
    "prompt must be a string or a non-empty list of strings, got \\(\\)": {"prompt": ()},
    r"prompt embeddings must be floating point \[B, S, 96\], .*float32 \[0, 4, 96\]": {"prompt": torch.zeros(0, 4, 96)},
    r"prompt embeddings must be floating point \[B, S, 96\], .*float32 \[1, 32, 64\]": {
        "prompt": torch.zeros(1, 32, 64)
    },
    r"prompt embeddings must be floating point \[B, S, 96\], .*float32 \[32, 96\]": {"prompt": torch.zeros(32, 96)},
    r"prompt embeddings must be floating point \[B, S, 96\], .*int64 \[1, 32, 96\]": {
        "prompt": torch.zeros(1, 32, 96, dtype=torch.int64)
    },
    "output_type must be one of pil, np, pt, latent, got \\['pil'\\]": {"output_type": ["pil"]},
    "prompt holds U.DC80, which is half a character": {"prompt": "a \udc80"},
}


@pytest.mark.parametrize("sentence", OBJECTS)
def test_objects_of_the_wrong_kind_are_named(shallow, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        shallow(**{"prompt": PROMPT, **OBJECTS[sentence]})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("steps", [0, -5, True, 1000, 2.0, "5", None])
def test_the_steps_of_variations_are_those_of_the_schedule(shallow, picture, steps):
    with pytest.raises(ValueError, match="num_inference_steps must be a whole number from 1 to 100, got "):
        shallow.variations(picture[0], PROMPT, num_inference_steps=steps)


@pytest.mark.parametrize("name", ["latents", "times"])
def test_what_variations_makes_itself_is_not_taken(shallow, picture, name):
    with pytest.raises(ValueError, match=f"{name} is what variations makes of the picture and of strength"):
        shallow.variations(picture[0], PROMPT, **{name: [100, 0]})


WRONG_STATES = {
    r"x_t must be int64 tokens \[4, 64\] \(a row for each prompt and copy\), got torch.int64 \[2, 64\]": (
        torch.full((2, 64), 1024),
        50,
    ),
    r"x_t must be int64 tokens \[4, 64\].*got torch.float32": (torch.zeros(4, 64), 50),
    r"x_t must be int64 tokens \[4, 64\].*got 'noise'": ("noise", 50),
    "x_t must be codes in 0 ... 1024|x_t": (torch.full((4, 64), 1025), 50),
    "t must be a whole number from 1 to 100, got 0": (torch.full((4, 64), 1024), 0),
    "t must be a whole number from 1 to 100, got 101": (torch.full((4, 64), 1024), 101),
    "t must be a whole number from 1 to 100, got 5.5": (torch.full((4, 64), 1024), torch.tensor(5.5)),
}


@pytest.mark.parametrize("sentence", WRONG_STATES)
def test_a_denoiser_is_asked_for_the_rows_that_it_was_made_for(shallow, sentence):
    for denoise in (shallow.denoiser([PROMPT, "a star"], num_images_per_prompt=2), shallow.predictions([PROMPT] * 4)):
        with pytest.raises(ValueError, match=sentence):
            denoise(*WRONG_STATES[sentence])


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("nonsense", r"to\('nonsense'\) names no device and no dtype"),
        (torch.int8, "the weights must have a floating-point dtype, got torch.int8"),
        ("meta", "device must be one that holds values, got 'meta'"),
        (1.5, r"to\(1.5\) names no device"),
    ],
)
def test_a_place_where_no_weights_can_be_is_named(shallow, where, sentence):
    with pytest.raises(ValueError, match=sentence):
        shallow.to(where)
    assert shallow.device.type == "cpu" and shallow.dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_named(shallow):
    for place in (lambda: shallow.to("cuda"), lambda: VQDiffusionPipeline.from_pretrained(device="cuda")):
        with pytest.raises(ValueError, match=r"device must be one that torch can use, got .*cuda"):
            place()


# ------------------------------------------------------------------------------------------ as scripts for diffusers do


def test_an_output_is_read_in_every_way(shallow):
    out = shallow(PROMPT, 1, output_type="numpy")
    (images,) = out
    assert out["images"] is out.images is out[0] is images and images.shape == (1, 32, 32, 3) and "images" in out
    pil = VQDiffusionPipeline.numpy_to_pil(images)
    assert np.array_equal(np.asarray(pil[0]), (images[0] * 255).round().astype(np.uint8))
    assert VQDiffusionPipeline.numpy_to_pil(images[0, ..., :1])[0].mode == "L"
    with pytest.raises(ValueError, match="images must be floats"):
        VQDiffusionPipeline.numpy_to_pil(np.zeros((4, 4)))


def test_what_happens_at_the_end_of_a_step_may_change_the_tokens(shallow):
    """Every token that is written to 7 after the first step stays 7 under this schedule's many masks, or is redrawn."""
    seen = []

    def at_end(pipe, number, timestep, tensors):
        seen.append((pipe is shallow, number, timestep, [*tensors]))
        return {"latents": torch.full_like(tensors["latents"], 7)}

    tokens = _draw(shallow, callback_on_step_end=at_end, callback_on_step_end_tensor_inputs=["latents"])
    assert seen == [
        (True, 0, 99, ["latents"]),
        (True, 1, 74, ["latents"]),
        (True, 2, 49, ["latents"]),
        (True, 3, 24, ["latents"]),
    ]
    assert bool((tokens == 7).all())
    assert torch.equal(_draw(shallow, callback_on_step_end=lambda *_: None), _draw(shallow))
    with pytest.raises(ValueError, match="latents must lie in 0"):
        _draw(shallow, callback_on_step_end=lambda *_: {"latents": torch.full((1, 64), 2000)})


def test_the_names_around_a_call(shallow, tmp_path, capsys):
    other = VQDiffusionPipeline.from_pipe(shallow, vqvae=None)
    assert other.transformer is shallow.transformer and other.vqvae is None and other.defaults == shallow.defaults
    with pytest.raises(TypeError, match="from_pipe takes a pipeline of vqlearn"):
        VQDiffusionPipeline.from_pipe(5)
    assert shallow.config["vqvae"] == ["diffusers", "VQModel"] and other.config.vqvae == [None, None]
    assert shallow.name_or_path == "scenes" and shallow.config._name_or_path == "scenes" and shallow.parameters == {}
    shallow.save_config(tmp_path)
    assert VQDiffusionPipeline.load_config(tmp_path) == dict(shallow.config)
    assert VQDiffusionPipeline.download("scenes").endswith("scenes")
    nothing = (
        "enable_attention_slicing disable_attention_slicing maybe_free_model_hooks remove_all_hooks reset_device_map"
    )
    for name in [*nothing.split(), "enable_model_cpu_offload", "enable_sequential_cpu_offload"]:
        assert getattr(shallow, name)() is None
    assert shallow.device.type == "cpu" or torch.cuda.is_available()
    shallow.to("cpu")
    with pytest.raises(ValueError, match=r"a pipeline has the parts vqvae, .*, got 'unet'"):
        other.register_modules(unet=None)
    other.set_progress_bar_config(disable=False)
    assert [*other.progress_bar([1, 2])] == [1, 2] and "2/2" in capsys.readouterr().err
    with pytest.raises(ValueError, match="progress_bar needs an iterable or a total"):
        other.progress_bar()


def test_a_compiled_transformer_takes_its_place(shallow):
    """As scripts do it: `pipe.transformer = torch.compile(pipe.transformer)`."""
    pipe = VQDiffusionPipeline.from_pipe(shallow)
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer = torch.compile(pipe.transformer, backend="eager", dynamic=False)
    assert torch.equal(_draw(pipe, num_inference_steps=2), _draw(shallow, num_inference_steps=2))


WRONG_PARTS = {
    "transformer must be a Transformer2DModel, got None": {"transformer": None},
    "scheduler must be a VQDiffusionScheduler, got 'ddim'": {"scheduler": "ddim"},
    "vqvae must be a VQModel, got 5": {"vqvae": 5},
    "text_encoder must be a CLIPTextModel, got 'clip'": {"text_encoder": "clip"},
    "tokenizer must be a CLIPTokenizer, got <": {"tokenizer": str.split},
    "learned_classifier_free_sampling_embeddings must be a Learned.*, got tensor": {
        "learned_classifier_free_sampling_embeddings": torch.zeros(1)
    },
}


@pytest.mark.parametrize("sentence", WRONG_PARTS)
def test_a_part_of_another_kind_is_named(shallow, sentence):
    with pytest.raises(ValueError, match=f"these parts cannot make a pipeline: {sentence}"):
        VQDiffusionPipeline(**shallow.components | WRONG_PARTS[sentence])
    with pytest.raises(ValueError, match=sentence):
        VQDiffusionPipeline.from_pretrained(**WRONG_PARTS[sentence])


def test_without_a_text_encoder_a_call_takes_embeddings(shallow, tmp_path):
    pipe = VQDiffusionPipeline.from_pipe(shallow, text_encoder=None, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)
    embeddings = shallow.encode_prompt(PROMPT)
    assert torch.equal(_draw(pipe, prompt=embeddings), _draw(shallow, prompt=embeddings))
    with pytest.raises(ValueError, match="this pipeline has no text encoder or no tokenizer: give prompt embeddings"):
        pipe(PROMPT)
    pipe.save_pretrained(tmp_path / "model")
    again = VQDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert again.text_encoder is None and again.tokenizer is None


def test_a_pipeline_without_a_codec_is_saved_and_loads(shallow, tmp_path):
    pipe = VQDiffusionPipeline.from_pipe(shallow, vqvae=None)
    pipe.save_pretrained(tmp_path / "model")
    again = VQDiffusionPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    assert again.vqvae is None and torch.equal(_draw(again), _draw(shallow))


# ------------------------------------------------------------------------------------------ options of loading


def test_options_of_diffusers_that_change_nothing(shallow):
    pipe = VQDiffusionPipeline.from_pretrained(
        "scenes", low_cpu_mem_usage=True, use_safetensors=True, variant=None, device_map={"": "cpu"}, dtype="float32",
        custom_pipeline=None, force_download=False, offload_folder="x", trust_remote_code=False,
    )  # fmt: skip
    assert pipe.device.type == "cpu" and torch.equal(pipe.transformer.out.weight, shallow.transformer.out.weight)


WRONG_OPTIONS = {
    "force_download=True has no meaning here: a file is fetched once": {"force_download": True},
    "quantization_config={.*} has no meaning here: weights are kept in floating point": {
        "quantization_config": {"b": 4}
    },
    "custom_pipeline='x/y' has no meaning here: no code is fetched": {"custom_pipeline": "x/y"},
    "device_map must name one device": {"device_map": {"vqvae": "cpu", "transformer": "meta"}},
    "variant must be a word such as 'fp16', got '../x'": {"variant": "../x"},
    "use_safetensors must be True, False or None, got 1": {"use_safetensors": 1},
    "subfolder must be a path, got 5": {"subfolder": 5},
    "torch_dtype must be 'auto', one of float16": {"torch_dtype": "int8"},
    "from_pretrained has no argument 'safety_checker'": {"safety_checker": 5},
}


@pytest.mark.parametrize("sentence", WRONG_OPTIONS)
def test_an_option_that_asks_for_something_else_says_why_not(sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        VQDiffusionPipeline.from_pretrained(**WRONG_OPTIONS[sentence])


@pytest.mark.parametrize(
    ("option", "sentence"),
    [({"safe_serialization": False}, "written as safetensors"), ({"push_to_hub": True}, "hf upload"),
     ({"variant": "fp16"}, "a folder of its own"), (None, "folder must be a path, got 5")],
)  # fmt: skip
def test_an_option_of_saving_that_asks_for_something_else_says_why_not(shallow, tmp_path, option, sentence):
    with pytest.raises(ValueError, match=sentence):
        shallow.save_pretrained(tmp_path / "model" if option else 5, **option or {})
    assert not (tmp_path / "model").exists()


def test_a_model_in_a_folder_of_another_with_parts_of_ones_own(shallow, tmp_path):
    shallow.save_pretrained(tmp_path / "all" / "model", safe_serialization=True, max_shard_size="10GB")
    pipe = VQDiffusionPipeline.from_pretrained(
        tmp_path / "all", subfolder="model", vqvae=None, scheduler=shallow.scheduler
    )
    assert pipe.vqvae is None and pipe.scheduler is shallow.scheduler
    assert torch.equal(pipe.transformer.out.weight, shallow.transformer.out.weight)


def test_weights_of_a_variant(shallow, tmp_path):
    """The transformer has one, of other numbers; the other parts are read from their only files."""
    shallow.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "checksums.json").unlink()
    folder = tmp_path / "model" / "transformer"
    other = copy.deepcopy(shallow.transformer)
    torch.nn.init.zeros_(other.out.bias)
    other.save_pretrained(tmp_path / "other")
    written = tmp_path / "other" / "diffusion_pytorch_model.safetensors"
    written.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    plain, variant = (VQDiffusionPipeline.from_pretrained(tmp_path / "model", variant=name) for name in (None, "fp16"))
    assert torch.equal(plain.transformer.out.bias, shallow.transformer.out.bias)
    assert not bool(variant.transformer.out.bias.any()) and variant.vqvae is not None
    alone = type(other).from_pretrained(tmp_path / "model", subfolder="transformer", variant="fp16")
    assert not bool(alone.out.bias.any())
    for option, sentence in (
        ({"variant": "ema"}, "no weights of the variant 'ema'"),
        ({"use_safetensors": False}, "model.bin is missing"),
    ):
        with pytest.raises(OSError, match=sentence):
            VQDiffusionPipeline.from_pretrained(tmp_path / "model", **option)
