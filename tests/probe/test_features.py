import keras
import numpy as np
from nested_classifier import nested

from dlkit.models.lenet import lenet
from dlkit.probe.features import calls_by_name, computing_layers, features, main_layers, shape_text


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


def test_layers_of_a_net_inside_are_gone_through():
    """The maps behind the whole inner net are what it gives, and those of its layers what they give in their order."""
    model = nested()
    image = np.random.default_rng(0).normal(size=(16, 16, 1)).astype(np.float32)
    seen, said = calls_by_name(model, image[np.newaxis])
    inside = ["conv", "stage1_block1_conv1", "stage1_block1_add", "stage1_block1_relu", "pool"]
    behind = ["stage2_block1_conv1", "stage2_block1_add"]
    assert list(seen) == [*(f"trunk/{name}" for name in inside), "norm", "conv2", *behind, "mean", "head"]
    trunk = model.get_layer("trunk")
    conv, relu, pool, head = features(
        model, image, ["trunk/conv", "trunk/stage1_block1_relu", "trunk/pool", "head"]
    )  # fmt: skip
    own = trunk.get_layer("conv")(image[np.newaxis])
    np.testing.assert_allclose(conv.values, own[0], rtol=1e-5)
    both = own + trunk.get_layer("stage1_block1_conv1")(own)
    np.testing.assert_allclose(relu.values, np.maximum(both[0], 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pool.values, trunk(image[np.newaxis])[0], rtol=1e-5)
    np.testing.assert_allclose(head.values, said[0], rtol=1e-5)


def test_layers_of_a_net_of_code_are_found_by_their_calls():
    """A layer that is called twice has two outputs: 3 x and 9 x."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.conv = keras.layers.Conv2D(1, 1, use_bias=False, name="conv")
            self.conv.build((None, 2, 2, 1))

        def call(self, x, training=False):
            return self.conv(self.conv(x))

    model = Net()
    model.conv.set_weights([np.full((1, 1, 1, 1), 3.0)])
    once, twice = features(model, np.ones((2, 2, 1), np.float32), ["conv", "conv (2)"])
    assert once.values.ravel().tolist() == [3.0] * 4
    assert twice.values.ravel().tolist() == [9.0] * 4


def test_main_layers_are_activations_and_pools():
    seen, _ = calls_by_name(lenet(), np.zeros((1, 32, 32, 1), np.float32))
    spatial = {name: seen[name] for name in ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"]}
    assert main_layers(spatial) == ["relu1", "pool1", "relu2", "pool2"]
    assert main_layers({"conv1": seen["conv1"]}) == ["conv1"]


def test_shape_text():
    assert shape_text((28, 28, 6)) == "28x28x6"
    assert shape_text((10,)) == "10"
