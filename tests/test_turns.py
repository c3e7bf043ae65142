"""The benchmarks' clock: sides that take one step each in turn."""

import time

import pytest

from tests.benchmarks.turns import spread, steps_in_turn


def _side(name, done, seconds=0.0):
    def draw(steps, generator, callback):
        for number in range(steps):
            done.append((name, number))
            time.sleep(seconds)
            callback(number)

    return draw


def test_each_side_makes_a_step_and_waits_for_the_others():
    done = []
    found = steps_in_turn({name: _side(name, done, 0.01 * number) for number, name in enumerate("abc", 1)}, 4)
    assert done == [(name, number) for number in range(5) for name in "abc"]  # the first step of each warms up
    for number, name in enumerate("abc", 1):
        assert len(found[name]) == 4
        assert all(step.clock >= 0.01 * number > step.processor for step in found[name])


def test_an_error_of_one_side_is_raised_and_nobody_waits_for_it():
    def broken(steps, generator, callback):
        callback(0)
        raise ValueError("out of order")

    with pytest.raises(ValueError, match="out of order"):
        steps_in_turn({"a": _side("a", []), "b": broken, "c": _side("c", [])}, 3)


def test_the_spread():
    assert spread([3.0, 1.0, 2.0]) == "2.000 (1.000 to 3.000)"
