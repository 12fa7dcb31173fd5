"""Panels of lines, bars, points and maps, side by side, as the views of `dlkit inspect` draw them.

Legends stand below what they explain, so that they cover nothing.
"""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from dlkit.probe.charts import tick
from dlkit.probe.look import COLOURS, colour_of, dash_of, marker_of, plain
from dlkit.probe.pictures import BLUE, NAME, fitting, spread

FEW = 40  # points of a line that has a marker at each
LABELS = 60  # names beside an axis, at most
WIDTH, HEIGHT = 5.4, 3.9  # inches of a panel
NARROW = 4.6  # of one that stands alone
TITLE = 40  # letters of a line
NOTE, NOTE_LINE = 70, 0.14  # letters of a line for each column of panels, and inches that it is high


@dataclass(frozen=True)
class Line:
    """Points in their order.

    Args:
        label: in the legend; empty for none.
        x: where they lie.
        y: their values; nan where there is none.
        joined: whether a line goes through them.
        low: lower ends of a band about them; empty for none.
        high: its upper ends.
        is_theory: whether they were calculated and not measured: then they are a dotted line, in the colour of the
            line whose label is in theirs, else gray.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    joined: bool = True
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    is_theory: bool = False


@dataclass(frozen=True)
class Lines:
    """A panel of lines.

    Args:
        title: above it.
        x_label: what lies to the right, with its unit.
        y_label: what lies upwards, with its unit.
        lines: at least one.
        logarithmic: whether the axis upwards is.
        log_x: whether the axis to the right is; where all points are powers of two, its ticks are.
        levels: heights to compare with, each with its name.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    logarithmic: bool = False
    log_x: bool = False
    levels: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Rows:
    """A panel with a row for each name, the first on top, and one kind of point or bar for each series.

    Args:
        title: above it.
        x_label: what lies to the right, with its unit.
        names: of the rows.
        series: label -> a value for each row; None for none.
        logarithmic: whether the axis is; zeros then are hollow points at its left end.
        bars: whether the only series is drawn as bars.
    """

    title: str
    x_label: str
    names: Sequence[str]
    series: dict[str, Sequence[float | None]]
    logarithmic: bool = False
    bars: bool = False


@dataclass(frozen=True)
class Map:
    """A panel of a matrix, the first row on top, with a bar that says what its colours mean.

    Args:
        title: above it.
        values: (rows, columns).
        unit: of the values.
        x_label: what the columns are.
        y_label: what the rows are.
        signed: whether 0 is the middle of the colours.
        square: whether rows are as high as columns are wide, as in an image.
        x_names: of the columns; empty for numbers.
        y_names: of the rows.
    """

    title: str
    values: NDArray
    unit: str
    x_label: str = ""
    y_label: str = ""
    signed: bool = False
    square: bool = False
    x_names: Sequence[str] = ()
    y_names: Sequence[str] = ()


@dataclass(frozen=True)
class Names:
    """A panel of names, each at its point.

    Args:
        title: above it.
        x_label: what lies to the right.
        y_label: what lies upwards.
        points: (n, 2).
        names: n texts.
        strong: how many of them, the first ones, stand out.
    """

    title: str
    x_label: str
    y_label: str
    points: NDArray
    names: Sequence[str]
    strong: int = 0


@dataclass(frozen=True)
class Image:
    """A panel of an image, and over it, if there is any, a map of its size.

    Args:
        title: above it.
        pixels: (height, width) or (height, width, 3), from 0 to 1.
        over: (height, width), drawn half transparent.
        unit: of the map.
    """

    title: str
    pixels: NDArray
    over: NDArray | None = None
    unit: str = ""


Panel = Lines | Rows | Map | Names | Image


class Sheet(Figure):
    """A figure of panels that can be taken apart."""

    panels: Sequence[Panel] = ()

    def each(self) -> list[Figure]:
        """Each panel as a figure of its own, narrow enough for a page on a small screen."""
        found = []
        for panel in self.panels:
            drawn = Figure(
                figsize=(NARROW, NARROW * _height(panel) / WIDTH + 0.3), layout=ConstrainedLayoutEngine(h_pad=0.08)
            )
            _draw(drawn.add_subplot(), panel)
            found.append(drawn)
        return found


