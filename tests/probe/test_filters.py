import keras
import numpy as np
import pytest

from dlkit.errors import UsageError
from dlkit.models.alexnet import alexnet
from dlkit.models.mlp import mlp
from dlkit.probe.filters import LayerFilters, filters
from dlkit.probe.record import unallocated


def test_norms_by_hand():
    """Two filters of 1x2 on one channel: (3, 4) has norm 5, (0, -2) has norm 2."""
    kernel = np.array([[3.0, 0.0], [4.0, -2.0]], np.float32).reshape(1, 2, 1, 2)
    assert LayerFilters("conv", kernel).norms.tolist() == [5, 2]


def test_the_kernels_are_those_of_the_convolutions_in_order():
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(inputs)
    x = keras.layers.Dense(5, name="dense")(x)
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, name="second")(x))
    first, second = filters(model)
    assert (first.layer, second.layer) == ("first", "second")
    np.testing.assert_array_equal(first.kernel, model.get_layer("first").get_weights()[0])
    assert second.kernel.shape == (1, 1, 5, 2)


def test_grouped_convolutions_have_their_own_channels_only():
    """In the two halves of Krizhevsky et al. 2012, the second convolution sees 48 of the 96 maps."""
    with unallocated():
        model = alexnet(groups=2)
    assert model.get_layer("conv2").kernel.shape == (5, 5, 48, 256)


def test_a_net_without_convolutions():
    with pytest.raises(UsageError, match="mlp has no convolutions"):
        filters(mlp(hidden=(4,)))
