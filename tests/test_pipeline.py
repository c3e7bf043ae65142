import itertools
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from vqlearn import VQDiffusionPipeline, guidance, keeping
from vqlearn.networks import cost
from vqlearn.samplers import SAMPLERS

PROMPT = "a large red circle left of a small blue square"


def _draw(pipe, seed=0, **call):
    call = {"num_inference_steps": 4, "output_type": "latent", **call}
    return pipe(call.pop("prompt", PROMPT), generator=torch.Generator().manual_seed(seed), **call).images


def test_outputs_in_every_form(shipped):
    tokens = _draw(shipped)
    pictures = {form: _draw(shipped, output_type=form) for form in ("pil", "np", "pt")}
    assert tokens.shape == (1, 64) and tokens.dtype == torch.int64 and int(tokens.max()) < 1024
    assert isinstance(pictures["pil"][0], Image.Image) and pictures["pil"][0].size == (32, 32)
    assert pictures["np"].shape == (1, 32, 32, 3) and pictures["pt"].shape == (1, 3, 32, 32)
    np.testing.assert_array_equal(pictures["np"][0], pictures["pt"][0].permute(1, 2, 0))
    np.testing.assert_array_equal(np.asarray(pictures["pil"][0]), (pictures["np"][0] * 255).round().astype(np.uint8))
    torch.testing.assert_close(shipped.decode(tokens) / 2 + 0.5, pictures["pt"])


def test_tuple_and_batch(shipped):
    (images,) = shipped([PROMPT, "a star"], num_inference_steps=2, num_images_per_prompt=3, return_dict=False)
    assert len(images) == 6


def test_the_same_generator_gives_the_same_tokens(shipped):
    assert torch.equal(_draw(shipped, 1), _draw(shipped, 1))
    assert not torch.equal(_draw(shipped, 1), _draw(shipped, 2))


def test_a_generator_per_picture_makes_it_independent_of_its_batch(shipped):
    prompts = [PROMPT, "a small star", "a green cross"]
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    together = shipped(prompts, num_inference_steps=4, generator=generators, output_type="latent").images
    for row, (prompt, seed) in enumerate(zip(prompts, (5, 6, 7), strict=True)):
        generator = [torch.Generator().manual_seed(seed)]
        alone = shipped(prompt, num_inference_steps=4, generator=generator, output_type="latent").images
        assert torch.equal(together[row : row + 1], alone)


def test_latents_start_the_walk(shipped):
    """Under this schedule an unmasked token may stay: x_T all of one code is walked back from otherwise than masks."""
    masks, code = torch.full((1, 64), 1024), torch.full((1, 64), 7)
    first = {}
    for name, latents in (("masks", masks), ("code", code)):
        _draw(
            shipped,
            3,
            latents=latents,
            num_inference_steps=50,
            callback=lambda step, _, x, n=name: first.setdefault(n, x),
        )
    assert (first["masks"] == 1024).sum() > 50 and (first["code"] == 1024).sum() == 0


@pytest.mark.parametrize("count", [1, 3, 7, 100])
def test_any_number_of_steps_is_a_stride(shipped, count):
    seen = []
    tokens = _draw(shipped, num_inference_steps=count, callback=lambda *step: seen.append(step))
    assert [step for step, _, _ in seen] == list(range(count))
    times = [timestep for _, timestep, _ in seen]
    assert times[0] == 99 and all(a > b for a, b in itertools.pairwise(times))
    assert torch.equal(seen[-1][2], tokens)


def test_callback_steps(shipped):
    seen = []
    _draw(shipped, num_inference_steps=7, callback=lambda step, *_: seen.append(step), callback_steps=3)
    assert seen == [0, 3, 6]


def test_progress_bar_can_be_switched_off(shipped, capsys):
    _draw(shipped)
    assert capsys.readouterr().err == ""
    loud = VQDiffusionPipeline(**shipped.components)
    _draw(loud)
    assert "denoising" in capsys.readouterr().err


def test_guidance_is_the_formula(shipped):
    """Scale 1 is the text alone, 0 the null text alone, 3 extrapolates in log space and normalises."""
    x_t = torch.full((1, 64), 1024)
    log = {scale: shipped.denoiser(PROMPT, guidance_scale=scale)(x_t, 100) for scale in (0.0, 1.0, 3.0)}
    expected = (log[0.0] + 3 * (log[1.0] - log[0.0])).log_softmax(-1)
    torch.testing.assert_close(log[3.0], expected, atol=1e-4, rtol=1e-4)
    null = shipped.transformer(x_t, shipped.null_embeds(), torch.tensor(99)).log_softmax(-1)
    torch.testing.assert_close(log[0.0], null.detach(), atol=1e-5, rtol=1e-5)


