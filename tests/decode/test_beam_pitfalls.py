"""What went wrong in the beam searches of others, one test for each, with probabilities that are easy to follow."""

import numpy as np
import pytest
import tensorflow as tf
from search_oracle import END, START, ScriptedModel, sequences, source_of

from dlkit.decode.beam import beam_search
from dlkit.decode.decoder import Decoder
from dlkit.decode.step import Step
from dlkit.errors import UsageError

A, B = 3, 4
IMPOSSIBLE = 0.0


def bigrams(table, vocabulary=5):
    """A step function from {last token: {next token: probability}}; what is not there is impossible."""
    probabilities = np.zeros((vocabulary, vocabulary), np.float32)
    for last, following in table.items():
        for token, probability in following.items():
            probabilities[last, token] = probability
    with np.errstate(divide="ignore"):
        logits = tf.constant(np.log(probabilities))
    return lambda tokens, state, memory: Step(tf.gather(logits, tokens), state)


def search(table, *, rows=1, vocabulary=5, **options):
    step = bigrams(table, vocabulary)
    return beam_search(step, (), batch=rows, start_id=START, end_id=END, **{"beams": 2, "max_len": 6, **options})


# A beam of two sees the end at once with 0.5; the long way has 0.4 and then certainty.
LATE = {START: {END: 0.5, A: 0.4, B: 0.1}, A: {B: 1.0}, B: {END: 1.0}}


def test_results_that_change_with_batch_size_or_padding():
    """Row 0 is done after a step; its mates go on for long. More padding is more columns of the source."""
    model = ScriptedModel(rows=4, seed=9, scale=3.0)
    model.table[0, :, END] += 10
    options = {"max_len": 12, "beams": 3, "n_best": 3}
    decoder = Decoder(model)
    alone = decoder.beam(source_of([0]), **options)
    for rows, time in (([0, 1, 2, 3], 1), ([3, 0], 7), ([0], 30)):
        together = decoder.beam(source_of(rows, time), **options)
        np.testing.assert_array_equal(together.tokens[rows.index(0)], alone.tokens[0])
        np.testing.assert_allclose(together.scores[rows.index(0)], alone.scores[0], rtol=1e-6)
    assert decoder.beam(source_of([3]), **options).lengths.max() > alone.lengths.max()


def test_stopping_at_the_first_end_token_under_normalization():
    """log(0.5) / 1 = -0.69, log(0.4) / 3 = -0.31: the later one is better, and without normalization the earlier."""
    assert sequences(search(LATE, length_norm="avg"), 0) == [(A, B, END)]
    assert sequences(search(LATE, length_norm="none"), 0) == [(END,)]


def test_dividing_all_beams_by_one_length():
    """Two hypotheses end at different steps; each is divided by its own length."""
    decoded = search(LATE, n_best=2, length_norm="avg")
    assert sequences(decoded, 0) == [(A, B, END), (END,)]
    np.testing.assert_allclose(decoded.scores[0], [np.log(0.4) / 3, np.log(0.5)], rtol=1e-6)
    gnmt = search(LATE, n_best=2, length_norm="gnmt", alpha=0.8)
    np.testing.assert_allclose(
        sorted(gnmt.scores[0]), sorted([np.log(0.4) / (8 / 6) ** 0.8, np.log(0.5) / (6 / 6) ** 0.8]), rtol=1e-6
    )


def test_counting_the_end_token():
    decoded = search({START: {A: 1.0}, A: {END: 0.5, B: 0.5}, B: {END: 1.0}}, n_best=2)
    assert sequences(decoded, 0) == [(A, B, END), (A, END)]
    assert decoded.lengths[0].numpy().tolist() == [3, 2]
    np.testing.assert_allclose(decoded.scores[0], [np.log(0.5) / 3, np.log(0.5) / 2], rtol=1e-6)


def test_scores_that_go_on_growing_after_the_end_token():
    """After the end this model would go on to say anything, with log-probabilities below 0."""
    table = {START: {END: 0.9, A: 0.1}, END: {A: 0.5, END: 0.5}, A: {A: 0.9, END: 0.1}}
    for max_len in (2, 5, 20):
        decoded = search(table, length_norm="none", max_len=max_len)
        assert sequences(decoded, 0) == [(END,)]
        np.testing.assert_allclose(decoded.log_probabilities[0], [np.log(0.9)], rtol=1e-6)


@pytest.mark.parametrize("end", [0.01, IMPOSSIBLE])
def test_returning_nothing_at_the_maximum_length(end):
    """Nothing ever ends by itself. The forced end is scored, even where the model gives it no chance."""
    decoded = search({START: {A: 1 - end, END: end}, A: {A: 1 - end, END: end}}, beams=1, max_len=4)
    assert sequences(decoded, 0) == [(A, A, A, END)]
    expected = 3 * np.log(1 - end) + np.log(end) if end else -np.inf
    np.testing.assert_allclose(decoded.log_probabilities[0], [expected], rtol=1e-5)


@pytest.mark.parametrize("vocabulary", [3, 4, 5])
def test_a_vocabulary_smaller_than_2k(vocabulary):
    """With 3 there is nothing to say but the end and the start token."""
    table = {token: dict.fromkeys(range(1, vocabulary), 1 / (vocabulary - 1)) for token in range(1, vocabulary)}
    decoded = search(table, vocabulary=vocabulary, beams=8, n_best=8, max_len=3)
    outputs = sequences(decoded, 0)
    words = vocabulary - 2
    assert len(outputs) == len(set(outputs)) == min(8, 1 + words + words**2)
    expected = [-np.log(vocabulary - 1) * len(output) for output in outputs]
    np.testing.assert_allclose(decoded.log_probabilities[0, : len(outputs)], expected, rtol=1e-6)


@pytest.mark.parametrize("beams", [1, 3])
def test_all_candidates_banned(beams):
    """After A nothing is possible. With a way round it is taken, without one the end is forced where it stands."""
    stuck = search({START: {A: 1.0}}, beams=beams)
    assert sequences(stuck, 0) == [(A, END)]
    assert stuck.scores.numpy().tolist() == [[-np.inf]]
    if beams > 1:
        way_round = search({START: {A: 0.9, B: 0.1}, B: {END: 1.0}}, beams=beams, n_best=2)
        assert sequences(way_round, 0) == [(B, END)]
        np.testing.assert_allclose(way_round.log_probabilities[0], [np.log(0.1), -np.inf], rtol=1e-6)
    only_the_end = search({START: {END: 1.0}}, beams=beams, min_len=3)
    assert sequences(only_the_end, 0) == [(END,)]
    np.testing.assert_allclose(only_the_end.log_probabilities[0], [0], atol=1e-6)


def test_logits_that_are_not_finite():
    def step(tokens, state, memory):
        return Step(tf.fill([2, 3, 7], np.float32(np.nan)), state)

    decoded = beam_search(step, (), batch=2, beams=3, n_best=3, start_id=START, end_id=END, max_len=4)
    assert sequences(decoded, 0) == sequences(decoded, 1) == [(END,)]
    assert np.all(decoded.scores.numpy() == -np.inf)


def test_n_best_larger_than_the_beam():
    with pytest.raises(UsageError, match="3 best hypotheses of 2 beams") as failure:
        search(LATE, n_best=3)
    assert "--beam 3" in failure.value.hint
