"""Pictures of translations: where each word looked, and how quality falls with length."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from dlkit.probe.classification import SHADES
from dlkit.probe.look import colour_of, dash_of, marker_of, plain
from dlkit.probe.pictures import fitting, told_apart

PIECE = 16  # letters of a token
NAME = 40  # letters of a run
CELL, LETTER, MARGIN, HEAD, FOOT = 0.26, 0.075, 0.15, 0.5, 0.32  # inches


def alignment(weights: NDArray[np.floating], source: Sequence[str], target: Sequence[str], *, title: str) -> Figure:
    """A row for each token of the translation, and in it how much it looked at each token of the source.

    Bahdanau, Cho and Bengio 2015, figure 3. All sizes are in inches, so long sentences make large pictures.

    Args:
        weights: (target tokens, source tokens), rows that sum to 1.
        source: the tokens, the end token included.
        target: the same.
        title: the first line.
    """
    names = [[fitting(token, PIECE) for token in tokens] for tokens in (target, source)]
    left, top = (MARGIN + LETTER * max(map(len, side)) + 0.1 for side in names)
    rows, columns = weights.shape
    width = max(left + CELL * columns + MARGIN, LETTER * (len(fitting(title)) + 12), 7.0)
    height = HEAD + top + CELL * rows + FOOT
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, FOOT / height, CELL * columns / width, CELL * rows / height))
    axes.imshow(weights, cmap=SHADES, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.xaxis.tick_top()
    axes.set_xticks(range(columns), names[1], rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(rows), names[0], fontsize=8, parse_math=False)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    figure.text(MARGIN / width, 1 - 0.12 / height, fitting(title), va="top", fontsize=12, parse_math=False)
    note = "A row is a token of the translation; the darker, the more it looked at that token of the source."
    figure.text(MARGIN / width, 0.1 / height, note, va="bottom", fontsize=8, color="0.3", parse_math=False)
    return figure


def by_length(
    lengths: Sequence[tuple[int, int]], values: Mapping[str, Sequence[float]], *, measure: str, title: str
) -> Figure:
    """How good the outputs of runs are, over the length of the references.

    Args:
        lengths: shortest and longest of each range of lengths, in words.
        values: run -> a value for each range.
        measure: what the values are, with their unit.
        title: the first line.
    """
    figure = Figure(figsize=(8.5, 4.2), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    axes = figure.subplots()
    places = np.arange(len(lengths))
    for at, (name, series) in enumerate(zip(told_apart(list(values), NAME), values.values(), strict=True)):
        axes.plot(
            places, series, label=name, color=colour_of(at), marker=marker_of(at),
            linestyle=dash_of(at), linewidth=1.8, markersize=6, clip_on=False,
        )  # fmt: skip
    axes.set_xticks(places, [f"{low}" if low == high else f"{low}-{high}" for low, high in lengths], fontsize=9)
    plain(axes, x="words of the reference", y=measure)
    axes.set_ylim(bottom=0)
    legend = axes.legend(frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.suptitle(fitting(title), x=0.01, ha="left", fontsize=12, parse_math=False)
    return figure
