"""The decoder of a real model: graphs, arrays in and out, and the exactness that users rely on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from search_oracle import END, ScriptedModel, forced_scores, sequences, source_of

from dlkit.decode.decoder import Decoder
from dlkit.models.seq2seq import seq2seq
from dlkit.models.seq2seq_attention import seq2seq_attention
from dlkit.models.transformer import transformer

SOURCES = [[5, 6, 7, 8, END], [9, END], [END], [4, 4, 6, END]]


def padded(rows, extra=0):
    length = max(map(len, rows)) + extra
    return np.array([[*row, *[0] * (length - len(row))] for row in rows], np.int32)


@pytest.fixture(scope="module", params=["seq2seq", "transformer"])
def decoder(request):
    keras.utils.set_random_seed(3)
    if request.param == "seq2seq":
        return Decoder(seq2seq(11, 12, width=8, init="gaussian:0.7"))
    return Decoder(transformer(11, 12, layers=1, width=8, ffn=8, heads=2, init="gaussian:0.7"))


def methods(decoder):
    return [
        lambda rows, lines, extra=0: decoder.greedy(padded(rows, extra), max_len=9),
        lambda rows, lines, extra=0: decoder.sample(padded(rows, extra), seed=1, lines=lines, samples=2, max_len=9),
        lambda rows, lines, extra=0: decoder.beam(padded(rows, extra), max_len=9, beams=3, n_best=3),
    ]


@pytest.mark.parametrize("method", [0, 1, 2], ids=["greedy", "sample", "beam"])
def test_batch_size_order_and_padding_change_nothing(decoder, method):
    decode = methods(decoder)[method]
    whole = decode(SOURCES, [0, 1, 2, 3])
    assert all(isinstance(part, np.ndarray) for part in whole[:4])
    for lines, extra in (([1], 0), ([3, 0, 2], 5), ([2, 2, 1, 0, 3] * 3, 1)):
        part = decode([SOURCES[line] for line in lines], lines, extra)
        np.testing.assert_array_equal(part.tokens, whole.tokens[lines])
        np.testing.assert_array_equal(part.lengths, whole.lengths[lines])
        np.testing.assert_allclose(part.scores, whole.scores[lines], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [0, 1, 2], ids=["greedy", "sample", "beam"])
def test_reported_log_probabilities_are_the_score_of_the_output(decoder, method):
    decoded = methods(decoder)[method](SOURCES, [0, 1, 2, 3])
    for place in range(decoded.tokens.shape[1]):
        scores = decoder.score(padded(SOURCES), decoded.tokens[:, place])
        np.testing.assert_allclose(scores.sum(axis=1), decoded.log_probabilities[:, place], rtol=1e-4)


def test_an_empty_source_decodes(decoder):
    decoded = decoder.beam(padded([[END]]), max_len=5, beams=3, n_best=3)
    assert [tokens[-1] for tokens in sequences(decoded, 0)] == [END] * 3
    assert np.isfinite(decoded.scores).all()


def test_teacher_forcing_scores_as_the_steps_do(decoder):
    targets = padded([[4, 5, END], [6, END], [7, 8, 9, END], [END]])
    (model,) = decoder.models
    steps = forced_scores(model, padded(SOURCES), targets)
    np.testing.assert_allclose(decoder.score(padded(SOURCES), targets), steps, rtol=1e-4, atol=1e-5)


def test_one_graph_for_each_setting_whatever_the_shape():
    traces = []

    class Counting(ScriptedModel):
        def step(self, *arguments):
            traces.append(1)
            return super().step(*arguments)

    decoder = Decoder(Counting(rows=4))
    for rows, time, max_len in (([0], 1, 3), ([0, 1, 2], 5, 9), ([3, 1], 2, 4)):
        decoder.beam(source_of(rows, time), max_len=max_len, beams=2)
    assert len(traces) == 1
    decoder.beam(source_of([0]), max_len=3, beams=3)
    assert len(traces) == 2
    decoder.beam(source_of([0]), max_len=3, beams=3, prefix=np.array([[3]]))
    assert len(traces) == 3
    decoder.greedy(source_of([0]), max_len=3)
    decoder.greedy(source_of([1, 2]), max_len=np.array([3, 8]))
    assert len(traces) == 4


def test_a_compiled_search_finds_the_same():
    """A row and some columns are made up to fill its shape, and leave no trace; limits are of each row."""
    keras.utils.set_random_seed(3)
    sharp = {"width": 8, "init": "gaussian:0.7"}
    # Caches that would grow, with positions that end; and a state whose shapes stay. Sources of their own.
    ending = {"positions": "learned", "max_length": 9}
    models = [transformer(11, 12, layers=1, ffn=8, heads=2, **ending, **sharp), seq2seq_attention(11, 12, **sharp)]
    rows = [SOURCES[line] for line in (0, 1, 3)]
    source = [padded(rows), padded(rows, extra=2)]
    settings = {
        "beams": 3, "n_best": 2, "max_len": np.array([9, 4, 7], np.int32), "min_len": 3, "length_norm": "gnmt",
        "prefix": np.array([[5, 6], [7, 0], [0, 0]]), "attention": True,
    }  # fmt: skip
    plain = Decoder(models).beam(source, **settings)
    compiled = Decoder(models, compile_after=0).beam(source, **settings)
    np.testing.assert_array_equal(compiled.tokens, plain.tokens)
    np.testing.assert_array_equal(compiled.lengths, plain.lengths)
    np.testing.assert_allclose(compiled.scores, plain.scores, rtol=1e-4)
    np.testing.assert_allclose(compiled.log_probabilities, plain.log_probabilities, rtol=1e-4)
    np.testing.assert_allclose(compiled.attention, plain.attention, atol=1e-4)
    assert compiled.record is plain.record is None


def test_what_comes_often_is_compiled():
    class Noting(Decoder):
        def _run(self, function, setting, *arguments, compiled=False):
            noted.append((len(arguments[0]), compiled))
            return super()._run(function, setting, *arguments)  # uncompiled, to be fast

    noted = []
    plain, decoder = Decoder(ScriptedModel(rows=5)), Noting(ScriptedModel(rows=5), compile_after=2)
    for rows in (3, 3, 4, 1, 3, 1, 5):  # 3 and 4 rows have one shape
        source = source_of(range(rows), rows)
        decoded, expected = (one.beam(source, max_len=8, beams=2) for one in (decoder, plain))
        np.testing.assert_array_equal(decoded.tokens, expected.tokens)
    assert noted == [(3, False), (3, False), (4, True), (1, False), (4, True), (1, False), (5, False)]
    source = source_of(range(3), 3)
    decoder.beam(source, max_len=17, beams=2)  # room for more
    decoder.beam(source, max_len=8, beams=1)
    decoder.beam(source, max_len=8, beams=2, record=True)
    decoder.greedy(source, max_len=8)
    assert noted[-4:] == [(3, False)] * 4


class Parts(Decoder):
    """Notes how many rows come together."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.rows = []

    def _run(self, function, setting, source, *rest, **options):
        self.rows.append(len(source[0] if isinstance(source, list | tuple) else source))
        return super()._run(function, setting, source, *rest, **options)


