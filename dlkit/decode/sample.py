"""Decoding by drawing tokens from the model's distribution, or from the better part of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.decode.greedy import generate
from dlkit.decode.step import Decoded, Reorder, StepFunction, gather_beams
from dlkit.errors import UsageError

# A temperature below counts as this: logits divided by it are still numbers of float32, and the best is sure enough.
COLDEST = 1e-30


def sample(
    step: StepFunction,
    state: Any,
    memory: Any = (),
    *,
    uniforms: tf.Tensor,
    start_id: int,
    end_id: int | None,
    max_len: int | tf.Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_len: int = 0,
    prefix: tf.Tensor | None = None,
    attention: bool = False,
    reorder: Reorder = gather_beams,
    steps: int | None = None,
) -> Decoded:
    """Draws each token from the distribution that the model gives it.

    First the logits are divided by `temperature`, then the `top_k` best tokens are kept, and of these the smallest set
    whose probability is at least `top_p` (the nucleus of Holtzman et al. 2020, section 3.1). The log-probabilities that
    come back are the model's own, before all that.

    Nothing random is in here: each draw takes one of the given numbers, by inverting the cumulative distribution, so
    what a row becomes depends on its own numbers alone.

    Args:
        step: see `dlkit.decode.step`.
        state: nest of tensors (batch, 1, ...).
        memory: nest of tensors (batch, ...).
        uniforms: (batch, n, max_len) float32 in [0, 1), of `uniform_numbers`: n is how many sequences each row gets.
        start_id: the token that the first step is given.
        end_id: see `greedy`.
        max_len: most tokens, the end token included; a scalar, or (batch,).
        temperature: 0 takes the most probable token always, 1 leaves the distribution, more makes it flatter.
        top_k: how many tokens are kept; 0 for all.
        top_p: the probability to keep, above 0; 1 for all.
        min_len: see `greedy`.
        prefix: see `greedy`.
        attention: see `greedy`.
        reorder: see `dlkit.decode.step`.
        steps: see `greedy`.

    Raises:
        dlkit.errors.UsageError: temperature, top_k or top_p is out of range.

    Example:
        >>> uniforms = uniform_numbers(seed=7, lines=range(8), samples=1, max_len=20)
        >>> sample(model.step, *model.start(source), uniforms=uniforms, start_id=1, end_id=2, max_len=20, top_p=0.9)
    """
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"the temperature is {temperature}, and it has to be at least 0", "0.7 is a usual one")
    if top_k < 0:
        raise UsageError(f"top-k is {top_k}, and it has to be at least 0", "0 keeps all tokens")
    if not 0 < top_p <= 1:
        raise UsageError(f"top-p is {top_p}, and it has to be above 0 and at most 1", "0.9 is a usual one")
    batch, beams = tf.shape(uniforms)[0], uniforms.shape[1]

    def draw(logits: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        if temperature == 0:
            return tf.argmax(logits, axis=-1, output_type=tf.int32)
        logits /= max(temperature, COLDEST)
        if not top_k and top_p == 1:
            return invert(tf.nn.softmax(logits), uniforms[:, :, position])
        kept = min(top_k or logits.shape[-1], logits.shape[-1])
        values, tokens = tf.math.top_k(logits, kept)  # in falling order
        probabilities = tf.nn.softmax(values)
        before = tf.cumsum(probabilities, axis=-1, exclusive=True)
        probabilities = tf.where((before < top_p) | (tf.range(kept) == 0), probabilities, 0.0)
        return tf.gather(tokens, invert(probabilities, uniforms[:, :, position]), batch_dims=2)

    state = reorder(state, tf.zeros([batch, beams], tf.int32))
    return generate(
        step, state, memory, choose=draw, batch=batch, beams=beams, start_id=start_id, end_id=end_id, max_len=max_len,
        min_len=min_len, prefix=prefix, attention=attention, steps=steps,
    )  # fmt: skip


def invert(weights: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """The index at which a share of `uniforms` of the weights is passed; never one whose weight is 0.

    Args:
        weights: (..., vocabulary), at least 0, not all 0.
        uniforms: (...), in [0, 1).
    """
    # float64: in float32 the sum of 32,000 small numbers is too coarse, and `uniforms` times it may reach it.
    sums = tf.cumsum(tf.cast(weights, tf.float64), axis=-1)
    passed = tf.cast(uniforms, tf.float64)[..., tf.newaxis] * sums[..., -1:]
    return tf.reduce_sum(tf.cast(sums <= passed, tf.int32), axis=-1)


def uniform_numbers(*, seed: int, lines: Sequence[int], samples: int, max_len: int) -> NDArray[np.float32]:
    """Numbers for `sample`: each depends on (seed, line, sample, position) alone.

    So a line's samples do not change with the lines beside it, with how many samples are drawn or with `max_len`.

    Args:
        seed: at least 0.
        lines: for each row the index of its line in the whole input.
        samples: sequences for each row.
        max_len: positions.

    Returns:
        (rows, samples, max_len), in [0, 1).
    """
    numbers = np.empty((len(lines), samples, max_len), np.float32)
    for row, line in enumerate(lines):
        for place in range(samples):
            numbers[row, place] = np.random.default_rng([seed, line, place]).random(max_len, np.float32)
    return numbers
