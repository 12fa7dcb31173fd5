"""Convolutions over time, dilated if wanted, that keep the length of a sequence: an output for each step."""

import keras
import tensorflow as tf
from keras import ops

from dlkit.layers.attention import linear
from dlkit.layers.initializers import initializer


class TimeConv(keras.layers.Layer):
    """y_t = sum_i W_i x_(t + d (i - (k - 1) / 2)) + b, with zeros before the first step and after the last.

    All steps that a filter looks at are laid side by side for one product of two matrices. What stands at padding is
    taken as it is: where it must not count, it has to be zero, see `masked_pooling.without_padding`.

    Args:
        filters: width of the output.
        kernel_size: k, steps that a filter looks at; odd, so that as many lie before a step as after it.
        dilation_rate: d, how far these lie apart.
        init: how the weights are drawn.

    Example:
        >>> TimeConv(64, kernel_size=3, dilation_rate=4, name="conv")(tf.ones((8, 20, 32))).shape
        TensorShape([8, 20, 64])
    """

    def __init__(self, filters: int, *, kernel_size: int, dilation_rate: int = 1, init: str = "he", name: str) -> None:
        super().__init__(name=name)
        self.filters, self.kernel_size, self.dilation_rate = filters, kernel_size, dilation_rate
        self.init = init

    @property
    def reach(self) -> int:
        """How far the last input that an output sees lies behind the first one, in steps."""
        return (self.kernel_size - 1) * self.dilation_rate

    @property
    def offsets(self) -> range:
        """Where the k inputs that an output sees lie, in steps from the first of them."""
        return range(0, self.reach + 1, self.dilation_rate)

    @property
    def before(self) -> int:
        """How far the first one lies before the step of the output."""
        return self.reach // 2

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights (k * inputs, filters), those of the earliest step first, and a bias."""
        shape = (self.kernel_size * (input_shape[-1] or 1), self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initializer(self.init))
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Outputs (batch, time, filters) of inputs (batch, time, features)."""
        time = tf.shape(inputs)[1]
        padded = tf.pad(inputs, ((0, 0), (self.before, self.reach - self.before), (0, 0)))
        return self.output_of([padded[:, at : at + time] for at in self.offsets])

    def output_of(self, seen: list[tf.Tensor]) -> tf.Tensor:
        """The output (..., filters) of the k inputs that it sees, each (..., features), the earliest first."""
        side_by_side = tf.concat(seen, axis=-1)
        dtype = side_by_side.dtype
        return linear(side_by_side, ops.cast(self.effective_kernel(), dtype), ops.cast(self.bias, dtype))

    def effective_kernel(self) -> tf.Tensor:
        """The weights that the inputs are multiplied with."""
        return tf.convert_to_tensor(self.kernel)

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """For one example, as products to be added up."""
        return [(output_shape[0], self.kernel_size, input_shape[-1], self.filters)]
