"""The figures of the course: pure functions from numbers to a matplotlib `Figure`, and `show` to display one.

Sequences are coloured by `cividis`, categories by Okabe and Ito's palette, and colour never speaks alone: alpha is
solid, beta dashed, gamma dotted; a masked token is a hatched neutral cell, a replaced token is outlined. The label of a
figure is its alternative text, written from the numbers that are drawn.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from vqlearn.course import described
from vqlearn.course.contrasts import interval
from vqlearn.course.grids import album, film, name_rows, row_of_grids, rows_of_pictures, strip, tokens
from vqlearn.course.style import (
    BLUE,
    INK,
    LINES,
    MARKS,
    NEUTRAL,
    VERMILLION,
    LiveFigure,
    Values,
    array,
    row_of_axes,
    set_style,
    show,
)

if TYPE_CHECKING:
    from vqlearn.schedule import MaskReplaceSchedule

__all__ = [
    "VERMILLION",
    "LiveFigure",
    "album",
    "bars",
    "cells",
    "comparison",
    "curves",
    "film",
    "growth",
    "loss_curve",
    "maps",
    "matrix",
    "name_rows",
    "rows_of_pictures",
    "schedule_curves",
    "schedule_strip",
    "seeds",
    "set_style",
    "show",
    "strip",
    "tokens",
]


def schedule_curves(*schedules: MaskReplaceSchedule, titles: Sequence[str] = ()) -> Figure:
    """What has become of a token by time t: kept, replaced (K beta_bar) or masked; a panel per schedule."""
    figure, axes = row_of_axes(len(schedules), titles, 5.4 if len(schedules) == 1 else 3.8, 2.9)
    for ax, schedule in zip(axes, schedules, strict=True):
        _share_lines(ax, schedule)
    axes[0].set_ylabel("share of the tokens")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    names = [f"{title}, " if title else "" for title in [*titles, *[""] * len(schedules)][: len(schedules)]]
    shares = {
        f"{title}{name}": (range(len(share)), share)
        for title, schedule in zip(names, schedules, strict=True)
        for name, share in _shares(schedule).items()
    }
    figure.set_label(described.lines(shares, "time t", "share of the tokens"))
    return figure


def schedule_strip(
    schedule: MaskReplaceSchedule,
    grids: Sequence[Values],
    times: Sequence[int],
    *,
    truth: Values = None,
    on: Figure | None = None,
) -> Figure:
    """The curves of a schedule, and below them token grids `[H, W]` at some times; marked as in `tokens`.

    `on` is such a figure of another schedule with the same times and shapes, to be changed.
    """
    figure = on or Figure(figsize=(7.2, 4.4), layout="constrained")
    top, bottom = on.axes if on else figure.subplots(2, 1, height_ratios=(2, 1))
    _share_lines(top, schedule)
    row_of_grids(bottom, [array(grid) for grid in grids], schedule.mask_id, truth, () if on else times)
    if not on:
        top.set_ylabel("share of the tokens")
        top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def curves(lines: Mapping[str, tuple[Values, Values]], *, x_label: str, y_label: str, log_y: bool = False) -> Figure:
    """Up to four named curves, each `(x, y)`, in one panel."""
    figure, (ax,) = row_of_axes(1, (), 6.4, 3.2)
    for (color, line), (name, (x, y)) in zip(LINES, lines.items(), strict=False):
        ax.plot(array(x), array(y), color=color, linestyle=line, label=name)
    ax.set(xlabel=x_label, ylabel=y_label, yscale="log" if log_y else "linear")
    ax.grid(axis="y")
    ax.legend()
    figure.set_label(described.lines(lines, x_label, y_label))
    return figure


def comparison(
    panels: Mapping[str, Mapping[str, tuple[Values, Values]]],
    *,
    x_label: str,
    y_label: str,
    log: bool = False,
    least: float = 0.0,
) -> Figure:
    """Up to nine named lines `(x, y)` per panel, told apart by colour, marker and, in threes, by style; one scale.

    Up to three lines have a legend; where there are more, each name stands at the end of its line. `log` makes both
    axes logarithmic; with `least` the vertical one is linear below it, down to 0.
    """
    width, names = 6.4 if len(panels) == 1 else 4.6, list(next(iter(panels.values())))
    direct = len(names) > 3
    figure, axes = row_of_axes(len(panels), list(panels), width + direct, 3.9 if log else 3.0)
    for ax, lines in zip(axes, panels.values(), strict=True):
        ax.sharey(axes[0])
        _marked_lines(ax, lines)
        ax.set_xlabel(x_label)
        ax.grid(axis="y")
        if log:
            x, y = (np.concatenate([array(line[i]) for line in lines.values()]) for i in (0, 1))
            _log_axes(ax, x, y, least)
    axes[0].set_ylabel(y_label)
    for ax in axes if direct else ():
        _name_ends(ax)
    if not direct:
        columns = int(figure.get_figwidth() / (0.55 + 0.085 * max(map(len, names))))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    every = {f"{title}, {name}" if title else name: line for title, p in panels.items() for name, line in p.items()}
    figure.set_label(described.lines(every, x_label, y_label))
    return figure


def _marked_lines(ax: Axes, lines: Mapping[str, tuple[Values, Values]]) -> None:
    for number, ((color, marker), (name, (x, y))) in enumerate(zip(MARKS, lines.items(), strict=False)):
        look: Any = {"color": color, "marker": marker, "markersize": 5, "linestyle": ("-", "--", ":")[number // 3]}
        (line,) = ax.plot(array(x), array(y), linewidth=1.6, label=name, **look)
        line.set_clip_on(False)


def _name_ends(ax: Axes, gap: float = 0.062) -> None:
    """Write the name of each line to the right of the panel, as near to the height of its last point as it fits."""
    ends = np.array([np.asarray(line.get_xydata())[-1] for line in ax.lines])  # [lines, (x, y)]
    heights = ax.transAxes.inverted().transform(ax.transData.transform(ends))[:, 1]
    order, top = heights.argsort(kind="stable"), 1 - gap * (len(ends) - 1)
    places, below = np.empty(len(ends)), -gap
    for rank, index in enumerate(order):
        places[index] = below = max(below + gap, min(heights[index], top + gap * rank))
    for line, end, height in zip(ax.lines, ends, places, strict=True):
        thin: Any = {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3}
        thin["relpos"] = (0, 0.5)  # from the middle of the name's left edge
        where: Any = {"xy": (end[0], end[1]), "xytext": (1.06, height), "textcoords": "axes fraction"}
        ax.annotate(str(line.get_label()), **where, va="center", fontsize=9, arrowprops=thin, annotation_clip=False)


def _log_axes(ax: Axes, x: np.ndarray, y: np.ndarray, least: float) -> None:
    """Logarithmic axes with ticks at 1, 2 and 5 for the values x and y; the vertical one is linear below `least`."""
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=least, linscale=0.4) if least else ax.set_yscale("log")
    for axis, low in ((ax.xaxis, 0.0), (ax.yaxis, least)):
        ticks = [m * 10.0**e for e in range(-9, 9) for m in (1, 2, 5) if m * 10.0**e >= low * 0.999]
        axis.set_ticks([0, *ticks] if low else ticks)
        axis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_xlim(x.min() / 1.1, x.max() * 1.1)
    ax.set_ylim(0 if least else y[y > 0].min() / 1.3, y.max() * 1.2)


def bars(
    rows: Sequence[Mapping[str, Values]],
    *,
    points: Sequence[Mapping[str, Values]] | None = None,
    row_titles: Sequence[str] = (),
    top: float | None = None,
    on: Figure | None = None,
) -> Figure:
    """Distributions over K codes and the mask as small multiples: each row a mapping from title to `[K + 1]` values.

    Height and number say the value; the mask is the hatched bar. `points`, shaped as `rows`, marks a value on each bar.
    All panels have one scale, up to `top` or else to the largest value. `on` is such a figure of as many values,
    without points, to be changed.
    """
    columns, width = max(map(len, rows)), max(len(array(v)) for row in rows for v in row.values())
    top = top or max(float(array(values).max()) for row in rows for values in row.values())
    size = (columns * max(2.5, 0.5 * width), 2.1 * len(rows) + 0.2)
    figure = on or Figure(figsize=size, layout="constrained")
    axes = np.array(on.axes).reshape(-1, columns) if on else figure.subplots(len(rows), columns, squeeze=False)
    for index, row in enumerate(rows):
        for ax, (title, values) in zip(axes[index], row.items(), strict=False):
            _bar_panel(ax, title, array(values), top)
            if points is not None:
                exact = array(points[index][title])
                ax.plot(exact, linestyle="none", marker="D", markersize=6, color=VERMILLION, markeredgecolor="white")
        if index < len(row_titles):
            axes[index, 0].set_ylabel(row_titles[index])
    figure.set_label(described.distributions(rows, row_titles))
    return figure


def matrix(matrices: Mapping[str, Values], *, row: int | None = None, column: int | None = None) -> Figure:
    """Transition matrices `[to, from]` with their values, the mask last; outlines a row (solid), a column (dashed)."""
    figure, axes = row_of_axes(len(matrices), list(matrices), 3.0, 2.9)
    for ax, values in zip(axes, matrices.values(), strict=True):
        values = array(values)
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
    figure.set_label(described.tables(matrices))
    return figure


def maps(panels: Mapping[str, Values], *, label: str) -> Figure:
    """Numbers over positions, `[H, W]` each, side by side on one scale that `label` names."""
    figure, axes = row_of_axes(len(panels), list(panels), 2.9, 2.6)
    values = {title: array(one) for title, one in panels.items()}
    low, high = (find([find(one) for one in values.values()]) for find in (np.min, np.max))
    for ax, one in zip(axes, values.values(), strict=True):
        drawn = ax.imshow(one, cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, label=label, shrink=0.8)
    halves = {title: [half.mean() for half in np.array_split(one, 2)] for title, one in values.items()}
    means = ", ".join(f"{described.plain(title)}: {up:.2g} and {down:.2g}" for title, (up, down) in halves.items())
    figure.set_label(f"{label} over positions; means of the upper and of the lower half: {means}.")
    return figure


def cells(panels: Mapping[str, tuple[Values, Values]], *, numbers: bool = False) -> Figure:
    """2-D codebooks as they cut up the plane: a panel per title, each `(vectors [K, 2], points [N, 2])`.

    A vector that is nearest to some point is a square, one that is nearest to none a cross. `numbers` names the codes,
    shows all of them, and draws a line from each point to its vector.
    """
    figure, axes = row_of_axes(len(panels), list(panels), 3.6, 3.4)
    counted = []
    for ax, (title, (vectors, points)) in zip(axes, panels.items(), strict=True):
        vectors, points = array(vectors), array(points)
        nearest = np.linalg.norm(points[:, None] - vectors, axis=-1).argmin(1)
        _borders(ax, vectors, np.concatenate([points, vectors]) if numbers else points)
        if numbers:
            for point, code in zip(points, nearest, strict=True):
                ax.plot(*zip(point, vectors[code], strict=True), color=BLUE, linewidth=1.2)
        ax.plot(*points.T, linestyle="none", marker="o", markersize=6 if numbers else 2.5, color=BLUE)
        used = np.isin(np.arange(len(vectors)), nearest)
        counted.append(f"{title}: {used.sum()} of {len(used)} codes are the nearest of one of {len(points)} points.")
        for some, marker in ((used, "s"), (~used, "x")):
            ax.plot(*vectors[some].T, linestyle="none", marker=marker, markersize=7, color=VERMILLION)
        for code, vector in enumerate(vectors if numbers else ()):
            ax.annotate(f"code {code}", vector, xytext=(6, 6), textcoords="offset points", fontsize=9)
    figure.set_label(f"The plane cut into one cell per code. {' '.join(counted)}")
    return figure


def _borders(ax: Axes, vectors: np.ndarray, shown: np.ndarray) -> None:
    """The borders between the cells of vectors `[K, 2]`, in a window around the points that are shown `[N, 2]`."""
    low, high = shown.min(0) - 0.4, shown.max(0) + 0.4
    x, y = np.meshgrid(*(np.linspace(a, b, 240) for a, b in zip(low, high, strict=True)))
    distance = np.linalg.norm(np.stack([x, y], -1)[:, :, None] - vectors, axis=-1)  # [240, 240, K]
    for code in np.unique(distance.argmin(-1)):
        edge = distance[..., code] - np.delete(distance, code, -1).min(-1)  # 0 on the border of the cell
        ax.contour(x, y, edge, levels=[0], colors=INK, linewidths=1)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def loss_curve(path: str | Path) -> Figure:
    """The loss in a training log (`log.csv` with columns step and loss): every step faint, the running mean solid."""
    with open(path, newline="") as file:
        found = [(float(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    if not found:
        raise ValueError(f"{path} holds no steps to draw")
    step, loss = np.array(found).T
    window = max(1, len(loss) // 50)
    mean = np.convolve(loss, np.ones(window) / window, mode="valid")
    figure, (ax,) = row_of_axes(1, (), 6.4, 3.2)
    ax.plot(step, loss, color=BLUE, alpha=0.25, linewidth=1, label="each step")
    ax.plot(step[window - 1 :], mean, color=BLUE, label=f"mean of {window}")
    ax.set(xlabel="training step", ylabel="loss")
    if loss.min() > 0:
        ax.set_yscale("log")
        ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter())
    ax.grid(axis="y")
    ax.legend()
    figure.set_label(described.lines({f"mean of {window}": (step[window - 1 :], mean)}, "training step", "loss"))
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


def seeds(settings: Mapping[str, Sequence[float]], *, label: str, y_label: str = "") -> Figure:
    """A figure for every seed as dots, a line per setting, with the 95 % interval of their mean; `label` names it."""
    means = {name: interval(values) for name, values in settings.items()}
    figure = Figure(figsize=(7, 0.9 + 0.32 * len(settings)), layout="constrained")
    ax = figure.subplots()
    for place, (values, mean) in enumerate(zip(settings.values(), means.values(), strict=True)):
        ax.errorbar(mean.mean, place, xerr=mean.half, fmt="|", color=INK, capsize=3)
        ax.plot(values, [place] * len(values), "o", color=BLUE, alpha=0.6, markersize=5)
    ax.set_yticks(range(len(settings)), list(settings))
    ax.invert_yaxis()
    ax.grid(axis="x")
    ax.set(xlabel=label, ylabel=y_label)
    said = "; ".join(f"{described.plain(name)} {mean.mean:.3g} ± {mean.half:.2g}" for name, mean in means.items())
    figure.set_label(f"{label}, mean and 95 % interval over seeds: {said}.")
    return figure


# ------------------------------------------------------------------------------------------ inside


def _shares(schedule: MaskReplaceSchedule) -> dict[str, Values]:
    shares = (schedule.alpha_bar, schedule.num_codes * schedule.beta_bar, schedule.gamma_bar)
    return dict(zip(("kept", "replaced", "masked"), shares, strict=True))


def _share_lines(ax: Axes, schedule: MaskReplaceSchedule) -> None:
    """The three curves of a schedule; those that are there already change."""
    if ax.lines:
        for drawn, share in zip(ax.lines, _shares(schedule).values(), strict=True):
            drawn.set_ydata(array(share))
        return
    names = (r"kept $\bar\alpha_t$", r"replaced $K\bar\beta_t$", r"masked $\bar\gamma_t$")
    for (color, line), name, share in zip(LINES, names, _shares(schedule).values(), strict=False):
        ax.plot(array(share), color=color, linestyle=line, label=name)
    ax.set(xlabel="time t", ylim=(-0.03, 1.03))
    ax.grid(axis="y")


def _bar_panel(ax: Axes, title: str, values: np.ndarray, top: float) -> None:
    if not ax.patches:
        _empty_bars(ax, len(values) - 1, top)
    ax.set_title(title)
    for found, number, value in zip(ax.patches, ax.texts, values, strict=True):
        found.set(height=value)
        number.set(y=value + 0.04 * top, text=f"{value:.2f}")


def _empty_bars(ax: Axes, codes: int, top: float) -> None:
    """Bars and numbers without a value yet."""
    found = ax.bar(range(codes + 1), 0, color=[BLUE] * codes + [NEUTRAL], width=0.72)
    found[codes].set(hatch="///", edgecolor=INK)
    for position in range(codes + 1):
        ax.text(position, 0, "", ha="center", va="bottom", fontsize=8)
    ax.set_ylim(0, 1.22 * top)
    ax.set_xticks(range(codes + 1), [*map(str, range(codes)), "mask"])
    ax.yaxis.set_major_locator(MaxNLocator(3))


def _outline(ax: Axes, x: float, y: float, width: float, height: float, **look: Any) -> None:
    ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=VERMILLION, clip_on=False, **look))
