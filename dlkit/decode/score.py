"""How probable a model finds given outputs."""

import tensorflow as tf

from dlkit.data.tokenizer import PAD
from dlkit.decode.logits import log_normalizer


def target_scores(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Log-probability of each token of given outputs, from the logits of teacher forcing.

    Args:
        logits: (batch, time, vocabulary), of what comes at each position after the true tokens before it.
        targets: (batch, time) int32 with the end token, padded with 0.

    Returns:
        (batch, time) float32, 0 at padding.
    """
    logits = tf.cast(logits, tf.float32)
    scores = tf.gather(logits, targets, batch_dims=2) - log_normalizer(logits)
    return tf.where(targets != PAD, scores, 0.0)
