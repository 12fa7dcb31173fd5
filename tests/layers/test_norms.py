"""Batch norm against NumPy (Ioffe and Szegedy 2015, section 3), on one device and on two, with and without padding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.errors import UsageError
from dlkit.layers import step_context
from dlkit.layers.norms import EPSILON, MOMENTUM, BatchNorm, norm
from dlkit.layers.step_context import StepContext
from dlkit.probe.record import unallocated

SEED, ROW = tf.zeros([2], tf.int32), tf.constant(0)
SHAPES = [(12, 5), (6, 4, 3, 5)]
# Precision, and whether the step context has row weights: together they choose the path.
PATHS = {"summed in float64": ("float64", False), "fused": ("float32", False), "summed in float32": ("float32", True)}


def algorithm_1(x, dy, gamma, beta):
    """Outputs, mean, biased variance and the gradients of section 3, of (values, features) in float64."""
    n = len(x)
    mean = x.sum(0) / n
    variance = ((x - mean) ** 2).sum(0) / n
    deviation = np.sqrt(variance + EPSILON)
    x_hat = (x - mean) / deviation
    dx_hat = dy * gamma
    d_variance = (dx_hat * (x - mean)).sum(0) * -0.5 * deviation**-3
    d_mean = (-dx_hat / deviation).sum(0) + d_variance * (-2 * (x - mean)).sum(0) / n
    dx = dx_hat / deviation + d_variance * 2 * (x - mean) / n + d_mean / n
    return gamma * x_hat + beta, mean, variance, dx, (dy * x_hat).sum(0), dy.sum(0)


def draws(shape, seed=0):
    """Inputs, gradient of the outputs, scale and offset, in float64."""
    generator = np.random.default_rng(seed)
    features = shape[-1]
    x = generator.normal(generator.normal(size=features), generator.uniform(0.5, 2, features), shape)
    return x, generator.normal(size=shape), generator.uniform(0.5, 2, features), generator.normal(size=features)


def layer_with(gamma, beta, dtype="float32"):
    layer = BatchNorm(dtype=dtype)
    layer.build((None, len(gamma)))
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    return layer


def train(layer, x, dy, row_weights=None):
    """Outputs and the gradients of sum(outputs * dy) with respect to inputs, scale and offset."""
    x = tf.convert_to_tensor(x)
    weights = [layer.gamma.value, layer.beta.value]
    with step_context.use(StepContext(SEED, ROW, row_weights)), tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, x.dtype) * tf.cast(dy, x.dtype))
    return [y, *tape.gradient(loss, [x, *weights])]


def assert_close(ours, theirs, dtype):
    limit = {"float64": 1e-11, "float32": 2e-5, "mixed_bfloat16": 0.05}[dtype]
    np.testing.assert_allclose(np.asarray(tf.cast(ours, tf.float64)), theirs, rtol=limit, atol=limit)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_training_equals_numpy(shape, path):
    dtype, weighted = PATHS[path]
    x, dy, gamma, beta = draws(shape)
    n = x.size // shape[-1]
    flat = x.reshape(n, -1), dy.reshape(n, -1)
    y, mean, variance, dx, d_gamma, d_beta = algorithm_1(*flat, gamma, beta)

    layer = layer_with(gamma, beta, dtype)
    results = train(layer, x.astype(dtype), dy, tf.ones([shape[0]]) if weighted else None)
    for ours, theirs in zip(results, [y.reshape(shape), dx.reshape(shape), d_gamma, d_beta], strict=True):
        assert ours.dtype == dtype
        assert_close(ours, theirs, dtype)
    # From mean 0 and variance 1, one step towards the statistics of the batch; the variance n/(n - 1) of algorithm 2.
    assert_close(layer.moving_mean, (1 - MOMENTUM) * mean, dtype)
    assert_close(layer.moving_variance, MOMENTUM + (1 - MOMENTUM) * variance * n / (n - 1), dtype)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("trainable", [True, False])
def test_inference_and_a_frozen_layer_use_the_moving_statistics(path, trainable):
    dtype, weighted = PATHS[path]
    x, dy, gamma, beta = draws((6, 4, 3, 5))
    layer = layer_with(gamma, beta, dtype)
    mean, variance = beta + 0.5, gamma * 2
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
    layer.trainable = trainable
    expected = gamma * (x - mean) / np.sqrt(variance + EPSILON) + beta
    if trainable:
        assert_close(layer(x.astype(dtype), training=False), expected, dtype)
    else:
        y, dx, *_ = train(layer, x.astype(dtype), dy, tf.ones([6]) if weighted else None)
        assert_close(y, expected, dtype)
        assert_close(dx, dy * gamma / np.sqrt(variance + EPSILON), dtype)
    assert_close(layer.moving_mean, mean, dtype)
    assert_close(layer.moving_variance, variance, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_padded_rows_count_for_nothing(dtype):
    x, dy, gamma, beta = draws((5, 4, 3, 2))
    x[3:], dy[3:] = 1000, 0  # two rows of padding, of which the loss takes no notice
    layer = layer_with(gamma, beta, dtype)
    y, dx, d_gamma, d_beta = train(layer, x.astype(dtype), dy, tf.constant([1.0, 1, 1, 0, 0]))

    alone = layer_with(gamma, beta, dtype)
    expected = train(alone, x[:3].astype(dtype), dy[:3])
    for ours, theirs in zip([y[:3], dx[:3], d_gamma, d_beta], expected, strict=True):
        assert_close(ours, theirs, dtype)
    assert not np.any(dx[3:])
    for ours, theirs in zip(layer.non_trainable_weights, alone.non_trainable_weights, strict=True):
        assert_close(ours, theirs, dtype)


def test_a_micro_batch_of_padding_alone_leaves_the_statistics():
    x, dy, gamma, beta = draws((4, 2))
    layer = layer_with(gamma, beta)
    train(layer, x.astype("float32"), dy)
    before = [weight.numpy() for weight in layer.weights]
    outputs = train(layer, np.zeros((4, 2), "float32"), 0 * dy, tf.zeros([4]))[0]
    assert np.all(np.isfinite(outputs))
    np.testing.assert_array_equal(before, [weight.numpy() for weight in layer.weights])


@pytest.mark.parametrize("path", ["fused", "summed in float32"])
def test_data_far_from_zero_keep_their_variance(path):
    _, weighted = PATHS[path]
    x = np.random.default_rng(0).normal(3000, 1, (4000, 2)).astype("float32")
    layer = layer_with(np.ones(2), np.zeros(2))
    y = train(layer, x, 0 * x, tf.ones([4000]) if weighted else None)[0].numpy()
    np.testing.assert_allclose(y.std(0), 1, atol=1e-3)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * x.astype("float64").var(0, ddof=1), atol=1e-4)


@pytest.mark.parametrize("path", ["fused", "summed in float32"])
def test_bfloat16_data_keep_float32_statistics(path):
    _, weighted = PATHS[path]
    x, dy, gamma, beta = draws((32, 4, 3, 5))
    x = tf.cast(x, tf.bfloat16)
    layer = layer_with(gamma, beta, "mixed_bfloat16")
    y, _, d_gamma, d_beta = train(layer, x, dy, tf.ones([32]) if weighted else None)
    assert [y.dtype, d_gamma.dtype, d_beta.dtype] == [tf.bfloat16, tf.float32, tf.float32]
    rounded = tf.cast(x, tf.float64).numpy().reshape(-1, 5)
    expected, mean, variance, *_ = algorithm_1(rounded, 0 * rounded, gamma, beta)
    assert_close(y, expected.reshape(x.shape), "mixed_bfloat16")
    n = len(rounded)
    assert_close(layer.moving_mean, (1 - MOMENTUM) * mean, "float32")
    assert_close(layer.moving_variance, MOMENTUM + (1 - MOMENTUM) * variance * n / (n - 1), "float32")


def train_on_two(gamma, beta, x, dy, dtype, row_weights=None):
    """As `train` on two devices with half of the rows each; gradients of the weights added up as the trainer does."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        layer = layer_with(gamma, beta, dtype)

    def halves(array):
        return strategy.experimental_distribute_values_from_function(
            lambda replica: tf.split(tf.convert_to_tensor(array), 2)[replica.replica_id_in_sync_group]
        )

    @tf.function
    def step(*arrays):
        return strategy.run(lambda *half: train(layer, *half), arrays)

    arrays = [x, dy] if row_weights is None else [x, dy, row_weights]
    y, dx, d_gamma, d_beta = (strategy.experimental_local_results(r) for r in step(*map(halves, arrays)))
    for statistic in layer.non_trainable_weights:
        first, second = strategy.experimental_local_results(statistic.value)
        np.testing.assert_array_equal(first, second)
    return layer, [tf.concat(y, 0), tf.concat(dx, 0), tf.add_n(d_gamma), tf.add_n(d_beta)]


