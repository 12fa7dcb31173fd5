"""Residual and plain nets against table 1 of the paper."""

import keras
import numpy as np
import pytest
from deferred import count, deferred, layer_types, shapes

from dlkit.layers.hidden import Hidden
from dlkit.models import resnet

# Trainable, and with the moving statistics of batch norm.
PARAMETERS = {
    "resnet18": (11_689_512, 11_699_112),
    "resnet34": (21_797_672, 21_814_696),
    "resnet50": (25_557_032, 25_610_152),
    "resnet101": (44_549_160, 44_654_504),
    "resnet152": (60_192_808, 60_344_232),
}


def depth_of(model):
    """What the net is named after: its convolutions, except those of shortcuts, and the head."""
    convs = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    return len([name for name in convs if "shortcut" not in name]) + 1


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    model = deferred(getattr(resnet, name))
    assert model.name == name
    assert depth_of(model) == int(name.removeprefix("resnet"))
    assert (count(model.trainable_weights), count(model.weights)) == PARAMETERS[name]
    assert resnet.PAPERS[name].parameters == f"{PARAMETERS[name][0]:,}"


@pytest.mark.parametrize("depth", [18, 34])
def test_plain_nets_lack_the_projections_alone(depth):
    model = deferred(getattr(resnet, f"plain{depth}"))
    projections = sum(a * 2 * a + 2 * 2 * a for a in (64, 128, 256))  # a 1x1 convolution and its norm
    assert count(model.trainable_weights) == PARAMETERS[f"resnet{depth}"][0] - projections
    assert model.name == f"plain{depth}"
    assert depth_of(model) == depth
    assert "Add" not in layer_types(model)


@pytest.mark.parametrize(("name", "maps"), [("resnet18", [64, 128, 256, 512]), ("resnet50", [256, 512, 1024, 2048])])
def test_stages(name, maps):
    model = deferred(getattr(resnet, name))
    assert shapes(model, "stem_conv", "stem_pool") == [(112, 112, 64), (56, 56, 64)]
    last = [f"stage{stage}_block{count}_add" for stage, count in enumerate(resnet.DEPTHS[int(name[6:])][1], 1)]
    assert shapes(model, *last) == [(size, size, n) for size, n in zip([56, 28, 14, 7], maps, strict=True)]
    assert shapes(model, "pool", "head") == [(maps[-1],), (1000,)]


def test_the_stride_of_a_bottleneck_stands_in_its_first_convolution():
    model = deferred(resnet.resnet50)
    strides = [model.get_layer(f"stage2_block1_conv{number}").strides for number in (1, 2, 3)]
    assert strides == [(2, 2), (1, 1), (1, 1)]


def test_small_images_get_the_small_stem():
    model = deferred(resnet.resnet18, (32, 32, 3), 10)
    assert count(model.trainable_weights) == 11_173_962
    assert shapes(model, "stem_conv", "stage4_block2_add") == [(32, 32, 64), (4, 4, 512)]
    assert "stem_pool" not in [layer.name for layer in model.layers]


@pytest.mark.parametrize(
    ("size", "stem", "shape"),
    [(64, "auto", (64, 64, 64)), (65, "auto", (33, 33, 64)), (32, "7x7", (16, 16, 64)), (96, "3x3", (96, 96, 64))],
)
def test_the_stem_is_a_choice(size, stem, shape):
    assert shapes(deferred(resnet.resnet18, (size, size, 3), stem=stem), "stem_conv") == [shape]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_stem_pool_sees_nothing_beside_the_image(activation):
    """The greatest of 3x3 around every other place of 16x15, with what is less than any number beside them."""
    x = keras.Input((16, 15, 4))
    pool = keras.Model(x, resnet._stem_pool(x, activation))
    maps = np.random.default_rng(0).normal(size=(2, 16, 15, 4)).astype("float32")
    maps = np.maximum(maps, 0) if activation == "relu" else np.tanh(maps)
    beside = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(beside, (3, 3), axis=(1, 2))[:, ::2, ::2]
    expected = windows.max((-2, -1))  # (2, 8, 8, 4)
    assert (expected.min() < 0) == (activation == "tanh")
    np.testing.assert_array_equal(pool(maps), expected)


def test_any_activation_leaves_the_shapes_as_they_are():
    model = deferred(resnet.resnet18, activation="leaky_relu")
    assert shapes(model, "stem_conv", "stem_pool", "pool") == [(112, 112, 64), (56, 56, 64), (512,)]
    assert "stem_pool_pad" not in [layer.name for layer in model.layers]


def test_layers_are_named_by_place():
    names = [layer.name for layer in deferred(resnet.resnet18).layers]
    start = names.index("stage2_block1_pad1")
    assert names[start : start + 10] == [
        *("stage2_block1_pad1", "stage2_block1_conv1", "stage2_block1_norm1", "stage2_block1_relu1"),
        *("stage2_block1_conv2", "stage2_block1_shortcut_conv", "stage2_block1_norm2"),
        *("stage2_block1_shortcut_norm", "stage2_block1_add", "stage2_block1_relu2"),
    ]


def test_options():
    model = deferred(resnet.resnet18, (32, 32, 3), 10, norm="none", activation="elu", dropout=0.2)
    names = [layer.name for layer in model.layers]
    assert "head_dropout" in names
    assert "stage4_block2_elu2" in names
    assert not [name for name in names if "norm" in name or "relu" in name]
    assert model.get_layer("stage1_block1_conv1").use_bias
    assert not deferred(resnet.resnet18).get_layer("stage1_block1_conv1").use_bias
    assert "LayerNormalization" in layer_types(deferred(resnet.resnet18, norm="layer"))


def test_a_block_adds_its_input():
    x = keras.Input((4, 4, 8))
    layers = Hidden("zeros", "none", "linear", bias_init=0.5)
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype("float32")
    residual = keras.Model(x, resnet.basic(x, 8, 1, "block", layers, residual=True))
    plain = keras.Model(x, resnet.basic(x, 8, 1, "block", layers, residual=False))
    np.testing.assert_allclose(residual(images), images + 0.5)  # F is its last bias
    np.testing.assert_allclose(plain(images), np.full_like(images, 0.5))
