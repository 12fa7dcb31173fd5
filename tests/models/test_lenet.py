"""LeNet-5 against the lecture's figures."""

import numpy as np
import pytest
from deferred import count, deferred, shapes

from dlkit.errors import UsageError
from dlkit.models.lenet import lenet


def test_parameters():
    assert count(deferred(lenet).weights) == 61_706


def test_shapes_one_by_one():
    assert shapes(deferred(lenet), "conv1", "pool1", "conv2", "pool2", "flatten", "dense1", "dense2", "head") == [
        (28, 28, 6),
        (14, 14, 6),
        (10, 10, 16),
        (5, 5, 16),
        (400,),
        (120,),
        (84,),
        (10,),
    ]


def test_layers_are_named_by_place():
    names = [layer.name for layer in deferred(lenet, activation="tanh", norm="batch", dropout=0.1).layers]
    assert names == [
        *("image", "conv1", "norm1", "tanh1", "pool1", "conv2", "norm2", "tanh2", "pool2", "flatten"),
        *("dense1", "dense_norm1", "dense_tanh1", "dense_dropout1"),
        *("dense2", "dense_norm2", "dense_tanh2", "dense_dropout2", "head"),
    ]


@pytest.mark.parametrize(("pool", "value"), [("max", 4.0), ("average", 2.5)])
def test_pooling(pool, value):
    model = lenet(pool=pool)
    quads = np.tile(np.array([[1, 2], [3, 4]], "float32"), (14, 14))[None, :, :, None]
    assert np.unique(model.get_layer("pool1")(quads)) == [value]


def test_too_small_images():
    assert deferred(lenet, (16, 16, 1)).output.shape == (None, 10)
    with pytest.raises(UsageError, match="lenet needs images of at least 16x16x1, and they are 28x15x1"):
        lenet((28, 15, 1))
