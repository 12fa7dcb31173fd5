"""Beam search over a step function."""

import math
from typing import Any, Literal, NamedTuple, get_args

import tensorflow as tf

from dlkit.data.tokenizer import PAD
from dlkit.decode.greedy import any_batch, prefix_token
from dlkit.decode.logits import best_and_normalizer
from dlkit.decode.step import (
    ENDED,
    KEPT,
    NOTHING,
    PRUNED,
    Decoded,
    Record,
    Reorder,
    StepFunction,
    attention_of,
    gather_beams,
)
from dlkit.errors import UsageError

LengthNorm = Literal["avg", "gnmt", "none"]
NEVER = -float("inf")  # the log-probability of what does not exist
LEAST = float(tf.float32.min)  # stands for that of an impossible end that was forced: it exists, and comes last


class _Pool(NamedTuple):
    """The finished hypotheses of each row, the best first; those that do not exist have the score NEVER.

    One that has L tokens said the last one, the end token where there is one, at step L, going on from a beam of step
    L - 1: with the back-pointers that is all there is to know.
    """

    scores: tf.Tensor  # (batch, beams) float32, normalized by length
    log_probabilities: tf.Tensor  # (batch, beams) float32
    lengths: tf.Tensor  # (batch, beams) int32
    parents: tf.Tensor  # (batch, beams) int32
    last: tf.Tensor  # (batch, beams) int32


class _Candidates(NamedTuple):
    """Ways to go on, the best first; those that do not exist have the log-probability NEVER."""

    tokens: tf.Tensor  # (batch, candidates) int32
    parents: tf.Tensor  # (batch, candidates) int32
    log_probabilities: tf.Tensor  # (batch, candidates) float32


class _Search(NamedTuple):
    """What goes round the loop. A row that is done has no live beam left: all it does comes to nothing."""

    position: tf.Tensor  # scalar int32, tokens so far
    last: tf.Tensor  # (batch, beams) int32, what the live beams have said last
    live: tf.Tensor  # (batch, beams) float32, log-probabilities of the live beams
    finished: tf.Tensor  # (batch,) int32, how many hypotheses have ended
    pool: _Pool
    tokens: tf.TensorArray  # by position (batch, beams) int32: what each live beam said
    parents: tf.TensorArray  # by position (batch, beams) int32: on which beam of the position before
    attention: Any  # by position (batch, beams, source time), before the beams were moved; () when not asked for
    record: Record | tuple[()]  # of TensorArrays
    state: Any


