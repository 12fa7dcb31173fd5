"""How good a classifier is: class by class, how sure it is, and what it takes for what."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlkit import metrics
from dlkit.train.evaluation import Outputs

MOST_CONFUSED = 5


def quality(outputs: Outputs, classes: Sequence[str]) -> dict[str, Any]:
    """All that there is to say of a classifier on a split, beside its loss and accuracy.

    Args:
        outputs: for each example.
        classes: the names of the classes.

    Returns:
        JSON values: "top_5" (with more than 5 classes) and its interval in "intervals", "macro_f1", "brier", "ece",
        "reliability" (one record a bin), "classes" (one record a class), "confusion" (a row for each true class) and
        "most_confused" (the commonest mistakes).
    """
    labels, logits = outputs.labels, outputs.logits
    probabilities, predicted = metrics.softmax(logits), np.argmax(logits, axis=1)
    confusion = metrics.confusion_matrix(labels, predicted, len(classes))
    bins = metrics.reliability(probabilities.max(axis=1), outputs.right)
    edges = np.arange(len(bins.examples) + 1) / len(bins.examples)  # of the bins, from 0 to 1
    found: dict[str, Any] = {"intervals": {}}
    if len(classes) > 5:
        hits = int(metrics.top_k_hits(logits, labels, 5).sum())
        found |= {"top_5": hits / len(labels), "intervals": {"top_5": metrics.wilson_interval(hits, len(labels))}}
    return found | {
        "macro_f1": metrics.macro_f1(confusion),
        "brier": metrics.brier_score(probabilities, labels),
        "ece": metrics.expected_calibration_error(bins),
        "reliability": [
            {"above": low, "up_to": high, **record}
            for (low, high), record in zip(pairwise(edges.tolist()), _records(bins._asdict()), strict=True)
        ],
        "classes": _records({"class": np.array(classes, object), **metrics.by_class(confusion)._asdict()}),
        "confusion": confusion.tolist(),
        "most_confused": [
            {
                "class": classes[true],
                "predicted": classes[wrong],
                "count": count,
                "share": count / confusion[true].sum(),
            }
            for true, wrong, count in metrics.most_confused(confusion, MOST_CONFUSED)
        ],
    }


def _records(columns: Mapping[str, NDArray]) -> list[dict[str, Any]]:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
