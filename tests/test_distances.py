"""Distances of sets of pictures, features, reconstruction: right values, honest errors, and measures that measure."""

import itertools
import json
import sys

import efficientnet
import numpy as np
import pytest
import torch

from vqlearn import assets
from vqlearn.data import emoji, scenes
from vqlearn.evaluation import distances, features
from vqlearn.evaluation.clip_score import ClipScore
from vqlearn.evaluation.distances import (
    frechet_across,
    frechet_distance,
    kernel_distance,
    mean,
    nearest,
    share_smaller,
)
from vqlearn.evaluation.features import features_of, find_features, pixels
from vqlearn.evaluation.reconstruction import codebook, reconstruction, ssim


def draws(count, width, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, width, generator=generator) @ mix + shift


# ------------------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize(("width", "count"), [(3, 40), (30, 12)])
def test_the_frechet_distance_is_the_formula(width, count):
    """The trace of (A B)^1/2 is the sum of the singular values of X Y^T, where A = X^T X and B = Y^T Y."""
    real, drawn = draws(count, width, 1).double(), draws(count + 5, width, 2, shift=0.3).double()
    x = (real - real.mean(0)) / (len(real) - 1) ** 0.5
    y = (drawn - drawn.mean(0)) / (len(drawn) - 1) ** 0.5
    means = (real.mean(0) - drawn.mean(0)).square().sum()
    expected = means + x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum()
    assert frechet_distance(real, drawn) == pytest.approx(float(expected), rel=1e-5)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-4)


def test_the_frechet_distance_of_a_sample_is_too_large_and_the_kernel_distance_is_not():
    """Of two samples of one distribution; the kernel distance's mean over them is 0 within its error."""
    pairs = [(draws(40, 8, seed), draws(40, 8, 1000 + seed)) for seed in range(60)]
    frechet = mean(torch.tensor([frechet_distance(*pair) for pair in pairs]))
    kernel = mean(torch.tensor([kernel_distance(*pair).value for pair in pairs]))
    assert frechet.value > 20 * frechet.standard_error
    assert abs(kernel.value) < 4 * kernel.standard_error


@pytest.mark.parametrize(("shift", "most"), [(0.0, 2.0), (3.0, 1.3)])
def test_the_error_of_the_kernel_distance_is_what_it_scatters(shift, most):
    """Where two sets are alike the jackknife's error is too large, by up to the root of 2."""
    found = [kernel_distance(draws(50, 6, seed), draws(50, 6, 1000 + seed, shift)) for seed in range(200)]
    claimed = np.mean([one.standard_error**2 for one in found]) ** 0.5
    assert 0.75 < claimed / np.std([one.value for one in found]) < most


def test_the_kernel_distance_is_the_mean_of_the_definition_over_subsets(monkeypatch):
    monkeypatch.setattr(distances, "LEAST", 3)
    monkeypatch.setattr(distances, "SUBSET", 4)
    real, drawn = draws(7, 4, 1).double(), draws(7, 4, 2, shift=0.5).double()
    order, found = torch.randperm(7, generator=torch.Generator().manual_seed(5)).tolist(), []

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 4 + 1) ** 3

    def of(some):
        x, y = real[some].tolist(), drawn[some].tolist()
        pairs = list(itertools.permutations(range(len(some)), 2))
        same = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs)
        return (same - 2 * sum(kernel(x[i], y[j]) for i, j in pairs)) / len(pairs)

    for some in (order[:4], order[4:]):
        without = [of([i for i in some if i != left]) for left in some]
        found.append((of(some), (len(some) - 1) ** 2 / len(some) * np.var(without, ddof=1)))
    distance = kernel_distance(real, drawn, seed=5)
    assert distance.value == pytest.approx((found[0][0] + found[1][0]) / 2)
    assert distance.standard_error == pytest.approx((found[0][1] + found[1][1]) ** 0.5 / 2)


