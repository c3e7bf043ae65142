"""Notebook 12 keeps its promise: its numbered cells are a whole, short program that knows nothing of the package."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

BOOK = nbformat.read(Path(__file__).parent.parent / "notebooks" / "12_one_page.ipynb", as_version=4)
CODE = [cell.source for cell in BOOK.cells if cell.cell_type == "code"]
NUMBERED = [source for source in CODE if re.match(r"# \d · ", source)]
IMPORTS = [line for line in CODE[0].splitlines() if re.match(r"(import|from) (itertools|torch)\b", line)]
STEPS = 1000


def test_the_cells_are_numbered_in_order():
    assert [int(source[2]) for source in NUMBERED] == [1, 2, 3, 4, 5, 6]


def test_the_page_is_under_eighty_lines():
    lines = [line.split("#")[0] for line in "\n".join(NUMBERED).splitlines()]
    assert 40 < sum(bool(line.strip()) for line in lines) < 80


def test_nothing_of_ours_is_imported_before_the_exercises():
    begin = next(i for i, cell in enumerate(BOOK.cells) if cell.source.startswith("## Check yourself"))
    for cell in BOOK.cells[:begin]:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                assert not any(name.split(".")[0] == "vqlearn" for name in names), cell.source


def test_the_imports_are_those_that_the_text_names():
    assert [line.split()[-1] for line in IMPORTS] == ["itertools", "torch", "F", "nn"]


@pytest.mark.parametrize("steps", [12])
def test_the_page_runs_as_a_script(tmp_path, steps):
    page = "\n\n".join(NUMBERED)
    assert page.count(f"steps = Denoiser(), [], {STEPS}") == 1, "the constant that this test replaces"
    page = page.replace(f"Denoiser(), [], {STEPS}", f"Denoiser(), [], {steps}")
    tail = (
        "import sys\n"
        "x, states = generate(torch.tensor([0, 1, 2, 3]), steps=3)\n"
        "assert x.shape == (4, 49) and int(x.max()) < K and int(x.min()) >= 0, x\n"
        "assert len(states) == 4 and bool((states[0] == MASK).any()) and not bool((states[-1] == MASK).any())\n"
        "assert len(losses) == steps and losses[-1] < losses[0]\n"
        "assert not any(name.split('.')[0] in ('vqlearn', 'IPython') for name in sys.modules)\n"
        "print('ran', len(patterns))\n"
    )
    script = tmp_path / "page.py"
    script.write_text("\n".join([*IMPORTS, "torch.manual_seed(0)", page, tail]), encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", script], cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert (done.returncode, done.stdout) == (0, "ran 108\n"), done.stderr


def test_the_printed_shares_are_what_the_text_says():
    printed = "".join(o.get("text", "") for cell in BOOK.cells for o in cell.get("outputs", []))
    valid, right, new, held_out = (
        int(re.search(rf"(\d+)% {words}", printed)[1])
        for words in (
            "of 200 samples are valid",
            "are of the shape asked for",
            "are patterns held out",
            "are held out",
        )
    )
    assert valid > 60 and right > 60, "most of the drawn ones are perfect"
    assert 0 < new < held_out, "what it was shown comes more easily"
    found = re.findall(r"(\d+) steps, scale (\d): +(\d+)% valid, +(\d+)% as asked", printed)
    runs = {(int(steps), int(scale)): (int(valid), int(asked)) for steps, scale, valid, asked in found}
    assert runs[1, 2][0] < 10 < runs[5, 2][0] < runs[50, 2][0], "one step fails, and more steps help"
    assert runs[20, 0][1] < 0.4 * runs[20, 0][0] and runs[20, 0][0] < runs[20, 2][0], "at scale 0 the label has no say"
    assert runs[20, 4][0] < runs[20, 2][0], "at scale 4 more drawings break"
