"""Losses per position; the task weighs and adds them up."""

from collections.abc import Callable

import tensorflow as tf

from dlkit.errors import UsageError


def softmax_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, *, label_smoothing: float = 0.0) -> tf.Tensor:
    """The cross entropy -sum_k q_k log softmax(logits)_k at every position.

    The target distribution q is one-hot, or smoothed over all K classes, the right one included (Szegedy et al. 2016,
    section 7): q_k = (1 - label_smoothing) [k = label] + label_smoothing / K. A smoothed loss has a minimum above zero,
    which is reached at finite logits.

    Args:
        logits: (..., K), any float dtype.
        labels: (...), integers in [0, K).
        label_smoothing: probability spread evenly over the classes, in [0, 1).

    Returns:
        Losses in nats, shaped like `labels`, in float32 (float64 for float64 logits).

    Raises:
        dlkit.errors.UsageError: `label_smoothing` is out of range.

    Example:
        >>> softmax_cross_entropy(tf.zeros((2, 4)), [0, 3]).numpy()  # log 4, whatever the label
        array([1.3862944, 1.3862944], dtype=float32)
    """
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"label smoothing must be at least 0 and below 1, and is {label_smoothing}", "0.1 is usual")
    logits = tf.convert_to_tensor(logits)
    logits = tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32)
    labels = tf.convert_to_tensor(labels)
    rows = tf.reshape(logits, (-1, logits.shape[-1]))
    return tf.reshape(_cross_entropy(rows, tf.reshape(labels, (-1,)), label_smoothing), tf.shape(labels))


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Losses (rows,) of logits (rows, K), with the gradient softmax(logits) - q written down.

    With a vocabulary the loss is a good part of a step, and its time is that of going over the logits. The softmax is
    needed for the gradient anyway and by far the quickest way over them, so the loss is taken from it: with m the
    greatest logit and p its probability, log sum_k exp(z_k) = m - log p. As p is at least 1 / K, its logarithm is as
    exact as any. TensorFlow's own log softmax takes three times as long as its softmax.
    """
    classes = logits.shape[-1]

    @tf.custom_gradient
    def losses(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        probabilities = tf.nn.softmax(logits)
        greatest = tf.reduce_max(logits, axis=-1)
        # Differences from the greatest logit, since of large logits a sum would lose the digits of the loss.
        result = (1 - smoothing) * (greatest - tf.gather(logits, labels, batch_dims=1))
        if smoothing:
            result += smoothing * (greatest - tf.reduce_mean(logits, axis=-1))
        result -= tf.math.log(tf.reduce_max(probabilities, axis=-1))

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Scaled first: what is scattered into is then nobody else's, and TensorFlow does not copy it.
            difference = upstream[:, tf.newaxis] * (probabilities - smoothing / classes if smoothing else probabilities)
            places = tf.stack([tf.range(tf.size(labels, labels.dtype)), labels], axis=1)
            return tf.tensor_scatter_nd_sub(difference, places, (1 - smoothing) * upstream)

        return result, gradient

    return losses(logits)