def test_what_was_drawn_for_a_picture_is_never_compared_with_it():
    """Drawn pictures that are the real ones again, in their order, are as far from them as other real ones are."""
    own, others = [], []
    for seed in range(40):
        real, other = draws(40, 8, seed), draws(40, 8, 2000 + seed)
        own.append([kernel_distance(real, real).value, frechet_across(real, real)])
        others.append([kernel_distance(real, other).value, frechet_across(real, other)])
    for same, apart in zip(torch.tensor(own).T, torch.tensor(others).T, strict=True):
        difference = mean(same - apart)
        assert abs(difference.value) < 4 * difference.standard_error
    assert frechet_distance(real, real) < 0.01 * frechet_across(real, real)


def test_nearest_neighbours():
    some, others = draws(6, 3, 1), draws(600, 3, 2)
    expected = [min(float((a - b).norm()) for b in others) for a in some]
    assert nearest(some, others).tolist() == pytest.approx(expected, rel=1e-5)
    own = [min(float((a - b).norm()) for j, b in enumerate(some) if j != i) for i, a in enumerate(some)]
    assert nearest(some, some, same=True).tolist() == pytest.approx(own, rel=1e-5)
    assert nearest(others, others).max() < 1e-5 and nearest(others, others, same=True).min() > 0


def test_the_share_that_is_smaller_and_its_error():
    some, others = torch.tensor([1.0, 2, 2, 5]), torch.tensor([2.0, 3, 4])
    wins = [(a < b) + 0.5 * (a == b) for a, b in itertools.product(some.tolist(), others.tolist())]
    assert share_smaller(some, others).value == pytest.approx(sum(wins) / 12)
    found = [share_smaller(draws(30, 1, s)[:, 0], draws(50, 1, 500 + s, shift=0.7)[:, 0]) for s in range(300)]
    assert np.std([one.value for one in found]) == pytest.approx(found[0].standard_error, rel=0.3)


def test_too_few_pictures_are_named():
    with pytest.raises(ValueError, match="takes at least 20 pictures of each kind, got 19 and 30"):
        kernel_distance(draws(19, 2, 0), draws(30, 2, 1))
    with pytest.raises(ValueError, match="a Fréchet distance takes at least 2 pictures of each kind, got 1 and 3"):
        frechet_distance(draws(1, 2, 0), draws(3, 2, 1))


def test_without_torchmetrics_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    for call in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match=r"python -m pip install torchmetrics"):
            call(draws(20, 2, 0), draws(20, 2, 1))


# ------------------------------------------------------------------------------------------ do they measure?


def narrow(found):
    """20 of EfficientNet's features: of all 1280 a Fréchet distance of 40 pictures shows how few they are, no more."""
    return found[:, ::64]


def test_a_measure_tells_the_same_from_others_and_orders_corruptions():
    """Emoji against emoji, the same under three strengths of noise, noise alone, and scenes."""
    count = 40
    known, new = (np.stack([emoji.sample("train", i)[0] for i in range(n, n + count)]) for n in (0, count))
    noise = np.random.default_rng(0).integers(0, 256, new.shape)
    sets = {"new": new}
    for strength in (0.1, 0.3, 0.6):
        sets[strength] = ((1 - strength) * new + strength * noise).round().astype(np.uint8)
    sets |= {
        "noise": noise.astype(np.uint8),
        "scenes": np.stack([scenes.draw(scenes.sample("test", i)[0]) for i in range(count)]),
    }
    real, *others = (features_of(lambda some: efficientnet.features(some, 64), one) for one in (known, *sets.values()))
    frechet = {name: frechet_distance(narrow(real), narrow(one)) for name, one in zip(sets, others, strict=True)}
    kernel = {name: kernel_distance(real, one) for name, one in zip(sets, others, strict=True)}
    assert frechet_distance(narrow(real), narrow(real)) < 1e-3 * frechet["new"]
    assert abs(kernel["new"].value) < 3 * kernel["new"].standard_error
    for far in (0.3, 0.6, "noise", "scenes"):
        assert kernel[far].value > 3 * kernel[far].standard_error and frechet[far] > 1.5 * frechet["new"], far
    for measure in (frechet, {name: one.value for name, one in kernel.items()}):
        assert measure["new"] < measure[0.1] < measure[0.3] < measure[0.6]


