"""A claim's rows as a table in a file, its verdict, and its figure."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments.claims import Claim
from vqlearn.course import plots
from vqlearn.course.contrasts import differences, interval, verdict
from vqlearn.course.results import Row, by_setting


def summary(claim: Claim, rows: list[Row]) -> str:
    """The claim, each setting's share of right pictures, each contrast and the verdict, as text."""
    lines = [f"{claim.title}: {claim.says}", f"  where: {claim.place}", f"  here: {claim.protocol}"]
    for setting, values in by_setting(rows, "right").items():
        line = f"  {setting:32} right {interval(values):.1%}"
        for figure, unit in (("bits", "bits"), ("speed", "pictures/s")):
            if more := by_setting(rows, figure).get(setting):
                line += f", {interval(more):.3g} {unit}"
        lines.append(line)
    found = differences(claim.contrasts, rows)
    lines += [f"  {contrast}: beyond it by {one:+.3f}" for contrast, one in found.items()]
    return "\n".join([*lines, f"  verdict: {verdict([*found.values()])}", f"  what would change it: {claim.changes}"])


def figure(claim: Claim, rows: list[Row]) -> Figure:
    """The share of right pictures by setting: a dot for each seed, and the interval of their mean."""
    drawn = plots.seeds(
        by_setting(rows, "right"), label="share of pictures that fulfil the whole caption", y_label=claim.axis
    )
    drawn.axes[0].set_title(claim.title, fontsize="medium")
    return drawn
