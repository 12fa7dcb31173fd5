"""How probable a model finds given outputs."""

from typing import Any

import tensorflow as tf

from dlkit.data.tokenizer import PAD
from dlkit.decode.greedy import any_batch
from dlkit.decode.logits import log_normalizer
from dlkit.decode.step import StepFunction


def forced_scores(step: StepFunction, state: Any, memory: Any = (), *, targets: tf.Tensor, start_id: int) -> tf.Tensor:
    """Log-probability of each token of given outputs, the end token included, each after the true ones before it.

    It goes step by step, so that it is right for whatever can be decoded, and fed with what came out of a search it
    gives the search's own numbers. Where all positions can be had at once, `target_scores` is faster.

    Args:
        step: see `dlkit.decode.step`.
        state: nest of tensors (batch, 1, ...).
        memory: nest of tensors (batch, ...).
        targets: (batch, time) int32 with the end token, padded with 0.
        start_id: the token that the first step is given.

    Returns:
        (batch, time) float32, 0 at padding; their sum over time is the log-probability of the output.

    Example:
        >>> state, memory = model.start(source)
        >>> tf.reduce_sum(forced_scores(model.step, state, memory, targets=targets, start_id=1), axis=1)
    """
    batch, time = tf.shape(targets)[0], tf.shape(targets)[1]
    given = tf.pad(targets, ((0, 0), (1, 0)), constant_values=start_id)

    def inside(position: tf.Tensor, *_: Any) -> tf.Tensor:
        return position < time

    def extend(position: tf.Tensor, scores: tf.TensorArray, state: Any) -> tuple[tf.Tensor, tf.TensorArray, Any]:
        made = step(given[:, position, tf.newaxis], state, memory)
        score = target_scores(made.logits, targets[:, position, tf.newaxis])
        return position + 1, scores.write(position, score[:, 0]), made.state

    begin = (tf.constant(0), tf.TensorArray(tf.float32, time, element_shape=(None,)), state)
    _, scores, _ = tf.while_loop(inside, extend, begin, shape_invariants=any_batch(begin), maximum_iterations=time)
    return tf.reshape(tf.transpose(scores.stack()), (batch, time))


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
