"""AlexNet (Krizhevsky et al. 2012, section 3), in one tower or in the two halves of the paper."""

from typing import Any, Literal

import keras
import tensorflow as tf

from dlkit.layers.activations import Activation
from dlkit.layers.hidden import Hidden, image_input
from dlkit.layers.norms import Norm
from dlkit.models import Paper

PAPERS = {
    "alexnet": Paper(
        "Krizhevsky, Sutskever and Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks",
        "60 million",
        "the paper, of two groups",
    )
}


class LocalResponseNorm(keras.layers.Layer):
    """Divides each unit by the activity of the maps beside it at the same position (section 3.3).

    b_i = a_i / (k + alpha * sum of a_j^2 over the n maps around i)^beta, with the paper's constants.
    """

    n, k, alpha, beta = 5, 2.0, 1e-4, 0.75

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalizes (batch, height, width, maps)."""
        # bfloat16 steps by 1/64 above 2: a sum below 78 would not show in k + alpha * sum.
        x = tf.cast(inputs, tf.float32) if inputs.dtype == tf.bfloat16 else inputs
        maps = x.shape[-1]
        beside = tf.linalg.band_part(tf.ones([maps, maps], x.dtype), self.n // 2, self.n // 2)
        sums = tf.tensordot(tf.square(x), beside, 1)
        return tf.cast(x * tf.pow(self.k + self.alpha * sums, -self.beta), inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape


def alexnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    *,
    groups: Literal[1, 2] = 1,
    lrn: Literal["after_pool", "before_pool", "none"] = "after_pool",
    init: str = "he",
    norm: Norm = "none",
    activation: Activation = "relu",
    bias_init: float = 0.0,
    dropout: float = 0.5,
) -> keras.Model:
    """Five convolutions and three dense layers.

    Args:
        input_shape: height, width and channels of the images, at least 63x63.
        classes: number of classes.
        groups: 2 cuts convolutions 2, 4 and 5 into the halves that lay on two GPUs in the paper; 1 leaves them whole.
        lrn: where local response normalization stands: after the first two pools as in the lecture, before them as in
            the paper, or nowhere as in today's nets.
        init: how weights are drawn: he, xavier, glorot, orthogonal, gaussian:SD (the paper: gaussian:0.01) or zeros.
        norm: the normalization after each convolution.
        activation: the non-linearity.
        bias_init: first value of the biases; 0.1 against units that are never on.
        dropout: rate after each dense layer.

    Returns:
        A model from images to logits.

    Raises:
        dlkit.errors.UsageError: the images are too small.
    """
    layers = Hidden(init, norm, activation, bias_init)

    def pool(x: Any, number: int) -> Any:
        if lrn == "before_pool":
            x = LocalResponseNorm(name=f"lrn{number}")(x)
        x = keras.layers.MaxPooling2D(3, 2, name=f"pool{number}")(x)
        return LocalResponseNorm(name=f"lrn{number}")(x) if lrn == "after_pool" else x

    x = inputs = image_input("alexnet", input_shape, smallest=63)  # conv1 15, pool1 7, pool2 3, pool5 1
    x = layers.conv(x, 96, 11, stride=4, padding=2, number=1)  # (batch, 55, 55, 96)
    x = pool(x, 1)  # (batch, 27, 27, 96)
    x = layers.conv(x, 256, 5, groups=groups, number=2)  # (batch, 27, 27, 256)
    x = pool(x, 2)  # (batch, 13, 13, 256)
    x = layers.conv(x, 384, 3, number=3)  # the one that sees both halves
    x = layers.conv(x, 384, 3, groups=groups, number=4)
    x = layers.conv(x, 256, 3, groups=groups, number=5)
    x = keras.layers.MaxPooling2D(3, 2, name="pool5")(x)  # (batch, 6, 6, 256)
    x = keras.layers.Flatten(name="flatten")(x)  # (batch, 9216)
    x = layers.dense(x, 4096, number=1, normalize=False, dropout=dropout)
    x = layers.dense(x, 4096, number=2, normalize=False, dropout=dropout)
    return keras.Model(inputs, layers.head(x, classes), name="alexnet")
