"""How the stages learn: the numbers of a recipe, and what is said of a wrong one."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_data_sets import pipeline

from vqlearn import VQModel
from vqlearn.training import (
    CodecRecipe,
    CodecStage,
    ContinuousTime,
    CrossEntropy,
    DenoiserRecipe,
    DenoiserStage,
    PublishedBound,
    Rows,
    SceneRecipe,
    Source,
    initialise,
    networks,
    scene_stage,
)
from vqlearn.training.shipped import LARGE_BATCH, recipe

WRONG = {
    "steps": (0, -1, 2.5, True, "3", None, math.nan, 10**400 * -1),
    "batch": (0, 1.0, [1]),
    "seed": (-1, 2**32, 0.5),
    "own_from": (-1, None),
    "learning_rate": (0, -1e-3, math.nan, math.inf, "1e-3", True, 1j, 10**400),
    "clip": (0, math.inf),
    "time_power": (0, -1),
    "weight_decay": (-1e-9, math.inf, None),
    "relation_weight": (-1, math.nan),
    "decay": (-0.1, 1.1),
    "null_share": (-1e-9, 2),
    "ema": (-0.1, 1.001, math.nan),
    "uniform_share": (-1, 1.5),
    "own_share": (-0.5, 2),
    "counts": ((0.5, 0.5), (0.5, 0.6, 0.1), (-0.5, 1, 0.5), (0.5, 0.5, "0"), 1, None, (math.nan, 0.5, 0.5)),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_numbers_of_a_recipe_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got ") as caught:
        SceneRecipe(**{name: value})
    assert "\n" not in str(caught.value)
    assert SceneRecipe.__dataclass_fields__.keys() >= WRONG.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 1), ("batch", 1), ("seed", 0), ("seed", 2**32 - 1), ("own_from", 0), ("weight_decay", 0),
     ("relation_weight", 0), ("decay", 0), ("decay", 1), ("null_share", 0), ("null_share", 1), ("ema", 0), ("ema", 1),
     ("uniform_share", 0), ("uniform_share", 1), ("own_share", 0), ("own_share", 1)],
)  # fmt: skip
def test_numbers_at_the_ends_of_their_range_are_right(name, value):
    assert getattr(SceneRecipe(**{name: value}), name) == value


def test_any_seed_begins_a_network():
    begun = []
    for seed in (0, 2**32 - 1, 0):
        initialise(network := pipeline().transformer, seed=seed)
        begun.append(network.latent_image_embedding.emb.weight[-1].detach())  # the mask's
    assert torch.equal(begun[0], begun[2]) and not torch.equal(begun[0], begun[1])


@pytest.mark.parametrize(("name", "value"), [("polish", 1.1), ("commitment", -1), ("steps", 0), ("learning_rate", 0)])
def test_numbers_of_the_codecs_recipe_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {value}"):
        CodecRecipe(**{name: value})


def test_numbers_of_numpy_become_numbers_that_a_checkpoint_holds():
    found = SceneRecipe(steps=np.int64(3), learning_rate=np.float32(0.5), counts=np.array([0.25, 0.5, 0.25]), decay=1)
    assert found == SceneRecipe(steps=3, learning_rate=0.5, counts=(0.25, 0.5, 0.25), decay=1.0)
    assert [type(value) for value in (found.steps, found.learning_rate, *found.counts, found.decay)] == [int] + [
        float
    ] * 5


def test_the_recipe_of_a_device():
    cpu, cuda = recipe("cpu"), recipe("cuda")
    assert cpu == SceneRecipe() and cuda == LARGE_BATCH
    assert cpu.own_from > 0 and recipe("cpu", from_nothing=False) == replace(cpu, own_from=0)


# ------------------------------------------------------------------------------------------ what recipes are for

NOTHING = [(torch.zeros(6, dtype=torch.int64), None)]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda pipe: DenoiserStage(pipe, NOTHING, {"steps": 1}), TypeError, "recipe must be a DenoiserRecipe, got {"),
        (lambda pipe: DenoiserStage(pipe, NOTHING, CodecRecipe()), TypeError, "recipe must be a DenoiserRecipe"),
        (lambda pipe: DenoiserStage(5, NOTHING), TypeError, "pipe must be a VQDiffusionPipeline, got 5"),
        (lambda pipe: DenoiserStage(pipe, NOTHING, device="nowhere"), ValueError, "names no device"),
        (lambda pipe: DenoiserStage(pipe, NOTHING, device="meta"), ValueError, "device must be one that holds values"),
        (
            lambda pipe: DenoiserStage(pipe, NOTHING, dtype=torch.int64),
            ValueError,
            "floating-point dtype, got torch.int64",
        ),
        (
            lambda pipe: DenoiserStage(pipe, NOTHING, workers=-1),
            ValueError,
            "workers must be a whole number of at least 0",
        ),
        (lambda pipe: DenoiserStage(pipe, NOTHING).step(-1), ValueError, "number must be a whole number of at least 0"),
        (lambda pipe: CodecStage(None, NOTHING), TypeError, "codec must be a VQModel, got None"),
        (lambda pipe: CodecStage(pipe.vqvae, NOTHING), TypeError, "codec must be a VQModel, got None"),
        (lambda pipe: scene_stage(pipe), ValueError, "the toy world takes a model that reads text and draws 32 x 32"),
        (lambda pipe: scene_stage(pipe, CodecRecipe()), TypeError, "recipe must be a SceneRecipe"),
        (
            lambda pipe: initialise(5),
            TypeError,
            "transformer must be a Transformer2DModel or AutoregressiveTransformer, got 5",
        ),
        (lambda pipe: initialise(pipe.transformer, 5), TypeError, "codec must be a VQModel, got 5"),
        (lambda pipe: initialise(pipe.transformer, seed=-1), ValueError, "seed must be a whole number from 0 to"),
        (lambda pipe: networks(side=30), ValueError, "side must be a multiple of 4, got 30"),
        (lambda pipe: networks(side=0), ValueError, "side must be a whole number of at least 4, got 0"),
        (lambda pipe: networks("x"), ValueError, "seed must be a whole number from 0 to 4294967295, got 'x'"),
        (lambda pipe: networks(words=[5]), ValueError, r"words must be strings, got \[5\]"),
        (lambda pipe: CrossEntropy(2), ValueError, r"uniform_share must be a number in \[0, 1\], got 2"),
        (lambda pipe: CrossEntropy(0.5, 0), ValueError, "time_power must be a finite number above 0, got 0"),
        (lambda pipe: PublishedBound(0), ValueError, "num_steps must be a whole number of at least 1, got 0"),
        (lambda pipe: PublishedBound(9, -1), ValueError, "auxiliary_weight must be a finite number of at least 0"),
        (lambda pipe: ContinuousTime(5), ValueError, "jumps must be a function such as .*, got 5"),
        (lambda pipe: DenoiserStage(pipe, NOTHING, objective=CrossEntropy), ValueError, "objective must be a function"),
        (
            lambda pipe: DenoiserStage(pipe, NOTHING, objective=PublishedBound(11)).step(0),
            ValueError,
            "this bound is over 11 steps, the schedule has 10",
        ),
    ],
)
def test_what_a_stage_cannot_use_is_named(make, kind, message):
    with pytest.raises(kind, match=message) as caught:
        make(pipeline())
    assert "\n" not in str(caught.value)


def test_a_codec_of_another_size_starts_no_denoiser(monkeypatch):
    codec = VQModel(num_vq_embeddings=7)
    with pytest.raises(ValueError, match="the codec has 7 codes, the transformer is for 5"):
        initialise(pipeline().transformer, codec)


def test_the_defaults_are_what_the_shipped_model_is_trained_with():
    """Numbers that the model card and the documentation state."""
    assert asdict(CodecRecipe()) == {
        "steps": 2400, "batch": 64, "learning_rate": 2e-3, "decay": 0.3, "polish": 0.3, "commitment": 0.25, "seed": 0
    }  # fmt: skip
    any_data = {
        "steps": 30000, "batch": 32, "learning_rate": 1e-3, "decay": 0.5, "weight_decay": 1e-2, "null_share": 0.1,
        "ema": 0.999, "clip": 1.0, "seed": 0,
    }  # fmt: skip
    assert asdict(DenoiserRecipe()) == any_data
    assert asdict(SceneRecipe()) == any_data | {
        "uniform_share": 1 / 3, "time_power": 4.0, "counts": (0.25, 0.45, 0.3), "relation_weight": 0.2,
        "objective": "ideal", "own_share": 0.5, "own_from": 4000,
    }  # fmt: skip
    assert recipe("cpu") == SceneRecipe() and recipe("cpu", from_nothing=False) == replace(SceneRecipe(), own_from=0)
    assert recipe("cuda") == LARGE_BATCH


def test_the_auxiliary_term_counts_as_its_weight_says():
    """The loss is linear in the weight, and 5e-4 where none is given."""

    def loss(*weight):
        stage = DenoiserStage(
            pipeline(), Given(Rows(TWO)), DenoiserRecipe(steps=5, batch=2), PublishedBound(10, *weight)
        )
        return stage.step(0)["loss"]

    bare, one, given = loss(0), loss(1.0), loss()
    assert one > bare > 0 and given == pytest.approx(bare + 5e-4 * (one - bare), rel=1e-5)


class Given(Source):
    def __init__(self, rows):
        self.given = rows

    def rows(self, number, count, generator):
        return self.given


TWO = torch.zeros(2, 6, dtype=torch.int64)


@pytest.mark.parametrize(
    "rows", [None, (TWO,), Rows(TWO[:1]), Rows(5), Rows(None), Rows(None, TWO), Rows(TWO, TWO[0]), Rows(TWO, [0, 0]),
             Rows(TWO.to("meta")), Rows(TWO.float().to_sparse())]
)  # fmt: skip
def test_a_source_gives_as_many_of_everything(rows):
    with pytest.raises(ValueError, match="batch 3 of a source must be Rows of 2 tensors, got"):
        DenoiserStage(pipeline(), Given(rows), DenoiserRecipe(steps=5, batch=2)).step(3)


def test_a_network_that_reads_a_class_needs_one():
    with pytest.raises(ValueError, match="this network reads a class, but batch 3 has no condition"):
        DenoiserStage(pipeline(classes=3), Given(Rows(TWO)), DenoiserRecipe(steps=5, batch=2)).step(3)
