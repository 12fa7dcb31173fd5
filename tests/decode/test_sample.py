"""Sampling: which part of the distribution is drawn from, by hand and by counting; draws that batches do not change."""

import numpy as np
import pytest
import tensorflow as tf
from search_oracle import END, START, ScriptedModel, sequences, source_of

from dlkit.decode.decoder import Decoder
from dlkit.decode.greedy import greedy
from dlkit.decode.sample import sample, uniform_numbers
from dlkit.decode.step import Step
from dlkit.errors import UsageError

# Of tokens 0 (padding), 1, 2 (the end), 3, 4, 5, 6.
PROBABILITIES = np.array([0.1, 0.05, 0.15, 0.4, 0.2, 0.07, 0.03], np.float32)


def step(tokens, state, memory):
    shape = [*tokens.shape, len(PROBABILITIES)]
    return Step(tf.broadcast_to(np.log(PROBABILITIES), shape), state)


def first_tokens(uniforms, **options):
    """What is drawn first for each of the given numbers."""
    uniforms = tf.constant(uniforms, tf.float32, (1, len(uniforms), 2))
    decoded = sample(step, (), uniforms=uniforms, start_id=START, end_id=END, max_len=2, **options)
    return decoded.tokens[0, :, 0].numpy()


def shares(count=20_000, **options):
    """How often each token is drawn for evenly spread numbers."""
    spread = (np.arange(count) + 0.5) / count
    drawn = first_tokens(np.stack([spread, spread], axis=1), **options)
    return np.bincount(drawn, minlength=len(PROBABILITIES)) / count


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def expected_shares(*, temperature=1.0, kept):
    """The softmax of logits / temperature over the kept tokens, and nothing elsewhere."""
    shares = np.zeros(len(PROBABILITIES))
    shares[kept] = softmax(np.log(PROBABILITIES[kept].astype(np.float64)) / temperature)
    return shares


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"kept": [1, 2, 3, 4, 5, 6]}),  # padding is never said
        ({"temperature": 0.5}, {"temperature": 0.5, "kept": [1, 2, 3, 4, 5, 6]}),
        ({"temperature": 3.0}, {"temperature": 3.0, "kept": [1, 2, 3, 4, 5, 6]}),
        ({"top_k": 1}, {"kept": [3]}),
        ({"top_k": 3}, {"kept": [2, 3, 4]}),
        ({"top_k": 100}, {"kept": [1, 2, 3, 4, 5, 6]}),
        # Without padding the sums, from the best on, are 0.444, 0.667, 0.833, 0.911, 0.967, 1.
        ({"top_p": 0.4}, {"kept": [3]}),
        ({"top_p": 0.5}, {"kept": [3, 4]}),
        ({"top_p": 0.8}, {"kept": [2, 3, 4]}),
        ({"top_p": 0.85}, {"kept": [2, 3, 4, 5]}),
        ({"top_p": 1e-6}, {"kept": [3]}),
        # Of the best three the sums are 0.533, 0.8, 1: the nucleus is that of what top-k has left.
        ({"top_k": 3, "top_p": 0.75}, {"kept": [3, 4]}),
        ({"top_k": 3, "top_p": 0.85}, {"kept": [2, 3, 4]}),
        # Temperature comes first: at 0.5 the best has 0.16 / 0.2308 = 0.69 of the probability.
        ({"temperature": 0.5, "top_p": 0.65}, {"temperature": 0.5, "kept": [3]}),
        ({"min_len": 2}, {"kept": [1, 3, 4, 5, 6]}),
    ],
)
def test_shares_of_the_drawn_tokens(options, expected):
    np.testing.assert_allclose(shares(**options), expected_shares(**expected), atol=2e-4)


def test_the_ends_of_the_numbers_give_tokens_that_exist():
    numbers = np.array([[0.0, 0.0], [np.nextafter(np.float32(1), np.float32(0))] * 2], np.float32)
    assert first_tokens(numbers).tolist() == [1, 6]
    assert first_tokens(numbers, top_p=0.5).tolist() == [3, 4]


