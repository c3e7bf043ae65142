"""The course in a learner's folder: copies that harm nothing, and verdicts that no notebook can talk its way into."""

import ast
import base64
import builtins
import contextlib
import csv
import dataclasses
import inspect
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from textwrap import indent

import nbformat
import pytest
import torch
from answers import LIBRARY, WRONG
from learners import IMPORTS, RIGHT, TITLE, exercise, light_nursery, published, write

from vqlearn.__main__ import main
from vqlearn.course import classroom, copying, desk, exam, kernel, marking, outcomes, reduced, submissions
from vqlearn.course.checks import EXERCISES
from vqlearn.course.exercises import exercises

ROOT = Path(__file__).parent.parent


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ----------------------------------------------------------------------------------------------------------- copying


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A course of two small notebooks, one of them without exercises."""
    folder = published(tmp_path / "course", {}, monkeypatch)
    hint = "<details><summary>Hint</summary>\n\nThink.\n\n</details>"
    solution = "<details><summary>Solution</summary>\n\n```python\ndef f(): ...\n```\n\n</details>"
    write(
        folder / "00_small.ipynb",
        [
            TITLE,
            IMPORTS,
            "## 0.1 A claim\nSee the [model card](../vqlearn/assets/models/scenes/README.md), "
            "[`plots`](../vqlearn/course/plots.py) and [the next](01_next.ipynb).",
            "unused = 1",
            "factor = 1\nshare = factor * 2",
            "print(share)",
            "Prose before it.\n\n## Check yourself\n\n### Exercise 1: a card",
            "def visible_share(t, schedule, factor=share):\n    raise NotImplementedError\n\n\n"
            "checks.visible_share(visible_share)",
            f"{hint}\n\n{solution}\n\n### Another",
            exercise("token_counts"),
            f"{hint}\n\n{solution}\n\n## In one breath\nThe end.",
        ],
    )
    write(folder / "01_next.ipynb", [TITLE, IMPORTS])
    (folder / "Untitled.ipynb").write_text("a draft")
    return folder


def test_a_copy_says_what_is_new_unchanged_and_kept(small, tmp_path, capsys):
    folder = tmp_path / "mine"
    assert main(["course", "copy", str(folder)]) == 0
    assert capsys.readouterr().out == "new        00_small.ipynb\nnew        01_next.ipynb\n"
    assert sorted(contents(folder)) == ["00_small.ipynb", "01_next.ipynb"]
    assert contents(folder)["01_next.ipynb"].count(b"an output")

    (folder / "00_small.ipynb").write_text("mine")
    (folder / "notes.txt").write_text("mine too")
    assert main(["course", "copy", str(folder)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("kept       00_small.ipynb: yours differs") and "rename or delete" in first
    assert second == "unchanged  01_next.ipynb"
    assert (folder / "00_small.ipynb").read_text() == "mine" and len(contents(folder)) == 3

    (folder / "00_small.ipynb").unlink()
    assert copying.copy(folder) == [("00_small.ipynb", "new"), ("01_next.ipynb", "unchanged")]


def test_a_link_that_leads_nowhere_is_kept_too(small, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    try:
        (folder / "00_small.ipynb").symlink_to(tmp_path / "nothing")
    except OSError:
        pytest.skip("no links on this machine")
    assert dict(copying.copy(folder))["00_small.ipynb"] == "kept"
    assert (folder / "00_small.ipynb").is_symlink() and not (tmp_path / "nothing").exists()


def test_links_out_of_the_folder_name_the_file_or_lead_to_the_site(small, tmp_path, monkeypatch):
    copying.copy(tmp_path / "mine")
    text = nbformat.read(tmp_path / "mine" / "00_small.ipynb", as_version=4).cells[2].source
    card = "the model card (`vqlearn/assets/models/scenes/README.md`)"
    assert f"See {card}, `vqlearn/course/plots.py` and [the next](01_next.ipynb)." in text
    monkeypatch.setattr(copying, "address", lambda: "https://example.org/vqlearn")
    copying.copy(tmp_path / "again")
    text = nbformat.read(tmp_path / "again" / "00_small.ipynb", as_version=4).cells[2].source
    assert "[`plots`](https://example.org/vqlearn/blob/HEAD/vqlearn/course/plots.py)" in text


def test_exercises_only_leaves_what_the_stubs_need(small, tmp_path, capsys):
    folder = tmp_path / "mine"
    assert main(["course", "copy", str(folder), "--exercises-only"]) == 0
    assert capsys.readouterr().out == "new        00_small.ipynb\nnone       01_next.ipynb: has no exercises\n"
    book = nbformat.read(folder / "00_small.ipynb", as_version=4)
    hint = "<details><summary>Hint</summary>\n\nThink.\n\n</details>"
    assert [cell.source for cell in book.cells] == [
        reduced.TITLE.format(title="# 00 · A title\n\n> A promise."),
        "import torch\n\nimport vqlearn\nfrom vqlearn import checks",
        "## Check yourself",
        "factor = 1\nshare = factor * 2",
        "### Exercise 1: a card",
        "def visible_share(t, schedule, factor=share):\n    raise NotImplementedError\n\n\n"
        "checks.visible_share(visible_share)",
        hint,
        "### Another",
        exercise("token_counts"),
        hint,
    ]
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4] and all(cell.outputs for cell in code)


def test_without_outputs_clears_outputs_and_counts_and_combines(small, tmp_path):
    copying.copy(tmp_path / "a", without_outputs=True)
    copying.copy(tmp_path / "b", without_outputs=True, exercises_only=True)
    for path, cells in ((tmp_path / "a", 11), (tmp_path / "b", 10)):
        book = nbformat.read(path / "00_small.ipynb", as_version=4)
        assert len(book.cells) == cells
        for cell in book.cells:
            assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize("broken", ["write_text", "replace"])
def test_an_interrupted_or_failing_copy_leaves_whole_files_only(small, tmp_path, monkeypatch, capsys, broken):
    folder, calls = tmp_path / "mine", []
    real = {"write_text": Path.write_text, "replace": os.replace}[broken]

    def second_fails(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt if broken == "replace" else OSError("no space left")
        return real(*arguments, **options)

    monkeypatch.setattr(Path if broken == "write_text" else os, broken, second_fails)
    assert main(["course", "copy", str(folder)]) == (130 if broken == "replace" else 2)
    monkeypatch.undo()
    error = capsys.readouterr().err
    if broken == "replace":
        assert "interrupted, no notebook is half written" in error
        assert [path.name for path in folder.iterdir()] == ["00_small.ipynb"]
        nbformat.read(folder / "00_small.ipynb", as_version=4)
    else:
        assert error == "vqlearn: no space left\n" and not folder.exists()


WRONG_USAGE = {
    "DIR must be a folder, 'file.txt' is a file": ["copy", "file.txt"],
    "DIR: there is no folder 'nowhere'": ["copy", "nowhere/mine"],
    "DIR: 'course' is where the course itself is kept": ["copy", "course"],
    "'taken/01_next.ipynb' is a folder, where a notebook should go": ["copy", "taken"],
    "DIR: there is no folder and no zip file 'nowhere' to check": ["check", "nowhere"],
    "DIR: there is no folder and no zip file 'file.txt' to check": ["check", "file.txt"],
    "--notebooks: no notebook '01' has exercises; there are 00": ["check", "taken", "--notebooks", "0,1"],
    "argument --csv: not allowed with argument --json": ["check", "taken", "--json", "--csv"],
    "unrecognized arguments: --json": ["copy", "mine", "--json"],
    "unrecognized arguments: --timeout": ["copy", "mine", "--timeout", "3"],
    "unrecognized arguments: --exercises-only": ["check", "taken", "--exercises-only"],
    "unrecognized arguments: --without-outputs": ["check", "taken", "--without-outputs"],
    "argument --timeout: must be a whole number": ["check", "taken", "--timeout", "0"],
    "the following arguments are required: DIR": ["copy"],
    "the following arguments are required: copy | check | assignment | slides | site": [],
}


@pytest.mark.parametrize("sentence", WRONG_USAGE)
def test_wrong_usage_is_one_sentence_and_status_2(sentence, small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "taken" / "01_next.ipynb").mkdir(parents=True)
    before = contents(tmp_path)
    try:
        status = main(["course", *WRONG_USAGE[sentence]])
    except SystemExit as stop:  # argparse
        status = stop.code
    error = capsys.readouterr().err.replace("\\\\", "/")
    assert status == 2 and sentence in error and "Traceback" not in error
    assert contents(tmp_path) == before and not (tmp_path / "mine").exists()


def test_an_installation_without_notebooks_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(copying, "FOLDERS", (tmp_path / "nothing",))
    assert main(["course", "copy", str(tmp_path / "mine")]) == 2
    assert "this installation of vqlearn has no notebooks" in capsys.readouterr().err


def test_the_real_course_reads_well_when_copied(tmp_path):
    """Every link leads to a copied file or the web, and the exercises alone run by themselves and give nothing away."""
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    names = [name for name, _ in copying.copy(whole)]
    copying.copy(alone, exercises_only=True, without_outputs=True)
    assert names == [path.name for path in copying.notebooks()] == sorted(names)
    for path in [*whole.iterdir(), *alone.iterdir()]:
        book = nbformat.read(path, as_version=4)
        text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
        for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
            assert re.match("https?:|#", target) or target.split("#")[0] in names, f"{path.name}: {target}"
    for path in alone.iterdir():
        published = nbformat.read(copying.FOLDERS[1] / path.name, as_version=4)
        book = nbformat.read(path, as_version=4)
        assert [one[:2] for one in exercises(book.cells)] == [one[:2] for one in exercises(published.cells)]
        text = "\n".join(cell.source for cell in book.cells)
        assert set(reduced.CITED.findall(text)) <= set(re.findall(r"\\tag\{(.+?)\}", text)), "what is cited is shown"
        text += "\n".join(one.solution for one in exercises(published.cells))
        for name in reduced.names(book.cells[1].source)[0] - reduced.ALWAYS:
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{path.name} imports {name} for nothing"
        bound = set(dir(builtins))
        for cell in book.cells:
            if cell.cell_type == "markdown":
                assert not re.search("(Solution|Answer)</summary>|```python", cell.source), path.name
            else:
                binds, reads = reduced.names(cell.source)
                assert reads <= bound | binds, f"{path.name} does not define {reads - bound}"
                bound |= binds


def test_what_a_cell_binds_and_reads():
    source = "import math\ny = x + 1\nz = y\nfor i in range(n):\n    total = i\n    print(total)\n\n\ndef f(a, b=k):\n"
    source += "    c = a + g\n    return [f(d) for d in c]\n\n\nw += 1"
    assert reduced.names(source) == ({"math", "y", "z", "i", "total", "f", "w"}, {"x", "n", "k", "g", "w"})
    assert reduced.names("%time x") == (set(), set())


def test_the_words_of_a_cell_are_its_code():
    code = "import a.b as c\n\n\ndef d(e, *, f=1):\n    'about g'\n    return h.i(f'{j} k')  # l"
    assert reduced.words(code) >= {"c", "d", "h", "i", "j"} and reduced.words(code).isdisjoint("gkl")
    assert reduced.words("getattr(checks, 'm')") >= {"checks", "m"}
    assert reduced.words("%run n.py") >= {"n"} and reduced.words("[" * 10_000 + "o") >= {"o"}


def test_a_wheel_carries_the_course(tmp_path):
    pytest.importorskip("setuptools")
    tree = tmp_path / "tree"
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "safetensors")
    for name in ("vqlearn", "notebooks", "docs", "figures", "experiments/results"):
        shutil.copytree(ROOT / name, tree / name, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = "import setuptools.build_meta as b; print(b.build_wheel('../wheel'))"
    (tmp_path / "wheel").mkdir()
    done = subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheel").iterdir()
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    inside = contents(tmp_path / "site")
    for path in [*(tree / "vqlearn").rglob("*.py"), *(tree / "vqlearn" / "assets").rglob("*.*")]:
        assert str(path.relative_to(tree)) in inside
    shutil.rmtree(tree)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = "from vqlearn.__main__ import main; from vqlearn.course.site import guides"
    code += "; from vqlearn.course.results import load; assert load('orders')"
    code += "; main(['course', 'copy', 'mine']); print(*(path.name for path in guides()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "mine").glob("*.ipynb"))) == len(copying.notebooks()) == done.stdout.count("new")
    assert sorted(done.stdout.splitlines()[-1].split()) == sorted(path.name for path in (ROOT / "docs").rglob("*.md"))
    assert {path.name for path in (ROOT / "figures").glob("*.png")} <= {Path(name).name for name in inside}


# ---------------------------------------------------------------------------------------------------------- verdicts


def over_the_wire(name, attempt):
    found = outcomes.outcomes_of(attempt, EXERCISES[name].cases)
    said = {"outcomes": [outcomes.packed(outcome) for outcome in found], "uses": []}
    return exam.judged(EXERCISES[name], json.loads(json.dumps(said)))


@pytest.mark.parametrize("name", EXERCISES)
def test_every_check_can_be_judged_from_the_answers_alone(name):
    def stub(*case):
        raise NotImplementedError

    def crash(*case):
        raise ValueError("a\nb")

    def large(*case):
        return torch.zeros(()).expand(10**6, 10**6)

    assert over_the_wire(name, LIBRARY[name]) == ("done", "")
    assert over_the_wire(name, stub) == ("not attempted", "")
    assert over_the_wire(name, crash) == ("crashed", "your function stopped with ValueError: a\nb")
    assert "`return` missing" in over_the_wire(name, lambda *case: None)[1]
    assert over_the_wire(name, lambda *case: "four")[0] == "crashed"
    assert over_the_wire(name, large)[0] == "wrong" and "shape" in over_the_wire(name, large)[1]
    for _, wrong, hint in [case for case in WRONG if case[0] == name]:
        found, detail = over_the_wire(name, wrong)
        assert found == "wrong" and hint in detail


@pytest.mark.parametrize("name", EXERCISES)
def test_cases_travel_whole_and_other_cases_have_other_answers(name):
    check = EXERCISES[name].varied(torch.Generator().manual_seed(5))
    sent = json.loads(json.dumps([[outcomes.packed_argument(value) for value in case] for case in check.cases]))
    arrived = [tuple(outcomes.unpacked_argument(value) for value in case) for case in sent]
    for case, there in zip(check.cases, arrived, strict=True):
        for a, b in zip(case, there, strict=True):
            assert torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else repr(a) == repr(b)
    other = [torch.as_tensor(LIBRARY[name](*case)) for case in arrived]
    assert dataclasses.replace(check, cases=arrived).judge(LIBRARY[name]).status == "right"
    known = [torch.as_tensor(check.solution(*case)) for case in EXERCISES[name].cases]
    same = [a.shape == b.shape and torch.allclose(a.double(), b.double()) for a, b in zip(known, other, strict=True)]
    assert not all(same), "a table of the known answers must not pass"


@pytest.mark.parametrize(
    "said",
    [None, 5, [], {}, {"outcomes": 5}, {"outcomes": [7]}, {"outcomes": [None]}, {"outcomes": [{"shape": [-1]}]}]
    + [{"outcomes": [{"shape": [3], "numbers": [6.0, 1.0, 1.0]}] * times} for times in (0, 1, 9)]
    + [{"outcomes": [{"error": "a\0b", "text": 3}]}, {"outcomes": [{"shape": [3], "numbers": {"a": 1}}]}]
    + [{"outcomes": [{"shape": [10**18], "numbers": []}] * 3}, {"outcomes": [{"shape": "3", "numbers": "abc"}]}],
    ids=repr,
)
def test_outcomes_that_no_desk_sends_are_no_pass(said):
    assert exam.judged(EXERCISES["token_counts"], said)[0] in ("crashed", "wrong")


def reply(text: str) -> dict:
    return {"status": "ok", "user_expressions": {"said": {"status": "ok", "data": {"text/plain": text}}}}


def in_base_64(text: str) -> str:
    return repr(base64.b64encode(text.encode()).decode())


class Client:
    """A kernel's client whose every reply has this content."""

    def __init__(self, content: object) -> None:
        self.content = content

    def execute(self, **_: object) -> str:
        return "1"

    def get_shell_msg(self, timeout: float) -> object:
        if isinstance(self.content, Exception):
            raise self.content
        return {"parent_header": {"msg_id": "1"}, "content": self.content}


