"""The net of some of the fastest trainings on CIFAR-10 (Jordan 2024): shallow, wide, and whitening what it sees."""

import keras

from dlkit.layers.activations import Activation
from dlkit.layers.hidden import Hidden, image_input
from dlkit.layers.norms import Norm
from dlkit.layers.whitening import Whitening
from dlkit.models import Paper

PAPERS = {"airbench": Paper("Jordan 2024, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU")}

# The greatest of a whole map is large: unscaled it would saturate the softmax from the first step.
SCALE = 1 / 9


def airbench(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 64,
    whitening: bool = True,
    init: str = "he",
    norm: Norm = "batch",
    activation: Activation = "gelu",
    dropout: float = 0.0,
) -> keras.Model:
    """A whitening layer, three stages of two 3x3 convolutions, the maximum of each map and one linear layer.

    The first convolution of a stage is pooled before its norm, so that norm and activation have a quarter of the work.

    Args:
        input_shape: height, width and channels of the images, at least 9x9.
        classes: number of classes.
        width: maps of the first stage; the other two have four times as many.
        whitening: whether the first layer whitens patches of 2x2, see `dlkit.layers.whitening`; without it the first
            stage sees the images themselves.
        init: how weights are drawn: he, xavier, glorot, orthogonal, gaussian:SD or zeros.
        norm: the normalization after each 3x3 convolution.
        activation: the non-linearity.
        dropout: rate before the head.

    Returns:
        A model from images to logits.

    Raises:
        dlkit.errors.UsageError: the images are too small.
    """
    layers = Hidden(init, norm, activation)
    x = inputs = image_input("airbench", input_shape, smallest=9)
    if whitening:
        x = Whitening(2, input_shape[-1], name="whitening")(x)  # (batch, 31, 31, 24)
        x = layers.activate(x, place="whitening")
    for stage, filters in enumerate((width, 4 * width, 4 * width), 1):
        # (batch, 15, 15, 64), (batch, 7, 7, 256), (batch, 3, 3, 256)
        x = layers.conv(x, filters, 3, pool=2, place=f"stage{stage}", number=1)
        x = layers.conv(x, filters, 3, place=f"stage{stage}", number=2)
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)  # (batch, 256)
    x = keras.layers.Rescaling(SCALE, name="scale")(x)
    return keras.Model(inputs, layers.head(x, classes, dropout=dropout), name="airbench")
