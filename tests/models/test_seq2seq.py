"""Sequence to sequence: the two ways through the decoder agree, and padding and batch mates change nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.layers import step_context
from dlkit.layers.step_context import StepContext
from dlkit.models.seq2seq import seq2seq
from dlkit.probe.record import unallocated

START, END = 1, 2
SOURCES = [[5, 6, 7, 8, END], [9, END], [4, 4, 6, END]]
TARGETS = [[8, 7], [9, 10, 5, 4, 6], []]


def padded(sequences, extra=0):
    length = max(map(len, sequences)) + extra
    return np.array([[*sequence, *[0] * (length - len(sequence))] for sequence in sequences], np.int32)


SOURCE, TARGET_IN = padded(SOURCES), padded([[START, *target] for target in TARGETS])


def net(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return seq2seq(11, 12, width=6, **{"init": "gaussian:0.7", **options})


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("reverse_source", [True, False])
def test_teacher_forcing_equals_step_by_step(reverse_source):
    model = net(reverse_source=reverse_source)
    logits = model((SOURCE, TARGET_IN))
    assert logits.shape == (3, 6, 12)
    state = model.start(SOURCE)
    for position in range(TARGET_IN.shape[1]):
        stepped, state = model.step(TARGET_IN[:, position], state)
        assert stepped.shape == (3, 12)
        np.testing.assert_allclose(stepped, logits[:, position], rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_the_source_is_read_backwards_without_its_padding():
    backwards, forwards = net(), net(reverse_source=False)
    turned = padded([source[::-1] for source in SOURCES])
    np.testing.assert_allclose(backwards.start(SOURCE), forwards.start(turned), rtol=1e-12)
    assert np.abs(backwards.start(SOURCE) - forwards.start(SOURCE)).max() > 0.01


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("reverse_source", [True, False])
def test_padding_and_batch_mates_change_nothing(reverse_source):
    model = net(reverse_source=reverse_source)
    logits = model((SOURCE, TARGET_IN)).numpy()
    wide = model((np.pad(SOURCE, ((0, 0), (0, 4))), np.pad(TARGET_IN, ((0, 0), (0, 3)))))
    np.testing.assert_allclose(wide[:, : TARGET_IN.shape[1]], logits, rtol=1e-10)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = model((padded([source]), padded([[START, *target]])))
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
def test_the_source_reaches_the_logits():
    model = net()
    other = SOURCE.copy()
    other[:, 0] = 10
    assert np.abs(model((SOURCE, TARGET_IN)) - model((other, TARGET_IN))).min(axis=2).max() > 1e-3


def test_counts_are_arithmetic():
    width, source, target = 128, 30, 29
    with unallocated():
        model = seq2seq(source, target, width=width)
    assert all(weight._value is None for weight in model.weights)  # nothing is allocated
    gru = 3 * (width * width + width * width + width)
    assert model.count_params() == (source + target) * width + 2 * gru + (width + 1) * target


def test_all_weights_exist_before_data_under_names_by_place():
    model = net()
    places = ["source_embedding", "encoder_gru1", "target_embedding", "decoder_gru1", "head"]
    assert [layer.name for layer in model.layers if layer.weights] == places
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths) == 1 + 3 + 1 + 3 + 2
    model((SOURCE, TARGET_IN))
    assert [weight.path for weight in model.weights] == paths == [weight.path for weight in net().weights]


def test_every_weight_but_padding_gets_a_gradient():
    model = net()
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


def test_computes_in_mixed_precision():
    exact = net()((SOURCE, TARGET_IN))
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = net()
    logits = model((SOURCE, TARGET_IN))
    stepped, state = model.step(TARGET_IN[:, 0], model.start(SOURCE))
    assert logits.dtype == stepped.dtype == state.dtype == tf.bfloat16
    assert {weight.dtype for weight in model.weights} == {"float32"}
    np.testing.assert_allclose(tf.cast(logits, tf.float32), exact, atol=0.1)
    np.testing.assert_allclose(tf.cast(stepped, tf.float32), exact[:, 0], atol=0.1)


def test_shapes_are_known_without_data():
    inputs = (keras.KerasTensor((1, 11), "int32"), keras.KerasTensor((1, 12), "int32"))
    with unallocated():
        model = seq2seq(30, 29, width=8)
        assert model.compute_output_spec(inputs).shape == (1, 12, 29)
