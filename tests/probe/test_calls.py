"""What blocks and nets inside of a model are given and give, and whose calls are told."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import dlkit
from dlkit.probe.jacobian_view import _of_calls
from dlkit.probe.jacobians import jacobian
from dlkit.probe.watching import calls_of_blocks, inner_layers, inner_nets

X = tf.constant(np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32))


class Adding:
    """A block: x + x K."""

    def __init__(self, name):
        self.dense = keras.layers.Dense(3, use_bias=False, name=f"{name}_dense")
        self.dense.build((None, 3))
        self.layers = [self.dense]

    def __call__(self, x):
        return x + self.dense(x)


class Inheriting(Adding):
    """One that has no `__call__` of its own."""


class Net(keras.Model):
    """The first block twice, the others once, in the order of the list."""

    def __init__(self, *blocks):
        super().__init__(name="net")
        self.blocks = list(blocks)
        self.block_layers = [layer for block in blocks for layer in block.layers]

    def call(self, x, training=False):
        for block in (self.blocks[0], *self.blocks):
            x = block(x)
        return x


def test_only_the_blocks_of_the_model_are_told():
    """Another model of the same class runs in between."""
    options = {"vocabulary": 9, "width": 8, "heads": 2, "layers": 2, "max_length": 4}
    first, second = (dlkit.build("gpt", **options) for _ in range(2))
    ids = tf.constant([[1, 2, 3]])
    told = calls_of_blocks(first, lambda: [model(ids) for model in (second, first, second)])
    assert [seen.name for seen in told] == ["block1", "block2"]
    assert all(seen.layer is block for seen, block in zip(told, first.blocks, strict=True))
    assert calls_of_blocks(first, lambda: second(ids)) == []


def test_a_watch_within_a_watch_ends_before_it():
    net, found = Net(Adding("block1"), Adding("block2")), []
    outer = calls_of_blocks(net, lambda: (found.append(calls_of_blocks(net, lambda: net(X))), net(X)))
    assert [[seen.name for seen in told] for told in (found[0], outer)] == [
        ["block1", "block1", "block2"],
        ["block1", "block1", "block2"] * 2,
    ]


def test_classes_of_blocks_stay_as_they_are():
    net = Net(Adding("block1"), Inheriting("block2"))
    before = {kind: dict(vars(kind)) for kind in (Adding, Inheriting)}

    def fails():
        assert type(net.blocks[0]) is not Adding, "nothing would be shown"
        net(X)
        raise ValueError

    told = calls_of_blocks(net, lambda: net(X))
    assert [seen.name for seen in told] == ["block1", "block1", "block2"]
    with pytest.raises(ValueError, match="^$"):
        calls_of_blocks(net, fails)
    assert [type(block) for block in net.blocks] == [Adding, Inheriting]
    assert {kind: dict(vars(kind)) for kind in before} == before


def jacobians(model):
    """Of the layers and blocks of a model that takes `X` to logits: name -> matrix."""
    subject = SimpleNamespace(model=model, task=SimpleNamespace(logits=lambda model, batch: model(batch["x"])))
    return {name: jacobian(*each) for name, each in _of_calls(subject, {"x": X}).items()}


def test_a_block_that_is_called_twice_has_no_jacobian_as_a_layer_has_none():
    """y = x + x K of a row: its derivative is I + K^T."""
    net = Net(Adding("block1"), Adding("block2"))
    found = jacobians(net)
    assert list(found) == ["block2_dense", "block2 (whole)"]
    kernel = net.blocks[1].dense.kernel.numpy()
    np.testing.assert_allclose(found["block2_dense"], kernel.T, rtol=1e-5)
    np.testing.assert_allclose(found["block2 (whole)"], np.eye(3) + kernel.T, rtol=1e-5)


class Around(keras.Model):
    """A graph of layers inside of a model: a residual block of two layers, and a layer behind it."""

    def __init__(self):
        super().__init__(name="around")
        inputs = keras.Input((3,))
        x = keras.layers.Dense(3, use_bias=False, name="first")(inputs)
        inner = keras.layers.Dense(5, use_bias=False, name="stage1_block1_dense1")(x)
        inner = keras.layers.Dense(3, use_bias=False, name="stage1_block1_dense2")(inner)
        x = keras.layers.Add(name="stage1_block1_add")([x, inner])
        self.inner = keras.Model(inputs, x, name="inner")
        self.head = keras.layers.Dense(2, use_bias=False, name="head")
        self.head.build((None, 3))

    def call(self, x, training=False):
        return self.head(self.inner(x))


def test_residual_blocks_of_a_net_inside_a_model_are_wholes():
    """x + x A B of a row: I + (A B)^T."""
    model = Around()
    assert [name for name, _ in inner_nets(model)] == ["inner"]
    assert [name for name, _ in inner_layers(model)] == [
        "inner/first", "inner/stage1_block1_dense1", "inner/stage1_block1_dense2", "inner/stage1_block1_add", "head",
    ]  # fmt: skip
    found = jacobians(model)
    a, b, head = (
        layer.kernel.numpy()
        for layer in (*(model.inner.get_layer(f"stage1_block1_dense{at}") for at in (1, 2)), model.head)
    )
    np.testing.assert_allclose(found["inner/stage1_block1 (whole)"], np.eye(3) + (a @ b).T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["head"], head.T, rtol=1e-5)
    assert "inner (whole)" not in found


def residual(x, place):
    """x + x A B."""
    inner = keras.layers.Dense(5, use_bias=False, name=f"{place}_dense1")(x)
    inner = keras.layers.Dense(3, use_bias=False, name=f"{place}_dense2")(inner)
    return keras.layers.Add(name=f"{place}_add")([x, inner])


def test_blocks_of_a_graph_and_of_all_nets_in_it_are_wholes():
    """At three depths: I + (A B)^T each."""
    x = keras.Input((3,))
    innermost = keras.Model(x, residual(x, "stage1_block1"), name="innermost")
    x = keras.Input((3,))
    inner = keras.Model(x, residual(innermost(x), "stage1_block1"), name="inner")
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, name="head")(residual(inner(x), "stage2_block1")))
    found = jacobians(model)
    nets = {"inner/innermost/stage1_block1": innermost, "inner/stage1_block1": inner, "stage2_block1": model}
    assert {name for name in found if name.endswith("(whole)")} == {f"{name} (whole)" for name in nets}
    for name, net in nets.items():
        place = name.rpartition("/")[2]
        a, b = (net.get_layer(f"{place}_dense{at}").kernel.numpy() for at in (1, 2))
        np.testing.assert_allclose(found[f"{name} (whole)"], np.eye(3) + (a @ b).T, rtol=1e-4, atol=1e-6)
