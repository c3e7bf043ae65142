import pytest

from vqlearn import scenes
from vqlearn.evaluate import _bits, evaluate, reconstruction, report


def test_a_perfect_painter_scores_one_and_a_shuffled_one_about_zero():
    drawn = [scenes.sample("test", index) for index in range(60)]
    captions, pictures = [caption for _, caption in drawn], [scene for scene, _ in drawn]
    perfect = report(captions, pictures)
    assert perfect.all == 1 and set(perfect.parts.values()) == {1.0} and perfect.margin == 0
    shuffled = report(captions, pictures[1:] + pictures[:1])
    assert shuffled.all <= 0.05 and shuffled.parts["shape"] < 0.5


def test_entropy_in_bits():
    assert _bits(["a", "b", "c", "d"]) == 2 and _bits(["a"] * 5) == 0


def test_the_codec_keeps_what_a_scene_means(shipped):
    """The bar is 99 %; of 200 scenes two may differ. Measured over 500: see the model's card."""
    assert reconstruction(shipped, count=200) >= 0.99


def test_the_shipped_model_draws_what_it_is_told(shipped):
    """Measured: see the card. At 90 %, fewer than 37 of 48 come once in 450 draws, and this draw is fixed."""
    found = evaluate(shipped, count=48, num_inference_steps=25, progress=False)
    assert found.all >= 37 / 48
    assert found.entropy["background"] > 0.5


def test_the_same_seed_measures_the_same(shipped):
    call = {"count": 6, "num_inference_steps": 2, "progress": False}
    assert evaluate(shipped, **call) == evaluate(shipped, **call)
    assert shipped._bar == {"disable": True}  # as the fixture left it


def test_wrong_split_is_named(shipped):
    with pytest.raises(ValueError, match="split must be one of"):
        evaluate(shipped, split="dev", progress=False)