def beam_search(
    step: StepFunction,
    state: Any,
    memory: Any = (),
    *,
    batch: int | tf.Tensor,
    beams: int,
    start_id: int,
    end_id: int | None,
    max_len: int | tf.Tensor,
    n_best: int = 1,
    length_norm: LengthNorm = "avg",
    alpha: float = 0.6,
    min_len: int = 0,
    patience: float = 1.0,
    prefix: tf.Tensor | None = None,
    attention: bool = False,
    record: bool = False,
    reorder: Reorder = gather_beams,
    steps: int | None = None,
) -> Decoded:
    """Keeps the best prefixes by summed log-probability, goes on from each with every token, and keeps the best again.

    A hypothesis that says the end token while it is among the best `beams` is set aside, and the next best prefix takes
    its beam. At `max_len` the end is forced on all. A row is done

    - when `patience * beams` hypotheses are set aside (Kasai et al. 2022; 1 is usual) and no live one is ahead of them
      as it stands. So one beam is greedy decoding: what it did not choose is behind.
    - when none can come to be among the `n_best`: its log-probability only falls, and it grows to `max_len` at most, so
      score <= log-probability now / norm(max_len).

    where norm(length) is the length itself ("avg"), ((5 + length) / 6) ** alpha ("gnmt", Wu et al. 2016, equation 14)
    or 1 ("none"). Lengths count the generated tokens with the end token. Rows know nothing of each other.

    Prefixes are not copied: each step keeps its tokens and from which beams they came, and the hypotheses are read off
    at the end, from back to front. Meant to be called inside a tf.function, where it is one loop in the graph.

    Args:
        step: see `dlkit.decode.step`.
        state: the state before the first step, a nest of tensors (batch, 1, ...).
        memory: what `step` is given besides, a nest of tensors (batch, ...), never copied for the beams.
        batch: number of rows.
        beams: prefixes that are kept.
        start_id: the token that the first step is given.
        end_id: the token that ends a hypothesis; None where nothing but `max_len` does, which then forces no token. A
            row on which every token is banned has no hypothesis then.
        max_len: most tokens of a hypothesis, the end token included, at least 1; a scalar, or (batch,).
        n_best: how many hypotheses come back, at most `beams`.
        length_norm: by what the hypotheses are compared in the end, see above.
        alpha: exponent of "gnmt", at least 0.
        min_len: fewest tokens of a hypothesis, the end token included; `max_len` wins.
        patience: see above; infinite to stop at what is certain only.
        prefix: (batch, time) int32 padded with 0, tokens that each row has to begin with; they count and are scored.
            An end token among them ends nothing.
        attention: whether to return the weights over the source.
        record: whether to return all candidates of all steps.
        reorder: moves the state to other beams, see `dlkit.decode.step`.
        steps: length of what comes back, at least that of the longest `max_len`, which it is when not given; XLA has to
            know it.

    Raises:
        dlkit.errors.UsageError: a setting is out of range.

    Example:
        >>> state, memory = model.start(source)
        >>> decoded = beam_search(model.step, state, memory, batch=8, beams=5, start_id=1, end_id=2, max_len=20)
        >>> decoded.tokens.shape
        TensorShape([8, 1, 20])
    """
    _check(beams=beams, n_best=n_best, length_norm=length_norm, alpha=alpha, patience=patience)
    limits = tf.broadcast_to(max_len, [batch])  # (batch,)
    longest = tf.reduce_max(limits) if steps is None else steps
    norm_of_limits = _norm(limits, length_norm, alpha)
    never_early = PAD if end_id is None else end_id
    worst = math.ceil(min(patience, 1) * beams) - 1  # place in the pool of the last of the hypotheses that are enough

    def unfinished(search: _Search) -> tf.Tensor:
        return tf.reduce_any(search.live > NEVER)

    def extend(search: _Search) -> tuple[_Search]:
        position, length = search.position, search.position + 1
        made = step(search.last, search.state, memory)
        logits = tf.cast(made.logits, tf.float32)  # (batch, beams, vocabulary)
        # Padding is never said, and at most one continuation of a beam is the end: so these hold its best `beams`.
        count = min(beams + 2, logits.shape[-1])
        values, tokens, normalizer = best_and_normalizer(logits, count, compiled=steps is not None)
        continued = search.live[..., tf.newaxis] + (values - normalizer[..., tf.newaxis])
        # False for not-a-number, too: what a model says that is no longer finite, or after the end of a row.
        allowed = (continued > NEVER) & (tokens != PAD) & ((length >= min_len) | (tokens != never_early))
        continued = tf.where(allowed, continued, NEVER)
        forced = tf.zeros_like(limits) if prefix is None else prefix_token(prefix, position)
        if prefix is not None:
            given = _forced(logits, normalizer, search.live, forced, like=tokens)
            is_forced = (forced != PAD)[:, tf.newaxis, tf.newaxis]
            tokens, continued = (tf.where(is_forced, a, b) for a, b in zip(given, (tokens, continued), strict=True))
        candidates, at_limit = _candidates(tokens, continued), length >= limits
        if end_id is None:
            says_end = tf.broadcast_to(at_limit[:, tf.newaxis], tf.shape(candidates.tokens))
        else:
            must_end = at_limit | ~(candidates.log_probabilities[:, 0] > NEVER)
            ends = _ends(logits[..., end_id] - normalizer, search.live, candidates, end_id=end_id)
            candidates = _where(must_end, ends, candidates)
            says_end = (candidates.tokens == end_id) & (must_end | (forced == PAD))[:, tf.newaxis]
        exists = candidates.log_probabilities > NEVER
        among_best = tf.range(says_end.shape[1]) < beams
        ended = says_end & exists & among_best
        norm = _norm(length, length_norm, alpha)
        pool = _merge(search.pool, candidates, ended, length, norm)
        live, kept = tf.math.top_k(tf.where(says_end, NEVER, candidates.log_probabilities), beams)
        tokens = tf.gather(candidates.tokens, kept, batch_dims=1)
        parents = tf.gather(candidates.parents, kept, batch_dims=1)

        finished = search.finished + tf.reduce_sum(tf.cast(ended, tf.int32), axis=1)
        enough = tf.cast(finished, tf.float32) >= patience * beams
        enough &= pool.scores[:, worst] >= live[:, 0] / norm
        hopeless = pool.scores[:, n_best - 1] >= live[:, 0] / norm_of_limits
        live = tf.where((enough | hopeless)[:, tf.newaxis], NEVER, live)

        following = _Search(
            position=length,
            last=tokens,
            live=live,
            finished=finished,
            pool=pool,
            tokens=search.tokens.write(position, tokens),
            parents=search.parents.write(position, parents),
            attention=search.attention.write(position, attention_of(made)) if attention else (),
            record=_recorded(search.record, position, candidates, says_end, ended, beams=beams) if record else (),
            state=reorder(made.state, parents),
        )
        return (following,)

    begin = _begin(
        reorder(state, tf.zeros([batch, beams], tf.int32)),
        batch=batch, beams=beams, start_id=start_id, longest=longest, attention=attention, record=record,
    )  # fmt: skip
    (search,) = tf.while_loop(
        unfinished, extend, (begin,), shape_invariants=(any_batch(begin),), maximum_iterations=longest
    )
    return _resolve(search, n_best=n_best, longest=longest)


