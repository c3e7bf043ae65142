"""What benchmarks keep is what the README shows."""

import json
from pathlib import Path

from tests.benchmarks import samplers

ROOT = Path(__file__).parent.parent


def test_the_readme_shows_the_kept_table_of_samplers():
    kept = json.loads(samplers.RESULTS.read_text())
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.split(samplers.MARKS[0])[1].split(samplers.MARKS[1])[0] == samplers.table(kept)
    assert {name: kept[name] for name in ("model", "captions")} == samplers.digest()


def test_the_table_by_example():
    rows = {
        "ancestral 10": {"count": 500, "all": 0.868, "margin": 0.0297, "calls": 10.0},
        "ancestral, late 10": {"count": 500, "all": 0.9, "margin": 0.0263, "calls": 10.0},
        "ancestral 100": {"count": 400, "all": 0.878, "margin": 0.0287, "calls": 64.6},
    }
    text = samplers.table({"dtype": "bfloat16", "guidance": 1.15, "truncation": 0.6, "rows": rows})
    lines = text.splitlines()
    assert lines[1] == "bfloat16, guidance 1.15, truncation rate 0.6, 400 captions of the test split, in per cent:"
    assert "| sampler | 10 evaluations | 100 evaluations |" in lines
    assert "| ancestral | 86.8 ± 3.0 | 87.8 ± 2.9 (65 evaluations) |" in lines
    assert "| ancestral, late | 90.0 ± 2.6 | 87.8 ± 2.9 (65 evaluations) |" in lines  # at 100 they are the same
    assert "| purity |  |  |" in lines
