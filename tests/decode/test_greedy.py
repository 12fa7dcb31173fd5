"""Greedy decoding of scripted logits: what comes out is known by hand."""

import numpy as np
import pytest
import tensorflow as tf

from dlkit.decode.greedy import greedy

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


def bigram_step(tokens, state):
    return tf.gather(tf.constant(np.log(BIGRAMS), tf.float32), tokens), state


def scripted_step(script):
    """Row i says the tokens `script[i]` in turn, each with log-probability near 0; the state counts the steps."""
    table = tf.one_hot(script, 6, on_value=50.0)  # (rows, steps, vocabulary)

    def step(tokens, state):
        rows, position = state["row"], state["position"]
        logits = tf.gather_nd(table, tf.stack([rows, tf.minimum(position, table.shape[1] - 1)], axis=1))
        return logits, {"row": rows, "position": position + 1}

    return step


def script_state(rows):
    return {"row": tf.constant(rows), "position": tf.zeros(len(rows), tf.int32)}


def decode(step, state, **options):
    return [part.numpy() for part in tf.function(greedy)(step, state, start_id=START, end_id=END, **options)]


def test_takes_the_most_probable_token_and_adds_up_log_probabilities():
    tokens, lengths, scores = decode(bigram_step, (), batch=2, max_len=6)
    assert tokens.tolist() == [[3, 4, 5, END, 0, 0]] * 2
    assert tokens.dtype == lengths.dtype == np.int32
    assert lengths.tolist() == [4, 4]
    np.testing.assert_allclose(scores, [np.log(0.6 * 0.5 * 0.4 * 0.7)] * 2, rtol=1e-6)
    assert scores.dtype == np.float32


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
    tokens, lengths, scores = decode(bigram_step, (), batch=1, max_len=max_len)
    assert tokens.tolist() == [expected]
    assert lengths.tolist() == [max_len]
    np.testing.assert_allclose(scores, [np.log(probability)], rtol=1e-5)


SCRIPT = [[3, END, 5, 5, 5, 5], [4, 4, 4, END, 5, 5], [END, 3, 3, 3, 3, 3], [5, 5, 5, 5, 5, 5]]
SAID = [[3, END, 0, 0, 0], [4, 4, 4, END, 0], [END, 0, 0, 0, 0], [5, 5, 5, 5, END]]


def test_rows_that_have_ended_are_frozen():
    tokens, lengths, scores = decode(scripted_step(SCRIPT), script_state([0, 1, 2, 3]), batch=4, max_len=5)
    assert tokens.tolist() == SAID
    assert lengths.tolist() == [2, 4, 1, 5]
    np.testing.assert_allclose(scores[:3], 0, atol=1e-6)
    np.testing.assert_allclose(scores[3], -50, rtol=1e-6)  # the end that row 3 does not say is 50 nats away


@pytest.mark.parametrize("rows", [[0], [2], [3, 1, 2], [1, 3, 0, 2], [2, 2, 0]])
def test_batch_mates_change_nothing(rows):
    tokens, lengths, scores = decode(scripted_step(SCRIPT), script_state(rows), batch=len(rows), max_len=5)
    assert tokens.tolist() == [SAID[row] for row in rows]
    together = decode(scripted_step(SCRIPT), script_state([0, 1, 2, 3]), batch=4, max_len=5)
    np.testing.assert_array_equal(lengths, together[1][rows])
    np.testing.assert_array_equal(scores, together[2][rows])


def test_an_ended_row_may_go_on_with_nonsense():
    say = scripted_step(SCRIPT)

    def step(tokens, state):
        logits, following = say(tokens, state)
        ended = (state["row"] == 2) & (state["position"] > 0)
        return tf.where(ended[:, tf.newaxis], np.nan, logits), following

    tokens, lengths, scores = decode(step, script_state([2, 1]), batch=2, max_len=5)
    assert tokens.tolist() == [SAID[2], SAID[1]]
    assert lengths.tolist() == [1, 4]
    np.testing.assert_allclose(scores, 0, atol=1e-6)


def test_stops_when_all_rows_have_ended():
    steps = tf.Variable(0)
    say = scripted_step(SCRIPT)

    def step(tokens, state):
        steps.assign_add(1)
        return say(tokens, state)

    decode(step, script_state([0, 2]), batch=2, max_len=100)
    assert steps.numpy() == 2


def test_is_one_loop_in_a_graph_that_serves_all_sizes():
    traces = []

    def step(tokens, state):
        traces.append(tokens.shape)
        return bigram_step(tokens, state)

    @tf.function(input_signature=[tf.TensorSpec((), tf.int32)] * 2)
    def decoded(batch, max_len):
        return greedy(step, (), batch=batch, start_id=START, end_id=END, max_len=max_len)

    for batch, max_len in ((1, 4), (3, 9)):
        tokens, lengths, _ = decoded(batch, max_len)
        assert tokens.shape == (batch, max_len)
        assert lengths.numpy().tolist() == [4] * batch
    assert len(traces) == 1
    operations = [operation.type for operation in decoded.get_concrete_function().graph.get_operations()]
    assert sum(kind in {"While", "StatelessWhile"} for kind in operations) == 1


def test_scores_are_float32_whatever_the_logits():
    def step(tokens, state):
        logits, state = bigram_step(tokens, state)
        return tf.cast(logits, tf.bfloat16), state

    scores = decode(step, (), batch=1, max_len=6)[2]
    assert scores.dtype == np.float32
    # The logits are rounded to 8 bits; their softmax and its sum are not.
    rounded = tf.cast(tf.cast(np.log(BIGRAMS), tf.bfloat16), tf.float64).numpy()
    exact = sum(rounded[i, j] - np.log(np.exp(rounded[i]).sum()) for i, j in [(1, 3), (3, 4), (4, 5), (5, 2)])
    np.testing.assert_allclose(scores, [exact], rtol=1e-5)