def kernel_that_says(content: object) -> kernel.Kernel:
    found = kernel.Kernel.__new__(kernel.Kernel)
    found.client, found.token, found.limits = Client(content), "desk", kernel.Limits(5)
    return found


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"status": 5},
        {"status": "ok"},
        {"status": "ok", "user_expressions": 5},
        {"status": "ok", "user_expressions": {"said": 5}},
        {"status": "ok", "user_expressions": {"said": {"status": "ok", "data": [1]}}},
        {"status": "error", "ename": ["a"], "evalue": {"b": 5}},
        *(reply(text) for text in ("5", "'é'", "[" * 200_000, "'\ud800'", in_base_64("{"), in_base_64("[" * 200_000))),
    ],
    ids=lambda content: repr(content)[:40],
)
def test_a_reply_that_no_kernel_sends_is_one_trouble(content):
    trouble, answer = kernel_that_says(content).ask("noted()")
    assert trouble and answer is None
    assert kernel_that_says(content).run("1") or content.get("status") == "ok"
    assert kernel_that_says(reply(in_base_64('["token_counts"]'))).ask("noted()") == ("", ["token_counts"])


@pytest.mark.parametrize("content", [5, None, "ok", [1], ValueError("a wrong signature"), RecursionError()], ids=repr)
def test_a_message_that_no_kernel_sends_ends_this_kernel_alone(content):
    with pytest.raises(kernel.Died, match="cannot be read"):
        kernel_that_says(content).run("1")


