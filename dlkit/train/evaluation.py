"""Evaluation: the sums of a split, over any number of devices, and the same figures wherever they are asked for."""

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import metrics
from dlkit.cluster import ALONE, Peers
from dlkit.data.batching import ROW_WEIGHTS, Batch, pad_rows, prefetch, until_failure
from dlkit.errors import DataError
from dlkit.runtime import Devices
from dlkit.tasks.task import Task
from dlkit.train.step import all_reduce, distribute, flat_sums, means, rows_here


@dataclass(frozen=True)
class Outputs:
    """The outputs of a classifier for each example of a split, in the order of the split; of a tagger for each word.

    Args:
        labels: (n,), the right classes; of a model that tells numbers these, (n, outputs).
        logits: (n, classes), in the precision that the model gives them in; or the numbers that it tells.
        examples: (n,), the place in the split of the example that each is of.
    """

    labels: NDArray[np.int32]
    logits: NDArray[np.floating]
    examples: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the most probable class is the right one, (n,)."""
        return metrics.top_k_hits(self.logits, self.labels, 1)

    @property
    def one_each(self) -> bool:
        """Whether each example has one output."""
        return len(np.unique(self.examples)) == len(self.examples)

    @property
    def right_examples(self) -> NDArray[np.bool_]:
        """Whether all outputs for an example are right, (examples,): the words of a sentence are not independent."""
        _, of_example = np.unique(self.examples, return_inverse=True)
        return np.bincount(of_example, ~self.right) == 0


class Evaluation:
    """Evaluates a model on the splits of a task; made once, so that the graph is traced once.

    Args:
        task: where batches and metrics come from.
        model: built in the scope of the strategy.
        devices: where it runs.
        batch_size: examples at a time; does not change the result.
        peers: the other processes that evaluate it, each its part of every batch.
    """

    def __init__(
        self, task: Task, model: keras.Model, devices: Devices, *, batch_size: int, peers: Peers = ALONE
    ) -> None:
        self.task, self.model, self.devices, self.peers = task, model, devices, peers
        self.batch_size = -(-batch_size // devices.replicas) * devices.replicas
        # Without autograph, whose report of an error that it does not know would stand around ours.
        self._run = tf.function(self._distributed, reduce_retracing=task.shapes_vary, autograph=False)

    def __call__(self, split: str, *, decode: bool = True) -> dict[str, float]:
        """The loss and every metric of the task on a split, each the mean over all its examples or tokens.

        Args:
            split: the split's name.
            decode: whether to measure what the model writes, too, which takes longer than all the rest.

        Raises:
            dlkit.errors.DataError: an example cannot be read, in this process or another: all raise it.
        """
        values = self._evaluated(split, kept=None)
        if not decode:
            return values
        failure: DataError | None = None
        decoded: dict[str, float] = {}
        try:
            decoded = self.task.decoded_metrics(self.model, split, batch_size=self.batch_size)
        except DataError as damage:
            failure = damage
        self._agree(failure)
        return values | decoded

    def with_outputs(self, split: str) -> tuple[dict[str, float], Outputs]:
        """The same, and the outputs of a classifier for each example, in one pass over the split."""
        kept: list[Outputs] = []
        values = self._evaluated(split, kept=kept)
        labels, logits = (np.concatenate([getattr(part, name) for part in kept]) for name in ("labels", "logits"))
        examples = np.concatenate([part.examples for part in kept])
        order = np.argsort(examples, kind="stable")  # texts are evaluated by length
        return values, Outputs(labels[order], logits[order], examples[order])

    def answer_seconds(self, split: str, *, times: int = 5) -> float:
        """How long an answer takes in a batch of so many examples, in seconds: the median of several tries.

        Args:
            split: where the examples come from.
            times: how often it is tried, after a try that warms up.
        """
        indices = self.task.evaluation_plan(self.model, split, batch_size=self.batch_size)[0]
        batch = self.task.batch(split, indices, epoch=None)
        distributed = distribute(pad_rows(batch, self.devices.replicas, always_weighted=True), self.devices)
        spans = []
        for _ in range(times + 1):
            started = time.perf_counter()
            sums, *_ = self._run(distributed, keep=False)
            float(self.devices.strategy.experimental_local_results(sums["loss"])[0])
            spans.append(time.perf_counter() - started)
        return statistics.median(spans[1:]) / len(indices)

    def _evaluated(self, split: str, *, kept: list[Outputs] | None) -> dict[str, float]:
        totals: defaultdict[str, float] = defaultdict(float)
        strategy = self.devices.strategy
        plan = self.task.evaluation_plan(self.model, split, batch_size=self.batch_size)
        carry = self.task.first_carry(self.model, len(plan[0])) if plan else {}
        # Where a state is carried all batches have as many rows, which may be far fewer.
        multiple = self.devices.replicas if self.task.shapes_vary or carry else self.batch_size
        batches = until_failure(prefetch(self._rows(split, indices, multiple) for indices in plan))
        for indices, batch in zip(plan, batches, strict=True):
            self._agree(batch if isinstance(batch, DataError) else None)
            assert not isinstance(batch, DataError)
            padded = pad_rows(batch | carry, multiple // self.devices.processes, always_weighted=True)
            size = len(padded[ROW_WEIGHTS]) * self.devices.processes
            sums, logits, carried = self._run(distribute(padded, self.devices, size=size), keep=kept is not None)
            carry = {key: strategy.gather(carried[key], axis=0).numpy()[: len(rows)] for key, rows in carry.items()}
            for name, value in sums.items():
                totals[name] += float(strategy.experimental_local_results(value)[0])
            if kept is not None:  # the devices hold consecutive rows, in their order, the padded ones at the end
                count = len(next(iter(batch.values())))
                judged = self.task.judged(batch, strategy.gather(logits, axis=0).numpy()[:count])
                rows = np.arange(count) if judged.rows is None else judged.rows
                kept.append(Outputs(judged.labels, judged.outputs, indices[rows]))
        values = means(totals)
        return values | self.task.derived_metrics(self.model, split, values)

    def _rows(self, split: str, indices: NDArray[np.int64], multiple: int) -> Batch:
        """A batch; of one that several processes share the rows of this one, with what pads them where there are some.

        They are padded here, since a process may have none: `multiple` is that of the rows of all processes.
        """
        if self.devices.processes == 1:
            return self.task.batch(split, indices, epoch=None)
        size = len(indices) + -len(indices) % multiple
        rows = rows_here(size, self.devices)
        real = rows < len(indices)
        batch = self.task.rows_of(split, indices, np.where(real, rows, 0), epoch=None)
        return batch | {ROW_WEIGHTS: real.astype(np.float32)}

    def _agree(self, failure: DataError | None) -> None:
        """Raises the failure of this process or of another in all of them."""
        if self.devices.any(failure is not None):
            raise self.peers.share(failure)

    def _distributed(self, batch: Mapping[str, tf.Tensor], *, keep: bool) -> tuple[Any, ...]:
        return self.devices.strategy.run(self._replica, args=(batch,), kwargs={"keep": keep})

    def _replica(self, batch: Mapping[str, tf.Tensor], *, keep: bool) -> tuple[Any, ...]:
        sums = self.task.loss_sums(self.model, batch, training=False, smoothing=0.0)
        return all_reduce(flat_sums(sums), self.devices.replicas), sums.logits if keep else (), sums.carry
