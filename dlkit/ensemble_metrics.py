"""What several models say together: averaged, or by a vote; and how much they differ. Pure NumPy.

M is the number of members, n the number of answers and K the number of classes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Vote(NamedTuple):
    """The classes that most members name, (n,), and where more than one class had the most votes, (n,)."""

    classes: NDArray[np.int64]
    tied: NDArray[np.bool_]


def majority_vote(classes: ArrayLike, probabilities: ArrayLike) -> Vote:
    """The class that most members name. Of several with as many votes the one with the highest averaged probability.

    Of equal probabilities the smaller class, as in argmax. With two members every difference is a tie, which the
    averaged probabilities settle among the two answers.

    Args:
        classes: (M, n), what each member names.
        probabilities: (n, K), averaged over the members.

    Example:
        >>> majority_vote([[0], [1], [2]], [[0.2, 0.3, 0.5]])
        Vote(classes=array([2]), tied=array([ True]))
    """
    named, mean = np.asarray(classes, np.int64), np.asarray(probabilities, np.float64)
    votes = np.zeros(mean.shape, np.int64)  # (n, K)
    for member in named:
        votes[np.arange(len(member)), member] += 1
    most = votes == votes.max(axis=1, keepdims=True)
    return Vote(np.argmax(np.where(most, mean, -np.inf), axis=1), np.count_nonzero(most, axis=1) > 1)


def disagreements(classes: ArrayLike) -> NDArray[np.float64]:
    """The share of answers in which each two members differ, (M, M): 0 on the diagonal.

    Args:
        classes: (M, n), what each member names.

    Example:
        >>> disagreements([[0, 1, 2, 2], [0, 1, 0, 1]])
        array([[0. , 0.5],
               [0.5, 0. ]])
    """
    named = np.asarray(classes)
    return np.array([[np.mean(one != other) for other in named] for one in named])


def mean_of_pairs(matrix: ArrayLike) -> float:
    """The mean of a symmetric (M, M) matrix over its M (M - 1) / 2 pairs of different members."""
    square = np.asarray(matrix, np.float64)
    return float(square[np.triu_indices(len(square), k=1)].mean())


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The mean of -log p of the right class, in nats; infinite where a right class has no probability.

    Args:
        probabilities: (n, K).
        labels: (n,).
    """
    right = np.take_along_axis(np.asarray(probabilities, np.float64), np.asarray(labels)[:, np.newaxis], axis=1)
    with np.errstate(divide="ignore"):
        return float(-np.log(right).mean())


class Ambiguity(NamedTuple):
    """The error of a mean of M predictions and what it is made of, `error = mean_error - spread`."""

    error: float
    mean_error: float
    spread: float


def ambiguity(predictions: ArrayLike, targets: ArrayLike) -> Ambiguity:
    """Why averaging numbers helps: E(mean) = mean E - mean (f_m - f)^2 (Krogh and Vedelsby 1995, equation 6).

    So the mean of the members is never worse than they are on average, and better by as much as they differ.

    Args:
        predictions: (M, n, outputs), what each member says.
        targets: (n, outputs).

    Returns:
        The mean squared error of the mean; the members' on average; the mean squared distance of members to the mean.
    """
    outputs, wanted = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    mean = outputs.mean(axis=0)
    return Ambiguity(
        float(np.square(mean - wanted).mean()), float(np.square(outputs - wanted).mean()),
        float(np.square(outputs - mean).mean()),
    )  # fmt: skip
