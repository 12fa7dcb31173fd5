"""Curves as a picture, as lines of text for a terminal, and as a page for a browser."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlkit.console import safe
from dlkit.probe.curves import AXES, Chart, Series
from dlkit.probe.look import Dash, colour_of, dash_of, plain
from dlkit.probe.page import shell, table, text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def figure(panels: Sequence[Chart], *, title: str) -> "Figure":
    """The panels two by two: training as a thin line, validation as a strong one with dots, a colour for each run."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from dlkit.probe.pictures import fitting

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    drawn = Figure(figsize=(5.4 * columns, 3.4 * rows + 0.9), layout="constrained")
    runs = _runs(panels)
    for place, panel in enumerate(panels):
        axes = drawn.add_subplot(rows, columns, place + 1)
        for one in panel.series:
            colour, dash = _look(runs.index(one.run))
            strong = one.part == "validation"
            dots = "o" if strong or len(one.x) == 1 else None
            axes.plot(
                one.x, one.y, color=colour, linestyle=dash, linewidth=1.8 if strong else 0.9, marker=dots,
                markersize=3.5, alpha=1.0 if strong else 0.75,
            )  # fmt: skip
        if panel.is_logarithmic:
            axes.set_yscale("log")
        if panel.limit is not None:
            axes.axhline(panel.limit, color="0.45", linestyle=(0, (1, 2)), linewidth=1.2)
            axes.annotate(
                f"clipped above {panel.limit:g}", (1, panel.limit), xycoords=("axes fraction", "data"),
                xytext=(-3, 3), textcoords="offset points", ha="right", fontsize=8, color="0.35",
            )  # fmt: skip
        axes.set_title(panel.title, fontsize=10, loc="left", parse_math=False)
        plain(axes, x=AXES[panel.along], y=panel.unit)
    handles = []
    for at, run in enumerate(runs):
        handle = Line2D([], [], color=_look(at)[0], linewidth=1.8, label=fitting(run, 60))
        handle.set_linestyle(_look(at)[1])
        handles.append(handle)
    parts = {one.part for panel in panels for one in panel.series}
    if "training" in parts:
        handles.append(Line2D([], [], color="0.4", linewidth=0.9, label="thin: training"))
    if "validation" in parts:
        handles.append(Line2D([], [], color="0.4", linewidth=1.8, marker="o", markersize=3.5, label="dots: validation"))
    legend = drawn.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    for label in legend.get_texts():
        label.set_parse_math(False)
    drawn.suptitle(fitting(title), x=0.01, ha="left", fontsize=12, parse_math=False)
    return drawn


def _runs(panels: Sequence[Chart]) -> list[str]:
    return list(dict.fromkeys(one.run for panel in panels for one in panel.series))


def _look(number: int) -> tuple[str, Dash]:
    return colour_of(number), dash_of(number)


