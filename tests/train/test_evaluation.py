"""The pass over a split: each example counts once, over devices and processes."""

import numpy as np
import pytest
import tensorflow as tf
from test_step import devices, small_net

from dlkit.runtime import Devices
from dlkit.tasks.image_classification import ImageClassification
from dlkit.train.evaluation import Evaluation


@pytest.fixture(scope="module")
def task():
    return ImageClassification({"name": "digits", "size": 8}, seed=1, limit=50)


def test_every_example_is_evaluated_by_one_of_the_processes(task, monkeypatch):
    """The last batch of 50, 2 examples of 8, leaves nothing for two of four processes of two devices each."""
    model, shape = small_net(norm=False, dropout=False), tuple(task.info["shape"])
    read = []
    fetch = type(task.data.splits["train"]).fetch
    monkeypatch.setattr(
        type(task.data.splits["train"]), "fetch", lambda split, rows: read.append(len(rows)) or fetch(split, rows)
    )
    labels = task.data.splits["train"].labels
    for indices in (np.arange(40, 48), np.arange(48, 50)):
        parts = []
        for worker in range(4):
            where = Devices(tf.distribute.get_strategy(), "", worker, 4, replicas=8, local_replicas=2)
            parts.append(Evaluation(task, model, where, batch_size=8)._rows("train", indices, 8))
        assert all(part["images"].shape == (2, *shape) for part in parts)
        weights = np.concatenate([part["row_weights"] for part in parts])
        assert weights.tolist() == [1.0] * len(indices) + [0.0] * (8 - len(indices))
        real = np.concatenate([part["labels"] for part in parts])[weights > 0]
        np.testing.assert_array_equal(real, labels[indices])
    assert read == [2] * 8, "none decodes those of another"


def test_evaluation_counts_every_example_once(task):
    """A batch size that does not divide 50, on one and on three devices, against a plain loop."""
    model = small_net(norm=True, dropout=True)
    split = task.data.splits["train"]
    logits = model(task.batch("train", np.arange(50), epoch=None)["images"], training=False).numpy()
    labels = split.labels[:50]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss, accuracy = -log_p[np.arange(50), labels].mean(), (logits.argmax(1) == labels).mean()
    for count, batch_size in [(1, 50), (1, 16), (3, 16)]:
        where = devices(count)
        with where.strategy.scope():
            copy = small_net(norm=True, dropout=True)
        values = Evaluation(task, copy, where, batch_size=batch_size)("train")
        np.testing.assert_allclose(values["loss"], loss, rtol=1e-5)
        assert values["accuracy"] == pytest.approx(accuracy, abs=1e-12)
