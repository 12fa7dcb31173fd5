"""The last layer of a net that tells classes, words or numbers: in float32, whatever the net computes in."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dlkit.layers.attention import linear, sizes


def as_float32(logits: tf.Tensor) -> tf.Tensor:
    """Logits in float32, of float64 as they are: between bfloat16 numbers near 20 there is a gap of 1/8."""
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


class Logits(keras.layers.Dense):
    """The linear layer at the end of a net, x W + b: a product in the net's precision, the bias added in float32.

    With bfloat16 and 10,000 words, product and bias take two thirds of the time of Keras' dense layer on a CPU, and the
    gradient of the bias, a sum over all tokens, a third; and nothing is rounded twice.

    Example:
        >>> head = Logits(10_000, name="head", dtype="mixed_bfloat16")
        >>> head(tf.ones((32, 35, 256))).dtype
        tf.float32
    """

    def add_weight(self, *args: Any, **options: Any) -> keras.Variable:
        """Creates a weight; the bias is never cast to the net's precision, as Keras would."""
        if options.get("name") == "bias":
            options["autocast"] = False
        return super().add_weight(*args, **options)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Logits (..., units) of `x` (..., features), float32 (float64 when `x` is)."""
        kernel = ops.cast(self.kernel, x.dtype)
        if self.bias is None:
            return as_float32(linear(x, kernel))
        if x.dtype in {tf.float32, tf.float64}:  # TensorFlow makes one operation of the two
            return linear(x, kernel, ops.cast(self.bias, x.dtype))
        return tf.nn.bias_add(as_float32(linear(x, kernel)), ops.cast(self.bias, tf.float32))


def tied_logits(x: tf.Tensor, embedding: keras.layers.Embedding) -> tf.Tensor:
    """Logits (..., vocabulary) of `x` (..., width) by an embedding's matrix (Press and Wolf 2017), without a bias."""
    words = ops.cast(tf.convert_to_tensor(embedding.embeddings), x.dtype)
    return as_float32(linear(x, tf.transpose(words)))


class ReadOut(keras.layers.Layer):
    """The linear layer before the softmax; its matrix, a row for each word, may be the one of an embedding."""

    def call(self, x: tf.Tensor, words: tf.Tensor, *, by_column: bool = False) -> tf.Tensor:
        """Logits (..., vocabulary) of `x` (..., width); float32 even when the products are of bfloat16.

        Args:
            x: what is read.
            words: the matrix, (vocabulary, width) or, by column, (width, vocabulary).
            by_column: which of the two.
        """
        rows = tf.reshape(x, (-1, x.shape[-1]))
        logits = tf.matmul(rows, ops.cast(words, x.dtype), transpose_b=not by_column)
        logits = tf.reshape(logits, (*sizes(x)[:-1], words.shape[1 if by_column else 0]))
        return as_float32(logits)

    def multiply_adds(self, input_shape: list[tuple[int, ...]], output_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """For one example, as products to be added up."""
        (time, width), (_, vocabulary) = input_shape[0], output_shape
        return [(time, width, vocabulary)]
