"""How all pictures look: colours, markers and dashes that tell lines apart, and axes without needless ink.

Light: loads no matplotlib.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The palette of Okabe and Ito 2008, which colour-blind people can tell apart, without its yellow, too light on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"  # beside the colour, for who cannot see it
Dash = Literal["-", "--", "-.", ":"]
DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":")  # of the lines that follow when all colours are taken


def colour_of(number: int) -> str:
    """The colour of a line, by its place among the lines of a picture."""
    return COLOURS[number % len(COLOURS)]


def marker_of(number: int) -> str:
    """Its marker."""
    return MARKERS[number % len(MARKERS)]


def dash_of(number: int) -> Dash:
    """Its dash: another one for each round of the colours, so that two of 28 lines never look alike."""
    return DASHES[number // len(COLOURS) % len(DASHES)]


def on_log_axis(values: Iterable[float]) -> list[float]:
    """What can be drawn on a logarithmic axis; nan in place of 0 and of what is not finite."""
    return [float(value) if 0 < value < math.inf else math.nan for value in values]


def plain(axes: "Axes", *, x: str = "", y: str = "") -> None:
    """Labels if there are any, small ticks, a faint grid behind what is drawn, no frame above and to the right."""
    if x:
        axes.set_xlabel(x, fontsize=9, parse_math=False)
    if y:
        axes.set_ylabel(y, fontsize=9, parse_math=False)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