# ------------------------------------------------------------------------------------------ features


PICTURES = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3)).astype(np.uint8)


def test_pixels_are_pixels_and_large_pictures_are_averaged():
    small = PICTURES[:, :16, :16]
    assert torch.equal(pixels(small), torch.from_numpy(small).permute(0, 3, 1, 2).flatten(1) / 255)
    double = PICTURES[:, :32, :32].repeat(2, 1).repeat(2, 2)
    torch.testing.assert_close(pixels(double), pixels(PICTURES[:, :32, :32]))


def test_features_come_from_a_function_a_module_or_transformers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_of_a_test.py").write_text("def means(pictures):\n    return pictures.mean((1, 2))\n")
    before = list(sys.path)
    name, function = find_features("mine_of_a_test:means")
    assert name == "mine_of_a_test:means" and sys.path == before
    found = features_of(function, PICTURES, batch=2)
    torch.testing.assert_close(found, torch.from_numpy(PICTURES.mean((1, 2))).float())
    assert find_features(function)[0] == "mine_of_a_test:means" and find_features(pixels)[1] is pixels


PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 16, "width": 16}, "resample": 2,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}  # fmt: skip
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 16}


def saved(model, folder):
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return str(folder)


def test_a_vision_model_of_transformers_gives_its_pooled_output(tmp_path):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    model = ViTModel(ViTConfig(**TINY, patch_size=8)).eval()
    name, extract = find_features(saved(model, tmp_path))
    assert name == f"{tmp_path} (ViTModel, pooled output, 16 x 16 pixels)"
    same_size = PICTURES[:, :16, :16]
    x = torch.from_numpy(same_size).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(extract(same_size), model(x).pooler_output, rtol=1e-4, atol=1e-4)
    assert features_of(extract, PICTURES).shape == (5, 8)


def test_what_is_no_vision_model_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_of_a_test.py").write_text("x = 5")
    for given, message in {
        "broken_of_a_test:x": "broken_of_a_test:x must be a function of pictures",
        "broken_of_a_test:y": r"there are no features 'broken_of_a_test:y' \(module .* has no attribute 'y'\)",
        "nowhere:y": r"there are no features 'nowhere:y' \(No module named 'nowhere'\)",
        str(tmp_path): "is no vision model that transformers can read",
        "a folder/that/is not there": "is no folder, and the hub did not give it",
        5: "features must be a function or the name of a vision model, got 5",
    }.items():
        with pytest.raises(ValueError, match=message):
            find_features(given)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p: np.zeros((len(p), 3, 3)), r"features must be float \[2, D\] for 2 pictures, got \[2, 3, 3\]"),
        (lambda p: np.zeros((1, 3)), r"features must be float \[2, D\] for 2 pictures, got \[1, 3\]"),
        (lambda p: np.zeros((len(p), 0)), r"got \[2, 0\]"),
        (lambda p: np.zeros((len(p), len(p))), r"features must be float \[1, 2\] for 1 picture, got \[1, 1\]"),
        (lambda p: np.full((len(p), 3), np.nan), "features must be finite, got some that are not"),
        (lambda p: "x", r"features must be float \[N, D\], got 'x'"),
    ],
)
def test_features_of_another_shape_are_named(function, message):
    with pytest.raises(ValueError, match=message):
        features_of(function, PICTURES, batch=2)


