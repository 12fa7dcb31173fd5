"""The fully connected baseline: every pixel has weights of its own, so a shifted image looks like a new one."""

import keras

from dlkit.layers.activations import Activation
from dlkit.layers.hidden import Hidden, image_input
from dlkit.layers.norms import Norm
from dlkit.models import Paper

PAPERS = {"mlp": Paper("Rumelhart, Hinton and Williams 1986, Learning representations by back-propagating errors")}


def mlp(
    input_shape: tuple[int, int, int] = (32, 32, 1),
    classes: int = 10,
    *,
    hidden: tuple[int, ...] = (256, 128),
    init: str = "he",
    norm: Norm = "none",
    activation: Activation = "relu",
    bias_init: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """Dense layers on the flattened image.

    Args:
        input_shape: height, width and channels of the images.
        classes: number of classes.
        hidden: units of each hidden layer.
        init: how weights are drawn: he, xavier, glorot, orthogonal, gaussian:SD or zeros.
        norm: the normalization after each hidden layer.
        activation: the non-linearity.
        bias_init: first value of the biases; 0.1 against units that are never on.
        dropout: rate after each hidden layer.

    Returns:
        A model from images to logits.

    Example:
        >>> mlp((128, 128, 3), hidden=(64,)).get_layer("dense1").kernel.shape
        (49152, 64)
    """
    layers = Hidden(init, norm, activation, bias_init)
    inputs = image_input("mlp", input_shape)
    x = keras.layers.Flatten(name="flatten")(inputs)
    for number, units in enumerate(hidden, 1):
        x = layers.dense(x, units, number=number, dropout=dropout)
    return keras.Model(inputs, layers.head(x, classes), name="mlp")
