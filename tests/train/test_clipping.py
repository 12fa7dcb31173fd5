import numpy as np
import pytest
import tensorflow as tf

from dlkit.train.clipping import clip_by_global_norm, clip_by_value, global_norm


def random_gradients(dtype="float64", scale=1.0):
    generator = np.random.default_rng(0)
    return [tf.constant(scale * generator.normal(size=shape), dtype) for shape in [(4, 3), (3,), (2, 2, 5)]]


def flat(gradients):
    return np.concatenate([np.ravel(gradient) for gradient in gradients])


def test_norm_by_hand():
    assert float(global_norm([tf.constant([3.0]), tf.constant([[4.0]])])) == 5
    assert float(global_norm([tf.zeros(3)])) == 0


def test_norm_of_many_entries_in_low_precision():
    # 256^2 ones: a bfloat16 sum of their squares stops at 256, float16 squares of 300 overflow.
    ones = global_norm([tf.ones((128, 256), tf.bfloat16), tf.ones((128, 256), tf.bfloat16)])
    assert ones.dtype == tf.float32
    assert float(ones) == 256
    assert float(global_norm([tf.fill((4,), tf.constant(300, tf.float16))])) == 600


def test_norm_keeps_float64():
    tiny = global_norm([tf.constant([1.0], tf.float64), tf.constant([1e-5], tf.float64), tf.constant([0.0])])
    assert tiny.dtype == tf.float64
    assert float(tiny) - 1 == pytest.approx(5e-11, rel=1e-4)


def test_norm_is_not_finite_when_a_gradient_is_not():
    assert np.isnan(global_norm([tf.constant([1.0, np.nan])]))
    assert np.isinf(global_norm([tf.constant([1.0]), tf.constant([np.inf])]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_clipping_by_norm_keeps_the_direction(dtype):
    gradients = random_gradients(dtype)
    norm = global_norm(gradients)
    clipped, share = clip_by_global_norm(gradients, 0.5, norm)
    tolerance = {"float32": 1e-6, "float64": 1e-12, "bfloat16": 1e-2}[dtype]
    assert float(share) == 1
    assert [g.dtype for g in clipped] == [dtype] * 3
    assert [g.shape for g in clipped] == [g.shape for g in gradients]
    after, before = flat(clipped).astype(np.float64), flat(gradients).astype(np.float64)
    assert np.linalg.norm(after) == pytest.approx(0.5, rel=tolerance)
    np.testing.assert_allclose(after, before * 0.5 / np.linalg.norm(before), rtol=tolerance)


def test_clipping_by_norm_equals_tensorflow():
    gradients = random_gradients("float32", scale=10)
    expected, _ = tf.clip_by_global_norm(gradients, 2.0)
    clipped, _ = clip_by_global_norm(gradients, 2.0, global_norm(gradients))
    np.testing.assert_allclose(flat(clipped), flat(expected), rtol=1e-6)


@pytest.mark.parametrize("limit", [5.0, 5.1, 1e9])
def test_gradients_within_the_limit_stay_to_the_bit(limit):
    gradients = [tf.constant([3.0]), tf.constant([[4.0]])]
    clipped, share = clip_by_global_norm(gradients, limit, global_norm(gradients))
    assert float(share) == 0
    np.testing.assert_array_equal(flat(clipped), [3, 4])


def test_zero_gradients_have_no_direction_to_lose():
    clipped, share = clip_by_global_norm([tf.zeros(2)], 1.0, global_norm([tf.zeros(2)]))
    assert float(share) == 0
    np.testing.assert_array_equal(clipped[0], [0, 0])


def test_clipping_by_value():
    gradients = [tf.constant([-3.0, -0.5, 0.2]), tf.constant([[0.5, 0.50001]]), tf.constant([[[4.0, 0.0, -0.5]]])]
    clipped, share = tf.function(clip_by_value)(gradients, 0.5)
    np.testing.assert_allclose(flat(clipped), [-0.5, -0.5, 0.2, 0.5, 0.5, 0.5, 0, -0.5], rtol=1e-7)
    assert float(share) == 3 / 8
    assert share.dtype == tf.float32


def test_clipping_by_value_equals_numpy():
    gradients = random_gradients()
    clipped, share = clip_by_value(gradients, 0.3)
    np.testing.assert_array_equal(flat(clipped), np.clip(flat(gradients), -0.3, 0.3))
    assert float(share) == pytest.approx(np.mean(np.abs(flat(gradients)) > 0.3))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_a_step_is_never_longer_than_the_limit(scale):
    gradients = random_gradients("float32", scale)
    by_norm, _ = clip_by_global_norm(gradients, 1.0, global_norm(gradients))
    by_value, _ = clip_by_value(gradients, 0.1)
    assert float(global_norm(by_norm)) <= 1 + 1e-6
    assert float(global_norm(by_value)) <= 0.1 * np.sqrt(flat(gradients).size) * (1 + 1e-6)
