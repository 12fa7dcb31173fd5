"""Evaluation: the sums of a split, over any number of devices, and the same figures wherever they are asked for."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from dlkit.cluster import ALONE, Peers
from dlkit.data import caption_files, labelled_texts, tagged_texts
from dlkit.data.batching import ROW_WEIGHTS, Batch, pad_rows, prefetch, until_failure
from dlkit.data.folders import folder, has_splits
from dlkit.data.parallel import is_undivided
from dlkit.errors import DataError, UsageError
from dlkit.recipe import DecodeSection, check_data_dir, resolve_decode
from dlkit.runs import Run
from dlkit.runtime import Devices
from dlkit.tasks import TASKS
from dlkit.tasks.captioning import Captioning
from dlkit.tasks.image_classification import ImageClassification
from dlkit.tasks.language_modelling import LanguageModelling, other_text
from dlkit.tasks.sequences import Sequences
from dlkit.tasks.task import Task, open_task
from dlkit.tasks.translation import Translation
from dlkit.tasks.translator import precision_of
from dlkit.train import caption_quality, sequence_quality, translation_quality
from dlkit.train.caption_quality import Captions
from dlkit.train.setting import DEFAULT, Setting, check_about
from dlkit.train.step import all_reduce, flat_sums, means, place, rows_here
from dlkit.train.translation_quality import Translations
from dlkit.values import check_value, defaults_of

MOST_CONFUSED = 5


@dataclass(frozen=True)
class Outputs:
    """What a classifier says of each example of a split, in the order of the split; of a tagger of each word.

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
        """Whether one thing is said of each example."""
        return len(np.unique(self.examples)) == len(self.examples)

    @property
    def right_examples(self) -> NDArray[np.bool_]:
        """Whether all that is said of an example is right, (examples,): the words of a sentence are not independent."""
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
        """The same, and what a classifier says of each example, in one pass over the split."""
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
        placed = place(pad_rows(batch, self.devices.replicas, always_weighted=True), self.devices)
        spans = []
        for _ in range(times + 1):
            started = time.perf_counter()
            sums, *_ = self._run(placed, keep=False)
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
            padded = pad_rows(batch | carry, multiple // self.devices.workers, always_weighted=True)
            size = len(padded[ROW_WEIGHTS]) * self.devices.workers
            sums, logits, carried = self._run(place(padded, self.devices, size=size), keep=kept is not None)
            carry = {key: strategy.gather(carried[key], axis=0).numpy()[: len(rows)] for key, rows in carry.items()}
            for name, value in sums.items():
                totals[name] += float(strategy.experimental_local_results(value)[0])
            if kept is not None:  # the devices hold consecutive rows, in their order, the padded ones at the end
                count = len(next(iter(batch.values())))
                judged = self.task.judged(batch, strategy.gather(logits, axis=0).numpy()[:count])
                rows = np.arange(count) if judged.rows is None else judged.rows
                kept.append(Outputs(judged.labels, judged.said, indices[rows]))
        values = means(totals)
        return values | self.task.derived_metrics(self.model, split, values)

    def _rows(self, split: str, indices: NDArray[np.int64], multiple: int) -> Batch:
        """A batch; of one that several processes share the rows of this one, with what pads them where there are some.

        They are padded here, since a process may have none: `multiple` is that of the rows of all processes.
        """
        if self.devices.workers == 1:
            return self.task.batch(split, indices, epoch=None)
        size = len(indices) + -len(indices) % multiple
        rows = rows_here(size, self.devices)
        real = rows < len(indices)
        batch = self.task.part(split, indices, np.where(real, rows, 0), epoch=None)
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


# ------------------------------------------------------------------------------------------------------------- one run


def evaluate_run(
    text: str,
    setting: Setting = DEFAULT,
    *,
    devices: str = "auto",
    write: Callable[[str], None] | None = None,
    keep: Callable[[Task, Any], None] | None = None,
) -> dict[str, Any]:
    """Evaluates a run or a checkpoint.

    Args:
        text: `runs/x`, `runs/x@last`, `runs/x@step-1200`.
        setting: on what, and how.
        devices: what `runtime.devices` takes.
        write: is called with each text as soon as it is there, in the order of the split.
        keep: is called with the task and with what the run says of each example.

    Returns:
        JSON values: "run", "checkpoint", "task", "weights", "data", "split", "examples", the task's metrics by name,
        "intervals" (metric -> 95 % interval, of Wilson for those that are shares of the examples), of a classifier all
        that `classification` says, and of translations and captions all that `quality` of `translation_quality` or
        `caption_quality` says, with the settings of their "search".

    Raises:
        dlkit.errors.DlkitError: no such run, checkpoint or split; the checkpoint is damaged or does not fit; the other
            dataset has other classes or goes the other way; or the setting is for runs of another kind.
    """
    subject = Subject.of(text)
    runtime.import_tensorflow()
    task = subject.task(setting)
    result, said = subject.evaluated(task, setting, runtime.devices(devices, alone=True), write=write)
    if keep:
        keep(task, said)
    return result


@dataclass(frozen=True)
class Subject:
    """A run and the checkpoint of it that is evaluated; as the user named it, `text`."""

    text: str
    run: Run
    checkpoint: Path

    @classmethod
    def of(cls, text: str) -> "Subject":
        """Finds the checkpoint that `runs/x` or `runs/x@last` means."""
        run = runs.open_run(text)
        return cls(text, run, runs.find_checkpoint(run, runs.split_operand(text)[1]))

    def task(self, setting: Setting, *, among: Sequence[Run] = ()) -> Task:
        """The run's task on what it is evaluated on; `among` these runs.

        Raises:
            dlkit.errors.DlkitError: as `evaluate_run`.
        """
        run, split = self.run, setting.split
        check_about(setting.asked.values(), run)
        if setting.data is None:
            runs.check_data(run)
        task = open_task(
            run.task,
            _data_section(run, setting, among or [run]),
            seed=int(run.recipe["train"]["seed"]),
            limit=setting.limit,
            info=run.info["data"],
            folder=run.path,
            max_len=int(run.recipe["decode"]["max_len"]),
        )
        if setting.mirror:
            assert isinstance(task, ImageClassification)
            task = task.with_mirror_images()
        if setting.shuffle_images:
            assert isinstance(task, Captioning)
            task = task.with_shuffled_images()
        if task.size(split) == 0:
            raise DataError(f"the {split} split of {task.options['name']} is empty")
        if isinstance(task, Translation):
            translation_quality.check_direction(run, task)
        return task

    def evaluated(
        self, task: Task, setting: Setting, devices: Devices, *, write: Callable[[str], None] | None = None
    ) -> tuple[dict[str, Any], Outputs | Translations | Captions | None]:
        """The result as JSON values, and what the run says of each example where that is looked at."""
        model, weights = self.model(task, setting, devices)
        evaluation = Evaluation(task, model, devices, batch_size=setting.batch_size)
        return self.judged(evaluation, weights, setting, write=write)

    def model(self, task: Task, setting: Setting, devices: Devices) -> tuple[keras.Model, runs.Weights]:
        """The model with the weights of the checkpoint, and which these are."""
        of_text = isinstance(task, Translation | LanguageModelling | Captioning)
        precision = precision_of(self.run) if of_text else None
        with devices.strategy.scope():
            return runs.load_checkpoint(self.run, self.checkpoint, weights=setting.weights, precision=precision)

    def judged(
        self,
        evaluation: Evaluation,
        weights: runs.Weights,
        setting: Setting,
        *,
        write: Callable[[str], None] | None = None,
    ) -> tuple[dict[str, Any], Outputs | Translations | Captions | None]:
        """As `evaluated`, of a model that is there."""
        run, task, split = self.run, evaluation.task, setting.split
        count = task.size(split)
        judge = next((judge for kind, judge in _JUDGES.items() if isinstance(task, kind)), _classified)
        values, said, found = judge(evaluation, run, setting, write)
        shares = {name: round(values[name] * count) for name in TASKS[run.task].per_example if name in values}
        intervals = {name: metrics.wilson_interval(hits, count) for name, hits in shares.items()}
        result = {
            "run": self.text, "checkpoint": str(self.checkpoint), "task": run.task, "weights": weights,
            "data": task.options["name"], "split": split, "examples": count, **values,
            **({"mirrored": True} if setting.mirror else {}),
            **({"shuffled_images": True} if setting.shuffle_images else {}),
            "intervals": intervals | found.pop("intervals"), **found,
        }  # fmt: skip
        return result, said


# ----------------------------------------------------------------------------------------------- what is said of a task

Write = Callable[[str], None] | None
Said = Outputs | Translations | Captions | None
# The task's metrics, what the run says of each example, and what else is found, with its "intervals".
Judgement = tuple[dict[str, float], Said, dict[str, Any]]


def _decode(run: Run, setting: Setting) -> DecodeSection:
    """How outputs are searched for."""
    return resolve_decode(run.recipe["decode"], flags=setting.decode, path=run.path / "recipe.toml")


def _with_own_words(evaluation: Evaluation, setting: Setting) -> dict[str, float]:
    """The metrics of a decoder that reads the right words and, where that is asked for, of one that reads its own."""
    task, size = evaluation.task, setting.batch_size
    assert isinstance(task, Translation | Captioning)
    values = evaluation(setting.split, decode=False)
    if setting.own_words:
        values["own_words_loss"] = task.own_words_loss(evaluation.model, setting.split, batch_size=size)
    return values


def _translated(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    task, decode = evaluation.task, _decode(run, setting)
    assert isinstance(task, Translation)
    values = _with_own_words(evaluation, setting)
    said = translation_quality.translate(
        task, evaluation.model, setting.split, decode, batch_size=setting.batch_size, write=write
    )
    found = {**translation_quality.quality(said, lowercase=setting.lowercase), "search": decode.model_dump()}
    return values | {"exact": float(said.right.mean())}, said, found


def _captioned(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    """Of one caption for all images there is no loss."""
    task, split, lowercase = evaluation.task, setting.split, setting.lowercase
    assert isinstance(task, Captioning)
    if setting.constant:
        said = caption_quality.one_for_all(task, split, lowercase=lowercase, write=write)
        found = {**caption_quality.quality(said), "constant": said.outputs[0]}
        return {"exact": found.pop("exact")}, said, found
    decode = _decode(run, setting)
    values = _with_own_words(evaluation, setting)
    said = caption_quality.write_captions(
        task, evaluation.model, split, decode, batch_size=setting.batch_size, lowercase=lowercase, write=write
    )
    found = {**caption_quality.quality(said), "search": decode.model_dump()}
    return values | {"exact": found.pop("exact")}, said, found


def _modelled(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    task = evaluation.task
    assert isinstance(task, LanguageModelling)
    values = evaluation(setting.split)
    return values, None, {"tokens": task.tokens(evaluation.model, setting.split), "intervals": {}}


def _told(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    task = evaluation.task
    assert isinstance(task, Sequences)
    values, said = evaluation.with_outputs(setting.split)
    return values, said, sequence_quality.quality(task, setting.split, said.labels, said.logits)


def _classified(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    values, said = evaluation.with_outputs(setting.split)
    found = classification(said, evaluation.task.info["classes"])
    # The labels of one example hang together: as if each were one, intervals would be too narrow.
    found["intervals"] |= {"accuracy": metrics.wilson_interval(int(said.right.sum()), len(said.right))}
    found["intervals"] = found["intervals"] if said.one_each else {}
    return values, said, found


# All other tasks are classifiers.
_JUDGES: Mapping[type[Task], Callable[[Evaluation, Run, Setting, Write], Judgement]] = {
    Translation: _translated, Captioning: _captioned, LanguageModelling: _modelled, Sequences: _told,
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- data of one's own


def _data_section(run: Run, setting: Setting, among: Sequence[Run]) -> dict[str, Any]:
    """The section [data] of a run, or one for another dataset.

    Its images are then made as large as the run's, and its pairs go the run's way. Data that one of the runs was
    trained on is divided as it was then. Any other folder without splits, or file of pairs, is tested on as a whole.
    """
    section: dict[str, Any] = dict(run.recipe["data"])
    kind = TASKS[run.task].data_kind
    own: Mapping[str, Any] = {}
    if setting.data is not None and kind == "corpus":
        if setting.on_bad is not None:
            raise _no_images(setting.data)
        return other_text(
            section, setting.data, is_known=any(_is_same(each.recipe["data"]["name"], setting.data) for each in among),
            folder=setting.data_dir,
        )  # fmt: skip
    if setting.data is not None:
        own = next((each.recipe["data"] for each in among if _is_same(each.recipe["data"]["name"], setting.data)), {})
        section = {**own, "name": setting.data}
        if not own and _is_undivided(setting.data, kind, setting.data_dir):
            section["test"] = "all"
    if setting.data_dir is not None:
        check_data_dir(section["name"], setting.data_dir, kind=kind)
        section["dir"] = setting.data_dir
    options = defaults_of(datasets.builder(section["name"], section.get("dir"), kind=kind))
    if setting.data is not None and kind == "pairs":
        section |= translation_quality.other_pairs(run, setting.data, options, is_known=bool(own))
        section |= {key: value for key in ("source", "target") if (value := getattr(setting, key)) is not None}
    elif setting.data is not None and "size" in options:
        height, width = [*run.info["data"].get("shape", ()), 0, 0][:2]
        if height == width:
            section["size"] = height
    if setting.on_bad is not None:
        if "on_bad" not in options:
            raise _no_images(section["name"])
        section["on_bad"] = check_value(Literal["error", "skip"], setting.on_bad, "--on-bad")
    return section


def _no_images(name: str) -> UsageError:
    return UsageError(f"{name} is no folder of images: --on-bad is for those", "leave it out")


def _is_same(own: str, other: str) -> bool:
    """Whether two names are those of one dataset: the same, or paths of the same folder."""
    one, two = ([path.expanduser().resolve() for path in datasets.paths(name)] or name for name in (own, other))
    return one == two


def _is_undivided(name: str, kind: str, prepared: Path | None) -> bool:
    """Whether a dataset is a folder, of images or of texts, or a file, without splits.

    Args:
        name: of the dataset.
        kind: of `dlkit.data.KINDS`.
        prepared: the folder that prepared sets lie in.
    """
    if kind in {"labelled_texts", "tagged_texts"}:
        return (labelled_texts if kind == "labelled_texts" else tagged_texts).is_undivided(name)
    if kind == "captions":
        return datasets.is_path(name) and caption_files.is_undivided(name)
    of_images = kind == "images" and getattr(datasets.builder(name, prepared, kind=kind), "func", None) is folder
    return is_undivided(name) or (of_images and not has_splits(name))


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


def compare_runs(texts: Sequence[str], setting: Setting = DEFAULT, *, devices: str = "auto") -> dict[str, Any]:
    """Evaluates several classifiers or translators on the same examples, and tests whether one of two is better.

    Args:
        texts: runs or checkpoints, two or more.
        setting: on what, and how.
        devices: what `runtime.devices` takes.

    Returns:
        JSON values: "runs", the results of `evaluate_run`, and for two "paired", as `paired_test` says, or of texts
        `translation_quality.paired_bleu`. Where of their figures only some can be compared, "comparable" names these.

    Raises:
        dlkit.errors.UsageError: the runs are of different tasks, or not for the same examples and classes.
        dlkit.errors.DlkitError: as `evaluate_run`.
    """
    subjects = [Subject.of(text) for text in texts]
    for subject in subjects:
        check_comparable(subjects[0].run, subject.run, same_data=setting.data is None)
    runtime.import_tensorflow()
    where = runtime.devices(devices, alone=True)  # the processes of a cluster evaluate each by itself
    among = [subject.run for subject in subjects]
    tasks: Iterable[Task] = tasks_of(subjects, setting)
    if not TASKS[among[0].task].classifies:
        tasks = list(tasks)
        check_same_examples(texts, tasks, setting.split)
    evaluated = (subject.evaluated(task, setting, where) for subject, task in zip(subjects, tasks, strict=True))
    results, said = zip(*evaluated, strict=True)
    for text, other in zip(texts[1:], said[1:], strict=True):
        if isinstance(other, Outputs) and not np.array_equal(said[0].labels, other.labels):
            raise DataError(f"the {setting.split} splits of {texts[0]} and {text} have come to differ")
    compared: dict[str, Any] = {"runs": list(results)}
    if "bits_per_character" in results[0] and len({run.info["data"]["tokenizer"] for run in among}) > 1:
        compared["comparable"] = ["bits_per_character"]
    if len(subjects) == 2 and said[0] is not None and said[1] is not None:
        compared["paired"] = _paired(said[0], said[1], setting)
    return compared


def _paired(
    first: Outputs | Translations | Captions, second: Outputs | Translations | Captions, setting: Setting
) -> dict[str, Any]:
    if isinstance(first, Captions) and isinstance(second, Captions) and first.is_text:
        return caption_quality.paired_bleu(first, second)
    if isinstance(first, Translations) and isinstance(second, Translations) and first.is_text:
        return translation_quality.paired_bleu(first, second, lowercase=setting.lowercase)
    if isinstance(first, Outputs) and isinstance(second, Outputs):
        if first.labels.dtype.kind == "f":
            return sequence_quality.paired_errors(first.labels, first.logits, second.logits)
        return paired_test(first.right_examples, second.right_examples)
    return paired_test(first.right, second.right)


def check_same_examples(names: Sequence[str], tasks: Sequence[Task], split: str) -> None:
    """Runs may read the same texts with different tokenizers: what is compared is the texts.

    Raises:
        dlkit.errors.UsageError: some are tested on others; or of running text on another part, where it is limited.
    """
    first, *others = (task.tested_on(split) for task in tasks)
    for name, other in zip(names[1:], others, strict=True):
        if first is not None and other != first:
            what, _ = first
            raise UsageError(
                f"{names[0]} and {name} are tested on different {what}",
                f"`--data NAME` evaluates both on the {what} of one dataset",
            )
    cuts = [task.cut for task in tasks if isinstance(task, LanguageModelling) and task.limit]
    if any(cut != cuts[0] for cut in cuts):
        raise UsageError("--limit counts blocks or lines, which these runs cut differently", "leave it out")


def tasks_of(subjects: Sequence[Subject], setting: Setting) -> Iterator[Task]:
    """The tasks of several runs on what they are evaluated on, one after another, since each may hold images.

    Runs that were trained on different images may still be for the same test images: of a published set another number
    may have been held out to validate on.

    Raises:
        dlkit.errors.UsageError: with the first one, when some are tested on other images; or as `Subject.task`.
    """
    among = [subject.run for subject in subjects]
    of_images = TASKS[among[0].task].data_kind == "images"
    if of_images and setting.data is None and any(_trained_on_others(among[0], run) for run in among[1:]):
        tasks = [subject.task(setting, among=among) for subject in subjects]
        check_same_examples([subject.text for subject in subjects], tasks, setting.split)
        while tasks:
            yield tasks.pop(0)
    else:
        for subject in subjects:
            yield subject.task(setting, among=among)


def _trained_on_others(first: Run, other: Run) -> bool:
    """Whether two runs were trained on different data, or do not say."""
    fingerprints = {run.info.get("fingerprint") for run in (first, other)}
    return (len(fingerprints) > 1 or None in fingerprints) and first.path.resolve() != other.path.resolve()


def check_comparable(first: Run, other: Run, *, same_data: bool) -> None:
    """Whether two runs can be compared, as far as they say it themselves.

    Args:
        first: a run.
        other: likewise.
        same_data: whether classifiers need to have been trained on the same data; of images `tasks_of` looks closer.

    Raises:
        dlkit.errors.UsageError: they are of different tasks, or classifiers of other classes or examples.
    """
    titles = [TASKS[run.task].title for run in (first, other)]
    if titles[0] != titles[1]:
        raise UsageError(
            f"{first.path} is a run of {titles[0]}, and {other.path} of {titles[1]}", "evaluate them one by one"
        )
    if not TASKS[first.task].classifies:
        return
    if first.info["data"]["classes"] != other.info["data"]["classes"]:
        raise UsageError(f"{first.path} and {other.path} tell different classes apart", "evaluate them one by one")
    if same_data and TASKS[first.task].data_kind != "images" and _trained_on_others(first, other):
        raise UsageError(
            f"{first.path} and {other.path} were trained on different data",
            "`--data NAME` evaluates both on the examples of one dataset",
        )


def paired_test(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, Any]:
    """Whether one of two runs is better, from where each is right on the same examples.

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
        "better": None if p_value >= metrics.SIGNIFICANT else int(difference < 0),
    }  # fmt: skip
