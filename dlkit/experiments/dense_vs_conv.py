"""C1 and C2: to a dense net a shifted image is a new one; a convolution is a dense layer that shares its weights."""

import math
from collections.abc import Callable
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import Field

from dlkit.experiments.finding import Finding, Verdict
from dlkit.experiments.training import fit, prepared
from dlkit.layers.initializers import initializer
from dlkit.probe.panels import Line, Lines
from dlkit.train.losses import softmax_cross_entropy
from dlkit.values import Count

SIDE = 8  # of a digit
CANVAS = 16  # it stands in the middle of so many pixels
FROM_MIDDLE = (CANVAS - SIDE) // 2


def dense_vs_conv(
    *,
    shifts: Annotated[list[Annotated[int, Field(ge=0, le=FROM_MIDDLE)]], Field(min_length=2)] = [0, 1, 2, 3, 4],  # noqa: B006
    steps: Count = 400,
    seeds: Count = 3,
    seed: Annotated[int, Field(ge=0)] = 0,
    shared: bool = True,
) -> Finding:
    """Weights of both, the dense matrix of a convolution, and what each net says of test digits that are moved.

    LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to document recognition, section 2. The conv
    net has three convolutions of 3x3 and the mean of each map before its last layer; the dense net has about as many
    weights. Both learn digits in the middle of a canvas.

    Args:
        shifts: by how many pixels digits of 8x8 are moved to the right; what is lost is lost from those in the middle,
            which are looked at in any case.
        steps: updates of Adam, each of 64 digits.
        seeds: nets of each kind; shown is the mean.
        seed: of the first.
        shared: whether weights are shared over all places; without, a second dense net stands in place of the conv
            net, each place of the dense matrix but the middle has kernels of its own, and both verdicts turn.
    """
    grid = sorted({0, *shifts})
    made = prepared("mlp", "digits", {"data.size": SIDE}, seed=seed)
    learned, tested = (
        made.task.batch(split, np.arange(made.task.size(split)), epoch=None) for split in ("train", "test")
    )
    kinds = {"dense": _dense, "conv": _conv} if shared else {"dense": _dense, "dense again": _dense}
    nets = {
        kind: [_trained(build, learned["images"], learned["labels"], steps, first + at) for at in range(seeds)]
        for first, (kind, build) in zip((seed, seed + seeds), kinds.items(), strict=True)
    }
    right = {
        kind: np.array([[_accuracy(net, tested["images"], tested["labels"], shift) for shift in grid] for net in each])
        for kind, each in nets.items()
    }
    mean = {kind: each.mean(0) for kind, each in right.items()}
    lost = {kind: float(each[0] - each[-1]) for kind, each in mean.items()}
    other = list(kinds)[1]
    error = float(_expansion_errors(seed, shared=shared).max())
    return Finding(
        columns=["net", "parameters", *(f"moved by {shift}" for shift in grid)],
        rows=[
            [kind, f"{nets[kind][0].count_params():,}", *(f"{100 * share:.1f} %" for share in each)]
            for kind, each in mean.items()
        ],
        right=["parameters", *(f"moved by {shift}" for shift in grid)],
        verdicts=[
            Verdict(
                "a convolution is a dense layer with shared weights and zeros outside of the field", error < 1e-5,
                f"largest difference from the product with the expanded matrix {error:.1e}",
            ),
            Verdict(
                f"moved by {grid[-1]} pixels the net that shares its weights and takes the mean of its maps loses at "
                "most a fifth of what the dense one loses",
                lost[other] <= lost["dense"] / 5 and lost["dense"] > 0,
                f"{100 * lost[other]:.1f} against {100 * lost['dense']:.1f} points of accuracy",
            ),
        ],
        charts=[
            Lines(
                "trained on digits in the middle", "test digits moved to the right, pixels", "accuracy, %",
                [
                    Line(kind, grid, (100 * mean[kind]).tolist(), low=(100 * each.min(0)).tolist(),
                         high=(100 * each.max(0)).tolist())
                    for kind, each in right.items()
                ],
            )
        ],
        records=[{"net": kind, "shift": grid, "accuracy": each.tolist()} for kind, each in mean.items()],
        notes=[
            f"64 features of a 128x128 colour image take {128 * 128 * 3 * 64:,} weights, 64 filters of 3x3 "
            f"{3 * 3 * 3 * 64:,}",
            f"mean of {seeds} nets of each kind; the band is from the worst to the best",
        ],
    )  # fmt: skip


