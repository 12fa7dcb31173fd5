"""What an experiment finds: a table, charts, and verdicts on the lecture's claims. This module is light."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


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


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        label: what it is of.
        x: where.
        y: how much; as many as `x`.
        low: lower ends of a band about it; empty for none.
        high: upper ends.
        is_theory: whether it was calculated and not measured: then it is dotted.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    is_theory: bool = False


def on_log_axis(values: Iterable[float]) -> list[float]:
    """What can be drawn on a logarithmic axis; nan in place of 0 and of what is not finite."""
    return [float(value) if 0 < value < math.inf else math.nan for value in values]


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis.

    Args:
        title: above it.
        x: what is to the right, with its unit.
        y: what is upwards, with its unit.
        lines: what is drawn.
        log_x: whether the axis to the right is logarithmic.
        log_y: whether the axis upwards is.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False


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
    charts: Sequence[Chart]
    right: Sequence[str] = ()
    records: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = field(default_factory=tuple)
