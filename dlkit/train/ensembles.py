"""Several runs, or the heads of one, evaluated together: each by itself, averaged, and by a vote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dlkit import ensemble_metrics, metrics, runs, runtime
from dlkit.errors import DataError, UsageError
from dlkit.models.heads import of_each_head
from dlkit.runtime import Devices
from dlkit.summary import summarize
from dlkit.tasks import TASKS
from dlkit.tasks.task import Task
from dlkit.train import checkpoints, class_quality, sequence_quality
from dlkit.train.comparison import check_comparable, paired_test, tasks_of
from dlkit.train.evaluation import Evaluation, Outputs
from dlkit.train.run_evaluation import Candidate
from dlkit.train.setting import Setting, not_together

# Figures of averaged probabilities that `class_quality` finds.
ALSO = ("macro_f1", "brier", "ece")


@dataclass(frozen=True)
class Member:
    """One voice of an ensemble.

    Args:
        record: JSON values: its "name", figures and cost.
        outputs: of it for each example.
    """

    record: dict[str, Any]
    outputs: Outputs


def check_ensemble(opened: Sequence[runs.Run]) -> None:
    """Says what cannot be averaged, before TensorFlow takes its time.

    Raises:
        dlkit.errors.UsageError: the runs write texts.
    """
    task = TASKS[opened[0].task]
    if task.instead_of_ensemble:
        what = f"ensembles of {task.title} are not evaluated, and {opened[0].path} is a run of it"
        raise UsageError(what, task.instead_of_ensemble)
    if task.data_kind == "pairs" and len(opened) == 1:
        raise UsageError(f"an ensemble has several members, and {opened[0].path} is one", "name several runs")


def evaluate_ensemble(texts: Sequence[str], setting: Setting, *, devices: str = "auto") -> dict[str, Any]:
    """Evaluates runs on the same examples, one by one and together.

    Args:
        texts: runs or checkpoints; or one run of a net with several heads, which are the members then.
        setting: on what, and how.
        devices: what `runtime.devices` takes.

    Returns:
        JSON values: "task", "data", "split", "examples", "batch_size"; "measure", `accuracy` or `mse`; "members", each
        with its "name", "loss", the measure with its "interval", and cost: "parameters", "multiply_adds" of an answer,
        "training_seconds" (None where no run says it) and "answer_seconds"; their "mean" and their "best", of equals
        the one with the lowest loss; "averaged", their mean probabilities or numbers; "by_size", what the average of
        fewer members would reach, a mean over as many choices as there are members; "cost", all members together.

        Of classes besides "vote", with the number of "ties"; "disagreement", the share of answers in which two members
        differ, on average, and for each pair "disagreements"; "against_best", the paired test of the average and the
        best member, on whole examples. Of numbers besides "spread", the mean squared distance of the members from their
        mean. Of translations see `translator_ensembles`.

    Raises:
        dlkit.errors.UsageError: there is one member alone, the runs are not of the same task, classes and data, or the
            setting is about one run.
        dlkit.errors.DlkitError: as `evaluate_run`.
    """
    if setting.own_words:
        raise not_together("--own-words")
    candidates = [Candidate.of(text) for text in texts]
    check_ensemble([candidate.run for candidate in candidates])
    for candidate in candidates:
        check_comparable(candidates[0].run, candidate.run, same_data=setting.data is None)
    runtime.import_tensorflow()
    where = runtime.devices(devices, alone=True)
    among = [candidate.run for candidate in candidates]
    if TASKS[among[0].task].data_kind == "pairs":
        from dlkit.train.translator_ensembles import translated_together

        return translated_together(candidates, setting, where)
    members: list[Member] = []
    cost: dict[str, Any] = {}
    for candidate, task in zip(candidates, tasks_of(candidates, setting), strict=True):
        model, weights = candidate.model(task, setting, where)
        parts = of_each_head(model) if len(candidates) == 1 else []
        if len(candidates) == 1 and len(parts) < 2:
            raise UsageError(
                f"an ensemble has several members, and {candidate.text} is one",
                "name several runs; `dlkit ensemble MODEL --by heads` trains a net with several heads",
            )
        whole = Evaluation(task, model, where, batch_size=setting.batch_size)
        if parts:
            members += [_head(number, part, task, where, setting) for number, part in enumerate(parts, 1)]
            cost = _cost(candidate, whole, setting.split)
        else:
            result, outputs = candidate.judged(whole, weights, setting)
            assert isinstance(outputs, Outputs)
            record = _record(candidate.text, result, outputs, _cost(candidate, whole, setting.split))
            members.append(Member(record, outputs))
    _check_same(members, setting.split)
    found = {
        "task": among[0].task, "data": task.options["name"], "split": setting.split,
        "examples": task.size(setting.split), "batch_size": setting.batch_size,
        **combined([member.outputs for member in members], [member.record for member in members]),
    }  # fmt: skip
    return found | {"cost": cost or total_cost([member.record for member in members])}


def _head(number: int, model: keras.Model, task: Task, devices: Devices, setting: Setting) -> Member:
    """One head of a net; what it costs says the whole net."""
    evaluation = Evaluation(task, model, devices, batch_size=setting.batch_size)
    values, outputs = evaluation.with_outputs(setting.split)
    return Member(_record(f"head {number}", values, outputs, {}), outputs)


def _record(name: str, values: Mapping[str, Any], outputs: Outputs, cost: Mapping[str, Any]) -> dict[str, Any]:
    measure = measure_of(outputs)
    return {"name": name, "loss": values["loss"], measure: values[measure], "interval": _interval(outputs), **cost}


def best_of(records: Sequence[dict[str, Any]], measure: str, *, highest: bool) -> dict[str, Any]:
    """The best of some members: the one with the best measure, of equals with the lowest loss."""
    sign = -1 if highest else 1
    return min(records, key=lambda record: (sign * record[measure], record["loss"]))


def measure_of(outputs: Outputs) -> str:
    """What an ensemble is measured by: `mse` of numbers, `accuracy` of classes."""
    return "mse" if outputs.labels.dtype.kind == "f" else "accuracy"


def _interval(outputs: Outputs) -> list[float] | None:
    """The 95 % interval of the measure; None of an accuracy over things that hang together, such as words."""
    if measure_of(outputs) == "mse":
        return list(sequence_quality.numbers(outputs.labels, outputs.logits)["intervals"]["mse"])
    return list(metrics.wilson_interval(int(outputs.right.sum()), len(outputs.right))) if outputs.one_each else None


def _cost(candidate: Candidate, evaluation: Evaluation, split: str) -> dict[str, Any]:
    fixed = cost_of(candidate.run, evaluation.model, evaluation.task)
    return fixed | {"answer_seconds": evaluation.answer_seconds(split)}


def cost_of(run: runs.Run, model: keras.Model, task: Task) -> dict[str, Any]:
    """What a member has, does for an example, and took to train: None where the run does not say."""
    last = run.pointer("last")
    state = checkpoints.read_state(run.path / "checkpoints" / last) if last else {}
    return {
        "parameters": model.count_params(),
        "multiply_adds": summarize(model, task.example_inputs()).multiply_adds,
        "training_seconds": state.get("seconds"),
    }


def total_cost(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all members cost together; None where one of them does not say."""
    keys = ("parameters", "multiply_adds", "training_seconds", "answer_seconds")
    values = {key: [record[key] for record in records] for key in keys}
    return {key: None if None in found else sum(found) for key, found in values.items()}


