"""Beam search against all sequences there are, and against the lecture's words in plain Python."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from search_oracle import (
    END,
    START,
    ScriptedModel,
    every_sequence,
    lecture_search,
    ranked,
    sequences,
    source_of,
)

from dlkit.decode.beam import beam_search
from dlkit.decode.decoder import Decoder
from dlkit.decode.greedy import greedy
from dlkit.decode.step import Step
from dlkit.errors import UsageError

DECODER = Decoder(ScriptedModel(rows=8, seed=3, scale=3.0))
NORMS = ["avg", "gnmt", "none"]


def search(model, rows=(0,), **options):
    state, memory = model.start(source_of(rows))
    return beam_search(model.step, state, memory, batch=len(rows), start_id=START, end_id=END, **options)


def assert_equals(decoded, row, expected):
    """The hypotheses of a row are the expected (score, log-probability, tokens), in their order."""
    assert sequences(decoded, row) == [tokens for _, _, tokens in expected]
    count = len(expected)
    np.testing.assert_allclose(decoded.scores[row, :count], [score for score, _, _ in expected], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        decoded.log_probabilities[row, :count], [p for _, p, _ in expected], rtol=1e-5, atol=1e-6
    )
    assert np.all(np.asarray(decoded.scores[row, count:]) == -np.inf)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(5))
def test_full_width_finds_all_sequences_in_their_order(norm, seed):
    """1 + 3 + 9 + 27 outputs of at most 4 tokens, with the words 1, 3 and 4: a beam of 40 misses none."""
    model = ScriptedModel(vocabulary=5, seed=seed)
    outputs = list(every_sequence(5, 4))
    assert len(outputs) == 40
    decoded = search(model, max_len=4, beams=40, n_best=40, length_norm=norm)
    assert_equals(decoded, 0, ranked(model, 0, outputs, norm))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(5))
def test_full_width_finds_the_best_without_finding_all(norm, seed):
    """Here the bound may stop it early."""
    model = ScriptedModel(vocabulary=5, seed=seed)
    decoded = search(model, max_len=4, beams=40, n_best=1, length_norm=norm, alpha=1.3)
    assert_equals(decoded, 0, ranked(model, 0, every_sequence(5, 4), norm, alpha=1.3)[:1])


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.integers(4, 12),
    beams=st.integers(1, 6),
    max_len=st.integers(1, 9),
    norm=st.sampled_from(NORMS),
    min_len=st.integers(0, 4),
    patience=st.sampled_from([0.5, 1.0, 2.0, float("inf")]),
    prefix=st.lists(st.sampled_from([1, 3]), max_size=3),
    data=st.data(),
)
def test_equals_the_lecture_search_in_plain_python(
    seed, vocabulary, beams, max_len, norm, min_len, patience, prefix, data
):
    n_best = data.draw(st.integers(1, beams))
    model = ScriptedModel(rows=2, vocabulary=vocabulary, seed=seed, scale=data.draw(st.sampled_from([0.3, 1.0, 3.0])))
    options = {"beams": beams, "max_len": max_len, "n_best": n_best, "min_len": min_len, "patience": patience}
    forced = tf.constant([prefix] * 2, tf.int32, shape=(2, len(prefix)))
    decoded = search(model, (0, 1), length_norm=norm, prefix=forced, **options)
    for row in range(2):
        assert_equals(decoded, row, lecture_search(model, row, norm=norm, prefix=prefix, **options))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    max_len=st.integers(1, 12),
    norm=st.sampled_from(NORMS),
    min_len=st.integers(0, 5),
    prefix=st.lists(st.sampled_from([1, 3, 5]), max_size=3),
)
def test_one_beam_is_greedy(seed, max_len, norm, min_len, prefix):
    model = ScriptedModel(rows=4, seed=seed)
    options = {"max_len": max_len, "min_len": min_len, "prefix": tf.constant([prefix] * 4, tf.int32, (4, len(prefix)))}
    one = search(model, range(4), beams=1, length_norm=norm, attention=True, **options)
    state, memory = model.start(source_of(range(4)))
    plain = greedy(model.step, state, memory, batch=4, start_id=START, end_id=END, attention=True, **options)
    np.testing.assert_array_equal(one.tokens, plain.tokens)
    np.testing.assert_array_equal(one.lengths, plain.lengths)
    np.testing.assert_allclose(one.log_probabilities, plain.log_probabilities, rtol=1e-6)
    np.testing.assert_array_equal(one.attention, plain.attention)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 7), min_size=1, max_size=8), data=st.data())
def test_batch_size_order_and_mates_change_nothing(rows, data):
    norm = data.draw(st.sampled_from(NORMS))
    options = {"beams": 4, "n_best": 4, "max_len": 10, "length_norm": norm, "attention": True}
    together, alone = DECODER.beam(source_of(rows), **options), DECODER.beam(source_of(range(8)), **options)
    # exp and log differ in the last bit between places of a tensor.
    for field in ("tokens", "lengths", "attention"):
        np.testing.assert_array_equal(getattr(together, field), getattr(alone, field)[rows])
    for field in ("log_probabilities", "scores"):
        np.testing.assert_allclose(getattr(together, field), getattr(alone, field)[rows], rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_n_best_are_sorted_distinct_and_scored(norm):
    model = ScriptedModel(rows=3, seed=5)
    decoded = search(model, (0, 1, 2), beams=5, n_best=5, max_len=9, length_norm=norm)
    assert np.all(np.diff(decoded.scores, axis=1) <= 0)
    for row in range(3):
        outputs = sequences(decoded, row)
        assert len(set(outputs)) == 5
        for place, tokens in enumerate(outputs):
            assert tokens[-1] == END
            assert tokens.count(END) == 1
            assert not np.any(decoded.tokens[row, place, len(tokens) :])
            expected = model.log_probability(row, tokens)
            np.testing.assert_allclose(decoded.log_probabilities[row, place], expected, rtol=1e-5)


def test_each_row_may_have_a_maximum_length_of_its_own():
    model = ScriptedModel(rows=3, seed=8)
    decoded = search(model, (0, 1, 2), beams=3, n_best=3, max_len=tf.constant([3, 8, 1]))
    assert decoded.tokens.shape == (3, 3, 8)
    for row, max_len in enumerate([3, 8, 1]):
        assert_equals(decoded, row, lecture_search(model, row, beams=3, n_best=3, max_len=max_len, norm="avg"))


def test_each_row_may_have_a_prefix_of_its_own():
    model = ScriptedModel(rows=4, seed=2)
    prefixes = [(3, 4), (5,), (), (4, END)]
    forced = tf.constant([[3, 4], [5, 0], [0, 0], [4, END]])
    decoded = search(model, range(4), beams=3, n_best=3, max_len=6, prefix=forced)
    for row, prefix in enumerate(prefixes):
        expected = lecture_search(model, row, beams=3, n_best=3, max_len=6, norm="avg", prefix=prefix)
        assert_equals(decoded, row, expected)
    assert [tokens[:2] for tokens in sequences(decoded, 3)] == [(4, END)] * 3, "what is forced ends nothing"
    assert all(len(tokens) > 2 for tokens in sequences(decoded, 3))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("prefix", [(), (END,)])
def test_without_an_end_token_all_hypotheses_are_as_long_as_they_may_be(norm, prefix):
    """4 * 4 * 4 outputs of three tokens, the end token one of them: a beam of 64 misses none."""
    model = ScriptedModel(rows=2, vocabulary=5, seed=7)
    state, memory = model.start(source_of((0, 1)))
    decoded = beam_search(
        model.step, state, memory, batch=2, beams=64, n_best=64, start_id=START, end_id=None, max_len=3, min_len=9,
        length_norm=norm, prefix=tf.constant([prefix] * 2, tf.int32, (2, len(prefix))), attention=True, record=True,
    )  # fmt: skip
    outputs = [tokens for tokens in itertools.product(range(1, 5), repeat=3) if tokens[: len(prefix)] == prefix]
    for row in range(2):
        assert_equals(decoded, row, ranked(model, row, outputs, norm))
        best = sequences(decoded, row)[0]
        expected = [model.weights[row, model.code(best[:at])] for at in range(3)]
        np.testing.assert_array_equal(decoded.attention[row, 0], expected)
    fates = decoded.record.fates[0].numpy()
    assert [set(level[level > 0].tolist()) for level in fates] == [{1}, {1}, {2}]


@pytest.mark.parametrize("prefix", [(), (3, END)])
def test_without_an_end_token_one_beam_is_greedy(prefix):
    model = ScriptedModel(rows=4, seed=12)
    options = {
        "batch": 4, "start_id": START, "end_id": None, "max_len": tf.constant([2, 7, 5, 1]), "steps": 7,
        "prefix": tf.constant([prefix] * 4, tf.int32, (4, len(prefix))),
    }  # fmt: skip
    one, plain = (
        tf.function(find, jit_compile=True)(model.step, *model.start(source_of(range(4))), **options, **more)
        for find, more in ((beam_search, {"beams": 1}), (greedy, {}))
    )
    np.testing.assert_array_equal(one.tokens, plain.tokens)
    np.testing.assert_array_equal(one.lengths, [[2], [7], [5], [1]])
    np.testing.assert_allclose(one.log_probabilities, plain.log_probabilities, rtol=1e-6)


def test_attention_follows_the_hypotheses():
    model = ScriptedModel(rows=2, seed=4, source_time=5)
    decoded = search(model, (0, 1), beams=4, n_best=4, max_len=7, attention=True)
    assert decoded.attention.shape == (2, 4, 7, 5)
    moved = False
    for row in range(2):
        for place, tokens in enumerate(sequences(decoded, row)):
            expected = [model.weights[row, model.code(tokens[:at])] for at in range(len(tokens))]
            np.testing.assert_array_equal(decoded.attention[row, place, : len(tokens)], expected)
            assert not np.any(decoded.attention[row, place, len(tokens) :])
            moved |= len(tokens) > 2
    assert moved


def test_a_reorder_of_the_model_takes_the_place_of_gathering():
    """A state that is a table of ancestors, moved by the model: the results are those of a gathered state."""
    model = ScriptedModel(rows=2, seed=6)
    calls = []

    def reorder(state, parents):
        calls.append(parents.shape)
        return {"code": tf.gather(state["code"], parents, batch_dims=1)}

    options = {"beams": 3, "n_best": 3, "max_len": 6}
    plain, own = search(model, (0, 1), **options), search(model, (0, 1), reorder=reorder, **options)
    np.testing.assert_array_equal(plain.tokens, own.tokens)
    assert calls[0] == (2, 3)  # from one beam to three, before the first step


def test_all_settings_compile_to_one_loop_and_one_that_reads_off():
    model, traces = ScriptedModel(rows=4), []

    def step(*arguments):
        traces.append(arguments[0].shape)
        return model.step(*arguments)

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((), tf.int32)])
    def decoded(source, max_len):
        state, memory = model.start(source)
        options = {"batch": tf.shape(source)[0], "start_id": START, "end_id": END, "max_len": max_len}
        return beam_search(step, state, memory, beams=3, attention=True, record=True, **options)

    for rows, max_len in ((1, 4), (4, 9)):
        assert decoded(source_of(range(rows)), max_len).tokens.shape == (rows, 1, max_len)
    assert len(traces) == 1
    kinds = [operation.type for operation in decoded.get_concrete_function().graph.get_operations()]
    assert sum(kind in {"While", "StatelessWhile"} for kind in kinds) == 2


def test_stops_as_soon_as_nothing_better_can_come():
    """The end has probability 0.9 at once; one live hypothesis can reach 0.1 at most, whatever comes."""
    probabilities = np.array([0.0, 0.0, 0.9, 0.1], np.float32)
    steps = tf.Variable(0)

    def step(tokens, state, memory):
        steps.assign_add(1)
        return Step(tf.tile(np.log(probabilities + 1e-30)[None, None], [1, 2, 1]), state)

    options = {"batch": 1, "beams": 2, "start_id": START, "end_id": END, "max_len": 50}
    decoded = tf.function(beam_search)(step, (), length_norm="none", **options)
    assert steps.numpy() == 1
    assert sequences(decoded, 0) == [(END,)]
    # log(0.1) / 50 = -0.046 could still beat log(0.9) / 1 = -0.105: with the mean it has to go on. At step 2 the second
    # has ended, which is enough.
    steps.assign(0)
    tf.function(beam_search)(step, (), length_norm="avg", **options)
    assert steps.numpy() == 2


def test_the_record_holds_every_candidate_of_every_step():
    """Log-probabilities of all prefixes, by hand from the script; the fates from the words of the lecture."""
    model = ScriptedModel(seed=11)
    decoded = search(model, beams=2, n_best=2, max_len=5, record=True)
    record = decoded.record
    alive, seen = [()], set()
    for step in range(record.tokens.shape[1]):
        kept, ended = [], []
        columns = (part[0, step].numpy().tolist() for part in record)
        rows = [row for row in zip(*columns, strict=True) if row[3] != 0]
        assert rows
        assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
        for place, (token, parent, log_probability, fate) in enumerate(rows):
            prefix = (*alive[parent], token)
            np.testing.assert_allclose(log_probability, model.log_probability(0, prefix), rtol=1e-5)
            assert prefix not in seen
            seen.add(prefix)
            if token == END:
                assert fate == (2 if place < 2 else 3)
                ended += [prefix] if fate == 2 else []
            else:
                assert fate == (1 if len(kept) < 2 else 3)
                kept += [prefix] if fate == 1 else []
        alive = kept
    assert set(sequences(decoded, 0)) <= seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "0 beams"),
        ({"beams": 2, "n_best": 0}, "0 best"),
        ({"beams": 2, "length_norm": "mean"}, "unknown length normalization: mean"),
        ({"beams": 2, "alpha": -0.1}, "alpha is -0.1"),
        ({"beams": 2, "alpha": float("nan")}, "alpha is nan"),
        ({"beams": 2, "patience": 0.0}, "patience is 0.0"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(UsageError, match=message):
        search(ScriptedModel(), max_len=3, **options)
