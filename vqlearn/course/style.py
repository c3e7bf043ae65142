"""How every figure of the course looks, and how a figure reaches the page with its alternative text."""

from __future__ import annotations

import base64
import html
import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

BLUE, VERMILLION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"  # Okabe and Ito
NEUTRAL, INK = "#E4E4E4", "#8A8A8A"  # a masked token: the cell and its hatching
CODES = (BLUE, "#E69F00", "#CC79A7", GREEN, "#F0E442", "#56B4E9", BLACK)  # their others, for codes as names
LINES = ((BLUE, "-"), (VERMILLION, "--"), (BLACK, ":"), (GREEN, "-."))
MARKS = tuple(
    zip((BLACK, "#E69F00", BLUE, "#CC79A7", GREEN, "#56B4E9", VERMILLION, "#F0E442", INK), "oXsDv^Pd*", strict=True)
)
WORDINGS = 500  # that a figure with sliders keeps as pictures, of about 10 kB each
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


class LiveFigure:
    """A figure that follows sliders: what stays is laid out and drawn once, what changes is drawn over it each time.

    Axes with their ticks and labels, and legends, must stay; lines, patches, images, texts and titles may change. That
    is matplotlib's blitting, and it saves four fifths of the time of a new figure. Of what is left most would go to
    words and images: words are kept as pictures, since sliders go back and forth, and images are enlarged here.
    """

    def __init__(self, figure: Figure):
        self.figure, self.canvas = figure, FigureCanvasAgg(figure)
        figure.set_dpi(96)
        for artist in self._changing():
            artist.set_animated(True)  # is left out when the figure is drawn, and not when it is saved
        self.canvas.draw()
        self.ground = self.canvas.copy_from_bbox(figure.bbox)
        self.written: dict[Any, tuple[np.ndarray, int, int]] = {}  # pictures of words, and where they lie from a text

    def picture(self, alt: str) -> str:
        """The figure as it is now, as an HTML picture with its alternative text."""
        self.canvas.restore_region(self.ground)
        for artist in self._changing():
            if isinstance(artist, Text):
                self._write(artist)
            elif isinstance(artist, AxesImage):
                self._enlarge(artist)
            else:
                artist.draw(self.canvas.get_renderer())
        pixels = np.asarray(self.canvas.buffer_rgba())
        code, (height, width, _) = base64.b64encode(_png(pixels)).decode(), pixels.shape
        size = f'width="{width}" height="{height}" style="max-width: 100%; height: auto"'  # no wider than the page
        return f'<img alt="{html.escape(alt)}" {size} src="data:image/png;base64,{code}">'

    def _enlarge(self, image: AxesImage) -> None:
        """Draw an image, one of bytes without smoothing as matplotlib does in ten times the time."""
        renderer, colors = self.canvas.get_renderer(), np.asarray(image.get_array())
        left, right, bottom, top = image.get_extent()
        (x0, y0), (x1, y1) = image.get_transform().transform([(left, bottom), (right, top)])
        known = image.get_interpolation() == "nearest" and colors.dtype == np.uint8 and colors.shape[2:] == (4,)
        if not known or x1 <= x0 or y1 <= y0:
            image.draw(renderer)
            return
        x, y = np.arange(np.floor(x0 + 0.5), np.floor(x1 + 0.5)), np.arange(np.ceil(y0 - 0.5), np.ceil(y1 - 0.5))
        columns = ((x + 0.5 - x0) / (x1 - x0) * colors.shape[1]).astype(int)
        rows = ((y + 0.5 - y0) / (y1 - y0) * colors.shape[0]).astype(int)  # from the lowest up
        renderer.draw_image(renderer.new_gc(), int(x[0]), int(y[0]), colors[::-1][rows][:, columns])

    def _write(self, text: Text) -> None:
        """Draw a text, to the nearest pixel, as it was drawn when these words were met first."""
        x, y = (round(value) for value in text.get_transform().transform(text.get_position()))
        look = (hash(text.get_fontproperties()), str(text.get_color()), text.get_alpha(), text.get_rotation())
        key = text.get_text(), *look, text.get_horizontalalignment(), text.get_verticalalignment(), text.get_visible()
        if key not in self.written:
            if len(self.written) >= WORDINGS:
                self.written.clear()
            left, bottom, words = _cut_out(text, self.canvas)
            self.written[key] = words, left - x, bottom - y
        words, right, up = self.written[key]
        renderer = self.canvas.get_renderer()
        renderer.draw_image(renderer.new_gc(), x + right, y + up, words)

    def _changing(self) -> list[Artist]:
        """What is plotted in the axes, in the order of drawing, with the edges of axes, which lie over it."""
        found: list[Artist] = []
        for ax in self.figure.axes:
            edges = ax.spines.values() if ax.axison else ()
            found += sorted([*ax.images, *ax.patches, *ax.lines, *edges, *ax.texts, ax.title], key=Artist.get_zorder)
        return found


def _cut_out(artist: Artist, canvas: FigureCanvasAgg) -> tuple[int, int, np.ndarray]:
    """What an artist draws as pixels `[h, w, 4]`, transparent around it, and where their lower left corner lies."""
    width, height = canvas.get_width_height()
    empty = RendererAgg(width, height, canvas.figure.dpi)
    artist.draw(empty)
    pixels = np.asarray(empty.buffer_rgba())
    rows, columns = (np.flatnonzero(pixels[..., 3].any(axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, pixels[:1, :1].copy()
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return int(left), int(height - bottom), pixels[top:bottom, left:right][::-1].copy()  # from the lowest row up


def _png(pixels: np.ndarray) -> bytes:
    """Colours `[h, w, 3 or 4]` of 8 bits as a PNG file, five times as fast as Pillow, which tries filters."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # each begins with the number of its filter, 0 for none
    for color in range(3):  # one after the other: a sixth of the time of all three at once
        rows[:, 1 + color :: 3] = pixels[..., color]
    parts = {
        b"IHDR": struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows.data, 1),
        b"IEND": b"",
    }
    chunks = [(len(data).to_bytes(4), kind, data, zlib.crc32(kind + data).to_bytes(4)) for kind, data in parts.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(part for chunk in chunks for part in chunk)


def row_of_axes(count: int, titles: Sequence[str], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in a row, and their axes."""
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure = Figure(figsize=(count * width, height + 0.22 * lines), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title)
    return figure, list(axes)


def bare(ax: Axes) -> None:
    """Axes without frame and ticks; those that are only not shown would still be measured, half of a drawing's time."""
    ax.set(xticks=[], yticks=[])
    ax.set_axis_off()


def array(values: Values) -> np.ndarray:
    """Numbers of any kind, tensors included, as an array."""
    found: np.ndarray = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
    return found
