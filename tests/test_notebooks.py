"""The conventions of the course, for every notebook: what a reader of the committed file can rely on."""

import ast
import base64
import importlib
import inspect
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

import vqlearn
from tests.outputs import Output

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
HEADER = ("you will", "you need", "time to read", "time to run on a cpu")
ABSOLUTE = re.compile(r"file://|\b[A-Z]:\\\\|(?<![\w./:])/(?:home|Users|tmp|root|work|usr|opt|var|mnt)/")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def book(path):
    return nbformat.read(path, as_version=4)


def cells(book, kind: str) -> list:
    return [cell for cell in book.cells if cell.cell_type == kind]


def outputs(book) -> list:
    return [output for cell in cells(book, "code") for output in cell.outputs]


def test_there_are_notebooks():
    assert PATHS


def test_file_is_valid_small_and_for_python3(path, book):
    nbformat.validate(book)
    assert path.stat().st_size < 1_000_000
    assert book.metadata.kernelspec.name == "python3"
    assert "widgets" not in book.metadata


def test_first_cell_is_title_promise_and_table(path, book):
    lines = [line for line in book.cells[0].source.splitlines() if line.strip()]
    assert re.fullmatch(rf"# {path.stem.partition('_')[0]} · \S.*", lines[0])
    assert lines[1].startswith("> ")
    assert [column.strip().lower() for column in lines[2].strip("| ").split("|")] == list(HEADER)
    assert re.search(r"\d", lines[4].strip("| ").split("|")[-1]), "the time to run is a number"


def test_was_executed_from_a_fresh_kernel(book):
    counts = [cell.execution_count for cell in cells(book, "code")]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_are_clean(book):
    for output in outputs(book):
        assert output.output_type in ("stream", "display_data"), "a cell ends with a statement, and raises nothing"
        assert output.get("name") != "stderr", "no warnings, no progress bars"


def test_code_cells_are_short_and_markers_stand_alone(book):
    for cell in cells(book, "code"):
        lines = cell.source.splitlines()
        assert 1 <= len(lines) <= 25, cell.source
        assert all(re.fullmatch(r"# NBVAL_[A-Z_]+", line) for line in lines if "NBVAL" in line)


def test_figures_have_alternative_text_and_a_sentence_after_them(book):
    for cell, following in zip(book.cells, [*book.cells[1:], None], strict=True):
        pictures = [o.data for o in cell.get("outputs", []) if o.output_type == "display_data"]
        for data in pictures:
            assert not any(kind.startswith("image/") for kind in data), "show figures with plots.show"
            for tag in re.findall(r"<img [^>]*>", data.get("text/html", "")):
                assert len(re.search(r'alt="([^"]*)"', tag)[1]) >= 20
        if any("<img " in data.get("text/html", "") for data in pictures):
            assert following is not None and following.cell_type == "markdown" and following.source[0] != "#"


def test_no_absolute_paths(book):
    texts = [cell.source for cell in book.cells] + [o.get("text", "") for o in outputs(book)]
    texts += [o.data.get("text/plain", "") for o in outputs(book) if "data" in o]
    assert not [found for text in texts for found in ABSOLUTE.findall(text)]


