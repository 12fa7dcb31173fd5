"""Pictures of how sequences are learned: the error over the steps of training, and what is told at the end."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from dlkit.probe.look import colour_of, dash_of, marker_of, plain
from dlkit.probe.pictures import BLUE, fitting, told_apart

Curve = Sequence[tuple[int, float]]
NAME = 24  # letters of a run


def picture(
    curves: Mapping[str, Curve],
    values: Mapping[str, float],
    *,
    measure: str,
    title: str,
    logarithmic: bool,
    memoryless: float | None = None,
    points: Sequence[tuple[float, float]] = (),
    lengths: Sequence[tuple[int, int]] = (),
    by_length: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """At the left a measure over the steps of training; at the right what came of it.

    That is, of one run that tells numbers, each number over the true one; of several runs the measure by length, or a
    bar for each.

    Args:
        curves: run -> (step, value on the validation split).
        values: run -> value on the split that is reported.
        measure: what the values are, with their unit.
        title: the first line.
        logarithmic: whether the measure is drawn on a logarithmic axis.
        memoryless: what the best model gets that remembers nothing.
        points: pairs of a true and a told number, of one run.
        lengths: shortest and longest of each range of lengths.
        by_length: run -> a value for each of them.
    """
    figure = Figure(figsize=(11, 4.4), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.06))
    left, right = figure.subplots(1, 2)
    for at, (name, series) in enumerate(zip(told_apart(list(curves), NAME), curves.values(), strict=True)):
        steps, reached = zip(*series, strict=True) if series else ((), ())
        left.plot(
            steps, reached, label=name, color=colour_of(at),
            marker=marker_of(at), linestyle=dash_of(at), linewidth=1.6, markersize=3.5,
        )  # fmt: skip
    left.set_xlabel("steps of training", fontsize=9)
    left.set_ylabel(f"{measure}, validation", fontsize=9)
    _finish(left, memoryless, logarithmic, along="y")
    if points:
        _draw_points(right, points)
    elif by_length:
        _draw_by_length(right, lengths, by_length, measure)
        _finish(right, memoryless, logarithmic, along="y")
    else:
        _draw_bars(right, values, measure)
        _finish(right, memoryless, logarithmic, along="x")
    legend = left.legend(frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.suptitle(fitting(title), x=0.01, ha="left", fontsize=12, parse_math=False)
    return figure


def _finish(axes: Axes, memoryless: float | None, logarithmic: bool, *, along: str) -> None:
    """The line of the model that remembers nothing, the scale and the grid."""
    if memoryless is not None:
        line = axes.axhline if along == "y" else axes.axvline
        line(memoryless, color="0.4", linewidth=1.2, linestyle="--", label="remembers nothing")
    if logarithmic:
        (axes.set_yscale if along == "y" else axes.set_xscale)("log")
    plain(axes)


def _draw_points(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    true, told = np.array(points).T
    low, high = min(true.min(), told.min()), max(true.max(), told.max())
    axes.plot([low, high], [low, high], color="0.4", linewidth=1.2, linestyle="--")
    axes.scatter(true, told, s=12, color=BLUE, alpha=0.6, linewidth=0)
    axes.set_aspect("equal")
    axes.set_xlabel("true number", fontsize=9)
    axes.set_ylabel("what the model says", fontsize=9)
    _finish(axes, None, logarithmic=False, along="y")


def _draw_by_length(
    axes: Axes, lengths: Sequence[tuple[int, int]], by_length: Mapping[str, Sequence[float]], measure: str
) -> None:
    for at, series in enumerate(by_length.values()):
        axes.plot(
            range(len(lengths)), series, color=colour_of(at), marker=marker_of(at), linestyle=dash_of(at),
            linewidth=1.6, markersize=5,
        )  # fmt: skip
    axes.set_xticks(range(len(lengths)), [f"{low}" if low == high else f"{low}-{high}" for low, high in lengths])
    axes.set_xlabel("steps of the sequence", fontsize=9)
    axes.set_ylabel(measure, fontsize=9)


def _draw_bars(axes: Axes, values: Mapping[str, float], measure: str) -> None:
    places = np.arange(len(values))
    axes.barh(places, list(values.values()), 0.6, color=[colour_of(at) for at in range(len(values))])
    axes.set_yticks(places, told_apart(list(values), NAME), fontsize=9, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(measure, fontsize=9)
    for at, value in zip(places, values.values(), strict=True):
        axes.annotate(f"{value:.3g}", (value, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.margins(x=0.15)
