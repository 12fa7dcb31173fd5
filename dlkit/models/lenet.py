"""LeNet-5, the first conv net in wide use (LeCun et al. 1998, figure 2), as it is built today."""

from typing import Literal

import keras

from dlkit.layers.activations import Activation
from dlkit.layers.hidden import Hidden, image_input
from dlkit.layers.norms import Norm
from dlkit.models import Paper

PAPERS = {
    "lenet": Paper(
        "LeCun, Bottou, Bengio and Haffner 1998, Gradient-Based Learning Applied to Document Recognition",
        "60,000",
        "the paper, whose C3 is not fully connected",
    )
}


def lenet(
    input_shape: tuple[int, int, int] = (32, 32, 1),
    classes: int = 10,
    *,
    pool: Literal["max", "average"] = "max",
    init: str = "he",
    norm: Norm = "none",
    activation: Activation = "relu",
    bias_init: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """Two conv stages, then two dense layers and the head.

    Today's version: every map of C3 sees all maps of S2, pooling has no weights, the head is linear. `pool="average"`
    with `activation="tanh"` comes closest to the paper.

    Args:
        input_shape: height, width and channels of the images, at least 16x16.
        classes: number of classes.
        pool: how S2 and S4 halve the resolution.
        init: how weights are drawn: he, xavier, glorot, orthogonal, gaussian:SD or zeros.
        norm: the normalization after each hidden layer.
        activation: the non-linearity.
        bias_init: first value of the biases; 0.1 against units that are never on.
        dropout: rate after each dense layer.

    Returns:
        A model from images to logits.

    Raises:
        dlkit.errors.UsageError: the images are too small.
    """
    layers = Hidden(init, norm, activation, bias_init)
    subsample = keras.layers.MaxPooling2D if pool == "max" else keras.layers.AveragePooling2D
    x = inputs = image_input("lenet", input_shape, smallest=16)  # C1 12, S2 6, C3 2, S4 1
    x = layers.conv(x, 6, 5, padding=0, number=1)  # C1 (batch, 28, 28, 6)
    x = subsample(2, name="pool1")(x)  # S2 (batch, 14, 14, 6)
    x = layers.conv(x, 16, 5, padding=0, number=2)  # C3 (batch, 10, 10, 16)
    x = subsample(2, name="pool2")(x)  # S4 (batch, 5, 5, 16)
    x = keras.layers.Flatten(name="flatten")(x)  # (batch, 400)
    x = layers.dense(x, 120, number=1, dropout=dropout)
    x = layers.dense(x, 84, number=2, dropout=dropout)
    return keras.Model(inputs, layers.head(x, classes), name="lenet")
