"""A picture of a learning rate range test."""

import numpy as np
from matplotlib.figure import Figure

from dlkit.probe.look import plain
from dlkit.probe.pictures import BLUE, ORANGE, fitting
from dlkit.train.lr_range import RangeTest

ROOM = 1.3  # of the losses up to the least one, so that what diverges does not press the rest flat


def picture(found: RangeTest, *, title: str, in_nats: bool = True) -> Figure:
    """The loss over the rate, thin of single batches, strong the mean of five; where it is least, what is suggested.

    Args:
        found: what the test has measured.
        title: over the picture.
        in_nats: whether the losses are cross-entropies, and not squared errors.
    """
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    means = np.array(found.means)
    axes.plot(found.rates, found.losses, color=BLUE, linewidth=0.8, alpha=0.5, label="loss of a batch")
    axes.plot(found.rates, means, color=BLUE, linewidth=2, label="mean of five")
    for rate, what, dash in (
        (found.suggestion, "suggested", "-"),
        (None if found.least is None else found.rates[found.least], "least", ":"),
    ):
        if rate is not None:
            axes.axvline(rate, color=ORANGE, linestyle=dash, linewidth=1.6, label=f"{what}, {rate:.2g}")
    axes.set_xscale("log")
    before = means[: (len(means) if found.least is None else found.least) + 1]
    span = before.max() - before.min() or abs(before.max()) or 1.0
    axes.set_ylim(before.min() - 0.1 * span, before.max() + (ROOM - 1) * span)
    plain(axes, x="learning rate", y="training loss before the update" + ", nats" * in_nats)
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    axes.set_title(fitting(title, 80), loc="left", fontsize=11, parse_math=False)
    return figure
