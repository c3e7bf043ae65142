import itertools
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from vqlearn import VQDiffusionPipeline

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
    "guidance_scale must be a number from 0 to 1000, got -1": {"guidance_scale": -1},
    "guidance_scale must be a number from 0 to 1000, got nan": {"guidance_scale": float("nan")},
    "guidance_scale must be a number from 0 to 1000, got '2'": {"guidance_scale": "2"},
    r"truncation_rate must lie in \[0, 1\], got 1.5": {"truncation_rate": 1.5},
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
    assert shipped.unknown_words([PROMPT]) == []


def test_a_long_prompt_says_what_was_cut(shipped):
    with pytest.warns(UserWarning, match="longer than 32 tokens; this part was cut off: '.*star'"):
        shipped("a red circle and " * 8 + "a star", num_inference_steps=1)


def test_a_long_run_on_a_cpu_is_announced_before_it_begins(shipped):
    with pytest.warns(
        UserWarning, match=r"about \d+.* (minutes|hours) on this CPU \(100 network calls of .* TFLOP each\)"
    ):
        shipped._announce(100, 20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shipped._announce(100, 8)  # a few seconds are not worth a word
