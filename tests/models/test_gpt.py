"""GPT against its equations in NumPy; and that step by step it says what it says of a whole text."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import dlkit
from dlkit.probe.record import unallocated

VOCABULARY, LENGTH = 11, 4
erf = np.vectorize(math.erf)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    built = dlkit.build(
        "gpt", vocabulary=VOCABULARY, layers=2, width=8, heads=2, max_length=LENGTH, init="gaussian:0.4"
    )
    for variable in built.variables:  # scales of norms, which are all 1
        if len(variable.shape) == 1:
            variable.assign(np.linspace(0.5, 1.5, variable.shape[0]))
    return built


def norm(x, scale):
    return scale * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def reference(model, ids):
    """Logits (time, vocabulary) of one sequence, from the weights."""
    weights = {variable.path.removeprefix("gpt/"): variable.numpy().astype(np.float64) for variable in model.variables}
    words = weights["embedding/embeddings"]
    x = words[ids] + weights["positions/embeddings"][: len(ids)]
    for at in ("block1", "block2"):
        projected = norm(x, weights[f"{at}_norm1/gamma"]) @ weights[f"{at}_self_attention/query_key_value_kernel"]
        q, k, v = np.split(projected, 3, axis=1)
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = np.exp(np.where(np.tri(len(ids), dtype=bool), q[:, head] @ k[:, head].T / 2, -np.inf))
            heads.append(scores / scores.sum(1, keepdims=True) @ v[:, head])
        x = x + np.concatenate(heads, 1) @ weights[f"{at}_self_attention/output_kernel"]
        hidden = norm(x, weights[f"{at}_norm2/gamma"]) @ weights[f"{at}_ffn1/kernel"]
        x = x + (hidden * (1 + erf(hidden / math.sqrt(2))) / 2) @ weights[f"{at}_ffn2/kernel"]
    return norm(x, weights["norm/gamma"]) @ words.T


def test_logits_are_those_of_the_equations(model):
    ids = np.array([[3, 1, 4, 1], [5, 9, 2, 6]])
    found = model(ids).numpy()
    for row, sequence in zip(found, ids, strict=True):
        np.testing.assert_allclose(row, reference(model, sequence), rtol=1e-4, atol=1e-4)


def test_no_position_sees_what_comes_after_it(model):
    ids = np.array([[3, 1, 4, 1]])
    other = np.array([[3, 1, 7, 8]])
    np.testing.assert_array_equal(model(ids)[:, :2], model(other)[:, :2])
    assert not np.allclose(model(ids)[:, 2], model(other)[:, 2])


def test_beams_that_move_say_step_by_step_what_the_whole_text_says(model):
    state, memory = model.start(np.zeros((1, 0), np.int32))
    state = model.reorder(state, tf.zeros((1, 2), tf.int32))
    histories = [[], []]
    for tokens, parents in (([3, 5], [0, 1]), ([1, 9], [1, 0]), ([4, 2], [1, 1]), ([1, 6], [0, 1])):
        state = model.reorder(state, tf.constant([parents]))
        histories = [[*histories[parent], token] for parent, token in zip(parents, tokens, strict=True)]
        made = model.step(tf.constant([tokens]), state, memory)
        state = made.state
        for beam, before in enumerate(histories):
            np.testing.assert_allclose(made.logits[0, beam], reference(model, before)[-1], rtol=1e-4, atol=1e-4)


def test_beyond_its_positions_it_goes_on_after_the_later_half_of_them(model):
    """Seven steps of two beams that change places, compiled, with a cache for four."""
    random = np.random.default_rng(0)
    tokens, parents = random.integers(4, VOCABULARY, (7, 1, 2)), random.integers(0, 2, (7, 1, 2))

    @tf.function(jit_compile=True, autograph=False)
    def run(tokens, parents):
        state, memory = model.start(tf.zeros((1, 0), tf.int32))
        state, memory = model.with_room(state, memory, steps=7, beams=2)
        state = model.reorder(state, tf.zeros((1, 2), tf.int32))
        found = []
        for step in range(7):
            made = model.step(tokens[step], model.reorder(state, parents[step]), memory)
            state = made.state
            found.append(made.logits)
        return tf.stack(found)

    found = run(tf.constant(tokens, tf.int32), tf.constant(parents, tf.int32)).numpy()
    contexts = [[], []]
    for step in range(7):
        contexts = [contexts[parent] for parent in parents[step, 0]]
        contexts = [
            [*(context[LENGTH // 2 :] if len(context) == LENGTH else context), token]
            for context, token in zip(contexts, tokens[step, 0].tolist(), strict=True)
        ]
        for beam, context in enumerate(contexts):
            np.testing.assert_allclose(found[step, 0, beam], reference(model, context)[-1], rtol=1e-4, atol=1e-4)


def test_the_published_size():
    with unallocated():
        assert dlkit.build("gpt", vocabulary=65).count_params() == 804_096
