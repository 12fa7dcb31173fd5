"""Scheduled sampling inside the training step, in float64: where it is off, and that devices do not matter."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import models, runtime
from dlkit.runtime import Devices
from dlkit.tasks.task import open_task
from dlkit.train.evaluation import Evaluation
from dlkit.train.optimizers import optimizer
from dlkit.train.schedules import own_word_probability
from dlkit.train.step import TrainingStep

SMALL = {
    "seq2seq": {"width": 8, "layers": 1, "cell": "gru"},
    "transformer": {"width": 8, "layers": 1, "decoder_layers": 1, "heads": 2, "ffn": 8},
}


@pytest.fixture(scope="module")
def task():
    options = {"name": "synthetic:reverse", "length": 4, "symbols": 4, "train": 60, "validation": 5, "test": 5}
    return open_task("translation", options, seed=3)


def updated(task, name, sampling, *, replicas=1):
    """The weights after an update, and its loss."""
    places = tf.config.list_logical_devices("CPU")[:replicas]
    strategy = (
        tf.distribute.MirroredStrategy([place.name for place in places], tf.distribute.ReductionToOneDevice())
        if replicas > 1
        else tf.distribute.get_strategy()
    )
    devices = Devices(strategy, f"{replicas} CPU", replicas=replicas)
    with runtime.precision("float64"), strategy.scope():
        keras.utils.set_random_seed(0)
        model = models.build(name, **task.model_arguments(), **SMALL[name])
        step = TrainingStep(task, model, optimizer("sgd", momentum=0.9), devices, seed=5)
        measured = step(task.batch("train", np.arange(7), epoch=0), step=0, lr=0.1, sampling=sampling)
    return {name: v.value.numpy() for name, v in step.variables.items()}, float(measured["loss"])


@pytest.mark.parametrize("model", ["seq2seq", "transformer"])
def test_at_probability_0_it_is_teacher_forcing_and_above_it_is_not(task, model):
    off, loss = updated(task, model, None)
    zero, same = updated(task, model, 0.0)
    _, other = updated(task, model, 0.9)
    assert same == pytest.approx(loss, rel=1e-12)
    for name, weights in off.items():
        np.testing.assert_allclose(zero[name], weights, atol=1e-12, err_msg=name)
    assert abs(other - loss) > 1e-3


def test_two_devices_draw_what_one_draws(task):
    """Seven rows over two devices: one of them has a padded row."""
    one, loss = updated(task, "seq2seq", 0.5)
    two, same = updated(task, "seq2seq", 0.5, replicas=2)
    assert same == pytest.approx(loss, rel=1e-9)
    for name, weights in one.items():
        np.testing.assert_allclose(two[name], weights, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", ["linear", "exponential", "inverse_sigmoid"])
def test_the_probability_rises_from_0_to_the_rate(name):
    probability = own_word_probability(name, rate=0.25, total_steps=101)
    values = [probability(step) for step in range(101)]
    assert values[0] == pytest.approx(0, abs=1e-12)
    assert values[-1] == pytest.approx(0.25)
    assert values == sorted(values)


def test_the_shapes_of_the_probability_by_hand():
    half = {name: own_word_probability(name, rate=0.5, total_steps=11)(5) for name in SHAPES}
    assert half == pytest.approx(
        {"constant": 0.5, "linear": 0.25, "exponential": 0.5 * 0.9 / 0.99, "inverse_sigmoid": 0.25}
    )


SHAPES = ("constant", "linear", "exponential", "inverse_sigmoid")


def measured(task, model):
    """The loss with the true words read, and that with own words."""
    evaluation = Evaluation(task, model, Devices(tf.distribute.get_strategy(), ""), batch_size=7)
    return evaluation("train", decode=False)["loss"], task.own_words_loss(model, "train", batch_size=7)


def test_who_does_not_look_at_the_words_read_loses_the_same_with_own_words(task):
    keras.utils.set_random_seed(0)
    model = models.build("seq2seq", **task.model_arguments(), **SMALL["seq2seq"])
    for variable in model.trainable_variables:
        variable.assign(4 * variable)
    loss, own = measured(task, model)
    assert abs(own - loss) > 0.01
    assert task.own_words_loss(model, "train", batch_size=60) == pytest.approx(own, rel=1e-5), "whatever the batch"
    model.target_embedding.embeddings.assign(0 * model.target_embedding.embeddings)
    loss, own = measured(task, model)
    assert own == pytest.approx(loss, rel=1e-5)
