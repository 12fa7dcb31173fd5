"""Evaluation: the sums of a split, over any number of devices, and the same figures wherever they are asked for."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from dlkit import runs, runtime
from dlkit.data.batching import pad_rows, prefetch
from dlkit.runtime import Devices
from dlkit.tasks.task import Task, open_task
from dlkit.train.step import all_reduce, flat_sums, means, place


class Evaluation:
    """Evaluates a model on the splits of a task; made once, so that the graph is traced once.

    Args:
        task: where batches and metrics come from.
        model: built in the scope of the strategy.
        devices: where it runs.
        batch_size: examples at a time; does not change the result.
    """

    def __init__(self, task: Task, model: keras.Model, devices: Devices, *, batch_size: int) -> None:
        self.task, self.model, self.devices = task, model, devices
        self.batch_size = -(-batch_size // devices.replicas) * devices.replicas
        self._sums = tf.function(self._distributed)

    def __call__(self, split: str) -> dict[str, float]:
        """The loss and every metric of the task on a split, each the mean over all its examples or tokens."""
        totals: defaultdict[str, float] = defaultdict(float)
        plan = self.task.plan(split, batch_size=self.batch_size, epoch=None)
        for batch in prefetch(self.task.batch(split, indices, epoch=None) for indices in plan):
            padded = pad_rows(batch, self.batch_size, always_weighted=True)
            for name, value in self._sums(place(padded, self.devices)).items():
                totals[name] += float(self.devices.strategy.experimental_local_results(value)[0])
        return means(totals) | self.task.decoded_metrics(self.model, split, batch_size=self.batch_size)

    def _distributed(self, batch: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        return self.devices.strategy.run(self._replica, args=(batch,))

    def _replica(self, batch: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        sums = self.task.loss_sums(self.model, batch, training=False, smoothing=0.0)
        return all_reduce(flat_sums(sums), self.devices.replicas)


def evaluate_run(
    text: str,
    *,
    split: str = "test",
    weights: runs.Weights = "auto",
    batch_size: int = 256,
    limit: int | None = None,
    devices: str = "auto",
) -> dict[str, Any]:
    """Evaluates a run or a checkpoint on a split of the data that it was trained on.

    Args:
        text: `runs/x`, `runs/x@last`, `runs/x@step-1200`.
        split: the split's name.
        weights: `raw`, `ema`, or `auto`: the average when the run keeps one.
        batch_size: examples at a time; does not change the result.
        limit: use no more than this many examples.
        devices: what `runtime.devices` takes.

    Returns:
        "checkpoint", "task", "weights", "split", "examples" and the task's metrics by name.

    Raises:
        dlkit.errors.DlkitError: no such run, checkpoint or split; or the checkpoint is damaged or does not fit.
    """
    run = runs.open_run(text)
    path = runs.find_checkpoint(run, runs.split_operand(text)[1])
    runtime.import_tensorflow()
    where = runtime.devices(devices)
    task = open_task(
        run.task,
        run.recipe["data"],
        seed=int(run.recipe["train"]["seed"]),
        limit=limit,
        info=run.info["data"],
        folder=run.path,
        max_len=int(run.recipe["decode"]["max_len"]),
    )
    task.check_split(split)
    with where.strategy.scope():
        model, group = runs.load_checkpoint(run, path, weights=weights)
    values = Evaluation(task, model, where, batch_size=batch_size)(split)
    return {
        "checkpoint": str(path), "task": run.task, "weights": group, "split": split, "examples": task.size(split),
        **values,
    }  # fmt: skip
