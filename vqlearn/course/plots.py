"""The figures of the course: pure functions from numbers to a matplotlib `Figure`, and `show` to display one.

Sequences are coloured by `cividis`, categories by Okabe and Ito's palette, and colour never speaks alone: alpha is
solid, beta dashed, gamma dotted; a masked token is a hatched neutral cell, a replaced token is outlined.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

BLUE, VERMILLION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"  # Okabe and Ito
NEUTRAL, INK = "#E4E4E4", "#8A8A8A"  # a masked token: the cell and its hatching
LINES = ((BLUE, "-"), (VERMILLION, "--"), (BLACK, ":"), (GREEN, "-."))
MARKS = tuple(
    zip((BLACK, "#E69F00", BLUE, "#CC79A7", GREEN, "#56B4E9", VERMILLION, "#F0E442", INK), "oXsDv^Pd*", strict=True)
)
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


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook as a PNG with an alternative text, for whoever cannot see the picture.

    It goes out as HTML with the picture inside: JupyterLab and nbconvert drop the `alt` metadata of an image output.
    """
    from IPython.display import display

    if not alt.strip():
        raise ValueError("alt must say what the figure shows, got an empty text")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    picture, width = base64.b64encode(buffer.getvalue()).decode(), round(figure.get_figwidth() * 96)
    tag = f'<img alt="{html.escape(alt)}" width="{width}" src="data:image/png;base64,{picture}">'
    display({"text/html": tag, "text/plain": alt}, raw=True)


def picture(figure: Figure, alt: str, *, like: list | None = None) -> str:
    """A figure as an HTML picture with its alternative text, drawn for the screen in some tens of milliseconds.

    The layout is the slow part. `like` is a list to keep it in: the first figure is laid out and its places are noted,
    the next ones, with as many axes, are drawn where those were.
    """
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(96)
    if like is not None and len(like) == len(figure.axes):
        figure.set_layout_engine("none")
        for ax, place in zip(figure.axes, like, strict=True):
            ax.set_position(place)
            ax.set_title(ax.get_title(), y=1.0)  # where it is; to look for the place takes a third of the time
    canvas.draw()
    if like is not None:
        like[:] = [ax.get_position(original=True) for ax in figure.axes]
    buffer, pixels = io.BytesIO(), np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    code = base64.b64encode(buffer.getvalue()).decode()
    height, width, _ = pixels.shape
    return f'<img alt="{html.escape(alt)}" width="{width}" height="{height}" src="data:image/png;base64,{code}">'


def tokens(
    grids,
    mask_id: int,
    *,
    truth=None,
    titles: Sequence[str] = (),
    numbers: bool = False,
    size: float = 1.7,
) -> Figure:
    """Token grids `[H, W]`, one or a sequence of them, side by side: codes in cividis, masks hatched.

    With `truth` `[H, W]` a visible token that differs from it (a replaced one) is outlined. `numbers` writes the codes.
    """
    grids = [_array(grid) for grid in ([grids] if getattr(grids, "ndim", 0) == 2 else grids)]
    figure, axes = _panels(len(grids), titles, size, size)
    for ax, grid in zip(axes, grids, strict=True):
        _token_panel(ax, grid, mask_id, truth, numbers)
    return figure


