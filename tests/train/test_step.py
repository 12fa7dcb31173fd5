"""The update against NumPy, and what a step refuses to do. That devices change nothing: test_equality."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import runtime
from dlkit.layers.dropout import Dropout
from dlkit.layers.norms import BatchNorm
from dlkit.tasks.image_classification import ImageClassification
from dlkit.tasks.task import Sums, Task
from dlkit.train.clipping import Clipping, clip_by_global_norm, clip_by_value, global_norm
from dlkit.train.optimizers import SGD, Adam, AdamW
from dlkit.train.step import TrainingStep, dense


def devices(count):
    if count == 1:
        return runtime.Devices(tf.distribute.get_strategy(), "one")
    names = [f"CPU:{index}" for index in range(count)]
    strategy = tf.distribute.MirroredStrategy(names, tf.distribute.ReductionToOneDevice())
    return runtime.Devices(strategy, f"{count} devices", replicas=count)


@pytest.fixture(scope="module")
def task():
    return ImageClassification({"name": "digits", "size": 8, "augment": ["crop"]}, seed=1, limit=50)


def small_net(*, norm, dropout):
    """Conv, norm, ReLU, pool, dropout, dense: all that a step can get wrong, at a size that takes no time."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, use_bias=not norm, name="conv")(inputs)
    if norm:
        x = BatchNorm(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Flatten(name="flatten")(keras.layers.MaxPooling2D(name="pool")(x))
    if dropout:
        x = Dropout(0.5, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="head")(x), name="small")


def trained(
    task, optimizer, *, count=1, accumulate=1, norm=True, dropout=True, precision="float64", steps=4, **options
):
    """Weights after some steps on batches of 20, the third of each epoch an uneven 10."""
    runtime.set_precision(precision)
    keras.config.set_floatx("float64" if precision == "float64" else "float32")
    try:
        where = devices(count)
        with where.strategy.scope():
            model = small_net(norm=norm, dropout=dropout)
        options.setdefault("clipping", Clipping(norm=0.5))
        step = TrainingStep(task, model, optimizer, where, accumulate=accumulate, seed=7, **options)
        done, clipped = 0, []
        for epoch in range(steps):
            for indices in task.plan("train", batch_size=20, epoch=epoch):
                if done < steps:
                    measured = step(task.batch("train", indices, epoch=epoch), step=done, lr=0.05)
                    clipped.append(float(measured["clipped"]))
                    done += 1
        assert max(clipped) == 1.0, "clipping has to be active for the test to mean anything"
        return step.arrays()
    finally:
        keras.config.set_floatx("float32")


