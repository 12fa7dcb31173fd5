"""C1 and C2: to a dense net a shifted image is a new one; a convolution is a dense layer that shares its weights."""

import math
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import Field

from dlkit.experiments.finding import Chart, Finding, Line, Verdict
from dlkit.experiments.training import Trained, train

Count = Annotated[int, Field(ge=1)]


def dense_vs_conv(
    *,
    shifts: Annotated[list[Annotated[int, Field(ge=0, le=16)]], Field(min_length=2)] = [0, 1, 2, 3, 4, 6],  # noqa: B006
    steps: Count = 300,
    seeds: Count = 3,
    seed: Annotated[int, Field(ge=0)] = 0,
    conv: str = "lenet",
    dense: str = "mlp",
) -> Finding:
    """Weights of both, the dense matrix of a convolution, and what each net says of test digits that are moved.

    LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to document recognition, section 2.

    Args:
        shifts: by how many of 32 pixels the digits are moved to the right.
        steps: updates of Adam, each of 64 digits.
        seeds: nets of each kind; shown is the mean.
        seed: of the first.
        conv: the net that is to tolerate shifts; with `mlp` the verdict turns.
        dense: the one that is not to.
    """
    found = {
        kind: [_trained(net, steps, seed + at) for at in range(seeds)] for kind, net in _kinds(conv, dense).items()
    }
    right = {kind: np.array([_accuracies(run, shifts) for run in runs]) for kind, runs in found.items()}
    mean = {kind: each.mean(0) for kind, each in right.items()}
    lost = {kind: float(each[0] - each[-1]) for kind, each in mean.items()}
    halfway = len(shifts) // 2
    at_half = {kind: float(each[0] - each[halfway]) for kind, each in mean.items()}
    error = _expansion_error(seed)
    of_dense, of_filters = 128 * 128 * 3 * 64, 3 * 3 * 3 * 64
    return Finding(
        columns=["net", "parameters", *(f"moved by {shift}" for shift in shifts)],
        rows=[
            [kind, f"{found[kind][0].prepared.model.count_params():,}", *(f"{100 * share:.1f} %" for share in each)]
            for kind, each in mean.items()
        ],
        right=["parameters", *(f"moved by {shift}" for shift in shifts)],
        verdicts=[
            Verdict(
                "64 features of a 128x128 colour image take 1,820 times as many weights as 64 filters of 3x3",
                of_dense == 3_145_728 and of_filters == 1_728, f"{of_dense:,} against {of_filters:,}",
            ),
            Verdict(
                "a convolution is a dense layer with shared weights and zeros outside of the field", error < 1e-5,
                f"largest difference from the product with the expanded matrix {error:.1e}",
            ),
            Verdict(
                f"moved by {shifts[halfway]} pixels the conv net loses at most half of what the dense one loses",
                at_half["conv"] <= at_half["dense"] / 2 and at_half["dense"] > 0,
                f"{100 * at_half['conv']:.1f} against {100 * at_half['dense']:.1f} points of accuracy; by {shifts[-1]} "
                f"pixels {100 * lost['conv']:.1f} against {100 * lost['dense']:.1f}",
            ),
        ],
        charts=[
            Chart(
                "trained on digits in their place", "test digits moved to the right, pixels of 32", "accuracy, %",
                [
                    Line(f"{kind} ({net})", list(shifts), (100 * mean[kind]).tolist(),
                         (100 * right[kind].min(0)).tolist(), (100 * right[kind].max(0)).tolist())
                    for kind, net in _kinds(conv, dense).items()
                ],
            )
        ],
        records=[{"net": kind, "shift": list(shifts), "accuracy": each.tolist()} for kind, each in mean.items()],
        notes=[f"mean of {seeds} nets of each kind; the band is from the worst to the best"],
    )  # fmt: skip


def _kinds(conv: str, dense: str) -> dict[str, str]:
    return {"dense": dense, "conv": conv}


def _trained(net: str, steps: int, seed: int) -> Trained:
    options = {"train.optimizer": "adam", "train.lr": 2e-3, "train.batch_size": 64, "train.steps": steps}
    return train(net, "digits", options, steps=steps, seed=seed)


def _accuracies(run: Trained, shifts: list[int]) -> list[float]:
    made = run.prepared
    batch = made.task.batch("test", np.arange(made.task.size("test")), epoch=None)
    found = []
    for shift in shifts:
        logits = made.model.predict_on_batch(moved(batch["images"], shift))
        found.append(float(np.mean(np.argmax(logits, -1) == batch["labels"])))
    return found


def moved(images: NDArray[np.float32], shift: int) -> NDArray[np.float32]:
    """Images (n, height, width, channels) moved to the right; their left edge is drawn out."""
    if not shift:
        return images
    return np.pad(images, ((0, 0), (0, 0), (shift, 0), (0, 0)), mode="edge")[:, :, : images.shape[2]]


def _expansion_error(seed: int) -> float:
    """How far a convolution is from the product with its dense matrix, entry by entry."""
    random = np.random.default_rng(seed)
    size, inputs, filters, kernel = 6, 2, 3, 3
    image = random.standard_normal((size, size, inputs))
    weights = random.standard_normal((kernel, kernel, inputs, filters))
    layer = keras.layers.Conv2D(filters, kernel, padding="same", use_bias=False, dtype="float64")
    layer.build((None, size, size, inputs))
    layer.kernel.assign(weights)
    matrix = np.zeros((size, size, inputs, size, size, filters))
    for row, column, down, right in np.ndindex(size, size, kernel, kernel):
        seen_row, seen_column = row + down - kernel // 2, column + right - kernel // 2
        if 0 <= seen_row < size and 0 <= seen_column < size:
            matrix[seen_row, seen_column, :, row, column, :] = weights[down, right]
    dense = image.ravel() @ matrix.reshape(math.prod(image.shape), -1)
    conv = layer(tf.constant(image[np.newaxis])).numpy().ravel()
    return float(np.abs(dense - conv).max())
