"""Members put together, against what NumPy makes of their probabilities and numbers."""

import numpy as np
import pytest

from dlkit.train import ensembles
from dlkit.train.evaluation import Outputs


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def classes(rows, members=3, count=4, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(count, size=rows).astype(np.int32)
    logits = draw.normal(size=(members, rows, count)) + 1.5 * np.eye(count)[labels]
    outputs = [Outputs(labels, each, np.arange(rows)) for each in logits]
    records = [
        {"name": f"m{at}", "loss": float(at), "accuracy": float((each.argmax(1) == labels).mean())}
        for at, each in enumerate(logits)
    ]
    return labels, logits, ensembles.combined(outputs, records)


def test_the_averaged_probabilities_against_numpy():
    labels, logits, found = classes(300)
    mean = softmax(logits).mean(axis=0)
    assert found["averaged"]["accuracy"] == pytest.approx((mean.argmax(1) == labels).mean())
    assert found["averaged"]["loss"] == pytest.approx(-np.log(mean[np.arange(300), labels]).mean())
    errors = mean - np.eye(4)[labels]
    assert found["averaged"]["brier"] == pytest.approx((errors**2).sum(axis=1).mean())
    low, high = found["averaged"]["interval"]
    assert low < found["averaged"]["accuracy"] < high


def test_the_vote_the_disagreement_and_the_best_against_numpy():
    labels, logits, found = classes(300)
    named, mean = logits.argmax(axis=2), softmax(logits).mean(axis=0)
    counts = np.stack([(named == label).sum(axis=0) for label in range(4)], axis=1)
    chosen = np.where(counts == counts.max(axis=1, keepdims=True), mean, -1).argmax(axis=1)
    assert found["vote"]["accuracy"] == pytest.approx((chosen == labels).mean())
    assert found["vote"]["ties"] == (counts.max(axis=1) == 1).sum(), "of three members: all say something else"
    pairs = [(named[a] != named[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found["disagreement"] == pytest.approx(np.mean(pairs))
    accuracies = (named == labels).mean(axis=1)
    assert found["mean"] == {"loss": 1.0, "accuracy": pytest.approx(accuracies.mean())}
    assert found["best"]["name"] == f"m{accuracies.argmax()}"
    right, best = mean.argmax(1) == labels, named[accuracies.argmax()] == labels
    assert found["against_best"]["only_first"] == (right & ~best).sum()
    assert found["against_best"]["only_second"] == (~right & best).sum()


def test_of_equal_members_the_best_is_the_one_with_the_lower_loss():
    labels = np.array([0, 1], np.int32)
    outputs = [Outputs(labels, sure * np.eye(2)[labels], np.arange(2)) for sure in (1.0, 3.0, 2.0)]
    records = [{"name": f"m{at}", "loss": loss, "accuracy": 1.0} for at, loss in enumerate((0.3, 0.05, 0.1))]
    assert ensembles.combined(outputs, records)["best"] == {"name": "m1", "loss": 0.05, "accuracy": 1.0}
    records[2]["accuracy"] = 1.5  # the measure stands before the loss
    assert ensembles.combined(outputs, records)["best"]["name"] == "m2"


def test_fewer_members_are_averaged_over_choices_of_them():
    labels, logits, found = classes(200)
    probabilities = softmax(logits)

    def accuracy(*chosen):
        return (probabilities[list(chosen)].mean(axis=0).argmax(axis=1) == labels).mean()

    singles, pairs = [accuracy(at) for at in range(3)], [accuracy(0, 1), accuracy(1, 2), accuracy(2, 0)]
    assert found["by_size"] == pytest.approx([np.mean(singles), np.mean(pairs), accuracy(0, 1, 2)])


def test_answers_that_hang_together_have_no_interval_and_are_tested_by_example():
    labels = np.array([0, 1, 1, 0], np.int32)
    right, wrong = np.eye(2)[labels] * 4, np.eye(2)[1 - labels] * 2
    examples = np.array([0, 0, 1, 1])
    half = np.concatenate([right[:3], wrong[3:]])
    outputs = [Outputs(labels, logits, examples) for logits in (right, half)]
    records = [{"name": "a", "loss": 0.0, "accuracy": 1.0}, {"name": "b", "loss": 0.0, "accuracy": 0.75}]
    found = ensembles.combined(outputs, records)
    assert found["averaged"]["interval"] is None
    assert sum(found["against_best"][key] for key in ("both_right", "only_first", "only_second", "both_wrong")) == 2
    assert (found["vote"]["ties"], found["vote"]["accuracy"]) == (1, 1.0)  # 4 against 2: the surer one is right


def test_numbers_are_averaged_and_the_gain_is_the_spread():
    draw = np.random.default_rng(0)
    labels = draw.normal(size=(40, 2)).astype(np.float32)
    told = labels + draw.normal(size=(3, 40, 2))
    outputs = [Outputs(labels, each, np.arange(40)) for each in told]
    records = [
        {"name": str(at), "loss": 0.0, "mse": float(((each - labels) ** 2).mean())} for at, each in enumerate(told)
    ]
    found = ensembles.combined(outputs, records)
    assert found["measure"] == "mse"
    assert found["averaged"]["mse"] == pytest.approx(((told.mean(axis=0) - labels) ** 2).mean())
    assert found["averaged"]["mse"] == pytest.approx(found["mean"]["mse"] - found["spread"])
    assert found["best"]["mse"] == min(record["mse"] for record in records)
    assert found["by_size"][0] == pytest.approx(found["mean"]["mse"])
    assert "vote" not in found
