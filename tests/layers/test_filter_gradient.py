"""The filter gradient as matrix products: the same numbers as TensorFlow's kernel, taken only where it is faster."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.layers import convolution
from dlkit.layers.convolution import Conv2D, filter_gradient


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 3)])
def test_it_is_the_gradient_of_a_convolution(kernel):
    random = np.random.default_rng(0)
    inputs, upstream = random.normal(size=(2, 6, 5, 3)), random.normal(size=(2, 6, 5, 4))
    weights = tf.constant(random.normal(size=(*kernel, 3, 4)))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = tf.reduce_sum(tf.nn.conv2d(tf.constant(inputs), weights, 1, "SAME") * upstream)
    ours = filter_gradient(tf.constant(inputs), tf.constant(upstream), weights.shape)
    np.testing.assert_allclose(ours, tape.gradient(loss, weights), rtol=1e-12)


def gradients(layer, inputs):
    inputs = tf.constant(inputs, tf.bfloat16)
    layer.build(inputs.shape)
    layer.kernel.assign(np.random.default_rng(1).normal(size=layer.kernel.shape) / 48)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        upstream = np.random.default_rng(2).normal(size=outputs.shape)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * tf.constant(upstream, tf.float32))
    return [
        np.asarray(tf.cast(found, tf.float32))
        for found in (outputs, *tape.gradient(loss, [inputs, layer.kernel.value]))
    ]


@pytest.mark.parametrize(
    ("side", "channels", "stride", "precision", "fast"),
    [
        (4, 256, 1, "mixed_bfloat16", True),
        (8, 256, 1, "mixed_bfloat16", True),
        (4, 256, 2, "mixed_bfloat16", False),
        (9, 256, 1, "mixed_bfloat16", False),
        (4, 64, 1, "mixed_bfloat16", False),
        (4, 256, 1, "float32", False),
    ],
)
def test_the_layer_computes_what_keras_does_and_takes_the_fast_way_where_it_pays(
    side, channels, stride, precision, fast, monkeypatch
):
    calls = []
    real = convolution.filter_gradient
    monkeypatch.setattr(convolution, "filter_gradient", lambda *given: calls.append(1) or real(*given))
    inputs = np.random.default_rng(0).normal(size=(2, side, side, channels))
    options = {"strides": stride, "padding": "same", "use_bias": False, "dtype": keras.DTypePolicy(precision)}
    ours = gradients(Conv2D(channels, 3, **options), inputs)
    theirs = gradients(keras.layers.Conv2D(channels, 3, **options), inputs)
    assert bool(calls) == fast
    for mine, reference in zip(ours, theirs, strict=True):
        # Both round their sums to 8 bits, at most one unit in the last place apart.
        np.testing.assert_allclose(mine, reference, rtol=2**-7, atol=2**-8 * np.abs(reference).max())
