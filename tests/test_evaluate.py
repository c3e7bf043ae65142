import copy
import inspect
import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from vqlearn import q_sample, scenes
from vqlearn.data import layouts
from vqlearn.data.scenes import Scene, SceneObject
from vqlearn.evaluation.agreement import (
    _bits,
    check_world,
    evaluate,
    excess,
    margin,
    reconstruction,
    report,
    states_new_combination,
)
from vqlearn.evaluation.verdict import is_known, verdict
from vqlearn.exactness.ideal import code_table, ideal_denoiser


def test_a_perfect_painter_scores_one_and_a_shuffled_one_about_zero():
    drawn = [scenes.sample("test", index) for index in range(60)]
    captions, pictures = [caption for _, caption in drawn], [scene for scene, _ in drawn]
    perfect = report(captions, pictures)
    assert perfect.all == perfect.generalisation == perfect.recall == 1 and perfect.margin == 0
    assert set(perfect.parts.values()) == {1.0}
    shuffled = report(captions, pictures[1:] + pictures[:1])
    assert shuffled.all <= 0.05 and shuffled.parts["shape"] < 0.5


RED, BLUE = SceneObject("small", "red", "circle", 4, 4), SceneObject("large", "blue", "star", 4, 16)
CASES = [  # a caption, what is seen, and what is wrong with it
    ("a small red circle", Scene("white", (RED,))),
    ("a red circle on a gray background", Scene("white", (RED,))),  # background
    ("a circle", Scene("black", (RED, BLUE))),  # count
    ("a large red circle left of a large blue star", Scene("white", (RED, BLUE))),  # size
    ("a red circle right of a star", Scene("white", (RED, BLUE))),  # relation
    ("a red circle and a green cross", Scene("white", (RED, BLUE))),  # shape and colour
    ("a red circle, a star and a cross", Scene("white", (RED, BLUE))),  # count, shape and colour
    ("a small star", Scene("white", (SceneObject("small", "blue", "star", 0, 0),))),
]


def test_a_report_counts_only_what_captions_state():
    found = report([caption for caption, _ in CASES], [scene for _, scene in CASES])
    assert found.pictures == 8 and found.all == 2 / 8
    # who states it: size 3 (captions 1, 4, 8), colour 6, relation 2, background 1; count and shape are always stated
    assert found.parts == pytest.approx(
        {"count": 6 / 8, "shape": 6 / 8, "color": 4 / 6, "size": 2 / 3, "relation": 1 / 2, "background": 0.0}
    )
    assert found.by_count == {1: 2 / 4, 2: 0.0, 3: 0.0} and found.recall == 2 / 4
    assert found.margin == pytest.approx(1.959964 * math.sqrt(0.25 * 0.75 / 8), rel=1e-4)
    assert margin(0.0, 0) == 0


def test_a_caption_is_new_if_it_states_a_whole_pair_that_is_held_out():
    kinds = [scenes.Mention(size, color, "cross") for size in scenes.SIDES for color in ("red", "blue", "pink")]
    held, shown = [], []
    for a in kinds:
        for b in kinds:
            if a != b:
                (held if scenes.held_out_pair(a, "above", b) else shown).append(
                    f"a {a.size} {a.color} cross over a {b.size} {b.color} cross"
                )
    assert held and shown
    assert all(states_new_combination(scenes.parse(caption)) for caption in held)
    assert not any(states_new_combination(scenes.parse(caption)) for caption in shown)
    for caption in held:  # less said is less than a whole combination
        assert not states_new_combination(scenes.parse(caption.replace(" over ", " and ")))
        assert not states_new_combination(scenes.parse(caption.replace("small ", "").replace("large ", "")))
    assert not any(states_new_combination(scenes.parse(scenes.sample("train", i)[1])) for i in range(500))
    several = [scenes.parse(scenes.sample("test", i)[1]) for i in range(1000)]
    several = [claim for claim in several if len(claim.objects) > 1]
    assert sum(map(states_new_combination, several)) > 0.6 * len(several)


def test_generalisation_is_that_of_the_new_captions():
    drawn = [scenes.sample("test", index) for index in range(200)]
    captions = [caption for _, caption in drawn]
    new = [states_new_combination(scenes.parse(caption)) for caption in captions]
    nothing = Scene("white", ())
    found = report(captions, [nothing if fresh else scene for (scene, _), fresh in zip(drawn, new, strict=True)])
    assert found.new == sum(new) and found.generalisation == 0 and found.all == 1 - sum(new) / 200


def test_entropy_in_bits():
    assert _bits(["a", "b", "c", "d"]) == 2 and _bits(["a"] * 5) == 0


def test_entropy_is_that_of_what_captions_leave_open():
    def scene(background, size, color, row, column):
        return Scene(background, (SceneObject(size, color, "star", row, column),))

    captions = ["a star", "a star", "a small star on a white background", "a large red star on a black background"]
    pictures = [scene("white", "small", "red", 7, 0), scene("gray", "large", "blue", 8, 0),
                scene("black", "small", "red", 0, 7), scene("black", "small", "red", 0, 8)]  # fmt: skip
    found = report(captions, pictures).entropy
    assert found["background"] == 1 and found["size"] == 1  # of the first two, which say neither
    assert found["color"] == pytest.approx(_bits(["red", "blue", "red"]))  # of the first three
    assert found["position"] == pytest.approx(_bits([0, 1, 0, 2]))  # to 8 pixels