def _check(*, beams: int, n_best: int, length_norm: str, alpha: float, patience: float) -> None:
    if beams < 1:
        raise UsageError(f"a beam search with {beams} beams", "1 is greedy decoding, 5 a usual number")
    if not 1 <= n_best <= beams:
        raise UsageError(
            f"{n_best} best hypotheses of {beams} beams", f"`--beam {max(n_best, 1)}` or a smaller `--n-best`"
        )
    if length_norm not in get_args(LengthNorm):
        raise UsageError(f"unknown length normalization: {length_norm}", f"known: {', '.join(get_args(LengthNorm))}")
    if not 0 <= alpha < math.inf:
        raise UsageError(f"alpha is {alpha}, and it has to be at least 0", "0.6 is a usual one, 0 does not normalize")
    if not patience > 0:
        raise UsageError(f"the patience is {patience}, and it has to be above 0", "1 is the usual one")


def _norm(length: tf.Tensor, length_norm: LengthNorm, alpha: float) -> tf.Tensor:
    length = tf.cast(length, tf.float32)
    match length_norm:
        case "avg":
            return length
        case "gnmt":
            return ((5 + length) / 6) ** alpha
        case "none":
            return tf.ones_like(length)


def _begin(
    state: Any,
    *,
    batch: int | tf.Tensor,
    beams: int,
    start_id: int,
    longest: tf.Tensor,
    attention: bool,
    record: bool,
) -> _Search:
    """One empty prefix a row, on beam 0; the other beams do not exist yet."""

    def by_position(dtype: tf.DType, *shape: int | None) -> tf.TensorArray:
        return tf.TensorArray(dtype, longest, element_shape=(None, *shape), clear_after_read=False)

    nothing, never = tf.zeros([batch, beams], tf.int32), tf.fill([batch, beams], NEVER)
    return _Search(
        position=tf.constant(0),
        last=tf.fill([batch, beams], start_id),
        live=tf.where(tf.range(beams) == 0, tf.zeros([batch, beams]), NEVER),
        finished=tf.zeros([batch], tf.int32),
        pool=_Pool(never, never, nothing, nothing, nothing),
        tokens=by_position(tf.int32, beams),
        parents=by_position(tf.int32, beams),
        attention=by_position(tf.float32, beams, None) if attention else (),
        record=Record(*(by_position(dtype, None) for dtype in (tf.int32, tf.int32, tf.float32, tf.int32)))
        if record
        else (),
        state=state,
    )


