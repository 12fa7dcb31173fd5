"""Attention over a recurrent encoder: against NumPy, both ways through the decoder, masks, and what it can learn."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import models
from dlkit.data.pairs import pad
from dlkit.data.tokenizer import END, PAD, START
from dlkit.errors import UsageError
from dlkit.layers import step_context
from dlkit.layers.step_context import StepContext
from dlkit.models.seq2seq_attention import seq2seq_attention
from dlkit.summary import summarize, unallocated

SOURCES = [[5, 6, 7, 8, END], [9, END], [4, 4, 6, END]]
TARGETS = [[8, 7], [9, 10, 5, 4], []]


SOURCE, TARGET_IN = pad(SOURCES), pad([[START, *target] for target in TARGETS])

# Each score and each way of the context, with different cells and sizes.
OPTIONS = [
    {"score": "linear", "context_to": "readout", "cell": "lstm", "layers": 1},
    {"score": "identity", "context_to": "next_layer", "cell": "gru", "layers": 2},
    {"score": "additive", "context_to": "next_input", "cell": "lstm", "layers": 2},
    {"score": "key_value", "context_to": "readout", "cell": "rnn", "layers": 1, "tied_embeddings": True},
    {"score": "linear", "context_to": "next_input", "cell": "gru", "layers": 1, "embedding": "one_hot"},
]
every_kind = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))


def net(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return seq2seq_attention(11, 12, width=6, **{"init": "gaussian:0.7", **options})


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")


# ----------------------------------------------------------------------------------------------- the equations in NumPy


def weights_of(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def plain_step(weights, place, x, h):
    matrix = np.concatenate([weights[f"{place}/recurrent_kernel"], weights[f"{place}/kernel"]])
    return np.tanh(np.concatenate([h, x]) @ matrix + weights[f"{place}/bias"])


def look(weights, query, states):
    """Luong et al. 2015, equation 8, "general"; the softmax, and the mean of the states."""
    scores = np.exp(np.array([state @ weights["attention/key_kernel"] @ query for state in states]))
    alpha = scores / scores.sum()
    return alpha @ np.array(states), alpha


def of_the_equations(weights, context_to, source, target_in):
    """One sentence through plain layers, an encoder that reads forward and two levels of decoder; logits, weights."""
    states, h, last = [weights["source_embedding/embeddings"][token] for token in source], None, []
    for level in ("encoder/encoder_rnn1", "encoder/encoder_rnn2"):
        h = np.zeros(6)
        states = [h := plain_step(weights, level, x, h) for x in states]
        last.append(h)
    below, above = last
    logits, looked = [], []
    for token in target_in:
        x = weights["target_embedding/embeddings"][token]
        if context_to == "next_input":
            context, alpha = look(weights, below, states)
            below = plain_step(weights, "decoder/decoder_rnn1", np.concatenate([x, context]), below)
            output = above = plain_step(weights, "decoder_upper/decoder_upper_rnn1", below, above)
        elif context_to == "next_layer":
            below = plain_step(weights, "decoder/decoder_rnn1", x, below)
            context, alpha = look(weights, below, states)
            joined = np.concatenate([below, context])
            output = above = plain_step(weights, "decoder_upper/decoder_upper_rnn1", joined, above)
        else:
            below = plain_step(weights, "decoder/decoder_rnn1", x, below)
            above = plain_step(weights, "decoder/decoder_rnn2", below, above)
            context, alpha = look(weights, above, states)
            output = np.tanh(np.concatenate([above, context]) @ weights["readout/kernel"] + weights["readout/bias"])
        logits.append(output @ weights["head/kernel"] + weights["head/bias"])
        looked.append(alpha)
    return np.array(logits), np.array(looked)


def step_by_step(model, source, target_in):
    """Logits and attention (batch, target time, ...) through `start` and `step`."""
    state, memory = model.start(source)
    logits, attention = [], []
    for position in range(target_in.shape[1]):
        step = model.step(target_in[:, position : position + 1], state, memory)
        logits.append(step.logits[:, 0])
        attention.append(step.attention[:, 0])
        state = step.state
    return np.stack(logits, 1), np.stack(attention, 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("context_to", ["readout", "next_layer", "next_input"])
def test_equals_the_equations(context_to):
    model = net(cell="rnn", context_to=context_to, bidirectional=False)
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=weight.shape) for weight in model.weights])
    logits = model((SOURCE, TARGET_IN)).numpy()
    stepped, attention = step_by_step(model, SOURCE, TARGET_IN)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        want, looked = of_the_equations(weights_of(model), context_to, source, [START, *target])
        steps = len(target) + 1
        np.testing.assert_allclose(logits[row, :steps], want, rtol=1e-9)
        np.testing.assert_allclose(stepped[row, :steps], want, rtol=1e-9)
        np.testing.assert_allclose(attention[row, :steps, : len(source)], looked, rtol=1e-5)  # it is in float32
        assert not attention[row, :, len(source) :].any()  # padding is not looked at


# --------------------------------------------------------------------------------------------------- the two ways agree


@pytest.mark.usefixtures("float64")
@every_kind
def test_teacher_forcing_equals_step_by_step(options):
    model = net(**options)
    logits = model((SOURCE, TARGET_IN))
    assert logits.shape == (3, 5, 12)
    stepped, attention = step_by_step(model, SOURCE, TARGET_IN)
    np.testing.assert_allclose(stepped, logits, rtol=1e-10)
    assert (attention.shape, attention.dtype) == ((3, 5, 5), np.float32)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-6)
    assert ((attention > 0) == (SOURCE != PAD)[:, np.newaxis]).all()


@pytest.mark.usefixtures("float64")
@every_kind
def test_beams_share_the_memory_and_know_nothing_of_each_other(options):
    model = net(**options)
    state, memory = model.start(SOURCE)
    assert {leaf.shape[:2] for leaf in tf.nest.flatten(state)} == {(3, 1)}
    assert {leaf.shape[0] for leaf in tf.nest.flatten(memory)} == {3}
    tokens = np.array([[4, 5], [6, 7], [8, 9]])
    both = model.step(tokens, tf.nest.map_structure(lambda leaf: tf.repeat(leaf, 2, axis=1), state), memory)
    again = model.step(tokens[:, ::-1], both.state, memory)
    for beam in range(2):
        alone = model.step(tokens[:, beam : beam + 1], state, memory)
        np.testing.assert_allclose(both.logits[:, beam], alone.logits[:, 0], rtol=1e-10)
        np.testing.assert_allclose(both.attention[:, beam], alone.attention[:, 0], rtol=1e-6)
        alone = model.step(tokens[:, 1 - beam : 2 - beam], alone.state, memory)
        np.testing.assert_allclose(again.logits[:, beam], alone.logits[:, 0], rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("context_to", ["readout", "next_input"])
def test_one_graph_serves_all_shapes(context_to):
    model = net(context_to=context_to, cell="rnn", layers=1)
    ids = tf.TensorSpec((None, None), tf.int32)

    @tf.function(input_signature=[ids, ids, ids])
    def both_ways(source, target_in, tokens):
        state, memory = model.start(source)
        beams = tf.nest.map_structure(lambda leaf: tf.repeat(leaf, tf.shape(tokens)[1], axis=1), state)
        return model((source, target_in)), model.step(tokens, beams, memory).logits

    for rows, beams in ((3, 1), (1, 4)):
        source, target_in = SOURCE[:rows], TARGET_IN[:rows]
        logits, stepped = both_ways(source, target_in, np.full((rows, beams), START, np.int32))
        np.testing.assert_allclose(logits, model((source, target_in)), rtol=1e-10)
        np.testing.assert_allclose(stepped, np.repeat(logits[:, :1], beams, axis=1), rtol=1e-10)


@pytest.mark.usefixtures("float64")
@every_kind
def test_padding_and_batch_mates_change_nothing(options):
    model = net(**options)
    logits = model((SOURCE, TARGET_IN)).numpy()
    wide = model((np.pad(SOURCE, ((0, 0), (0, 4))), np.pad(TARGET_IN, ((0, 0), (0, 3)))))
    np.testing.assert_allclose(wide[:, : TARGET_IN.shape[1]], logits, rtol=1e-10)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = model((pad([source]), pad([[START, *target]])))
        np.testing.assert_allclose(alone[0], logits[row, : len(target) + 1], rtol=1e-10)


@every_kind
def test_rows_that_are_all_padding_are_numbers(options):
    """The trainer fills up batches with such rows; they weigh nothing, but a NaN times zero would."""
    source, target_in = np.zeros((2, 5), np.int32), np.zeros((2, 3), np.int32)
    source[0, :2], target_in[0, 0] = (5, END), START
    model = net(**options)
    with tf.GradientTape() as tape:
        logits = model((source, target_in))
        loss = tf.reduce_sum(logits**2)
    assert np.isfinite(logits).all()
    gradients = tape.gradient(loss, [weight.value for weight in model.weights])
    assert all(np.isfinite(tf.convert_to_tensor(gradient)).all() for gradient in gradients)


@pytest.mark.usefixtures("float64")
@every_kind
def test_logits_do_not_look_ahead_and_do_look_back(options):
    model = net(**options)
    logits = model((SOURCE, TARGET_IN)).numpy()
    changed = TARGET_IN.copy()
    changed[:, 2] = 11
    moved = np.abs(model((SOURCE, changed)) - logits).max(axis=(0, 2))
    assert (moved[:2] == 0).all()
    assert (moved[2:] > 0).all()


def test_what_it_costs_is_counted():
    width, source, target = 8, 9, 11
    inputs = (keras.KerasTensor((1, source), "int32"), keras.KerasTensor((1, target), "int32"))
    with unallocated():
        summary = summarize(seq2seq_attention(30, 29, width=width, layers=1), inputs)
    encoder = 2 * 4 * (width // 2) * (width + width // 2)  # both directions
    decoder, readout, head = 4 * width * 2 * width, 2 * width * width, width * 29
    attention = source * width * width + 2 * source * target * width  # keys, scores, contexts
    assert summary.multiply_adds == source * encoder + target * (decoder + readout + head) + attention


# -------------------------------------------------------------------------------------------------------------- weights


@every_kind
def test_every_weight_but_padding_gets_a_gradient(options):
    model = net(**options)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model((SOURCE, TARGET_IN), training=True) ** 2)
    gradients = map(tf.convert_to_tensor, tape.gradient(loss, [weight.value for weight in model.weights]))
    for weight, gradient in zip(model.weights, gradients, strict=True):
        assert np.abs(gradient).max() > 0, weight.path


def test_counts_are_arithmetic():
    width, vocabulary = 128, 30
    lstm = 4 * (2 * width * width + width)
    half = 4 * (width * width // 2 + width * width // 4 + width // 2)
    fixed = 2 * vocabulary * width + 4 * half + (width + 1) * vocabulary
    matrix = width * width
    for options, count in [
        ({}, 2 * lstm + matrix + (2 * width + 1) * width),
        ({"context_to": "next_layer"}, 2 * lstm + 4 * matrix + matrix),
        ({"context_to": "next_input"}, 2 * lstm + 4 * matrix + matrix),
        ({"score": "identity"}, 2 * lstm + (2 * width + 1) * width),
        ({"score": "key_value"}, 2 * lstm + 3 * matrix + (2 * width + 1) * width),
        ({"score": "additive"}, 2 * lstm + 2 * matrix + width + (2 * width + 1) * width),
    ]:
        with unallocated():
            assert seq2seq_attention(vocabulary, vocabulary, **options).count_params() == fixed + count


@every_kind
def test_all_weights_exist_before_data_under_names_by_place(options):
    model = net(**options)
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths)
    model((SOURCE, TARGET_IN))
    assert [weight.path for weight in model.weights] == paths == [weight.path for weight in net(**options).weights]
    names = [layer.name for layer in model._flatten_layers() if "dropout" in layer.name]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("context_to", ["readout", "next_layer", "next_input"])
def test_dropout_acts_in_training_only_and_depends_on_the_step(context_to):
    def logits(training, seed=1, dropout=0.5):
        with step_context.use(StepContext(tf.constant([seed, 0]), tf.constant(0))):
            model = net(dropout=dropout, context_to=context_to, cell="rnn")
            return model((SOURCE, TARGET_IN), training=training).numpy()

    np.testing.assert_array_equal(logits(training=False), logits(training=False, dropout=0.0))
    np.testing.assert_array_equal(logits(training=True), logits(training=True))
    assert np.abs(logits(training=True) - logits(training=True, seed=2)).max() > 0.01


@every_kind
def test_computes_in_mixed_precision(options):
    exact = net(**options)((SOURCE, TARGET_IN))
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = net(**options)
    logits = model((SOURCE, TARGET_IN))
    state, memory = model.start(SOURCE)
    step = model.step(TARGET_IN[:, :1], state, memory)
    assert logits.dtype == step.logits.dtype == step.attention.dtype == tf.float32
    assert {leaf.dtype for leaf in tf.nest.flatten(step.state)} == {tf.bfloat16}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    np.testing.assert_allclose(logits, exact, atol=0.15)
    np.testing.assert_allclose(step.logits[:, 0], exact[:, 0], atol=0.15)


def test_shapes_are_known_without_data():
    inputs = (keras.KerasTensor((1, 11), "int32"), keras.KerasTensor((1, 12), "int32"))
    for context_to in ("readout", "next_input"):
        with unallocated():
            model = seq2seq_attention(30, 29, width=8, context_to=context_to)
            assert model.compute_output_spec(inputs).shape == (1, 12, 29)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "lienar"}, "lienar"),
        ({"context_to": "output"}, "output"),
        ({"context_to": "next_layer", "layers": 1}, "no next layer"),
        ({"width": 7}, "7 is odd"),
        ({"layers": 6}, "model.layers"),
    ],
)
def test_mistakes_are_usage_errors(options, message):
    with pytest.raises(UsageError, match=message):
        models.build("seq2seq_attention", source_vocabulary=11, target_vocabulary=12, **options)
