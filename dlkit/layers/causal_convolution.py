"""Causal dilated convolutions over time (Bai et al. 2018, sections 3.1 and 3.2): no output sees what comes later."""

import keras
import tensorflow as tf
from keras import ops

from dlkit.layers.attention import linear
from dlkit.layers.initializers import initializer


class CausalConv(keras.layers.Layer):
    """y_t = sum_i W_i x_(t - d (k - 1 - i)) + b, with zeros before the beginning; weights normalized if wanted.

    With weight normalization (Salimans and Kingma 2016, equation 2) the weights of a filter are g v / |v|.

    Args:
        filters: width of the output.
        kernel: k, steps that a filter looks at.
        dilation: d, how far these lie apart.
        weight_norm: whether length and direction of each filter are learned apart.

    Example:
        >>> CausalConv(64, kernel=3, dilation=4, name="conv")(tf.ones((8, 20, 32))).shape
        TensorShape([8, 20, 64])
    """

    def __init__(self, filters: int, *, kernel: int, dilation: int = 1, weight_norm: bool = False, name: str) -> None:
        super().__init__(name=name)
        self.filters, self.taps, self.dilation = filters, kernel, dilation
        self.weight_norm = weight_norm

    @property
    def reach(self) -> int:
        """How many steps back the farthest input lies."""
        return (self.taps - 1) * self.dilation

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights (k * inputs, filters), those of the farthest step first, and a bias."""
        shape = (self.taps * (input_shape[-1] or 1), self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initializer("he"))
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        if self.weight_norm:  # as long as a filter is on average when it is drawn so
            self.length = self.add_weight(
                name="length", shape=(self.filters,), initializer=keras.initializers.Constant(2**0.5)
            )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Outputs (batch, time, filters) of inputs (batch, time, features)."""
        time = tf.shape(inputs)[1]
        padded = tf.pad(inputs, ((0, 0), (self.reach, 0), (0, 0)))
        seen = [padded[:, tap * self.dilation : tap * self.dilation + time] for tap in range(self.taps)]
        return linear(tf.concat(seen, axis=-1), *self._weights(inputs.dtype))

    def step(self, inputs: tf.Tensor, past: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One step.

        Args:
            inputs: (..., features).
            past: (..., reach, features), the inputs before it, the farthest first.

        Returns:
            The output (..., filters), and the past of the next step.
        """
        whole = tf.concat([past, inputs[..., tf.newaxis, :]], axis=-2)
        seen = [whole[..., tap * self.dilation, :] for tap in range(self.taps)]
        return linear(tf.concat(seen, axis=-1), *self._weights(inputs.dtype)), whole[..., 1:, :]

    def _weights(self, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        kernel = tf.convert_to_tensor(self.kernel)
        if self.weight_norm:
            kernel *= self.length / tf.sqrt(tf.reduce_sum(tf.square(kernel), axis=0))
        return ops.cast(kernel, dtype), ops.cast(self.bias, dtype)

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """For one example, as products to be added up."""
        return [(output_shape[0], self.taps, input_shape[-1], self.filters)]
