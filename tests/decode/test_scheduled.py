"""Scheduled sampling, against a plain loop over a random Markov model whose state remembers all that it has read."""

import numpy as np
import pytest
import tensorflow as tf

from dlkit.decode.scheduled import mixed_inputs
from dlkit.decode.step import Step

VOCABULARY = 7
TABLE = np.random.default_rng(0).normal(0, 2, (VOCABULARY, VOCABULARY)).astype(np.float32)
# Start 1; rows of different lengths, padded with 0.
TARGET_IN = np.array([[1, 4, 5, 6, 3], [1, 6, 6, 0, 0], [1, 0, 0, 0, 0]], np.int32)


def step(tokens, state, memory):
    """What comes next depends on the token and on the sum of all that were read before, (batch, 1, 1)."""
    total = state + tf.cast(tokens, tf.float32)[..., tf.newaxis]
    return Step(tf.gather(memory, tokens) + tf.sin(total * tf.range(VOCABULARY, dtype=tf.float32)), total)


def expected(uniforms, probability):
    """The same by hand, token by token."""
    mixed = TARGET_IN.copy()
    for row in range(len(mixed)):
        total = 0.0
        for position in range(1, mixed.shape[1]):
            read = mixed[row, position - 1]
            total += read
            logits = TABLE[read] + np.sin(np.float32(total) * np.arange(VOCABULARY, dtype=np.float32))
            weights = np.exp(logits - logits.max())
            weights[0] = 0  # padding is never said
            sums = np.cumsum(weights / weights.sum())
            drawn = int(np.searchsorted(sums, uniforms[row, position, 1], side="right"))
            if mixed[row, position] != 0 and uniforms[row, position, 0] < probability:
                mixed[row, position] = drawn
    return mixed


@pytest.fixture(scope="module")
def mix():
    graph = tf.function(
        lambda target_in, probability, uniforms: mixed_inputs(
            step, tf.zeros((tf.shape(target_in)[0], 1, 1)), tf.constant(TABLE),
            target_in=target_in, probability=probability, uniforms=uniforms,
        ),
        input_signature=[
            tf.TensorSpec((None, None), tf.int32), tf.TensorSpec(()), tf.TensorSpec((None, None, 2)),
        ],
    )  # fmt: skip
    return lambda probability, uniforms: graph(TARGET_IN, probability, uniforms).numpy()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_own_words_are_read_where_the_coin_says_so(mix, seed, probability):
    uniforms = np.random.default_rng(seed).random((*TARGET_IN.shape, 2), np.float32)
    np.testing.assert_array_equal(mix(probability, uniforms), expected(uniforms, probability))


def test_probability_0_is_teacher_forcing(mix):
    uniforms = np.zeros((*TARGET_IN.shape, 2), np.float32)
    np.testing.assert_array_equal(mix(0.0, uniforms), TARGET_IN)


def test_the_start_and_padding_stay(mix):
    mixed = mix(1.0, np.random.default_rng(1).random((*TARGET_IN.shape, 2), np.float32))
    np.testing.assert_array_equal(mixed[:, 0], 1)
    np.testing.assert_array_equal(mixed[TARGET_IN == 0], 0)
    assert (mixed[TARGET_IN != 0] != 0).all()


def test_own_words_are_drawn_as_often_as_the_model_says(mix):
    """After the start token, over many rows: frequencies are the softmax of the logits, padding left out."""
    rows = 20_000
    uniforms = np.random.default_rng(2).random((rows, 2, 2), np.float32)
    target_in = np.tile(np.array([[1, 3]], np.int32), (rows, 1))
    mixed = mixed_inputs(
        step, tf.zeros((rows, 1, 1)), tf.constant(TABLE), target_in=target_in, probability=1.0, uniforms=uniforms
    ).numpy()
    logits = TABLE[1] + np.sin(np.arange(VOCABULARY))
    weights = np.exp(logits)
    weights[0] = 0
    share = np.bincount(mixed[:, 1], minlength=VOCABULARY) / rows
    np.testing.assert_allclose(share, weights / weights.sum(), atol=4 * 0.5 / rows**0.5)


def test_no_gradient_flows_through_a_draw():
    """The gradient of a training loss is that of the loss in which the drawn words are given as numbers.

    The loss reads the inputs as words and as numbers: were they not integers, a gradient could come through them.
    """
    uniforms = tf.constant(np.random.default_rng(3).random((*TARGET_IN.shape, 2), np.float32))
    table = tf.Variable(TABLE)

    def drawn():
        state = tf.zeros((len(TARGET_IN), 1, 1))
        return mixed_inputs(step, state, table, target_in=TARGET_IN, probability=0.9, uniforms=uniforms)

    def gradient(inputs):
        with tf.GradientTape() as tape:
            read = inputs()
            logits = tf.gather(table, tf.cast(read, tf.int32)) * tf.cast(read, tf.float32)[..., tf.newaxis]
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(TARGET_IN, logits))
        return tf.convert_to_tensor(tape.gradient(loss, table)).numpy()

    given = drawn().numpy()
    assert (given != TARGET_IN).any(), "some words are its own"
    np.testing.assert_allclose(gradient(drawn), gradient(lambda: tf.constant(given)), rtol=1e-6)
