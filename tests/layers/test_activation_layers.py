import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.layers.activations import activation, gelu, relu_squared

POINTS = np.array([-40.0, -6.0, -1.5, -0.1, 0.0, 0.3, 2.0, 7.0])


def test_gelu_is_x_times_the_normal_distribution_function():
    expected = [x * 0.5 * math.erfc(-x / math.sqrt(2)) for x in POINTS]
    np.testing.assert_allclose(gelu(tf.constant(POINTS)), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-10), ("float32", 1e-5)])
def test_its_gradient_is_that_of_tensorflow(dtype, rtol):
    x = tf.constant(POINTS[1:], dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours, theirs = gelu(x) * 3, tf.nn.gelu(x) * 3
    np.testing.assert_allclose(tape.gradient(ours, x), tape.gradient(theirs, x), rtol=rtol, atol=1e-6)


def test_in_bfloat16_it_is_rounded_once():
    x = tf.cast(POINTS, tf.bfloat16)
    expected = tf.cast(gelu(tf.cast(x, tf.float32)), tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = gelu(x)
    np.testing.assert_array_equal(tf.cast(found, tf.float32), tf.cast(expected, tf.float32))
    assert tape.gradient(found, x).dtype == tf.bfloat16


def test_the_layer_is_an_activation_as_the_others():
    layer = activation("gelu", name="gelu1")
    assert layer.get_config()["activation"] == "gelu"
    x = keras.ops.convert_to_tensor(POINTS.astype("float32"))
    np.testing.assert_allclose(layer(x), keras.activations.gelu(x), rtol=1e-5, atol=1e-7)
    assert type(layer).from_config(layer.get_config()).name == "gelu1"


def test_relu_squared_and_its_slope_by_hand():
    x = tf.constant([[-2.0, 0.0, 0.5], [3.0, -0.1, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = relu_squared(x)
        total = tf.reduce_sum(found * [[1.0, 1.0, 1.0], [1.0, 1.0, 10.0]])
    assert found.numpy().tolist() == [[0, 0, 0.25], [9, 0, 1]]
    assert tape.gradient(total, x).numpy().tolist() == [[0, 0, 1], [6, 0, 20]]


def test_relu_squared_can_be_copied_as_the_other_layers():
    layer = activation("relu_squared", name="own")
    copied = type(layer).from_config(layer.get_config())
    assert (copied.name, copied(tf.constant([-1.0, 3.0])).numpy().tolist()) == ("own", [0, 9])
