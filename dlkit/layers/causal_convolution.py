"""Causal dilated convolutions over time (Bai et al. 2018, sections 3.1 and 3.2): no output sees what comes later."""

import keras
import tensorflow as tf

from dlkit.layers.time_convolution import TimeConv


class CausalConv(TimeConv):
    """y_t = sum_i W_i x_(t - d (k - 1 - i)) + b, with zeros before the beginning; weights normalized if wanted.

    With weight normalization (Salimans and Kingma 2016, equation 2) the weights of a filter are g v / |v|.

    Args:
        filters: width of the output.
        kernel_size: k, steps that a filter looks at.
        dilation_rate: d, how far these lie apart.
        weight_norm: whether length and direction of each filter are learned apart.

    Example:
        >>> CausalConv(64, kernel_size=3, dilation_rate=4, name="conv")(tf.ones((8, 20, 32))).shape
        TensorShape([8, 20, 64])
    """

    def __init__(
        self, filters: int, *, kernel_size: int, dilation_rate: int = 1, weight_norm: bool = False, name: str
    ) -> None:
        super().__init__(filters, kernel_size=kernel_size, dilation_rate=dilation_rate, name=name)
        self.weight_norm = weight_norm

    @property
    def before(self) -> int:
        """As far as it reaches: the last input that an output sees is that of its own step."""
        return self.reach

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights (k * inputs, filters), those of the farthest step first, and a bias."""
        super().build(input_shape)
        if self.weight_norm:  # as long as a filter is on average when it is drawn so
            self.length = self.add_weight(
                name="length", shape=(self.filters,), initializer=keras.initializers.Constant(2**0.5)
            )

    def step(self, inputs: tf.Tensor, past: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One step.

        Args:
            inputs: (..., features).
            past: (..., reach, features), the inputs before it, the farthest first.

        Returns:
            The output (..., filters), and the past of the next step.
        """
        whole = tf.concat([past, inputs[..., tf.newaxis, :]], axis=-2)
        return self.output_of([whole[..., at, :] for at in self.offsets]), whole[..., 1:, :]

    def effective_kernel(self) -> tf.Tensor:
        """The weights that the inputs are multiplied with."""
        kernel = super().effective_kernel()
        if self.weight_norm:
            kernel *= self.length / tf.sqrt(tf.reduce_sum(tf.square(kernel), axis=0))
        return kernel
