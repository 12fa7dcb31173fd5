"""Positions: the paper's formula, the limit of a learned table, and what attention sees without any."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.errors import DataError, UsageError
from dlkit.layers.attention import MultiHeadAttention
from dlkit.layers.positions import Positions, sinusoids


@pytest.mark.parametrize("width", [1, 6, 7])
def test_sinusoids_by_the_formula(width):
    """Vaswani et al. 2017, section 3.5, entry by entry."""
    table = sinusoids(tf.range(5000), width).numpy()
    for t in (0, 1, 17, 4999):
        for j in range(width):
            angle = t / 10_000 ** (2 * (j // 2) / width)
            assert table[t, j] == pytest.approx([np.sin, np.cos][j % 2](angle), abs=1e-12)


def test_a_shift_is_a_rotation_of_each_pair_of_features():
    """Why the paper chose them: PE(t + k) is a linear function of PE(t), the same for every t."""
    table = sinusoids(tf.range(40), 8).numpy().reshape(40, 4, 2)
    for pair in range(4):
        angle = 5 / 10_000 ** (2 * pair / 8)
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(table[5:, pair], table[:-5, pair] @ rotation.T, atol=1e-12)


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_a_position_is_added_alike_to_all_rows(kind):
    layer = Positions(kind, max_length=9)
    embedded = np.random.default_rng(0).normal(size=(3, 9, 4)).astype(np.float32)
    added = layer(embedded) - embedded
    np.testing.assert_allclose(added[1], added[0], atol=1e-6)
    np.testing.assert_allclose(added[2], added[0], atol=1e-6)
    expected = sinusoids(tf.range(9), 4) if kind == "sinusoidal" else layer.table
    np.testing.assert_allclose(added[0], expected, atol=1e-6)
    np.testing.assert_allclose(layer.at(tf.constant([7]), 4), expected[7:8], atol=1e-6)
    assert len(layer.weights) == (kind == "learned")
    # What is added says where it stands: no two positions are alike.
    distances = np.abs(added[0][:, None] - added[0][None]).max(-1)
    assert (distances + np.eye(9) > 1e-3).all()


def test_none_adds_nothing():
    embedded = np.ones((2, 3, 4), np.float32)
    layer = Positions("none")
    np.testing.assert_array_equal(layer(embedded), embedded)
    np.testing.assert_array_equal(layer.at(tf.constant([2]), 4) + embedded, embedded)


@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "none"])
def test_attention_sees_order_by_positions_only(kind):
    """Lecture: permuted input gives permuted output without positions, and something else with them."""
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(0)
    positions = Positions(kind, max_length=5)
    attention = MultiHeadAttention(2, init="gaussian:1", name="attention")
    words, order = np.random.default_rng(1).normal(size=(1, 5, 8)), [3, 1, 4, 0, 2]
    straight, permuted = (attention(positions(x))[0].numpy() for x in (words, words[:, order]))
    difference = np.abs(permuted - straight[:, order]).max()
    assert difference < 1e-10 if kind == "none" else difference > 0.01


def test_a_sequence_longer_than_the_table_is_named_with_the_limit():
    layer = Positions("learned", max_length=4)
    assert layer(tf.zeros((1, 4, 2))).shape == (1, 4, 2)
    with pytest.raises(DataError, match="5 tokens is longer than the 4 learned positions") as raised:
        layer(tf.zeros((1, 5, 2)))
    assert "model.max_length" in raised.value.hint
    graph = tf.function(layer.call, input_signature=[tf.TensorSpec((None, None, 2))])
    assert graph(tf.zeros((1, 4, 2))).shape == (1, 4, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than the 4 learned positions"):
        graph(tf.zeros((1, 5, 2)))


def test_any_length_where_nothing_is_learned():
    for kind in ("sinusoidal", "none"):
        layer = Positions(kind, max_length=4)
        assert layer.max_length is None
        assert layer(tf.zeros((1, 50, 2))).shape == (1, 50, 2)


def test_mistakes_are_explained():
    with pytest.raises(UsageError, match="unknown positions: sinus") as raised:
        Positions("sinus")
    assert "`sinusoidal`" in raised.value.hint
    with pytest.raises(UsageError, match="largest length"):
        Positions("learned")


def test_far_positions_are_exact_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = Positions("sinusoidal")
    added = layer.at(tf.range(2000), 64)
    assert added.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(added, tf.float64), sinusoids(tf.range(2000), 64), atol=2**-8)