def _check_same(members: Sequence[Member], split: str) -> None:
    first = members[0]
    for other in members[1:]:
        if not np.array_equal(first.outputs.labels, other.outputs.labels):
            names = f"{first.record['name']} and {other.record['name']}"
            raise DataError(f"the {split} splits of {names} differ", "`--data NAME` evaluates all on one dataset")


# ------------------------------------------------------------------------------------------------------ put together


def combined(outputs: Sequence[Outputs], records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the members say together, as `evaluate_ensemble` describes it.

    Args:
        outputs: of each member for the same examples.
        records: of each member "name", "loss" and the measure.
    """
    measure = measure_of(outputs[0])
    best = best_of(records, measure, highest=measure == "accuracy")
    figures = ("loss", measure)
    found: dict[str, Any] = {
        "measure": measure, "members": records,
        "mean": {name: float(np.mean([record[name] for record in records])) for name in figures},
        "best": {name: best[name] for name in ("name", *figures)},
    }  # fmt: skip
    if measure == "mse":
        return found | _of_numbers(outputs)
    return found | _of_classes(outputs, records.index(best))


def _of_classes(outputs: Sequence[Outputs], best: int) -> dict[str, Any]:
    labels, examples = outputs[0].labels, outputs[0].examples
    probabilities = np.stack([metrics.softmax(each.logits) for each in outputs])  # (members, n, classes)
    named = np.stack([each.logits.argmax(axis=1) for each in outputs])
    mean = probabilities.mean(axis=0)
    with np.errstate(divide="ignore"):
        averaged = Outputs(labels, np.log(mean), examples)  # whose softmax is the mean again
    vote = ensemble_metrics.majority_vote(named, mean)
    right = Outputs(labels, np.eye(mean.shape[1])[vote.classes], examples)
    also = class_quality.quality(averaged, [str(at) for at in range(mean.shape[1])])
    apart = ensemble_metrics.disagreements(named)

    def accuracy(chosen: NDArray[np.int64]) -> float:
        return float((probabilities[chosen].mean(axis=0).argmax(axis=1) == labels).mean())

    return {
        "averaged": {
            "accuracy": float(averaged.right.mean()), "loss": ensemble_metrics.log_loss(mean, labels),
            "interval": _interval(averaged), **{name: also[name] for name in ALSO},
        },
        "vote": {
            "accuracy": float(right.right.mean()), "interval": _interval(right), "ties": int(vote.tied.sum())
        },
        "disagreement": ensemble_metrics.mean_of_pairs(apart), "disagreements": apart.tolist(),
        "against_best": paired_test(averaged.right_examples, outputs[best].right_examples),
        "by_size": [float(np.mean([accuracy(chosen) for chosen in _choices(len(outputs), size)]))
                    for size in range(1, len(outputs) + 1)],
    }  # fmt: skip


def _of_numbers(outputs: Sequence[Outputs]) -> dict[str, Any]:
    labels = outputs[0].labels
    numbers = np.stack([each.logits for each in outputs]).astype(np.float64)  # (members, n, outputs)
    averaged = Outputs(labels, numbers.mean(axis=0), outputs[0].examples)
    figures = sequence_quality.numbers(labels, averaged.logits)
    found = ensemble_metrics.ambiguity(numbers, labels)

    def error(chosen: NDArray[np.int64]) -> float:
        return ensemble_metrics.ambiguity(numbers[chosen], labels).error

    return {
        "averaged": {
            "mse": found.error, "interval": figures["intervals"]["mse"], "mae": figures["mae"], "r2": figures["r2"]
        },
        "spread": found.spread,
        "by_size": [float(np.mean([error(chosen) for chosen in _choices(len(outputs), size)]))
                    for size in range(1, len(outputs) + 1)],
    }  # fmt: skip


def _choices(members: int, size: int) -> list[NDArray[np.int64]]:
    """Choices of so many members, in which each is as often as the others: those that follow on each other in a ring.

    Example:
        >>> [choice.tolist() for choice in _choices(3, 2)]
        [[0, 1], [1, 2], [2, 0]]
    """
    starts = range(members if size < members else 1)
    return [(start + np.arange(size)) % members for start in starts]
