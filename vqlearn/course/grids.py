"""Token grids and pictures: a masked token is a hatched cell, a replaced token is outlined.

A code is a name, so a cell shows the patch that it decodes to, or a colour that no other code of the figure has.
"""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from PIL import Image

from vqlearn.course import described
from vqlearn.course.style import CODES, INK, NEUTRAL, VERMILLION, Values, array, bare, row_of_axes
from vqlearn.data.pictures import rgb

Paint = Callable[[np.ndarray], np.ndarray]  # a grid [H, W] -> its colours [H * h, W * w, 3]
HALO = [withStroke(linewidth=3.5, foreground="white")]  # an outline is seen on a patch of its own colour too
Decode = Callable[[torch.Tensor], torch.Tensor]  # tokens [B, L] -> pictures [B, 3, H, W] in [-1, 1]


def tokens(
    grids: Values,
    mask_id: int,
    *,
    truth: Values = None,
    titles: Sequence[str] = (),
    numbers: bool = False,
    decode: Decode | None = None,
    size: float = 1.7,
) -> Figure:
    """Token grids `[H, W]`, one or a sequence of them, side by side: masks hatched.

    With `decode`, a pipeline's or a codec's, a cell is its patch of the decoded grid, else each code has a colour.
    With `truth` `[H, W]` a visible token that differs from it (a replaced one) is outlined. `numbers` writes the codes.
    """
    grids = [array(grid) for grid in ([grids] if getattr(grids, "ndim", 0) == 2 else grids)]
    figure, axes = row_of_axes(len(grids), titles, size, size)
    paint = painter(grids, mask_id, decode, truth)
    for ax, grid in zip(axes, grids, strict=True):
        _token_panel(ax, grid, mask_id, truth, numbers, paint)
    figure.set_label(described.table_of_panels([grids], titles, mask_id, truth))
    return figure


