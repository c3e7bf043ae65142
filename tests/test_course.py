"""The course in a learner's folder: copies that harm nothing, and verdicts that no notebook can talk its way into."""

import ast
import builtins
import inspect
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

from vqlearn.__main__ import main
from vqlearn.course import copying, desk, kernel, marking
from vqlearn.course.checks import EXERCISES

ROOT = Path(__file__).parent.parent
RIGHT = {  # answers as a learner writes them
    "visible_share": "def visible_share(t, schedule):\n    return 1 - schedule.gamma_bar[t]",
    "fates": """def fates(x_0, x_t, mask_id):
    kept, masked = (x_t == x_0).sum(), (x_t == mask_id).sum()
    return kept, len(x_0) - kept - masked, masked""",
    "fit_prompt": """def fit_prompt(ids, length, pad):
    short = ids[: length - 1] + ids[-1:] if len(ids) > length else ids
    return short + [pad] * (length - len(short))""",
}
IMPORTS = "# NBVAL_IGNORE_OUTPUT\nimport torch\n\nimport vqlearn\nfrom vqlearn import checks"
TITLE = "# 00 · A title\n\n> A promise.\n\n| You will | You need |\n|---|---|\n| learn | time |\n\nAn introduction."


def write(path: Path, cells: list[str]) -> None:
    """A notebook of these cells; one that begins like Markdown is Markdown, the others are code with an output."""
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"display_name": "", "name": "python3"}})
    for number, source in enumerate(cells):
        if re.match(r"#+ |<details>|[A-Z]", source) and not source.startswith("# NBVAL"):
            cell = nbformat.v4.new_markdown_cell(source, id=str(number))
        else:
            output = nbformat.v4.new_output("stream", text="an output\n")
            cell = nbformat.v4.new_code_cell(source, id=str(number), execution_count=7, outputs=[output])
        book.cells.append(cell)
    nbformat.write(book, path)


def exercise(name: str, code: str | None = None, call: str = "") -> str:
    stub = f"def {name}(*case):\n    raise NotImplementedError"
    return f"{code or stub}\n\n\n{call or f'checks.{name}({name})'}"


def published(folder: Path, books: dict[str, list[str]], monkeypatch) -> Path:
    """A course of these notebooks, each with stubs for these exercises."""
    folder.mkdir()
    for name, exercises in books.items():
        write(folder / f"{name}.ipynb", [TITLE, IMPORTS, *map(exercise, exercises)])
    monkeypatch.setattr(copying, "FOLDERS", (folder,))
    return folder


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
            exercise("fates"),
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
        "# 00 · A title\n\n> A promise.\n\nThese are the exercises alone, without their solutions.",
        IMPORTS,
        "factor = 1\nshare = factor * 2",
        "## Check yourself\n\n### Exercise 1: a card",
        "def visible_share(t, schedule, factor=share):\n    raise NotImplementedError\n\n\n"
        "checks.visible_share(visible_share)",
        f"{hint}\n\n### Another",
        exercise("fates"),
        hint,
    ]
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4] and all(cell.outputs for cell in code)


def test_without_outputs_clears_outputs_and_counts_and_combines(small, tmp_path):
    copying.copy(tmp_path / "a", without_outputs=True)
    copying.copy(tmp_path / "b", without_outputs=True, exercises_only=True)
    for path, cells in ((tmp_path / "a", 11), (tmp_path / "b", 8)):
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
    "DIR: there is no folder 'nowhere' to check": ["check", "nowhere"],
    "DIR: there is no folder 'file.txt' to check": ["check", "file.txt"],
    "unrecognized arguments: --json": ["copy", "mine", "--json"],
    "unrecognized arguments: --timeout": ["copy", "mine", "--timeout", "3"],
    "unrecognized arguments: --exercises-only": ["check", "taken", "--exercises-only"],
    "unrecognized arguments: --without-outputs": ["check", "taken", "--without-outputs"],
    "argument --timeout: must be a whole number of at least 1, got '0'": ["check", "taken", "--timeout", "0"],
    "the following arguments are required: DIR": ["copy"],
    "the following arguments are required: copy | check | site": [],
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
    whole, reduced = tmp_path / "whole", tmp_path / "reduced"
    names = [name for name, _ in copying.copy(whole)]
    copying.copy(reduced, exercises_only=True, without_outputs=True)
    assert names == [path.name for path in copying.notebooks()] == sorted(names)
    for path in [*whole.iterdir(), *reduced.iterdir()]:
        book = nbformat.read(path, as_version=4)
        text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
        for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
            assert re.match("https?:|#", target) or target.split("#")[0] in names, f"{path.name}: {target}"
    for path in reduced.iterdir():
        published = nbformat.read(copying.FOLDERS[1] / path.name, as_version=4)
        book = nbformat.read(path, as_version=4)
        assert copying.exercises(book) == copying.exercises(published)
        bound = set(dir(builtins))
        for cell in book.cells:
            if cell.cell_type == "markdown":
                assert "Solution</summary>" not in cell.source and "```python" not in cell.source, path.name
            else:
                binds, reads = copying._names(cell.source)
                assert reads <= bound, f"{path.name} does not define {reads - bound}"
                bound |= binds


