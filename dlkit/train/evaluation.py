"""Evaluation: the sums of a split, over any number of devices, and the same figures wherever they are asked for."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit import metrics, runs, runtime
from dlkit.data.batching import pad_rows, prefetch
from dlkit.data.folders import folder, has_splits
from dlkit.errors import DataError, UsageError
from dlkit.recipe import check_data_dir, check_value, defaults_of
from dlkit.runs import Run
from dlkit.runtime import Devices
from dlkit.tasks import TASKS
from dlkit.tasks.task import Task, open_task
from dlkit.train.step import all_reduce, flat_sums, means, place

MOST_CONFUSED = 5
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Outputs:
    """What a classifier says of each example of a split, in the order of the split.

    Args:
        labels: (n,), the right classes.
        logits: (n, classes), in the precision that the model gives them in.
    """

    labels: NDArray[np.int32]
    logits: NDArray[np.floating]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the most probable class is the right one, (n,)."""
        return metrics.top_k_hits(self.logits, self.labels, 1)


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
        self._run = tf.function(self._distributed, reduce_retracing=task.shapes_vary)

    def __call__(self, split: str) -> dict[str, float]:
        """The loss and every metric of the task on a split, each the mean over all its examples or tokens."""
        return self._evaluated(split, kept=None)

    def with_outputs(self, split: str) -> tuple[dict[str, float], Outputs]:
        """The same, and what a classifier says of each example, in one pass over the split."""
        kept: list[Outputs] = []
        values = self._evaluated(split, kept=kept)
        labels, logits = (np.concatenate([getattr(part, name) for part in kept]) for name in ("labels", "logits"))
        return values, Outputs(labels, logits)

    def _evaluated(self, split: str, *, kept: list[Outputs] | None) -> dict[str, float]:
        totals: defaultdict[str, float] = defaultdict(float)
        strategy = self.devices.strategy
        plan = self.task.plan(split, batch_size=self.batch_size, epoch=None)
        for batch in prefetch(self.task.batch(split, indices, epoch=None) for indices in plan):
            padded = pad_rows(batch, self.batch_size, always_weighted=True)
            sums, logits = self._run(place(padded, self.devices), keep=kept is not None)
            for name, value in sums.items():
                totals[name] += float(strategy.experimental_local_results(value)[0])
            if kept is not None:  # the devices hold consecutive rows, in their order, the padded ones at the end
                rows = strategy.gather(logits, axis=0).numpy()[: len(batch["labels"])]
                kept.append(Outputs(batch["labels"], rows))
        return means(totals) | self.task.decoded_metrics(self.model, split, batch_size=self.batch_size)

    def _distributed(self, batch: Mapping[str, tf.Tensor], *, keep: bool) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        return self.devices.strategy.run(self._replica, args=(batch,), kwargs={"keep": keep})

    def _replica(self, batch: Mapping[str, tf.Tensor], *, keep: bool) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        sums = self.task.loss_sums(self.model, batch, training=False, smoothing=0.0)
        return all_reduce(flat_sums(sums), self.devices.replicas), sums.logits if keep else ()


# ------------------------------------------------------------------------------------------------------------- one run


@dataclass(frozen=True)
class Setting:
    """What a run is evaluated on, and how.

    Args:
        split: the split's name.
        weights: `raw`, `ema`, or `auto`: the average when the run keeps one.
        data: another dataset with the classes of the run; None for the run's own.
        data_dir: where prepared data lies; None for where it lay in training.
        batch_size: examples at a time; does not change the result.
        limit: use no more than this many examples.
        on_bad: at an image file that cannot be read, `error` or `skip`; None for what was done in training.
    """

    split: str = "test"
    weights: runs.Weights = "auto"
    data: str | None = None
    data_dir: Path | None = None
    batch_size: int = 256
    limit: int | None = None
    on_bad: str | None = None


def evaluate_run(text: str, setting: Setting = Setting(), *, devices: str = "auto") -> dict[str, Any]:
    """Evaluates a run or a checkpoint.

    Args:
        text: `runs/x`, `runs/x@last`, `runs/x@step-1200`.
        setting: on what, and how.
        devices: what `runtime.devices` takes.

    Returns:
        JSON values: "run", "checkpoint", "task", "weights", "data", "split", "examples", the task's metrics by name,
        "intervals" (metric -> 95 % Wilson interval, of those that are shares of the examples), and of a classifier all
        that `classification` says.

    Raises:
        dlkit.errors.DlkitError: no such run, checkpoint or split; the checkpoint is damaged or does not fit; or the
            other dataset has other classes.
    """
    subject = _Subject.of(text)
    runtime.import_tensorflow()
    return subject.evaluated(setting, runtime.devices(devices, alone=True))[0]


