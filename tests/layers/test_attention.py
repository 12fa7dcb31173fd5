"""Attention against the papers' equations in NumPy, against PyTorch and Keras with copied weights; its properties."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.errors import UsageError
from dlkit.layers.attention import Attention, Cache, MultiHeadAttention, attend, bias_of, linear, softmax

T, S, QUERIES, STATES, UNITS = 3, 5, 4, 6, 7
REAL = np.array([[True] * 5, [True, True, True, False, False], [False] * 5])  # the last row has nothing to look at
KINDS = ["identity", "linear", "key_value", "additive"]


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def softmax_of_one(scores, real):
    """The definition, one query at a time, over what is real."""
    weights = np.zeros(len(scores))
    if real.any():
        powers = np.exp(scores[real] - scores[real].max())
        weights[real] = powers / powers.sum()
    return weights


# ------------------------------------------------------------------------------------------------------ pure functions


def test_attends_by_the_equation():
    """Vaswani et al. 2017, equation 1, with a number of leading axes."""
    q, k, v = normal(2, 3, T, 8), normal(2, 3, S, 8), normal(2, 3, S, 2)
    context, weights = attend(tf.constant(q), tf.constant(k), tf.constant(v), scale=8**-0.5)
    scores = np.einsum("abtd,absd->abts", q, k) / np.sqrt(8)
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    np.testing.assert_allclose(context, np.einsum("abts,absv->abtv", expected, v), rtol=1e-12)


def test_scores_are_not_scaled_unless_asked_to():
    q, k = tf.constant([[2.0, 0.0]]), tf.constant([[1.0, 0.0], [0.0, 1.0]])
    _, weights = attend(q, k, k)
    np.testing.assert_allclose(weights, [[np.exp(2) / (np.exp(2) + 1), 1 / (np.exp(2) + 1)]], rtol=1e-6)


def test_masks_against_arrays_by_hand():
    scores = tf.math.log(tf.constant([[1.0, 2.0, 3.0, 4.0]] * 4))
    mask = tf.constant([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]) > 0
    expected = [[0.1, 0.2, 0.3, 0.4], [0.25, 0, 0.75, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(softmax(scores, mask), expected, rtol=1e-6)
    np.testing.assert_allclose(softmax(scores, bias_of(mask))[:3], expected[:3], rtol=1e-6)


def test_what_is_hidden_weighs_exactly_nothing_however_high_its_score():
    mask = tf.constant([[True, False]])
    np.testing.assert_array_equal(softmax(tf.constant([[-1e4, 1e4]]), mask), [[1, 0]])
    np.testing.assert_array_equal(softmax(tf.constant([[-1e4, 1e4]], tf.bfloat16), mask), [[1, 0]])


def test_a_query_with_nothing_to_look_at_gets_zeros_and_gives_zero_gradients():
    scores = tf.Variable(normal(2, S))
    with tf.GradientTape() as tape:
        weights = softmax(tf.convert_to_tensor(scores), tf.constant([[False] * S, [True] * S]))
        loss = tf.reduce_sum(weights**2)
    assert not weights.numpy()[0].any()
    gradient = tape.gradient(loss, scores).numpy()
    assert not gradient[0].any()
    assert gradient[1].all()


def test_weights_are_summed_in_float32_whatever_the_data():
    keys = tf.zeros((1, 1000, 4), tf.bfloat16)
    context, weights = attend(tf.zeros((1, 1, 4), tf.bfloat16), keys, tf.ones((1, 1000, 2), tf.bfloat16))
    assert (context.dtype, weights.dtype) == (tf.bfloat16, tf.float32)
    assert np.sum(weights) == pytest.approx(1, abs=1e-5)


def test_permuted_memory_leaves_the_context():
    q, k, v, order = normal(2, T, 4), normal(2, S, 4), normal(2, S, 3), [3, 0, 4, 1, 2]
    context, weights = attend(tf.constant(q), tf.constant(k), tf.constant(v))
    again, permuted = attend(tf.constant(q), tf.constant(k[:, order]), tf.constant(v[:, order]))
    np.testing.assert_allclose(again, context, rtol=1e-12)
    np.testing.assert_allclose(permuted, weights.numpy()[..., order], rtol=1e-12)


def test_dropout_acts_on_what_is_summed_and_not_on_the_weights_that_are_returned():
    q, k, v = (tf.constant(normal(1, S, 4, seed=seed)) for seed in range(3))
    context, weights = attend(q, k, v, dropout=lambda weights: 0 * weights)
    assert not context.numpy().any()
    np.testing.assert_allclose(weights, attend(q, k, v)[1])


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (2, 0, 3)])
def test_an_affine_map_of_the_last_axis(shape):
    x, kernel, bias = normal(2, *shape), normal(3, 5), normal(5)
    with_bias = linear(tf.constant(x), tf.constant(kernel), tf.constant(bias))
    np.testing.assert_allclose(with_bias, x @ kernel + bias, rtol=1e-12)
    np.testing.assert_allclose(linear(tf.constant(x), tf.constant(kernel)), x @ kernel, rtol=1e-12)


# ----------------------------------------------------------------------------------- of a decoder over encoder states


def built(kind, queries=STATES):
    layer = Attention(kind, UNITS, init="gaussian:1", name="attention")
    layer.build((None, None, queries), (None, None, STATES))
    return layer, {weight.name: weight.numpy() for weight in layer.weights}


def by_the_equations(kind, weights, query, states):
    """Scores and values of one query (queries,) over the states (s, states) of one row, without padding."""
    match kind:
        case "identity":
            return [h @ query for h in states], states
        case "linear":
            return [h @ weights["key_kernel"] @ query for h in states], states
        case "key_value":
            q = query @ weights["query_kernel"]
            scores = [(h @ weights["key_kernel"]) @ q / np.sqrt(UNITS) for h in states]
            return scores, states @ weights["value_kernel"]
        case "additive":
            hidden = [np.tanh(query @ weights["query_kernel"] + h @ weights["key_kernel"]) for h in states]
            return [h @ weights["v"][:, 0] for h in hidden], states


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_by_its_equations_row_by_row(kind):
    width = STATES if kind == "identity" else QUERIES
    layer, arrays = built(kind, width)
    queries, states = normal(3, T, width), normal(3, S, STATES)
    context, weights = layer(queries, layer.memory(states, REAL))
    for row in range(3):
        for t in range(T):
            scores, values = by_the_equations(kind, arrays, queries[row, t], states[row])
            expected = softmax_of_one(np.array(scores), REAL[row])
            np.testing.assert_allclose(weights[row, t], expected, rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(context[row, t], expected @ values, rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_mask_all_is_real(kind):
    layer, _ = built(kind, STATES)
    queries, states = normal(3, T, STATES), normal(3, S, STATES)
    masked = layer(queries, layer.memory(states, np.ones((3, S), bool)))
    for ours, theirs in zip(layer(queries, layer.memory(states)), masked, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind):
    layer, _ = built(kind, STATES)
    queries, states = normal(2, T, STATES), normal(2, S, STATES)

    def loss(queries, states, *weights):
        with keras.StatelessScope(list(zip(layer.weights, weights, strict=True))):
            context, _ = layer(queries, layer.memory(states, REAL[:2]))
        return tf.reduce_sum(context**2)

    arguments = [queries, states, *(weight.numpy() for weight in layer.weights)]
    exact, numeric = tf.test.compute_gradient(loss, [tf.constant(x) for x in arguments], delta=1e-5)
    for ours, theirs in zip(exact, numeric, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def total(products):
    return sum(map(math.prod, products))


@pytest.mark.parametrize("kind", KINDS)
def test_counts_its_products(kind):
    layer, _ = built(kind, STATES)
    memory = layer.memory(tf.zeros((1, S, STATES)))
    context, weights = layer(tf.zeros((1, T, STATES)), memory)
    shapes = [(T, STATES), memory.keys.shape[1:], memory.values.shape[1:]]
    counted = total(layer.multiply_adds(shapes, [context.shape[1:], weights.shape[1:]]))
    both = T * S * STATES  # the products with states: scores, and sums of values
    by_hand = {
        "identity": 2 * both,
        "linear": S * STATES * STATES + 2 * both,
        "key_value": (T + 2 * S) * STATES * UNITS + 2 * T * S * UNITS,
        "additive": (T + S) * STATES * UNITS + T * S * UNITS + both,
    }
    assert counted == by_hand[kind]


def test_computes_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    for kind in KINDS:
        layer, _ = built(kind, STATES)
        context, weights = layer(normal(3, T, STATES), layer.memory(normal(3, S, STATES), REAL))
        assert (context.dtype, weights.dtype) == (tf.bfloat16, tf.float32)
        np.testing.assert_allclose(tf.reduce_sum(weights, -1), REAL.any(1)[:, None] * np.ones((3, T)), atol=1e-5)


def test_mistakes_are_explained():
    with pytest.raises(UsageError, match="unknown attention: liner") as raised:
        Attention("liner", 5)
    assert "`linear`" in raised.value.hint
    for kind in ("key_value", "additive"):
        with pytest.raises(UsageError, match="number of units"):
            Attention(kind)
    with pytest.raises(UsageError, match="compares states of 4 units with states of 6") as raised:
        Attention("identity").build((None, None, 4), (None, None, 6))
    assert "linear" in raised.value.hint
    with pytest.raises(UsageError, match="width 6 cannot be divided into 4 heads"):
        MultiHeadAttention(4).build((None, None, 6))


# --------------------------------------------------------------------------------------------------- in several heads


@pytest.fixture(scope="module")
def reference():
    return np.load(Path(__file__).parent / "reference" / "multi_head_attention.npz")


def of_pytorch(reference, *, cross):
    """Our layer with PyTorch's weights, which are transposed and stand in the order query, key, value."""
    kernel, bias = reference["in_proj_weight"].T, reference["in_proj_bias"]
    width = len(kernel)
    layer = MultiHeadAttention(3, cross=cross, name="attention")
    layer.build((None, None, width), (None, None, width))
    projections = [kernel[:, :width], bias[:width], kernel[:, width:], bias[width:]] if cross else [kernel, bias]
    layer.set_weights([*projections, reference["out_proj.weight"].T, reference["out_proj.bias"]])
    return layer


