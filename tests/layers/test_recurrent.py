"""The GRU against its equations in NumPy, Keras' layer with copied weights, and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.errors import UsageError
from dlkit.layers.recurrent import GRU

FEATURES, UNITS = 3, 4
LENGTHS = [5, 2, 0, 4]


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")


def built(features=FEATURES, units=UNITS, seed=0):
    """A GRU whose weights, the bias too, are all random."""
    layer = GRU(units, name="gru")
    layer.build((None, None, features))
    random = np.random.default_rng(seed)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.weights])
    return layer


def batch(lengths=LENGTHS, features=FEATURES, seed=1):
    """Inputs (rows, time, features) with noise in the padding, and their mask."""
    inputs = np.random.default_rng(seed).normal(size=(len(lengths), max(lengths), features))
    return inputs, np.arange(max(lengths)) < np.array(lengths)[:, None]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_of_the_equations(inputs, state, kernel, recurrent_kernel, bias):
    """One sequence (time, features), without padding: the states after each input."""
    w_z, w_r, w_c = np.split(kernel, 3, axis=1)
    u_z, u_r, u_c = np.split(recurrent_kernel, 3, axis=1)
    b_z, b_r, b_c = np.split(bias, 3)
    states = []
    for x in inputs:
        z = sigmoid(x @ w_z + state @ u_z + b_z)
        r = sigmoid(x @ w_r + state @ u_r + b_r)
        candidate = np.tanh(x @ w_c + r * (state @ u_c) + b_c)
        state = z * state + (1 - z) * candidate
        states.append(state)
    return np.array(states).reshape(len(inputs), len(state))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("with_initial_state", [False, True])
def test_equals_the_equations_row_by_row(with_initial_state):
    layer, (inputs, mask) = built(), batch()
    first = np.random.default_rng(2).normal(size=(len(LENGTHS), UNITS)) if with_initial_state else None
    outputs, state = layer(inputs, mask=mask, initial_state=first)
    for row, length in enumerate(LENGTHS):
        begin = np.zeros(UNITS) if first is None else first[row]
        expected = gru_of_the_equations(inputs[row, :length], begin, *layer.get_weights())
        last = expected[-1] if length else begin
        np.testing.assert_allclose(outputs[row, :length], expected, rtol=1e-12)
        np.testing.assert_allclose(state[row], last, rtol=1e-12)
        # The state is carried over padding unchanged: not merely close.
        np.testing.assert_array_equal(outputs[row, length:], np.tile(state[row], (max(LENGTHS) - length, 1)))


@pytest.mark.usefixtures("float64")
def test_equals_keras_with_copied_weights():
    layer, (inputs, mask) = built(), batch([5, 2, 1, 4])
    reference = keras.layers.GRU(UNITS, reset_after=True, return_sequences=True, return_state=True)
    reference.build(inputs.shape)
    kernel, recurrent_kernel, bias = layer.get_weights()
    reference.set_weights([kernel, recurrent_kernel, np.stack([bias, np.zeros_like(bias)])])
    for ours, theirs in zip(layer(inputs, mask=mask), reference(inputs, mask=mask), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_gradients_equal_finite_differences():
    layer, (inputs, mask) = built(), batch()
    random = np.random.default_rng(3)
    first = tf.Variable(random.normal(size=(len(LENGTHS), UNITS)))
    inputs = tf.Variable(inputs)
    read_outputs, read_state = random.normal(size=(*mask.shape, UNITS)), random.normal(size=(len(LENGTHS), UNITS))

    @tf.function
    def loss():
        outputs, state = layer(inputs, mask=mask, initial_state=first)
        return tf.reduce_sum(outputs * read_outputs) + tf.reduce_sum(state * read_state)

    @tf.function
    def gradients(variables):
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, variables)

    variables = [inputs, first, *(weight.value for weight in layer.trainable_variables)]
    for variable, gradient in zip(variables, gradients(variables), strict=True):
        direction, h = random.normal(size=variable.shape), 1e-6
        variable.assign_add(h * direction)
        above = loss()
        variable.assign_sub(2 * h * direction)
        slope = (above - loss()) / (2 * h)
        variable.assign_add(h * direction)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6, err_msg=variable.name)


@pytest.mark.usefixtures("float64")
def test_no_gradient_comes_from_padding():
    layer, (inputs, mask) = built(), batch()
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs, _ = layer(inputs, mask=mask)
        loss = tf.reduce_sum(outputs)
    gradient = tape.gradient(loss, inputs).numpy()
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).all()


@pytest.mark.usefixtures("float64")
def test_padding_and_batch_mates_change_nothing():
    layer, (inputs, mask) = built(), batch()
    outputs, state = layer(inputs, mask=mask)
    for row, length in enumerate(LENGTHS):
        if not length:
            continue
        alone, alone_state = layer(inputs[row : row + 1, :length])
        np.testing.assert_allclose(alone[0], outputs[row, :length], rtol=1e-12)
        np.testing.assert_allclose(alone_state[0], state[row], rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_steps_equal_the_whole_sequence():
    layer, (inputs, _) = built(), batch()
    outputs, last = layer(inputs)
    state = tf.zeros((len(LENGTHS), UNITS), tf.float64)
    for position in range(max(LENGTHS)):
        output, state = layer.step(inputs[:, position], state)
        np.testing.assert_allclose(output, outputs[:, position], rtol=1e-12)
    np.testing.assert_allclose(state, last, rtol=1e-12)


def test_one_trace_serves_all_shapes():
    layer = built()
    traced = tf.function(
        lambda inputs, mask: layer(inputs, mask=mask),
        input_signature=[tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, None), tf.bool)],
    )
    for lengths in ([3], [6, 1]):
        inputs, mask = batch(lengths)
        outputs, state = traced(inputs.astype("float32"), mask)
        assert outputs.shape == (len(lengths), max(lengths), UNITS)
        np.testing.assert_allclose(state, layer(inputs, mask=mask)[1], rtol=1e-5)


def test_mixed_precision_keeps_weights_in_float32_and_multiplies_in_bfloat16():
    exact, (inputs, mask) = built(), batch()
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = built()
    outputs, state = layer(inputs, mask=mask)
    output, _ = layer.step(inputs[:, 0], tf.zeros((len(LENGTHS), UNITS), tf.bfloat16))
    assert outputs.dtype == state.dtype == output.dtype == tf.bfloat16
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    # bfloat16 has 8 significant bits; a handful of steps lose a few of them.
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), exact(inputs, mask=mask)[0], atol=0.06)


def test_each_gate_is_drawn_on_its_own():
    layer = GRU(64, name="gru")
    layer.build((None, None, 32))
    gates = np.split(layer.recurrent_kernel.numpy(), 3, axis=1)
    for gate in gates:  # orthogonal: U^T U = I
        np.testing.assert_allclose(gate.T @ gate, np.eye(64), atol=1e-5)
    assert not np.allclose(gates[0], gates[1])
    # Glorot and Bengio 2010, equation 16, with the fans of one gate: uniform within sqrt(6 / (32 + 64)) = 0.25.
    assert 0.24 < np.abs(layer.kernel).max() <= 0.25
    assert not layer.bias.numpy().any()


def test_an_unknown_init_is_a_usage_error():
    with pytest.raises(UsageError, match="unknown init: orthogonl"):
        GRU(4, recurrent_init="orthogonl").build((None, None, 3))