def test_excess_is_the_divergence_of_the_network_from_the_ideal(shipped):
    """KL(ideal || network), summed over positions, by the definition and on the same draws."""
    drawn = layouts.draw("test", 6, generator=torch.Generator().manual_seed(3))
    table = code_table(shipped.encode)
    x_t = q_sample(layouts.tokens(drawn, table), 60, shipped.schedule, generator=torch.Generator().manual_seed(60))
    p = ideal_denoiser(drawn.captions(), table, shipped.schedule, split="test")(x_t, 60).exp()
    log_q = shipped.denoiser(drawn.captions())(x_t, 60).double()
    expected = torch.where(p > 0, p * (p.log() - log_q), 0.0).sum((1, 2)).mean()
    assert excess(shipped, (60,), count=6, seed=3) == {60: pytest.approx(float(expected))}
    assert float(expected) > 0


def test_the_codec_keeps_what_a_scene_means(shipped):
    """The bar is 99 %; of 200 scenes two may differ. Measured over 500: see the model's card."""
    assert reconstruction(shipped, count=200) >= 0.99


def test_the_shipped_model_draws_what_captions_say(shipped):
    """Measured: see the card. At 86.6 %, fewer than 35 of 48 come once in 300 draws, and this draw is fixed."""
    found = evaluate(shipped, count=48, num_inference_steps=10, progress=False)
    assert found.all >= 35 / 48
    assert found.entropy["background"] > 0.5


def test_the_same_seed_measures_the_same_and_in_silence(shipped, capfd):
    before = dict(vars(shipped))
    call = {"count": 6, "num_inference_steps": 2, "progress": False}
    loud = copy.copy(shipped)  # whose own bar evaluating leaves out
    loud.set_progress_bar_config(disable=False)
    assert evaluate(shipped, **call) == evaluate(loud, **call)
    assert vars(shipped) == before and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "dev"}, "split must be one of"),
        ({"split": ["test"]}, "split must be one of"),
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"count": True}, "count must be a whole number of at least 1, got True"),
        ({"seed": -1}, "seed must be a whole number from 0 to "),
        ({"seed": 2**63}, "seed must be a whole number from 0 to "),
    ],
)
def test_wrong_arguments_are_named(shipped, wrong, message):
    for measure in (evaluate, excess, reconstruction):
        if wrong.keys() <= inspect.signature(measure).parameters.keys():
            with pytest.raises(ValueError, match=message):
                measure(shipped, **{"count": 1, **wrong})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: evaluate(pipe, batch=0), "batch must be a whole number of at least 1, got 0"),
        (lambda pipe: excess(pipe, [0]), "times must be a whole number from 1 to 100, got 0"),
        (lambda pipe: excess(pipe, [5, 101]), "times must be a whole number from 1 to 100, got 101"),
        (lambda pipe: excess(pipe, [1.5]), "times must be a whole number from 1 to 100, got 1.5"),
        (lambda pipe: margin(1.5, 3), r"share must be a number in \[0, 1\], got 1.5"),
        (lambda pipe: margin(0.5, -1), "count must be a whole number of at least 0, got -1"),
        (lambda pipe: report([], []), "there must be a picture for each caption, got 0 for 0 captions"),
        (lambda pipe: report(["a star"], []), "there must be a picture for each caption, got 0 for 1 captions"),
    ],
)
def test_wrong_numbers_are_named(shipped, call, message):
    with pytest.raises(ValueError, match=message):
        call(shipped)


@pytest.mark.parametrize("change", [{"vqvae": None}, {"reads": "class"}, {"num_positions": 16}])
def test_a_model_of_another_world_is_named(change):
    network = SimpleNamespace(**{"reads": "text", "num_positions": 64, **change})
    pipe = SimpleNamespace(transformer=network, vqvae=change.get("vqvae", SimpleNamespace(factor=4)))
    for measure in (evaluate, excess, check_world):
        with pytest.raises(ValueError, match="the toy world takes a model that reads text and draws 32 x 32 pixels"):
            measure(pipe)


def test_a_verdict_is_of_a_picture_and_a_prompt():
    picture = Image.new("RGB", (32, 32))
    for image, prompt in ((5, "a star"), (picture, None)):
        with pytest.raises(TypeError, match="verdict takes a PIL image and a prompt, got"):
            verdict(image, prompt)
    assert verdict(Image.new("RGB", (32, 16)), "a star") == ""
    assert verdict(picture, "a star").startswith("nothing on a black background (not as asked: count")
    assert (
        verdict(picture, "")
        == "nothing on a black background (the sentence is not one of the toy world, so it was not checked)"
    )
    assert [is_known(said, "scenes") for said in ("a star", "a pear", "")] == [True, False, False]
    assert [is_known(said, "emoji") for said in ("a star", "a pear", "")] == [False, True, False]


def test_excess_looks_where_the_models_card_does(data):
    """The card's table is of `excess(pipe)`, 192 scenes of the test split."""
    card = (data.parent.parent / "vqlearn" / "assets" / "models" / "scenes" / "README.md").read_text(encoding="utf-8")
    (row,) = (line for line in card.splitlines() if line.startswith("| t | 100 |"))
    defaults = {name: one.default for name, one in inspect.signature(excess).parameters.items()}
    assert list(defaults["times"]) == [int(cell) for cell in row.split("|")[2:-1]]
    assert (defaults["count"], defaults["split"]) == (192, "test") and "192 scenes of the test split" in card
