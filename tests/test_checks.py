"""Every check passes its solution, the library's function and the printed solution, and names each common mistake."""

import doctest
import inspect
import math
import re
from pathlib import Path

import nbformat
import pytest
import torch
from answers import LIBRARY, WRONG

import vqlearn
from vqlearn import checks
from vqlearn.course.checks import EXERCISES, Check, Verdict

each = pytest.mark.parametrize("check", EXERCISES.values(), ids=EXERCISES)
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
DOUBLE = Check(
    name="double",
    question="twice a number",
    solution=lambda x: 2 * x,
    cases=[(1.0,), (3.0,)],
    mistakes=[("that is the square", lambda x: x**2), ("that is the number", lambda x: x)],
    praise="the number and itself once more.",
)


# ---------------------------------------------------------------------------------------- a verdict, and how it reads


def test_a_verdict_reads_as_it_is_printed(capsys):
    DOUBLE(lambda x: x + x)
    DOUBLE(lambda x: x)
    assert capsys.readouterr().out == (
        "Right: the number and itself once more.\n"
        "Not yet: that is the number.\n  for x = 1.0\n  you say   1.0\n  expected  2.0\n"
    )
    assert str(Verdict("not attempted")) == "not attempted yet"
    assert repr(DOUBLE) == "Check(name='double', question='twice a number')" and DOUBLE.signature == "double(x)"


def test_the_first_wrong_case_is_shown_and_the_mistake_of_all_cases_is_named():
    verdict = DOUBLE.judge(lambda x: x**2 if x == 3 else 2 * x)
    assert verdict.status == "wrong" and verdict.reason.startswith("no common mistake gives this")
    assert verdict.comparison == "  for x = 3.0\n  you say   9.0\n  expected  6.0"


def test_outcomes_are_judged_without_the_function_that_gave_them():
    outcomes = DOUBLE.run(lambda x: 2 * x)
    assert [float(outcome.numbers) for outcome in outcomes] == [2, 6]
    assert DOUBLE.verdict(outcomes) == Verdict("right", DOUBLE.praise)
    with pytest.raises(ValueError, match="zip"):
        DOUBLE.verdict(outcomes[:1])
    stopped = DOUBLE.run(lambda x: 1 / (x - 1))
    assert [outcome.error for outcome in stopped] == ["ZeroDivisionError"]
    assert DOUBLE.verdict(stopped).status == "crashed"


def test_the_example_of_a_check_gives_what_it_says():
    failed, tried = doctest.testmod(inspect.getmodule(Check))
    assert (failed, tried) == (0, 3)


class Mute(BaseException):
    def __str__(self):
        return 5


def mute(x):
    raise Mute


def fail(text):
    raise NotImplementedError(text)


ODD_ANSWERS = {  # what no tensor of numbers is, or hardly -> the verdict and words of its reason
    "an exception without a text": (mute, "crashed", "Mute: it has no text"),
    "half of a surrogate pair": (lambda x: {}["\ud800"], "crashed", r"\ud800"),
    "a complex number": (lambda x: 2j * x, "crashed", "they are complex"),
    "no data": (lambda x: torch.zeros((), device="meta"), "crashed", "cannot be read as numbers"),
    "a sparse tensor": (lambda x: torch.tensor([2.0 * x]).to_sparse(), "wrong", "shape [1]"),
    "a list of tensors": (
        lambda x: [torch.ones(2), torch.ones(2)],
        "crashed",
        "it is a list of tensors, not one tensor",
    ),
    "values and indices": (lambda x: torch.ones(2, 2).max(0), "crashed", "values and indices: return one of them"),
    "a list of numbers in tensors": (lambda x: [torch.tensor(2 * x)], "wrong", "shape [1]"),
    "torch's own NotImplementedError": (
        lambda x: fail("no kernel for this dtype"),
        "crashed",
        "no kernel for this dtype",
    ),
    "a nested list": (lambda x: [[1], [2, 3]], "crashed", "cannot be read as numbers"),
    "not a number": (lambda x: math.nan, "wrong", "no common mistake"),
    "a graph": (lambda x: 2 * torch.tensor(x, requires_grad=True), "right", "once more"),
    "a truth": (lambda x: x == 1.0, "wrong", "no common mistake"),
}


@pytest.mark.parametrize("kind", ODD_ANSWERS)
def test_odd_answers_have_a_verdict_that_can_be_printed(kind, capsys):
    attempt, status, reason = ODD_ANSWERS[kind]
    verdict = DOUBLE.judge(attempt)
    assert verdict.status == status and reason in verdict.reason
    DOUBLE(attempt)
    assert capsys.readouterr().out.encode() == f"{verdict}\n".encode()


def test_a_check_without_a_way_to_vary_has_its_own_cases():
    assert DOUBLE.varied(torch.Generator()).cases == DOUBLE.cases


# ------------------------------------------------------------------------------------------------------- every check


