"""Pictures of how a classifier does: what it takes for what, and whether it is as sure as it is right."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dlkit.console import safe
from dlkit.metrics import Reliability, expected_calibration_error
from dlkit.probe.look import plain
from dlkit.probe.pictures import BLUE, ORANGE, fitting, heading, letters, spread

COUNTED = 120  # up to so many classes every count and every name is written
NAMED = 100  # of more classes so many are named
NAME = 20  # letters of a class
MARGIN, LETTER = 0.15, 0.07  # inches: around all; of a name
SHADES = LinearSegmentedColormap.from_list("shades", ["white", BLUE, "#00253b"])


def picture(
    confusion: NDArray[np.int64],
    classes: Sequence[str],
    bins: Reliability,
    *,
    name: str,
    title: str,
    subtitle: str = "",
) -> Figure:
    """The confusion matrix at the left, the reliability diagram at the right. All sizes are in inches.

    Args:
        confusion: (K, K), of `dlkit.metrics.confusion_matrix`.
        classes: the K names.
        bins: of `dlkit.metrics.reliability`.
        name: of whose answers these are, the beginning of the first line.
        title: the rest of it.
        subtitle: below it, on as many lines as it needs.
    """
    count = len(classes)
    cell = min(0.9, max(0.17, 4.5 / count)) if count <= COUNTED else 18 / count
    side = cell * count
    named = range(count) if count <= COUNTED else spread(count, NAMED)
    names = [fitting(classes[at], NAME) for at in named]
    longest = LETTER * max(map(len, names)) + 0.1
    upright = longest > cell  # names below the columns then stand on end
    left, below = MARGIN + 0.25 + longest, 0.25 + (longest if upright else 0.2)
    gap, panel, strip = 0.9, 3.6, 0.8
    width = left + side + gap + panel + MARGIN
    title, lines = heading(name, title, letters(width, 12)), _broken_at_commas(subtitle, letters(width, 9))
    head, foot = 0.7 + 0.15 * len(lines), 0.45
    height = head + max(side + below, panel + strip + 0.6) + foot
    figure = Figure(figsize=(width, height))

    def axes(x: float, from_top: float, wide: float, tall: float) -> Axes:
        return figure.add_axes((x / width, 1 - (from_top + tall) / height, wide / width, tall / height))

    matrix = axes(left, head, side, side)
    _draw_confusion(matrix, confusion, cell)
    matrix.set_yticks(named, names, fontsize=8, parse_math=False)
    matrix.set_xticks(named, names, fontsize=8, parse_math=False, rotation=90 if upright else 0)
    right = left + side + gap
    _draw_reliability(axes(right, head, panel, panel), axes(right, head + panel + 0.1, panel, strip), bins)
    for text, size, from_top in ((title, 12, 0.1), ("\n".join(lines), 9, 0.38)):
        figure.text(MARGIN / width, 1 - from_top / height, text, va="top", fontsize=size, parse_math=False)
    note = "Shade: share of the true class, from white for 0 to dark for 1; its root, so that rare mistakes show."
    figure.text(MARGIN / width, 0.1 / height, note, va="bottom", fontsize=8, color="0.3")
    return figure


def _broken_at_commas(text: str, length: int) -> list[str]:
    """The lines of a text, broken after commas only: no figure is torn from its name."""
    lines = [""]
    for part in re.split("(?<=,) ", safe(text)):
        if lines[-1] and len(lines[-1]) + 1 + len(part) > length:
            lines.append("")
        lines[-1] += " " * bool(lines[-1]) + part
    return [fitting(line, length) for line in lines]


def _draw_confusion(axes: Axes, confusion: NDArray[np.int64], cell: float) -> None:
    support = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, support, out=np.zeros(confusion.shape), where=support > 0)
    axes.imshow(shares, cmap=SHADES, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_color("0.6")
    for line in range(10, len(confusion), 10):  # lead the eye from a name to its row and column
        axes.axhline(line - 0.5, color="0.85", linewidth=0.6)
        axes.axvline(line - 0.5, color="0.85", linewidth=0.6)
    if len(confusion) > COUNTED:
        return
    points = 72 * cell
    size = min(9.0, 0.6 * points, 1.35 * points / len(str(confusion.max())))
    for true, predicted in np.argwhere(confusion):
        colour = "white" if shares[true, predicted] > 0.2 else "black"
        count = str(confusion[true, predicted])
        axes.text(predicted, true, count, ha="center", va="center", fontsize=size, color=colour)


def _draw_reliability(diagram: Axes, histogram: Axes, bins: Reliability) -> None:
    """Accuracy and mean confidence of each bin over its confidence, and below how many examples it has."""
    count = len(bins.examples)
    centres = (np.arange(count) + 0.5) / count
    filled = bins.examples > 0
    diagram.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle="--")
    diagram.bar(centres[filled], bins.accuracy[filled], 0.92 / count, color=BLUE, label="accuracy")
    diagram.scatter(
        centres[filled], bins.confidence[filled], marker="D", s=22, color=ORANGE, edgecolor="black", linewidth=0.6,
        zorder=3, clip_on=False, label="mean confidence",
    )  # fmt: skip
    error = 100 * expected_calibration_error(bins)
    diagram.set_title(f"reliability: expected calibration error {error:.2f} %", fontsize=9, loc="left")
    diagram.legend(loc="upper left", framealpha=0.9, edgecolor="white", fontsize=8)
    diagram.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), xticklabels=[])
    histogram.bar(centres, bins.examples, 0.92 / count, color="0.6")
    histogram.set(xlim=(0, 1), xticks=np.linspace(0, 1, 6))
    histogram.set_xlabel("confidence: probability of the predicted class", fontsize=9)
    diagram.set_ylabel("share that is right", fontsize=9)
    histogram.set_ylabel("examples", fontsize=9)
    for axes in (diagram, histogram):
        plain(axes)