def _candidates(tokens: tf.Tensor, log_probabilities: tf.Tensor) -> _Candidates:
    """The best 2 * beams continuations of a row, or as many as there are: at most half of them can be ends.

    Args:
        tokens: (batch, beams, some) int32, continuations of each beam.
        log_probabilities: (batch, beams, some) float32, of the prefixes that they make.
    """
    beams, each = tokens.shape[1:]
    sums = tf.reshape(log_probabilities, (-1, beams * each))
    sums, places = tf.math.top_k(sums, min(2 * beams, beams * each))
    tokens = tf.gather(tf.reshape(tokens, (-1, beams * each)), places, batch_dims=1)
    return _Candidates(tokens, places // each, sums)


def _forced(
    logits: tf.Tensor, normalizer: tf.Tensor, live: tf.Tensor, forced: tf.Tensor, *, like: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The one continuation of each live beam by the forced token (batch,), in a shape with room for more."""
    each = tf.repeat(forced[:, tf.newaxis], live.shape[1], axis=1)
    log_probabilities = tf.gather(logits, each, batch_dims=2) - normalizer
    first = tf.range(like.shape[2]) == 0
    continued = tf.where(first, _whatever(live, log_probabilities)[..., tf.newaxis], NEVER)
    return tf.broadcast_to(each[..., tf.newaxis], tf.shape(like)), continued


def _whatever(live: tf.Tensor, log_probabilities: tf.Tensor) -> tf.Tensor:
    """The log-probabilities of what each live beam is forced to say, which exists however impossible it is."""
    sums = live + log_probabilities
    return tf.where(live > NEVER, tf.where(sums > LEAST, sums, LEAST), NEVER)


def _ends(log_probabilities: tf.Tensor, live: tf.Tensor, like: _Candidates, *, end_id: int) -> _Candidates:
    """The end said on each live beam, whatever its log-probability (batch, beams), as candidates."""
    sums = _whatever(live, log_probabilities)
    missing = like.tokens.shape[1] - live.shape[1]
    sums = tf.pad(sums, ((0, 0), (0, missing)), constant_values=NEVER)
    parents = tf.minimum(tf.range(sums.shape[1]), live.shape[1] - 1)
    return _Candidates(tf.fill(tf.shape(sums), end_id), tf.broadcast_to(parents, tf.shape(sums)), sums)


def _where(rows: tf.Tensor, first: _Candidates, second: _Candidates) -> _Candidates:
    return _Candidates(*(tf.where(rows[:, tf.newaxis], a, b) for a, b in zip(first, second, strict=True)))


def _merge(pool: _Pool, candidates: _Candidates, ended: tf.Tensor, length: tf.Tensor, norm: tf.Tensor) -> _Pool:
    """The best of the pool and of the candidates that have ended, as many as the pool has room for."""
    beams = pool.scores.shape[1]
    log_probabilities = tf.where(ended, candidates.log_probabilities, NEVER)[:, :beams]
    arrivals = _Pool(
        scores=log_probabilities / norm,
        log_probabilities=log_probabilities,
        lengths=tf.fill(tf.shape(log_probabilities), length),
        parents=candidates.parents[:, :beams],
        last=candidates.tokens[:, :beams],
    )
    both = _Pool(*(tf.concat(pair, axis=1) for pair in zip(pool, arrivals, strict=True)))
    scores, places = tf.math.top_k(both.scores, beams)
    return _Pool(scores, *(tf.gather(values, places, batch_dims=1) for values in both[1:]))


def _recorded(
    record: Any, position: tf.Tensor, candidates: _Candidates, says_end: tf.Tensor, ended: tf.Tensor, *, beams: int
) -> Record:
    """The record, of TensorArrays, with the candidates of a position and what became of them."""
    exists = candidates.log_probabilities > NEVER
    lives_on = ~says_end & exists
    lives_on &= tf.cumsum(tf.cast(lives_on, tf.int32), axis=1) <= beams
    fates = tf.where(ended, ENDED, tf.where(lives_on, KEPT, tf.where(exists, PRUNED, NOTHING)))
    values = Record(*candidates, fates)
    return Record(*(array.write(position, value) for array, value in zip(record, values, strict=True)))


def _resolve(search: _Search, *, n_best: int, longest: tf.Tensor) -> Decoded:
    """Follows the back-pointers of the `n_best` hypotheses of each row, from the last position to the first."""
    pool = _Pool(*(values[:, :n_best] for values in search.pool))
    exist = pool.scores > NEVER
    lengths = tf.where(exist, pool.lengths, 0)

    def earlier(position: tf.Tensor, *_: Any) -> tf.Tensor:
        return position >= 0

    def back(position: tf.Tensor, beam: tf.Tensor, tokens: tf.TensorArray, attention: Any) -> tuple[Any, ...]:
        """`beam` is where a hypothesis is after this position, or will be when it begins."""
        inside = position < lengths - 1
        token = tf.gather(search.tokens.read(position), beam, batch_dims=1)
        token = tf.where(inside, token, tf.where(position == lengths - 1, pool.last, PAD))
        beam = tf.where(inside, tf.gather(search.parents.read(position), beam, batch_dims=1), beam)
        if search.attention:
            weights = tf.gather(search.attention.read(position), beam, batch_dims=1)
            weights = tf.where((position < lengths)[..., tf.newaxis], weights, 0.0)
            attention = attention.write(position, weights)
        return position - 1, beam, tokens.write(position, token), attention

    begin = (
        search.position - 1,
        pool.parents,
        tf.TensorArray(tf.int32, longest, element_shape=(None, n_best)),
        tf.TensorArray(tf.float32, longest, element_shape=(None, n_best, None)) if search.attention else (),
    )
    _, _, tokens, attention = tf.while_loop(
        earlier, back, begin, shape_invariants=any_batch(begin), maximum_iterations=longest
    )
    return Decoded(
        tokens=tf.transpose(tokens.stack(), (1, 2, 0)),
        lengths=lengths,
        log_probabilities=tf.where(pool.log_probabilities > LEAST, pool.log_probabilities, NEVER),
        scores=tf.where(pool.log_probabilities > LEAST, pool.scores, NEVER),
        attention=tf.transpose(attention.stack(), (1, 2, 0, 3)) if search.attention else None,
        record=Record(*(tf.transpose(array.stack(), (1, 0, 2)) for array in search.record)) if search.record else None,
    )
