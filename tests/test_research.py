"""The page for researchers is true: its code runs, block after block, and gives what the page says."""

import re
from pathlib import Path

import pytest
import torch

import vqlearn

PAGE = Path(__file__).parent.parent / "docs" / "research.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The names that the page has defined when it ends."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(tmp_path_factory.mktemp("research"))
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    monkeypatch.undo()
    return names


def test_a_block_has_at_most_twenty_lines():
    for block in BLOCKS:
        assert (
            len([line for line in block.splitlines() if line.strip()]) <= 20
            and max(map(len, block.splitlines())) <= 120
        )


def test_the_schedule_replaces_most_half_way():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    replaced = 1024 * vqlearn.MaskReplaceSchedule((1 - t) * (1 - 0.5 * t), t, num_codes=1024).beta_bar
    assert int(replaced.argmax()) == 50 and float(replaced[0]) == float(replaced[100]) == 0


def test_the_flatter_sampler_is_measured_and_is_worse(names):
    errors = names["errors"]
    assert set(errors) == (set(vqlearn.SAMPLERS) - {"first_hitting"}) | {"hurried"}
    assert errors["hurried"] > 2 * errors["ancestral"] > 0


def test_its_row_is_of_twenty_captions(names):
    assert names["row"].pictures == 20 and 0 <= names["row"].all <= 1


def test_predictions_and_scales_have_the_shapes_of_the_page(names):
    assert names["given"].shape == names["null"].shape == (1, 64, 1024)
    assert names["scale"].shape == (1, 64) and float(names["scale"].min()) >= 1 - 1e-6
    assert [t for t, _ in names["seen"]] == [100, 80, 60, 40, 20]
    assert names["tokens"].shape == (1, 30) and int(names["tokens"].max()) < 4
