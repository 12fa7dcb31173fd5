"""T6: dropout costs training error and buys test error; at test time the scale is made up for."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, NamedTuple

import numpy as np
import tensorflow as tf
from pydantic import Field

from dlkit.experiments.finding import Finding, Verdict, deviation
from dlkit.experiments.training import Trained, train
from dlkit.probe.panels import Line, Lines
from dlkit.values import Count, Rate

MASKS = 800


def dropout(
    *,
    images: Annotated[int, Field(ge=20, le=1293)] = 800,
    width: Count = 512,
    rate: Rate = 0.5,
    rescaled: bool = True,
    steps: Count = 800,
    seeds: Count = 5,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Finding:
    """A wide net on few digits of 8x8 pixels, with and without dropout.

    Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from overfitting, section 6.1; section 7.4:
    of very few images it makes nothing better, there are as many ways to learn them by heart with it.

    Args:
        images: digits to train on, so few that a net learns them by heart; with 200 the second verdict turns, too.
        width: units of the two hidden layers.
        rate: share that is dropped; with 0 the first two verdicts turn.
        rescaled: whether the units that are kept count as 1 / (1 - rate) where the scale is measured; without, the last
            verdict turns.
        steps: updates of Adam, each of 50 digits.
        seeds: trainings of each kind.
        seed: of the first.
    """
    rates = dict.fromkeys((0.0, rate))
    found = {p: [_trained(images, width, p, steps, seed + at) for at in range(seeds)] for p in rates}
    tested = {p: [_tested(run) for run in runs] for p, runs in found.items()}
    losses = {p: [test["loss"] for _, test in each] for p, each in tested.items()}
    right = {p: [test["accuracy"] for _, test in each] for p, each in tested.items()}
    gaps = {p: [test["loss"] - learned["loss"] for learned, test in each] for p, each in tested.items()}
    noise = {p: float(np.mean([run.losses[-steps // 4 :].mean() for run in runs])) for p, runs in found.items()}
    scale = _scale_of(found[rate][0], rate, rescaled)
    better = np.subtract(losses[0.0], losses[rate])  # of nets with the same seed
    error = deviation(better) / math.sqrt(seeds)
    return Finding(
        columns=["dropout", "training loss, units dropped", "test loss", "test accuracy", "gap of the losses"],
        rows=[
            [f"{p:g}", f"{noise[p]:.3f}", f"{np.mean(losses[p]):.3f}", f"{100 * np.mean(right[p]):.1f} %",
             f"{np.mean(gaps[p]):.3f}"]
            for p in found
        ],
        right=["training loss, units dropped", "test loss", "test accuracy", "gap of the losses"],
        verdicts=[
            Verdict(
                "dropout makes the training data harder to learn", 1.5 * noise[0.0] < noise[rate] < math.inf,
                f"loss in training {noise[rate]:.3g} against {noise[0.0]:.3g}",
            ),
            Verdict(
                "and the test loss lower, by more than two standard errors", bool(better.mean() > 2 * error),
                f"lower by {better.mean():.3f}, "
                + (f"standard error {error:.3f}, {seeds} pairs of nets" if seeds > 1 else "one seed has no spread"),
            ),
            Verdict(
                "at test time the scale is made up for: what a unit is given has the same mean with and without, "
                "within three standard errors", scale.is_one,
                f"with, the second layer is given {scale.mean:.4f} times as much, standard error {scale.error:.4f}, "
                f"{MASKS} masks",
            ),
        ],
        charts=[
            Lines(
                f"{images} digits, two layers of {width} units", "update", "training loss, nats",
                [
                    Line(f"dropout {p:g}", range(steps), np.mean([run.losses for run in runs], 0).tolist())
                    for p, runs in found.items()
                ], logarithmic=True,
            )
        ],
        records=[
            {"dropout": p, "test_loss": losses[p], "test_accuracy": right[p], "gap": gaps[p]} for p in found
        ],
        notes=[f"{images} digits, {seeds} nets of each kind"],
    )  # fmt: skip


def _trained(images: int, width: int, rate: float, steps: int, seed: int) -> Trained:
    options = {
        "model.hidden": [width, width], "model.dropout": rate, "train.optimizer": "adam", "train.lr": 1e-3,
        "train.batch_size": 50, "train.limit": images, "train.steps": steps, "data.size": 8,
    }  # fmt: skip
    return train("mlp", "digits", options, steps=steps, seed=seed)


def _tested(run: Trained) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and accuracy on the images that were trained on, and on all test digits."""
    task = run.prepared.task.with_limit(None)  # that of training is of training images alone
    unlimited = replace(run, prepared=replace(run.prepared, task=task))
    return run.evaluate("train"), unlimited.evaluate("test")


class Scale(NamedTuple):
    """How many times as large something is on average, and the standard error of that."""

    mean: float
    error: float

    @property
    def is_one(self) -> bool:
        """Whether it can be 1, and is known well enough to tell: within a tenth."""
        return abs(self.mean - 1) <= 3 * self.error < 0.1 or self == (1.0, 0.0)


def _scale_of(run: Trained, rate: float, rescaled: bool) -> Scale:
    """How many times as large the input of the second layer's units is with dropout as without."""
    if not rate:
        return Scale(1.0, 0.0)
    made = run.prepared
    images = made.task.batch("test", np.arange(50), epoch=None)["images"]
    first, second, drop = (made.model.get_layer(name) for name in ("dense1", "dense2", "dense_dropout1"))
    on = tf.nn.relu(first(tf.reshape(images, (len(images), -1))))
    kept = 1.0 if rescaled else 1.0 - rate
    return scale_between(lambda: kept * tf.matmul(drop(on, training=True), second.kernel), tf.matmul(on, second.kernel))


def scale_between(draw: Callable[[], tf.Tensor], plain: tf.Tensor) -> Scale:
    """The s for which s * plain is nearest to what is drawn, <draw, plain> / <plain, plain>, over many draws.

    The mean absolute difference would not do: of the noise of the draws alone it is sqrt(p / (1 - p) / draws).

    Args:
        draw: one draw, such as the output of a layer below a mask.
        plain: what they are compared with, of the same shape.
    """
    size = tf.reduce_sum(plain * plain)
    scales = np.array([float(tf.reduce_sum(draw() * plain) / size) for _ in range(MASKS)])
    return Scale(float(scales.mean()), deviation(scales) / math.sqrt(MASKS))