def album(
    rows: Sequence[Sequence[Values]],
    mask_id: int,
    *,
    truth: Values = None,
    titles: Sequence[str] = (),
    numbers: bool = False,
    decode: Decode | None = None,
    size: float = 1.6,
) -> Figure:
    """Token grids `[H, W]` and pictures (PIL images or arrays `[h, w, 3]`) in rows of equal length, in step.

    A picture below a grid is its decoding: hatched where the grid is masked and, with `truth` `[H, W]`, outlined where
    a token is replaced. `titles` stand over the first row; `numbers` writes the codes into the grids. With `decode` a
    grid's cell is its patch of the decoded grid, as in `tokens`.
    """
    columns, lines = len(rows[0]), max((title.count("\n") + 1 for title in titles), default=0)
    figure = Figure(figsize=(columns * size, len(rows) * size + 0.22 * lines), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    paint = painter((array(entry) for row in rows for entry in row if _is_grid(entry)), mask_id, decode, truth)
    for column, entries in enumerate(zip(*rows, strict=True)):
        grid = None
        for ax, entry in zip(axes[:, column], entries, strict=True):
            if _is_grid(entry):
                grid = array(entry)
                _token_panel(ax, grid, mask_id, truth, numbers, paint)
                continue
            height, width = pixels(entry).shape[:2]
            ax.imshow(pixels(entry), interpolation="nearest", extent=(0, width, height, 0))
            bare(ax)
            if grid is not None:
                mark(ax, grid, mask_id, truth, height / len(grid), width / grid.shape[1])
        axes[0, column].set_title(titles[column] if titles else "")
    figure.set_label(described.table_of_panels(rows, titles, mask_id, truth))
    return figure


def name_rows(figure: Figure, names: Sequence[str]) -> Figure:
    """Write a name to the left of each row of panels of a figure, an `album` say, and return it."""
    columns = len(figure.axes) // len(names)
    for ax, name in zip(figure.axes[::columns], names, strict=True):
        ax.text(-0.06, 0.5, name, transform=ax.transAxes, rotation=90, ha="right", va="center", fontsize=9)
    named = ", ".join(f"row {number} {described.plain(name)}" for number, name in enumerate(names, 1))
    figure.set_label(f"{figure.get_label()} {named}.".strip())
    return figure


def film(
    grid: Values,
    picture: Values,
    mask_id: int,
    *,
    truth: Values = None,
    frames: Sequence[Values] = (),
    title: str = "tokens",
    size: float = 3.0,
    on: Figure | None = None,
) -> Figure:
    """One frame of a film: a token grid `[H, W]` and, beside it, its decoding `[h, w, 3]`, marked alike.

    Hatched where the grid is masked and, with `truth` `[H, W]`, outlined where a token is replaced. `frames` are the
    grids of the whole film, in all of which a code then has one colour. `on` is another frame, to be changed.
    """
    grid, picture = array(grid), pixels(picture)
    figure, (left, right) = (on, on.axes) if on else row_of_axes(2, (title, "decoded"), size, size)
    left.set_title(title)
    put(left, painter([grid, *map(array, frames)], mask_id)(grid), *grid.shape)
    put(right, picture, *picture.shape[:2])
    mark(left, grid, mask_id, truth, 1, 1)
    mark(right, grid, mask_id, truth, len(picture) / len(grid), picture.shape[1] / grid.shape[1])
    for ax in (left, right):
        bare(ax)
        ax.set_anchor("S")  # what is left of the height belongs to the titles
    return figure


def row_of_grids(ax: Axes, grids: Sequence[np.ndarray], mask_id: int, truth: Values, times: Sequence[int]) -> None:
    """Token grids side by side in one panel, each under its time: one image is quick enough to follow a slider."""
    height, width = grids[0].shape
    gap, paint = max(1, width // 6), painter(grids, mask_id)
    put(ax, _side_by_side([paint(grid) for grid in grids], gap, 1.0), height, len(grids) * (width + gap) - gap)
    behind = None if truth is None else _side_by_side([array(truth)] * len(grids), gap)
    mark(ax, _side_by_side(grids, gap), mask_id, behind, 1, 1)
    if times:
        ax.set_xticks([number * (width + gap) + width / 2 for number in range(len(times))], [f"t = {t}" for t in times])
        ax.tick_params(length=0, labeltop=True, labelbottom=False, labelleft=False)
        ax.spines[:].set_visible(False)


def _side_by_side(grids: Sequence[np.ndarray], gap: int, between: float = 0) -> np.ndarray:
    """Arrays `[H, W, ...]` in a row, with so many columns of one value between them."""
    gaps = [np.full_like(grids[0][:, :1], between).repeat(gap, 1)] * len(grids)
    return np.concatenate([part for pair in zip(gaps, grids, strict=True) for part in pair][1:], 1)


def strip(pictures: Sequence[Values], titles: Sequence[str] = (), *, size: float = 1.6) -> Figure:
    """A row of pictures (PIL images or arrays `[H, W, 3]`), enlarged without smoothing, each under its title."""
    lines = [textwrap.fill(title, round(11 * size)) for title in titles]  # as wide as the picture
    figure, axes = row_of_axes(len(pictures), lines, size, size)
    for ax, picture in zip(axes, pictures, strict=True):
        ax.imshow(pixels(picture), interpolation="nearest")
        bare(ax)
        ax.set_anchor("S")
    figure.set_label(described.panels("picture", titles or [""] * len(pictures)))
    return figure


def rows_of_pictures(rows: Mapping[str, Sequence[tuple[Values, str]]], *, size: float = 1.45) -> Figure:
    """Named rows of pictures (PIL images or arrays `[H, W, 3]`), each under its words; a row's name stands before it.

    Rows may be of different lengths, and a name may have several lines.
    """
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(1.6 + columns * size, len(rows) * (size + 0.5)), layout="constrained")
    for axes, (name, row) in zip(figure.subplots(len(rows), columns, squeeze=False), rows.items(), strict=True):
        for ax, (picture, words) in zip(axes, row, strict=False):
            ax.imshow(pixels(picture), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.set_title(textwrap.fill(words, round(12 * size)), fontsize=8)
        for ax in axes[len(row) :]:
            bare(ax)
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", multialignment="left")
    texts = (f"{described.plain(name)}: {'; '.join(words for _, words in row)}." for name, row in rows.items())
    figure.set_label(" ".join(texts))
    return figure


def pixels(picture: Values) -> np.ndarray:
    """A picture as matplotlib shows it: a PIL image of any mode as it is seen, an array as it is."""
    return rgb(picture) if isinstance(picture, Image.Image) else np.asarray(picture)


def painter(grids: Iterable[np.ndarray], mask_id: int, decode: Decode | None = None, truth: Values = None) -> Paint:
    """How the cells of some grids are coloured: a colour for each code, or with `decode` as its patch of the picture.

    For decoding, a masked token is what `truth` has there, or else the commonest code of its grid.
    """
    if decode is not None:
        return lambda grid: _decoded(grid, mask_id, decode, truth)
    codes = np.unique(np.concatenate([np.ravel(grid) for grid in grids] or [np.zeros(0, dtype=int)]))
    codes = codes[codes != mask_id]
    colors = np.array([*distinct(len(codes)), (1.0, 1.0, 1.0)])  # the last for a grid of masks alone
    return lambda grid: colors[np.searchsorted(codes, grid).clip(max=len(codes))]


def _decoded(grid: np.ndarray, mask_id: int, decode: Decode, truth: Values) -> np.ndarray:
    visible = grid[grid != mask_id]
    common = np.bincount(visible.ravel()).argmax() if visible.size else 0
    filled = np.where(grid == mask_id, common if truth is None else array(truth), grid)
    image = decode(torch.as_tensor(filled).reshape(1, -1))[0]
    colors: np.ndarray = (image.clamp(-1, 1).permute(1, 2, 0) / 2 + 0.5).detach().cpu().numpy()
    return colors


def distinct(count: int) -> list[tuple[float, ...]]:
    """So many colours, all different: the fixed ones of the course, or hues around the circle in three lightnesses."""
    if count <= len(CODES):
        return [tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)) for color in CODES[:count]]
    return [colorsys.hls_to_rgb(i / count, (0.35, 0.55, 0.75)[i % 3], 0.7) for i in range(count)]