def test_relative_links_lead_somewhere(path, book):
    text = "\n".join(cell.source for cell in cells(book, "markdown"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if not re.match(r"https?:|mailto:|#", target):
            assert (path.parent / target.split("#")[0]).exists(), target


def test_names_that_are_mentioned_exist(book):
    for cell in book.cells:
        for name in re.findall(r"\bvqlearn(?:\.[A-Za-z_]\w*)+", cell.source):
            assert resolves(name), name
        for name in re.findall(r"\b(?:checks|plots)\.[a-z_]+\b", cell.source) if cell.cell_type == "code" else []:
            assert resolves(f"vqlearn.{name}"), name


def resolves(name: str) -> bool:
    first, *rest = name.split(".")
    found = importlib.import_module(first)
    for part in rest:
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(f"{found.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
    return True


def test_a_name_that_does_not_exist_is_found():
    assert resolves("vqlearn.MaskReplaceSchedule.paper") and resolves("vqlearn.transition.q_likelihood")
    assert not resolves("vqlearn.q_posteriour") and not resolves("vqlearn.transition.nothing")


def test_the_posterior_is_printed_and_explained_as_it_is():
    book = nbformat.read(FOLDER / "05_posterior.ipynb", as_version=4)
    printed = next(o.text for o in outputs(book) if o.get("text", "").startswith("s, t = "))
    assert printed.rstrip() in inspect.cleandoc(inspect.getsource(vqlearn.q_posterior)).replace("\n    ", "\n")
    assert printed.rstrip().splitlines()[-1].startswith("return ")
    table = next(cell.source for cell in book.cells if cell.source.startswith("| line |"))
    for line in printed.splitlines():
        for name in re.findall(r"\w+", line.split(" = ")[0]) if " = " in line else []:
            assert name in table, f"{name} is a line of q_posterior that notebook 05 does not explain"


def test_the_network_from_nothing_is_the_library_s():
    """The folded solution of the last exercise of notebook 05b."""
    book = nbformat.read(FOLDER / "05b_denoiser.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in cells(book, "markdown"))
    space = {"torch": torch}
    exec(re.search(r"```python\n(def own_denoiser\(.*?)```", text, re.S)[1], space)
    generator = torch.Generator().manual_seed(0)
    network = vqlearn.Transformer2DModel(
        num_attention_heads=2, attention_head_dim=3, num_layers=3, cross_attention_dim=5, num_vector_embeds=7,
        sample_size=3,
    ).double().requires_grad_(False)  # fmt: skip
    for parameter in network.parameters():
        parameter.normal_(std=0.5, generator=generator)
    x_t, text = torch.randint(7, (2, 9), generator=generator), torch.randn(2, 4, 5, generator=generator).double()
    step = torch.tensor([3, 90])
    torch.testing.assert_close(
        space["own_denoiser"](network.state_dict(), 2, x_t, text, step), network(x_t, text, step)
    )


class Names(ast.NodeVisitor):
    """The names that a cell binds, and those that it takes from elsewhere or reads later, inside a function."""

    def __init__(self, source):
        self.bound, self.taken = set(), set()
        self.visit(ast.parse(source))

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            self.taken |= {node.id} - self.bound
        else:
            self.bound.add(node.id)

    def visit_Assign(self, node):
        for part in (node.value, *node.targets):
            self.visit(part)

    def visit_AugAssign(self, node):
        self.visit(node.value)
        self.taken |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)} - self.bound

    def visit_For(self, node):
        for part in (node.iter, node.target, *node.body):
            self.visit(part)

    def visit_alias(self, node):
        self.bound.add((node.asname or node.name).split(".")[0])

    def visit_inner(self, node):
        names = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
        own = {name.id for name in names if isinstance(name.ctx, ast.Store)}
        own |= {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
        read = {name.id for name in names if isinstance(name.ctx, ast.Load)} - own
        self.taken |= read if isinstance(node, ast.FunctionDef | ast.Lambda) else read - self.bound
        if isinstance(node, ast.FunctionDef):
            self.bound.add(node.name)

    visit_FunctionDef = visit_Lambda = visit_inner
    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_inner


def rebound(sources) -> set[str]:
    """The names that a cell takes from elsewhere and that not just one cell binds: run again, it may find another."""
    found = [Names(source) for source in sources]
    several = {name for one in found for name in one.bound if sum(name in other.bound for other in found) > 1}
    return {name for one in found for name in one.taken} & several


def test_any_cell_can_run_again(book):
    names = rebound(cell.source for cell in cells(book, "code"))
    assert not names, f"several cells bind {sorted(names)}"


def test_a_name_with_two_meanings_is_found():
    assert rebound(["x = 1", "print(x)", "y = [x for x in 'ab']", "x = x + 1"]) == {"x"}
    assert rebound(["def f():\n    return n\nn = 1", "n = 2"]) == {"n"}
    assert rebound(["for i in (1, 2):\n    z = i", "z = 3\nprint(z)", "import z as w", "f = lambda z: z + w"]) == set()


def html(pixels, text="a line"):
    """A picture as `plots.show` embeds it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Output(f'<p>{text}</p><img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">')


def test_pictures_in_outputs_may_differ_by_rounding_alone():
    white = np.full((100, 200, 3), 255, np.uint8)
    rounded, line = white.copy(), white.copy()
    rounded[10:40, 10:40] -= 1
    line[50, 20:120] = 0
    assert (html(white) != html(rounded)) is False  # as nbval asks
    assert html(white) != html(line) and html(white) != html(white[:-1]) and html(white) != html(white, "another line")
    assert Output("0.70") != Output("0.71") and Output("0.70") != 0.7
