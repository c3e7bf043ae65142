"""Numbers that a caller gives: what is taken, what is refused, and what the message says."""

import decimal
import fractions
import math

import numpy as np
import pytest
import torch

from vqlearn.arguments import real, shown, whole


@pytest.mark.parametrize("value", [5, np.int64(5), np.uint8(5), np.int8(5)])
def test_whole_numbers_of_python_and_numpy_become_an_int(value):
    assert whole("steps", value, 1, 10) == 5 and type(whole("steps", value, 1, 10)) is int


@pytest.mark.parametrize(
    "value", [True, np.True_, 5.0, np.float32(5), "5", None, 0, -5, 11, 10**18, math.nan, [5], torch.tensor(5)]
)
def test_what_is_no_whole_number_of_the_range_is_refused(value):
    with pytest.raises(ValueError, match=r"^steps must be a whole number from 1 to 10, got "):
        whole("steps", value, 1, 10)


def test_a_whole_number_without_an_upper_end():
    assert whole("copies", 10**18) == 10**18
    with pytest.raises(ValueError, match=r"^copies must be a whole number of at least 1, got 0$"):
        whole("copies", 0)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), np.float16(0.5), fractions.Fraction(1, 2)])
def test_numbers_of_python_and_numpy_become_a_float(value):
    assert real("rate", value, 0, 1) == 0.5 and type(real("rate", value, 0, 1)) is float


@pytest.mark.parametrize(
    "value",
    [True, np.True_, "0.5", None, -0.1, 1.1, math.nan, math.inf, np.float32("nan"), 1j, [0.5], decimal.Decimal("0.5")],
)
def test_what_is_no_number_of_the_range_is_refused(value):
    with pytest.raises(ValueError, match=r"^rate must be a number in \[0, 1\], got "):
        real("rate", value, 0, 1)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "a finite number"),
        ({"least": 1}, "a finite number of at least 1"),
        ({"least": 0, "above": True}, "a finite number above 0"),
        ({"least": 0, "most": 1, "above": True}, r"a number in \(0, 1\]"),
    ],
)
def test_the_message_states_the_range(given, wanted):
    with pytest.raises(ValueError, match=f"^x must be {wanted}, got nan$"):
        real("x", math.nan, **given)


def test_the_ends_of_a_range_belong_to_it_unless_it_is_open():
    assert real("x", 0, 0, 1) == 0 and real("x", 1, 0, 1) == 1
    with pytest.raises(ValueError, match=r"got 0$"):
        real("x", 0, 0, 1, above=True)


def test_numbers_too_large_to_print_or_to_be_a_float_are_refused_like_others():
    with pytest.raises(ValueError, match=r"^x must be a whole number from 1 to 10, got a value of type int$"):
        whole("x", 10**5000, 1, 10)
    with pytest.raises(ValueError, match=r"^x must be a finite number, got 1000"):
        real("x", 10**400)


def test_a_value_of_several_lines_is_shown_in_one():
    assert shown(np.zeros((2, 2))) == "array([[0., 0.], [0., 0.]])"
    assert shown("two  spaces\nand a line") == r"'two  spaces\nand a line'" and len(shown("x" * 200)) == 80