@pytest.mark.usefixtures("float64")
def test_cross_attention_equals_pytorch(reference):
    layer = of_pytorch(reference, cross=True)
    output, weights = layer(reference["queries"], layer.memory(reference["states"], reference["real"]))
    np.testing.assert_allclose(output, reference["cross_output"], rtol=1e-10)
    np.testing.assert_allclose(weights, reference["cross_weights"], rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_causal_self_attention_equals_pytorch(reference):
    queries = reference["queries"]
    causal = np.tril(np.ones((queries.shape[1],) * 2, bool))
    output, weights = of_pytorch(reference, cross=False)(queries, mask=tf.constant(causal))
    np.testing.assert_allclose(output, reference["causal_output"], rtol=1e-10)
    np.testing.assert_allclose(weights, reference["causal_weights"], rtol=1e-10, atol=1e-14)


def beside_keras(*, cross):
    """Keras' layer with random weights, and ours with the same. Keras has heads on an axis of their own, and rounds the
    scale of the scores to float32.
    """
    queries, states = (6, 5) if cross else (6, 6)
    theirs = keras.layers.MultiHeadAttention(num_heads=3, key_dim=2)
    theirs.build((None, None, queries), (None, None, states))
    theirs.set_weights([normal(*weight.shape, seed=seed) for seed, weight in enumerate(theirs.weights)])
    projected = (theirs.query_dense, theirs.key_dense, theirs.value_dense)
    kernels = [layer.kernel.numpy().reshape(-1, 6) for layer in projected]
    biases = [layer.bias.numpy().ravel() for layer in projected]
    parts = [slice(1), slice(1, 3)] if cross else [slice(3)]
    projections = [np.concatenate(arrays[part], -1) for part in parts for arrays in (kernels, biases)]
    ours = MultiHeadAttention(3, cross=cross, name="attention")
    ours.build((None, None, queries), (None, None, states))
    ours.set_weights([*projections, theirs.output_dense.kernel.numpy().reshape(6, 6), theirs.output_dense.bias.numpy()])
    return ours, theirs


@pytest.mark.usefixtures("float64")
def test_causal_self_attention_equals_keras():
    ours, theirs = beside_keras(cross=False)
    x = normal(2, T, 6)
    output, weights = ours(x, mask=tf.constant(np.tril(np.ones((T, T), bool))))
    expected, scores = theirs(x, x, use_causal_mask=True, return_attention_scores=True)
    np.testing.assert_allclose(output, expected, rtol=1e-6)
    np.testing.assert_allclose(weights, scores, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_cross_attention_with_padding_equals_keras():
    ours, theirs = beside_keras(cross=True)
    queries, states, real = normal(2, T, 6), normal(2, S, 5), REAL[:2]
    output, weights = ours(queries, ours.memory(states, real))
    expected, scores = theirs(queries, states, attention_mask=real[:, np.newaxis], return_attention_scores=True)
    np.testing.assert_allclose(output, expected, rtol=1e-6)
    np.testing.assert_allclose(weights, scores, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_extending_a_cache_equals_looking_back(reference):
    layer, queries = of_pytorch(reference, cross=False), reference["queries"]
    cache = Cache(tf.zeros((2, 3, 0, 2), tf.float64), tf.zeros((2, 3, 0, 2), tf.float64))
    for t in range(queries.shape[1]):
        output, cache = layer.extend(queries[:, t : t + 1], cache, tf.ones((1, 1, 1, t + 1), tf.bool))
        np.testing.assert_allclose(output[:, 0], reference["causal_output"][:, t], rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_permuted_input_gives_permuted_output(reference):
    layer, x, order = of_pytorch(reference, cross=False), reference["queries"], [2, 0, 3, 1]
    output, weights = layer(x)
    again, permuted = layer(x[:, order])
    np.testing.assert_allclose(again, output.numpy()[:, order], rtol=1e-10)
    np.testing.assert_allclose(permuted, weights.numpy()[:, :, order][..., order], rtol=1e-10)


def test_matrices_of_one_input_are_one_and_each_is_drawn_with_its_own_fans():
    layer = MultiHeadAttention(2, use_bias=False, name="attention")
    layer.build((None, None, 128))
    assert {w.path: tuple(w.shape) for w in layer.weights} == {
        "attention/query_key_value_kernel": (128, 3 * 128),
        "attention/output_kernel": (128, 128),
    }
    limit = np.sqrt(6 / (128 + 128))  # of Glorot and Bengio 2010, equation 16
    for matrix in np.split(layer.weights[0].numpy(), 3, axis=1):
        assert 0.98 * limit < np.abs(matrix).max() <= limit


def test_counts_parameters_and_products_of_several_heads():
    layer = MultiHeadAttention(2, cross=True, name="attention")
    layer.build((None, None, 8), (None, None, 6))
    assert layer.count_params() == (8 + 1) * 8 + (6 + 1) * 16 + (8 + 1) * 8
    counted = total(layer.multiply_adds([(T, 8)], [(T, 8), (2, T, S)]))
    assert counted == T * 8 * 8 + S * 6 * 16 + T * 8 * 8 + 2 * T * S * 8
    alone = MultiHeadAttention(2, name="self_attention")
    alone.build((None, None, 8))
    assert total(alone.multiply_adds([(T, 8)], [(T, 8), (2, T, T)])) == T * 8 * 32 + 2 * T * T * 8


def test_dropout_acts_in_training_only():
    layer = MultiHeadAttention(2, dropout=0.5, name="attention")
    x = tf.constant(normal(2, T, 8), tf.float32)
    calm, weights = layer(x)
    np.testing.assert_array_equal(layer(x)[0], calm)
    wild, same = layer(x, training=True)
    assert np.abs(wild - calm).max() > 1e-3
    np.testing.assert_array_equal(same, weights)


def test_unknown_sizes_in_a_graph():
    layer = MultiHeadAttention(2, name="attention")
    layer.build((None, None, 8))
    graph = tf.function(lambda x: layer(x)[0], input_signature=[tf.TensorSpec((None, None, 8))])
    for shape in [(2, 3, 8), (1, 0, 8), (4, 1, 8)]:
        x = tf.constant(normal(*shape), tf.float32)
        np.testing.assert_allclose(graph(x), layer(x)[0], rtol=1e-5, atol=1e-6)
