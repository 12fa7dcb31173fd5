"""Large logits in few passes: their normalizer, and the best few of them."""

import tensorflow as tf

# Logits of which the greatest is looked at first; on a CPU 64 to 128 are fastest for vocabularies of thousands.
BLOCKS = range(64, 129)


def best(logits: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The greatest logits and their tokens, in falling order; of equal ones the lower token comes first.

    They are in the blocks with the greatest maxima, `count` of them. Finding these is one pass that vectorizes, which
    `tf.math.top_k` over all logits is not: with 32,000 tokens it takes six times as long.

    Args:
        logits: (..., vocabulary) float32.
        count: how many, at most the size of the vocabulary.

    Returns:
        Two of (..., count), float32 and int32.
    """
    vocabulary = logits.shape[-1]
    # Where a size divides the vocabulary no rest has to be cut off, which would copy all.
    block = next((size for size in BLOCKS if vocabulary % size == 0), BLOCKS[0])
    blocks = vocabulary // block
    if blocks < 4 * count:
        return tf.math.top_k(logits, count)
    leading = tf.shape(logits)[:-1]
    rows = tf.reshape(logits, (-1, vocabulary))
    whole = blocks * block
    by_block = tf.reshape(rows[:, :whole] if whole < vocabulary else rows, (-1, blocks, block))
    # Sorted, so that of equal logits the one with the lower token stays the first.
    places = tf.sort(tf.math.top_k(tf.reduce_max(by_block, axis=-1), count).indices)  # (rows, count)
    candidates = tf.reshape(tf.gather(by_block, places, batch_dims=1), (-1, count * block))
    tokens = tf.reshape(places[..., tf.newaxis] * block + tf.range(block), (-1, count * block))
    if whole < vocabulary:
        rest = tf.range(whole, vocabulary)
        candidates = tf.concat([candidates, rows[:, whole:]], axis=1)
        tokens = tf.concat([tokens, tf.broadcast_to(rest, tf.shape(rows[:, whole:]))], axis=1)
    values, order = tf.math.top_k(candidates, count)
    shape = tf.concat([leading, [count]], axis=0)
    shaped = (tf.reshape(part, shape) for part in (values, tf.gather(tokens, order, batch_dims=1)))
    values, tokens = (tf.ensure_shape(part, (*logits.shape[:-1], count)) for part in shaped)
    return values, tokens


def log_normalizer(logits: tf.Tensor, top: tf.Tensor | None = None) -> tf.Tensor:
    """log(sum(exp(logits))) over the vocabulary: a logit less this is the token's log-probability.

    It comes from the softmax p, which is one fused operation, as logit - log p of the most probable token, whose p is
    at least 1 / vocabulary.

    Args:
        logits: (..., vocabulary) float32.
        top: (...) int32, the most probable token when it is known, which saves two passes.

    Returns:
        (...); not-a-number where no logit is above -inf, or one is not a number.
    """
    probabilities = tf.nn.softmax(logits)
    if top is None:
        return tf.reduce_max(logits, axis=-1) - tf.math.log(tf.reduce_max(probabilities, axis=-1))
    depth = logits.shape.rank - 1
    return tf.gather(logits, top, batch_dims=depth) - tf.math.log(tf.gather(probabilities, top, batch_dims=depth))


def best_and_normalizer(logits: tf.Tensor, count: int, *, compiled: bool = False) -> tuple[tf.Tensor, ...]:
    """What `best` and `log_normalizer` give, by what is fastest where it runs.

    Args:
        logits: (..., vocabulary) float32.
        count: how many of the best, at most the size of the vocabulary.
        compiled: whether XLA compiles this. Its top-k is one pass; and a sum that depends on the best it would fuse
            with the matrix product before it, which takes forty times as long.

    Returns:
        The best logits and their tokens, (..., count) float32 and int32, and the normalizer (...).
    """
    if compiled:
        return (*tf.math.top_k(logits, count), tf.reduce_logsumexp(logits, axis=-1))
    values, tokens = best(logits, count)
    return values, tokens, log_normalizer(logits, tokens[..., 0])
