"""The evaluation of a run: its checkpoint, the data that it is tested on, and the figures of its task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from dlkit import metrics, runs, runtime
from dlkit.errors import DataError
from dlkit.recipe import DecodeSection, resolve_decode
from dlkit.runs import Run
from dlkit.runtime import Devices
from dlkit.tasks import TASKS
from dlkit.tasks.captioning import Captioning
from dlkit.tasks.image_classification import ImageClassification
from dlkit.tasks.language_modelling import LanguageModelling
from dlkit.tasks.sequences import Sequences
from dlkit.tasks.task import Task, open_task
from dlkit.tasks.translation import Translation
from dlkit.tasks.translator import precision_of
from dlkit.train import caption_quality, class_quality, sequence_quality, translation_quality
from dlkit.train.caption_quality import Captions
from dlkit.train.evaluation import Evaluation, Outputs
from dlkit.train.evaluation_data import data_section
from dlkit.train.setting import DEFAULT, Setting, about_writing, check_about
from dlkit.train.translation_quality import Translations

Predictions = Outputs | Translations | Captions  # what a model gives for each example, as its task has it


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
        write: is called with each text as soon as it is there, in the order of the split; for runs that write.
        keep: is called with the task and with the outputs of the run for each example; None of language models.

    Returns:
        JSON values: "run", "checkpoint", "task", "weights", "data", "split", "examples", the task's metrics by name,
        "intervals" (metric -> 95 % interval, of Wilson for those that are shares of the examples), of a classifier all
        that `quality` of `class_quality` says, and of translations and captions all that `quality` of
        `translation_quality` or `caption_quality` says, with the settings of their "search"; of language models the
        number of "tokens" that are to be foretold, and the share of these that are "unknown"; of texts "remarks" on
        what is not read of them, or not known.

    Raises:
        dlkit.errors.DlkitError: no such run, checkpoint or split; the checkpoint is damaged or does not fit; the other
            dataset has other classes or goes the other way; or `setting` or `write` is for runs of another kind.
    """
    candidate = Candidate.of(text)
    if write:
        check_about([about_writing("`write`")], candidate.run)
    runtime.import_tensorflow()
    task = candidate.task(setting)
    result, outputs = candidate.evaluated(task, setting, runtime.devices(devices, alone=True), write=write)
    if keep:
        keep(task, outputs)
    return result


@dataclass(frozen=True)
class Candidate:
    """A run and the checkpoint of it that is evaluated; as the user named it, `text`."""

    text: str
    run: Run
    checkpoint: Path

    @classmethod
    def of(cls, text: str) -> "Candidate":
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
            data_section(run, setting, among or [run]),
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
    ) -> tuple[dict[str, Any], Predictions | None]:
        """The result as JSON values, and the outputs for each example where these are looked at."""
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
    ) -> tuple[dict[str, Any], Predictions | None]:
        """As `evaluated`, of a model that is there."""
        run, task, split = self.run, evaluation.task, setting.split
        count = task.size(split)
        judge = next((judge for kind, judge in _JUDGES.items() if isinstance(task, kind)), _judge_classes)
        values, outputs, found = judge(evaluation, run, setting, write)
        shares = {name: round(values[name] * count) for name in TASKS[run.task].per_example if name in values}
        intervals = {name: metrics.wilson_interval(hits, count) for name, hits in shares.items()}
        result = {
            "run": self.text, "checkpoint": str(self.checkpoint), "task": run.task, "weights": weights,
            "data": task.options["name"], "split": split, "examples": count, **values,
            **({"mirrored": True} if setting.mirror else {}),
            **({"shuffled_images": True} if setting.shuffle_images else {}),
            **({"remarks": remarks} if (remarks := task.remarks_on(split)) else {}),
            "intervals": intervals | found.pop("intervals"), **found,
        }  # fmt: skip
        return result, outputs


# -------------------------------------------------------------------------------------------------- figures of the task

Write = Callable[[str], None] | None
# The task's metrics, the outputs for each example, and what else is found, with its "intervals".
Judgement = tuple[dict[str, float], Predictions | None, dict[str, Any]]


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


def _judge_translations(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    task, decode = evaluation.task, _decode(run, setting)
    assert isinstance(task, Translation)
    values = _with_own_words(evaluation, setting)
    translations = translation_quality.translate(
        task, evaluation.model, setting.split, decode, batch_size=setting.batch_size, write=write
    )
    found = translation_quality.quality(translations, lowercase=setting.lowercase)
    return values | {"exact": float(translations.right.mean())}, translations, {**found, "search": decode.model_dump()}


def _judge_captions(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    """Of one caption for all images there is no loss."""
    task, split, lowercase = evaluation.task, setting.split, setting.lowercase
    assert isinstance(task, Captioning)
    if setting.constant:
        captions = caption_quality.one_for_all(task, split, lowercase=lowercase, write=write)
        found = {**caption_quality.quality(captions), "constant": captions.outputs[0]}
        return {"exact": found.pop("exact")}, captions, found
    decode = _decode(run, setting)
    values = _with_own_words(evaluation, setting)
    captions = caption_quality.write_captions(
        task, evaluation.model, split, decode, batch_size=setting.batch_size, lowercase=lowercase, write=write
    )
    found = {**caption_quality.quality(captions), "search": decode.model_dump()}
    return values | {"exact": found.pop("exact")}, captions, found


def _judge_language_model(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    task = evaluation.task
    assert isinstance(task, LanguageModelling)
    values = evaluation(setting.split)
    model, split = evaluation.model, setting.split
    found = {"tokens": task.tokens(model, split), "unknown": task.unknown_share(model, split), "intervals": {}}
    return values, None, found


def _judge_sequences(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    task = evaluation.task
    assert isinstance(task, Sequences)
    values, outputs = evaluation.with_outputs(setting.split)
    return values, outputs, sequence_quality.quality(task, setting.split, outputs.labels, outputs.logits)


def _judge_classes(evaluation: Evaluation, run: Run, setting: Setting, write: Write) -> Judgement:
    values, outputs = evaluation.with_outputs(setting.split)
    found = class_quality.quality(outputs, evaluation.task.info["classes"])
    # The labels of one example hang together: as if each were one, intervals would be too narrow.
    found["intervals"] |= {"accuracy": metrics.wilson_interval(int(outputs.right.sum()), len(outputs.right))}
    found["intervals"] = found["intervals"] if outputs.one_each else {}
    return values, outputs, found


# All other tasks are classifiers.
_JUDGES: Mapping[type[Task], Callable[[Evaluation, Run, Setting, Write], Judgement]] = {
    Translation: _judge_translations, Captioning: _judge_captions, LanguageModelling: _judge_language_model,
    Sequences: _judge_sequences,
}  # fmt: skip
