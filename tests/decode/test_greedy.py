"""Greedy decoding of scripted logits: what comes out is known by hand."""

import numpy as np
import pytest
import tensorflow as tf
from search_oracle import ScriptedModel, source_of

from dlkit.decode.greedy import greedy
from dlkit.decode.step import Step

START, END = 1, 2
# After each token (row), the probability of the next one (column): 0 pad, 1 start, 2 end, 3 to 5 words.
BIGRAMS = np.array(
    [
        [0.20, 0.20, 0.20, 0.20, 0.10, 0.10],
        [0.01, 0.01, 0.08, 0.60, 0.20, 0.10],  # start -> 3
        [0.01, 0.01, 0.01, 0.90, 0.05, 0.02],  # end -> 3: what an ended row would go on with
        [0.02, 0.02, 0.16, 0.10, 0.50, 0.20],  # 3 -> 4
        [0.05, 0.05, 0.10, 0.10, 0.30, 0.40],  # 4 -> 5
        [0.10, 0.05, 0.70, 0.05, 0.05, 0.05],  # 5 -> end
    ]
)


def bigram_step(tokens, state, memory):
    return Step(tf.gather(tf.constant(np.log(BIGRAMS), tf.float32), tokens), state)


def scripted_step(script):
    """Row i says the tokens `script[i]` in turn, each with log-probability near 0; the state counts the steps."""
    table = tf.one_hot(script, 6, on_value=50.0)  # (rows, steps, vocabulary)

    def step(tokens, state, memory):
        position = tf.minimum(state, table.shape[1] - 1)
        return Step(tf.gather_nd(table, tf.stack([memory[:, tf.newaxis], position], axis=-1)), state + 1)

    return step


def script_state(rows):
    return tf.zeros((len(rows), 1), tf.int32), tf.constant(rows)


def decode(step, state=(), memory=(), **options):
    """Tokens (batch, max_len), lengths and log-probabilities (batch,)."""
    decoded = tf.function(greedy)(step, state, memory, start_id=START, end_id=END, **options)
    np.testing.assert_array_equal(decoded.scores, decoded.log_probabilities)
    return [part[:, 0].numpy() for part in (decoded.tokens, decoded.lengths, decoded.log_probabilities)]


def test_takes_the_most_probable_token_and_adds_up_log_probabilities():
    tokens, lengths, sums = decode(bigram_step, batch=2, max_len=6)
    assert tokens.tolist() == [[3, 4, 5, END, 0, 0]] * 2
    assert tokens.dtype == lengths.dtype == np.int32
    assert lengths.tolist() == [4, 4]
    np.testing.assert_allclose(sums, [np.log(0.6 * 0.5 * 0.4 * 0.7)] * 2, rtol=1e-6)
    assert sums.dtype == np.float32


@pytest.mark.parametrize(
    ("max_len", "expected", "probability"),
    [
        (3, [3, 4, END], 0.6 * 0.5 * 0.1),
        (2, [3, END], 0.6 * 0.16),
        (1, [END], 0.08),
        (4, [3, 4, 5, END], 0.6 * 0.5 * 0.4 * 0.7),
    ],
)
def test_the_end_is_forced_at_the_maximum_length_and_scored(max_len, expected, probability):
    tokens, lengths, sums = decode(bigram_step, batch=1, max_len=max_len)
    assert tokens.tolist() == [expected]
    assert lengths.tolist() == [max_len]
    np.testing.assert_allclose(sums, [np.log(probability)], rtol=1e-5)


def test_each_row_may_have_a_maximum_length_of_its_own():
    tokens, lengths, _ = decode(bigram_step, batch=3, max_len=tf.constant([2, 5, 1]))
    assert tokens.tolist() == [[3, END, 0, 0, 0], [3, 4, 5, END, 0], [END, 0, 0, 0, 0]]
    assert lengths.tolist() == [2, 4, 1]


@pytest.mark.parametrize(
    ("min_len", "expected"),
    [(4, [3, 4, 5, END, 0, 0]), (5, [3, 4, 5, START, 3, END]), (9, [3, 4, 5, START, 3, END])],
)
def test_the_end_is_not_said_before_the_minimum_length(min_len, expected):
    """After 5 the best that is neither the end nor padding is 1, 3, 4 or 5, all as probable: the lowest is taken."""
    tokens, lengths, sums = decode(bigram_step, batch=1, max_len=6, min_len=min_len)
    assert tokens.tolist() == [expected]
    steps = zip([START, *expected], expected[: lengths[0]], strict=False)
    np.testing.assert_allclose(sums, np.log([BIGRAMS[pair] for pair in steps]).sum(), rtol=1e-6)


def test_padding_is_never_said():
    def step(tokens, state, memory):
        return Step(tf.tile([[[9.0, 0.0, 0.0, 1.0]]], [1, 1, 1]), state)

    tokens, _, sums = decode(step, batch=1, max_len=3)
    assert tokens.tolist() == [[3, 3, END]]
    total = np.log(np.exp([9, 0, 0, 1]).sum())
    np.testing.assert_allclose(sums, (1 - total) * 2 + (0 - total), rtol=1e-6)


def test_a_prefix_is_forced_counted_and_scored():
    prefix = tf.constant([[5, 4], [4, 0], [0, 0], [END, 3]])
    tokens, lengths, sums = decode(bigram_step, batch=4, max_len=6, prefix=prefix)
    assert tokens.tolist() == [[5, 4, 5, END, 0, 0], [4, 5, END, 0, 0, 0], [3, 4, 5, END, 0, 0], [END, 3, 4, 5, END, 0]]
    assert lengths.tolist() == [4, 3, 4, 5], "what is forced ends nothing"
    expected = [0.1 * 0.05 * 0.4 * 0.7, 0.2 * 0.4 * 0.7, 0.6 * 0.5 * 0.4 * 0.7, 0.08 * 0.9 * 0.5 * 0.4 * 0.7]
    np.testing.assert_allclose(sums, np.log(expected), rtol=1e-5)