def assert_equal(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for group in ours:
        assert ours[group].keys() == theirs[group].keys()
        for name, array in ours[group].items():
            np.testing.assert_allclose(theirs[group][name], array, rtol=tolerance, atol=tolerance, err_msg=name)


def test_with_batch_norm_micro_batches_do_not_depend_on_the_devices(task):
    """20 rows in 3 parts: 7, 7 and 6 on one device as on two, which pad each of them."""
    assert_equal(
        trained(task, SGD(momentum=0.9, weight_decay=1e-3), accumulate=3, steps=2),
        trained(task, SGD(momentum=0.9, weight_decay=1e-3), accumulate=3, count=2, steps=2),
        1e-9,
    )


def test_a_step_is_the_gradient_of_the_mean_loss(task):
    """Softmax regression in NumPy: gradient X^T (p - y) / n, clipped by its norm, plain descent."""
    runtime.set_precision("float64")
    inputs = keras.Input((8, 8, 1))
    head = keras.layers.Dense(10, name="head")
    model = keras.Model(inputs, head(keras.layers.Flatten(name="flatten")(inputs)))
    kernel, bias = (np.asarray(weight) for weight in head.get_weights())
    step = TrainingStep(task, model, SGD(momentum=0.0), devices(1), clipping=Clipping(norm=0.7))
    batch = task.batch("train", np.arange(20), epoch=0)
    measured = step(batch, step=0, lr=0.3)

    x = batch["images"].reshape(20, -1).astype(np.float64)
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = p.copy()
    error[np.arange(20), batch["labels"]] -= 1
    gradients = [x.T @ error / 20, error.mean(0)]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    assert norm > 0.7
    np.testing.assert_allclose(float(measured["gradient_norm"]), norm, rtol=1e-10)
    np.testing.assert_allclose(float(measured["loss"]), -np.log(p[np.arange(20), batch["labels"]]).sum(), rtol=1e-10)
    assert float(measured["accuracy/sum"]) == (p.argmax(1) == batch["labels"]).sum()
    for weight, before, gradient in zip(head.get_weights(), (kernel, bias), gradients, strict=True):
        np.testing.assert_allclose(weight, before - 0.3 * gradient * 0.7 / norm, rtol=1e-10)


# ---------------------------------------------------------------------------------------------------------- embeddings


def test_rows_of_one_token_add_up():
    rows = tf.IndexedSlices(tf.constant([[1.0, 2.0], [10.0, 20.0], [5.0, 5.0]]), tf.constant([3, 0, 3]))
    expected = [[10, 20], [0, 0], [0, 0], [6, 7]]
    np.testing.assert_array_equal(dense(rows, tf.Variable(tf.zeros((4, 2)))), expected)
    np.testing.assert_array_equal(dense(tf.ones((4, 2)), tf.Variable(tf.zeros((4, 2)))), np.ones((4, 2)))


def test_rows_of_one_token_are_added_before_they_are_measured():
    rows = dense(tf.IndexedSlices(tf.constant([[3.0], [4.0]]), tf.constant([1, 1])), tf.Variable([[0.0], [0.0]]))
    assert float(global_norm([rows])) == 7
    np.testing.assert_array_equal(clip_by_value([rows], 5.0)[0][0], [[0], [5]])
    np.testing.assert_allclose(clip_by_global_norm([rows], 3.5, tf.constant(7.0))[0][0], [[0.0], [3.5]])


TOKENS = np.array([[1, 4, 1], [0, 4, 2], [2, 2, 1], [4, 0, 0]], np.int32)


class LookUp(Task):
    """The sum of the squares of a table's rows, looked up or by a product with one-hot rows."""

    info, data = {}, None

    def __init__(self, looks_up):
        self.looks_up = looks_up

    def loss_sums(self, model, batch, *, training, smoothing):
        table, ids = model.layers[-1].embeddings.value, batch["ids"]
        rows = tf.gather(table, ids) if self.looks_up else tf.one_hot(ids, 5, dtype=table.dtype) @ table
        return Sums(tf.reduce_sum(rows**2), tf.cast(tf.shape(rows)[0], table.dtype))

    fingerprint = model_arguments = describe = batch = None


@pytest.mark.parametrize("rule", [SGD(weight_decay=0.1), Adam(weight_decay=0.1), AdamW(weight_decay=0.1)], ids=repr)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_embedding_trains_like_a_product_with_one_hot_rows(rule, accumulate):
    keras.config.set_floatx("float64")
    try:
        found = []
        for looks_up in (True, False):
            table = np.random.default_rng(1).normal(size=(5, 3))
            ids = keras.Input((3,), dtype="int32")
            model = keras.Model(ids, keras.layers.Embedding(5, 3, dtype="float64", name="table")(ids))
            model.set_weights([table])
            step = TrainingStep(
                LookUp(looks_up), model, rule, devices(1), clipping=Clipping(norm=1.0), accumulate=accumulate
            )
            for count in range(3):
                measured = step({"ids": TOKENS}, step=count, lr=0.1)
            assert float(measured["clipped"]) == 1.0
            found.append((step.arrays(), float(measured["gradient_norm"])))
    finally:
        keras.config.set_floatx("float32")
    (ours, norm), (theirs, their_norm) = found
    assert_equal(ours, theirs, 1e-12)
    assert norm == pytest.approx(their_norm, rel=1e-12)
    assert np.abs(ours["weights"]["table/embeddings"][3] - table[3]).max() > 1e-3, "in no row, and decays"


# ------------------------------------------------------------------------------------------------- what does not change


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing(task, count):
    """Not the weights, not the optimizer's state, not the statistics of batch norm, not the averages."""
    where = devices(count)
    with where.strategy.scope():
        model = small_net(norm=True, dropout=False)
    step = TrainingStep(task, model, AdamW(), where, ema=0.9)
    batch = task.batch("train", np.arange(20), epoch=0)
    step(batch, step=0, lr=0.01)
    before = step.arrays()
    batch["images"] = np.full_like(batch["images"], np.nan)
    assert not bool(step(batch, step=1, lr=0.01)["finite"])
    assert_equal(before, step.arrays(), 0)


def test_the_average_follows_the_weights(task):
    """decay = min(0.9, (1 + t) / (10 + t)): 2/11, then 3/12."""
    model = small_net(norm=False, dropout=False)
    step = TrainingStep(task, model, SGD(), devices(1), ema=0.9)
    average = model.get_layer("head").get_weights()[0]
    for done in range(2):
        step(task.batch("train", np.arange(20), epoch=0), step=done, lr=0.1)
        decay = (2 + done) / (11 + done)
        average = decay * average + (1 - decay) * model.get_layer("head").get_weights()[0]
    np.testing.assert_allclose(step.arrays()["ema"]["head/kernel"], average, rtol=1e-5, atol=1e-7)


def test_what_is_frozen_is_neither_rewritten_nor_averaged(task):
    """A checkpoint has an average of it all the same: the weight itself."""
    model = small_net(norm=True, dropout=False)
    for name in ("conv", "norm"):
        model.get_layer(name).trainable = False
    step = TrainingStep(task, model, SGD(), devices(1), ema=0.9)
    assert set(step.statistics) == {"norm/moving_mean", "norm/moving_variance"}
    assert set(step.ema) == {"norm/moving_mean", "norm/moving_variance", "head/kernel", "head/bias"}
    step(task.batch("train", np.arange(20), epoch=0), step=0, lr=0.1)
    arrays = step.arrays()
    assert arrays["ema"].keys() == arrays["weights"].keys()
    for path in ("conv/kernel", "norm/gamma", "norm/beta"):
        np.testing.assert_array_equal(arrays["ema"][path], arrays["weights"][path])
    assert np.abs(arrays["ema"]["head/kernel"] - arrays["weights"]["head/kernel"]).max() > 0


def test_the_size_of_an_update_against_that_of_the_weights(task):
    """Also after the weights have changed in place, on one device and on two."""
    for count in (1, 2):
        where = devices(count)
        with where.strategy.scope():
            model = small_net(norm=True, dropout=False)
        step = TrainingStep(task, model, AdamW(), where)
        numbers = [np.concatenate([weight.value.numpy().ravel() for weight in model.trainable_variables])]
        before = step.weights()
        for done in range(2):
            step(task.batch("train", np.arange(20), epoch=0), step=done, lr=0.01)
        numbers.append(np.concatenate([weight.value.numpy().ravel() for weight in model.trainable_variables]))
        ratio = np.linalg.norm(numbers[1] - numbers[0]) / np.linalg.norm(numbers[0])
        assert float(step.update_ratio(before)) == pytest.approx(ratio, rel=1e-5)