@pytest.mark.parametrize("rows", [8, 5])
@pytest.mark.parametrize(
    ("shape", "dtype"), [((8, 5), "float64"), ((8, 4, 3, 5), "float64"), ((8, 4, 3, 5), "float32")]
)
def test_two_devices_equal_one(shape, dtype, rows):
    """Rows 0 to 3 on the first device, rows 4 to 7 on the second, of which the last may be padding."""
    x, dy, gamma, beta = draws(shape, seed=1)
    dy[rows:] = 0
    x, weights = x.astype(dtype), (np.arange(8) < rows).astype("float32")
    one = layer_with(gamma, beta, dtype)
    expected = train(one, x[:rows], dy[:rows])
    two, results = train_on_two(gamma, beta, x, dy, dtype, None if rows == 8 else weights)
    assert not np.any(results[1][rows:])
    for ours, theirs in zip([results[0][:rows], results[1][:rows], *results[2:]], expected, strict=True):
        assert_close(ours, theirs, dtype)
    for ours, theirs in zip(two.non_trainable_weights, one.non_trainable_weights, strict=True):
        assert_close(ours, theirs, dtype)


@pytest.mark.parametrize("rows", [8, 7, 3])
@pytest.mark.parametrize("shape", [(8, 5), (8, 4, 3, 5)])
def test_two_devices_equal_numpy_on_the_real_rows(shape, rows):
    """What stands in the padded rows is nobody's business; with 3 of 8 the second device has nothing else."""
    x, dy, gamma, beta = draws(shape, seed=2)
    x[rows:], dy[rows:] = 1e6, 0
    weights = None if rows == 8 else (np.arange(8) < rows).astype("float32")
    layer, (y, dx, d_gamma, d_beta) = train_on_two(gamma, beta, x, dy, "float64", weights)

    flat = x[:rows].reshape(-1, 5), dy[:rows].reshape(-1, 5)
    n = len(flat[0])
    expected, mean, variance, expected_dx, expected_d_gamma, expected_d_beta = algorithm_1(*flat, gamma, beta)
    assert_close(y[:rows], expected.reshape(rows, *shape[1:]), "float64")
    assert_close(dx, np.concatenate([expected_dx.reshape(rows, *shape[1:]), 0 * dy[rows:]]), "float64")
    assert_close(d_gamma, expected_d_gamma, "float64")
    assert_close(d_beta, expected_d_beta, "float64")
    assert_close(layer.moving_mean, (1 - MOMENTUM) * mean, "float64")
    assert_close(layer.moving_variance, MOMENTUM + (1 - MOMENTUM) * variance * n / (n - 1), "float64")


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("shape", [(8, 5), (8, 4, 3, 5)])
def test_the_fused_and_the_synchronized_path_agree(shape, dtype, devices):
    """To the rounding of float32, and where results are bfloat16 to its last bit.

    Of 8 values n/(n - 1) makes the variance larger by a seventh, so a path without it would show. A bfloat16 has 8
    bits: two numbers that are as good as equal may be rounded to neighbours, 2^-7 apart, and no further if they are
    rounded but once. What is near zero is a difference of terms about 1, with their rounding.
    """
    x, dy, gamma, beta = draws(shape, seed=4)
    data = tf.cast(x, "bfloat16" if dtype == "mixed_bfloat16" else "float32")
    fused = layer_with(gamma, beta, dtype)
    expected = train(fused, data, dy)
    if devices == 1:
        summed = layer_with(gamma, beta, dtype)
        results = train(summed, data, dy, tf.ones([8]))
    else:
        summed, results = train_on_two(gamma, beta, data, dy, dtype)
    expected += [weight.value for weight in fused.non_trainable_weights]
    results += [tf.convert_to_tensor(weight.value) for weight in summed.non_trainable_weights]
    assert [each.dtype for each in expected[:2]] == [data.dtype] * 2
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.dtype == theirs.dtype
        rtol = 2**-7 if ours.dtype == tf.bfloat16 else 1e-6
        np.testing.assert_allclose(tf.cast(ours, tf.float64), tf.cast(theirs, tf.float64), rtol=rtol, atol=2e-6)


def test_layer_norm_normalizes_each_position_over_its_features():
    x = np.random.default_rng(0).normal(3, 2, (2, 4, 4, 64)).astype("float32")
    layer = norm("layer", name="norm1")
    assert layer is not None
    y = layer(x).numpy()
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1, atol=1e-4)


def test_kinds():
    layer = norm("batch", name="norm1")
    assert isinstance(layer, BatchNorm)
    assert layer.name == "norm1"
    assert norm("none", name="norm1") is None
    with pytest.raises(UsageError, match="unknown norm: bach"):
        norm("bach", name="norm1")  # type: ignore[arg-type]


def test_a_deferred_build_allocates_nothing():
    with unallocated():
        inputs = keras.Input((8, 8, 3))
        outputs = BatchNorm(name="norm1")(inputs)
        model = keras.Model(inputs, outputs)
    assert outputs.shape == (None, 8, 8, 3)
    assert [weight.shape for weight in model.weights] == [(3,)] * 4
    assert all(weight._value is None for weight in model.weights)
