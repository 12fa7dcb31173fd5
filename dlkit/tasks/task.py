"""What the trainer knows of a task: batches, a loss as sums, metrics as sums, and how a model is evaluated."""

import copy
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import console
from dlkit.data.batching import ROW_WEIGHTS, Batch, in_batches, shuffled
from dlkit.data.resampling import Resampling
from dlkit.data.split_names import check_split
from dlkit.data.tokenizer import PAD, Tokenizer
from dlkit.recipe import TrainSection
from dlkit.tasks import TASKS, TaskInfo
from dlkit.train.losses import softmax_cross_entropy


@dataclass(frozen=True)
class Sums:
    """What one call of the model adds up to. Sums and weights over devices and micro-batches add; means would not.

    Args:
        loss: scalar, summed over examples or tokens.
        weight: scalar, the number of examples or tokens behind it.
        metrics: metric name -> (sum, weight), scalars.
        logits: (rows, ...), of each row; None where no evaluation looks at single rows.
        carry: what the next batch is given of this one, tensors with a row for each row; see `Task.first_carry`.
    """

    loss: tf.Tensor
    weight: tf.Tensor
    metrics: dict[str, tuple[tf.Tensor, tf.Tensor]] = field(default_factory=dict)
    logits: tf.Tensor | None = None
    carry: dict[str, tf.Tensor] = field(default_factory=dict)


def token_sums(
    logits: tf.Tensor, targets: tf.Tensor, batch: Mapping[str, tf.Tensor], *, smoothing: float = 0.0, hits: bool = True
) -> Sums:
    """Cross-entropy and hits, summed over tokens that are not padding, the end token included.

    Args:
        logits: (rows, time, vocabulary).
        targets: (rows, time), ids padded with 0.
        batch: with `row_weights` (rows,) when rows are padded.
        smoothing: label smoothing of the loss.
        hits: whether they are counted, as `accuracy`, which takes another pass over the logits.
    """
    losses = softmax_cross_entropy(logits, targets, label_smoothing=smoothing)  # (rows, time)
    weights = tf.cast(targets != PAD, losses.dtype)
    if ROW_WEIGHTS in batch:
        weights *= tf.cast(batch[ROW_WEIGHTS], losses.dtype)[:, tf.newaxis]
    weight = tf.reduce_sum(weights)
    metrics: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}
    if hits:
        right = tf.cast(tf.argmax(logits, axis=-1, output_type=targets.dtype) == targets, losses.dtype)
        metrics["accuracy"] = (tf.reduce_sum(right * weights), weight)
    return Sums(tf.reduce_sum(losses * weights), weight, metrics)


class Judged(NamedTuple):
    """What evaluation looks at one by one: a row for each thing that a model says something of.

    Args:
        labels: (n,), the right classes; or (n, outputs), the right numbers.
        outputs: (n, classes), logits; or (n, outputs), numbers.
        rows: (n,), the example of the batch that each is of; None when each example is one.
    """

    labels: NDArray
    outputs: NDArray
    rows: NDArray[np.int64] | None = None