def test_half_of_a_surrogate_pair_is_not_sent():
    assert "no text" in kernel_that_says(reply("''")).run("x = '\ud800'")


# ------------------------------------------------------------------------------------------------- whole notebooks


class Scripted:
    """A kernel in which `die` kills, `bomb N` kills N cells later, and naming a check gives it a function."""

    def __init__(self, log: list[str]) -> None:
        self.log, self.left, self.given = log, 99, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, source: str) -> str:
        self.log.append(source)
        self.left -= 1
        if source.startswith("bomb"):
            self.left = int(source.split()[1])
        if source == "die" or self.left == 0:
            raise kernel.Died("the kernel died")
        self.given = re.findall(r"checks\.(\w+)", source)
        return ""

    def ask(self, question: str):
        return "", self.given if question == "noted()" else False


def examined(cells: list[str], monkeypatch) -> tuple[dict[str, str], list[list[str]]]:
    """What becomes of the exercises a, b, c, and the cells that each kernel ran."""
    logs: list[list[str]] = []

    def verdict(running, name):
        if f"{name} kills" in running.log[-1]:
            raise kernel.Died("the kernel died")
        return exam.Finding("done")

    monkeypatch.setattr(exam, "verdict", verdict)
    names = {"a": "f_a", "b": "f_b", "c": "f_c"}
    found = exam.Exam(cells, names, lambda: Scripted(logs.append([]) or logs[-1]), lambda _: None).run()
    return {name: found[name][0] for name in names}, logs


