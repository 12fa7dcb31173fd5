"""T6: dropout costs training error and buys validation error; at test time the scale is made up for."""

from typing import Annotated

import numpy as np
import tensorflow as tf
from pydantic import Field

from dlkit.experiments.finding import Chart, Finding, Line, Verdict
from dlkit.experiments.training import Trained, train

Count = Annotated[int, Field(ge=1)]

MASKS = 800


def dropout(
    *,
    images: Annotated[int, Field(ge=20, le=1293)] = 200,
    width: Count = 512,
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    steps: Count = 400,
    seeds: Count = 5,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Finding:
    """A wide net on few digits, with and without dropout.

    Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from overfitting, section 6.1.

    Args:
        images: digits to train on, so few that a net learns them by heart.
        width: units of the two hidden layers.
        rate: share that is dropped; with 0 the verdicts turn.
        steps: updates of Adam, each of 50 digits.
        seeds: trainings of each kind.
        seed: of the first.
    """
    found = {p: [_trained(images, width, p, steps, seed + at) for at in range(seeds)] for p in (0.0, rate)}
    tested = {p: [_tested(run) for run in runs] for p, runs in found.items()}
    losses = {p: [test["loss"] for _, test in each] for p, each in tested.items()}
    right = {p: [test["accuracy"] for _, test in each] for p, each in tested.items()}
    gaps = {p: [test["loss"] - learned["loss"] for learned, test in each] for p, each in tested.items()}
    noise = {p: float(np.mean([run.losses[-steps // 4 :].mean() for run in runs])) for p, runs in found.items()}
    drift = _drift(found[rate][0], rate)
    better = np.subtract(losses[0.0], losses[rate])  # of nets with the same seed
    error = float(better.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else 0.0
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
                "dropout makes the training data harder to learn", noise[rate] > 1.5 * noise[0.0],
                f"loss in training {noise[rate]:.3g} against {noise[0.0]:.3g}",
            ),
            Verdict(
                "and the test loss lower, by more than two standard errors", bool(better.mean() > 2 * error),
                f"lower by {better.mean():.3f}, standard error {error:.3f}, {seeds} pairs of nets",
            ),
            Verdict(
                "at test time the scale is made up for: what a unit is given has the same mean with and without",
                drift < 0.05, f"means of the second layer differ by {drift:.2%} of their size",
            ),
        ],
        charts=[
            Chart(
                f"{images} digits, two layers of {width} units", "update", "training loss, nats",
                [
                    Line(f"dropout {p:g}", range(steps), np.mean([run.losses for run in runs], 0).tolist())
                    for p, runs in found.items()
                ], log_y=True,
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
        "train.batch_size": 50, "train.limit": images, "train.steps": steps,
    }  # fmt: skip
    return train("mlp", "digits", options, steps=steps, seed=seed)


def _tested(run: Trained) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and accuracy on the images that were trained on, and on all test digits."""
    learned = run.evaluate("train")
    run.prepared.task.limit = None
    return learned, run.evaluate("test")


def _drift(run: Trained, rate: float) -> float:
    """How far the mean input of the second layer's units is, averaged over many masks, from that without dropout."""
    if not rate:
        return 0.0
    made = run.prepared
    images = made.task.batch("test", np.arange(50), epoch=None)["images"]
    first, second, drop = (made.model.get_layer(name) for name in ("dense1", "dense2", "dense_dropout1"))
    on = tf.nn.relu(first(tf.reshape(images, (len(images), -1))))
    plain = tf.matmul(on, second.kernel)
    dropped = tf.add_n([tf.matmul(drop(on, training=True), second.kernel) for _ in range(MASKS)]) / MASKS
    return float(tf.reduce_mean(tf.abs(dropped - plain)) / tf.reduce_mean(tf.abs(plain)))