def tick(value: float) -> str:
    """A number beside an axis: three digits, however large or small it is."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-").replace("e+0", "e")


def _scale(values: Sequence[float], *, logarithmic: bool) -> tuple[Callable[[float], float], float, float]:
    """A function from values to shares of the axis, and what stands at its two ends."""
    low, high = min(values), max(values)
    forward: Callable[[float], float] = math.log if logarithmic else float
    start, end = forward(low), forward(high)
    return (lambda value: (forward(value) - start) / (end - start) if end > start else 0.5), low, high


# ---------------------------------------------------------------------------------------------------------- a terminal


def lines(panel: Chart, *, width: int = 72, height: int = 12) -> list[str]:
    """A panel in letters: `a` is the first run, `b` the second; small ones are validation, capitals training.

    The mean of what falls into a column is drawn; of two letters that meet, the last one stays.

    Args:
        panel: what to draw.
        width: columns in all.
        height: lines of the plot itself; title, axis and legend come besides.
    """
    chosen = _told_apart(panel.series)
    to_row, low, high = _scale([y for one in chosen for y in one.y], logarithmic=panel.is_logarithmic)
    to_column, first, last = _scale([x for one in chosen for x in one.x], logarithmic=panel.along == "rate")
    labels = [tick(high), tick(low)]
    margin = max(map(len, labels)) + 1
    across = max(10, width - margin - 2)
    grid = [[" "] * across for _ in range(height)]
    runs = list(dict.fromkeys(one.run for one in chosen))
    for one in chosen:
        letter = LETTERS[runs.index(one.run) % len(LETTERS)]
        letter = letter if one.part == "validation" else letter.upper()
        columns = np.array([round(to_column(x) * (across - 1)) for x in one.x])
        for column in np.unique(columns):
            mean = float(np.mean([y for y, at in zip(one.y, columns, strict=True) if at == column]))
            grid[height - 1 - round(to_row(mean) * (height - 1))][column] = letter
    sides = [labels[0], *[""] * (height - 2), labels[1]]
    ends = tick(first), tick(last)
    scale = ", logarithmic" if panel.is_logarithmic else ""
    return [
        f"{panel.title}{scale}",
        *(f"{side:>{margin}} |{''.join(row)}".rstrip() for side, row in zip(sides, grid, strict=True)),
        f"{'':>{margin}} +{'-' * across}",
        f"{'':>{margin}}  {ends[0]:<{across - len(ends[1])}}{ends[1]}",
        f"{'':>{margin}}  {AXES[panel.along]}",
        *(f"{'':>{margin}}  {legend}" for legend in _legend(chosen, runs)),
    ]


def _told_apart(series: Sequence[Series]) -> list[Series]:
    """All series of few runs; of more only those of validation, or they would hide each other."""
    of_validation = [one for one in series if one.part == "validation"]
    few = len({one.run for one in series}) <= 2
    return list(series) if few or not of_validation else of_validation


def _legend(series: Sequence[Series], runs: Sequence[str]) -> list[str]:
    found = []
    for one in series:
        letter = LETTERS[runs.index(one.run) % len(LETTERS)]
        found.append(f"{letter if one.part == 'validation' else letter.upper()}  {safe(one.run)}, {one.part}")
    return found


# ------------------------------------------------------------------------------------------------------------- a page

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 520, 300, 72, 44, 10, 12


def page(
    panels: Sequence[Chart],
    *,
    title: str,
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    right: Sequence[str] = (),
) -> str:
    """One page of HTML that needs no network and no script, for light and dark, wide and narrow windows.

    Args:
        panels: what to draw.
        title: its heading.
        columns: of a table below the panels.
        rows: of the table.
        right: titles of its columns of numbers.
    """
    runs = _runs(panels)
    legend = "".join(
        f'<li><svg viewBox="0 0 34 12" aria-hidden="true">{_line([(0, 6), (34, 6)], at, 2.5)}</svg> {text(run)}</li>'
        for at, run in enumerate(runs)
    )
    drawn = "".join(f"<section><h2>{text(panel.title)}</h2>{_chart(panel, runs)}</section>" for panel in panels)
    legends = f"<ul>{legend}<li>thin: training</li><li>with dots: validation</li></ul>"
    below = table(columns, rows, right=right)
    return shell(f'{legends}\n<div class="panels">{drawn}</div>\n{below}', title=title)


def _line(points: Sequence[tuple[float, float]], number: int, width: float) -> str:
    colour, dash = _look(number)
    pattern = {"-": "", "--": "7 4", "-.": "7 3 2 3", ":": "2 3"}[dash]
    # Black would be lost on a dark page.
    look = 'class="black" stroke="var(--series)"' if colour == "#000000" else f'stroke="{colour}"'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{pattern}"' if pattern else ""
    return f'<polyline points="{path}" fill="none" {look} stroke-width="{width}"{dashes}/>'


def _chart(panel: Chart, runs: Sequence[str]) -> str:
    values = [y for one in panel.series for y in one.y] + ([panel.limit] if panel.limit else [])
    to_y, low, high = _scale(values, logarithmic=panel.is_logarithmic)
    to_x, first, last = _scale([x for one in panel.series for x in one.x], logarithmic=False)
    across, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + to_x(x) * across, _TOP + (1 - to_y(y)) * tall

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        level = low * (high / low) ** share if panel.is_logarithmic else low + share * (high - low)
        y, x = _TOP + (1 - share) * tall, _LEFT + share * across
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick(level)}</text>')
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="{anchor}">'
            f"{tick(first + share * (last - first))}</text>"
        )
    if panel.limit:
        y = place(first, panel.limit)[1]
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{_WIDTH - _RIGHT}" y="{y - 4:.1f}" text-anchor="end">clipped above {panel.limit:g}</text>'
        )
    for one in panel.series:
        number = runs.index(one.run)
        points = [place(x, y) for x, y in zip(one.x, one.y, strict=True)]
        parts.append(_line(points, number, 2.4 if one.part == "validation" else 1.1))
        if one.part == "validation" or len(points) == 1:
            colour = "currentColor" if _look(number)[0] == "#000000" else _look(number)[0]
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{text(one.run)}: '
                f"{tick(value)} at {tick(at)}</title></circle>"
                for (x, y), value, at in zip(points, one.y, one.x, strict=True)
            ]
    scale = ", logarithmic upwards" if panel.is_logarithmic else ""
    parts.append(
        f'<text x="{_LEFT + across / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{AXES[panel.along]}{scale}</text>'
    )
    middle = _TOP + tall / 2
    parts.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{text(panel.unit)}</text>'
    )
    label = text(f"{panel.title} over {AXES[panel.along]}")
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
