"""Every exercise check accepts the library's function and the printed solution, and names each common mistake."""

import math
import re
from pathlib import Path

import nbformat
import pytest
import torch
from answers import LIBRARY, WRONG

import vqlearn
from vqlearn import checks

NAMES = tuple(LIBRARY)


def said(capsys, name, attempt) -> str:
    getattr(checks, name)(attempt)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_the_library_passes(capsys, name):
    assert said(capsys, name, LIBRARY[name]).startswith("Right: ")


@pytest.mark.parametrize("name", NAMES)
def test_a_float32_answer_passes(capsys, name):
    assert said(capsys, name, lambda *case: LIBRARY[name](*case).float()).startswith("Right: ")


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_spoils_its_arguments_is_judged_by_what_it_returned(capsys, name):
    def spoiling(*case):
        answer = LIBRARY[name](*[value.clone() if isinstance(value, torch.Tensor) else value for value in case])
        for value in case:
            if isinstance(value, torch.Tensor):
                value.zero_()
        return answer

    assert said(capsys, name, spoiling).startswith("Right: ")


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_is_not_attempted(capsys, name):
    def stub(*case):
        raise NotImplementedError

    assert said(capsys, name, stub) == "not attempted yet\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_check_never_raises(capsys, name):
    for attempt, message in [
        (lambda: 1, "TypeError"),
        (lambda *case: None, "`return` missing"),
        (lambda *case: "four", "stopped with"),
        (lambda *case: torch.zeros(7, 7), "shape [7, 7]"),
        (lambda *case: torch.full_like(LIBRARY[name](*case), 0.123), "no common mistake"),
    ]:
        answer = said(capsys, name, attempt)
        assert answer.startswith("Not yet: ") and message in answer


def test_every_check_has_three_wrong_answers():
    for name in NAMES:
        assert len([case for case in WRONG if case[0] == name]) >= 3, name


@pytest.mark.parametrize(("name", "wrong", "hint"), WRONG, ids=[f"{name}-{hint}" for name, _, hint in WRONG])
def test_a_mistake_is_named(capsys, name, wrong, hint):
    answer = said(capsys, name, wrong)
    assert answer.startswith("Not yet: ") and hint in answer.splitlines()[0]
    assert "you say" in answer and "expected" in answer


# ------------------------------------------------------------------------------------------ the folded solutions


def exercises() -> list[tuple[str, str]]:
    """Pairs of a check's name and the code of its folded solution, over all notebooks."""
    found = []
    for path in sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        for cell, following in zip(book.cells, book.cells[1:], strict=False):
            for name, function in re.findall(r"^checks\.(\w+)\((\w+)\)$", cell.source, re.M):
                assert "raise NotImplementedError" in cell.source, f"{path.name} comes unsolved"
                solution = re.search(rf"```python\n((?:(?!```).)*def {function}\(.*?)```", following.source, re.S)
                assert solution, f"{path.name}: no folded solution for {name}"
                found.append((name, solution[1]))
    return found


@pytest.mark.parametrize(("name", "code"), exercises(), ids=lambda value: value if value.isidentifier() else "")
def test_the_folded_solution_passes(capsys, name, code):
    space = {"torch": torch, "math": math, "vqlearn": vqlearn}
    exec(code, space)
    assert said(capsys, name, space[name]).startswith("Right: ")


def test_every_check_is_an_exercise():
    assert {name for name, _ in exercises()} == set(NAMES) == set(checks.__all__)
