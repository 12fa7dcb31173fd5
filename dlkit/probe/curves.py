"""The curves of runs: what their logs say of each metric, as series of points. Light: loads no TensorFlow."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dlkit.errors import DataError, unknown
from dlkit.runs import Run
from dlkit.tasks import POINTS, TASKS

Along = Literal["epoch", "step", "minutes", "rate"]
Part = Literal["training", "validation"]

AXES: dict[str, str] = {
    "epoch": "epochs",
    "step": "updates",
    "minutes": "minutes of training",
    "rate": "learning rate, logarithmic",
}
TITLES = {
    "lr": "learning rate",
    "gradient_norm": "norm of the gradient, before clipping",
    "gradient_norm_p90": "norm of the gradient, before clipping, that 90 % of the updates lie below",
    "clipped": "updates that were clipped, %",
    "update_ratio": "size of the update over size of the weights",
}
UNITS = {"lr": "rate", "gradient_norm": "norm", "gradient_norm_p90": "norm", "update_ratio": "ratio"}
# Numbers of a record that tell when it was made.
_PLACES = frozenset({"schema", "attempt", "step", "epoch", "seconds", "seconds_left"})
_SPREAD = 20.0  # from such a ratio of the greatest to the least value on, the axis is logarithmic


@dataclass(frozen=True)
class Series:
    """One metric of one run on one part of its data.

    Args:
        run: how the run is called in a legend.
        part: of training, where a point is the mean since the point before, or on the validation split.
        x: where the points lie, rising.
        y: their values.
    """

    run: str
    part: Part
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """All series of one metric, which share their axes.

    Args:
        metric: its name in the log.
        title: what it is, with its unit.
        along: the axis to the right.
        series: at least one.
        limit: a level to look at, such as the norm at which gradients are clipped.
        in_nats: whether the values are cross-entropies.
    """

    metric: str
    title: str
    along: Along
    series: tuple[Series, ...]
    limit: float | None = None
    in_nats: bool = False

    @property
    def unit(self) -> str:
        """What lies upwards, in a word or two: the title says it all."""
        if self.title.endswith(", %"):
            return "%"
        return UNITS.get(self.metric, self.metric.replace("_", " ")) + ", nats" * self.in_nats

    @property
    def is_logarithmic(self) -> bool:
        """Whether the values are positive and far apart, as norms are; rates and shares are looked at as they are."""
        values = [value for one in self.series for value in one.y]
        return (
            self.metric != "lr"
            and not _is_share(self.metric)
            and min(values) > 0
            and max(values) > _SPREAD * min(values)
        )


def charts_of(runs: Sequence[Run], metrics: Sequence[str] = (), *, along: Along = "epoch") -> list[Chart]:
    """What to draw of some runs.

    Args:
        runs: at least one.
        metrics: names in the logs; without any the loss, the metric that chooses the best checkpoint, the learning
            rate and the norm of the gradient, as far as there are such.
        along: over what: epochs, updates, or minutes of training.

    Raises:
        dlkit.errors.DataError: a run has logged nothing yet.
        dlkit.errors.UsageError: no run has logged a metric of such a name.
    """
    records = [run.metrics() for run in runs]
    for run, lines in zip(runs, records, strict=True):
        if not lines:
            raise DataError(f"{run.path} has no log to draw", "a run writes one as soon as it has trained a little")
    logged = _logged(line for lines in records for line in lines)
    for name in metrics:
        if name not in logged:
            raise unknown("metric", name, logged)
    labels = _labels(runs)
    # The loss of numbers is their squared error, which is logged in their own units, too.
    in_nats = "mse" not in logged
    found = []
    for name in metrics or _usual(runs, logged):
        series = [
            one
            for label, lines in zip(labels, records, strict=True)
            for one in (_training(label, lines, name, along), _validation(label, lines, name, along))
            if one is not None
        ]
        if series:
            limit = _limit(runs) if name in {"gradient_norm", "gradient_norm_p90"} else None
            found.append(Chart(name, title(name), along, tuple(series), limit, in_nats and name == "loss"))
    return found


def title(metric: str) -> str:
    """What a metric of a log is called over its picture, with its unit."""
    if metric in TITLES:
        return TITLES[metric]
    words = metric.replace("_per_second", " per second").replace("_", " ")
    return f"{words}, %" if _is_share(metric) else words


def _is_share(metric: str) -> bool:
    """Whether a metric is a share, which is drawn in percent."""
    of_tasks = {name for task in TASKS.values() for name, better in task.metrics.items() if better == "higher"}
    return metric == "clipped" or metric in of_tasks - POINTS


def _usual(runs: Sequence[Run], logged: Sequence[str]) -> list[str]:
    monitored = [run.monitor[0] for run in runs]
    others = [name for run in runs for name in TASKS[run.task].metrics if name not in monitored]
    second = [name for name in monitored if name != "loss"] or others[:2]
    wanted = dict.fromkeys(["loss", *second, "lr", "gradient_norm"])
    return [name for name in wanted if name in logged]


def _logged(lines: Iterable[dict[str, Any]]) -> list[str]:
    """The names of all numbers in the logs, in the order in which they come."""
    names: dict[str, None] = {}
    for line in lines:
        names |= dict.fromkeys(key for key, value in line.items() if key not in _PLACES and _is_finite(value))
    return list(names)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _labels(runs: Sequence[Run]) -> list[str]:
    """The runs' names; whole paths where two have the same name."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _limit(runs: Sequence[Run]) -> float | None:
    """The norm at which all of them clip."""
    limits = [run.recipe["train"].get("clip_norm") for run in runs]
    limit = limits[0]
    return float(limit) if isinstance(limit, int | float) and len(set(limits)) == 1 else None


def _training(label: str, lines: Sequence[dict[str, Any]], metric: str, along: Along) -> Series | None:
    return _series(label, "training", [line for line in lines if line["kind"] == "train"], metric, _clock(lines, along))


def _validation(label: str, lines: Sequence[dict[str, Any]], metric: str, along: Along) -> Series | None:
    """Of the averaged weights where the run keeps them: those are what it ends with."""
    made = [line for line in lines if line["kind"] == "evaluation" and line.get("split") == "validation"]
    averaged = [line for line in made if line.get("weights") == "ema"]
    return _series(label, "validation", averaged or made, metric, _clock(lines, along))


def _clock(lines: Sequence[dict[str, Any]], along: Along) -> Callable[[dict[str, Any]], float]:
    """Where a line lies. An evaluation has no time of its own: it was made when its step was."""
    if along != "minutes":
        return lambda line: float(line.get(along, math.nan))
    timed = sorted((line["step"], line["seconds"]) for line in lines if _is_finite(line.get("seconds")))
    steps, times = np.array(timed or [(0, math.nan)], dtype=float).T
    return lambda line: float(np.interp(line["step"], steps, times)) / 60


def _series(
    label: str, part: Part, lines: Sequence[dict[str, Any]], metric: str, clock: Callable[[dict[str, Any]], float]
) -> Series | None:
    scale = 100.0 if _is_share(metric) else 1.0
    points = sorted((clock(line), scale * line[metric]) for line in lines if _is_finite(line.get(metric)))
    points = [(x, y) for x, y in points if math.isfinite(x)]
    if not points:
        return None
    x, y = zip(*points, strict=True)
    return Series(label, part, x, y)
