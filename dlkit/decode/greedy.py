"""Greedy decoding over a step function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

Step = Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any]]


class Decoded(NamedTuple):
    """One output sequence a row."""

    tokens: tf.Tensor  # (batch, max_len) int32, 0 after the end token
    lengths: tf.Tensor  # (batch,) int32, generated tokens with the end token
    scores: tf.Tensor  # (batch,) float32, sum of their log-probabilities


def greedy(
    step: Step, state: Any, *, batch: int | tf.Tensor, start_id: int, end_id: int, max_len: int | tf.Tensor
) -> Decoded:
    """Takes the most probable token at each step; a row ends with the end token, at `max_len` in any case.

    The forced end token counts and is scored like a chosen one. A row that has ended is frozen, so its result does not
    depend on the rows beside it. Meant to be called inside a tf.function, where it is one loop in the graph.

    Args:
        step: tokens (batch,) int32 and the state before them -> logits (batch, vocabulary) and the state after them.
        state: the state before the first step, a nest of tensors with the batch first.
        batch: number of rows.
        start_id: the token that the first step is given.
        end_id: the token that ends a sequence.
        max_len: most tokens a row may have, the end token included; at least 1.

    Example:
        >>> decoded = greedy(model.step, model.start(source), batch=8, start_id=1, end_id=2, max_len=20)
    """
    positions = tf.range(max_len)

    def unfinished(position: tf.Tensor, done: tf.Tensor, *_: Any) -> tf.Tensor:
        return (position < max_len) & ~tf.reduce_all(done)

    def extend(
        position: tf.Tensor, done: tf.Tensor, last: tf.Tensor, decoded: Decoded, state: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Decoded, Any]:
        logits, state = step(last, state)
        log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        chosen = tf.argmax(log_probabilities, axis=-1, output_type=tf.int32)
        chosen = tf.where(position == max_len - 1, end_id, chosen)
        score = tf.gather(log_probabilities, chosen, batch_dims=1)
        decoded = Decoded(
            tokens=tf.where((positions == position) & ~done[:, tf.newaxis], chosen[:, tf.newaxis], decoded.tokens),
            lengths=tf.where(done, decoded.lengths, position + 1),
            scores=tf.where(done, decoded.scores, decoded.scores + score),
        )
        return position + 1, done | (chosen == end_id), chosen, decoded, state

    nothing = Decoded(tf.zeros((batch, max_len), tf.int32), tf.zeros(batch, tf.int32), tf.zeros(batch))
    begin = (0, tf.zeros(batch, tf.bool), tf.fill([batch], start_id), nothing, state)
    return tf.while_loop(unfinished, extend, begin, maximum_iterations=max_len)[3]