def _dense() -> list[keras.layers.Layer]:
    return [
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu", kernel_initializer=initializer("he")),
        keras.layers.Dense(10, kernel_initializer=initializer("he")),
    ]


def _conv() -> list[keras.layers.Layer]:
    convolutions = [
        keras.layers.Conv2D(units, 3, padding="same", activation="relu", kernel_initializer=initializer("he"))
        for units in (16, 32, 32)
    ]
    head = keras.layers.Dense(10, kernel_initializer=initializer("he"))
    return [*convolutions, keras.layers.GlobalAveragePooling2D(), head]


def _trained(
    build: Callable[[], list[keras.layers.Layer]],
    images: NDArray[np.float32],
    labels: NDArray[np.int32],
    steps: int,
    seed: int,
) -> keras.Model:
    keras.utils.set_random_seed(seed)
    net = keras.Sequential([keras.Input((CANVAS, CANVAS, 1)), *build()])
    placed = tf.constant(on_canvas(images, 0))
    drawn = np.random.default_rng(seed).integers(0, len(images), (steps, 64))

    def loss(rows: tf.Tensor) -> tf.Tensor:
        logits = net(tf.gather(placed, rows), training=True)
        return tf.reduce_mean(softmax_cross_entropy(logits, tf.gather(labels, rows)))

    fit(net, loss, tf.constant(drawn, tf.int32), lr=5e-3)
    return net


def _accuracy(net: keras.Model, images: NDArray[np.float32], labels: NDArray[np.int32], shift: int) -> float:
    logits = net(on_canvas(images, shift)).numpy()
    return float(np.mean(np.argmax(logits, -1) == labels))


def on_canvas(images: NDArray[np.float32], shift: int) -> NDArray[np.float32]:
    """Digits (n, 8, 8, 1) so many pixels to the right of the middle of a canvas (n, 16, 16, 1) of their background."""
    left, top = FROM_MIDDLE + shift, FROM_MIDDLE
    canvas = np.full((len(images), CANVAS, CANVAS, 1), images.min(), np.float32)
    canvas[:, top : top + SIDE, left : left + SIDE] = images
    return canvas


def _expansion_errors(seed: int, *, shared: bool) -> NDArray[np.float64]:
    """How far a convolution is from the product with a dense matrix of its kernels at all places, entry by entry.

    If weights are not shared, the place in the middle keeps these kernels, and each other place has its own.

    Returns:
        (height, width, filters), of each output.
    """
    random = np.random.default_rng(seed)
    size, inputs, filters, kernel = 6, 2, 3, 3
    image = random.standard_normal((size, size, inputs))
    weights = random.standard_normal((kernel, kernel, inputs, filters))
    layer = keras.layers.Conv2D(filters, kernel, padding="same", use_bias=False, dtype="float64")
    layer.build((None, size, size, inputs))
    layer.kernel.assign(weights)
    at_places = np.broadcast_to(weights, (size, size, *weights.shape))
    if not shared:
        at_places = random.standard_normal(at_places.shape)
        at_places[size // 2, size // 2] = weights
    matrix = np.zeros((size, size, inputs, size, size, filters))
    for row, column, down, right in np.ndindex(size, size, kernel, kernel):
        seen_row, seen_column = row + down - kernel // 2, column + right - kernel // 2
        if 0 <= seen_row < size and 0 <= seen_column < size:
            matrix[seen_row, seen_column, :, row, column, :] = at_places[row, column, down, right]
    dense = image.ravel() @ matrix.reshape(math.prod(image.shape), -1)
    conv = layer(tf.constant(image[np.newaxis])).numpy()[0]
    return np.abs(dense.reshape(conv.shape) - conv)
