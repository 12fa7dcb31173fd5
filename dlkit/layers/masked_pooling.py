"""Sequences whatever their padding: zeros in its place, and the mean or the maximum over the real steps."""

import tensorflow as tf


def without_padding(x: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """The same with zeros at padding.

    Args:
        x: (batch, time, features).
        real: (batch, time) bool, False at padding.
    """
    # Chosen, not multiplied: 0 times what stands at padding need not be 0.
    return tf.where(real[:, :, tf.newaxis], x, tf.zeros((), x.dtype))


def masked_mean(x: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """The mean over the real steps; zeros where there is none.

    Args:
        x: (batch, time, features).
        real: (batch, time) bool, False at padding.

    Returns:
        (batch, features).
    """
    total, steps = masked_sum(x, real)
    return tf.cast(total / tf.maximum(steps, tf.ones((), steps.dtype)), x.dtype)


def masked_sum(x: tf.Tensor, real: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The sum over the real steps, and how many these are: (batch, features) and (batch, 1).

    In float32 even when `x` is bfloat16 (in float64 when it is): a long sum is more than bfloat16 can count.
    """
    dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
    kept = without_padding(tf.cast(x, dtype), real)
    return tf.reduce_sum(kept, axis=1), tf.reduce_sum(tf.cast(real, dtype), axis=1, keepdims=True)


def masked_max(x: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """The maximum of each feature over the real steps; zeros where there is none.

    Args:
        x: (batch, time, features).
        real: (batch, time) bool, False at padding.

    Returns:
        (batch, features).
    """
    lowest = tf.reduce_max(tf.where(real[:, :, tf.newaxis], x, x.dtype.min), axis=1)
    return tf.where(tf.reduce_any(real, axis=1, keepdims=True), lowest, tf.zeros((), x.dtype))
