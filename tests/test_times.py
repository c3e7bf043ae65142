"""The times that the guide states are those that `python -m tests.times` counts."""

import nbformat
import pytest

from tests import times
from vqlearn.course import copying

markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell


def test_a_notebook_made_by_hand():
    """300 words, two numbered equations and ten lines of code: 2 + 6 + 2 minutes."""
    cells = [
        markdown("word " * 290 + "$$ a\n + b \\tag{1.1} $$ $$ c \\tag{1.2} $$"),
        code("x = 1\n\n" * 10),
        markdown("## Check yourself\n\n### Exercise 1: add\n★☆☆ · 5 minutes. " + "word " * 500),
        code("y = 1\n" * 50),
        markdown("### Exercise 2: build\n★★★ · 45 to 90 minutes. And so on."),
        markdown("## In one breath\n" + "word " * 6),
    ]
    found = times.measure(cells)
    assert found.reading == pytest.approx(10) and found.exercises == [(5, 5), (45, 90)]
    assert found.row("07") == "| 07 | 0.25 h | 5, 45 to 90 |\n"
    assert found.stated() == "15 minutes, exercises 50 to 95 more"


def test_the_guide_has_every_notebook_and_its_times():
    """A few words more or less may not move a row, so a quarter of an hour is left open."""
    found, stated = times.every(), times.table()
    assert list(stated) == list(found)
    for number, one in found.items():
        hours = float(stated[number].split("|")[2].removesuffix(" h "))
        assert abs(4 * hours - one.reading / 15) <= 1, f"{number}: run python -m tests.times --write"
        assert stated[number].rpartition(" h ")[2] == one.row(number).rpartition(" h ")[2]


@pytest.mark.parametrize("path", copying.notebooks(), ids=lambda path: path.stem)
def test_a_notebook_states_its_own_times(path):
    cells = copying.read(path).cells
    found, stated = times.measure(cells), times.STATED.search(cells[0].source)[1]
    reading, _, exercises = stated.partition(" minutes, ")
    assert abs(int(reading) - found.reading) <= 15, "run python -m tests.times --write"
    assert exercises == found.stated().partition(" minutes, ")[2]