@dataclass(frozen=True)
class _Subject:
    """A run and the checkpoint of it that is evaluated."""

    text: str
    run: Run
    checkpoint: Path

    @classmethod
    def of(cls, text: str) -> "_Subject":
        run = runs.open_run(text)
        return cls(text, run, runs.find_checkpoint(run, runs.split_operand(text)[1]))

    def evaluated(
        self, setting: Setting, devices: Devices, *, among: Sequence[Run] = ()
    ) -> tuple[dict[str, Any], Outputs | None]:
        """The result as JSON values, and of a classifier what it says of each example; `among` these runs."""
        run, split = self.run, setting.split
        task = open_task(
            run.task,
            _data_section(run, setting, among or [run]),
            seed=int(run.recipe["train"]["seed"]),
            limit=setting.limit,
            info=run.info["data"],
            folder=run.path,
            max_len=int(run.recipe["decode"]["max_len"]),
        )
        count = task.size(split)
        if count == 0:
            raise DataError(f"the {split} split of {task.options['name']} is empty")
        with devices.strategy.scope():
            model, weights = runs.load_checkpoint(run, self.checkpoint, weights=setting.weights)
        evaluation = Evaluation(task, model, devices, batch_size=setting.batch_size)
        outputs = None
        if TASKS[run.task].classifies:
            values, outputs = evaluation.with_outputs(split)
        else:
            values = evaluation(split)
        shares = {name: round(values[name] * count) for name in TASKS[run.task].per_example}
        result = {
            "run": self.text, "checkpoint": str(self.checkpoint), "task": run.task, "weights": weights,
            "data": task.options["name"], "split": split, "examples": count, **values,
            "intervals": {name: metrics.wilson_interval(hits, count) for name, hits in shares.items()},
        }  # fmt: skip
        if outputs:
            found = classification(outputs, task.info["classes"])
            result["intervals"] |= found.pop("intervals")
            result |= found
        return result, outputs


def _data_section(run: Run, setting: Setting, among: Sequence[Run]) -> dict[str, Any]:
    """The section [data] of a run, or one for another dataset, whose images are then made as large as the run's.

    Data that one of the runs was trained on is divided as it was then. Any other folder without splits is tested on as
    a whole.
    """
    section: dict[str, Any] = dict(run.recipe["data"])
    if setting.data is not None:
        own = next((each.recipe["data"] for each in among if _is_same(each.recipe["data"]["name"], setting.data)), {})
        section = {**own, "name": setting.data}
        if not own and _is_undivided(setting.data):
            section["test"] = "all"
    if setting.data_dir is not None:
        check_data_dir(section["name"], setting.data_dir)
        section["dir"] = setting.data_dir
    options = defaults_of(datasets.builder(section["name"], section.get("dir")))
    height, width = [*run.info["data"].get("shape", ()), 0, 0][:2]
    if setting.data is not None and height == width and "size" in options:
        section["size"] = height
    if setting.on_bad is not None:
        if "on_bad" not in options:
            raise UsageError(f"{section['name']} is no folder of images: --on-bad is for those", "leave it out")
        section["on_bad"] = check_value(Literal["error", "skip"], setting.on_bad, "--on-bad")
    return section


def _is_same(own: str, other: str) -> bool:
    """Whether two names are those of one dataset: the same, or paths of the same folder."""
    paths = {Path(name).expanduser().resolve() if datasets.is_path(name) else name for name in (own, other)}
    return len(paths) == 1


def _is_undivided(name: str) -> bool:
    """Whether a dataset is a folder of images without splits."""
    return getattr(datasets.builder(name), "func", None) is folder and not has_splits(name)