def test_truncation_keeps_the_top(shipped):
    log_p = shipped.denoiser(PROMPT, truncation_rate=0.5)(torch.full((1, 64), 1024), 100)
    kept = (log_p > -torch.inf).sum(-1)
    assert 1 <= int(kept.min()) and int(kept.max()) < 1024


def test_components_are_shared(shipped):
    other = VQDiffusionPipeline(**shipped.components)
    assert other.transformer is shipped.transformer and other.device.type == "cpu"


def test_codec_round_trip(shipped):
    from vqlearn import scenes

    images = scenes.to_tensor([scenes.draw(scenes.sample("test", index)[0]) for index in range(8)])
    tokens = shipped.encode(images)
    assert tokens.shape == (8, 64)
    assert (shipped.decode(tokens) - images).abs().mean() < 0.05


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
def test_wrong_arguments_are_named(shipped, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        shipped(**{"prompt": PROMPT, **WRONG[sentence]})
    assert "\n" not in str(caught.value)


def test_unknown_words_are_listed_with_what_is_known(shipped):
    with pytest.warns(UserWarning, match="never seen 'zebra'; it knows: a, above") as caught:
        shipped("a red zebra", num_inference_steps=1)
    assert len(caught) == 1
    assert shipped.conditions.unknown([PROMPT]) == []


def test_a_long_prompt_says_what_was_cut(shipped):
    with pytest.warns(UserWarning, match="longer than 32 tokens; this part was cut off: '.*star'"):
        shipped("a red circle and " * 8 + "a star", num_inference_steps=1)


def test_a_long_run_on_a_cpu_is_announced_before_it_begins(shipped):
    with pytest.warns(
        UserWarning, match=r"about \d+.* (minutes|hours) on this CPU \(100 network calls of .* TFLOP each\)"
    ):
        cost.announce(shipped.transformer, 100, 100 * 20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cost.announce(shipped.transformer, 100, 100 * 8)  # a few seconds are not worth a word


# ------------------------------------------------------------------------------------------ samplers, guidance, editing


@pytest.mark.parametrize("name", [*SAMPLERS])
def test_every_sampler_has_a_name(shipped, name):
    """Each draws clean tokens, the same for the same seed, in at most as many network calls as it was given steps."""
    if name == "first_hitting":
        with pytest.raises(ValueError, match="without replacement"):  # this model's schedule has some
            _draw(shipped, sampler=name)
        return
    tokens = _draw(shipped, sampler=name, num_inference_steps=5)
    assert tokens.shape == (1, 64) and int(tokens.max()) < 1024
    assert torch.equal(tokens, _draw(shipped, sampler=name, num_inference_steps=5))
    itself = shipped.scheduler if name == "reference" else SAMPLERS[name]
    assert torch.equal(tokens, _draw(shipped, sampler=itself, num_inference_steps=5))


def test_a_sampler_by_a_wrong_name(shipped):
    with pytest.raises(
        ValueError, match=r"sampler must be one of ancestral, corrector, .*, reference, or a function, got 'ddim'"
    ):
        _draw(shipped, sampler="ddim")


def test_given_times_are_the_times_of_the_walk(shipped):
    seen = []
    _draw(shipped, times=[100, 60, 10, 0], callback=lambda number, timestep, _: seen.append((number, timestep)))
    assert seen == [(0, 99), (1, 59), (2, 9)]
    assert torch.equal(_draw(shipped, times=range(100, -1, -25)), _draw(shipped, num_inference_steps=4))
    with pytest.raises(ValueError, match="times must begin with 100"):
        _draw(shipped, times=[50, 0])
    with pytest.raises(ValueError, match="fall strictly"):
        _draw(shipped, times=[100, 100, 0])


@pytest.fixture
def rows_seen(shipped):
    """How many rows the network is asked for, call by call."""
    seen = []
    handle = shipped.transformer.register_forward_hook(lambda module, given, logits: seen.append(len(logits)))
    yield seen
    handle.remove()


def test_guidance_within_an_interval_costs_half_outside(shipped, rows_seen):
    _draw(shipped, guidance_scale=guidance.within(2.0, 50, 75))  # at t = 100, 75, 50, 25
    assert rows_seen == [1, 2, 2, 1]
    rows_seen.clear()
    everywhere = _draw(shipped, guidance_scale=guidance.within(2.0, 0, 100))
    assert rows_seen == [2, 2, 2, 2]
    assert torch.equal(everywhere, _draw(shipped, guidance_scale=2.0))
    assert torch.equal(_draw(shipped, guidance_scale=guidance.within(2.0, 1, 2)), _draw(shipped, guidance_scale=1.0))


def test_a_schedule_of_scales_is_asked_at_each_time(shipped):
    asked = []
    _draw(shipped, guidance_scale=lambda t: asked.append(t) or 1.5)
    assert {25, 50, 75, 100} <= set(asked)
    with pytest.raises(ValueError, match="guidance_scale at t = 100 must be a number in .0, 1000., got 'much'"):
        _draw(shipped, guidance_scale=lambda t: "much")
    with pytest.raises(ValueError, match="high must be a whole number of at least 60, got 40"):
        guidance.within(2.0, 60, 40)


def test_the_null_text_alone_and_the_text_alone(shipped, rows_seen):
    """At scale 0 the words have no say, and at both ends one branch is enough."""
    other = "a small star"
    assert torch.equal(_draw(shipped, guidance_scale=0), _draw(shipped, guidance_scale=0, prompt=other))
    assert not torch.equal(_draw(shipped, guidance_scale=1), _draw(shipped, guidance_scale=1, prompt=other))
    assert set(rows_seen) == {1}


def test_a_negative_prompt_takes_the_place_of_the_null_text(shipped):
    x_t, negative = torch.full((1, 64), 1024), "a red circle"
    denoise = shipped.denoiser(PROMPT, guidance_scale=3.0, negative_prompt=negative)
    alone = [shipped.denoiser(text)(x_t, 80) for text in (PROMPT, negative)]
    torch.testing.assert_close(denoise(x_t, 80), guidance.guide(*alone, 3.0), atol=1e-4, rtol=1e-4)
    shipped.denoiser([PROMPT, PROMPT], guidance_scale=3.0, negative_prompt=[negative, "a star"])
    for wrong in (["a star"] * 3, 5, [None]):
        with pytest.raises(ValueError, match="negative_prompt must be a string or a list of 1 strings"):
            shipped.denoiser(PROMPT, guidance_scale=3.0, negative_prompt=wrong)


def test_top_k_leaves_k(shipped):
    x_t = torch.full((2, 64), 1024)
    log_p = shipped.denoiser([PROMPT, "a star"], top_k=3)(x_t, 50)
    assert bool(((log_p > -torch.inf).sum(-1) == 3).all())
    with pytest.raises(ValueError, match="top_k"):
        _draw(shipped, top_k=0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_a_batch_split_for_the_memory_draws_the_same(shipped, monkeypatch, rows_seen, scale):
    call = {"prompt": [PROMPT, "a star", "a small cross"], "num_images_per_prompt": 2, "guidance_scale": scale}
    monkeypatch.setattr(cost, "free_bytes", lambda device: 2**40)
    whole = _draw(shipped, **call)
    assert rows_seen[0] == 6 * (1 if scale in (0, 1) else 2)
    monkeypatch.setattr(cost, "free_bytes", lambda device: 1)  # room for less than one
    assert torch.equal(_draw(shipped, **call), whole)
    assert rows_seen[-1] == (1 if scale in (0, 1) else 2)


def test_a_call_holds_what_fits(shipped, monkeypatch):
    """Half as many pictures with two branches as with one; with little memory fewer, but never none."""
    monkeypatch.setattr(cost, "free_bytes", lambda device: 2**40)
    one, two = (cost.pictures_at_once(shipped.transformer, branches) for branches in (1, 2))
    assert one == 2 * two == 64 * torch.get_num_threads()
    needed = 64 * 2 * (12 + 1) * 128 * 4 + 64 * (2 * 2 + 4) * 1025 * 4  # bytes, of one picture with two branches
    monkeypatch.setattr(cost, "free_bytes", lambda device: 2 * 7.5 * needed)
    assert cost.pictures_at_once(shipped.transformer, 2) == 7
    monkeypatch.setattr(cost, "free_bytes", lambda device: 0)
    assert cost.pictures_at_once(shipped.transformer, 2) == 1


def test_free_memory_is_what_the_system_says():
    assert 2**20 < cost.free_bytes(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_lower(shipped, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(shipped, "_network", full)
    with pytest.raises(MemoryError, match="for 7 pictures at once: give fewer prompts, a lower num_images_per_prompt"):
        _draw(shipped, num_images_per_prompt=7)


def test_other_errors_stay_what_they_are(shipped, monkeypatch):
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(shipped, "_network", broken)
    with pytest.raises(RuntimeError, match="something else"):
        _draw(shipped)


def test_a_compiled_denoiser_believes_the_same(shipped):
    """Compiled eagerly here: what torch.compile makes of it is its own matter, that the call reaches it is ours."""
    pipe = VQDiffusionPipeline(**shipped.components)
    x_t = torch.full((1, 64), 1024)
    expected = pipe.denoiser(PROMPT, guidance_scale=2.0)(x_t, 50)
    pipe.compile(backend="eager", mode=None)
    torch.testing.assert_close(pipe.denoiser(PROMPT, guidance_scale=2.0)(x_t, 50), expected)
    assert pipe._network is not shipped._network


@pytest.fixture(scope="module")
def picture(shipped):
    """A scene of the world, its tokens, and a mask over its upper left quarter that ends in the middle of a patch."""
    from vqlearn import scenes

    image = scenes.to_tensor([scenes.draw(scenes.sample("test", 3)[0])])
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:14, :17] = True
    return image, shipped.encode(image), mask


def test_a_mask_over_pixels_becomes_one_over_tokens(shipped, picture):
    tokens = shipped.token_mask(picture[2]).view(8, 8)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:4, :5] = True  # a patch of 4 x 4 pixels counts as soon as one of them is touched
    assert torch.equal(tokens, expected)
    as_image = Image.fromarray((picture[2].numpy() * 255).astype(np.uint8))
    assert torch.equal(shipped.token_mask(as_image).view(8, 8), expected)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "first_hitting"])
def test_inpainting_keeps_every_token_outside_the_mask(shipped, picture, name):
    image, x_0, mask = picture
    redrawn = shipped.token_mask(mask)
    call = {"num_inference_steps": 5, "output_type": "latent", "sampler": name}
    tokens = shipped.inpaint(image, mask, PROMPT, generator=torch.Generator().manual_seed(0), **call).images
    assert torch.equal(tokens[:, ~redrawn], x_0[:, ~redrawn])
    assert not torch.equal(tokens, x_0)
    nothing = shipped.inpaint(image, torch.zeros_like(mask), PROMPT, **call).images
    assert torch.equal(nothing, x_0)


def test_known_tokens_are_visible_from_the_start(shipped, picture):
    """To the network, at every evaluation, at times that fall (`keeping` says which); all others begin as masks."""
    image, x_0, mask = picture
    known, seen = ~shipped.token_mask(mask), []
    shipped.inpaint(
        image, mask, PROMPT, num_inference_steps=4, output_type="latent", generator=torch.Generator().manual_seed(0),
        on_predictions=lambda t, x_t, _: seen.append((t, x_t)),
    )  # fmt: skip
    times = [t for t, _ in seen]
    assert len(times) == 4 and times == sorted(set(times), reverse=True)
    assert all(torch.equal(x_t[:, known], x_0[:, known]) for _, x_t in seen)
    assert bool((seen[0][1][:, ~known] == 1024).all())


def test_inpainting_takes_pil_images_and_gives_several(shipped, picture):
    image, _, mask = picture
    as_image = Image.fromarray(((image[0] / 2 + 0.5) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8))
    as_mask = Image.fromarray((mask.numpy() * 255).astype(np.uint8))
    images = shipped.inpaint(as_image, as_mask, PROMPT, num_inference_steps=2, num_images_per_prompt=3).images
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
def test_inpainting_refuses_other_sizes(shipped, picture, change, words):
    call = {"image": picture[0], "mask": picture[2], **change}
    with pytest.raises(ValueError, match=words):
        shipped.inpaint(prompt=PROMPT, num_inference_steps=1, **call)


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


def test_the_smallest_variation_is_one_step_from_t_1(shipped, picture):
    seen = []
    shipped.variations(picture[0], PROMPT, 1e-6, callback=lambda number, timestep, _: seen.append(timestep))
    assert seen == [0]


def test_keeping_passes_on_where_a_sampler_begins(shipped):
    known = (torch.arange(64) < 20)[None]
    kept = keeping.Keeping(SAMPLERS["halton"], torch.zeros(1, 64, dtype=torch.int64), known)
    start = kept.start(shipped.schedule, 1, 64)
    assert bool((start[known] == 0).all()) and bool((start[~known] == 1024).all())
    assert kept.times(shipped.schedule, 4) == [100, 75, 50, 25, 0]
