"""Gradient clipping: one steep place of the loss must not throw the weights far away.

Two kinds: each entry by itself, which bends the direction of the step, and the norm of all gradients together (Pascanu
et al. 2013, algorithm 1), which keeps it. The limit is chosen by watching the norm for some epochs of healthy training,
so that it touches only the rare large gradient: both functions also return how much they clipped.

Gradients of infinite or undefined norm are no case for clipping: the trainer stops on them before it calls these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Clipping:
    """How gradients are clipped: each entry to [-value, value], then the norm of all to at most `norm`."""

    norm: float | None = None
    value: float | None = None


NO_CLIPPING = Clipping()


def global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """The Euclidean norm of all entries of all gradients as one vector.

    Args:
        gradients: dense tensors. An embedding's rows of one token must be added up before their size means anything,
            see `dlkit.train.step.dense`: TensorFlow's own clipping looks at one row at a time.

    Returns:
        A scalar, float64 if any gradient is, else float32: sums of bfloat16 squares would stop growing after 256 ones.
    """
    dtype = tf.float64 if any(gradient.dtype == tf.float64 for gradient in gradients) else tf.float32
    # l2_loss is half the sum of squares, in a single pass over memory.
    return tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(tf.cast(gradient, dtype)) for gradient in gradients]))


def clip_by_global_norm(
    gradients: Sequence[tf.Tensor], limit: float, norm: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Scales all gradients by one factor, so that their global norm is at most `limit`.

    Args:
        gradients: tensors.
        limit: largest norm, above 0.
        norm: what `global_norm` gives for them; the trainer has it at hand, since it logs it.

    Returns:
        The gradients, to the bit as they were when the norm is within the limit, and 1.0 if they were scaled, else 0.0.
    """
    scale = limit / tf.maximum(norm, limit)
    clipped = [gradient * tf.cast(scale, gradient.dtype) for gradient in gradients]
    return clipped, tf.cast(norm > limit, tf.float32)


def clip_by_value(gradients: Sequence[tf.Tensor], limit: float) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Clips every entry to [-limit, limit].

    Args:
        gradients: tensors.
        limit: largest absolute value, above 0.

    Returns:
        The clipped gradients, and the share of entries that were beyond the limit, a float32 scalar.
    """
    clipped = [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]
    beyond = tf.add_n([tf.reduce_sum(tf.cast(tf.abs(gradient) > limit, tf.float32)) for gradient in gradients])
    entries = tf.add_n([tf.size(gradient, tf.int64) for gradient in gradients])
    return clipped, beyond / tf.cast(entries, tf.float32)
