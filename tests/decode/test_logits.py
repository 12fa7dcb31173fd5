"""The best logits and the normalizer, against sorting and summing in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit.decode.logits import BLOCKS, best, best_and_normalizer, log_normalizer

BLOCK = BLOCKS[0]


def stable_best(logits, count):
    """By falling logit; of equal ones the lower token first."""
    tokens = np.argsort(-logits, axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(logits, tokens, axis=-1), tokens


@settings(max_examples=40, deadline=None)
@given(
    vocabulary=st.sampled_from([5, 63, 8 * BLOCK, 8 * BLOCK + 1, 50 * 83, 50 * BLOCK + 35, 51 * BLOCK - 1]),
    count=st.integers(1, 9),
    levels=st.sampled_from([2, 30, 10**6]),
    seed=st.integers(0, 10**6),
)
def test_best(vocabulary, count, levels, seed):
    """With few levels there are many equal logits."""
    count = min(count, vocabulary)
    logits = np.random.default_rng(seed).integers(0, levels, (2, 3, vocabulary)).astype(np.float32)
    values, tokens = best(tf.constant(logits), count)
    assert tokens.dtype == tf.int32
    expected = stable_best(logits, count)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(tokens, expected[1])


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 40 * BLOCK, 40 * BLOCK + 6])
def test_best_where_they_stand_together_or_at_an_edge(at):
    logits = np.random.default_rng(0).standard_normal((1, 40 * BLOCK + 10)).astype(np.float32)
    logits[0, at : at + 4] += 10
    np.testing.assert_array_equal(best(tf.constant(logits), 4)[1], stable_best(logits, 4)[1])


def test_best_has_known_shapes_in_a_graph():
    @tf.function(input_signature=[tf.TensorSpec((None, 3, 1000), tf.float32)])
    def few(logits):
        values, tokens = best(logits, 2)
        assert values.shape.as_list() == tokens.shape.as_list() == [None, 3, 2]
        return tokens

    assert few(np.zeros((2, 3, 1000), np.float32)).numpy().tolist() == [[[0, 1]] * 3] * 2


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("offset", [0, 500, -2000])
def test_log_normalizer(known, offset):
    logits = 5 * np.random.default_rng(1).standard_normal((2, 3, 1000)).astype(np.float32) + np.float32(offset)
    logits[0, 0, 1:] = -np.inf
    logits[1, 1, 7] += 300  # all others have probability 0 in float32
    top = tf.argmax(logits, axis=-1, output_type=tf.int32) if known else None
    exact = logits.astype(np.float64)
    peak = exact.max(axis=-1, keepdims=True)
    expected = peak[..., 0] + np.log(np.exp(exact - peak).sum(axis=-1))
    np.testing.assert_allclose(log_normalizer(tf.constant(logits), top), expected, rtol=3e-7, atol=1e-6)


def test_log_normalizer_of_nothing():
    assert np.isnan(log_normalizer(tf.fill([1, 4], -np.inf)))
    assert np.isnan(log_normalizer(tf.constant([[0.0, np.nan, 1.0]])))


@pytest.mark.parametrize("compiled", [False, True])
def test_best_and_normalizer(compiled):
    logits = np.random.default_rng(2).integers(0, 30, (2, 3, 1000)).astype(np.float32)  # with many equal ones
    logits[0, 0, 10:] = -np.inf

    @tf.function(jit_compile=compiled or None, autograph=False)
    def found(logits):
        return best_and_normalizer(logits, 6, compiled=compiled)

    *few, normalizer = found(tf.constant(logits))
    for part, expected in zip(few, stable_best(logits, 6), strict=True):
        np.testing.assert_array_equal(part, expected)
    np.testing.assert_allclose(normalizer, np.logaddexp.reduce(logits.astype(np.float64), axis=-1), rtol=3e-7)
    assert not np.isfinite(logits.max() - found(tf.fill([1, 1, 1000], -np.inf))[2]).any()
