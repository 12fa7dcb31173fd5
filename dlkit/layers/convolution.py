"""Convolutions that compute what Keras' layer computes, where a CPU does it faster another way."""

from typing import Any

import keras
import tensorflow as tf

# Up to this many positions of a map, and from this many channels on, the filter gradient is faster as matrix products:
# measured with TensorFlow 2.21 (oneDNN 3.7) on 2 cores of an AMD EPYC with AVX-512 bf16, batch 128.
SMALL_MAP = 64
MANY_CHANNELS = 256


class Conv2D(keras.layers.Conv2D):
    """A convolution; in bfloat16 on a CPU its filter gradient takes a faster way on small maps of many channels.

    oneDNN's kernel for the filter gradient in bfloat16 runs at a third of the speed of its forward kernel when maps are
    as small as 4x4. One matrix product for each position of the filter runs at almost twice that speed.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves (batch, height, width, channels) with a kernel of (height, width, channels, filters)."""
        if self.groups > 1 and self.dilation_rate == (1, 1):
            return _grouped(inputs, kernel, self.groups, self.strides, self.padding)
        if inputs.dtype == tf.bfloat16 and self._gradient_by_products(inputs.shape):
            kernel = tf.cast(kernel, inputs.dtype)  # a tensor: a custom gradient may read no variable
            return _same_convolution(inputs, kernel)
        return super().convolution_op(inputs, kernel)

    def _gradient_by_products(self, shape: tf.TensorShape) -> bool:
        _, height, width, channels = shape
        return (
            self.padding == "same"
            and self.data_format == "channels_last"
            and (*self.strides, *self.dilation_rate) == (1, 1, 1, 1)
            and all(size % 2 for size in self.kernel_size)
            and None not in (height, width)
            and height * width <= SMALL_MAP
            and min(channels, self.filters) >= MANY_CHANNELS
            and not tf.config.get_visible_devices("GPU")
        )


def _grouped(inputs: tf.Tensor, kernel: tf.Tensor, groups: int, strides: Any, padding: str) -> tf.Tensor:
    """A convolution in groups; Keras' layer compiles it with XLA on a CPU, where these plain ones are faster.

    Not of a dilated one: of that TensorFlow has no gradient on a CPU without XLA.
    """
    parts = zip(tf.split(inputs, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([tf.nn.conv2d(x, k, strides, padding.upper()) for x, k in parts], -1)


@tf.custom_gradient
def _same_convolution(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """A zero-padded convolution at stride 1 by an odd kernel, its filter gradient as matrix products."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        to_inputs = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
        )
        return to_inputs, filter_gradient(inputs, upstream, kernel.shape)

    return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradient


def filter_gradient(inputs: tf.Tensor, upstream: tf.Tensor, kernel_shape: tuple[int, int, int, int]) -> tf.Tensor:
    """The gradient with respect to the kernel of a zero-padded convolution at stride 1.

    For position (i, j) of the kernel it is X_ij^T G, with X_ij the padded inputs shifted by (i, j) and G the upstream
    gradient, both with a row for each position of each image.

    Args:
        inputs: (batch, height, width, channels).
        upstream: (batch, height, width, filters), the gradient with respect to the output.
        kernel_shape: height and width, both odd, channels and filters.

    Returns:
        A tensor of the kernel's shape.
    """
    rows, columns, channels, filters = kernel_shape
    _, height, width, _ = inputs.shape
    padded = tf.pad(inputs, [[0, 0], [rows // 2] * 2, [columns // 2] * 2, [0, 0]])
    flat = tf.reshape(upstream, [-1, filters])  # (batch * height * width, filters)
    products = [
        tf.matmul(tf.reshape(padded[:, i : i + height, j : j + width], [-1, channels]), flat, transpose_a=True)
        for i in range(rows)
        for j in range(columns)
    ]
    return tf.reshape(tf.stack(products), kernel_shape)
