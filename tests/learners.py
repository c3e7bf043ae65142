"""Small courses and learners' notebooks, for the tests of copying, marking and slides."""

import json
import re
from pathlib import Path

import nbformat

from vqlearn.course import copying, nursery

RIGHT = {  # answers as a learner writes them
    "visible_share": "def visible_share(t, schedule):\n    return 1 - schedule.gamma_bar[t]",
    "token_counts": """def token_counts(x_0, x_t, mask_id):
    kept, masked = (x_t == x_0).sum(), (x_t == mask_id).sum()
    return kept, len(x_0) - kept - masked, masked""",
    "compression": """import math


def compression(height, width, factor, num_codes):
    return 24 * factor**2 / math.log2(num_codes)""",
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
    path.write_text(json.dumps(book))  # a source may be no text that nbformat could write


def exercise(name: str, code: str | None = None, call: str = "") -> str:
    stub = f"def {name}(*case):\n    raise NotImplementedError"
    return f"{code or stub}\n\n\n{call or f'checks.{name}({name})'}"


def published(folder: Path, books: dict[str, list[str]], monkeypatch) -> Path:
    """A course of these notebooks, each with stubs for these exercises."""
    folder.mkdir()
    for name, asked in books.items():
        write(folder / f"{name}.ipynb", [TITLE, IMPORTS, *map(exercise, asked)])
    monkeypatch.setattr(copying, "FOLDERS", (folder,))
    return folder


def light_nursery(folder: Path) -> str:
    """The path of a program that forks kernels, as `vqlearn.course.nursery` does, but imports nothing for them first.

    Where a test starts one of its own, what cells will need would take seconds.
    """
    text = Path(nursery.__file__).read_text(encoding="utf-8")
    light, changed = re.subn(r"(?s)HEAVY = \(.*?\n\)", 'HEAVY = ("ipykernel.kernelapp",)', text)
    assert changed == 1
    path = folder / "light_nursery.py"
    path.write_text(light, encoding="utf-8")
    return str(path)
