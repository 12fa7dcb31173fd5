"""The charts of an experiment as one picture."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlkit.experiments.finding import Chart, Line
from dlkit.probe.charts import COLOURS
from dlkit.probe.pictures import fitting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*"  # beside the colour, for who cannot see it
DOTTED_BELOW = 30  # a line of fewer points has a marker at each


def figure(charts: Sequence[Chart], *, title: str, subtitle: str = "") -> "Figure":
    """The charts beside each other, two in a row, each with its own legend below.

    Args:
        charts: at least one.
        title: above them all.
        subtitle: a line below the title.
    """
    from matplotlib.figure import Figure

    columns = min(2, len(charts))
    rows = -(-len(charts) // columns)
    drawn = Figure(figsize=(5.8 * columns, 4.4 * rows + 0.6), layout="constrained")
    for place, chart in enumerate(charts):
        _draw(drawn.add_subplot(rows, columns, place + 1), chart)
    lines = [*textwrap.wrap(title, 62 * columns), *([fitting(subtitle, 75 * columns)] if subtitle else [])]
    drawn.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, parse_math=False)
    return drawn


def _draw(axes: "Axes", chart: Chart) -> None:
    measured = [line for line in chart.lines if not line.is_theory]
    for line in chart.lines:
        # What was calculated has the colour of what was measured and is named alike, else gray.
        of = [
            at for at, other in enumerate(measured) if other is line or (line.is_theory and other.label in line.label)
        ]
        colour = COLOURS[of[0] % len(COLOURS)] if of else "0.45"
        _draw_line(axes, line, colour, MARKERS[of[0] % len(MARKERS)] if of else "")
    if chart.log_x:
        axes.set_xscale("log", base=2 if _are_powers_of_two(chart.lines) else 10)
        if _are_powers_of_two(chart.lines):
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if chart.log_y:
        axes.set_yscale("log")
    axes.set_title(chart.title, fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel(chart.x, fontsize=9)
    axes.set_ylabel(chart.y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=8, columnspacing=1.2
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_line(axes: "Axes", line: Line, colour: str, marker: str) -> None:
    few = sum(map(math.isfinite, line.y)) < DOTTED_BELOW  # one point alone is no line
    axes.plot(
        line.x, line.y, color=colour, linewidth=1.1 if line.is_theory else 1.6,
        linestyle=":" if line.is_theory else "-",
        marker=marker if few and not line.is_theory else None, markersize=4, label=fitting(line.label, 44),
    )  # fmt: skip
    if line.low and line.high:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)


def _are_powers_of_two(lines: Sequence[Line]) -> bool:
    values = {x for line in lines for x in line.x}
    return all(value > 0 and math.log2(value).is_integer() for value in values)