def same(found, expected):
    """Up to the rounding of sums, which may change with the shape."""
    for ours, theirs in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_workers_decode_parts_of_a_batch():
    rows = 13
    source, prefix = source_of(range(rows), 4), np.repeat([[3, 4]], rows, axis=0).astype(np.int32)
    model = ScriptedModel(rows, source_time=4)
    whole, parts = Decoder(model), Parts(model, workers=3)
    draw = {"seed": 2, "lines": range(rows), "samples": 2}
    for decode in (
        lambda decoder: decoder.greedy(source, max_len=6, prefix=prefix),
        lambda decoder: decoder.sample(source, max_len=6, attention=True, **draw),
        lambda decoder: decoder.beam(source, max_len=6, beams=3, n_best=2, prefix=prefix, attention=True, record=True),
    ):
        same(decode(parts), decode(whole))
        assert sorted(parts.rows) == [4, 4, 5]
        parts.rows.clear()


def test_parts_are_no_smaller_than_what_is_worth_it_and_rows_with_limits_of_their_own_stay_together():
    model = ScriptedModel(11)
    whole, parts = Decoder(model), Parts(model, workers=8)
    for rows, max_len, divided in ((11, 6, [5, 6]), (7, 6, [7]), (11, np.arange(1, 12), [11])):
        source = source_of(range(rows))
        same(parts.beam(source, max_len=max_len, beams=2), whole.beam(source, max_len=max_len, beams=2))
        assert sorted(parts.rows) == divided
        parts.rows.clear()


def test_workers_search_compiled_parts():
    source = source_of(range(8), 3)
    parts = Parts(ScriptedModel(8), workers=2, compile_after=0)
    found, expected = (decoder.beam(source, max_len=5, beams=2) for decoder in (parts, Decoder(ScriptedModel(8))))
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    assert parts.rows == [4, 4]


def test_workers_score_parts_with_a_source_for_each_model():
    keras.utils.set_random_seed(3)
    models = [seq2seq(11, 12, width=8), seq2seq(11, 12, width=8)]
    rows = SOURCES * 2
    sources, targets = [padded(rows), padded(rows, extra=2)], padded([[4, 5, END], [6, END]] * 4)
    parts = Parts(models, workers=2)
    expected = Decoder(models).score(sources, targets)
    np.testing.assert_allclose(parts.score(sources, targets), expected, rtol=1e-5)
    assert parts.rows == [4, 4]


def test_the_model_is_told_the_longest_output():
    told = []

    class Told(ScriptedModel):
        def start(self, source, *, max_len=0):
            tf.py_function(lambda value: told.append(int(value)), [max_len], [])
            return super().start(source)

    decoder = Decoder(Told(rows=2))
    decoder.beam(source_of([0, 1]), max_len=np.array([3, 7]), beams=2)
    decoder.greedy(source_of([0, 1]), max_len=5)
    decoder.sample(source_of([0]), seed=0, lines=[0], max_len=4)
    assert told == [7, 5, 4]