@each
def test_the_solution_passes_and_each_mistake_is_named(check):
    assert check.judge(check.solution) == Verdict("right", check.praise)
    assert len(check.mistakes) >= 3
    for text, mistake in check.mistakes:
        verdict = check.judge(mistake)
        assert (verdict.status, verdict.reason) == ("wrong", f"{text}.")
        assert re.fullmatch(r"  for .+\n  you say   .+\n  expected  .+", verdict.comparison)


@each
def test_the_library_passes_in_float64_and_in_float32(check):
    assert check.judge(LIBRARY[check.name]).status == "right"
    assert check.judge(lambda *case: LIBRARY[check.name](*case).float()).status == "right"


@each
def test_an_answer_that_spoils_its_arguments_is_judged_by_what_it_returned(check):
    def spoiling(*case):
        answer = LIBRARY[check.name](*[x.clone() if isinstance(x, torch.Tensor) else x for x in case])
        for value in case:
            if isinstance(value, torch.Tensor):
                value.zero_()
            if isinstance(value, vqlearn.MaskReplaceSchedule):
                value.gamma_bar.zero_()
        return answer

    for _ in range(2):  # the cases are as they were
        assert check.judge(spoiling).status == "right"


@each
def test_a_stub_is_not_attempted(check, capsys):
    def stub(*case):
        raise NotImplementedError

    assert check.judge(stub) == Verdict("not attempted")
    check(stub)
    assert capsys.readouterr().out == "not attempted yet\n"


@each
def test_a_check_never_raises(check):
    for attempt, status, reason in [
        (lambda: 1, "crashed", "TypeError"),
        (lambda *case: exit(), "crashed", "SystemExit"),
        (lambda *case: "four", "crashed", "stopped with"),
        (lambda *case: None, "wrong", "`return` missing"),
        (lambda *case: torch.zeros(7, 7), "wrong", "shape [7, 7]"),
        (lambda *case: torch.zeros(()).expand(10**6, 10**6), "wrong", "shape [1000000, 1000000]"),
        (lambda *case: torch.full_like(LIBRARY[check.name](*case), 0.123), "wrong", "no common mistake"),
    ]:
        verdict = check.judge(attempt)
        assert verdict.status == status and reason in verdict.reason
        assert str(verdict).startswith("Not yet: ")


def test_every_check_has_three_wrong_answers():
    for name in EXERCISES:
        assert len([case for case in WRONG if case[0] == name]) >= 3, name


@pytest.mark.parametrize(("name", "wrong", "hint"), WRONG, ids=[f"{name}-{hint}" for name, _, hint in WRONG])
def test_a_mistake_that_somebody_else_wrote_is_named(name, wrong, hint):
    verdict = EXERCISES[name].judge(wrong)
    assert verdict.status == "wrong" and hint in verdict.reason


# -------------------------------------------------------------------------------------- the exercises of the notebooks


def exercises() -> list[tuple[str, str, list[str]]]:
    """A check's name, the code of its folded solution, and the parameters of its stub, over all notebooks."""
    found = []
    for path in NOTEBOOKS:
        book = nbformat.read(path, as_version=4)
        for cell, following in zip(book.cells, book.cells[1:], strict=False):
            for name, function in re.findall(r"^checks\.(\w+)\((\w+)\)$", cell.source, re.M):
                assert "raise NotImplementedError" in cell.source, f"{path.name} comes unsolved"
                solution = re.search(rf"```python\n((?:(?!```).)*def {function}\(.*?)```", following.source, re.S)
                assert solution, f"{path.name}: no folded solution for {name}"
                parameters = re.search(rf"def {function}\((.*?)\)", cell.source)[1].split(", ")
                found.append((name, solution[1], parameters))
    return found


@pytest.mark.parametrize(("name", "code"), [e[:2] for e in exercises()], ids=lambda v: v if v.isidentifier() else "")
def test_the_folded_solution_passes(name, code):
    space = {"torch": torch, "math": math, "vqlearn": vqlearn}
    exec(code, space)
    assert EXERCISES[name].judge(space[name]).status == "right"


def test_the_checks_are_the_exercises_and_bear_their_names_in_their_order():
    assert [name for name, _, _ in exercises()] == list(EXERCISES)
    assert set(EXERCISES) == set(LIBRARY) == set(checks.__all__) - {"EXERCISES", "Check", "Verdict"}
    for name, _, parameters in exercises():
        assert getattr(checks, name) is EXERCISES[name] and EXERCISES[name].name == name
        assert EXERCISES[name].signature == f"{name}({', '.join(parameters)})"


def test_sentences_end_once_and_say_what_they_are_about():
    for check in EXERCISES.values():
        assert check.praise.endswith(".") and not check.question.endswith(".")
        assert not any(text.endswith(".") for text, _ in check.mistakes)
        assert inspect.getmodule(check.solution).__doc__.startswith("Checks of notebook ")