def classification(outputs: Outputs, classes: Sequence[str]) -> dict[str, Any]:
    """All that there is to say of a classifier on a split, beside its loss and accuracy.

    Args:
        outputs: what it says of each example.
        classes: the names of the classes.

    Returns:
        JSON values: "top_5" (with more than 5 classes) and its interval in "intervals", "macro_f1", "brier", "ece",
        "reliability" (one record a bin), "classes" (one record a class), "confusion" (a row for each true class) and
        "most_confused" (the commonest mistakes).
    """
    labels, logits = outputs.labels, outputs.logits
    probabilities, predicted = metrics.softmax(logits), np.argmax(logits, axis=1)
    confusion = metrics.confusion_matrix(labels, predicted, len(classes))
    bins = metrics.reliability(probabilities.max(axis=1), outputs.right)
    found: dict[str, Any] = {"intervals": {}}
    if len(classes) > 5:
        hits = int(metrics.top_k_hits(logits, labels, 5).sum())
        found |= {"top_5": hits / len(labels), "intervals": {"top_5": metrics.wilson_interval(hits, len(labels))}}
    return found | {
        "macro_f1": metrics.macro_f1(confusion),
        "brier": metrics.brier_score(probabilities, labels),
        "ece": metrics.expected_calibration_error(bins),
        "reliability": [
            {"above": low, "up_to": high, **record}
            for (low, high), record in zip(
                pairwise((np.arange(len(bins.examples) + 1) / len(bins.examples)).tolist()),
                _records(bins._asdict()),
                strict=True,
            )
        ],
        "classes": _records({"class": np.array(classes, object), **metrics.by_class(confusion)._asdict()}),
        "confusion": confusion.tolist(),
        "most_confused": [
            {"class": classes[true], "predicted": classes[said], "count": count, "share": count / confusion[true].sum()}
            for true, said, count in metrics.most_confused(confusion, MOST_CONFUSED)
        ],
    }


def _records(columns: Mapping[str, NDArray]) -> list[dict[str, Any]]:
    return [
        dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------- several runs


def compare_runs(texts: Sequence[str], setting: Setting = Setting(), *, devices: str = "auto") -> dict[str, Any]:
    """Evaluates several classifiers on the same examples, and tests whether one of two is better.

    Args:
        texts: runs or checkpoints, two or more.
        setting: on what, and how.
        devices: what `runtime.devices` takes.

    Returns:
        JSON values: "runs", the results of `evaluate_run`, and for two "paired", as `paired_test` says.

    Raises:
        dlkit.errors.UsageError: a run is no classifier, or they were not trained for the same examples and classes.
        dlkit.errors.DlkitError: as `evaluate_run`.
    """
    subjects = [_Subject.of(text) for text in texts]
    for subject in subjects:
        _check_comparable(subjects[0].run, subject.run, same_data=setting.data is None)
    runtime.import_tensorflow()
    where = runtime.devices(devices, alone=True)  # the processes of a cluster evaluate each by itself
    among = [subject.run for subject in subjects]
    results, outputs = zip(*(subject.evaluated(setting, where, among=among) for subject in subjects), strict=True)
    compared: dict[str, Any] = {"runs": list(results)}
    if len(subjects) == 2:
        if not np.array_equal(outputs[0].labels, outputs[1].labels):
            raise DataError(f"the {setting.split} splits of {texts[0]} and {texts[1]} have come to differ")
        compared["paired"] = paired_test(outputs[0].right, outputs[1].right)
    return compared


def _check_comparable(first: Run, other: Run, *, same_data: bool) -> None:
    for run in (first, other):
        if not TASKS[run.task].classifies:
            raise UsageError(
                f"{run.path} is a run of {TASKS[run.task].title}: only classifiers are compared so far",
                "evaluate them one by one",
            )
    if first.info["data"]["classes"] != other.info["data"]["classes"]:
        raise UsageError(f"{first.path} and {other.path} tell different classes apart", "evaluate them one by one")
    fingerprints = {run.info.get("fingerprint") for run in (first, other)}
    if same_data and (len(fingerprints) > 1 or None in fingerprints) and first.path.resolve() != other.path.resolve():
        raise UsageError(
            f"{first.path} and {other.path} were trained on different data",
            "`--data NAME` evaluates both on the examples of one dataset",
        )


def paired_test(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, Any]:
    """Whether one of two classifiers is better, from where each is right on the same examples.

    Returns:
        JSON values: "both_right", "only_first", "only_second", "both_wrong"; "difference" of the accuracies, first less
        second, and its 95 % "interval"; "p_value" of McNemar's exact test; "better", 0 or 1 for the run that is
        significantly better at the level of 5 %, None when neither is.
    """
    pairs = metrics.paired(first, second)
    difference, interval = metrics.paired_difference(pairs)
    p_value = metrics.mcnemar_exact(pairs)
    return {
        "both_right": pairs.both, "only_first": pairs.only_first, "only_second": pairs.only_second,
        "both_wrong": pairs.neither, "difference": difference, "interval": interval, "p_value": p_value,
        "better": None if p_value >= SIGNIFICANT else int(difference < 0),
    }  # fmt: skip
