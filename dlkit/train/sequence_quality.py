"""How well numbers are told: errors with their intervals, by length, and whether one of two models is nearer."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlkit import metrics
from dlkit.tasks.sequences import Sequences

RANGES = 5  # of lengths
POINTS = 500  # pairs of a true and a told number that are drawn


def quality(task: Sequences, split: str, targets: NDArray, outputs: NDArray) -> dict[str, Any]:
    """All that there is to say of a split beside its loss.

    Args:
        task: opened on the data.
        split: the split's name.
        targets: (n, outputs), the right numbers in the order of the split; of labels whatever.
        outputs: (n, outputs), of the model for them.

    Returns:
        JSON values: "memoryless" (metric -> what the best model gets that remembers nothing, where it is known),
        "intervals", and of numbers what `numbers` says, with "mse_by_length" where lengths differ.
    """
    found: dict[str, Any] = {"memoryless": dict(task.data.memoryless), "intervals": {}}
    if task.labels_steps:
        return found
    found |= numbers(targets, outputs)
    if task.data.lengths_vary:
        lengths = task.data.splits[split].fetch(np.arange(task.size(split))).lengths
        found["mse_by_length"] = by_length(lengths, squared_errors(targets, outputs))
    return found


def squared_errors(targets: NDArray, outputs: NDArray) -> NDArray[np.float64]:
    """The squared error of each example, its mean over the outputs, (n,)."""
    return np.mean((outputs.astype(np.float64) - targets) ** 2, axis=1)


def numbers(targets: NDArray, outputs: NDArray) -> dict[str, Any]:
    """Figures of regression.

    Args:
        targets: (n, outputs).
        outputs: (n, outputs).

    Returns:
        "mae", the mean absolute error; "mean_mse", the mean squared error of always saying the mean of the targets;
        "r2", the share of it that is explained, 1 - mse / mean_mse, None where the targets are all the same; in
        "intervals" that of "mse", by the normal approximation; "points", up to 500 pairs of first outputs, true and
        told.
    """
    errors = squared_errors(targets, outputs)
    constant = float(np.mean(np.var(targets.astype(np.float64), axis=0)))
    mse = float(errors.mean())
    return {
        "mae": float(np.mean(np.abs(outputs.astype(np.float64) - targets))),
        "mean_mse": constant,
        "r2": 1 - mse / constant if constant > 0 else None,
        "intervals": {"mse": _interval(errors)},
        "points": np.stack([targets[:POINTS, 0], outputs[:POINTS, 0]], axis=1).astype(np.float64).tolist(),
    }


def _interval(values: NDArray[np.float64], *, least: float = 0.0) -> list[float]:
    """95 % interval of the mean; the mean itself where there is one value."""
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    off = metrics.normal_bound(0.95) * spread
    return [max(least, mean - off), mean + off]


def by_length(lengths: NDArray[np.int32], errors: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Records of "shortest", "longest", "examples" and "mse", for up to five ranges of lengths with as many examples.

    Examples of one length are never parted.
    """
    ends = -(-np.arange(1, RANGES + 1) * len(lengths) // RANGES)  # rounded up
    edges = np.unique(np.sort(lengths)[ends - 1])
    of_range = np.searchsorted(edges, lengths)
    return [
        {
            "shortest": int(lengths[here].min()), "longest": int(lengths[here].max()), "examples": int(here.sum()),
            "mse": float(errors[here].mean()),
        }
        for here in (of_range == at for at in range(len(edges)))
    ]  # fmt: skip


def paired_errors(targets: NDArray, first: NDArray, second: NDArray) -> dict[str, Any]:
    """Whether one of two models is nearer, from their squared errors on the same examples.

    Returns:
        JSON values: "difference" of the mean squared errors, first less second, its 95 % "interval" and the "p_value"
        of no difference, both by the normal approximation of paired differences; "better", 0 or 1 for the model that is
        significantly nearer at the level of 5 %, None when neither is.
    """
    differences = squared_errors(targets, first) - squared_errors(targets, second)
    difference = float(differences.mean())
    spread = float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    p_value = math.erfc(abs(difference) / spread / math.sqrt(2)) if spread > 0 else float(difference == 0)
    return {
        "measure": "mse", "difference": difference, "interval": _interval(differences, least=-math.inf),
        "p_value": p_value, "better": None if p_value >= metrics.SIGNIFICANT else int(difference > 0),
    }  # fmt: skip


def curve(records: list[dict[str, Any]], measure: str, weights: str) -> list[tuple[int, float]]:
    """The measure on the validation split over the steps, of the records that a run keeps."""
    chosen: Mapping[int, float] = {
        record["step"]: record[measure]
        for record in records
        if record["kind"] == "evaluation" and record.get("split") == "validation"
        and record.get("weights", "raw") == weights and record.get(measure) is not None
    }  # fmt: skip
    return sorted(chosen.items())