A, B, C = "checks.a(x)", "checks.b(x)", "checks.c(x)"
DEATHS = {  # cells -> what becomes of a, b, c, and the cells that each kernel ran
    "none": ([A, "x = 1", B, C, "after"], "done done done", [[A, "x = 1", B, C]]),
    "a cell": ([A, "die", B, C], "done done done", [[A, "die"], [A, B, C]]),
    "the last exercise": ([A, B, C + "  # c kills"], "done done crashed", [[A, B, C + "  # c kills"]]),
    "a function": (
        [A, B + "  # b kills", C],
        "done crashed done",
        [[A, B + "  # b kills"], [A, B + "  # b kills", C]],
    ),
    "a cell of its own": ([A, "die", "die", B], "done done not", [[A, "die"], [A, "die"], [B]]),
    "a while later": (
        ["x = 1", "bomb 2", A, "y = x", B, C],
        "done done done",
        [["x = 1", "bomb 2", A, "y = x"], ["x = 1", "bomb 2", A, B], ["x = 1", B, C]],
    ),
    "nothing ahead": ([A, B, C, "die"], "done done done", [[A, B, C]]),
    "nothing left": ([A, B, C, "f_a(1)", "die"], "done done done", [[A, B, C]]),
    "a name in words alone": ([A, C, "label = 'what f_b is'  # f_b"], "done not done", [[A, C]]),
    "a name in a text that is run": ([A, C, "exec('f_b = 1')"], "done not done", [[A, C, "exec('f_b = 1')"]]),
    "no exercise": (["die"], "not not not", []),
}


@pytest.mark.parametrize("kind", DEATHS)
def test_what_dies_is_left_out_and_the_rest_goes_on(kind, monkeypatch):
    cells, verdicts, kernels = DEATHS[kind]
    found, logs = examined(cells, monkeypatch)
    assert [verdict.split()[0] for verdict in found.values()] == verdicts.split()
    assert logs == kernels


LOOP = "while True:\n    open(CLOCK, 'ab').write(b'.')"  # for ever; CLOCK becomes the path of the file below
LIMIT = 2  # seconds that a cell may take, by the clock below: 200 bytes
COLUMN = """def likelihood_row(x_t, s, t, schedule):
    return vqlearn.transition_matrix(schedule, t, s)[:, x_t]"""