SCRIPT = [[3, END, 5, 5, 5, 5], [4, 4, 4, END, 5, 5], [END, 3, 3, 3, 3, 3], [5, 5, 5, 5, 5, 5]]
SAID = [[3, END, 0, 0, 0], [4, 4, 4, END, 0], [END, 0, 0, 0, 0], [5, 5, 5, 5, END]]


def test_rows_that_have_ended_are_frozen():
    tokens, lengths, sums = decode(scripted_step(SCRIPT), *script_state([0, 1, 2, 3]), batch=4, max_len=5)
    assert tokens.tolist() == SAID
    assert lengths.tolist() == [2, 4, 1, 5]
    np.testing.assert_allclose(sums[:3], 0, atol=1e-6)
    np.testing.assert_allclose(sums[3], -50, rtol=1e-6)  # the end that row 3 does not say is 50 nats away


@pytest.mark.parametrize("rows", [[0], [2], [3, 1, 2], [1, 3, 0, 2], [2, 2, 0]])
def test_batch_mates_change_nothing(rows):
    tokens, lengths, sums = decode(scripted_step(SCRIPT), *script_state(rows), batch=len(rows), max_len=5)
    assert tokens.tolist() == [SAID[row] for row in rows]
    together = decode(scripted_step(SCRIPT), *script_state([0, 1, 2, 3]), batch=4, max_len=5)
    np.testing.assert_array_equal(lengths, together[1][rows])
    np.testing.assert_array_equal(sums, together[2][rows])


def test_an_ended_row_may_go_on_with_nonsense():
    say = scripted_step(SCRIPT)

    def step(tokens, state, memory):
        made = say(tokens, state, memory)
        ended = (memory == 2)[:, tf.newaxis] & (state > 0)
        return made._replace(logits=tf.where(ended[..., tf.newaxis], np.nan, made.logits))

    tokens, lengths, sums = decode(step, *script_state([2, 1]), batch=2, max_len=5)
    assert tokens.tolist() == [SAID[2], SAID[1]]
    assert lengths.tolist() == [1, 4]
    np.testing.assert_allclose(sums, 0, atol=1e-6)


@pytest.mark.parametrize("banned", [-np.inf, np.nan])
def test_where_every_token_is_banned_the_end_is_forced(banned):
    def step(tokens, state, memory):
        made = bigram_step(tokens, state, memory)
        return made._replace(logits=tf.where((tokens == 4)[..., tf.newaxis], np.float32(banned), made.logits))

    tokens, lengths, sums = decode(step, batch=1, max_len=6)
    assert tokens.tolist() == [[3, 4, END, 0, 0, 0]]
    assert lengths.tolist() == [3]
    assert sums.tolist() == [-np.inf]


def test_stops_when_all_rows_have_ended():
    steps = tf.Variable(0)
    say = scripted_step(SCRIPT)

    def step(tokens, state, memory):
        steps.assign_add(1)
        return say(tokens, state, memory)

    decode(step, *script_state([0, 2]), batch=2, max_len=100)
    assert steps.numpy() == 2


def test_is_one_loop_in_a_graph_that_serves_all_sizes():
    traces = []

    def step(tokens, state, memory):
        traces.append(tokens.shape)
        return bigram_step(tokens, state, memory)

    @tf.function(input_signature=[tf.TensorSpec((), tf.int32)] * 2)
    def decoded(batch, max_len):
        return greedy(step, (), batch=batch, start_id=START, end_id=END, max_len=max_len)

    for batch, max_len in ((1, 4), (3, 9)):
        found = decoded(batch, max_len)
        assert found.tokens.shape == (batch, 1, max_len)
        assert found.lengths.numpy().tolist() == [[4]] * batch
    assert len(traces) == 1
    operations = [operation.type for operation in decoded.get_concrete_function().graph.get_operations()]
    assert sum(kind in {"While", "StatelessWhile"} for kind in operations) == 1


def test_scores_are_float32_whatever_the_logits():
    def step(tokens, state, memory):
        made = bigram_step(tokens, state, memory)
        return made._replace(logits=tf.cast(made.logits, tf.bfloat16))

    sums = decode(step, batch=1, max_len=6)[2]
    assert sums.dtype == np.float32
    # The logits are rounded to 8 bits; their softmax and its sum are not.
    rounded = tf.cast(tf.cast(np.log(BIGRAMS), tf.bfloat16), tf.float64).numpy()
    exact = sum(rounded[i, j] - np.log(np.exp(rounded[i]).sum()) for i, j in [(1, 3), (3, 4), (4, 5), (5, 2)])
    np.testing.assert_allclose(sums, [exact], rtol=1e-5)


def test_the_attention_of_each_token_comes_back():
    model = ScriptedModel(rows=3, seed=1)
    options = {"batch": 3, "start_id": START, "end_id": END, "max_len": 8, "attention": True}
    decoded = greedy(model.step, *model.start(source_of([0, 1, 2])), **options)
    assert decoded.attention.shape == (3, 1, 8, 3)
    for row in range(3):
        length = int(decoded.lengths[row, 0])
        tokens = decoded.tokens[row, 0, :length].numpy().tolist()
        expected = [model.weights[row, model.code(tokens[:at])] for at in range(length)]
        np.testing.assert_array_equal(decoded.attention[row, 0, :length], expected)
        assert not np.any(decoded.attention[row, 0, length:])
    assert len({int(length) for length in decoded.lengths[:, 0]}) > 1
