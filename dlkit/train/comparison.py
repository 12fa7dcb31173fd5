"""Several runs on the same examples: whether they can be compared, and whether one of two is better."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlkit import metrics, runtime
from dlkit.errors import DataError, UsageError
from dlkit.runs import Run
from dlkit.tasks import TASKS
from dlkit.tasks.language_modelling import LanguageModelling
from dlkit.tasks.task import Task
from dlkit.train import caption_quality, sequence_quality, translation_quality
from dlkit.train.caption_quality import Captions
from dlkit.train.evaluation import Outputs
from dlkit.train.run_evaluation import Candidate, Predictions
from dlkit.train.setting import DEFAULT, Setting
from dlkit.train.translation_quality import Translations

# A tokenizer that makes one space of several changes at most this share of the lines of a usual text, which is too
# little to change a digit of the losses that are printed.
FEW = 1e-3


def compare_runs(texts: Sequence[str], setting: Setting = DEFAULT, *, devices: str = "auto") -> dict[str, Any]:
    """Evaluates several classifiers or translators on the same examples, and tests whether one of two is better.

    Args:
        texts: runs or checkpoints, two or more.
        setting: on what, and how.
        devices: what `runtime.devices` takes.

    Returns:
        JSON values: "runs", the results of `evaluate_run`, and for two "paired", as `paired_test` says, or of texts
        `translation_quality.paired_bleu`. Where of their figures only some can be compared, or none, "comparable" names
        these: of language models with different tokens the bits per character, unless one has unknown tokens, whose
        letters nobody foretells, or tokens of an easier text, such as one in lower case.

    Raises:
        dlkit.errors.UsageError: the runs are of different tasks, or not for the same examples and classes.
        dlkit.errors.DlkitError: as `evaluate_run`.
    """
    candidates = [Candidate.of(text) for text in texts]
    for candidate in candidates:
        check_comparable(candidates[0].run, candidate.run, same_data=setting.data is None)
    runtime.import_tensorflow()
    where = runtime.devices(devices, alone=True)  # the processes of a cluster evaluate each by itself
    among = [candidate.run for candidate in candidates]
    tasks: Iterable[Task] = tasks_of(candidates, setting)
    if not TASKS[among[0].task].classifies:
        tasks = list(tasks)
        check_same_examples(texts, tasks, setting.split)
    evaluated = (candidate.evaluated(task, setting, where) for candidate, task in zip(candidates, tasks, strict=True))
    results, outputs = zip(*evaluated, strict=True)
    for text, other in zip(texts[1:], outputs[1:], strict=True):
        if isinstance(other, Outputs) and not np.array_equal(outputs[0].labels, other.labels):
            raise DataError(f"the {setting.split} splits of {texts[0]} and {text} have come to differ")
    compared: dict[str, Any] = {"runs": list(results)}
    if "bits_per_character" in results[0] and len({run.info["data"]["tokenizer"] for run in among}) > 1:
        is_same = not any(result["unknown"] for result in results) and all(
            isinstance(task, LanguageModelling) and task.altered_share(setting.split) <= FEW for task in tasks
        )
        compared["comparable"] = ["bits_per_character"] if is_same else []
    if len(candidates) == 2 and outputs[0] is not None and outputs[1] is not None:
        compared["paired"] = _paired(outputs[0], outputs[1], setting)
    return compared


def _paired(first: Predictions, second: Predictions, setting: Setting) -> dict[str, Any]:
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


def tasks_of(candidates: Sequence[Candidate], setting: Setting) -> Iterator[Task]:
    """The tasks of several runs on what they are evaluated on, one after another, since each may hold images.

    Runs that were trained on different images may still be for the same test images: of a published set another number
    may have been held out to validate on.

    Raises:
        dlkit.errors.UsageError: with the first one, when some are tested on other images; or as `Candidate.task`.
    """
    among = [candidate.run for candidate in candidates]
    of_images = TASKS[among[0].task].data_kind == "images"
    if of_images and setting.data is None and any(_trained_on_others(among[0], run) for run in among[1:]):
        tasks = [candidate.task(setting, among=among) for candidate in candidates]
        check_same_examples([candidate.text for candidate in candidates], tasks, setting.split)
        while tasks:
            yield tasks.pop(0)
    else:
        for candidate in candidates:
            yield candidate.task(setting, among=among)


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
