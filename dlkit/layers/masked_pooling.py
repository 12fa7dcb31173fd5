"""From the steps of a sequence to one vector: the mean or the maximum over the real steps, whatever the padding."""

import tensorflow as tf


def masked_mean(x: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """The mean over the real steps; zeros where there is none.

    Args:
        x: (batch, time, features).
        real: (batch, time) bool, False at padding.

    Returns:
        (batch, features).
    """
    weights = tf.cast(real, x.dtype)[:, :, tf.newaxis]
    steps = tf.maximum(tf.reduce_sum(weights, axis=1), tf.ones((), x.dtype))
    # Chosen, not multiplied: 0 times what stands at padding need not be 0.
    return tf.reduce_sum(tf.where(real[:, :, tf.newaxis], x, tf.zeros((), x.dtype)), axis=1) / steps


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
