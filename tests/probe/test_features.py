import keras
import numpy as np
import pytest

from dlkit.errors import UsageError
from dlkit.models.lenet import lenet
from dlkit.probe.features import computing_layers, features, main_maps, shape_text


def test_maps_by_hand():
    """A kernel that takes the right neighbour's difference, on an image with one edge; then 2x2 max pooling."""
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(1, (1, 2), use_bias=False, padding="same", name="edges")(inputs)
    model = keras.Model(inputs, keras.layers.MaxPooling2D(2, name="pool")(x))
    model.get_layer("edges").set_weights([np.array([-1.0, 1.0]).reshape(1, 2, 1, 1)])
    image = np.array([[0, 5, 5, 5]] * 4, np.float32)[..., np.newaxis]
    edges, pool = features(model, image, ["edges", "pool"])
    assert edges.values[..., 0].tolist() == [[5, 0, 0, -5]] * 4
    assert pool.values[..., 0].tolist() == [[5, 0]] * 2
    assert (edges.layer, pool.layer) == ("edges", "pool")


def test_every_layer_that_computes_is_looked_at_in_order():
    model = lenet(dropout=0.5)
    assert [layer.name for layer in computing_layers(model)] == [
        *("conv1", "relu1", "pool1", "conv2", "relu2", "pool2"),
        *("dense1", "dense_relu1", "dense2", "dense_relu2", "head"),
    ]


def test_the_last_maps_are_the_output_of_the_model():
    model = lenet(dropout=0.5, norm="batch")
    image = np.random.default_rng(0).normal(size=(32, 32, 1)).astype(np.float32)
    (head,) = features(model, image, ["head"])
    np.testing.assert_allclose(head.values, model(image[np.newaxis], training=False)[0], rtol=1e-5)


def test_main_maps_are_those_after_activations_and_pools():
    model = lenet()
    image = np.zeros((32, 32, 1), np.float32)
    names = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"]
    maps = features(model, image, names)
    assert [one.layer for one in main_maps(model, maps)] == ["relu1", "pool1", "relu2", "pool2"]
    assert [one.layer for one in main_maps(model, maps[:1])] == ["conv1"]


def test_a_model_without_a_graph_is_refused():
    class Net(keras.Model):
        pass

    with pytest.raises(UsageError, match="mine is not built of named layers"):
        computing_layers(Net(name="mine"))


def test_shape_text():
    assert shape_text((28, 28, 6)) == "28x28x6"
    assert shape_text((10,)) == "10"
