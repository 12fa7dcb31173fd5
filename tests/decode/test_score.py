"""Scores of given outputs, against NumPy; equal to what a search says of its own output."""

import numpy as np
import pytest
import tensorflow as tf
from search_oracle import END, START, ScriptedModel, forced_scores, sequences, source_of

from dlkit.decode.decoder import Decoder
from dlkit.decode.score import target_scores

TARGETS = np.array([[3, 4, END, 0, 0], [5, 1, 3, 4, END], [END, 0, 0, 0, 0]], np.int32)


def expected(model):
    scores = np.zeros(TARGETS.shape)
    for row, tokens in enumerate(TARGETS):
        for at in range(np.count_nonzero(tokens)):
            scores[row, at] = model.log_probabilities(row, tokens[:at].tolist())[tokens[at]]
    return scores


def teacher_forcing(model):
    """The scripted model as one that is called: logits of all positions from all true tokens."""

    def call(inputs):
        _, target_in = inputs
        prefixes = [[row[1 : at + 1].tolist() for at in range(len(row))] for row in target_in.numpy()]
        rows = [[model.table[row, model.code(prefix)] for prefix in line] for row, line in enumerate(prefixes)]
        return tf.constant(np.array(rows))

    return call


def test_from_the_logits_of_teacher_forcing():
    logits = np.random.default_rng(0).standard_normal((3, 5, 7))
    scores = target_scores(tf.constant(logits, tf.bfloat16), tf.constant(TARGETS))
    rounded = tf.cast(tf.constant(logits, tf.bfloat16), tf.float64).numpy()
    log_probabilities = rounded - np.log(np.exp(rounded).sum(axis=-1, keepdims=True))
    by_hand = np.take_along_axis(log_probabilities, TARGETS[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(scores, np.where(TARGETS != 0, by_hand, 0), rtol=1e-5)


def test_the_decoder_feeds_the_start_token_and_the_true_tokens():
    model, fed = ScriptedModel(rows=3, seed=1), []

    def call(inputs):
        fed.append(inputs[1])
        return teacher_forcing(model)(inputs)

    tf.config.run_functions_eagerly(True)
    try:
        scores = Decoder(call).score(source_of([0, 1, 2]), TARGETS)
    finally:
        tf.config.run_functions_eagerly(False)
    assert fed[0].numpy().tolist() == [[START, 3, 4, 0, 0], [START, 5, 1, 3, 4], [START, 0, 0, 0, 0]]
    assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(scores, expected(model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["avg", "none"])
def test_what_a_search_reports_is_the_score_of_its_output(norm):
    model = ScriptedModel(rows=4, seed=5)
    decoded = Decoder(model).beam(source_of(range(4)), max_len=8, beams=4, n_best=4, length_norm=norm)
    for place in range(4):
        scores = forced_scores(model, source_of(range(4)), decoded.tokens[:, place])
        np.testing.assert_allclose(scores.sum(axis=1), decoded.log_probabilities[:, place], rtol=1e-5)
        counted = [len(sequences(decoded, row)[place]) for row in range(4)]
        assert np.count_nonzero(scores, axis=1).tolist() == counted