def test_what_a_cell_binds_and_reads():
    source = "import math\ny = x + 1\nz = y\nfor i in range(n):\n    total = i\n    print(total)\n\n\ndef f(a, b=k):\n"
    source += "    c = a + g\n    return [f(d) for d in c]\n\n\nw += 1"
    assert copying._names(source) == ({"math", "y", "z", "i", "total", "f", "w"}, {"x", "n", "k", "g", "w"})
    assert copying._names("%time x") == (set(), set())


def test_a_wheel_carries_the_course(tmp_path):
    pytest.importorskip("setuptools")
    tree = tmp_path / "tree"
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "safetensors")
    for name in ("vqlearn", "notebooks"):
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
    command = [sys.executable, "-m", "vqlearn", "course", "copy", "mine"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "mine").glob("*.ipynb"))) == len(copying.notebooks()) == done.stdout.count("new")


# ---------------------------------------------------------------------------------------------------------- verdicts


def over_the_wire(name, attempt):
    outcomes = [desk.packed(outcome) for outcome in EXERCISES[name].run(attempt)]
    return marking.judged(name, json.loads(json.dumps(outcomes)))


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


def test_outcomes_that_no_desk_sends_are_no_pass():
    one = {"shape": [3], "numbers": [6.0, 1.0, 1.0]}
    for outcomes in ([], [one], [one] * 9, [{"error": "a\0b", "text": 3}], [7], {"x": 1}, [{"shape": [-1]}], [None]):
        assert marking.judged("fates", outcomes)[0] in ("crashed", "wrong")


# ------------------------------------------------------------------------------------------------- whole notebooks

LOOP = "while True:\n    open(CLOCK, 'ab').write(b'.')"  # for ever; CLOCK becomes the path of the file below
LIMIT = 2  # seconds that a cell may take, by the clock below: 200 bytes
COLUMN = """def likelihood_row(x_t, s, t, schedule):
    return vqlearn.transition_matrix(schedule, t, s)[:, x_t]"""
