"""The 6n + 2 layer nets against section 4.2 of the paper."""

import keras
import numpy as np
import pytest
from deferred import count, deferred, layer_types, shapes

from dlkit.models import resnet_cifar

PARAMETERS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


@pytest.mark.parametrize("depth", PARAMETERS)
@pytest.mark.parametrize("family", ["resnet", "plain"])
def test_parameters(family, depth):
    model = deferred(getattr(resnet_cifar, f"{family}{depth}"))
    assert model.name == f"{family}{depth}"
    assert count(model.trainable_weights) == PARAMETERS[depth]
    assert (
        len([layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]) == depth
    )
    assert ("Add" in layer_types(model)) == (family == "resnet")
    published = resnet_cifar.PAPERS[f"{family}{depth}"].parameters.split()[0]
    assert float(published) == round(PARAMETERS[depth] / 1e6, len(published) - 2)


def test_stages():
    model = deferred(resnet_cifar.resnet20)
    assert shapes(model, "stem_conv", *(f"stage{stage}_block3_add" for stage in (1, 2, 3)), "pool", "head") == [
        *[(32, 32, 16), (32, 32, 16), (16, 16, 32), (8, 8, 64), (64,), (10,)]
    ]


@pytest.mark.parametrize("size", [8, 7])
def test_the_shortcut_skips_positions_and_appends_zeros(size):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    layer = resnet_cifar.Shortcut(5, 2)
    y = layer(x).numpy()
    assert y.shape == (2, 4, 4, 5) == layer.compute_output_shape(x.shape)
    np.testing.assert_array_equal(y[..., :3], x[:, [0, 2, 4, 6]][:, :, [0, 2, 4, 6]])
    assert not y[..., 3:].any()


def test_without_what_the_blocks_learn_the_net_is_its_stem():
    """With F(x) = 0 a residual net only skips, appends and averages: dH/dx = dF/dx + I at work."""
    model = resnet_cifar.resnet20((8, 8, 16), 64, init="zeros", norm="none", activation="linear")
    identity = np.zeros((3, 3, 16, 16), "float32")
    identity[1, 1] = np.eye(16)
    model.get_layer("stem_conv").kernel.assign(identity)
    model.get_layer("head").kernel.assign(np.eye(64))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 16)).astype("float32")
    expected = np.zeros((2, 64))
    expected[:, :16] = images[:, ::4, ::4].mean((1, 2))
    np.testing.assert_allclose(model(images), expected, atol=1e-6)


def test_every_kernel_is_drawn_by_itself():
    model = resnet_cifar.resnet20()
    kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    starts = {kernel.ravel()[0].item() / kernel.std().item() for kernel in kernels}
    assert len(starts) == len(kernels) == 19


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_every_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = resnet_cifar.resnet20((8, 8, 3), 10)
    logits = model(np.ones((2, 8, 8, 3), "float32"), training=True)
    assert logits.dtype == policy.removeprefix("mixed_")
    assert np.isfinite(np.asarray(logits, "float64")).all()
