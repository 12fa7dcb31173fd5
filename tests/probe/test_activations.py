import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.errors import DataError
from dlkit.layers.activations import activation
from dlkit.probe.activations import _moments, _sums, _Totals, activations, has_relu


@pytest.fixture(scope="module")
def net():
    """A 1x1 convolution that hands its input and its negative to a ReLU; then batch norm with moved statistics."""
    inputs = keras.Input((2, 2, 1), name="image")
    x = keras.layers.Conv2D(2, 1, name="conv")(inputs)
    x = keras.layers.Activation("relu", name="relu")(x)
    x = keras.layers.BatchNormalization(epsilon=0.0, name="norm")(x)
    model = keras.Model(inputs, keras.layers.Dropout(0.5, name="dropout")(x))
    model.get_layer("conv").set_weights([np.array([[[[1.0, -1.0]]]]), np.zeros(2)])
    model.get_layer("norm").set_weights([np.ones(2), np.zeros(2), np.full(2, 3.0), np.full(2, 4.0)])
    return model


IMAGES = np.array([[[1, 2], [3, 4]], [[-1, 0], [1, 2]]], np.float32)[..., np.newaxis]


def test_mean_deviation_and_zeros_by_hand(net):
    """The ReLU gives 1 2 3 4 0 0 1 2 on the first channel and 1 once and 0 seven times on the second."""
    (relu,) = activations(net, [IMAGES], ["relu"])
    assert relu.shape == (2, 2, 2)
    assert relu.mean == pytest.approx(14 / 16)
    assert relu.std == pytest.approx(np.sqrt(36 / 16 - (14 / 16) ** 2))
    assert relu.zeros == pytest.approx(9 / 16)
    assert (relu.units, relu.dead) == (2, 0)


def test_a_unit_that_is_never_on_is_dead(net):
    """The first image is positive, so its negative is cut off everywhere."""
    (relu,) = activations(net, [IMAGES[:1]], ["relu"])
    assert relu.dead == 1


def test_only_a_relu_has_dead_units(net):
    conv, norm = activations(net, [IMAGES], ["conv", "norm"])
    assert conv.dead is None
    assert norm.dead is None


def test_statistics_are_those_of_test_time(net):
    """Batch norm with mean 3 and variance 4: (14/16 - 3) / 2. Dropout drops nothing."""
    norm, dropout = activations(net, [IMAGES], ["norm", "dropout"])
    assert norm.mean == pytest.approx((14 / 16 - 3) / 2)
    assert (dropout.mean, dropout.std, dropout.zeros) == (norm.mean, norm.std, norm.zeros)


def test_batches_do_not_matter(net):
    names = ["conv", "relu", "norm"]
    images = np.random.default_rng(0).normal(size=(11, 2, 2, 1)).astype(np.float32)
    whole = activations(net, [images], names)
    parts = activations(net, [images[:4], images[4:5], images[5:]], names)
    for one, other in zip(whole, parts, strict=True):
        assert other.mean == pytest.approx(one.mean, rel=1e-6)
        assert other.std == pytest.approx(one.std, rel=1e-6)
        assert (other.zeros, other.dead) == (one.zeros, one.dead)


def test_a_small_spread_around_a_large_mean():
    """0, 1 and 2 around 4096: the deviation is the square root of 2/3, which float32 squares would not show."""
    inputs = keras.Input((1, 1, 1))
    model = keras.Model(inputs, keras.layers.Rescaling(1.0, 4096.0, name="shifted")(inputs))
    (shifted,) = activations(model, [np.array([0, 1, 2], np.float32).reshape(3, 1, 1, 1)], ["shifted"])
    assert shifted.mean == pytest.approx(4097)
    assert shifted.std == pytest.approx(np.sqrt(2 / 3), rel=1e-6)


def test_dense_units_are_features():
    """Weights 1 and -1 with biases 0 and -1 on positive numbers: the second unit is never on."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="relu", name="dense")(inputs))
    model.get_layer("dense").set_weights([np.array([[1.0, -1.0]]), np.array([0.0, -1.0])])
    (dense,) = activations(model, [np.array([[1.0], [2.0]], np.float32)], ["dense"])
    assert (dense.shape, dense.units, dense.dead, dense.zeros, dense.mean) == ((2,), 2, 1, 0.5, 0.75)


def test_no_images_are_an_error(net):
    with pytest.raises(DataError, match="no images"):
        activations(net, [], ["relu"])


def test_what_counts_as_a_relu():
    assert has_relu(keras.layers.ReLU())
    assert has_relu(keras.layers.Dense(1, activation="relu"))
    assert has_relu(activation("relu_squared", name="squared"))
    assert not has_relu(activation("gelu", name="gelu"))
    assert not has_relu(keras.layers.ReLU(negative_slope=0.1))
    assert not has_relu(keras.layers.LeakyReLU())
    assert not has_relu(keras.layers.Activation("tanh"))
    assert not has_relu(keras.layers.MaxPooling2D())


def test_more_outputs_than_32_bits_count():
    """50,000 images of 32x32x64 outputs are 3.3e9."""
    totals = _Totals()
    for _ in range(2):
        totals.add({"conv": {"count": tf.constant(2**31 - 1)}})
    assert totals["conv"]["count"] == 2**32 - 2
    outputs = tf.ones((2, 3, 4))
    counts = _sums(outputs, has_slope="tanh") | _moments(outputs)
    assert {value.dtype for value in counts.values()} == {tf.int64, tf.float64}
    assert (int(counts["count"]), int(counts["rows"])) == (24, 6)
