import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from dlkit.layers.read_out import Logits, as_float32


def drawn(*shape):
    return np.random.default_rng(0).normal(size=shape)


def test_the_bias_keeps_its_digits_beside_a_product_in_bfloat16():
    """1 + 1/512 is no bfloat16 number, whose next one after 1 is 1 + 1/128; and 1/512 is lost beside a product of 1."""
    head = Logits(2, name="head", dtype="mixed_bfloat16")
    head.build((None, 3))
    head.set_weights([np.array([[1, 2], [0, 1], [4, 0]]), np.array([1 + 1 / 512, -1 / 512])])
    with tf.GradientTape() as tape:
        logits = head(tf.constant([[[1, 0, 0], [0, 2, 1]]], tf.bfloat16))
        total = tf.reduce_sum(logits * [[[1.0, 1.0], [1 / 512, 1.0]]])
    assert logits.dtype == tf.float32
    assert logits.numpy().tolist() == [[[2 + 1 / 512, 2 - 1 / 512], [5 + 1 / 512, 2 - 1 / 512]]]
    assert tape.gradient(total, head.bias.value).numpy().tolist() == [1 + 1 / 512, 2]


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4), (2, 3, 5, 4)])
@pytest.mark.parametrize(("dtype", "near"), [("float64", 1e-12), ("float32", 1e-5), ("mixed_bfloat16", 0.03)])
def test_values_and_gradients_are_those_of_the_affine_map(shape, dtype, near):
    x, kernel, bias, up = drawn(*shape), drawn(4, 7), drawn(7), drawn(*shape[:-1], 7)
    head = Logits(7, name="head", dtype=dtype)
    head.build((None, 4))
    head.set_weights([kernel, bias])
    inputs = tf.constant(x, head.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        logits = head(inputs)
        total = tf.reduce_sum(logits * tf.cast(up, logits.dtype))
    found = tape.gradient(total, [inputs, *(each.value for each in head.trainable_variables)])
    expected = [up @ kernel.T, np.tensordot(x, up, (range(x.ndim - 1),) * 2), up.reshape(-1, 7).sum(0)]
    np.testing.assert_allclose(logits, x @ kernel + bias, atol=4 * near)
    for gradient, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient.numpy().astype("float64"), right, atol=4 * near)


def test_without_a_bias_and_in_which_type_logits_are():
    head = Logits(2, use_bias=False, name="head")
    assert head(tf.ones((1, 3))).shape == (1, 2)
    assert len(head.weights) == 1
    assert as_float32(tf.ones((), tf.float64)).dtype == tf.float64
    assert as_float32(tf.constant(ml_dtypes.bfloat16(0.5))).dtype == tf.float32
