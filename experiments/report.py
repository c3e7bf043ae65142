"""A claim's rows as a table in a file, its verdict, and its figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from experiments.claims import Claim, Contrast
from experiments.statistics import Interval, interval, verdict
from vqlearn.course.results import Row, by_setting


def differences(claim: Claim, rows: list[Row]) -> dict[Contrast, Interval]:
    """How far each contrast of a claim exceeds what it must, paired by seed; positive is as claimed."""
    found = {}
    for contrast in claim.contrasts:
        values = by_setting(rows, contrast.figure)
        pairs = zip(values[contrast.better], values[contrast.worse], strict=True)
        found[contrast] = interval([contrast.excess(*pair) for pair in pairs])
    return found


def summary(claim: Claim, rows: list[Row]) -> str:
    """The claim, each setting's share of right pictures, each contrast and the verdict, as text."""
    lines = [f"{claim.title}: {claim.says}", f"  where: {claim.place}", f"  here: {claim.protocol}"]
    for setting, values in by_setting(rows, "right").items():
        share, speed = interval(values), interval(by_setting(rows, "speed")[setting])
        line = f"  {setting:32} right {share.mean:6.1%} ± {share.half:.1%}, {speed.mean:7.1f} pictures/s"
        bits = by_setting(rows, "bits").get(setting)
        lines.append(line + (f", {interval(bits).mean:.2f} ± {interval(bits).half:.2f} bits" if bits else ""))
    found = differences(claim, rows)
    lines += [f"  {contrast}: beyond it by {one.mean:+.3f} ± {one.half:.3f}" for contrast, one in found.items()]
    return "\n".join([*lines, f"  verdict: {verdict([*found.values()])}", f"  what would change it: {claim.changes}"])


def figure(claim: Claim, rows: list[Row]) -> Figure:
    """The share of right pictures by setting: a dot for each seed, and the interval of their mean."""
    values = by_setting(rows, "right")
    drawn, axes = plt.subplots(figsize=(7, 0.6 + 0.34 * len(values)), layout="constrained")
    for place, shares in enumerate(values.values()):
        mean = interval(shares)
        axes.errorbar(mean.mean, place, xerr=mean.half, fmt="|", color="black", capsize=3)
        axes.plot(shares, [place] * len(shares), "o", color="#0072B2", alpha=0.6, markersize=5)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.set(xlabel="share of pictures that fulfil the whole caption", ylabel=claim.axis, xlim=(-0.02, 1.02))
    axes.set_title(claim.title, fontsize="medium")
    return drawn
