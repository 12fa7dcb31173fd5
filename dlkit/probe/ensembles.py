"""A picture of an ensemble: its members and what they make together, by number of members, and how much they differ."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dlkit.probe.look import plain
from dlkit.probe.pictures import BLUE, ORANGE, fitting, letters, own_name, told_apart

NAME = 30  # letters of a member
COUNTED = 12  # up to so many members every share is written
SHADES = LinearSegmentedColormap.from_list("shades", ["white", BLUE])


def picture(found: Mapping[str, Any]) -> Figure:
    """Draws what `dlkit.train.ensembles.evaluate_ensemble` returns.

    At the left each member and what they say together, with 95 % intervals; then, where it is known, what fewer members
    would reach, and the share of answers in which each two members differ.
    """
    members = len(found["members"])
    panels = [(5.2, _draw_members)]
    panels += [(3.8, _draw_sizes)] * ("by_size" in found) + [(4.2, _draw_disagreements)] * ("disagreements" in found)
    widths = [width for width, _ in panels]
    width = sum(widths)
    figure = Figure(figsize=(width, max(3.4, 1.6 + 0.3 * (members + 3))), layout="constrained")
    for axes, (_, draw) in zip(figure.subplots(1, len(panels), width_ratios=widths), panels, strict=True):
        draw(axes, found)
    title = f"{members} members, {found['examples']:,} examples of {own_name(found['data'])}, {found['split']}"
    figure.suptitle(fitting(title, letters(width, 12)), x=0.01, ha="left", fontsize=12, parse_math=False)
    return figure


def _scale(found: Mapping[str, Any]) -> tuple[float, str]:
    scales = {"mse": (1.0, "mean squared error"), "bleu": (1.0, "BLEU")}
    return scales.get(found["measure"], (100.0, f"{found['measure']}, %"))


def _keep_within(axes: Axes, along: Literal["x", "y"], found: Mapping[str, Any]) -> None:
    """Ends an axis a little beyond the values that are possible, so that marks at its end are whole.

    That is less than from one tick to the next, so that there is none beyond 0 and 100 %.
    """
    most = math.inf if found["measure"] == "mse" else 100.0  # percent, or BLEU
    low, high = (axes.xaxis if along == "x" else axes.yaxis).get_view_interval()
    room = 0.05 * (min(high, most) - max(low, 0))
    axes.set(**{f"{along}lim": (max(low, -room), min(high, most + room))})


def _draw_members(axes: Axes, found: Mapping[str, Any]) -> None:
    scale, unit = _scale(found)
    together = [
        (name, found[key]) for name, key in (("averaged", "averaged"), ("majority vote", "vote")) if key in found
    ]
    names = told_apart([each["name"] for each in found["members"]], NAME)
    # Their numbers are those of the other panels, and tell apart what no room is left to tell apart by.
    rows = [
        (f"{at}  {name}", each, BLUE) for at, (name, each) in enumerate(zip(names, found["members"], strict=True), 1)
    ]
    rows += [(name, record, ORANGE) for name, record in together]
    for at, (_, record, colour) in enumerate(rows):
        value = scale * record[found["measure"]]
        if record["interval"]:
            low, high = (scale * limit for limit in record["interval"])
            axes.plot([low, high], [at, at], color=colour, linewidth=1.4, alpha=0.7)
        axes.plot(value, at, "o", color=colour, markersize=6)
    mean = scale * found["mean"][found["measure"]]
    axes.axvline(mean, color="0.45", linestyle=(0, (2, 2)), linewidth=1.2)
    _keep_within(axes, "x", found)
    is_at_the_right = mean > sum(axes.get_xlim()) / 2
    axes.annotate(
        "mean of the members", (mean, 0), xycoords=("data", "axes fraction"),
        xytext=(-3 if is_at_the_right else 3, 3), ha="right" if is_at_the_right else "left",
        textcoords="offset points", fontsize=8, color="0.35",
    )  # fmt: skip
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8, parse_math=False)
    axes.set_ylim(len(rows) - 0.2, -0.5)  # downwards, with room for what the line is
    axes.set_title("each, and together", loc="left", fontsize=10)
    axes.set_xlabel(f"{unit}, with 95 % intervals", fontsize=9)
    plain(axes)


def _draw_sizes(axes: Axes, found: Mapping[str, Any]) -> None:
    scale, unit = _scale(found)
    values = [scale * value for value in found["by_size"]]
    axes.plot(range(1, len(values) + 1), values, "o-", color=ORANGE, markersize=5)
    axes.set_title("averaged, by number of members", loc="left", fontsize=10)
    axes.set_xlabel("members", fontsize=9)
    axes.set_ylabel(unit, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.ticklabel_format(axis="y", useOffset=False)
    _keep_within(axes, "y", found)
    plain(axes)


def _draw_disagreements(axes: Axes, found: Mapping[str, Any]) -> None:
    shares = 100 * np.array(found["disagreements"])
    greatest = max(float(shares.max()), 1e-9)
    axes.imshow(shares, cmap=SHADES, vmin=0, vmax=greatest)
    if len(shares) <= COUNTED:
        for row, column in np.ndindex(shares.shape):
            light = shares[row, column] > 0.6 * greatest
            told = f"{shares[row, column]:.1f}" if row != column else ""
            axes.text(
                column, row, told, ha="center", va="center", fontsize=8, color="white" if light else "black"
            )  # fmt: skip
    places = range(0, len(shares), max(1, len(shares) // COUNTED))
    axes.set_xticks(places, [str(at + 1) for at in places], fontsize=8)
    axes.set_yticks(places, [str(at + 1) for at in places], fontsize=8)
    axes.set_title("answers in which two differ, %", loc="left", fontsize=10)
    axes.set_xlabel("member", fontsize=9)
    axes.set_ylabel("member", fontsize=9)
