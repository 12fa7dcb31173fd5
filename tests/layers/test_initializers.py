"""Draws against the arithmetic of their distributions."""

import keras
import numpy as np
import pytest

from dlkit.errors import UsageError
from dlkit.layers.initializers import Orthogonal, initializer

DENSE = (400, 500)
CONV = (3, 3, 64, 256)  # 3 * 3 * 64 = 576 inputs a unit


@pytest.mark.parametrize(
    ("name", "shape", "deviation"),
    [
        ("he", CONV, (2 / 576) ** 0.5),
        ("he", DENSE, (2 / 400) ** 0.5),
        ("xavier", CONV, (1 / 576) ** 0.5),
        ("xavier", DENSE, (1 / 400) ** 0.5),
        ("gaussian:0.0001", DENSE, 0.0001),
        ("gaussian:3", CONV, 3.0),
    ],
)
def test_normal_draws(name, shape, deviation):
    keras.utils.set_random_seed(1)
    z = np.asarray(initializer(name)(shape), np.float64) / deviation
    # Of N numbers the mean has deviation 1/sqrt(N), the standard deviation 1/sqrt(2N): five of these here.
    assert abs(z.mean()) < 5 / z.size**0.5
    assert abs(z.std() - 1) < 5 / (2 * z.size) ** 0.5
    assert 4 < np.abs(z).max() < 6  # not truncated: of 150,000 normal numbers some nine are beyond 4


@pytest.mark.parametrize(("shape", "fans"), [(DENSE, 400 + 500), (CONV, 9 * 64 + 9 * 256)])
def test_glorot_averages_the_fans(shape, fans):
    weights = np.asarray(initializer("glorot")(shape), np.float64)
    assert weights.var() == pytest.approx(2 / fans, rel=0.02)
    assert np.abs(weights).max() <= (6 / fans) ** 0.5


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (25, 25), (3, 3, 4, 50), (3, 3, 8, 16)])
def test_orthogonal_has_singular_values_of_one(shape):
    weights = np.asarray(initializer("orthogonal")(shape, "float64"))
    assert weights.shape == shape
    values = np.linalg.svd(weights.reshape(-1, shape[-1]), compute_uv=False)
    np.testing.assert_allclose(values, 1, atol=1e-12)


def test_zeros():
    assert not np.any(initializer("zeros")(DENSE))


@pytest.mark.parametrize("name", ["he", "xavier", "glorot", "orthogonal", "gaussian:0.1"])
def test_a_seed_repeats_the_draws_and_every_weight_has_its_own(name):
    keras.utils.set_random_seed(7)
    first, second = (np.asarray(initializer(name)((8, 6))) for _ in range(2))
    keras.utils.set_random_seed(7)
    again = np.asarray(initializer(name)((8, 6)))
    keras.utils.set_random_seed(8)
    other = np.asarray(initializer(name)((8, 6)))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 0.01
    assert np.abs(first - other).max() > 0.01


def test_orthogonal_comes_back_from_its_config():
    layer = Orthogonal(gain=2.0, seed=5)
    again = Orthogonal.from_config(layer.get_config())
    np.testing.assert_array_equal(layer((4, 4)), again((4, 4)))
    np.testing.assert_allclose(np.linalg.svd(again((4, 4)), compute_uv=False), 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("xavierr", "unknown init: xavierr", "did you mean `xavier`?"),
        ("he:2", "unknown init: he:2", "known: he, xavier, glorot, orthogonal, identity, gaussian:SD, zeros"),
        ("gaussian", "init gaussian has no standard deviation above 0", "gaussian:0.01"),
        ("gaussian:x", "init gaussian:x has no standard deviation above 0", "gaussian:0.01"),
        ("gaussian:-1", "init gaussian:-1 has no standard deviation above 0", "gaussian:0.01"),
        ("gaussian:nan", "init gaussian:nan has no standard deviation above 0", "gaussian:0.01"),
    ],
)
def test_mistakes_are_explained(name, message, hint):
    with pytest.raises(UsageError) as caught:
        initializer(name)
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_identity_is_for_square_matrices():
    np.testing.assert_array_equal(initializer("identity")((4, 4)), np.eye(4))
    with pytest.raises(UsageError, match="a weight is 3x3x2x2"):
        initializer("identity")((3, 3, 2, 2))
