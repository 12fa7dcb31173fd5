"""Heads on a shared trunk: what they share, what each has for itself, and on what each is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import models, runtime
from dlkit.data.images import ImageData, ImageSplit
from dlkit.data.resampling import Resampling, bootstrap
from dlkit.errors import UsageError
from dlkit.models.heads import log_mean_probabilities, of_each_head
from dlkit.runs import named_variables
from dlkit.tasks.image_classification import ImageClassification
from dlkit.train.optimizers import SGD
from dlkit.train.step import TrainingStep


def build(**options):
    keras.utils.set_random_seed(0)
    return models.build("heads", input_shape=(8, 8, 1), classes=3, **{"trunk": "mlp", "heads": 2} | options)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_the_outputs_are_the_logarithm_of_the_mean_probabilities():
    logits = np.random.default_rng(0).normal(scale=5, size=(4, 3, 6))
    mean = log_mean_probabilities(tf.constant(logits)).numpy()
    np.testing.assert_allclose(np.exp(mean), softmax(logits).mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("branch", "shared", "own"),
    # 64 inputs, hidden 10 and 6, 3 classes: (64 + 1) 10 = 650, (10 + 1) 6 = 66, (6 + 1) 3 = 21
    [(None, 650 + 66, 21), ("dense2", 650, 66 + 21), ("dense1", 0, 650 + 66 + 21)],
)
def test_all_layers_from_the_branch_on_are_there_for_each_head(branch, shared, own):
    net = build(branch=branch, heads=4, trunk_options={"hidden": [10, 6]})
    assert net.count_params() == shared + 4 * own
    names = list(named_variables(net))
    assert len(set(names)) == len(names)
    assert {"head1_head/kernel", "head4_head/kernel"} <= set(names)
    parts = of_each_head(net)
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    outputs = [softmax(part(images).numpy()) for part in parts]
    assert len(outputs) == 4
    assert all(np.abs(one - outputs[0]).max() > 1e-3 for one in outputs[1:]), "weights of their own"
    np.testing.assert_allclose(softmax(net(images).numpy()), np.mean(outputs, axis=0), rtol=1e-5)
    each = net(images, training=True).numpy()  # no dropout, no norm
    np.testing.assert_allclose(softmax(each), np.stack(outputs, axis=1), rtol=1e-5)
    assert of_each_head(models.build("mlp", input_shape=(8, 8, 1), classes=3)) == []


def test_a_residual_net_can_be_divided_where_its_ways_meet():
    with pytest.raises(UsageError, match="other ways lead past that layer") as wrong:
        build(trunk="resnet20", branch="stage3_block1_conv1")
    place = wrong.value.hint.split("`")[1]
    net = build(trunk="resnet20", branch=place)
    names = {name.partition("/")[0] for name in named_variables(net)}
    assert {"stage2_block3_conv2", "head1_stage3_block1_conv1", "head2_stage3_block3_conv2"} <= names
    assert "stage3_block1_conv1" not in names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trunk": "lstm"}, "no image net"),
        ({"trunk": "heads"}, "no image net"),
        ({"branch": "dens1"}, "no such layer"),
        ({"branch": "image"}, "cannot be divided there"),
        ({"trunk_options": {"hiden": [3]}}, "hiden"),
        ({"heads": 1}, "model.heads"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UsageError, match=message):
        build(**options)


LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)


def task_of(resampling=None):
    task = ImageClassification({"name": "made"}, seed=3, resampling=resampling)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)).astype(np.uint8)
    split = ImageSplit(images, LABELS)
    task.data = ImageData("made", ["a", "b", "c"], {"train": split})
    return task


def losses_of(net, batch):
    """(rows, heads), by NumPy from the logits."""
    logits = net(batch["images"], training=True).numpy().astype(np.float64)
    return -np.log(softmax(logits))[np.arange(len(batch["labels"])), :, batch["labels"]]


def test_the_loss_is_the_mean_of_those_of_the_heads():
    net, task = build(), task_of()
    batch = task.batch("train", np.arange(6), epoch=0)
    found = task.loss_sums(net, {key: tf.constant(value) for key, value in batch.items()}, training=True, smoothing=0.0)
    assert float(found.loss) == pytest.approx(losses_of(net, batch).mean(axis=1).sum(), rel=1e-5)
    assert float(found.weight) == 6
    together = softmax(net(batch["images"]).numpy()).argmax(axis=1)
    assert float(found.metrics["accuracy"][0]) == (together == LABELS).sum()
    assert found.logits.shape == (6, 3)


def test_each_head_weighs_an_example_as_often_as_its_own_sample_has_it():
    net, task = build(), task_of(Resampling("head_bootstrap", seed=3))
    task.check_model(net)
    rows = np.array([4, 0, 2])
    batch = task.batch("train", rows, epoch=0)
    counts = np.stack([np.bincount(bootstrap(6, seed=3, draw=head), minlength=6) for head in range(2)], axis=1)[rows]
    found = task.loss_sums(net, {key: tf.constant(value) for key, value in batch.items()}, training=True, smoothing=0.0)
    assert float(found.loss) == pytest.approx((counts * losses_of(net, batch)).sum() / 2, rel=1e-5)
    assert float(found.weight) == counts.sum() / 2
    with pytest.raises(UsageError, match="mlp has none"):
        task.check_model(models.build("mlp", input_shape=(8, 8, 1), classes=3))


def test_a_step_moves_a_head_as_if_it_were_alone_with_half_the_loss():
    """The gradient of a head is that of its own loss, divided by the number of heads; the trunk gets the sum of both.

    Plain SGD with rate 1: what a weight loses is its gradient, here from finite differences of NumPy's mean loss.
    """
    net, task = build(trunk_options={"hidden": [4]}), task_of(Resampling("head_bootstrap", seed=3))
    batch = task.batch("train", np.arange(6), epoch=0)
    counts = task.resampling.head_counts(6, 2).astype(np.float64)
    variables = named_variables(net)
    before = {name: variable.numpy().astype(np.float64) for name, variable in variables.items()}

    def loss(name, at, off):
        weights = before[name].copy()
        weights[at] += off
        w = {**before, name: weights}
        x = np.maximum(batch["images"].reshape(6, -1) @ w["dense1/kernel"] + w["dense1/bias"], 0)
        total = 0.0
        for head in (1, 2):
            p = softmax(x @ w[f"head{head}_head/kernel"] + w[f"head{head}_head/bias"])
            total += (counts[:, head - 1] * -np.log(p[np.arange(6), LABELS])).sum()
        return total / counts.sum()

    step = TrainingStep(task, net, SGD(momentum=0.0), runtime.devices("cpu"))
    step(batch, step=0, lr=1.0)
    for name in ("dense1/kernel", "head1_head/kernel", "head2_head/bias"):
        for at in list(np.ndindex(before[name].shape))[:5]:
            wanted = (loss(name, at, 1e-5) - loss(name, at, -1e-5)) / 2e-5
            assert before[name][at] - variables[name].numpy()[at] == pytest.approx(wanted, abs=2e-5)
