"""Short trainings for experiments: dlkit's own data, models and updates, without a run folder."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import recipe
from dlkit.train import start
from dlkit.train.evaluation import Evaluation
from dlkit.train.loop import Progress, batches, rates
from dlkit.train.optimizers import Adam
from dlkit.train.start import Prepared

# What would blur a comparison unless an experiment is about it.
PLAIN: dict[str, Any] = {
    "train.schedule": "constant", "train.optimizer": "sgd", "train.weight_decay": 0.0,
    "train.clip_norm": "none", "train.ema": "none", "train.label_smoothing": 0.0, "train.precision": "float32",
}  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """What was measured in a training.

    Args:
        losses: (steps,) the loss of each batch before its update; infinity from the first that was not finite on.
        norms: (steps,) the norm of each gradient before clipping; likewise.
        accuracies: (steps,) the share of each batch that was right; nan where training broke off or has none.
    """

    losses: NDArray[np.float64]
    norms: NDArray[np.float64]
    accuracies: NDArray[np.float64]

    @property
    def is_finished(self) -> bool:
        """Whether training did not break off."""
        return bool(np.isfinite(self.losses).all())

    @property
    def last_loss(self) -> float:
        """Mean of the last tenth of the losses; infinite when training broke off."""
        return float(np.mean(self.losses[-self._tenth :]))

    @property
    def last_accuracy(self) -> float:
        """Mean of the last tenth of the accuracies; nan when training broke off."""
        return float(np.mean(self.accuracies[-self._tenth :]))

    @property
    def _tenth(self) -> int:
        return max(1, len(self.losses) // 10)


@dataclass(frozen=True)
class Trained(Curves):
    """A model after its training, with what was measured.

    Args:
        prepared: the model, its task and where it runs.
    """

    prepared: Prepared

    @property
    def curves(self) -> Curves:
        """What was measured alone, without a hold on model and data."""
        return Curves(self.losses, self.norms, self.accuracies)

    def evaluate(self, split: str) -> dict[str, float]:
        """Loss and metrics on a split."""
        prepared = self.prepared
        return Evaluation(prepared.task, prepared.model, prepared.devices, batch_size=256)(split, decode=False)


def prepared(model: str, data: str, options: Mapping[str, Any], *, seed: int, like: Prepared | None = None) -> Prepared:
    """Data and a fresh model, with `PLAIN` and the given keys of a recipe; shipped recipes have no say.

    Args:
        model: its name.
        data: the dataset's.
        options: keys of a recipe, such as "model.norm", above `PLAIN`.
        seed: of weights, order and dropout.
        like: what was prepared before from the same data, with the same options of the data: they are then neither
            opened nor decoded again.
    """
    flags = {**PLAIN, **options, "train.seed": seed}
    if flags["train.optimizer"] == "sgd":
        flags.setdefault("train.momentum", 0.0)
    resolved = recipe.resolve(model, data, flags=flags, shipped=False)
    if like is None:
        return start.prepare(resolved, alone=True)
    task = like.task.with_seed(seed).with_limit(resolved.train.limit)
    return start.build(resolved, task, like.devices, like.peers)


def train(
    model: str,
    data: str,
    options: Mapping[str, Any],
    *,
    steps: int,
    seed: int,
    like: Prepared | None = None,
    change: Callable[[Prepared], None] | None = None,
) -> Trained:
    """Trains a model for so many updates at the recipe's learning rates; ends early when it diverges.

    Args:
        model: as `prepared` takes them, and so `data`, `options`, `seed` and `like`.
        data: see there.
        options: see there.
        steps: updates.
        seed: see there.
        like: see there.
        change: is called with data and model before training.
    """
    made = prepared(model, data, options, seed=seed, like=like)
    if change:
        change(made)
    update = start.training_step(made)
    settings = made.recipe.train
    losses, norms, accuracies = np.full(steps, np.inf), np.full(steps, np.inf), np.full(steps, np.nan)
    rate = rates(settings, steps, width=None)
    drawn = batches(made.task, settings, Progress(), made.devices)
    for number in range(steps):
        batch = next(drawn)
        measured = update(batch.batch, step=number, lr=rate(number), begins=batch.position == 0)
        loss, norm = float(measured["loss"]) / float(measured["weight"]), float(measured["gradient_norm"])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            break
        losses[number], norms[number] = loss, norm
        if "accuracy/sum" in measured:
            accuracies[number] = float(measured["accuracy/sum"]) / float(measured["accuracy/weight"])
    return Trained(losses, norms, accuracies, made)


def fit(net: keras.Model, loss_of: Callable[[tf.Tensor], tf.Tensor], batches: tf.Tensor, *, lr: float) -> None:
    """Trains a net that an experiment makes itself, on data that are no dataset's, by Adam and all in one graph.

    `train` is for models and data that have a name. A loop on the host would take most of the time of nets so small.

    Args:
        net: a built model.
        loss_of: the loss of a batch, a scalar; it calls the net.
        batches: (updates, ...), what `loss_of` is given for each update.
        lr: the learning rate.
    """
    adam, weights = Adam(), [variable.value for variable in net.trainable_variables]
    slots = [{name: tf.Variable(tf.zeros_like(weight)) for name in adam.slots} for weight in weights]

    @tf.function
    def updates(batches: tf.Tensor) -> None:
        step, rate = tf.constant(0), tf.constant(lr, tf.float64)
        for batch in batches:
            step += 1
            with tf.GradientTape() as tape:
                loss = loss_of(batch)
            for weight, gradient, own in zip(weights, tape.gradient(loss, weights), slots, strict=True):
                adam.apply(gradient, weight, own, lr=rate, step=step, decay=False)

    updates(batches)
