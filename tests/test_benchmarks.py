"""What benchmarks keep is what the pages show."""

import json

import pytest

from tests import pages
from tests.benchmarks import docs, samplers


@pytest.mark.parametrize("section", docs.SECTIONS, ids="/".join)
def test_a_page_shows_what_is_kept(section):
    page, name = section
    assert pages.read(pages.DOCS / page, name) == docs.SECTIONS[section](), "run python -m tests.benchmarks.docs"


def test_the_kept_figures_are_of_these_weights_and_captions():
    kept = json.loads(samplers.RESULTS.read_text())
    assert {name: kept[name] for name in ("model", "captions")} == samplers.digest()


def test_the_table_by_example():
    rows = {
        "ancestral 10": {"count": 500, "all": 0.868, "margin": 0.0297, "calls": 10.0},
        "ancestral, late 10": {"count": 500, "all": 0.9, "margin": 0.0263, "calls": 10.0},
        "ancestral 100": {"count": 400, "all": 0.878, "margin": 0.0287, "calls": 64.6},
    }
    text = samplers.table({"dtype": "bfloat16", "guidance": 1.15, "truncation": 0.6, "rows": rows})
    lines = text.splitlines()
    assert lines[0] == "bfloat16, guidance 1.15, truncation rate 0.6, 400 captions of the test split, in per cent:"
    assert "| sampler | 10 evaluations | 100 evaluations |" in lines
    assert "| ancestral | 86.8 ± 3.0 | 87.8 ± 2.9 (65 evaluations) |" in lines
    assert "| ancestral, late | 90.0 ± 2.6 | 87.8 ± 2.9 (65 evaluations) |" in lines  # at 100 they are the same
    assert "| purity |  |  |" in lines


def test_the_names_are_those_of_the_package():
    lines = docs.names().splitlines()
    assert lines[2].startswith("| `ancestral` | The exact posterior for any stride")
    assert all(line.count("|") - line.count("\\|") == 3 and len(line) > 40 for line in lines[2:])


def test_a_section_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n<!-- y -->\nkept\n<!-- end of y -->\n")
    pages.write(page, "x", "| new \\1 |\n")
    assert (
        page.read_text()
        == "a\n<!-- x -->\n\n| new \\1 |\n\n<!-- end of x -->\nb\n<!-- y -->\nkept\n<!-- end of y -->\n"
    )
    assert pages.read(page, "x") == "| new \\1 |"
    with pytest.raises(ValueError, match="has 0 sections 'z'"):
        pages.write(page, "z", "")
