"""How the stages learn: the numbers of a recipe, and what a wrong one is told."""

import math
from dataclasses import replace

import numpy as np
import pytest

from vqlearn.training import CodecRecipe, SceneRecipe
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
