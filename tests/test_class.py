"""A class at once: submissions in folders and zip files, marks side by side, points, assignments for autograders."""

import ast
import contextlib
import csv
import io
import json
import os
import re
import signal
import sys
import threading
import zipfile
from pathlib import Path

import nbformat
import pytest
from learners import IMPORTS, RIGHT, TITLE, exercise, published, write

from vqlearn.__main__ import main
from vqlearn.course import assignment, copying, exam, kernel, marking, outcomes, submissions
from vqlearn.course.checks import EXERCISES
from vqlearn.course.exercises import exercises
from vqlearn.course.marking import Row

COURSE = {"00_a": ["token_counts"], "01_b": ["visible_share"]}


@pytest.fixture
def course(tmp_path, monkeypatch) -> Path:
    return published(tmp_path / "course", COURSE, monkeypatch)


def zipped(path: Path, files: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def laid(folder: Path, files: list[str]) -> Path:
    """Files, and zip files "a.zip!b,c" that hold files, in a folder."""
    for name in files:
        name, _, inside = name.partition("!")
        if inside:
            zipped(folder / name, dict.fromkeys(inside.split(","), "{}"))
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("{}")
    return folder


def found(*paths: Path) -> tuple[dict[str, list[str]], bool]:
    """The learners, and the notebooks that each has."""
    with submissions.opened([str(path) for path in paths]) as (several, is_class):
        books = {
            one.learner: [one.trouble] if one.trouble else sorted(path.name for path in one.folder.glob("*.ipynb"))
            for one in several
        }
    assert not any(Path(str(one.folder)).exists() for one in several if "vqlearn-course-" in str(one.folder))
    return books, is_class


# ------------------------------------------------------------------------------------------------------ submissions

BOTH = "00_a.ipynb,01_b.ipynb"
LAYOUTS = {  # files -> learners with their notebooks, and whether they are a class
    "a learner's folder": (["00_a.ipynb", "data/x.csv"], {"top": ["00_a.ipynb"]}, False),
    "nothing": (["notes.txt"], {"top": []}, False),
    "a folder in a folder": (["mine/00_a.ipynb", "notes.txt"], {"top": ["00_a.ipynb"]}, False),
    "a folder each": (["ann/00_a.ipynb", "ben/x.txt"], {"ann": ["00_a.ipynb"], "ben": []}, True),
    "a zip file each": ([f"ann.zip!{BOTH}", "ben.zip!deep/er/01_b.ipynb"], {"ann": ["00_a.ipynb", "01_b.ipynb"],
                        "ben": ["01_b.ipynb"]}, True),
    "as Moodle packs them": (["Ann_1_file/ann.zip!work/00_a.ipynb", "Ben_2_file/01_b.ipynb"],
                             {"Ann_1_file": ["00_a.ipynb"], "Ben_2_file": ["01_b.ipynb"]}, True),
    "what a Mac adds": (["ann.zip!__MACOSX/00_a.ipynb,ann/01_b.ipynb,ann/.DS_Store", ".git/00_a.ipynb", "ben/x"],
                        {"ann": ["01_b.ipynb"], "ben": []}, True),
    "one name twice": (["ann/00_a.ipynb", "ann.zip!01_b.ipynb"], {"ann": ["00_a.ipynb"], "ann (2)": ["01_b.ipynb"]},
                       True),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_learners_are_found_in_folders_and_zip_files(layout, course, tmp_path):
    files, learners, is_class = LAYOUTS[layout]
    assert found(laid(tmp_path / "top", files)) == (learners, is_class)


def test_several_paths_are_a_learner_each_and_a_zip_file_may_hold_a_class(course, tmp_path):
    top = laid(tmp_path / "top", ["ann/00_a.ipynb", "ben/x.txt", "all.zip!top/ann/00_a.ipynb,top/ben/01_b.ipynb"])
    assert found(top / "ann", top / "ben") == ({"ann": ["00_a.ipynb"], "ben": []}, True)
    assert found(top / "all.zip") == ({"ann": ["00_a.ipynb"], "ben": ["01_b.ipynb"]}, True)


def test_a_zip_file_writes_nowhere_else_and_no_more_than_it_may(course, tmp_path, monkeypatch):
    names = ["../00_a.ipynb", "/00_a.ipynb", "C:/00_a.ipynb", "a/../../00_a.ipynb", "01_b.ipynb"]
    zipped(tmp_path / "in" / "ann.zip", dict.fromkeys(names, "{}"))
    assert found(tmp_path / "in" / "ann.zip") == ({"ann": ["01_b.ipynb"]}, False)
    (tmp_path / "in" / "ben.zip").write_bytes(b"PK no zip file")
    zipped(tmp_path / "in" / "large.zip", {"00_a.ipynb": "0" * 5000})
    monkeypatch.setattr(submissions, "MOST_BYTES", 1000)
    learners, _ = found(tmp_path / "in")
    assert learners["ann"] == ["01_b.ipynb"]
    assert learners["ben"] == ["'ben.zip' cannot be unpacked: File is not a zip file"]
    assert learners["large"] == ["'large.zip' holds more than 1e-06 GB"]


# ------------------------------------------------------------------------------------------------------------ a class


def marks(monkeypatch, answer) -> None:
    """In place of marking: `answer(learner, limits)` gives the verdict on the first exercise; the second is missing."""

    def rows(folder, limits, *, numbers=(), tell=None):
        for path in marking.chosen(numbers):
            (one,) = exercises(copying.read(path).cells)
            verdict = answer(Path(folder).name, limits) if path.name == "00_a.ipynb" else "missing"
            yield Row(path.name, one.check, verdict, "=1+1", float(verdict == "done"), one.points)

    monkeypatch.setattr(marking, "rows", rows)


def test_a_class_as_table_csv_and_json(course, tmp_path, monkeypatch, capsys):
    marks(monkeypatch, lambda learner, _: "done" if learner == "ann" else "timed out")
    top = laid(tmp_path / "top", ["ann/00_a.ipynb", "ben/00_a.ipynb"])
    (top / "carl.zip").write_bytes(b"")
    assert main(["course", "check", str(top)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["|", "learner", "|", "points", "|", "verdicts", "|"]
    assert {tuple(part.strip() for part in line.strip("|").split("|")) for line in lines[2:]} == {
        ("ann", "1 / 2", "1 done, 1 missing"),
        ("ben", "0 / 2", "1 timed out, 1 missing"),
        ("carl", "0 / 2", "2 unreadable"),
    }
    assert main(["course", "check", str(top), "--csv", "--jobs", "3"]) == 0
    listed = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert len(listed) == 6 and {row["learner"] for row in listed} == {"ann", "ben", "carl"}
    first = next(row for row in listed if row["learner"] == "ann")
    assert first["points"] == "1.0" and first["of"] == "1" and first["detail"] == "'=1+1"
    assert main(["course", "check", str(top), "--json", "--notebooks", "0"]) == 0
    said = json.loads(capsys.readouterr().out)["learners"]
    assert [(one["learner"], one["points"], one["of"]) for one in said] == [
        ("ann", 1, 1),
        ("ben", 0, 1),
        ("carl", 0, 1),
    ]
    assert said[1]["totals"]["timed out"] == 1 and said[0]["rows"][0]["verdict"] == "done"


def test_what_could_not_be_marked_is_the_exit_status(course, tmp_path, monkeypatch, capsys):
    marks(monkeypatch, lambda learner, _: "not marked" if learner == "ben" else "crashed")
    top = laid(tmp_path / "top", ["ann/00_a.ipynb", "ben/00_a.ipynb"])
    assert main(["course", "check", str(top)]) == main(["course", "check", str(top / "ben")]) == 1
    assert main(["course", "check", str(top / "ann")]) == 0


def test_a_mishap_with_one_learner_costs_the_others_nothing(course, tmp_path, monkeypatch, capsys):
    marks(monkeypatch, lambda learner, _: {"ann": "done"}[learner])
    top = laid(tmp_path / "top", ["ann/00_a.ipynb", "ben/00_a.ipynb"])
    assert main(["course", "check", str(top), "--csv"]) == 1
    listed = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert [row["detail"] for row in listed if row["verdict"] == "not marked"] == ["KeyError: 'ben'"] * 2
    assert [row["learner"] for row in listed if row["verdict"] == "done"] == ["ann"]


def test_learners_are_marked_side_by_side(course, tmp_path, monkeypatch, capsys):
    together = threading.Barrier(3, timeout=600)
    marks(monkeypatch, lambda *_: "done" if together.wait() >= 0 else "")
    top = laid(tmp_path / "top", [f"{name}/00_a.ipynb" for name in ("ann", "ben", "carl")])
    assert main(["course", "check", str(top), "--jobs", "3"]) == 0
    assert capsys.readouterr().out.count("1 done") == 3


@pytest.fixture
def heard():
    """Ctrl-C is not ignored, as it is where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_all_learners_and_leaves_nothing(name, course, tmp_path, monkeypatch, capsys, heard):
    ended, running = [], threading.Barrier(2, timeout=600)

    def answer(learner, limits):
        try:
            if running.wait() == 0:
                os.kill(os.getpid(), getattr(signal, name))
            while True:
                limits.check()
        except kernel.Stopped:
            ended.append(learner)
            raise

    marks(monkeypatch, answer)
    monkeypatch.setattr("tempfile.tempdir", str(laid(tmp_path / "temporary", ["x"])))
    top = laid(tmp_path / "top", ["ann.zip!00_a.ipynb", "ben/00_a.ipynb", "carl/00_a.ipynb"])
    before = signal.getsignal(signal.SIGTERM)
    assert main(["course", "check", str(top), "--jobs", "2"]) == 130
    assert len(ended) == 2, "the third never began"
    assert capsys.readouterr().err.rstrip().endswith("interrupted, no notebook was changed")
    assert [path.name for path in (tmp_path / "temporary").iterdir()] == ["x"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_time_for_all_notebooks_ends(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(kernel.time, "monotonic", lambda: now[0])
    limits = kernel.Limits(5, 60)
    limits.check()
    now[0] = 161.0
    with pytest.raises(kernel.OutOfTime, match="the 60 seconds for all notebooks were used up"):
        limits.check()
    kernel.Limits(5).check()

    @contextlib.contextmanager
    def start():
        yield limits.check()

    left = exam.Exam(["checks.a(a)", "checks.b(b)"], {"a": "a", "b": "b"}, start, str).run()
    assert {one[:2] for one in left.values()} == {
        ("timed out", "not reached: the 60 seconds for all notebooks were used up")
    }


def test_a_notebook_as_it_was_handed_out_needs_no_kernel(course, tmp_path, monkeypatch):
    copying.copy(tmp_path / "whole")
    copying.copy(tmp_path / "alone", exercises_only=True)
    monkeypatch.setattr(marking, "_kernel", None)
    for folder in ("whole", "alone"):
        rows = marking.check(tmp_path / folder, progress=False)
        assert [row[2:4] for row in rows] == [("not attempted", "nothing was changed")] * 2


# ------------------------------------------------------------------------------------------------------------- points


class Asked:
    """A kernel whose desk has one function, in this process."""

    def __init__(self, attempt) -> None:
        self.attempt = attempt

    def ask(self, question: str):
        return "", eval(question, {"answers": self.answers})

    def answers(self, name: str, cases: str):
        asked = [tuple(map(outcomes.unpacked_argument, case)) for case in json.loads(cases)]
        found = outcomes.outcomes_of(self.attempt, asked)
        return json.loads(json.dumps({"outcomes": [*map(outcomes.packed, found)], "uses": []}))


def test_half_an_answer_earns_by_the_cases_that_nobody_knows():
    space: dict = {}
    exec(RIGHT["compression"], space)
    right = space["compression"]
    assert exam.verdict(Asked(right), "compression") == ("done", "", 1.0)
    known = {case: right(*case) for case in EXERCISES["compression"].cases}
    assert exam.verdict(Asked(lambda *case: known.get(case, 0.0)), "compression") == ("wrong", exam.TABLE, 0.0)
    calls: list[tuple] = []

    def first_half(*case):
        calls.append(case)
        return right(*case) if len(calls) % 2 else 0.0

    verdict, _, share = exam.verdict(Asked(first_half), "compression")
    count = len(EXERCISES["compression"].cases)
    assert verdict == "wrong" and share == exam.MOST * sum(i % 2 == 0 for i in range(count, 2 * count)) / count
    assert exam.verdict(Asked(lambda *case: 1 / 0), "compression")[::2] == ("crashed", 0.0)


def test_points_are_the_stars_of_the_card(tmp_path):
    cards = [
        exercise("token_counts"),
        "### Two\n★★☆ · 5 minutes.",
        "More of it.",
        exercise("visible_share"),
        "### Three",
    ]
    write(tmp_path / "a.ipynb", [TITLE, IMPORTS, "## Check yourself\n★★★ in the heading's text", *cards])
    found = exercises(nbformat.read(tmp_path / "a.ipynb", as_version=4).cells)
    assert [(one.check, one.points, one.title) for one in found] == [
        ("token_counts", 3, "token_counts"),
        ("visible_share", 2, "Two"),
    ]
    stars = [one.points for path in copying.notebooks() for one in exercises(copying.read(path).cells)]
    assert set(stars) == {1, 2, 3} and len(stars) > 40


# -------------------------------------------------------------------------------------------------------- assignments


@pytest.fixture(scope="module")
def assignments(tmp_path_factory) -> dict[str, list[Path]]:
    place = tmp_path_factory.mktemp("assignments")
    assert main(["course", "assignment", str(place / "nbgrader")]) == 0
    assert main(["course", "assignment", str(place / "otter"), "--for", "otter"]) == 0
    return {name: sorted((place / name).rglob("*.ipynb")) for name in ("nbgrader", "otter")}


BOOLEANS = "grade", "solution", "locked", "task"
KEYS = {  # of nbgrader's metadata, schema 3, as its documentation describes it
    **dict.fromkeys(BOOLEANS, bool),
    **{"schema_version": int, "grade_id": str, "points": int},
}
SOLUTION = re.compile(r"( *)### BEGIN SOLUTION.*### END SOLUTION", re.S)


def imports(cell) -> bool:
    kinds = ast.Import | ast.ImportFrom
    return cell.cell_type == "code" and all(isinstance(node, kinds) for node in ast.parse(cell.source).body)


def test_an_assignment_has_the_documented_metadata_and_its_solutions_pass_its_tests(assignments):
    graded = []
    for path in assignments["nbgrader"]:
        assert path.parts[-3:] == ("source", path.stem, path.name)
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        marked = [cell for cell in book.cells if "nbgrader" in cell.metadata]
        ids = [cell.metadata.nbgrader.grade_id for cell in marked]
        assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]+", one) for one in ids)
        space: dict = {}
        for cell in book.cells:
            marks = dict(cell.metadata.get("nbgrader", {}))
            assert all(isinstance(value, KEYS[name]) for name, value in marks.items())
            assert ("points" in marks) == marks.get("grade", False) and marks.get("schema_version", 3) == 3
            if marks or imports(cell):
                exec(cell.source, space)
        for answer, test in zip(marked[::2], marked[1::2], strict=True):
            assert (answer.metadata.nbgrader.solution, test.metadata.nbgrader.locked) == (True, True)
            exec(SOLUTION.sub(r"\1raise NotImplementedError()", answer.source), space)  # as it is handed out
            with pytest.raises(AssertionError, match="not attempted yet"):
                exec(test.source, space)
        graded += ids[::2]
    assert graded == [one.check for path in copying.notebooks() for one in exercises(copying.read(path).cells)]


def test_nbgrader_itself_finds_no_fault(assignments):
    v3 = pytest.importorskip("nbgrader.nbgraderformat.v3", reason="nbgrader is not installed: pip install nbgrader")
    for path in assignments["nbgrader"]:
        v3.MetadataValidatorV3().validate_nb(nbformat.read(path, as_version=4))


def test_a_question_of_otter_is_between_its_marks(assignments):
    for path in assignments["otter"]:
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        raw = [cell.source.splitlines()[0] for cell in book.cells if cell.cell_type == "raw"]
        names = [one.check for one in exercises(copying.read(copying.FOLDERS[1] / path.name).cells)]
        parts = ["BEGIN QUESTION", "BEGIN SOLUTION", "END SOLUTION", "BEGIN TESTS", "END TESTS", "END QUESTION"]
        assert raw == ["# ASSIGNMENT CONFIG", *(f"# {part}" for _ in names for part in parts)]
        for cell in book.cells:
            ast.parse(cell.source if cell.cell_type == "code" else "")
        text = "\n".join(cell.source for cell in book.cells)
        assert re.findall(r"^name: (\w+)$", text, re.M) == names and text.count("# BEGIN PROMPT") == len(names)


def test_an_assignment_that_is_there_stays(course, tmp_path, capsys):
    with pytest.raises(ValueError, match="the exercise 'token_counts' has no solution that defines"):
        assignment.write(tmp_path / "out", "nbgrader")
    solution = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"
    for name, (check,) in COURSE.items():
        write(course / f"{name}.ipynb", [TITLE, IMPORTS, exercise(check), solution.format(RIGHT[check])])
    there = tmp_path / "out" / "source" / "00_a" / "00_a.ipynb"
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    assert main(["course", "assignment", str(tmp_path / "out")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("kept       source/00_a/00_a.ipynb") and second == "new        source/01_b/01_b.ipynb"
    assert there.read_text() == "mine"
