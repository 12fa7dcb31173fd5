"""The fully connected baseline, and what every builder offers."""

from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from deferred import count, deferred, layer_types, shapes

from dlkit.errors import UsageError
from dlkit.layers.activations import Activation
from dlkit.models.mlp import mlp


def test_a_dense_layer_on_an_image_has_three_million_weights():
    model = deferred(mlp, (128, 128, 3), hidden=(64,))
    assert count([model.get_layer("dense1").kernel]) == 3_145_728


def test_counts_and_shapes():
    model = deferred(mlp, (32, 32, 1), 10)
    assert count(model.weights) == (1024 * 256 + 256) + (256 * 128 + 128) + (128 * 10 + 10)
    assert shapes(model, "flatten", "dense1", "dense2", "head") == [(1024,), (256,), (128,), (10,)]
    assert model.name == "mlp"
    assert layer_types(model) == {"InputLayer", "Flatten", "Dense", "Activation"}


def test_without_hidden_layers_it_is_a_linear_classifier():
    assert count(deferred(mlp, (4, 4, 1), 3, hidden=()).weights) == 16 * 3 + 3


def test_a_norm_takes_the_place_of_the_bias():
    model = deferred(mlp, (4, 4, 1), 3, hidden=(5,), norm="batch")
    assert count(model.trainable_weights) == (16 * 5 + 2 * 5) + (5 * 3 + 3)
    assert count(model.weights) - count(model.trainable_weights) == 2 * 5
    names = [layer.name for layer in model.layers]
    assert names == ["image", "flatten", "dense1", "dense_norm1", "dense_relu1", "head"]


def test_dropout_stands_after_each_hidden_layer():
    model = deferred(mlp, (4, 4, 1), 3, hidden=(5, 6), dropout=0.3)
    assert [layer.name for layer in model.layers if type(layer).__name__ == "Dropout"] == [
        "dense_dropout1",
        "dense_dropout2",
    ]


def test_first_weights_and_biases():
    model = mlp((4, 4, 1), 3, hidden=(5,), init="gaussian:0.0001", bias_init=0.1)
    for name in ("dense1", "head"):
        layer = model.get_layer(name)
        np.testing.assert_allclose(layer.bias, 0.1)
        assert 0 < np.abs(layer.kernel).max() < 0.001


# The value at 1 of each non-linearity.
AT_ONE = {
    "relu": 1.0,
    "relu_squared": 1.0,
    "leaky_relu": 1.0,
    "elu": 1.0,
    "gelu": 0.5 * (1 + 0.682689492),  # 1 * Phi(1), and Phi(1) - Phi(-1) = 0.6827
    "silu": 1 / (1 + np.exp(-1)),
    "tanh": np.tanh(1),
    "sigmoid": 1 / (1 + np.exp(-1)),
    "linear": 1.0,
}


@pytest.mark.parametrize("activation", get_args(Activation))
def test_activations(activation):
    model = mlp((1, 1, 1), 1, hidden=(1,), init="zeros", bias_init=1.0, activation=activation)
    model.get_layer("head").kernel.assign([[1]])
    assert model(np.zeros((1, 1, 1, 1), "float32")).numpy() == pytest.approx(AT_ONE[activation] + 1, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "hee"}, "unknown init: hee"),
        ({"norm": "bach"}, "unknown norm: bach"),
        ({"activation": "rely"}, "unknown activation: rely"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"hidden": (0,)}, "layer dense1 needs at least 1 unit, and has 0"),
        ({"classes": 0}, "layer head needs at least 1 unit, and has 0"),
        ({"input_shape": (4, 0, 1)}, "mlp needs images of at least 1x1x1, and they are 4x0x1"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(UsageError, match=message):
        mlp(**{"input_shape": (4, 4, 1), **options})


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
def test_every_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = mlp((4, 4, 1), 3, hidden=(5,), norm="batch", dropout=0.5)
    logits = model(np.ones((2, 4, 4, 1), "float32"), training=True)
    assert logits.dtype == tf.as_dtype(policy.removeprefix("mixed_"))
    assert {weight.dtype for weight in model.weights} == {"float64" if policy == "float64" else "float32"}
