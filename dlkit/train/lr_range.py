"""The learning rate range test: which rates a training could begin with (Smith 2017, section 3.3)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

UPDATES = 100  # of a test, unless it is told otherwise
LOWEST, HIGHEST = 1e-7, 10.0
WINDOW = 5  # losses that are averaged, since those of single batches jump
DIVERGED = 4.0  # a mean loss of so many times the least one: the rates are too high
FELL = 0.02  # by so much of the first mean loss the least one lies below it, or nothing was learned

Ended = Literal["diverged", "not finite", "end of the range"]


def growing(low: float, high: float, count: int) -> list[float]:
    """Rates from `low` to `high` that grow by the same factor each time; the paper's grow by the same amount.

    Args:
        low: the first one.
        high: the last one.
        count: how many, at least 2.

    Example:
        >>> growing(0.001, 1, 4)
        [0.001, 0.01, 0.1, 1.0]
    """
    return [float(rate) for rate in np.geomspace(low, high, count)]


@dataclass(frozen=True)
class RangeTest:
    """What became of the loss.

    Args:
        rates: of the updates made, rising.
        losses: of the batch of each, before its update.
        ended: why no more were made.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    ended: Ended

    @property
    def means(self) -> list[float]:
        """For each update the mean loss of the five around it, of fewer at the ends."""
        return [_mean_around(self.losses, at) for at in range(len(self.losses))]

    @property
    def least(self) -> int | None:
        """The update at which the mean loss was least; None where it has hardly fallen."""
        means = self.means
        if not means:
            return None
        at = int(np.argmin(means))
        return at if means[at] < (1 - FELL) * means[0] else None

    @property
    def steepest(self) -> int | None:
        """The update in the middle of the tenfold rise of the rate, up to the least loss, over which it fell most."""
        if self.least is None:
            return None
        means, factor = self.means, self.rates[1] / self.rates[0]
        reach = max(1, min(round(0.5 / math.log10(factor)), self.least // 2))
        middles = range(reach, max(self.least - reach, reach) + 1)
        return min(middles, key=lambda at: means[min(at + reach, len(means) - 1)] - means[at - reach])

    @property
    def suggestion(self) -> float | None:
        """A tenth of the rate at which the mean loss was least, None where it has hardly fallen.

        There the loss is about to rise, and a training meets steeper places than its first ones: one stays well below.
        """
        return None if self.least is None else self.rates[self.least] / 10

    @property
    def is_open(self) -> bool:
        """Whether the mean loss was least at the very end, so that higher rates might do."""
        return self.least is not None and self.ended == "end of the range" and self.least >= len(self.rates) - WINDOW


def _mean_around(losses: Sequence[float], at: int) -> float:
    reach = WINDOW // 2
    return float(np.mean(losses[max(0, at - reach) : at + reach + 1]))


def range_test(rates: Sequence[float], losses: Iterable[float]) -> RangeTest:
    """Makes updates until the loss diverges.

    Args:
        rates: of the updates, rising.
        losses: draws the loss of each batch, and makes its update with the rate of the same place; nan when the loss or
            a gradient is not finite. No more are drawn than are looked at.

    Returns:
        The updates up to where the mean of the last five losses was over four times the least such mean.
    """
    seen: list[float] = []
    lowest = math.inf
    for loss in losses:
        if not math.isfinite(loss):
            return RangeTest(rates[: len(seen)], seen, "not finite")
        seen.append(loss)
        if len(seen) >= WINDOW:
            mean = float(np.mean(seen[-WINDOW:]))
            lowest = min(lowest, mean)
            if mean > DIVERGED * lowest:
                return RangeTest(rates[: len(seen)], seen, "diverged")
    return RangeTest(rates[: len(seen)], seen, "end of the range")
