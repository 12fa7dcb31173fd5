"""Several models as one: the mean of their probabilities, by hand and through a whole search."""

import numpy as np
import pytest
import tensorflow as tf
from search_oracle import ScriptedModel, lecture_search, sequences, source_of

from dlkit.decode.decoder import Decoder
from dlkit.decode.ensemble import Ensemble, mean_logits


class MeanModel(ScriptedModel):
    """The mean of two scripted models for the plain-Python search."""

    def __init__(self, models, rows):
        self.models, self.rows, self.vocabulary = models, rows, models[0].vocabulary

    def log_probabilities(self, row, prefix):
        each = [
            np.exp(model.log_probabilities(own[row], prefix)) for model, own in zip(self.models, self.rows, strict=True)
        ]
        return np.log(np.mean(each, axis=0))


def test_probabilities_are_averaged():
    first, second = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.1, 0.8])
    # A constant added to all logits of a model changes nothing.
    logits = [tf.constant(np.log(first) + 5, tf.float32), tf.constant(np.log(second) - 80, tf.float32)]
    np.testing.assert_allclose(np.exp(mean_logits(logits)), [0.4, 0.15, 0.45], rtol=1e-5)
    assert mean_logits(logits[:1]) is logits[0]


def test_of_bfloat16_logits_the_mean_is_taken_in_float32():
    logits = [tf.constant([1.0, 2.0], tf.bfloat16), tf.constant([3.0, 0.5], tf.bfloat16)]
    mean = mean_logits(logits)
    assert mean.dtype == tf.float32
    softmax = np.exp([[1, 2], [3, 0.5]]) / np.exp([[1, 2], [3, 0.5]]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(mean), softmax.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_search_with_a_source_for_each_model(beams):
    models = [ScriptedModel(rows=3, seed=1), ScriptedModel(rows=3, seed=2)]
    rows = [[0, 1, 2], [2, 0, 0]]
    sources = source_of(rows[0], 1), source_of(rows[1], 4)  # of different lengths, as two tokenizers give
    options = {"max_len": 7, "beams": beams, "n_best": beams}
    decoded = Decoder(models).beam(sources, attention=True, **options)
    mean = MeanModel(models, rows)
    for row in range(3):
        expected = lecture_search(mean, row, norm="avg", **options)
        assert sequences(decoded, row) == [tokens for _, _, tokens in expected]
        np.testing.assert_allclose(decoded.scores[row], [score for score, _, _ in expected], rtol=1e-5)
        tokens = sequences(decoded, row)[0]
        weights = [models[0].weights[row, models[0].code(tokens[:at])] for at in range(len(tokens))]
        np.testing.assert_array_equal(decoded.attention[row, 0, : len(tokens)], weights)


def test_one_source_serves_all_models():
    models = [ScriptedModel(rows=2, seed=1), ScriptedModel(rows=2, seed=2)]
    decoder = Decoder(models)
    one = decoder.greedy(source_of([0, 1]), max_len=6)
    both = decoder.greedy((source_of([0, 1]), source_of([0, 1])), max_len=6)
    np.testing.assert_array_equal(one.tokens, both.tokens)


def test_an_ensemble_of_equal_models_is_the_model():
    model = ScriptedModel(rows=2, seed=1)
    options = {"max_len": 6, "beams": 3}
    alone = Decoder(model).beam(source_of([0, 1]), **options)
    three = Decoder([model] * 3).beam(source_of([0, 1]), **options)
    np.testing.assert_array_equal(three.tokens, alone.tokens)
    np.testing.assert_allclose(three.scores, alone.scores, rtol=1e-5)


def test_each_model_moves_its_own_state():
    moved = []

    class Own(ScriptedModel):
        def reorder(self, state, parents):
            moved.append(self)
            return {"code": tf.gather(state["code"], parents, batch_dims=1)}

    own, plain = Own(seed=1), ScriptedModel(seed=2)
    state, _ = Ensemble([own, plain]).start(source_of([0]))
    three = Ensemble([own, plain]).reorder(state, tf.zeros((1, 3), tf.int32))
    assert moved == [own]
    assert [part["code"].shape for part in three] == [(1, 3), (1, 3)]
