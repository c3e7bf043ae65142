"""Figures of a network: its block diagram, where it attends, and which of its parts takes how much.

As in `plots` the label of a figure is its alternative text, written from what is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from vqlearn.course import described
from vqlearn.course.grids import HALO
from vqlearn.course.style import BLACK, NEUTRAL, VERMILLION, Values, array
from vqlearn.networks.transformer import Transformer2DModel

PLAIN, ATTENTION, INSIDE = "#FFFFFF", "#CCE3F0", "#FBE3B5"  # inputs and outputs, attention, feed-forward
PARTS = ("#0072B2", "#56B4E9", "#CC79A7", "#E69F00", "#009E73", "#E4E4E4", "#F0E442")  # Okabe and Ito's, and a grey
HATCHES = ("", "//", "\\\\", "..", "xx", "", "--")
SAID = 0.07  # the smallest share of a bar that has its number written into it


# ------------------------------------------------------------------------------------------ the architecture


def block_diagram(network: Transformer2DModel) -> Figure:
    """The parts of a denoiser that reads text and what flows between them: on the left all of it, on the right a block.

    Raises ValueError for a network that reads a class or nothing.
    """
    if network.reads != "text":
        raise ValueError(f"network must read a text, this one reads {network.reads}")
    figure = Figure(figsize=(8.2, 5.6), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, 10.6), ylim=(0.2, 9.6))
    ax.set_axis_off()
    sizes = {
        "K": network.num_codes, "L": network.num_positions, "C": network.width, "D": network.config.cross_attention_dim,
        "N": len(network.transformer_blocks), "heads": network.config.num_attention_heads,
    }  # fmt: skip
    _whole(ax, sizes)
    _block(ax, sizes)
    figure.set_label(_ALT.format(**sizes))
    return figure


_ALT = (
    "Block diagram. Left: {L} tokens out of {K} codes and the mask; a token vector plus a row and a column vector, "
    "{C} numbers for each position; {N} blocks; a LayerNorm; a linear layer to {K} logits for each position. Right, a "
    "block: three branches leave the main path and are added to it again. First AdaLayerNorm and self-attention of "
    "{heads} heads; then AdaLayerNorm and cross-attention, which reads the text; then LayerNorm and feed-forward. The "
    "time enters both AdaLayerNorms."
)


def _whole(ax: Axes, sizes: Mapping[str, int | None]) -> None:
    """The left column: from the tokens down to the logits."""
    C, K, L, N = (sizes[name] for name in "CKLN")
    boxes = [
        (8.5, f"$L$ = {L} noisy tokens $x_t$:\n$K$ = {K} codes and the mask", PLAIN),
        (6.9, f"token + row + column vector\n[$L$, $C$], $C$ = {C}", INSIDE),
        (4.75, f"$N$ = {N} blocks\n[$L$, $C$] to [$L$, $C$]", ATTENTION),
        (2.95, "LayerNorm", NEUTRAL),
        (1.95, f"linear, $C$ = {C} to $K$ = {K}", INSIDE),
        (0.85, "logits of $x_0$, [$L$, $K$]", PLAIN),
    ]
    heights = [0.9, 0.9, 1.8, 0.5, 0.5, 0.6]
    for (y, text, color), height in zip(boxes, heights, strict=True):
        _box(ax, 2.1, y, 4.0, height, text, color)
    for i in range(len(boxes) - 1):
        _arrow(ax, (2.1, boxes[i][0] - heights[i] / 2), (2.1, boxes[i + 1][0] + heights[i + 1] / 2))


def _block(ax: Axes, sizes: Mapping[str, int | None]) -> None:
    """The right half: the main path of one block with its three branches, and where time and text come in."""
    path = 5.1
    ax.add_patch(Rectangle((4.65, 0.5), 4.4, 8.55, fill=False, edgecolor=BLACK, linewidth=1, linestyle=":"))
    for end in (0.5, 9.05):
        ax.plot([4.1, 4.65], [4.75 + (end - 4.75) / 9, end], color=BLACK, linewidth=1, linestyle=":")
    _arrow(ax, (path, 9.3), (path, 0.25))
    branches = [
        (8.35, "AdaLayerNorm", f"self-attention\n{sizes['heads']} heads", ATTENTION),
        (5.5, "AdaLayerNorm", f"cross-attention\n{sizes['heads']} heads", ATTENTION),
        (2.65, "LayerNorm", "feed-forward", INSIDE),
    ]
    for top, norm, layer, color in branches:
        ax.plot([path, 7.2], [top + 0.5, top + 0.5], color=BLACK, linewidth=1.2)
        _arrow(ax, (7.2, top + 0.5), (7.2, top + 0.24))
        _box(ax, 7.2, top, 2.9, 0.48, norm, NEUTRAL)
        _arrow(ax, (7.2, top - 0.24), (7.2, top - 0.6))
        _box(ax, 7.2, top - 1.0, 2.9, 0.8, layer, color)
        ax.plot([7.2, 7.2], [top - 1.4, top - 1.7], color=BLACK, linewidth=1.2)
        _arrow(ax, (7.2, top - 1.7), (path + 0.2, top - 1.7))
        _box(ax, path, top - 1.7, 0.36, 0.36, "+", PLAIN)
    for top in (8.35, 5.5):
        _arrow(ax, (9.55, top), (8.65, top))
        ax.text(9.65, top, "time $t$", va="center")
    _arrow(ax, (9.55, 4.5), (8.65, 4.5))
    ax.text(9.65, 4.5, f"text $y$\n[$S$, $D$]\n$D$ = {sizes['D']}", va="center")


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, color: str) -> None:
    """A box around its middle (x, y)."""
    corner = (x - width / 2, y - height / 2)
    look = FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.12", linewidth=1.2)
    look.set(facecolor=color, edgecolor=BLACK, zorder=3)
    ax.add_patch(look)
    ax.text(x, y, text, ha="center", va="center", fontsize=9, zorder=4)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.2}, zorder=2)


# ------------------------------------------------------------------------------------------ where it attends


def attention_maps(
    rows: Mapping[str, Sequence[Values]], titles: Sequence[str], objects: Mapping[str, Values], *, size: float = 1.4
) -> Figure:
    """Attention weights `[H, W]` as a row of maps for each name, on one scale from 0 to 1, each under its title.

    In each map of a row the rectangle around what is true in `objects[name]`, bool `[H, W]`, is outlined.
    """
    figure = Figure(figsize=(size * len(titles) + 1.1, size * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    texts = []
    for line, (name, maps) in zip(axes, rows.items(), strict=True):
        inside = array(objects[name])
        for ax, values in zip(line, map(array, maps), strict=True):
            drawn = ax.imshow(values, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            _frame(ax, inside)
        line[0].set_ylabel(name)
        means = (f"{array(v)[inside].mean():.2f} and {array(v)[~inside].mean():.2f}" for v in maps)
        pairs = ", ".join(f"{described.plain(t)} {pair}" for t, pair in zip(titles, means, strict=True))
        texts.append(f"{described.plain(name)}: {pairs}.")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    figure.colorbar(drawn, ax=axes, label="attention weight", shrink=0.8)
    figure.set_label(f"Maps of attention weights; means inside and outside of the outlined object. {' '.join(texts)}")
    return figure


def _frame(ax: Axes, inside: np.ndarray) -> None:
    """The rectangle around the true cells of a grid `[H, W]`."""
    (top, bottom), (left, right) = ((where.min(), where.max() + 1) for where in np.nonzero(inside))
    frame = Rectangle(
        (left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=VERMILLION, linewidth=2
    )
    frame.set(path_effects=HALO)
    ax.add_patch(frame)


# ------------------------------------------------------------------------------------------ what its parts take


def shares(panels: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """What each part takes of a total: `{panel: {bar: {part: amount}}}`, at most seven parts, the same in every bar.

    Each bar is as long as the others, with its total, in three digits, at its end.
    """
    bars = list(next(iter(panels.values())))
    figure = Figure(figsize=(4.4 * len(panels), 0.46 * len(bars) + 1.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    texts = []
    for ax, (title, totals) in zip(axes, panels.items(), strict=True):
        for row, (name, amounts) in enumerate(totals.items()):
            total = sum(amounts.values())
            _stack(ax, row, {part: amount / total for part, amount in amounts.items()})
            ax.text(1.02, row, rounded(total), va="center")
            named = ", ".join(f"{part} {amount / total:.1%}" for part, amount in amounts.items())
            texts.append(f"{title}, {name}: {rounded(total)}, of which {named}.")
        ax.set(title=title, xlim=(0, 1.16), xticks=[], ylim=(len(bars) - 0.5, -0.5))
        ax.set_yticks(range(len(bars)), bars)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.set_label(f"Bars divided into the shares of parts. {' '.join(texts)}")
    return figure


def _stack(ax: Axes, row: int, parts: Mapping[str, float]) -> None:
    """One bar of length 1, cut into the shares of its parts."""
    left = 0.0
    for (part, share), color, hatch in zip(parts.items(), PARTS, HATCHES, strict=False):
        look: Any = {"color": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5, "height": 0.72}
        ax.barh(row, share, left=left, label=part if row == 0 else "", **look)
        if share >= SAID:
            number = ax.text(left + share / 2, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9)
            number.set_path_effects([*HALO])
        left += share


def rounded(value: float) -> str:
    """A large number in three digits and a letter: "1.36 G"."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {letter}"
    return f"{value:.3g}"
