"""How every figure of the course looks, and how a figure reaches the page with its alternative text."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

BLUE, VERMILLION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"  # Okabe and Ito
NEUTRAL, INK = "#E4E4E4", "#8A8A8A"  # a masked token: the cell and its hatching
CODES = (BLUE, "#E69F00", "#CC79A7", GREEN, "#F0E442", "#56B4E9", BLACK)  # their others, for codes as names
LINES = ((BLUE, "-"), (VERMILLION, "--"), (BLACK, ":"), (GREEN, "-."))
MARKS = tuple(
    zip((BLACK, "#E69F00", BLUE, "#CC79A7", GREEN, "#56B4E9", VERMILLION, "#F0E442", INK), "oXsDv^Pd*", strict=True)
)
Values = Any  # numbers: a tensor, an array or a sequence
STYLE: Any = {  # matplotlib's stubs want every key as a literal
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "savefig.dpi": 144,
}


def set_style() -> None:
    """Use the course's fonts, axes and resolution for every figure that follows."""
    matplotlib.rcParams.update(STYLE)


def show(figure: Figure, alt: str = "") -> None:
    """Display a figure in a notebook as a PNG with an alternative text, for whoever cannot see the picture.

    The figures of this package bring their own text, their label, which `alt` replaces. The picture goes out inside
    HTML: JupyterLab and nbconvert drop the `alt` metadata of an image output.
    """
    from IPython.display import display

    alt = alt or str(figure.get_label())
    if not alt.strip():
        raise ValueError("alt must say what the figure shows, got an empty text")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    picture, width = base64.b64encode(buffer.getvalue()).decode(), round(figure.get_figwidth() * 96)
    tag = f'<img alt="{html.escape(alt)}" width="{width}" src="data:image/png;base64,{picture}">'
    display({"text/html": tag, "text/plain": alt}, raw=True)


def picture(figure: Figure, alt: str, *, like: list[Any] | None = None) -> str:
    """A figure as an HTML picture with its alternative text, drawn for the screen in some tens of milliseconds.

    The layout is the slow part. `like` is a list to keep it in: the first figure is laid out and the positions of its
    axes are noted, the next ones, with as many axes, are drawn at those.
    """
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(96)
    if like is not None and len(like) == len(figure.axes):
        figure.set_layout_engine("none")
        for ax, position in zip(figure.axes, like, strict=True):
            ax.set_position(position)
            ax.set_title(ax.get_title(), y=1.0)  # where it is; to look for the position takes a third of the time
    canvas.draw()
    if like is not None:
        like[:] = [ax.get_position(original=True) for ax in figure.axes]
    buffer, pixels = io.BytesIO(), np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    code = base64.b64encode(buffer.getvalue()).decode()
    height, width, _ = pixels.shape
    size = f'width="{width}" height="{height}" style="max-width: 100%; height: auto"'  # no wider than the page
    return f'<img alt="{html.escape(alt)}" {size} src="data:image/png;base64,{code}">'


def row_of_axes(count: int, titles: Sequence[str], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in a row, and their axes."""
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure = Figure(figsize=(count * width, height + 0.22 * lines), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title)
    return figure, list(axes)


def array(values: Values) -> np.ndarray:
    """Numbers of any kind, tensors included, as an array."""
    found: np.ndarray = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
    return found
