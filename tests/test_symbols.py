"""One symbol, one meaning: each letter of a formula is in the glossary's list once, with the notebooks that use it.

Whoever uses a letter in one more notebook has to enter it there, and so reads what it stands for.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEACHING = ROOT / "docs/teaching"
GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|phi|varphi|chi|psi"
    "|omega|Gamma|Delta|Theta|Lambda|Sigma|Phi|Psi|Omega|ell|nabla"
)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.S)
NOT_PROSE = re.compile(r"```.*?```|`[^`\n]*`", re.S)
WORD = re.compile(
    r"\\begin\{array\}\{\w*\}|\\(?:text|texttt|mathrm|operatorname|tag|begin|end)\s*\{[^{}]*\}|\\mathrm\s+[a-zA-Z]"
)
NAMED_INDEX = re.compile(rf"(\\(?:{GREEK})|(?<![A-Za-z])[A-Za-z])_\{{\\(?:text|mathrm)\{{(\w+)\}}\}}")
COMMAND = re.compile(rf"\\(?!(?:{GREEK}|bar|hat|mathbf|mathcal|mathbb)(?![A-Za-z]))(?:[A-Za-z]+|.)")
SYMBOL = re.compile(
    r"(?:\\(?P<accent>bar|hat|mathbf|mathcal|mathbb)\s*\{?\s*)?"
    rf"(?P<letter>\\(?:{GREEK})(?![A-Za-z])|[A-Za-z]|(?<=mathbf )1)\}}?"
    r"'*(?:_(?P<index>\\[A-Za-z]+|[A-Za-z0-9]|\{[^{}]*\}))?"
)


def formulas(text: str) -> Iterator[str]:
    """The formulas of Markdown, without what is code."""
    for display, inline in FORMULA.findall(NOT_PROSE.sub("", text)):
        yield display or inline


def symbols(formula: str) -> Iterator[tuple[str, str]]:
    """Each symbol of a formula, with its index and without; e to a power and the t of a Delta t are none."""
    formula = WORD.sub(" ", NAMED_INDEX.sub(r"\1_{\2}", formula)).replace("e^", "^").replace(r"\Delta t", r"\Delta ")
    for found in SYMBOL.finditer(COMMAND.sub(" ", formula)):
        name = f"{found['accent'] or ''} {found['letter'].strip(chr(92))}".strip()
        yield f"{name}_{found['index'].strip('{}').rstrip(chr(39))}" if found["index"] else name, name


def number(path: Path) -> str:
    return path.stem.partition("_")[0]


def formulas_of(path: Path) -> Iterator[str]:
    """Those of a notebook's text and of its figures' labels."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            yield from formulas(cell.source)
        else:
            yield from re.findall(r"\$([^$\n]+)\$", cell.source.replace("\\\\", "\\"))


def listed() -> dict[str, set[str]]:
    """The glossary's list of symbols, and the notebooks of each; every one is listed once."""
    found: dict[str, set[str]] = {}
    text = (TEACHING / "glossary.md").read_text(encoding="utf-8").partition("## Symbols")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| \$.+\|$", text, re.M):
        first, _, notebooks = (cell.strip() for cell in row.strip("| ").split(" | "))
        for formula in formulas(first):
            ((name, _),) = symbols(formula)
            assert name not in found, f"{formula} is listed twice"
            found[name] = set(notebooks.split(", "))
    return found


def entry(name: str, letter: str, known: dict[str, set[str]]) -> str:
    """The row of a symbol: its own, or that of its letter."""
    assert name in known or letter in known, f"{name} is not in the glossary's list of symbols"
    return name if name in known else letter


def used(texts: Iterator[str], known: dict[str, set[str]]) -> set[str]:
    return {entry(*symbol, known) for formula in texts for symbol in symbols(formula)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=number)
def test_a_notebook_s_symbols_are_those_that_the_glossary_lists_for_it(path):
    known = listed()
    everywhere = {name for name, notebooks in known.items() if notebooks == {"all"}}
    expected = {name for name, notebooks in known.items() if number(path) in notebooks}
    assert used(formulas_of(path), known) - everywhere == expected


def test_the_list_names_notebooks_that_exist():
    assert set.union(*listed().values()) <= {"all", *map(number, NOTEBOOKS)}


@pytest.mark.parametrize("name", ["equations", "problems", "guide", "syllabus"])
def test_the_pages_for_teaching_use_no_other_symbols(name):
    assert used(formulas((TEACHING / f"{name}.md").read_text(encoding="utf-8")), listed())


def test_symbols_are_found():
    def names(formula: str) -> list[str]:
        return [name for name, _ in symbols(formula)]

    assert names(r"\bar\gamma_t \log p_\theta(x_0 \mid x_{t-1}) \tag{6.1}") == [
        "bar gamma_t", r"p_\theta", "x_0", "x_t-1",
    ]  # fmt: skip
    assert names(r"\alpha \mathbf I + \mathbf 1_k \hat\ell_k, D_{\mathrm{KL}}, R_t\, \Delta t") == [
        "alpha", "mathbf I", "mathbf 1_k", "hat ell_k", "D_KL", "R_t", "Delta",
    ]  # fmt: skip
    assert names(r"\sum_{\text{others}} e^w + k_{j'}, \mathrm d\bar\gamma") == ["w", "k_j", "bar gamma"]


def test_a_letter_with_a_second_meaning_is_found():
    known = {"u": {"03"}, "p": {"all"}}
    assert used(iter(["u < p"]), known) == {"u", "p"}
    with pytest.raises(AssertionError, match="c_t is not in the glossary"):
        used(iter([r"c_t = \frac{u}{1 - u}"]), known)