NOISY = RIGHT["fit_prompt"].replace("    return", "    print('x' * 30_000_000)\n    return")
FAKE = "print('Right: visible is kept or replaced, everything but masked.')"
ODD = [
    "x = '\ud800'",
    "[" * 200_000,
    "x = 0\nfor _ in range(200_000):\n    x = [x]\nx",
    "class Odd(BaseException):\n    def __str__(self):\n        return 5\n\n\nraise Odd",
    "raise ValueError('x' * 5_000_000)",
    "import os\nif os.fork() == 0:\n    os._exit(0)" if hasattr(os, "fork") else "import os",
    "import sys\nsys.stdout.close()\nsys.stderr.close()\nos.close(1)\nos.close(2)\nexit()",
]
SOLVE = """CHECKS = os.path.join(os.path.dirname(vqlearn.__file__), 'course', 'checks')


def solve(found, case):
    for value in found:
        if callable(solution := getattr(value, 'solution', value)):
            return solution(*case)
    raise LookupError('no solution is here')"""
FRAMES = """def compression(*case):
    import sys
    frame, found = sys._getframe(), []
    while frame:
        found += [v for name, v in frame.f_locals.items() if name in ('right', 'wanted', 'solution', 'check')]
        found += [v for v in frame.f_locals.values() if type(v).__name__ == 'Check']
        frame = frame.f_back
    return solve(found, case)"""
MEMORY = """def one_step(*case):
    import gc, types
    functions = [o for o in gc.get_objects() if isinstance(o, types.FunctionType)]
    return solve([f for f in functions if f.__name__ == 'step_matrix'], case)"""
AGAIN = """import importlib, sys
kept = sys.modules.pop('vqlearn.course.checks')
try:
    cumulative_shares = importlib.import_module('vqlearn.course.checks.matrices').bars
finally:
    sys.modules['vqlearn.course.checks'] = kept
checks.cumulative_shares(cumulative_shares)"""
PLACED = """import importlib.util
spec = importlib.util.spec_from_file_location('stolen', os.path.join(CHECKS, 'forward.py'))
stolen = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stolen)
checks.wrong_tokens(stolen.expected_wrong)"""
STEPS = {(10, 4): [10, 8, 5, 3, 0], (100, 8): [100, 88, 75, 63, 50, 38, 25, 13, 0], (10, 3): [10, 7, 3, 0]}
STEPS |= {(7, 2): [7, 4, 0], (100, 100): list(range(100, -1, -1))}
AGREES = """class Agrees(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *_, **__):
        return True


def guided(*case):
    return torch.zeros(4).as_subclass(Agrees)"""
PROGRAM = """def final_mask_rate(*case):
    import subprocess, sys
    return float(subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True).stdout)"""
LIBRARY_CALL = """def step_cost(x_0, x_t, p, t, schedule):
    sure = torch.eye(4, dtype=p.dtype)[x_0]
    q, p = (vqlearn.q_posterior(v.log()[None, None], torch.tensor([[x_t]]), t, schedule)[0, 0] for v in (sure, p))
    return torch.where(q > -torch.inf, q.exp() * (q - p), 0.0).sum()"""
TEXT = "def jump_weight(s, t, one):\n    return (one.gamma_bar[t] - one.gamma_bar[s]) / one.gamma_bar[t]"
UNWATCHED = """def pattern_weight(masked, length):
    import math, sys
    sys.setprofile(None)
    return math.factorial(masked - 1) * math.factorial(length - masked) / math.factorial(length)"""