def album(
    rows: Sequence[Sequence],
    mask_id: int,
    *,
    truth=None,
    titles: Sequence[str] = (),
    numbers: bool = False,
    size: float = 1.6,
) -> Figure:
    """Token grids `[H, W]` and pictures (PIL images or arrays `[h, w, 3]`) in rows of equal length, in step.

    A picture below a grid is its decoding: hatched where the grid is masked and, with `truth` `[H, W]`, outlined where
    a token is replaced. `titles` stand over the first row; `numbers` writes the codes into the grids.
    """
    columns, lines = len(rows[0]), max((title.count("\n") + 1 for title in titles), default=0)
    figure = Figure(figsize=(columns * size, len(rows) * size + 0.22 * lines), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for column, panels in enumerate(zip(*rows, strict=True)):
        grid = None
        for ax, panel in zip(axes[:, column], panels, strict=True):
            if getattr(panel, "ndim", 0) == 2:
                grid = _array(panel)
                _token_panel(ax, grid, mask_id, truth, numbers)
                continue
            height, width = np.asarray(panel).shape[:2]
            ax.imshow(np.asarray(panel), interpolation="nearest", extent=(0, width, height, 0))
            ax.set_axis_off()
            if grid is not None:
                _mark(ax, grid, mask_id, truth, height / len(grid), width / grid.shape[1])
        axes[0, column].set_title(titles[column] if titles else "")
    return figure


def name_rows(figure: Figure, names: Sequence[str]) -> Figure:
    """Write a name to the left of each row of panels of a figure, an `album` say, and return it."""
    columns = len(figure.axes) // len(names)
    for ax, name in zip(figure.axes[::columns], names, strict=True):
        ax.text(-0.06, 0.5, name, transform=ax.transAxes, rotation=90, ha="right", va="center", fontsize=9)
    return figure


def schedule_curves(*schedules, titles: Sequence[str] = ()) -> Figure:
    """What has become of a token by time t: kept, replaced (K beta_bar) or masked; a panel per schedule."""
    figure, axes = _panels(len(schedules), titles, 5.4 if len(schedules) == 1 else 3.8, 2.9)
    for ax, schedule in zip(axes, schedules, strict=True):
        _share_lines(ax, schedule)
    axes[0].set_ylabel("share of the tokens")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def schedule_strip(schedule, grids: Sequence, times: Sequence[int], *, truth=None) -> Figure:
    """The curves of a schedule, and below them token grids `[H, W]` at some times; marked as in `tokens`."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(2, 1))
    _share_lines(top, schedule)
    top.set_ylabel("share of the tokens")
    top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    grids = [_array(grid) for grid in grids]
    height, width = grids[0].shape
    step = width + max(1, width // 6)  # a grid and the gap after it
    row = np.ma.array(np.zeros((height, step * len(grids) - step + width)), mask=True)
    for place, grid in enumerate(grids):
        row[:, place * step : place * step + width] = np.ma.masked_equal(grid, schedule.mask_id)
    bottom.imshow(row, cmap="cividis", vmin=0, vmax=max(schedule.mask_id - 1, 1), extent=(0, row.shape[1], height, 0))
    for place, (grid, t) in enumerate(zip(grids, times, strict=True)):
        _mark(bottom, grid, schedule.mask_id, truth, 1, 1, left=place * step)
        bottom.text(place * step + width / 2, -0.3, f"t = {t}", ha="center", va="bottom")
    bottom.set_axis_off()
    return figure


def film(grid, picture, mask_id: int, *, truth=None, title: str = "", size: float = 3.0) -> Figure:
    """One frame of a film: a token grid `[H, W]` and, beside it, its decoding `[h, w, 3]`, marked alike.

    Hatched where the grid is masked and, with `truth` `[H, W]`, outlined where a token is replaced.
    """
    grid, picture = _array(grid), np.asarray(picture)
    figure, (left, right) = _panels(2, (title or "tokens", "decoded"), size, size)
    codes = np.ma.masked_equal(grid, mask_id)
    left.imshow(codes, cmap="cividis", vmin=0, vmax=max(mask_id - 1, 1), extent=(0, grid.shape[1], len(grid), 0))
    right.imshow(picture, interpolation="nearest", extent=(0, picture.shape[1], len(picture), 0))
    _mark(left, grid, mask_id, truth, 1, 1)
    _mark(right, grid, mask_id, truth, len(picture) / len(grid), picture.shape[1] / grid.shape[1])
    for ax in (left, right):
        ax.set_axis_off()
    return figure


def curves(lines: Mapping[str, tuple], *, x_label: str, y_label: str, log_y: bool = False) -> Figure:
    """Up to four named curves, each `(x, y)`, in one panel."""
    figure, (ax,) = _panels(1, (), 6.4, 3.2)
    for (color, line), (name, (x, y)) in zip(LINES, lines.items(), strict=False):
        ax.plot(_array(x), _array(y), color=color, linestyle=line, label=name)
    ax.set(xlabel=x_label, ylabel=y_label, yscale="log" if log_y else "linear")
    ax.grid(axis="y")
    ax.legend()
    return figure


def comparison(
    panels: Mapping[str, Mapping[str, tuple]], *, x_label: str, y_label: str, log: bool = False, least: float = 0.0
) -> Figure:
    """Up to nine named lines `(x, y)` per panel, told apart by colour and marker, with one legend and one scale.

    `log` makes both axes logarithmic; with `least` the vertical one is so above it only, and 0 has its place below.
    """
    width, names = 6.4 if len(panels) == 1 else 4.6, list(next(iter(panels.values())))
    figure, axes = _panels(len(panels), list(panels), width, 3.9 if log else 3.0)
    for ax, lines in zip(axes, panels.values(), strict=True):
        ax.sharey(axes[0])
        for (color, marker), (name, (x, y)) in zip(MARKS, lines.items(), strict=False):
            look = {"marker": marker, "markersize": 5, "linewidth": 1.6, "clip_on": False}
            ax.plot(_array(x), _array(y), color=color, label=name, **look)
        ax.set_xlabel(x_label)
        ax.grid(axis="y")
        if log:
            ax.set_xscale("log")
            ax.set_yscale("symlog", linthresh=least, linscale=0.4) if least else ax.set_yscale("log")
            for axis, low in ((ax.xaxis, -10), (ax.yaxis, np.log10(least) if least else -10)):
                ticks = [m * 10.0**e for e in range(-9, 9) for m in (1, 2, 5) if m * 10.0**e >= 10.0**low * 0.999]
                axis.set_ticks([0, *ticks] if axis is ax.yaxis and least else ticks)
                axis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            x, y = (np.concatenate([_array(line[i]) for line in lines.values()]) for i in (0, 1))
            ax.set_xlim(x.min() / 1.1, x.max() * 1.1)
            ax.set_ylim(0 if least else y[y > 0].min() / 1.3, y.max() * 1.2)
    axes[0].set_ylabel(y_label)
    columns = int(figure.get_figwidth() / (0.55 + 0.085 * max(map(len, names))))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    return figure


def bars(rows: Sequence[Mapping], *, points: Sequence[Mapping] | None = None, row_titles: Sequence[str] = ()) -> Figure:
    """Distributions over K codes and the mask as small multiples: each row a mapping from title to `[K + 1]` values.

    Height and number say the value; the mask is the hatched bar. `points`, shaped as `rows`, marks a value on each bar.
    """
    columns, width = max(map(len, rows)), max(len(_array(v)) for row in rows for v in row.values())
    top = max(float(_array(values).max()) for row in rows for values in row.values())  # one scale for all panels
    figure = Figure(figsize=(columns * max(2.5, 0.5 * width), 2.1 * len(rows) + 0.2), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for index, row in enumerate(rows):
        for ax, (title, values) in zip(axes[index], row.items(), strict=False):
            _bar_panel(ax, title, _array(values), top)
            if points is not None:
                exact = _array(points[index][title])
                ax.plot(exact, linestyle="none", marker="D", markersize=6, color=VERMILLION, markeredgecolor="white")
        if index < len(row_titles):
            axes[index, 0].set_ylabel(row_titles[index])
    return figure


def matrix(matrices: Mapping[str, object], *, row: int | None = None, column: int | None = None) -> Figure:
    """Transition matrices `[to, from]` with their values, the mask last; outlines a row (solid), a column (dashed)."""
    figure, axes = _panels(len(matrices), list(matrices), 3.0, 2.9)
    for ax, values in zip(axes, matrices.values(), strict=True):
        values = _array(values)
        names = [*map(str, range(len(values) - 1)), "m"]
        ax.imshow(values, cmap="cividis", vmin=0, vmax=1)
        for (to, origin), value in np.ndenumerate(values):
            shade = "white" if value < 0.5 else "black"
            ax.text(origin, to, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=9)
        ax.set(xlabel="from", ylabel="to")
        ax.set_xticks(range(len(values)), names)
        ax.set_yticks(range(len(values)), names)
        ax.spines[:].set_visible(False)
        if column is not None:
            _outline(ax, column - 0.5, -0.5, 1, len(values), linewidth=3, linestyle="--")
        if row is not None:
            _outline(ax, -0.5, row - 0.5, len(values), 1, linewidth=3)
    return figure


def cells(panels: Mapping[str, tuple], *, numbers: bool = False) -> Figure:
    """2-D codebooks as they cut up the plane: a panel per title, each `(vectors [K, 2], points [N, 2])`.

    A vector that is nearest to some point is a square, one that is nearest to none a cross. `numbers` names the codes,
    shows all of them, and draws a line from each point to its vector.
    """
    figure, axes = _panels(len(panels), list(panels), 3.6, 3.4)
    for ax, (vectors, points) in zip(axes, panels.values(), strict=True):
        vectors, points = _array(vectors), _array(points)
        nearest = np.linalg.norm(points[:, None] - vectors, axis=-1).argmin(1)
        used = np.isin(np.arange(len(vectors)), nearest)
        shown = np.concatenate([points, vectors]) if numbers else points
        low, high = shown.min(0) - 0.4, shown.max(0) + 0.4
        x, y = np.meshgrid(*(np.linspace(a, b, 240) for a, b in zip(low, high, strict=True)))
        distance = np.linalg.norm(np.stack([x, y], -1)[:, :, None] - vectors, axis=-1)  # [240, 240, K]
        for code in np.unique(distance.argmin(-1)):
            edge = distance[..., code] - np.delete(distance, code, -1).min(-1)  # 0 on the border of the cell
            ax.contour(x, y, edge, levels=[0], colors=INK, linewidths=1)
        if numbers:
            for point, code in zip(points, nearest, strict=True):
                ax.plot(*zip(point, vectors[code], strict=True), color=BLUE, linewidth=1.2)
        ax.plot(*points.T, linestyle="none", marker="o", markersize=6 if numbers else 2.5, color=BLUE)
        for some, marker in ((used, "s"), (~used, "x")):
            ax.plot(*vectors[some].T, linestyle="none", marker=marker, markersize=7, color=VERMILLION)
        for code, vector in enumerate(vectors if numbers else ()):
            ax.annotate(f"code {code}", vector, xytext=(6, 6), textcoords="offset points", fontsize=9)
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    return figure


def strip(pictures: Sequence, titles: Sequence[str] = (), *, size: float = 1.6) -> Figure:
    """A row of pictures (PIL images or arrays `[H, W, 3]`), enlarged without smoothing, each under its title."""
    lines = [textwrap.fill(title, round(11 * size)) for title in titles]  # as wide as the picture
    figure, axes = _panels(len(pictures), lines, size, size)
    for ax, picture in zip(axes, pictures, strict=True):
        ax.imshow(np.asarray(picture), interpolation="nearest")
        ax.set_axis_off()
        ax.set_anchor("S")
    return figure


def loss_curve(path: str | Path) -> Figure:
    """The loss in a training log (`log.csv` with columns step and loss): every step faint, the running mean solid."""
    with open(path, newline="") as file:
        found = [(float(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    if not found:
        raise ValueError(f"{path} holds no steps to draw")
    step, loss = np.array(found).T
    window = max(1, len(loss) // 50)
    mean = np.convolve(loss, np.ones(window) / window, mode="valid")
    figure, (ax,) = _panels(1, (), 6.4, 3.2)
    ax.plot(step, loss, color=BLUE, alpha=0.25, linewidth=1, label="each step")
    ax.plot(step[window - 1 :], mean, color=BLUE, label=f"mean of {window}")
    ax.set(xlabel="training step", ylabel="loss")
    if loss.min() > 0:
        ax.set_yscale("log")
        ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter())
    ax.grid(axis="y")
    ax.legend()
    return figure


def growth(points: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Figure:
    """How `{what: {size: {quantity: value}}}` grows, a column per what, a row per quantity, both axes in logs.

    Under each title stands the slope between the last two points: 1 is growth in proportion, 2 with the square.
    """
    quantities = list(next(iter(next(iter(points.values())).values())))
    figure = Figure(figsize=(3.1 * len(points), 2.7 * len(quantities)), layout="constrained")
    axes = figure.subplots(len(quantities), len(points), squeeze=False, sharey="row")
    for column, (what, sizes) in enumerate(points.items()):
        x = np.array(list(sizes), dtype=float)
        for row, quantity in enumerate(quantities):
            y, ax = np.array([sizes[size][quantity] for size in sizes]), axes[row, column]
            slope = np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2])
            ax.loglog(x, y, marker="o", color=BLUE)
            ax.set(title=f"{what}: slope {slope:.2f}", xlabel=what, ylabel=quantity if column == 0 else "")
            ax.set_xticks(x, [f"{size:g}" for size in x])
            ax.yaxis.set(major_formatter="{x:g}", minor_formatter=NullFormatter())
            ax.minorticks_off()
            ax.grid(axis="y")
    return figure


# ------------------------------------------------------------------------------------------ inside


def _panels(count: int, titles: Sequence[str], width: float, height: float):
    """A figure with `count` panels in a row, as `(figure, axes)`."""
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure = Figure(figsize=(count * width, height + 0.22 * lines), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title)
    return figure, axes


def _token_panel(ax, grid: np.ndarray, mask_id: int, truth, numbers: bool) -> None:
    height, width = grid.shape
    shown = np.ma.masked_equal(grid, mask_id)
    ax.imshow(shown, cmap="cividis", vmin=0, vmax=max(mask_id - 1, 1), extent=(0, width, height, 0))
    ax.set_axis_off()
    ax.hlines(np.arange(height + 1), 0, width, color="white", linewidth=0.8)
    ax.vlines(np.arange(width + 1), 0, height, color="white", linewidth=0.8)
    _mark(ax, grid, mask_id, truth, 1, 1)
    for (row, col), code in np.ndenumerate(grid):
        if numbers and code != mask_id:
            shade = "white" if code < (mask_id - 1) / 2 else "black"
            ax.text(col + 0.5, row + 0.5, int(code), ha="center", va="center", color=shade, fontsize=9)


def _mark(ax, grid: np.ndarray, mask_id: int, truth, height: float, width: float, left: float = 0) -> None:
    """Hatch the masked cells of a grid whose cells are `height` x `width`, and outline the replaced ones.

    One path for all cells of a kind: so few artists are quick enough to follow a slider.
    """
    masked = grid == mask_id
    replaced = np.zeros_like(masked) if truth is None else ~masked & (grid != _array(truth))
    for where, inset, look in (
        (masked, 0, {"facecolor": "white", "edgecolor": "white", "linewidth": 0.8}),
        (masked, 0.02, {"facecolor": NEUTRAL, "edgecolor": INK, "hatch": "///", "linewidth": 0}),
        (replaced, 0.08, {"fill": False, "edgecolor": VERMILLION, "linewidth": 2}),
    ):
        if where.any():
            ax.add_artist(_boxes(where, height, width, left, inset, **look))


def _boxes(where: np.ndarray, height: float, width: float, left: float, inset: float, **look) -> PathPatch:
    """The cells of a grid that are true in `where`, each smaller by `inset` on every side, as one patch."""
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) * (1 - 2 * inset) + inset
    cells = (np.argwhere(where)[:, None, ::-1] + corners) * (width, height) + (left, 0)  # [cells, 5, (x, y)]
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY] * len(cells)
    return PathPatch(Outline(cells.reshape(-1, 2), codes), **look)


def _share_lines(ax, schedule) -> None:
    names = (r"kept $\bar\alpha_t$", r"replaced $K\bar\beta_t$", r"masked $\bar\gamma_t$")
    shares = (schedule.alpha_bar, schedule.num_codes * schedule.beta_bar, schedule.gamma_bar)
    for (color, line), name, share in zip(LINES, names, shares, strict=False):
        ax.plot(_array(share), color=color, linestyle=line, label=name)
    ax.set(xlabel="time t", ylim=(-0.03, 1.03))
    ax.grid(axis="y")


def _bar_panel(ax, title: str, values: np.ndarray, top: float) -> None:
    codes = len(values) - 1
    found = ax.bar(range(codes + 1), values, color=[BLUE] * codes + [NEUTRAL], width=0.72)
    found[codes].set(hatch="///", edgecolor=INK)
    for place, value in enumerate(values):
        ax.text(place, value + 0.04 * top, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
    ax.set(title=title, ylim=(0, 1.22 * top))
    ax.set_xticks(range(codes + 1), [*map(str, range(codes)), "mask"])
    ax.yaxis.set_major_locator(MaxNLocator(3))


def _outline(ax, x: float, y: float, width: float, height: float, **look) -> None:
    ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=VERMILLION, clip_on=False, **look))


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
