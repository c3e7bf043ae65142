"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import vqlearn

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(vqlearn.__path__, "vqlearn.")
    if not module.name.startswith(("vqlearn.course", "vqlearn.cli", "vqlearn.__main__"))
)
METHOD = ("schedule", "transition", "guidance", "reverse", "sampling", "unmasking", "exactness.enumeration")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
    assert tried > 0 or name.removeprefix("vqlearn.") not in METHOD