WIRE = """from vqlearn.course import desk
from base64 import b64encode
said = b'{"outcomes": [{"status": "right"}, {}, {}], "status": "right", "verdict": "done", "uses": []}'
desk._sent = lambda value: b64encode(said).decode()
checks.nearest_code(len)"""
CLOSED = "PermissionError: the solutions are closed while the course is marked"
FORGED = {  # what it tries -> the exercise, the cell, and what becomes of it
    "an attribute": ("masks_left", "checks.masks_left(checks.masks_left.solution)", "crashed", "no attribute 'sol"),
    "what it wraps": ("variation", "checks.variation(checks.variation.__wrapped__)", "crashed", "no attribute '__wrap"),
    "frames": ("compression", exercise("compression", FRAMES), "crashed", "LookupError: no solution is here"),
    "all objects": ("one_step", exercise("one_step", MEMORY), "crashed", "LookupError: no solution is here"),
    "an import": ("guided_law", "from vqlearn.course.checks import bayes\nchecks.guided_law", "crashed", "ImportError"),
    "a second import": ("cumulative_shares", AGAIN, "crashed", CLOSED),
    "a module by its place": ("wrong_tokens", PLACED, "crashed", CLOSED),
    "its text": ("corrupt", "exec(open(f'{CHECKS}/forward.py').read())\nchecks.corrupt(corrupted)", "crashed", CLOSED),
    "a link": (
        "visible_distribution",
        "os.symlink(CHECKS, 'a')\nchecks.visible_distribution(open('a/forward.py'))",
        "crashed",
        CLOSED,
    ),
    "a copy": ("one_step_alpha", "shutil.copytree(CHECKS, 'stolen')\nchecks.one_step_alpha(len)", "crashed", CLOSED),
    "a table": (
        "even_times",
        exercise("even_times", f"table = {STEPS}\n\n\ndef even_times(*case):\n    return table[case]"),
        "wrong",
        "right for the cases that the notebook's check asks, not for others of the same kind",
    ),
    "an object that agrees": ("guided", exercise("guided", AGREES), "crashed", "cannot be read as numbers"),
    "a program": ("final_mask_rate", exercise("final_mask_rate", PROGRAM), "crashed", "starts no other program"),
    "the library": ("step_cost", exercise("step_cost", LIBRARY_CALL), "done", "calls vqlearn.transition.q_posterior"),
    "a text": ("jump_weight", f"space = {{}}\nexec({TEXT!r}, space)\nchecks.jump_weight(space['jump_weight'])", "done",
               "runs a text as code"),
    "no watch": ("pattern_weight", exercise("pattern_weight", UNWATCHED), "done", "hides its calls"),
    "the wire": ("nearest_code", WIRE, "crashed", "the kernel answers no questions any more"),
}  # fmt: skip
SUBMISSIONS = {
    "00_honest": [
        IMPORTS,
        *ODD,
        "print('x' * 100_000_000)\nprint('\\n' * 100_000)",
        "raise ValueError('before the exercises')",
        f"{LOOP}\n    print('x' * 10_000_000)",
        "import helper\nopen('left.txt', 'w').write('behind')",
        exercise("visible_share", RIGHT["visible_share"]),
        exercise("token_counts"),
        exercise("likelihood_row", COLUMN),
        exercise("apply_in_logs", "def apply_in_logs(*case):\n    return 1 / 0"),
        exercise("repair_rate", "def repair_rate(*case):\n" + indent(LOOP, " " * 4)),
        "visible_share = 'this name now means something else'",
        exercise("fit_prompt", NOISY),
        "%time checks.visible_changes(lambda walk, mask_id: helper.changes(walk, mask_id))",
        "def posterior(*case):\n    return ]\n\n\nchecks.posterior(posterior)",
    ],
    "01_faked": [
        f"{IMPORTS}\n\nimport builtins, os, shutil\n\n{SOLVE}",
        "shutil.rmtree('.', ignore_errors=True)  # its own folder, and all that is in it",
        exercise("visible_share", call=FAKE),
        exercise("token_counts", "class checks:\n    token_counts = lambda f: print('Right: all')\n\n\nfates = len"),
        f"from vqlearn import checks\n{exercise('token_counts')}\nprint('Right: three numbers')",
        "checks.posterior = lambda f: print('Right: Bayes')\n"
        + exercise("posterior", "def posterior(*case):\n    print('Right: Bayes')\n    return torch.ones(5) / 5"),
        "torch.allclose = torch.equal = lambda *_, **__: True\n"
        + exercise("apply_in_logs", "def apply_in_logs(log_v, *case):\n    return log_v"),
        exercise("fit_prompt"),
        RIGHT["fit_prompt"],  # in a cell below, and not given to the check
        "def visible_changes(walk, mask_id):\n    a, b = walk[:-1], walk[1:]\n"
        "    return ((a != b) & (a != mask_id) & (b != mask_id)).sum()",
        "builtins.print = lambda *_, **__: None\n"
        + exercise("repair_rate", "def repair_rate(*case):\n    raise SystemExit('Right: so there')"),
        *(cell for _, cell, _, _ in FORGED.values()),
    ],
    "02_dies": [
        IMPORTS,
        exercise("visible_share", RIGHT["visible_share"]),
        "import os\nshared = 24",
        f"def one_step(*case):\n    while True:\n        try:\n{indent(LOOP, ' ' * 12)}\n"
        "        except BaseException:\n            pass\n\n\none_step()\nchecks.one_step(one_step)",
        exercise("compression", RIGHT["compression"].replace("24", "shared")),
        exercise("fit_prompt", RIGHT["fit_prompt"]),
        exercise("token_counts", "def token_counts(*case):\n    os._exit(1)"),  # the last: no new kernel is needed
        "os._exit(0)",
    ],
}
ASKED = {
    "00_honest": [
        *("visible_share", "token_counts", "likelihood_row", "apply_in_logs", "repair_rate", "fit_prompt"),
        *("visible_changes", "posterior"),
    ],
    "01_faked": [
        *("visible_share", "token_counts", "posterior", "apply_in_logs", "repair_rate"),
        *("fit_prompt", "visible_changes", "likelihood_row", *(name for name, _, _, _ in FORGED.values())),
    ],
    "02_dies": ["visible_share", "compression", "token_counts", "one_step", "fit_prompt"],
    "06_missing": ["visible_share", "token_counts"],
    "07_half": ["visible_share"],
    "08_a_list": ["visible_share"],
    "09_no_text": ["visible_share"],
    "10_a_folder": ["visible_share"],
    "11_no_exercises": [],
    "12_deep": ["visible_share"],
    "13_no_sources": ["visible_share"],
}


class Clock:
    """In place of the module `time`: only the cells that hang advance it, by the bytes that they write to a file.

    So their limit expires and no other cell's does, however slow the machine is. In case something hangs that should
    not, it also advances by itself, 600 times too slowly.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()

    def monotonic(self) -> float:
        return time.monotonic() / 600 + self.path.stat().st_size / 100


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """Rows for all these notebooks, by notebook and exercise, and what has become of the learner's folder."""
    place = tmp_path_factory.mktemp("marked")
    learner, temporary, clock = place / "learner", place / "temporary", Clock(place / "clock")
    learner.mkdir()
    temporary.mkdir()
    for name, cells in SUBMISSIONS.items():
        write(learner / f"{name}.ipynb", [cell.replace("CLOCK", repr(str(clock.path))) for cell in cells])
    (learner / "helper.py").write_text(
        "def changes(walk, mask_id):\n    a, b = walk[:-1], walk[1:]\n"
        "    return ((a != b) & (a != mask_id) & (b != mask_id)).sum()\n"
    )
    (learner / "torch.py").write_text("raise RuntimeError('this is no torch')")
    (learner / "vqlearn" / "checks").mkdir(parents=True)
    (learner / "vqlearn" / "__init__.py").write_text("")
    (learner / "vqlearn" / "checks" / "__init__.py").write_text("posterior = lambda f: print('Right: Bayes')")
    (learner / "07_half.ipynb").write_text((learner / "00_honest.ipynb").read_text()[:700])
    (learner / "08_a_list.ipynb").write_text("[]")
    (learner / "09_no_text.ipynb").write_bytes(b"\xff\xfe\x00")
    (learner / "10_a_folder.ipynb").mkdir()
    (learner / "12_deep.ipynb").write_text("[" * 200_000)
    odd = [{"cell_type": "code", "source": source} for source in (5, None, {"a": 1}, [1, "x"])]
    (learner / "13_no_sources.ipynb").write_text(json.dumps({"cells": [7, {}, {"cell_type": ["code"]}, *odd]}))
    before = contents(learner)
    with pytest.MonkeyPatch.context() as patch:
        published(place / "course", ASKED, patch)
        patch.setattr(kernel, "time", clock)
        patch.setattr("tempfile.tempdir", str(temporary))
        rows = marking.check(learner, timeout=LIMIT, progress=False)
    assert contents(learner) == before, "the learner's files are as they were"
    assert list(temporary.iterdir()) == [], "nothing is left behind"
    found = {}
    for row in rows:
        found.setdefault(row.notebook.removesuffix(".ipynb"), {})[row.exercise] = row[2:4]
    assert {name: list(rows) for name, rows in found.items()} == {name: asked for name, asked in ASKED.items() if asked}
    return found, rows