class Task(ABC):
    """One kind of work, from a dataset to its metrics.

    Args:
        data: the recipe's [data] section.
        seed: the run's seed.
        limit: use no more than this many examples of each split.
        info: what an earlier run stored of its data (`Task.info`): statistics, labels, vocabularies. Without it they
            come from the training split.
        folder: the run folder that keeps the task's files, such as a tokenizer; None when there is no run yet.
        max_len: most tokens of what the model generates, of the recipe's [decode] section.
        batch_tokens: most tokens of a training batch, where a task makes its batches by tokens; None for so many
            examples.
        resampling: which of the training examples are trained on, when not all of them once an epoch.
    """

    about: TaskInfo  # its line of the table
    unit = "examples"
    # Arrays of ids in a batch that have a column for each step and are padded together, as the first of them is.
    padded_together: tuple[tuple[str, ...], ...] = ()
    # Whether batches come in many shapes: then one graph is traced for all of them, instead of one for each.
    shapes_vary = False
    _told: frozenset[str] = frozenset()
    # What is computed once for all copies of a task: it follows from the dataset and the run alone.
    _shared: frozenset[str] = frozenset({"data", "info", "tokenizer", "tokenizers"})

    def __init__(
        self,
        data: Mapping[str, Any],
        *,
        seed: int = 0,
        limit: int | None = None,
        info: Mapping[str, Any] | None = None,
        folder: Path | None = None,
        max_len: int = 100,
        batch_tokens: int | None = None,
        resampling: Resampling | None = None,
    ) -> None:
        self.options = dict(data)
        self.seed = seed
        self.limit = limit
        self.folder = folder
        self.stored = info
        self.max_len = max_len
        self.batch_tokens = batch_tokens
        self.resampling = resampling

    def with_seed(self, seed: int) -> Self:
        """The same task with the data that it has loaded, as a run with another seed sees it."""
        task = self._copy()
        task.seed = seed
        task.resampling = replace(self.resampling, seed=seed) if self.resampling else None
        return task

    def with_limit(self, limit: int | None) -> Self:
        """The same task with the data that it has loaded, of which it uses so many examples; None for all."""
        task = self._copy()
        task.limit = limit
        return task

    def _copy(self) -> Self:
        """A copy to change something of, since others may have this task; what could follow from it is found anew."""
        task = copy.copy(self)
        for kind in type(self).__mro__:
            for name, value in vars(kind).items():
                if isinstance(value, cached_property) and name not in self._shared:
                    task.__dict__.pop(name, None)
        return task

    @property
    @abstractmethod
    def info(self) -> dict[str, Any]:
        """JSON values that a run stores of its data, enough to use the model without the dataset."""

    @property
    @abstractmethod
    def data(self) -> Any:
        """The dataset: what has `splits`, a dict of things with a length. Loaded when first needed."""

    def obtain(self) -> None:
        """Makes sure that the data are on this machine; of several processes, one is to do it before the others."""
        _ = self.data

    @property
    def splits(self) -> list[str]:
        """The names of the splits."""
        return list(self.data.splits)

    def size(self, split: str) -> int:
        """Number of examples in a split, after `limit`."""
        self.check_split(split)
        return min(len(self.data.splits[split]), self.limit or len(self.data.splits[split]))

    @abstractmethod
    def fingerprint(self) -> str:
        """A checksum of the training data: a run resumes on the data that it began with."""

    def count(self, *, rank: int, processes: int) -> NDArray[np.int64] | None:
        """What one of several processes counts in its part of the training examples, before the model is built.

        For tasks whose `info` follows from such counts and whose examples take time to read: `take_counts` is given the
        sum over all processes. None for the others, and for a run that has begun.

        Args:
            rank: the number of this process, from 0.
            processes: how many they are.

        Raises:
            dlkit.errors.DataError: an example cannot be read.
        """
        return None

    def take_counts(self, counts: NDArray[np.int64]) -> None:
        """Takes the sum of what all processes have counted, from which `info` follows then."""
        raise NotImplementedError(f"{type(self).__name__} counts nothing")

    @abstractmethod
    def model_arguments(self) -> dict[str, Any]:
        """The builder's arguments that follow from the data, such as the number of classes. JSON values and tuples."""

    def example_inputs(self) -> Any:
        """Shapes and types of the model's inputs for one example, a nest of specs; None when the model knows them."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """The data in one line for people."""

    def remarks(self) -> list[str]:
        """What a user should know of the data besides, a line each, such as what was left out of training."""
        return []

    def remarks_on(self, split: str) -> list[str]:
        """What a user should know of a split that is tested on, such as what is not read of it."""
        return []

    def plan(self, split: str, *, batch_size: int, epoch: int | None) -> list[NDArray[np.int64]]:
        """The batches of an epoch as arrays of example indices, shuffled; in order without an epoch."""
        count = self.size(split)
        return in_batches(np.arange(count) if epoch is None else self.shuffled(split, count, epoch), batch_size)

    def trained_on(self, split: str, count: int) -> NDArray[np.int64]:
        """Which of so many examples an epoch of training consists of, rising; all of them, unless it is resampled."""
        resampled = self.resampling if split == "train" else None
        return np.arange(count) if resampled is None else resampled.examples(count)

    def shuffled(self, split: str, count: int, epoch: int) -> NDArray[np.int64]:
        """The examples of an epoch of training in the order of (seed, epoch)."""
        chosen = self.trained_on(split, count)
        return chosen[shuffled(len(chosen), seed=self.seed, epoch=epoch)]

    def evaluation_plan(self, model: keras.Model, split: str, *, batch_size: int) -> list[NDArray[np.int64]]:
        """The batches in which a model is evaluated on a split, as arrays of example indices."""
        return self.plan(split, batch_size=batch_size, epoch=None)

    def check_model(self, model: keras.Model) -> None:  # noqa: B027 - most models take whatever has the right shape
        """Raises a DataError when the model cannot train on some of the examples."""

    def check_settings(self, settings: TrainSection) -> None:  # noqa: B027 - most data can be trained on as one likes
        """Raises a UsageError when a training is to do something that its data are not made for."""

    def for_model(self, model: keras.Model) -> Self:
        """The same task as the training of a model sees it: what its batches are may depend on the model's kind."""
        return self

    def see(self, model: keras.Model, images: tf.Tensor) -> Any:
        """What a model makes of images alone, with all its layers that may find them too small."""
        return model(images)

    def adapt(self, model: keras.Model) -> None:  # noqa: B027 - most layers learn by gradients alone
        """Gives layers that follow from the data, such as a whitening one, their weights, once before training."""

    def rows(self, batch_size: int) -> int:
        """Examples of a training batch, when they are all as large as those of `example_inputs`."""
        return min(batch_size, self.size("train"))

    @abstractmethod
    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """The arrays of one batch, a row an example; augmented for `epoch`, as they are without one."""

    def rows_of(self, split: str, indices: NDArray[np.int64], rows: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """The given rows of `batch`, for a process that trains on them alone.

        A task whose examples take time to make does without the others.
        """
        return {key: array[rows] for key, array in self.batch(split, indices, epoch=epoch).items()}

    @abstractmethod
    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Runs the model on a batch and sums up its loss and metrics.

        Args:
            model: the model.
            batch: tensors of `batch`, with `row_weights` when rows are padded.
            training: whether the model trains.
            smoothing: label smoothing of the loss.
        """

    def first_carry(self, model: keras.Model, rows: int) -> Batch:
        """What the first batch of a pass over the data is given beside its own arrays; nothing for most tasks.

        Arrays with a row for each row of the batch, such as a zero state of the model. Each further batch is given what
        `Sums.carry` of the one before it holds under the same keys.
        """
        return {}

    def derived_metrics(self, model: keras.Model, split: str, values: Mapping[str, float]) -> dict[str, float]:
        """Metrics of a model on a split that follow from the means of others, such as the perplexity from the loss."""
        return {}

    def judged(self, batch: Batch, outputs: NDArray) -> Judged:
        """What to look at one by one of a batch and of the model's outputs for it (`Sums.logits`)."""
        return Judged(batch["labels"], outputs)

    def tested_on(self, split: str) -> tuple[str, Any] | None:
        """What there is of a split before a model reads it in its own way, such as with its tokenizer, after `limit`.

        Returns:
            What it is called, in the plural, and something that is equal for equal examples; None where labels say
            whether two models are tested on the same.
        """
        return None

    def dataset_options(self) -> dict[str, Any]:
        """What the dataset's own function takes of the section [data]."""
        unset = {key for key in ("dir",) if self.options.get(key) is None}
        return {key: value for key, value in self.options.items() if key not in {"name", "augment"} | unset}

    def decoded_metrics(self, model: keras.Model, split: str, *, batch_size: int) -> dict[str, float]:
        """Metrics of what the model generates rather than scores; none for most tasks."""
        return {}

    def save(self, folder: Path) -> None:  # noqa: B027 - most tasks have no files
        """Writes the task's own files, such as a tokenizer, into a run folder."""

    def warn_once(self, message: str) -> None:
        """A warning that every evaluation of a run would repeat."""
        if message not in self._told:
            self._told |= {message}
            console.warn(message)

    def check_split(self, split: str) -> None:
        """Raises a UsageError unless the data has a split of that name."""
        check_split(split, self.splits, self.options["name"])

    # ----------------------------------------------------------------------------------- one example, to be looked into

    @property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Of the words that models read, and of those that they say; of tasks with words."""
        raise NotImplementedError(f"{type(self).__name__} has no words")

    def without_padding(self, batch: Batch) -> Batch:
        """A batch of one row, cut to the length of its example; one without any step keeps its first."""
        cut = dict(batch)
        for names in self.padded_together:
            real = np.flatnonzero(batch[names[0]][0] != PAD)
            length = int(real[-1]) + 1 if len(real) else 1
            cut |= {name: batch[name][:, :length] for name in names}
        return cut

    def batch_of_image(self, model: keras.Model, image: NDArray[np.float32]) -> Batch:
        """A standardized image (height, width, channels) as a batch, with what the model says where it writes."""
        raise NotImplementedError(f"{type(self).__name__} is shown no image")

    def batch_of_text(self, model: keras.Model, text: str) -> Batch:
        """A text of one token or more as a batch, with what the model says where it writes.

        Raises:
            dlkit.errors.DlkitError: it is too short, or too long.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no text")

    def batch_of_ids(self, ids: NDArray[np.int64]) -> Batch:
        """Ids of words (rows, time), whatever they mean, as a batch without labels."""
        raise NotImplementedError(f"{type(self).__name__} reads no words")

    def logits(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What a model says of a batch at test time: (rows, outputs), or (rows, time, outputs) of each step."""
        logits = self.loss_sums(model, batch, training=False, smoothing=0.0).logits
        assert logits is not None
        return logits

    def last_loss(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The loss of what is told last, at test time, summed over the rows of a batch without padding.

        Where each step has a label, or a next word, that of the last step; else the task's loss.
        """
        words = self.about.writes
        if words:  # padding has no loss
            last = tf.range(tf.shape(batch[words])[1]) == tf.shape(batch[words])[1] - 1
            batch = {**batch, words: tf.where(last, batch[words], PAD)}
        sums = self.loss_sums(model, batch, training=False, smoothing=0.0)
        if "labels" in batch and batch["labels"].shape.rank == 2:
            assert sums.logits is not None
            return tf.reduce_sum(softmax_cross_entropy(sums.logits[:, -1], batch["labels"][:, -1]))
        return sums.loss

    def likelihood(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, str] | None:
        """The log-probability that a model gives to the right output for one example, and whose it is, in words.

        None where a logit, or a number, says what the model tells.
        """
        return None


def open_task(
    name: str,
    data: Mapping[str, Any],
    *,
    seed: int = 0,
    limit: int | None = None,
    info: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    max_len: int = 100,
    batch_tokens: int | None = None,
    resampling: Resampling | None = None,
) -> Task:
    """Makes the task `name` of the table, with the arguments of `Task`."""
    module, _, cls = TASKS[name].target.partition(":")
    return getattr(importlib.import_module(module), cls)(
        data, seed=seed, limit=limit, info=info, folder=folder, max_len=max_len, batch_tokens=batch_tokens,
        resampling=resampling,
    )  # fmt: skip


def open_as_trained(
    name: str,
    data: Mapping[str, Any],
    train: TrainSection,
    *,
    max_len: int,
    info: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Task:
    """Makes the task `name` so that its batches of an epoch are those that training sees.

    Args:
        name: of the table.
        data: the recipe's [data] section.
        train: its [train] section, which says how examples are chosen, shuffled and put into batches.
        max_len: see `Task`.
        info: likewise.
        folder: likewise.
    """
    resampling = Resampling(train.resample, train.seed, train.part, train.parts) if train.resample else None
    return open_task(
        name, data, seed=train.seed, limit=train.limit, info=info, folder=folder, max_len=max_len,
        batch_tokens=train.batch_tokens, resampling=resampling,
    )  # fmt: skip
