"""Sequences of numbers: a number told at the end of each (regression), or a label at each step (classification)."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit.data import sequences
from dlkit.data.batching import ROW_WEIGHTS, Batch, in_batches
from dlkit.errors import UsageError
from dlkit.recipe import TrainSection
from dlkit.tasks import TASKS
from dlkit.tasks.task import Judged, Sums, Task
from dlkit.train.losses import softmax_cross_entropy


class Sequences(Task):
    """See the module.

    Of numbers `loss` is the mean squared error in standardized units, so that data of any scale train alike, and `mse`
    that of the numbers as they are. Of labels `loss` and `accuracy` are per step; `recalled` is the accuracy over the
    steps whose label is not the blank; `exact` counts the sequences in which every label is right.
    """

    about = TASKS["sequences"]
    unit = "seq"

    @cached_property
    def data(self) -> sequences.SequenceData:
        """The dataset, loaded when first needed."""
        loaded = datasets.load_kind(self.options["name"], "sequences", **self.dataset_options())
        if self.stored:
            self._check_like_run(loaded)
        return loaded

    def _check_like_run(self, data: sequences.SequenceData) -> None:
        """Raises a UsageError when the run takes other inputs or tells something else."""
        assert self.stored is not None
        for key, found in (("features", data.features), ("outputs", data.outputs), ("classes", data.classes)):
            if found != self.stored[key]:
                raise UsageError(
                    f"{data.name} has other {key} than the run was trained on: {found}, not {self.stored[key]}",
                    "evaluate on data of the same form",
                )

    @cached_property
    def info(self) -> dict[str, Any]:
        """Features, what is told, and what inputs and outputs are standardized with, from the training split."""
        if self.stored is not None:
            return dict(self.stored)
        found = sequences.statistics(self.data)
        return {
            "features": self.data.features, "outputs": self.data.outputs, "classes": self.data.classes,
            **{name: values.tolist() for name, values in found._asdict().items()},
        }  # fmt: skip

    @property
    def labels_steps(self) -> bool:
        """Whether each step has a label, rather than the end some numbers."""
        return bool(self.info["classes"])

    def fingerprint(self) -> str:
        """sha256 of what stands for the training sequences."""
        return self.data.fingerprint()

    def tested_on(self, split: str) -> tuple[str, str]:
        """The sequences, as their sha256."""
        digest = hashlib.sha256()
        for rows in in_batches(np.arange(self.size(split)), 1024):
            for array in self.data.splits[split].fetch(rows):
                digest.update(f"{array.shape}".encode() + array.tobytes())
        return "sequences", digest.hexdigest()

    def model_arguments(self) -> dict[str, Any]:
        """Sizes of input and output, and where the output is told."""
        told = len(self.info["classes"]) or self.info["outputs"]
        return {"features": self.info["features"], "outputs": told, "every_step": self.labels_steps}

    def example_inputs(self) -> Any:
        """A sequence of the greatest length."""
        return keras.KerasTensor((1, self.data.longest, self.info["features"]), "float32")

    def describe(self) -> str:
        """Sizes, lengths and what is told."""
        sizes = ", ".join(f"{self.size(split):,} {split}" for split in self.splits)
        steps = f"{'up to ' * self.data.lengths_vary}{self.data.longest} steps of {self.info['features']} numbers"
        if self.labels_steps:
            return f"{self.options['name']}: {sizes}, {steps}; one of {len(self.info['classes'])} labels at each"
        mean, std = (" ".join(f"{x:.3g}" for x in self.info[key]) for key in ("output_mean", "output_std"))
        return f"{self.options['name']}: {sizes}, {steps}; outputs standardized with mean {mean}, sd {std}"

    def remarks(self) -> list[str]:
        """What a model gets that remembers nothing."""
        told = ", ".join(f"{name} {value:.4f}" for name, value in self.data.memoryless.items())
        return [f"who remembers nothing gets {told}"] if told else []

    def check_settings(self, settings: TrainSection) -> None:
        """Whether there are labels to be smoothed, where that is asked for.

        Raises:
            dlkit.errors.UsageError: there are numbers instead.
        """
        if settings.label_smoothing and not self.data.classes:
            raise UsageError(f"train.label_smoothing is for classes, and {self.data.name} has numbers", "leave it out")

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`inputs` (n, time, features) float32, standardized, and `targets`, numbers as they are, or `labels`.

        Numbers are (n, outputs) float32, labels (n, time) int32. `lengths` (n,) int32 are there where sequences differ
        in them.
        """
        examples, info = self.data.splits[split].fetch(indices), self.info
        inputs = (examples.inputs - np.float32(info["mean"])) / np.float32(info["std"])
        batch: Batch = {"inputs": inputs}
        if self.data.lengths_vary:
            real = np.arange(inputs.shape[1]) < examples.lengths[:, np.newaxis]
            batch |= {"inputs": inputs * real[..., np.newaxis], "lengths": examples.lengths}
        if self.labels_steps:
            return batch | {"labels": examples.targets}
        return batch | {"targets": examples.targets}

    def without_padding(self, batch: Batch) -> Batch:
        """Cut to its own length, of at least one step, where sequences differ in that."""
        if "lengths" not in batch:
            return dict(batch)
        length = max(1, int(batch["lengths"][0]))
        return {name: array[:, :length] if name in {"inputs", "labels"} else array for name, array in batch.items()}

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Squared errors summed over sequences, or cross-entropy summed over steps."""
        outputs = model(batch["inputs"], batch.get("lengths"), training=training)
        if self.labels_steps:
            return step_sums(outputs, batch, blank=self.data.blank, smoothing=smoothing)
        mean, std = (tf.constant(self.info[key], outputs.dtype) for key in ("output_mean", "output_std"))
        errors = outputs - (tf.cast(batch["targets"], outputs.dtype) - mean) / std  # (rows, outputs), standardized
        rows = _row_weights(batch, errors)
        losses = tf.reduce_mean(errors**2, axis=-1)
        squares = tf.reduce_mean((errors * std) ** 2, axis=-1)
        weight = tf.reduce_sum(rows)
        return Sums(tf.reduce_sum(losses * rows), weight, {"mse": (tf.reduce_sum(squares * rows), weight)}, outputs)

    def judged(self, batch: Batch, outputs: NDArray) -> Judged:
        """Labels and logits of the steps that are no padding; or numbers and the outputs for them, in their units."""
        if self.labels_steps:
            return judged_steps(batch, outputs)
        mean, std = (np.array(self.info[key]) for key in ("output_mean", "output_std"))
        return Judged(batch["targets"], outputs * std + mean)


def _row_weights(batch: Mapping[str, tf.Tensor], like: tf.Tensor) -> tf.Tensor:
    """(rows,): 0 for rows that were padded."""
    if ROW_WEIGHTS in batch:
        return tf.cast(batch[ROW_WEIGHTS], like.dtype)
    return tf.ones(tf.shape(like)[:1], like.dtype)


def step_sums(logits: tf.Tensor, batch: Mapping[str, tf.Tensor], *, blank: int | None, smoothing: float) -> Sums:
    """Cross-entropy and hits, summed over the steps that are no padding.

    Args:
        logits: (rows, time, classes).
        batch: `labels` (rows, time), and of rows that are padded `lengths` and `row_weights`.
        blank: the label that nothing is to be recalled for; None when all are.
        smoothing: label smoothing of the loss.
    """
    labels = batch["labels"]
    losses = softmax_cross_entropy(logits, labels, label_smoothing=smoothing)  # (rows, time)
    rows = _row_weights(batch, losses)
    real = tf.ones_like(losses)
    if "lengths" in batch:
        real = tf.sequence_mask(batch["lengths"], tf.shape(labels)[1], losses.dtype)
    real *= rows[:, tf.newaxis]
    hits = tf.cast(tf.argmax(logits, axis=-1, output_type=labels.dtype) == labels, losses.dtype)
    weight = tf.reduce_sum(real)
    all_right = tf.cast(tf.reduce_sum((1 - hits) * real, axis=-1) == 0, losses.dtype) * rows
    metrics = {
        "accuracy": (tf.reduce_sum(hits * real), weight), "exact": (tf.reduce_sum(all_right), tf.reduce_sum(rows))
    }  # fmt: skip
    if blank is not None:
        asked = real * tf.cast(labels != blank, losses.dtype)
        metrics["recalled"] = (tf.reduce_sum(hits * asked), tf.reduce_sum(asked))
    return Sums(tf.reduce_sum(losses * real), weight, metrics, logits)


def judged_steps(batch: Batch, logits: NDArray) -> Judged:
    """Labels and logits of the steps that are no padding, and the row that each step is of."""
    real: NDArray[np.bool_] = np.ones(batch["labels"].shape, bool)
    if "lengths" in batch:
        real = np.arange(batch["labels"].shape[1]) < batch["lengths"][:, np.newaxis]
    rows: NDArray[np.int64] = np.argwhere(real)[:, 0]
    return Judged(batch["labels"][real], logits[real], rows)
