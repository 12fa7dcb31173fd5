"""What an experiment finds: a table, charts, and verdicts on the lecture's claims. Loads no TensorFlow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dlkit.probe.panels import Lines


@dataclass(frozen=True)
class Verdict:
    """A claim, whether it holds here, and the numbers that say so.

    Args:
        claim: the claim, a sentence without its full stop.
        holds: whether it holds.
        numbers: what was compared.
    """

    claim: str
    holds: bool
    numbers: str

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'does not hold'}: {self.claim} ({self.numbers})"


def deviation(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The standard deviation of repeated measurements; nan of fewer than two, which say nothing of their spread.

    Nothing is greater than nan: a verdict that needs a spread does not hold without one.
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Finding:
    """All that an experiment says.

    Args:
        columns: titles of the table.
        rows: its cells.
        verdicts: on the claims.
        charts: the picture, from left to right.
        right: titles of the columns of numbers.
        records: the rows in full precision, for JSON.
        notes: what a reader has to know besides, a line each.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    verdicts: Sequence[Verdict]
    charts: "Sequence[Lines]"
    right: Sequence[str] = ()
    records: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = field(default_factory=tuple)
