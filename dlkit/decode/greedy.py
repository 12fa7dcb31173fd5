"""Greedy decoding, and the loop that it shares with sampling: one token on each beam at each step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from dlkit.data.tokenizer import PAD
from dlkit.decode.logits import log_normalizer
from dlkit.decode.step import Decoded, StepFunction, attention_of

# Picks tokens (batch, beams) int32 from logits (batch, beams, vocabulary), float32, at a position.
Choose = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def greedy(
    step: StepFunction,
    state: Any,
    memory: Any = (),
    *,
    batch: int | tf.Tensor,
    start_id: int,
    end_id: int | None,
    max_len: int | tf.Tensor,
    min_len: int = 0,
    prefix: tf.Tensor | None = None,
    attention: bool = False,
    steps: int | None = None,
) -> Decoded:
    """Takes the most probable token at each step; a row ends with the end token, at `max_len` in any case.

    The forced end token counts and is scored like a chosen one; it is also forced where every token is banned, that is
    has the logit -inf. Padding is never said. A row that has ended is frozen, so its result does not depend on the rows
    beside it. Meant to be called inside a tf.function, where it is one loop in the graph.

    Args:
        step: see `dlkit.decode.step`.
        state: the state before the first step, a nest of tensors (batch, 1, ...).
        memory: what `step` is given besides, a nest of tensors (batch, ...).
        batch: number of rows.
        start_id: the token that the first step is given.
        end_id: the token that ends a sequence; None where nothing but `max_len` does, which then forces no token.
        max_len: most tokens a row may have, the end token included, at least 1; a scalar, or (batch,).
        min_len: fewest tokens a row may have, the end token included; `max_len` wins.
        prefix: (batch, time) int32 padded with 0, tokens that each row has to begin with; they count and are scored.
            An end token among them ends nothing.
        attention: whether to return the weights over the source.
        steps: length of what comes back, at least that of the longest `max_len`, which it is when not given; XLA has to
            know it.

    Example:
        >>> state, memory = model.start(source)
        >>> decoded = greedy(model.step, state, memory, batch=8, start_id=1, end_id=2, max_len=20)
    """
    return generate(
        step, state, memory, choose=_most_probable, batch=batch, start_id=start_id, end_id=end_id, max_len=max_len,
        min_len=min_len, prefix=prefix, attention=attention, steps=steps,
    )  # fmt: skip


def _most_probable(logits: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


class _Loop(NamedTuple):
    """What goes round; n beams a row, each on its own."""

    position: tf.Tensor  # scalar int32
    last: tf.Tensor  # (batch, n) int32
    done: tf.Tensor  # (batch, n) bool
    lengths: tf.Tensor  # (batch, n) int32
    log_probabilities: tf.Tensor  # (batch, n) float32
    tokens: tf.TensorArray  # by position (batch, n) int32
    attention: Any  # TensorArray, unless it is not asked for (): by position (batch, n, source time) float32
    state: Any


def generate(
    step: StepFunction,
    state: Any,
    memory: Any,
    *,
    choose: Choose,
    batch: int | tf.Tensor,
    beams: int = 1,
    start_id: int,
    end_id: int | None,
    max_len: int | tf.Tensor,
    min_len: int = 0,
    prefix: tf.Tensor | None = None,
    attention: bool = False,
    steps: int | None = None,
) -> Decoded:
    """Goes on with the token that `choose` picks on each beam, until all have said the end token; see `greedy`.

    There are `beams` sequences a row, which know nothing of each other; the state has room for them.
    """
    limits = tf.broadcast_to(max_len, [batch])[:, tf.newaxis]  # (batch, 1)
    longest = tf.reduce_max(limits) if steps is None else steps

    def unfinished(loop: _Loop) -> tf.Tensor:
        return ~tf.reduce_all(loop.done)

    def extend(loop: _Loop) -> tuple[_Loop]:
        made = step(loop.last, loop.state, memory)
        logits = tf.cast(made.logits, tf.float32)
        banned = tf.range(logits.shape[-1]) == PAD
        if end_id is not None:
            banned |= (tf.range(logits.shape[-1]) == end_id) & (loop.position + 1 < min_len)
        allowed = tf.where(banned, -float("inf"), logits)
        normalizer = log_normalizer(logits)
        chosen = choose(allowed, loop.position)
        if end_id is not None:
            possible = tf.gather(allowed, chosen, batch_dims=2) - normalizer > -float("inf")  # no for not-a-number, too
            chosen = tf.where(possible, chosen, end_id)
        over = loop.position + 1 >= limits
        says_end = tf.zeros_like(chosen, tf.bool) if end_id is None else chosen == end_id
        if prefix is not None:
            forced = prefix_token(prefix, loop.position)[:, tf.newaxis]
            chosen = tf.where(forced != PAD, forced, chosen)
            says_end &= forced == PAD
        if end_id is not None:
            chosen = tf.where(over, end_id, chosen)
        over |= says_end
        log_probability = tf.gather(logits, chosen, batch_dims=2) - normalizer
        log_probability = tf.where(log_probability > -float("inf"), log_probability, -float("inf"))
        following = _Loop(
            position=loop.position + 1,
            last=chosen,
            done=loop.done | over,
            lengths=tf.where(loop.done, loop.lengths, loop.position + 1),
            log_probabilities=loop.log_probabilities + tf.where(loop.done, 0.0, log_probability),
            tokens=loop.tokens.write(loop.position, tf.where(loop.done, PAD, chosen)),
            attention=(),
            state=made.state,
        )
        if attention:
            weights = tf.where(loop.done[..., tf.newaxis], 0.0, attention_of(made))
            following = following._replace(attention=loop.attention.write(loop.position, weights))
        return (following,)

    begin = _Loop(
        position=tf.constant(0),
        last=tf.fill([batch, beams], start_id),
        done=tf.zeros([batch, beams], tf.bool),
        lengths=tf.zeros([batch, beams], tf.int32),
        log_probabilities=tf.zeros([batch, beams]),
        tokens=tf.TensorArray(tf.int32, longest, element_shape=(None, beams)),
        attention=tf.TensorArray(tf.float32, longest, element_shape=(None, beams, None)) if attention else (),
        state=state,
    )
    (loop,) = tf.while_loop(
        unfinished, extend, (begin,), shape_invariants=(any_batch(begin),), maximum_iterations=longest
    )
    return Decoded(
        tokens=tf.transpose(loop.tokens.stack(), (1, 2, 0)),
        lengths=loop.lengths,
        log_probabilities=loop.log_probabilities,
        scores=loop.log_probabilities,
        attention=tf.transpose(loop.attention.stack(), (1, 2, 0, 3)) if attention else None,
    )


def prefix_token(prefix: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The token (batch,) that each row has to say at a position; padding where it is free."""
    padded = tf.pad(prefix, ((0, 0), (0, 1)), constant_values=PAD)
    return padded[:, tf.minimum(position, tf.shape(prefix)[1])]


def any_batch(loop: Any) -> Any:
    """The shapes of what goes round a loop, with an unknown number of rows: `tf.while_loop` infers too much of it."""

    def shape(leaf: Any) -> tf.TensorShape:
        if isinstance(leaf, tf.TensorArray):
            return tf.TensorShape(None)
        return tf.TensorShape([None, *leaf.shape[1:]]) if leaf.shape.rank else leaf.shape

    return tf.nest.map_structure(shape, loop)
