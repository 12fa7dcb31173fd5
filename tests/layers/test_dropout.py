"""Dropout's draws belong to the rows, whatever the slice that is looked at."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit.errors import UsageError
from dlkit.layers import step_context
from dlkit.layers.dropout import Dropout, row_uniforms
from dlkit.layers.step_context import StepContext

SEED = tf.constant([3, -4], tf.int32)


def uniforms(shape, seed=SEED, first_row=0, purpose="dropout1"):
    return row_uniforms(tf.constant(shape), seed=seed, first_row=tf.constant(first_row), purpose=purpose).numpy()


def dropped(layer, inputs, seed=SEED, first_row=0):
    with step_context.use(StepContext(seed, tf.convert_to_tensor(first_row))):
        return layer(inputs, training=True)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    row_shape=st.lists(st.integers(1, 7), max_size=3),
    cut=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    offset=st.integers(0, 2**30),
)
def test_a_slice_of_rows_draws_what_the_whole_batch_draws_for_them(rows, row_shape, cut, offset):
    start, stop = sorted(min(place, rows) for place in cut)
    whole = uniforms([rows, *row_shape], first_row=offset)
    part = uniforms([stop - start, *row_shape], first_row=offset + start)
    np.testing.assert_array_equal(part, whole[start:stop])


@pytest.mark.parametrize("row_size", [1, 2, 3, 4, 5, 18])
def test_no_number_is_drawn_twice(row_size):
    values = uniforms([1000 // row_size, row_size])
    # Of 1000 numbers out of 2^23, a few may meet by chance: 0.06 pairs are expected.
    assert np.unique(values).size >= values.size - 2


def test_draws_are_uniform():
    values = uniforms([500, 203])
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    expected = values.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-squared of 19 degrees exceeds it once in 10,000
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    "other", [{"purpose": "dropout2"}, {"seed": tf.constant([3, -5])}, {"seed": tf.constant([4, -4])}]
)
def test_another_layer_or_seed_draws_other_numbers(other):
    assert abs(np.corrcoef(uniforms([100, 50]).ravel(), uniforms([100, 50], **other).ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_and_the_scale(rate):
    inputs = tf.fill([300, 7, 11], 3.0)
    outputs = dropped(Dropout(rate, name="dropout1"), inputs).numpy()
    kept = outputs != 0
    np.testing.assert_allclose(outputs[kept], 3 / (1 - rate), rtol=1e-6)
    assert abs(kept.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / kept.size) ** 0.5


def test_devices_that_share_a_batch_drop_what_one_device_drops():
    layer = Dropout(0.5, name="dropout1")
    inputs = tf.random.normal([7, 3, 5])
    whole = dropped(layer, inputs, first_row=20)
    parts = [dropped(layer, inputs[:4], first_row=20), dropped(layer, inputs[4:], first_row=24)]
    np.testing.assert_array_equal(whole, tf.concat(parts, 0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_same_units_drop_in_every_precision(dtype):
    inputs = tf.ones([50, 33])
    units = dropped(Dropout(0.3, name="dropout1"), inputs)
    others = dropped(Dropout(0.3, name="dropout1", dtype=dtype), tf.cast(inputs, dtype))
    assert others.dtype == dtype
    np.testing.assert_array_equal(units != 0, others != 0)


def test_without_a_context_it_draws_anew_each_time_and_repeats_with_the_seed():
    layer, inputs = Dropout(0.5), tf.ones([200, 50])
    keras.utils.set_random_seed(3)
    first, second = (layer(inputs, training=True).numpy() for _ in range(2))
    keras.utils.set_random_seed(3)
    again = layer(inputs, training=True).numpy()
    assert set(np.unique(first)) == {0.0, 2.0}
    assert abs(first.mean() - 1) < 0.05
    assert (first != second).mean() > 0.4
    np.testing.assert_array_equal(first, again)


def test_at_inference_nothing_happens():
    inputs = tf.random.normal([4, 5])
    assert Dropout(0.5)(inputs) is inputs or np.array_equal(Dropout(0.5)(inputs), inputs)


def test_it_works_in_a_graph_of_unknown_shape_and_holds_no_state():
    layer = Dropout(0.5, name="dropout1")

    @tf.function(input_signature=[tf.TensorSpec([None, None, 6]), tf.TensorSpec([], tf.int32)])
    def graph(inputs, first_row):
        return dropped(layer, inputs, first_row=first_row)

    inputs = tf.ones([5, 3, 6])
    np.testing.assert_array_equal(graph(inputs, tf.constant(9)), dropped(layer, inputs, first_row=9))
    assert layer.variables == []


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5])
def test_a_rate_out_of_range_is_explained(rate):
    with pytest.raises(UsageError, match="dropout must be at least 0 and below 1"):
        Dropout(rate)


# ----------------------------------------------------------------------------------------------------- the two scales

RATE = 0.4
UNITS = np.array([1.0, -2.0, 0.5, 3.0, 0.25], np.float32)


def thinned(count):
    """`count` draws of our layer on the same units, in training."""
    return dropped(Dropout(RATE, name="dropout1"), tf.tile(UNITS[None], [count, 1])).numpy()


def at_test_time(units, rate=RATE):
    return Dropout(rate)(tf.constant(units), training=False).numpy()


def test_our_scale_and_the_lectures_differ_by_a_factor_in_training_and_at_test_time():
    """The lecture drops in training and multiplies by 1 - p at test time; ours divides by 1 - p in training instead.

    With (1 - p) W in place of W behind it, ours is the lecture's net: the same in training, with the same units
    dropped, and the same at test time.
    """
    weights = np.random.default_rng(0).normal(size=(5, 3))
    ours = thinned(50)
    mask = ours != 0
    lecture_training = (mask * UNITS) @ weights
    lecture_test = (1 - RATE) * UNITS @ weights
    np.testing.assert_allclose(ours @ ((1 - RATE) * weights), lecture_training, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(at_test_time(UNITS) @ ((1 - RATE) * weights), lecture_test, rtol=1e-6)


def test_units_and_the_layer_behind_see_in_the_mean_what_they_see_at_test_time():
    """A unit x has the variance x^2 p/(1 - p), and w . x that of the sum; five standard errors of 10,000 draws."""
    count = 10_000
    draws = thinned(count)
    variance = UNITS**2 * RATE / (1 - RATE)
    limits = 5 * np.sqrt(variance / count)
    assert (np.abs(draws.mean(0) - at_test_time(UNITS)) < limits).all()
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.1)

    weights = np.array([0.5, -1, 2, 1, -3], np.float32)
    seen = (draws @ weights).mean()
    assert abs(seen - at_test_time(UNITS) @ weights) < 5 * np.sqrt((weights**2 * variance).sum() / count)

    only_dropped = (draws != 0) * UNITS  # the lecture's training, which its factor at test time makes up for
    assert (np.abs(only_dropped.mean(0) - (1 - RATE) * UNITS) < limits).all()
    assert (np.abs(only_dropped.mean(0) - UNITS) > 5 * limits).all()


def test_the_net_at_test_time_is_the_geometric_mean_of_all_thinned_nets():
    """Many nets that share weights: exact for units in front of a softmax (Srivastava et al. 2014, section 2).

    Of 6 units at p = 1/2 there are 64 thinned nets, each drawn equally often.
    """
    units = np.array([1.0, -2.0, 0.5, 3.0, 0.25, -1.0], np.float32)
    draws = dropped(Dropout(0.5, name="dropout1"), tf.tile(units[None], [6400, 1])).numpy()
    nets, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(nets) == 64
    assert ((counts - 100) ** 2 / 100).sum() < 114  # chi-squared of 63 degrees exceeds it once in 10,000

    weights = np.random.default_rng(0).normal(size=(6, 4))

    def softmax(logits):
        p = np.exp(logits)
        return p / p.sum(-1, keepdims=True)

    mean = np.exp(np.log(softmax(nets @ weights)).mean(0))
    whole = softmax(at_test_time(units, 0.5) @ weights)
    np.testing.assert_allclose(mean / mean.sum(), whole, rtol=1e-6)