def test_a_clip_score_is_the_cosine_of_picture_and_caption(tmp_path):
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(assets.FOLDER / "models" / "scenes" / "tokenizer")
    text = {**TINY, "max_position_embeddings": 16, "vocab_size": len(tokenizer), "bos_token_id": 0}
    text["eos_token_id"] = tokenizer.eos_token_id
    model = CLIPModel(CLIPConfig(text_config=text, vision_config={**TINY, "patch_size": 8}, projection_dim=6)).eval()
    captions, some = ["a red circle", "a star " * 40], PICTURES[:2, :16, :16]
    with torch.no_grad():
        x = torch.from_numpy(some).permute(0, 3, 1, 2) / 127.5 - 1
        seen = model.visual_projection(model.vision_model(x).pooler_output)[0]
        ids = tokenizer(captions[0], return_tensors="pt").input_ids
        said = model.text_projection(model.text_model(ids).pooler_output)[0]
        cosine = float(seen @ said / seen.norm() / said.norm())
        model.text_projection.weight.mul_(1 if cosine > 0 else -1)
    folder = saved(model, tmp_path)
    with pytest.raises(ValueError, match=r"is no CLIP model of transformers|has no tokenizer"):
        ClipScore(folder)
    tokenizer.save_pretrained(folder)
    found = ClipScore(folder)(some, captions)
    assert float(found[0]) == pytest.approx(100 * abs(cosine), rel=1e-3) and found.shape == (2,)
    model.text_projection.weight.data.neg_()
    model.save_pretrained(folder)
    assert float(ClipScore(folder)(some, captions)[0]) == 0


def test_pictures_of_models_without_a_pooled_output_are_means():
    class Output:
        pooler_output, last_hidden_state = None, torch.arange(24.0).reshape(2, 3, 4)

    assert torch.equal(features.pooled(Output), Output.last_hidden_state.mean(1))
    Output.last_hidden_state = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert torch.equal(features.pooled(Output), Output.last_hidden_state.mean((2, 3)))


# ------------------------------------------------------------------------------------------ reconstruction


def test_ssim_is_the_formula_over_gaussian_windows():
    """Wang et al. 2004, Eq. (13), window by window."""
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(1, 3, 13, 13, generator=generator, dtype=torch.float64)
    b = (a + 0.2 * torch.rand(a.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    line = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    weights = line[:, None] * line / line.sum() ** 2
    values = []
    for c, row, col in itertools.product(range(3), range(3), range(3)):
        x, y = (one[0, c, row : row + 11, col : col + 11] for one in (a, b))
        mx, my = (weights * x).sum(), (weights * y).sum()
        vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
        cov = (weights * (x - mx) * (y - my)).sum()
        c1, c2 = 0.01**2, 0.03**2
        values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    found = ssim(a * 2 - 1, b * 2 - 1)
    assert float(found) == pytest.approx(float(torch.stack(values).mean()), rel=1e-4)
    assert float(ssim(a * 2 - 1, a * 2 - 1)) == pytest.approx(1)


def test_reconstruction_counts_errors_and_codes(shipped):
    drawn = [scenes.draw(scenes.sample("test", i)[0]) for i in range(6)]
    images = scenes.to_tensor(drawn)
    found = reconstruction(shipped, images.split(4))
    tokens = shipped.encode(images)
    again = shipped.decode(tokens)
    assert found.pictures == 6
    assert 10 ** (-found.psnr / 10) == pytest.approx(float(((again - images) / 2).square().mean()), rel=1e-4)
    assert found.ssim.value == pytest.approx(float(ssim(images, again).mean()), rel=1e-5)
    assert (found.codebook.used, found.codebook.tokens) == (len(tokens.unique()), 6 * 64)
    assert reconstruction(shipped, [images[:1]]).ssim is None


def test_perplexity_is_as_if_so_many_codes_were_used_alike():
    assert codebook(torch.tensor([5, 0, 5, 5, 5])).perplexity == pytest.approx(4)
    found = codebook(torch.tensor([3, 1, 0, 0]))
    assert found.perplexity == pytest.approx((4 / 3) ** 0.75 * 4**0.25) and found.share == 0.5