def figure(panels: Sequence[Panel], *, title: str, note: str = "", columns: int = 2) -> Sheet:
    """Draws panels.

    Args:
        panels: at least one.
        title: the first line.
        note: below all of them, on as many lines as it takes.
        columns: panels in a row, at most.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    tall = max(_height(panel) for panel in panels)
    note = "\n".join(textwrap.fill(line, NOTE * columns) for line in note.splitlines())
    size = (WIDTH * columns, tall * rows + 0.7 + NOTE_LINE * note.count("\n"))
    drawn = Sheet(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.04, hspace=0.05))
    drawn.panels = list(panels)
    for place, panel in enumerate(panels):
        _draw(drawn.add_subplot(rows, columns, place + 1), panel)
    drawn.suptitle(textwrap.fill(fitting(title), 60 * columns), x=0.01, ha="left", fontsize=12, parse_math=False)
    if note:
        drawn.supxlabel(note, x=0.01, ha="left", fontsize=8, color="0.3", parse_math=False, wrap=True)
    return drawn


def _draw(axes: Axes, panel: Panel) -> None:
    title = textwrap.fill(fitting(panel.title, 80), TITLE)
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    _DRAW[type(panel)](axes, panel)


def _height(panel: Panel) -> float:
    return max(HEIGHT, min(0.2 * len(panel.names), 12.0) + 1.4) if isinstance(panel, Rows) else HEIGHT


def _legend(axes: Axes, count: int) -> None:
    if count == 0:
        return
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False, fontsize=8, ncols=2, borderaxespad=0.0
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_lines(axes: Axes, panel: Lines) -> None:
    measured = [line for line in panel.lines if not line.is_theory]
    for at, line in enumerate(measured):
        few = sum(map(math.isfinite, line.y)) <= FEW  # one point alone is no line
        axes.plot(
            line.x, line.y, label=fitting(line.label, 40) if line.label else None, color=colour_of(at),
            linestyle=dash_of(at) if line.joined else "none",
            # Later ones are thinner: where two run alike both can be seen.
            linewidth=max(1.2, 2.6 - 0.5 * at), marker=marker_of(at) if few or not line.joined else None,
            markersize=max(3.0, 6.5 - 1.1 * at),
        )  # fmt: skip
        if line.low and line.high:
            axes.fill_between(line.x, line.low, line.high, color=colour_of(at), alpha=0.15, linewidth=0)
    for line in panel.lines:
        if line.is_theory:
            of = [at for at, other in enumerate(measured) if other.label in line.label]
            axes.plot(
                line.x, line.y, label=fitting(line.label, 40), color=colour_of(of[0]) if of else "0.45",
                linestyle=":", linewidth=1.4,
            )  # fmt: skip
    values = [value for line in panel.lines for value in line.y if math.isfinite(value)]
    if panel.logarithmic and any(value > 0 for value in values):
        axes.set_yscale("log")
        powers(axes.yaxis, values)
    across = sorted({value for line in panel.lines for value in line.x})
    if panel.log_x:
        _log_x(axes, across)
    elif all(float(value).is_integer() for value in across):  # there is no half a pixel, step or layer
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    for at, (level, name) in enumerate(panel.levels):
        axes.axhline(
            level, color="0.35", linewidth=1.2, linestyle=((0, (1, 2)), (0, (5, 3)))[at % 2], label=fitting(name, 40)
        )
    plain(axes, x=panel.x_label, y=panel.y_label)
    _legend(axes, sum(bool(line.label) for line in panel.lines) + len(panel.levels))


def _log_x(axes: Axes, values: Sequence[float]) -> None:
    if all(math.log2(value).is_integer() for value in values):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xscale("log")
        powers(axes.xaxis, values)


def powers(axis: Axis, values: Sequence[float]) -> None:
    """Ticks of a logarithmic axis: of a few decades plain numbers, of many every so many powers of ten."""
    there = [value for value in values if value > 0] or [1.0]
    decades = np.log10(max(there) / min(there))
    if decades < 3:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades > 1 else (1, 1.5, 2, 3, 5, 7), numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    else:
        axis.set_major_locator(LogLocator(numticks=8))
    axis.set_minor_formatter(NullFormatter())


def _draw_rows(axes: Axes, panel: Rows) -> None:
    places, some_zero = np.arange(len(panel.names)), False
    for at, (label, values) in enumerate(panel.series.items()):
        there = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
        if panel.logarithmic:
            nothing = [place for place, value in there if value == 0]
            there = [(place, value) for place, value in there if value > 0]
            if nothing:
                some_zero = True
                axes.scatter(
                    [0.0] * len(nothing), nothing, s=22, facecolor="white", edgecolor=colour_of(at),
                    marker=marker_of(at), transform=axes.get_yaxis_transform(), zorder=3, clip_on=False,
                )  # fmt: skip
        where, size = [place for place, _ in there], [value for _, value in there]
        if panel.bars:
            axes.barh(where, size, 0.65, color=colour_of(at))
        else:
            axes.scatter(
                size, where, s=22, color=colour_of(at), marker=marker_of(at),
                edgecolor="black", linewidth=0.4, label=label, zorder=3, clip_on=False,
            )  # fmt: skip
    if panel.logarithmic:
        axes.set_xscale("log")
        powers(axes.xaxis, [value for values in panel.series.values() for value in values if value])
    shown = spread(len(panel.names), LABELS)
    axes.set_yticks(shown, [fitting(panel.names[at], NAME) for at in shown], fontsize=8, parse_math=False)
    axes.set_ylim(len(panel.names) - 0.4, -0.6)
    plain(axes, x=f"{panel.x_label} (hollow: 0)" if some_zero else panel.x_label, y="")
    axes.grid(visible=False, axis="y")
    if not panel.bars:
        handles, labels = axes.get_legend_handles_labels()
        del handles
        if any(labels):
            below = 0.55 / (_height(panel) - 1.4)  # inches below the axis
            axes.legend(
                loc="upper left", bbox_to_anchor=(0, -below), frameon=False, fontsize=8, ncols=2, borderaxespad=0.0
            )


def _draw_map(axes: Axes, panel: Map) -> None:
    most = float(np.nanmax(np.abs(panel.values))) or 1.0
    least, greatest = (-most, most) if panel.signed else (None, None)
    shown = axes.imshow(
        panel.values, cmap="PuOr" if panel.signed else "cividis", aspect="equal" if panel.square else "auto",
        interpolation="nearest", vmin=least, vmax=greatest,
    )  # fmt: skip
    axes.set_xlabel(panel.x_label, fontsize=9)
    axes.set_ylabel(panel.y_label, fontsize=9)
    axes.tick_params(labelsize=8)
    for axis, names in ((axes.xaxis, panel.x_names), (axes.yaxis, panel.y_names)):
        if names:
            at = spread(len(names), 40)
            axis.set_ticks(at, [fitting(names[one], 12) for one in at], fontsize=7, parse_math=False)
        else:
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if panel.x_names:
        axes.tick_params(axis="x", rotation=90)
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.9)
    bar.set_label(panel.unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _draw_names(axes: Axes, panel: Names) -> None:
    """A name that would cover an earlier one is left out; its point stays."""
    count = len(panel.names)
    colours = [COLOURS[1] if at < panel.strong else BLUE for at in range(count)]
    axes.scatter(panel.points[:, 0], panel.points[:, 1], s=14, c=colours, linewidth=0)
    axes.margins(0.12)
    plain(axes, x=panel.x_label, y=panel.y_label)
    low, high = panel.points.min(axis=0), panel.points.max(axis=0)
    share = (panel.points - low) / np.where(high > low, high - low, 1)
    taken: list[tuple[float, float, float]] = []
    for at, name in enumerate(panel.names):
        text = fitting(name, 14)
        x, y, wide = float(share[at, 0]), float(share[at, 1]), 0.022 * len(text) + 0.02
        if any(x < right and left < x + wide and abs(y - other) < 0.055 for left, right, other in taken):
            continue
        taken.append((x, x + wide, y))
        axes.annotate(
            text, panel.points[at], xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
            color=colours[at], weight="bold" if at < panel.strong else "normal", parse_math=False,
        )  # fmt: skip


def _draw_image(axes: Axes, panel: Image) -> None:
    axes.imshow(panel.pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    if panel.over is None:
        return
    most = float(panel.over.max()) or 1.0
    shown = axes.imshow(panel.over, cmap="cividis", alpha=0.65, vmin=0, vmax=most, interpolation="bilinear")
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.9)
    bar.set_label(panel.unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


_DRAW: dict[type, Callable] = {
    Lines: _draw_lines, Rows: _draw_rows, Map: _draw_map, Names: _draw_names, Image: _draw_image
}  # fmt: skip
