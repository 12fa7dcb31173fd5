"""Short trainings for experiments: dlkit's own data, models and updates, without a run folder."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlkit import recipe
from dlkit.train import start
from dlkit.train.evaluation import Evaluation
from dlkit.train.loop import Progress, batches, rates
from dlkit.train.start import Prepared

# What would blur a comparison unless an experiment is about it.
PLAIN: dict[str, Any] = {
    "train.schedule": "constant", "train.optimizer": "sgd", "train.momentum": 0.0, "train.weight_decay": 0.0,
    "train.clip_norm": "none", "train.ema": "none", "train.label_smoothing": 0.0, "train.precision": "float32",
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A model after its training.

    Args:
        prepared: the model, its task and where it runs.
        losses: (steps,) the loss of each batch before its update; infinity from the first that was not finite on.
        norms: (steps,) the norm of each gradient before clipping; likewise.
        accuracies: (steps,) the share of each batch that was right; zero where training broke off or has none.
    """

    prepared: Prepared
    losses: NDArray[np.float64]
    norms: NDArray[np.float64]
    accuracies: NDArray[np.float64]

    @property
    def last_loss(self) -> float:
        """Mean of the last tenth of the losses."""
        return float(np.mean(self.losses[-self._tenth :]))

    @property
    def last_accuracy(self) -> float:
        """Mean of the last tenth of the accuracies."""
        return float(np.mean(self.accuracies[-self._tenth :]))

    @property
    def _tenth(self) -> int:
        return max(1, len(self.losses) // 10)

    def evaluate(self, split: str) -> dict[str, float]:
        """Loss and metrics on a split."""
        prepared = self.prepared
        return Evaluation(prepared.task, prepared.model, prepared.devices, batch_size=256)(split, decode=False)


def prepared(model: str, data: str, options: Mapping[str, Any], *, seed: int) -> Prepared:
    """Data and a fresh model, with `PLAIN` and the given keys of a recipe; shipped recipes have no say."""
    flags = {**PLAIN, **options, "train.seed": seed}
    if flags["train.optimizer"] != "sgd":
        del flags["train.momentum"]
    return start.prepare(recipe.resolve(model, data, flags=flags, shipped=False))


def train(
    model: str,
    data: str,
    options: Mapping[str, Any],
    *,
    steps: int,
    seed: int,
    watch: Callable[[int, Prepared], None] | None = None,
    change: Callable[[Prepared], None] | None = None,
) -> Trained:
    """Trains a model for so many updates at the recipe's learning rates; ends early when it diverges.

    Args:
        model: its name.
        data: the dataset's.
        options: keys of a recipe, such as "model.norm", above `PLAIN`.
        steps: updates.
        seed: of weights, order and dropout.
        watch: is called before each update with its number.
        change: is called with data and model before training.
    """
    made = prepared(model, data, options, seed=seed)
    if change:
        change(made)
    update = start.training_step(made)
    settings = made.recipe.train
    losses, norms, accuracies = np.full(steps, np.inf), np.full(steps, np.inf), np.zeros(steps)
    rate = rates(settings, steps, width=None)
    drawn = batches(made.task, settings, Progress(), made.devices)
    for number in range(steps):
        if watch:
            watch(number, made)
        batch = next(drawn)
        measured = update(batch.batch, step=number, lr=rate(number), begins=batch.position == 0)
        loss, norm = float(measured["loss"]) / float(measured["weight"]), float(measured["gradient_norm"])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            break
        losses[number], norms[number] = loss, norm
        if "accuracy/sum" in measured:
            accuracies[number] = float(measured["accuracy/sum"]) / float(measured["accuracy/weight"])
    return Trained(made, losses, norms, accuracies)
