"""The residual and plain nets of 6n + 2 layers for small images (He et al. 2015, section 4.2)."""

from functools import partial
from typing import Any, Literal

import keras
import tensorflow as tf

from dlkit.layers.activations import Activation
from dlkit.layers.hidden import Hidden, image_input
from dlkit.layers.norms import Norm
from dlkit.models import Paper

_TITLE = "He, Zhang, Ren and Sun 2015, Deep Residual Learning for Image Recognition"
_MILLIONS = {20: "0.27", 32: "0.46", 44: "0.66", 56: "0.85", 110: "1.7"}
PAPERS = {
    f"{family}{depth}": Paper(_TITLE, f"{millions} million", "the paper, table 6")
    for family in ("resnet", "plain")
    for depth, millions in _MILLIONS.items()
}

FILTERS = (16, 32, 64)


class Shortcut(keras.layers.Layer):
    """The identity across a change of shape, without weights (option A): skips positions, appends maps of zeros.

    Args:
        filters: maps of the result.
        stride: every how many-th position is kept.
    """

    def __init__(self, filters: int, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Takes (batch, height, width, maps) to (batch, height / stride, width / stride, filters)."""
        kept = inputs[:, :: self.stride, :: self.stride]
        return tf.pad(kept, [[0, 0], [0, 0], [0, 0], [0, self.filters - inputs.shape[-1]]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape after skipping and appending."""
        batch, height, width, _ = input_shape
        return (batch, *(size and -(-size // self.stride) for size in (height, width)), self.filters)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}


def block(
    x: keras.KerasTensor, filters: int, stride: int, place: str, layers: Hidden, *, residual: bool
) -> keras.KerasTensor:
    """Two 3x3 convolutions and, in a residual net, their input added to the result."""
    inputs = x
    x = layers.conv(x, filters, 3, stride, place=place, number=1)
    x = layers.conv(x, filters, 3, place=place, number=2, activate=False)
    if residual:
        if inputs.shape != x.shape:
            inputs = Shortcut(filters, stride, name=f"{place}_shortcut")(inputs)
        x = keras.layers.Add(name=f"{place}_add")([x, inputs])
    return layers.activate(x, place=place, number=2)


def resnet_cifar(
    family: Literal["resnet", "plain"],
    depth: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    *,
    init: str = "he",
    norm: Norm = "batch",
    activation: Activation = "relu",
    dropout: float = 0.0,
) -> keras.Model:
    """A 3x3 stem, three stages of n blocks with 16, 32 and 64 maps, the global average and one linear layer.

    Args:
        family: `resnet`, or `plain` for the same net without shortcuts.
        depth: number of layers with weights, 6n + 2.
        input_shape: height, width and channels of the images.
        classes: number of classes.
        init: how weights are drawn: he, xavier, glorot, orthogonal, gaussian:SD or zeros.
        norm: the normalization after each convolution.
        activation: the non-linearity.
        dropout: rate before the head.

    Returns:
        A model from images to logits.
    """
    layers = Hidden(init, norm, activation)
    x = inputs = image_input(f"{family}{depth}", input_shape)
    x = layers.conv(x, 16, 3, place="stem")  # (batch, 32, 32, 16)
    for stage, filters in enumerate(FILTERS, 1):
        for number in range(1, (depth - 2) // 6 + 1):
            stride = 2 if number == 1 and stage > 1 else 1
            x = block(x, filters, stride, f"stage{stage}_block{number}", layers, residual=family == "resnet")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)  # (batch, 64)
    return keras.Model(inputs, layers.head(x, classes, dropout=dropout), name=f"{family}{depth}")


resnet20 = partial(resnet_cifar, "resnet", 20)
resnet32 = partial(resnet_cifar, "resnet", 32)
resnet44 = partial(resnet_cifar, "resnet", 44)
resnet56 = partial(resnet_cifar, "resnet", 56)
resnet110 = partial(resnet_cifar, "resnet", 110)
plain20 = partial(resnet_cifar, "plain", 20)
plain32 = partial(resnet_cifar, "plain", 32)
plain44 = partial(resnet_cifar, "plain", 44)
plain56 = partial(resnet_cifar, "plain", 56)
plain110 = partial(resnet_cifar, "plain", 110)
