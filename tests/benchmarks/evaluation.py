"""How distances of equal sets depend on the number of pictures: `python -m tests.benchmarks.evaluation`.

Writes the sections of `docs/evaluation.md`: this table, the features in `tests/efficientnet.py`, and the measurement in
`results/evaluation.json`, which the command on the page has written.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests import efficientnet, pages
from vqlearn.data import emoji
from vqlearn.evaluation.distances import frechet_distance, kernel_distance
from vqlearn.evaluation.features import features_of
from vqlearn.evaluation.summary import summary

PAGE, RESULT = pages.DOCS / "evaluation.md", Path(__file__).parent / "results" / "evaluation.json"
COUNTS = (25, 50, 100, 200)


def table() -> str:
    """Both distances between the first pictures of emoji and as many others."""
    found = features_of(efficientnet.features, [emoji.sample("train", i)[0] for i in range(2 * COUNTS[-1])])
    lines = ["| pictures | Fréchet distance | kernel distance |", "|---|---|---|"]
    for count in COUNTS:
        real, others = found[:count], found[COUNTS[-1] :][:count]
        kernel = kernel_distance(real, others)
        cells = [count, f"{frechet_distance(real, others):.0f}", f"{kernel.value:.2f} ± {kernel.standard_error:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def features() -> str:
    """The file with the features."""
    return f"```python\n{Path(efficientnet.__file__).read_text(encoding='utf-8')}```"


def measured() -> str:
    """What the command has printed."""
    return f"```\n{summary(json.loads(RESULT.read_text(encoding='utf-8')))}\n```"


def write() -> None:
    """The sections that take no time."""
    for name, text in {"efficientnet": features(), "measured": measured()}.items():
        pages.write(PAGE, name, text)


if __name__ == "__main__":
    write()
    pages.write(PAGE, "bias", table())