def test_log_probabilities_are_the_models_own():
    """Before temperature, top-k and top-p, so that they equal the score of the output."""
    model = ScriptedModel(rows=3, seed=1)
    decoder = Decoder(model)
    options = {"seed": 4, "lines": [0, 1, 2], "samples": 2, "max_len": 9}
    decoded = decoder.sample(source_of([0, 1, 2]), temperature=2.0, top_k=4, top_p=0.9, **options)
    for row in range(3):
        for place, tokens in enumerate(sequences(decoded, row)):
            expected = model.log_probability(row, tokens)
            np.testing.assert_allclose(decoded.log_probabilities[row, place], expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1e-30, 1e-38, 1e-300])  # the logits over it would be no numbers of float32
@pytest.mark.parametrize("options", [{}, {"top_k": 4}])
def test_a_temperature_next_to_0_takes_the_most_probable(temperature, options):
    assert shares(100, temperature=temperature, **options).tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_temperature_0_is_greedy():
    model = ScriptedModel(rows=4, seed=2)
    uniforms = uniform_numbers(seed=1, lines=range(4), samples=1, max_len=8)
    options = {"start_id": START, "end_id": END, "max_len": 8, "min_len": 3}
    state, memory = model.start(source_of(range(4)))
    drawn = sample(model.step, state, memory, uniforms=tf.constant(uniforms), temperature=0.0, **options)
    plain = greedy(model.step, state, memory, batch=4, **options)
    np.testing.assert_array_equal(drawn.tokens, plain.tokens)
    np.testing.assert_array_equal(drawn.log_probabilities, plain.log_probabilities)


@pytest.mark.parametrize("lines", [[2], [3, 1], [0, 1, 2, 3], [2, 2, 0]])
@pytest.mark.parametrize("max_len", [6, 11])
def test_a_lines_draws_depend_on_the_seed_and_its_index_alone(lines, max_len):
    decoder = Decoder(ScriptedModel(rows=4, seed=7, scale=0.5))
    whole = decoder.sample(source_of(range(4)), seed=3, lines=range(4), samples=3, max_len=11)
    part = decoder.sample(source_of(lines), seed=3, lines=lines, samples=2, max_len=np.array([max_len] * len(lines)))
    for row, line in enumerate(lines):
        for place in range(2):
            tokens = whole.tokens[line, place, : max_len - 1]
            np.testing.assert_array_equal(part.tokens[row, place, : max_len - 1], tokens)


def test_lines_samples_seeds_and_positions_draw_anew():
    numbers = uniform_numbers(seed=0, lines=range(50), samples=4, max_len=10)
    assert numbers.shape == (50, 4, 10)
    assert numbers.dtype == np.float32
    assert 0 <= numbers.min() < numbers.max() < 1
    assert len(np.unique(numbers)) > 1990  # of 2,000: hardly two are equal among 2 ** 24
    # 0.5 and 1 / 12, within four standard errors.
    assert abs(numbers.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 2000)
    assert abs(numbers.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 2000)
    again = uniform_numbers(seed=0, lines=[7], samples=2, max_len=6)
    np.testing.assert_array_equal(again[0], numbers[7, :2, :6])
    assert not np.any(uniform_numbers(seed=1, lines=range(50), samples=4, max_len=10) == numbers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": -1}, "top-k is -1"),
        ({"top_p": 0.0}, "top-p is 0.0"),
        ({"top_p": 1.1}, "top-p is 1.1"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(UsageError, match=message):
        first_tokens([[0.5, 0.5]], **options)


def test_an_end_token_in_a_prefix_ends_nothing():
    """Without padding the sums are 0.06, 0.22, 0.67, 0.89, 0.97, 1: 0.9 draws token 5, and 0.1 token 2, the end."""
    uniforms = tf.constant([[[0.9, 0.9, 0.9, 0.1], [0.0, 0.0, 0.1, 0.9]]])
    prefix = tf.constant([[END, 5]])
    decoded = sample(step, (), uniforms=uniforms, start_id=START, end_id=END, max_len=4, prefix=prefix)
    assert sequences(decoded, 0) == [(END, 5, 5, END), (END, 5, END)]