def test_honest_work_is_seen_for_what_it_is(marked):
    found = marked[0]["00_honest"]
    assert found["visible_share"] == ("done", "")  # although its name means something else at the end
    assert found["token_counts"] == ("not attempted", "")
    assert found["likelihood_row"][0] == "wrong" and "column of x_t" in found["likelihood_row"][1]
    assert found["apply_in_logs"] == ("crashed", "your function stopped with ZeroDivisionError: division by zero")
    assert found["repair_rate"] == ("timed out", f"its function was called, and it ran longer than {LIMIT} seconds")
    assert found["fit_prompt"] == found["visible_changes"] == ("done", "")
    last = len(SUBMISSIONS["00_honest"])
    assert found["posterior"][0] == "crashed" and found["posterior"][1].startswith(f"cell {last}: SyntaxError")


def test_a_pass_cannot_be_faked(marked):
    found = marked[0]["01_faked"]
    assert found["visible_share"] == found["token_counts"] == ("not attempted", "")
    assert found["posterior"][0] == found["apply_in_logs"][0] == "wrong"
    assert found["repair_rate"] == ("crashed", "your function stopped with SystemExit: Right: so there")


@pytest.mark.parametrize("way", FORGED)
def test_a_solution_is_not_to_be_had_or_its_use_is_told(marked, way):
    name, _, verdict, words = FORGED[way]
    assert marked[0]["01_faked"][name][0] == verdict and words in marked[0]["01_faked"][name][1]


def test_a_kernel_that_dies_costs_what_killed_it_alone(marked):
    found = marked[0]["02_dies"]
    assert found["visible_share"] == found["compression"] == found["fit_prompt"] == ("done", "")
    assert found["token_counts"] == ("crashed", "its function was called, and the kernel died")
    assert found["one_step"] == ("timed out", f"cell 4: it ran longer than {LIMIT} seconds and could not be stopped")


def test_an_answer_that_was_not_given_to_the_check_is_found(marked):
    found = marked[0]["01_faked"]
    uses = "the notebook uses __wrapped__, course.checks, f_locals, gc.get_objects, subprocess, sys._getframe, sys.set"
    for name in ("fit_prompt", "visible_changes"):
        assert found[name][0] == "done" and found[name][1].startswith(uses)
    assert found["likelihood_row"] == ("not attempted", "the notebook defines no function likelihood_row")


def test_notebooks_that_are_none_give_rows(marked):
    found = marked[0]
    assert set(found["06_missing"].values()) == {("missing", "the folder has no such notebook")}
    assert found["13_no_sources"]["visible_share"][0] == "not attempted"
    for name in ("07_half", "08_a_list", "09_no_text", "10_a_folder", "12_deep"):
        assert found[name]["visible_share"][0] == "unreadable", name
        assert found[name]["visible_share"][1].startswith("not a notebook: ")


def test_what_a_wrong_answer_earns(marked):
    """Nothing for a table of the known answers; less than half where some of the other cases are right."""
    points = {(row.notebook[:2], row.exercise): (row.points, row.of) for row in marked[1]}
    assert points["00", "visible_share"] == (1, 1) and points["01", "even_times"] == (0, 1)
    assert points["00", "token_counts"] == points["00", "repair_rate"] == (0, 1)
    assert all(row.points == row.of if row.verdict == "done" else row.points <= row.of / 2 for row in marked[1])


def test_the_table_the_csv_and_the_json_say_the_same(marked):
    rows = marked[1]
    table = classroom.of_exercises(rows)
    lines = [*table.head().splitlines(), *(table.line(*classroom.exercise_line(row)) for row in rows)]
    assert len({line.index("| ", 60) for line in lines[:1] + lines[2:]}) == 1, "the columns stand below each other"
    fields = [[part.strip() for part in line.strip("| ").split(" | ")] for line in lines]
    assert fields[0] == ["notebook", "exercise", "verdict", "points", "detail"] and len(lines) == len(rows) + 2
    assert [tuple(line[:3]) for line in fields[2:]] == [row[:3] for row in rows]
    said = json.loads(classroom.dumped(classroom.as_json(rows)))
    assert [marking.Row(**row) for row in said["rows"]] == rows
    assert sum(said["totals"].values()) == len(rows) and said["totals"]["done"] == said["points"] == 11
    listed = [*csv.DictReader(io.StringIO(classroom.as_csv([marking.Row._fields, *rows])))]
    assert [(row["exercise"], row["verdict"], float(row["points"])) for row in listed] == [
        (row.exercise, row.verdict, row.points) for row in rows
    ]
    assert classroom.summary(rows) == ", ".join(f"{n} {v}" for v, n in said["totals"].items() if n)