NOISY = RIGHT["fit_prompt"].replace("    return", "    print('x' * 30_000_000)\n    return")
FAKE = "print('Right: visible is kept or replaced, everything but masked.')"
SUBMISSIONS = {
    "00_honest": [
        IMPORTS,
        "print('x' * 100_000_000)\nprint('\\n' * 100_000)",
        "raise ValueError('before the exercises')",
        f"{LOOP}\n    print('x' * 10_000_000)",
        "import helper\nopen('left.txt', 'w').write('behind')",
        exercise("visible_share", RIGHT["visible_share"]),
        exercise("fates"),
        exercise("likelihood_row", COLUMN),
        exercise("apply_in_logs", "def apply_in_logs(*case):\n    return 1 / 0"),
        exercise("repair_rate", "def repair_rate(*case):\n" + indent(LOOP, " " * 4)),
        "visible_share = 'this name now means something else'",
        exercise("fit_prompt", NOISY),
        "%time checks.visible_changes(lambda walk, mask_id: helper.changes(walk, mask_id))",
        "def posterior(*case):\n    return ]\n\n\nchecks.posterior(posterior)",
    ],
    "01_faked": [
        IMPORTS,
        "import builtins, os, shutil\nfrom vqlearn.course.checks import bayes, check\n"
        "shutil.rmtree(os.getcwd(), ignore_errors=True)  # its own folder, and all that is in it",
        exercise("visible_share", call=FAKE),
        exercise("fates", "class checks:\n    fates = lambda f: print('Right: three fates')\n\n\nfates = len"),
        f"from vqlearn import checks\n{exercise('fates')}\nprint('Right: three fates')",
        "checks.posterior = lambda f: print('Right: Bayes')\nbayes.posterior = checks.posterior\n"
        + exercise("posterior", "def posterior(*case):\n    print('Right: Bayes')\n    return torch.ones(5) / 5"),
        "torch.allclose = check._close = lambda *_, **__: True\n"
        "check.Check.judge = check.Check.verdict = lambda *_: check.Verdict('right')\n"
        + exercise("apply_in_logs", "def apply_in_logs(log_v, *case):\n    return log_v"),
        exercise("fit_prompt"),
        RIGHT["fit_prompt"],  # in a cell below, and not given to the check
        "def visible_changes(walk, mask_id):\n    a, b = walk[:-1], walk[1:]\n"
        "    return ((a != b) & (a != mask_id) & (b != mask_id)).sum()",
        "builtins.print = lambda *_, **__: None\ncheck.collect_attempts(print)\n"
        + exercise("repair_rate", "def repair_rate(*case):\n    raise SystemExit('Right: so there')"),
    ],
    "02_exits": [
        IMPORTS,
        exercise("visible_share", RIGHT["visible_share"]),
        "import os\nos._exit(0)",
        exercise("fates", RIGHT["fates"]),
    ],
    "03_exits_in_a_function": [
        IMPORTS,
        exercise("fates", "def fates(*case):\n    import os\n    os._exit(1)"),
        exercise("visible_share", RIGHT["visible_share"]),
    ],
    "04_stubborn": [
        IMPORTS,
        f"def visible_share(*case):\n    while True:\n        try:\n{indent(LOOP, ' ' * 12)}\n"
        "        except BaseException:\n            pass\n\n\nvisible_share()\nchecks.visible_share(visible_share)",
    ],
}
ASKED = {
    "00_honest": [
        *("visible_share", "fates", "likelihood_row", "apply_in_logs", "repair_rate", "fit_prompt"),
        *("visible_changes", "posterior"),
    ],
    "01_faked": [
        *("visible_share", "fates", "posterior", "apply_in_logs", "repair_rate"),
        *("fit_prompt", "visible_changes", "likelihood_row"),
    ],
    "02_exits": ["visible_share", "fates"],
    "03_exits_in_a_function": ["fates", "visible_share"],
    "04_stubborn": ["visible_share"],
    "06_missing": ["visible_share", "fates"],
    "07_half": ["visible_share"],
    "08_a_list": ["visible_share"],
    "09_no_text": ["visible_share"],
    "10_a_folder": ["visible_share"],
    "11_no_exercises": [],
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
        found.setdefault(row.notebook.removesuffix(".ipynb"), {})[row.exercise] = row[2:]
    assert {name: list(rows) for name, rows in found.items()} == {name: asked for name, asked in ASKED.items() if asked}
    return found, rows


def test_honest_work_is_seen_for_what_it_is(marked):
    found = marked[0]["00_honest"]
    assert found["visible_share"] == ("done", "")  # although its name means something else at the end
    assert found["fates"] == ("not attempted", "")
    assert found["likelihood_row"][0] == "wrong" and "column of x_t" in found["likelihood_row"][1]
    assert found["apply_in_logs"] == ("crashed", "your function stopped with ZeroDivisionError: division by zero")
    assert found["repair_rate"] == ("crashed", f"its function was called, and it ran longer than {LIMIT} seconds")
    assert found["fit_prompt"] == found["visible_changes"] == ("done", "")
    assert found["posterior"][0] == "crashed" and found["posterior"][1].startswith("cell 14: SyntaxError")


def test_a_pass_cannot_be_faked(marked):
    found = marked[0]["01_faked"]
    assert found["visible_share"] == found["fates"] == ("not attempted", "")
    assert found["posterior"][0] == found["apply_in_logs"][0] == "wrong"
    assert found["repair_rate"] == ("crashed", "your function stopped with SystemExit: Right: so there")


def test_a_dead_or_stubborn_kernel_gives_rows(marked):
    assert marked[0]["02_exits"]["visible_share"] == ("done", "")
    assert marked[0]["02_exits"]["fates"] == ("crashed", "not reached: in cell 3 the kernel died")
    assert marked[0]["03_exits_in_a_function"] == {
        "fates": ("crashed", "its function was called, and the kernel died"),
        "visible_share": ("crashed", "not reached: in fates the kernel died"),
    }
    stubborn = marked[0]["04_stubborn"]["visible_share"]
    assert stubborn == ("crashed", f"cell 2: it ran longer than {LIMIT} seconds and could not be stopped")


def test_an_answer_that_was_not_given_to_the_check_is_found(marked):
    found = marked[0]["01_faked"]
    assert found["fit_prompt"] == found["visible_changes"] == ("done", "")
    assert found["likelihood_row"] == ("not attempted", "the notebook defines no function likelihood_row")


def test_notebooks_that_are_none_give_rows(marked):
    found = marked[0]
    assert set(found["06_missing"].values()) == {("missing", "the folder has no such notebook")}
    for name in ("07_half", "08_a_list", "09_no_text", "10_a_folder"):
        assert found[name]["visible_share"][0] == "unreadable", name
        assert found[name]["visible_share"][1].startswith("not a notebook: ")


def test_the_table_and_the_json_say_the_same(marked):
    rows = marked[1]
    table, totals = marking.table(rows).split("\n\n")
    lines = [[part.strip() for part in line.strip("| ").split(" | ")] for line in table.splitlines()]
    assert lines[0] == ["notebook", "exercise", "verdict", "detail"] and len(lines) == len(rows) + 2
    assert [tuple(line[:3]) for line in lines[2:]] == [row[:3] for row in rows]
    said = json.loads(marking.as_json(rows))
    assert [marking.Row(**row) for row in said["rows"]] == rows
    assert sum(said["totals"].values()) == len(rows) and said["totals"]["done"] == 6
    assert totals == f"{len(rows)} exercises: " + ", ".join(f"{n} {v}" for v, n in said["totals"].items())


def test_what_a_learner_writes_cannot_break_the_table():
    row = marking.Row("a.ipynb", "x", "crashed", marking._tidy("a|b\n\x1b[31mred\u202e\udcff" + "y" * 900))
    assert "a\\|b [31mred y" in marking.table([row]) and len(marking.table([row]).splitlines()) == 5
    assert marking.table([]).endswith("0 exercises: none")


def test_the_command_prints_table_or_json_and_progress_goes_to_stderr(tmp_path, monkeypatch, capsys):
    published(tmp_path / "course", {"00_a": ["fates"], "01_b": ["visible_share"]}, monkeypatch)
    learner = tmp_path / "learner"
    learner.mkdir()
    (learner / "01_b.ipynb").write_text("{")
    assert main(["course", "check", str(learner)]) == 0
    shown = capsys.readouterr()
    assert re.search(r"\| 00_a.ipynb +\| fates +\| missing +\| the folder has no such notebook \|", shown.out)
    assert shown.out.endswith("\n\n2 exercises: 1 missing, 1 unreadable\n")
    assert "checking 01_b" in shown.err
    assert main(["course", "check", str(learner), "--json", "--timeout", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["missing"] == 1


def test_a_cell_may_take_twenty_minutes_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    limits = [inspect.signature(marking.check).parameters["timeout"].default]
    monkeypatch.setattr(marking, "check", lambda folder, timeout: limits.append(timeout) or [])
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
def test_ctrl_c_stops_the_kernel_and_leaves_nothing(tmp_path, monkeypatch):
    learner, temporary, note = tmp_path / "learner", tmp_path / "temporary", tmp_path / "note"
    published(tmp_path / "course", {"00_a": ["fates"]}, monkeypatch)
    learner.mkdir()
    temporary.mkdir()
    first = f"import os\nopen({str(note)!r}, 'w').write(str(os.getpid()))"
    write(learner / "00_a.ipynb", [first, "while True:\n    pass"])
    before = contents(learner)
    code = f"from vqlearn.course import copying; copying.FOLDERS = [copying.Path({str(tmp_path / 'course')!r})]"
    code += "; from vqlearn.__main__ import main; import sys; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "course", "check", str(learner)]
    listen = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    environment = {**os.environ, "TMPDIR": str(temporary)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes, **listen) as running:
        try:
            while not (note.exists() and note.read_text()):
                assert running.poll() is None, running.communicate()
                time.sleep(0.05)
            running.send_signal(signal.SIGINT)
            out, error = running.communicate(timeout=600)
        finally:
            running.kill()
    assert running.returncode == 130 and out == ""
    assert error.rstrip().endswith("interrupted, no notebook was changed")
    assert "Traceback" not in error and "Task was destroyed" not in error
    assert contents(learner) == before and list(temporary.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.parametrize("module", [copying, desk, kernel, marking], ids=lambda module: module.__name__)
def test_nothing_heavy_is_imported_before_it_is_needed(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert not names & {"torch", "nbformat", "jupyter_client", "IPython"}
