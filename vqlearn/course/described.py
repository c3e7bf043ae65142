"""The alternative text of a figure, written from the numbers that it draws, so that the two cannot disagree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vqlearn.course.style import Values, array


def plain(text: str) -> str:
    """A title without the signs of TeX, as it is read aloud."""
    text = re.sub(r"\\(bar|mid|mathrm|lambda)\b", lambda found: {"mid": "|"}.get(found[1], found[1] + " "), text)
    return " ".join(re.sub(r"[\\${}]", "", text).replace("\n", " ").split())


def number(value: Any) -> str:
    """A number in at most three digits."""
    return f"{float(value):.3g}"


def panels(kind: str, names: Iterable[str]) -> str:
    """How many panels of a kind, "picture" say, there are, and their titles."""
    titles = [plain(name) for name in names]
    named = f": {', '.join(filter(None, titles))}" if any(titles) else ""
    return f"{len(titles)} {kind}s side by side{named}." if len(titles) > 1 else f"One {kind}{named}."


def lines(drawn: Mapping[str, tuple[Values, Values]], x_label: str, y_label: str) -> str:
    """Curves `(x, y)` by name: where each begins and ends, and its highest and lowest points if they lie between."""
    return f"{plain(y_label)} against {plain(x_label)}. " + " ".join(
        f"{plain(name)}: {_course(array(x), array(y))}." for name, (x, y) in drawn.items()
    )


def _course(x: np.ndarray, y: np.ndarray) -> str:
    if y.min() == y.max():
        return f"{number(y[0])} throughout"
    words = f"from {number(y[0])} at {number(x[0])} to {number(y[-1])} at {number(x[-1])}"
    for name, at in (("lowest", int(y.argmin())), ("highest", int(y.argmax()))):
        if y[at] not in (y[0], y[-1]):
            words += f", {name} {number(y[at])} at {number(x[at])}"
    return words


def distributions(rows: Sequence[Mapping[str, Values]], row_titles: Sequence[str]) -> str:
    """Bar charts over codes and the mask: every value."""
    texts = []
    for index, row in enumerate(rows):
        name = f"{plain(row_titles[index])}, " if index < len(row_titles) else ""
        for title, values in row.items():
            *codes, mask = (f"{float(value):.2f}" for value in array(values))
            texts.append(f"{name}{plain(title)}: codes {', '.join(codes)}, mask {mask}.")
    return "Bar charts. " + " ".join(texts)


def tables(matrices: Mapping[str, Values]) -> str:
    """Matrices `[to, from]`: every column."""
    texts = []
    for name, values in matrices.items():
        origins = [*map(str, range(len(array(values)) - 1)), "the mask"]
        columns = (
            f"from {origin}: {', '.join(f'{float(value):.2f}' for value in column)}"
            for origin, column in zip(origins, array(values).T, strict=True)
        )
        texts.append(f"{plain(name)}, {'; '.join(columns)}.")
    return "Matrices, column by column. " + " ".join(texts)


def grid(codes: np.ndarray, mask_id: int, truth: Values) -> str:
    """How many tokens of a grid are masked and, with `truth`, replaced; of two codes, how often each occurs."""
    masked = codes == mask_id
    if mask_id <= 2:  # a picture of yes and no rather than of tokens
        return ", ".join(f"{int((codes == code).sum())} of {codes.size} are {code}" for code in range(mask_id))
    words = f"{int(masked.sum())} of {codes.size} tokens masked"
    if truth is not None:
        words += f", {int((~masked & (codes != array(truth))).sum())} replaced"
    return words


def table_of_panels(rows: Sequence[Sequence[Values]], titles: Sequence[str], mask_id: int, truth: Values) -> str:
    """Token grids and pictures in rows: the state of each grid."""
    texts = [f"{len(rows)} rows of {len(rows[0])} panels" if len(rows) > 1 else f"{len(rows[0])} panels in a row"]
    for number_of_row, row in enumerate(rows, 1):
        for column, entry in enumerate(row):
            where = plain(titles[column]) if column < len(titles) else f"column {column + 1}"
            where = f"row {number_of_row}, {where}" if len(rows) > 1 else where
            if getattr(entry, "ndim", 0) == 2:
                texts.append(f"{where}: {grid(array(entry), mask_id, truth)}")
            elif len(rows) == 1:
                texts.append(f"{where}: a picture")
        if all(getattr(entry, "ndim", 0) != 2 for entry in row) and len(rows) > 1:
            texts.append(f"row {number_of_row}: pictures")
    return "; ".join(texts) + "."