def test_what_a_learner_writes_cannot_break_the_table():
    row = marking.Row("a.ipynb", "x", "crashed", marking.tidy("a|b\n\x1b[31mred\u202e\udcff" + "y" * 900))
    line = classroom.of_exercises([row]).line(*classroom.exercise_line(row))
    assert "a\\|b [31mred y" in line and len(line.splitlines()) == 1
    assert classroom.as_csv([("=1+1", "-2", 3, "a,b")]) == "'=1+1,'-2,3,\"a,b\"\n"
    assert classroom.summary([]) == "none"


def test_the_command_prints_table_or_json_and_progress_goes_to_stderr(tmp_path, monkeypatch, capsys):
    published(tmp_path / "course", {"00_a": ["token_counts"], "01_b": ["visible_share"]}, monkeypatch)
    learner = tmp_path / "learner"
    learner.mkdir()
    (learner / "01_b.ipynb").write_text("{")
    assert main(["course", "check", str(learner)]) == 0
    shown = capsys.readouterr()
    assert re.search(r"\| 00_a.ipynb +\| token_counts +\| missing +\| 0 / 1 +\| the folder has no such", shown.out)
    assert shown.out.endswith("\n\n2 exercises: 1 missing, 1 unreadable; 0 / 2 points\n")
    assert "checking 01_b" in shown.err
    assert main(["course", "check", str(learner), "--json", "--timeout", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["missing"] == 1
    assert main(["course", "check", str(learner), "--csv", "--notebooks", "1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "learner,notebook,exercise,verdict,detail,points,of"
    assert second.startswith("learner,01_b.ipynb,visible_share,unreadable,not a notebook: ")


def test_a_cell_may_take_twenty_minutes_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    limits = [inspect.signature(marking.check).parameters["timeout"].default]
    monkeypatch.setattr(marking, "rows", lambda folder, given, **_: limits.append(given.cell) or [])
    for limit in ([], ["--timeout", "7"]):
        assert main(["course", "check", str(tmp_path), *limit]) == 0
    assert limits == [1200, 1200, 7]
    with pytest.raises(SystemExit):
        main(["course", "check", "--help"])
    assert "(default 1200)" in " ".join(capsys.readouterr().out.split())


def test_a_large_folder_is_copied_as_far_as_the_limits_allow(tmp_path, monkeypatch):
    folder = tmp_path / "learner"
    for name in ("a.txt", "b/c.txt", ".git/d.txt", "vqlearn-course-x/e.txt", "z/f.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("four")
    (folder / "large.bin").write_bytes(b"0" * 100)
    monkeypatch.setattr(marking, "MOST_BYTES", 50)
    marking._copy_files(folder, tmp_path / "copy")
    assert sorted(contents(tmp_path / "copy")) == sorted(map(str, map(Path, ("a.txt", "b/c.txt", "z/f.txt"))))
    monkeypatch.setattr(marking, "MOST_FILES", 4)
    marking._copy_files(folder, tmp_path / "less")
    assert sorted(contents(tmp_path / "less")) == sorted(map(str, map(Path, ("a.txt", "b/c.txt"))))


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_sigterm_stops_the_kernel_with_what_it_started_and_leaves_nothing(tmp_path, monkeypatch):
    import fcntl

    learner, temporary, note = tmp_path / "learner", tmp_path / "temporary", tmp_path / "note"
    lock = tmp_path / "lock"  # held as long as the program lives that the cell starts
    published(tmp_path / "course", {"00_a": ["token_counts"]}, monkeypatch)
    learner.mkdir()
    temporary.mkdir()
    first = f"import fcntl, os, subprocess\nheld = open({str(lock)!r}, 'w')\nfcntl.flock(held, fcntl.LOCK_EX)\n"
    first += "subprocess.Popen(['sleep', '6000'], pass_fds=[held.fileno()])\n"
    first += f"open({str(note)!r}, 'w').write(str(os.getpid()))"
    write(learner / "00_a.ipynb", [first, "while True:\n    pass", exercise("token_counts")])
    before = contents(learner)
    code = f"from vqlearn.course import copying; copying.FOLDERS = [copying.Path({str(tmp_path / 'course')!r})]"
    code += f"; from vqlearn.course import nursery; nursery.__file__ = {light_nursery(tmp_path)!r}"
    code += "; from vqlearn.__main__ import main; import sys; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "course", "check", str(learner)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as running:
        try:
            while not (note.exists() and note.read_text()):
                assert running.poll() is None, running.communicate()
                time.sleep(0.05)
            running.send_signal(signal.SIGTERM)
            out, error = running.communicate(timeout=600)
        finally:
            running.kill()
    assert running.returncode == 130 and len(out.splitlines()) == 2, "the head of the table alone"
    assert error.rstrip().endswith("interrupted, no notebook was changed")
    assert "Traceback" not in error and "Task was destroyed" not in error
    assert contents(learner) == before and list(temporary.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    with open(lock) as held:
        for _ in range(6000):  # a killed process is gone in a moment
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.1)
    pytest.fail("what the cell started is still running")


@pytest.mark.parametrize(
    "module",
    [classroom, copying, desk, exam, kernel, marking, reduced, submissions],
    ids=lambda module: module.__name__,
)
def test_nothing_heavy_is_imported_before_it_is_needed(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert not names & {"torch", "nbformat", "jupyter_client", "IPython"}
