"""Residual nets and the plain nets beside them, for ImageNet (He et al. 2015, section 4.1 and table 1)."""

from functools import partial
from typing import Literal

import keras

from dlkit.layers.activations import Activation
from dlkit.layers.hidden import Hidden, image_input
from dlkit.layers.norms import Norm
from dlkit.models import Paper

_TITLE = "He, Zhang, Ren and Sun 2015, Deep Residual Learning for Image Recognition"
_COUNTS = {18: "11,689,512", 34: "21,797,672", 50: "25,557,032", 101: "44,549,160", 152: "60,192,808"}
PAPERS = {
    **{f"resnet{depth}": Paper(_TITLE, count, "torchvision") for depth, count in _COUNTS.items()},
    **{f"plain{depth}": Paper(_TITLE) for depth in (18, 34)},
}

NEVER_NEGATIVE = {"relu", "relu_squared", "sigmoid"}


def basic(
    x: keras.KerasTensor, filters: int, stride: int, place: str, layers: Hidden, *, residual: bool
) -> keras.KerasTensor:
    """Two 3x3 convolutions and, in a residual net, their input added to the result (figure 5, left)."""
    inputs = x
    x = layers.conv(x, filters, 3, stride, place=place, number=1)
    x = layers.conv(x, filters, 3, place=place, number=2, activate=False)
    if residual:
        x = _add(inputs, x, stride, place, layers)
    return layers.activate(x, place=place, number=2)


def bottleneck(
    x: keras.KerasTensor, filters: int, stride: int, place: str, layers: Hidden, *, residual: bool
) -> keras.KerasTensor:
    """1x1 to fewer maps, 3x3, and 1x1 to four times as many (figure 5, right); the stride stands in the first."""
    inputs = x
    x = layers.conv(x, filters, 1, stride, place=place, number=1)
    x = layers.conv(x, filters, 3, place=place, number=2)
    x = layers.conv(x, 4 * filters, 1, place=place, number=3, activate=False)
    if residual:
        x = _add(inputs, x, stride, place, layers)
    return layers.activate(x, place=place, number=3)


def _add(inputs: keras.KerasTensor, x: keras.KerasTensor, stride: int, place: str, layers: Hidden) -> keras.KerasTensor:
    """F(x) + x, where x is projected if its shape is another (equation 2, option B)."""
    if inputs.shape != x.shape:
        inputs = layers.conv(inputs, x.shape[-1], 1, stride, place=f"{place}_shortcut", activate=False)
    return keras.layers.Add(name=f"{place}_add")([x, inputs])


def _stem_pool(x: keras.KerasTensor, activation: Activation) -> keras.KerasTensor:
    """The maximum around every other place, 3x3; what is beside the image does not count."""
    if activation in NEVER_NEGATIVE:  # zeros beside the image change no maximum
        x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    # Keras' `same` leaves out what is beside the image, but lies evenly around it at stride 1 only.
    x = keras.layers.MaxPooling2D(3, 1, padding="same", name="stem_pool_everywhere")(x)
    return keras.layers.MaxPooling2D(1, 2, name="stem_pool")(x)


# Table 1: the block, and how often each stage repeats it.
DEPTHS = {
    18: (basic, (2, 2, 2, 2)),
    34: (basic, (3, 4, 6, 3)),
    50: (bottleneck, (3, 4, 6, 3)),
    101: (bottleneck, (3, 4, 23, 3)),
    152: (bottleneck, (3, 8, 36, 3)),
}
FILTERS = (64, 128, 256, 512)


def resnet(
    family: Literal["resnet", "plain"],
    depth: int,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    *,
    stem: Literal["auto", "7x7", "3x3"] = "auto",
    init: str = "he",
    norm: Norm = "batch",
    activation: Activation = "relu",
    dropout: float = 0.0,
) -> keras.Model:
    """A stem, four stages of blocks, the global average of the last maps and one linear layer.

    Zeros are padded alike on all sides, as in the authors' Caffe nets and in torchvision, so that outputs can be
    compared; Keras' `same` would put them on one side where the stride is 2.

    Args:
        family: `resnet`, or `plain` for the same net without shortcuts.
        depth: number of layers with weights: 18, 34, 50, 101 or 152.
        input_shape: height, width and channels of the images.
        classes: number of classes.
        stem: `7x7` with stride 2 and a pool, as in the paper; `3x3` without either, for small images; `auto` takes
            `3x3` for images up to 64x64.
        init: how weights are drawn: he, xavier, glorot, orthogonal, gaussian:SD or zeros.
        norm: the normalization after each convolution.
        activation: the non-linearity.
        dropout: rate before the head.

    Returns:
        A model from images to logits.
    """
    block, repeats = DEPTHS[depth]
    layers = Hidden(init, norm, activation)
    x = inputs = image_input(f"{family}{depth}", input_shape)
    if stem == "3x3" or (stem == "auto" and max(input_shape[:2]) <= 64):
        x = layers.conv(x, 64, 3, place="stem")
    else:
        x = layers.conv(x, 64, 7, stride=2, place="stem")  # (batch, 112, 112, 64) of 224x224
        x = _stem_pool(x, activation)  # (batch, 56, 56, 64)
    for stage, (count, filters) in enumerate(zip(repeats, FILTERS, strict=True), 1):
        for number in range(1, count + 1):
            stride = 2 if number == 1 and stage > 1 else 1
            x = block(x, filters, stride, f"stage{stage}_block{number}", layers, residual=family == "resnet")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)  # (batch, 512) or (batch, 2048)
    return keras.Model(inputs, layers.head(x, classes, dropout=dropout), name=f"{family}{depth}")


resnet18 = partial(resnet, "resnet", 18)
resnet34 = partial(resnet, "resnet", 34)
resnet50 = partial(resnet, "resnet", 50)
resnet101 = partial(resnet, "resnet", 101)
resnet152 = partial(resnet, "resnet", 152)
plain18 = partial(resnet, "plain", 18)
plain34 = partial(resnet, "plain", 34)
