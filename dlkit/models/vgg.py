"""VGG (Simonyan and Zisserman 2015): blocks of 3x3 convolutions, each block at half the resolution of the last."""

from functools import partial

import keras

from dlkit.layers.activations import Activation
from dlkit.layers.hidden import Hidden, image_input
from dlkit.layers.norms import Norm
from dlkit.models import Paper

# Table 1, columns A, B, D and E: convolutions in each stage.
DEPTHS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
FILTERS = (64, 128, 256, 512, 512)

_TITLE = "Simonyan and Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image Recognition"
PAPERS = {
    f"vgg{depth}": Paper(_TITLE, f"{millions} million", "the paper, table 2")
    for depth, millions in {11: 133, 13: 133, 16: 138, 19: 144}.items()
}


def vgg(
    depth: int,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    *,
    dense_units: int = 4096,
    init: str = "he",
    norm: Norm = "none",
    activation: Activation = "relu",
    bias_init: float = 0.0,
    dropout: float = 0.5,
) -> keras.Model:
    """Five stages of 3x3 convolutions, then two dense layers and the head.

    Args:
        depth: number of layers with weights: 11, 13, 16 or 19.
        input_shape: height, width and channels of the images, at least 32x32.
        classes: number of classes.
        dense_units: width of the two dense layers; 512 is usual for images of 32x32.
        init: how weights are drawn: he, xavier, glorot, orthogonal, gaussian:SD (the paper: gaussian:0.1) or zeros.
        norm: the normalization after each convolution; the paper has none.
        activation: the non-linearity.
        bias_init: first value of the biases; 0.1 against units that are never on.
        dropout: rate after each dense layer.

    Returns:
        A model from images to logits.

    Raises:
        dlkit.errors.UsageError: the images are too small.
    """
    layers = Hidden(init, norm, activation, bias_init)
    x = inputs = image_input(f"vgg{depth}", input_shape, smallest=32)
    for stage, (repeats, filters) in enumerate(zip(DEPTHS[depth], FILTERS, strict=True), 1):
        for number in range(1, repeats + 1):
            x = layers.conv(x, filters, 3, place=f"stage{stage}", number=number)
        x = keras.layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)  # (batch, 7 * 7 * 512) of 224x224
    x = layers.dense(x, dense_units, number=1, normalize=False, dropout=dropout)
    x = layers.dense(x, dense_units, number=2, normalize=False, dropout=dropout)
    return keras.Model(inputs, layers.head(x, classes), name=f"vgg{depth}")


vgg11 = partial(vgg, 11)
vgg13 = partial(vgg, 13)
vgg16 = partial(vgg, 16)
vgg19 = partial(vgg, 19)
