"""Saliency and Grad-CAM against derivatives that are worked out by hand, on nets of two layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.errors import UsageError
from dlkit.probe.one_example import example
from dlkit.probe.saliency import as_large_as, view, view_gradcam
from dlkit.probe.scores import derivative
from dlkit.probe.views import Subject
from dlkit.tasks import TASKS

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def task():
    return Subject("lenet").task


@pytest.fixture
def of(task):
    """A subject with a net of the test's own and one image, of which a class is asked for; of the named layers."""

    def make(model, image, label, *layers):
        subject = Subject("lenet", label=str(label), layers=layers)
        subject.__dict__.update(model=model, task=task, one_image=lambda: (image, "an image"))
        return subject

    return make


def maps(subject):
    return [one["map"] for one in view_gradcam(subject).records]


def test_saliency_of_two_dense_layers(of):
    """logit_c = V_c . relu(W x + b): its derivative is W^T (V_c where the unit is on)."""
    inputs = keras.Input((3, 4, 2))
    hidden = keras.layers.Dense(5, activation="relu", name="hidden")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))
    w, b, v = RANDOM.normal(size=(24, 5)), RANDOM.normal(size=5), RANDOM.normal(size=(5, 3))
    model.get_layer("hidden").set_weights([w, b])
    model.get_layer("head").set_weights([v, np.zeros(3)])
    image = RANDOM.normal(size=(3, 4, 2)).astype(np.float32)
    on = image.reshape(-1) @ w + b > 0
    assert 0 < on.sum() < 5
    by_hand = np.abs((w[:, on] @ v[on, 1]).reshape(3, 4, 2)).max(axis=-1)
    np.testing.assert_allclose(view(of(model, image, 1)).facts["map"], by_hand[np.newaxis], rtol=1e-5)


def test_gradcam_of_a_convolution_and_a_dense_layer(of):
    """With maps A_k, and logit_c the sum of V_kc A_k over 6 places: each derivative is V_kc, and so is its mean."""
    inputs = keras.Input((2, 3, 1))
    conv = keras.layers.Conv2D(2, 1, activation="relu", name="conv")(inputs)
    model = keras.Model(
        inputs, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D(name="pool")(conv))
    )
    model.get_layer("conv").set_weights([np.array([[[[1.0, -1.0]]]]), np.zeros(2)])
    model.get_layer("head").set_weights([np.array([[6.0, 0.0], [-12.0, 18.0]]), np.zeros(2)])
    image = np.array([[1, 2, -3], [0, -1, 4]], np.float32)[..., np.newaxis]
    # A_1 = relu(x), A_2 = relu(-x); for class 0 they weigh 1 and -2, for class 1 they weigh 0 and 3.
    np.testing.assert_allclose(maps(of(model, image, 0)), [[[[1, 2, 0], [0, 0, 4]]]], atol=1e-6)
    np.testing.assert_allclose(maps(of(model, image, 1)), [[[[0, 0, 9], [0, 3, 0]]]], atol=1e-6)


def test_the_weight_of_a_map_is_the_mean_of_its_derivatives(of):
    """Each place has its own weight in the dense layer: 4, 0, 0, 0; the mean is 1, not what stands at a place."""
    inputs = keras.Input((2, 2, 1))
    conv = keras.layers.Conv2D(1, 1, use_bias=False, name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, name="head")(keras.layers.Flatten()(conv)))
    model.get_layer("conv").set_weights([np.ones((1, 1, 1, 1))])
    model.get_layer("head").set_weights([np.array([[4.0], [0], [0], [0]])])
    image = np.array([[1, 2], [3, -4]], np.float32)[..., np.newaxis]
    np.testing.assert_allclose(maps(of(model, image, 0)), [[[[1, 2], [3, 0]]]])


def test_each_call_of_a_layer_has_its_maps(of):
    """Twice times 2, and the sum over four places: the maps are 2 x and 4 x, their weights 2 and 1."""
    inputs = keras.Input((2, 2, 1))
    conv = keras.layers.Conv2D(1, 1, use_bias=False, name="conv")
    head = keras.layers.Dense(1, use_bias=False, name="head")
    model = keras.Model(inputs, head(keras.layers.Flatten()(conv(conv(inputs)))))
    conv.set_weights([np.full((1, 1, 1, 1), 2.0)])
    head.set_weights([np.ones((4, 1))])
    image = np.array([[1, 2], [3, -4]], np.float32)[..., np.newaxis]
    found = view_gradcam(of(model, image, 0, "conv*"))
    assert [one["layer"] for one in found.records] == ["conv", "conv (2)"]
    np.testing.assert_allclose([one["map"] for one in found.records], [[[[4, 8], [12, 0]]]] * 2)


def test_maps_are_enlarged_smoothly():
    assert as_large_as(np.array([[0.0, 1.0]]), 2, 4).tolist() == [[0, 0.25, 0.75, 1]] * 2


@pytest.mark.parametrize(
    ("model", "sets"),
    [
        ("lenet", []),
        ("gru", ["model.width=3", "data.length=6", "data.train=4", "data.test=2"]),
        ("text_lstm", ["model.width=4", "data.train=64"]),
        ("lstm_lm", ["model.width=4", "data.block=6"]),
        ("seq2seq_attention", ["model.width=4", "data.train=64"]),
    ],
)
def test_the_derivative_is_what_finite_differences_say(model, sets):
    """A step of the input, or of the words' vectors, in a random direction."""
    subject = Subject(model, sets=sets)
    batch = example(subject).batch
    found = derivative(subject, batch)
    direction = RANDOM.normal(size=found.shown.shape).astype(np.float32)
    direction /= np.linalg.norm(direction)
    step, ends = 1e-2, []
    name = next(key for key, array in batch.items() if key in {info.shown for info in TASKS.values()})
    layer = next((seen.layer for seen in found.calls if np.array_equal(seen.output, found.shown)), None)
    for sign in (1, -1):
        moved = found.shown + sign * step * direction
        if batch[name].dtype == np.float32:
            ends.append(derivative(subject, batch | {name: moved}).value)
            continue
        call = layer.call

        def changed(*args, call=call, moved=moved, **kwargs):
            vectors = call(*args, **kwargs)
            return tf.constant(moved) if np.array_equal(vectors, found.shown) else vectors

        layer.call = changed
        ends.append(derivative(subject, batch).value)
        layer.call = call
    slope = (ends[0] - ends[1]) / (2 * step)
    assert float((found.gradient * direction).sum()) == pytest.approx(slope, rel=0.05, abs=2e-4)


def test_a_class_is_asked_for_by_name():
    image = {"images": np.zeros((1, 32, 32, 1), np.float32), "labels": np.zeros(1, np.int32)}
    assert derivative(Subject("lenet", label="7"), image).name.startswith("logit of 7,")
    with pytest.raises(UsageError, match="unknown class: eight"):
        derivative(Subject("lenet", label="eight"), image)