def _is_grid(entry: Values) -> bool:
    return getattr(entry, "ndim", 0) == 2


def _token_panel(ax: Axes, grid: np.ndarray, mask_id: int, truth: Values, numbers: bool, paint: Paint) -> None:
    height, width = grid.shape
    colors = paint(grid)
    ax.imshow(colors, interpolation="nearest", extent=(0, width, height, 0))
    bare(ax)
    ax.hlines(np.arange(height + 1), 0, width, color="white", linewidth=0.8)
    ax.vlines(np.arange(width + 1), 0, height, color="white", linewidth=0.8)
    mark(ax, grid, mask_id, truth, 1, 1)
    if not numbers:
        return
    light = colors.reshape(height, -1, width, colors.shape[1] // width, 3).mean((1, 3)) @ (0.3, 0.59, 0.11)  # [H, W]
    for (row, col), code in np.ndenumerate(grid):
        if code != mask_id:
            shade = "white" if light[row, col] < 0.45 else "black"
            ax.text(col + 0.5, row + 0.5, str(int(code)), ha="center", va="center", color=shade, fontsize=9)


def put(ax: Axes, colors: np.ndarray, height: float, width: float) -> None:
    """An image `[h, w, 3]` without smoothing as so many units of an axes; the one that is there takes new colours."""
    colors = ScalarMappable().to_rgba(colors, bytes=True)  # the form that is drawn in half the time
    if ax.images:
        ax.images[0].set_data(colors)
    else:
        ax.imshow(colors, interpolation="nearest", extent=(0, width, height, 0))


def mark(ax: Axes, grid: np.ndarray, mask_id: int, truth: Values, height: float, width: float) -> None:
    """Hatch the masked cells of a grid whose cells are `height` x `width`, and outline the replaced ones.

    Marks that are there already give way. One path for all cells of a kind: so few artists are quick enough to follow
    a slider.
    """
    for former in list(ax.patches):
        former.remove()
    masked = grid == mask_id
    replaced = np.zeros_like(masked) if truth is None else ~masked & (grid != array(truth))
    for where, inset, look in (
        (masked, 0, {"facecolor": "white", "edgecolor": "white", "linewidth": 0.8}),
        (masked, 0.02, {"facecolor": NEUTRAL, "edgecolor": INK, "hatch": "///", "linewidth": 0}),
        (replaced, 0.08, {"fill": False, "edgecolor": VERMILLION, "linewidth": 2, "path_effects": HALO}),
    ):
        if where.any():
            ax.add_artist(_boxes(where, height, width, inset, **look))


def _boxes(where: np.ndarray, height: float, width: float, inset: float, **look: Any) -> PathPatch:
    """The cells of a grid that are true in `where`, each smaller by `inset` on every side, as one patch."""
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) * (1 - 2 * inset) + inset
    cells = (np.argwhere(where)[:, None, ::-1] + corners) * (width, height)  # [cells, 5, (x, y)]
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY] * len(cells)
    return PathPatch(Outline(cells.reshape(-1, 2), codes), **look)
