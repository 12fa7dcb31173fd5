"""Sequence to sequence: the two ways through the decoder agree, and padding and batch mates change nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import models
from dlkit.data.pairs import pad
from dlkit.errors import UsageError
from dlkit.layers import step_context
from dlkit.layers.step_context import StepContext
from dlkit.models.seq2seq import seq2seq
from dlkit.probe.record import unallocated

START, END = 1, 2
SOURCES = [[5, 6, 7, 8, END], [9, END], [4, 4, 6, END]]
TARGETS = [[8, 7], [9, 10, 5, 4, 6], []]


SOURCE, TARGET_IN = pad(SOURCES), pad([[START, *target] for target in TARGETS])

OPTIONS = [
    {"cell": "rnn", "layers": 1},
    {"cell": "lstm", "layers": 2, "reverse_source": False},
    {"cell": "gru", "layers": 1, "bidirectional": True, "tied_embeddings": True},
    {"cell": "lstm", "layers": 1, "embedding": "one_hot"},
]
every_kind = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))


def net(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return seq2seq(11, 12, width=6, **{"init": "gaussian:0.7", **options})


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")


@pytest.mark.usefixtures("float64")
@every_kind
def test_teacher_forcing_equals_step_by_step(options):
    model = net(**options)
    logits = model((SOURCE, TARGET_IN))
    assert logits.shape == (3, 6, 12)
    state, memory = model.start(SOURCE, max_len=6)
    assert memory == ()
    for position in range(TARGET_IN.shape[1]):
        step = model.step(TARGET_IN[:, position : position + 1], state, memory)
        assert step.logits.shape == (3, 1, 12)
        assert step.attention is None
        np.testing.assert_allclose(step.logits[:, 0], logits[:, position], rtol=1e-10)
        state = step.state


@pytest.mark.usefixtures("float64")
@every_kind
def test_each_beam_goes_its_own_way(options):
    """The second axis of the state is the beam: two beams are as two rows of the batch."""
    model = net(**options)
    state, memory = model.start(SOURCE)
    assert {tuple(leaf.shape) for leaf in tf.nest.flatten(state)} == {(3, 1, 6)}
    beams = tf.nest.map_structure(lambda leaf: tf.repeat(leaf, 2, axis=1), state)
    tokens = np.array([[4, 5], [6, 7], [8, 9]])
    both = model.step(tokens, beams, memory)
    again = model.step(tokens[:, ::-1], both.state, memory)
    for beam in range(2):
        alone = model.step(tokens[:, beam : beam + 1], state, memory)
        np.testing.assert_allclose(both.logits[:, beam], alone.logits[:, 0], rtol=1e-10)
        alone = model.step(tokens[:, 1 - beam : 2 - beam], alone.state, memory)
        np.testing.assert_allclose(again.logits[:, beam], alone.logits[:, 0], rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_a_step_takes_any_number_of_rows_and_beams_in_one_graph():
    model = net(layers=1)

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.int32)])
    def first_logits(source, tokens):
        state, memory = model.start(source)
        beams = tf.shape(tokens)[1]
        return model.step(tokens, tf.nest.map_structure(lambda x: tf.repeat(x, beams, axis=1), state), memory).logits

    expected = model((SOURCE, np.full((3, 1), START)))
    for beams in (1, 3):
        logits = first_logits(SOURCE, np.full((3, beams), START, np.int32))
        np.testing.assert_allclose(logits, np.repeat(expected, beams, axis=1), rtol=1e-10)


def states_after(model, source):
    return np.concatenate([leaf[:, 0] for leaf in tf.nest.flatten(model.start(source)[0])], axis=-1)


@pytest.mark.usefixtures("float64")
def test_the_source_is_read_backwards_by_default_and_without_its_padding():
    backwards, forwards = net(), net(reverse_source=False)
    turned = pad([source[::-1] for source in SOURCES])
    np.testing.assert_allclose(states_after(backwards, SOURCE), states_after(forwards, turned), rtol=1e-12)
    assert np.abs(states_after(backwards, SOURCE) - states_after(forwards, SOURCE)).max() > 0.01


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


@pytest.mark.usefixtures("float64")
def test_logits_do_not_look_ahead_and_do_look_back():
    model = net()
    logits = model((SOURCE, TARGET_IN)).numpy()
    changed = TARGET_IN.copy()
    changed[:, 3] = 11
    moved = np.abs(model((SOURCE, changed)) - logits).max(axis=(0, 2))
    assert (moved[:3] == 0).all()
    assert (moved[3:] > 0).all()


@pytest.mark.usefixtures("float64")
@every_kind
def test_the_source_reaches_the_logits(options):
    model = net(**options)
    other = SOURCE.copy()
    other[:, 0] = 10
    assert np.abs(model((SOURCE, TARGET_IN)) - model((other, TARGET_IN))).min(axis=2).max() > 1e-4


# What one layer has for an input and a state of these widths: W, U and b, of each gate.
SIZES = {"rnn": 1, "gru": 3, "lstm": 4}


@pytest.mark.parametrize("cell", SIZES)
def test_counts_are_arithmetic(cell):
    width, source, target, gates = 128, 30, 29, SIZES[cell]
    with unallocated():
        model = seq2seq(source, target, cell=cell, layers=3)
        tied = seq2seq(source, target, cell=cell, layers=3, tied_embeddings=True)
        both = seq2seq(source, target, cell=cell, layers=2, bidirectional=True)
    assert all(weight._value is None for weight in model.weights)  # nothing is allocated
    layer = gates * (width * width + width * width + width)
    embeddings, head = (source + target) * width, (width + 1) * target
    assert model.count_params() == embeddings + 6 * layer + head
    assert tied.count_params() == embeddings + 6 * layer
    half = gates * (width * width // 2 + width * width // 4 + width // 2)
    assert both.count_params() == embeddings + 4 * half + 2 * layer + head


def test_all_weights_exist_before_data_under_names_by_place():
    model = net(layers=2)
    places = ["source_embedding", "encoder", "target_embedding", "decoder", "head"]
    assert [layer.name for layer in model.layers if layer.weights] == places
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths) == 1 + 6 + 1 + 6 + 2
    assert paths[1] == "encoder/encoder_lstm1/kernel"
    model((SOURCE, TARGET_IN))
    assert [weight.path for weight in model.weights] == paths == [weight.path for weight in net(layers=2).weights]


def test_dropout_layers_have_names_of_their_own():
    """Their draws come from their names."""
    names = [layer.name for layer in net(layers=3)._flatten_layers() if "dropout" in layer.name]
    assert len(names) == len(set(names)) == 3 + 2 * 2


@every_kind
def test_every_weight_but_padding_gets_a_gradient(options):
    model = net(**options)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model((SOURCE, TARGET_IN), training=True) ** 2)
    gradients = map(tf.convert_to_tensor, tape.gradient(loss, [weight.value for weight in model.weights]))
    for weight, gradient in zip(model.weights, gradients, strict=True):
        assert np.abs(gradient).max() > 0, weight.path
        if weight.path.startswith("source_embedding"):
            assert not gradient.numpy()[0].any()  # the row of the padding


def test_dropout_acts_in_training_only_and_depends_on_the_step():
    model = net(dropout=0.5)

    def logits(training, seed=1):
        context = StepContext(tf.constant([seed, 0]), tf.constant(0))
        with step_context.use(context):
            return model((SOURCE, TARGET_IN), training=training).numpy()

    np.testing.assert_array_equal(logits(training=False), net()((SOURCE, TARGET_IN)))
    np.testing.assert_array_equal(logits(training=True), logits(training=True))
    assert np.abs(logits(training=True) - logits(training=True, seed=2)).max() > 0.01
    assert np.abs(logits(training=True) - logits(training=False)).max() > 0.01


def test_the_forget_bias_reaches_every_lstm():
    weights = net(forget_bias=3.0).weights
    biases = [weight.numpy() for weight in weights if weight.path.endswith("bias") and "lstm" in weight.path]
    assert len(biases) == 4
    assert all(bias.tolist() == [3.0] * 6 + [0.0] * 18 for bias in biases)


@every_kind
def test_computes_in_mixed_precision(options):
    exact = net(**options)((SOURCE, TARGET_IN))
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = net(**options)
    logits = model((SOURCE, TARGET_IN))
    state, memory = model.start(SOURCE)
    step = model.step(TARGET_IN[:, :1], state, memory)
    assert logits.dtype == step.logits.dtype == tf.float32
    assert {leaf.dtype for leaf in tf.nest.flatten(step.state)} == {tf.bfloat16}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    np.testing.assert_allclose(logits, exact, atol=0.1)
    np.testing.assert_allclose(step.logits[:, 0], exact[:, 0], atol=0.1)


def test_shapes_are_known_without_data():
    inputs = (keras.KerasTensor((1, 11), "int32"), keras.KerasTensor((1, 12), "int32"))
    with unallocated():
        model = seq2seq(30, 29, width=8)
        assert model.compute_output_spec(inputs).shape == (1, 12, 29)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "lstn"}, "lstn"),
        ({"layers": 6}, "model.layers"),
        ({"layers": 0}, "model.layers"),
        ({"width": 7, "bidirectional": True}, "7 is odd"),
        ({"forget_bais": 1.0}, "forget_bais"),
    ],
)
def test_mistakes_are_usage_errors(options, message):
    with pytest.raises(UsageError, match=message):
        models.build("seq2seq", source_vocabulary=11, target_vocabulary=12, **options)
