"""AlexNet against the paper's and the lecture's figures."""

import numpy as np
import pytest
import tensorflow as tf
from deferred import count, deferred, shapes

from dlkit.errors import UsageError
from dlkit.layers.convolution import Conv2D
from dlkit.models.alexnet import LocalResponseNorm, alexnet


@pytest.mark.parametrize(("groups", "parameters"), [(1, 62_378_344), (2, 60_965_224)])
def test_parameters(groups, parameters):
    model = deferred(alexnet, groups=groups)
    assert count(model.weights) == parameters
    assert [count([weight]) for weight in model.get_layer("conv1").weights] == [34_848, 96]


def test_shapes_one_by_one():
    names = "conv1", "pool1", "lrn1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "flatten", "dense1", "head"
    assert shapes(deferred(alexnet), *names) == [
        *[(55, 55, 96), (27, 27, 96), (27, 27, 96)],
        *[(27, 27, 256), (13, 13, 256)],
        *[(13, 13, 384), (13, 13, 384), (13, 13, 256), (6, 6, 256)],
        *[(9216,), (4096,), (1000,)],
    ]


@pytest.mark.parametrize(
    ("lrn", "order"),
    [
        ("after_pool", ["pool1", "lrn1", "pool2", "lrn2", "pool5"]),
        ("before_pool", ["lrn1", "pool1", "lrn2", "pool2", "pool5"]),
        ("none", ["pool1", "pool2", "pool5"]),
    ],
)
def test_the_place_of_response_normalization(lrn, order):
    names = [layer.name for layer in deferred(alexnet, lrn=lrn).layers]
    assert [name for name in names if name.startswith(("lrn", "pool"))] == order


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("float64", 1e-12)])
def test_response_normalization_equals_its_formula(dtype, limit):
    maps = np.random.default_rng(0).normal(0, 100, (2, 3, 3, 7)).astype(dtype)
    expected = np.empty_like(maps)
    for i in range(7):
        beside = [j for j in range(7) if abs(i - j) <= 2]
        expected[..., i] = maps[..., i] / (2 + 1e-4 * (maps[..., beside] ** 2).sum(-1)) ** 0.75
    np.testing.assert_allclose(LocalResponseNorm(dtype=dtype)(maps), expected, rtol=limit)


def test_response_normalization_in_bfloat16_is_rounded_at_its_end_only():
    """A sum of squares of 45 to 80 changes k = 2 by less than half a step of bfloat16, 1/128."""
    maps = tf.cast(np.random.default_rng(0).uniform(3, 4, (2, 3, 3, 7)), tf.bfloat16)
    exact = maps.numpy().astype(np.float64)
    expected = np.empty_like(exact)
    for i in range(7):
        beside = [j for j in range(7) if abs(i - j) <= 2]
        expected[..., i] = exact[..., i] / (2 + 1e-4 * (exact[..., beside] ** 2).sum(-1)) ** 0.75
    found = LocalResponseNorm(dtype="bfloat16")(maps)
    assert found.dtype == tf.bfloat16
    np.testing.assert_array_equal(found, tf.cast(expected, tf.bfloat16))
    blind = tf.cast(exact / 2**0.75, tf.bfloat16)  # what k alone would give
    assert np.any(found.numpy() != blind.numpy())


def test_dropout_is_on_by_default_and_goes_at_rate_zero():
    names = [layer.name for layer in deferred(alexnet).layers]
    assert [name for name in names if "dropout" in name] == ["dense_dropout1", "dense_dropout2"]
    assert not [layer.name for layer in deferred(alexnet, dropout=0).layers if "dropout" in layer.name]


def test_groups_compute_their_halves_apart():
    grouped = Conv2D(6, 3, padding="same", groups=2)
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 4)).astype("float32")
    y = grouped(x).numpy()
    # The same as one convolution whose kernel is zero between the halves.
    kernel = np.zeros((3, 3, 4, 6), "float32")
    kernel[:, :, :2, :3] = grouped.kernel.numpy()[..., :3]
    kernel[:, :, 2:, 3:] = grouped.kernel.numpy()[..., 3:]
    np.testing.assert_allclose(y, tf.nn.conv2d(x, kernel, 1, "SAME"), atol=1e-5)


def test_too_small_images():
    assert deferred(alexnet, (63, 63, 3)).output.shape == (None, 1000)
    with pytest.raises(UsageError, match="alexnet needs images of at least 63x63x1, and they are 62x62x3"):
        alexnet((62, 62, 3))
