"""Recurrent layers against their equations in NumPy, PyTorch and Keras with copied weights, and autodiff."""

import math
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit.errors import UsageError
from dlkit.layers import step_context
from dlkit.layers.activations import Activation
from dlkit.layers.recurrent import GRU, LSTM, RNN, LSTMState, Stack, one_by_one
from dlkit.layers.step_context import StepContext

FEATURES, UNITS = 3, 4
LENGTHS = [5, 2, 0, 4]
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}

every_cell = pytest.mark.parametrize("cell", CELLS)
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")


def fill(layer, seed=0):
    """Random weights, the biases too."""
    random = np.random.default_rng(seed)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.weights])
    return layer


def built(cell, features=FEATURES, seed=0):
    layer = CELLS[cell](UNITS, name=cell)
    layer.build((None, None, features))
    return fill(layer, seed)


def stack(cell, seed=0, **options):
    layer = Stack(cell, UNITS, name="stack", **options)
    layer.build((None, None, FEATURES))
    return fill(layer, seed)


def batch(lengths=LENGTHS, features=FEATURES, seed=1):
    """Inputs (rows, time, features) with noise in the padding, and their mask."""
    inputs = np.random.default_rng(seed).normal(size=(len(lengths), max(lengths), features))
    return inputs, np.arange(max(lengths)) < np.array(lengths)[:, None]


def some_state(cell, rows, seed=2):
    random = np.random.default_rng(seed)
    h, c = random.normal(size=(2, rows, UNITS))
    return LSTMState(tf.constant(h), tf.constant(c)) if cell == "lstm" else tf.constant(h)


def leaves(state):
    return [np.array(leaf) for leaf in tf.nest.flatten(state)]


# ----------------------------------------------------------------------------------------------- the equations in NumPy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn_of_the_equations(x, state, kernel, recurrent_kernel, bias):
    (h,) = state
    return (np.tanh(np.concatenate([h, x]) @ np.concatenate([recurrent_kernel, kernel]) + bias),)


def lstm_of_the_equations(x, state, kernel, recurrent_kernel, bias):
    h, c = state
    parts = zip(np.split(kernel, 4, 1), np.split(recurrent_kernel, 4, 1), np.split(bias, 4), strict=True)
    forget, write, candidate, read = (x @ w + h @ u + b for w, u, b in parts)
    c = sigmoid(forget) * c + sigmoid(write) * np.tanh(candidate)
    return sigmoid(read) * np.tanh(c), c


def gru_of_the_equations(x, state, kernel, recurrent_kernel, bias):
    (h,) = state
    w_z, w_r, w_c = np.split(kernel, 3, axis=1)
    u_z, u_r, u_c = np.split(recurrent_kernel, 3, axis=1)
    b_z, b_r, b_c = np.split(bias, 3)
    z = sigmoid(x @ w_z + h @ u_z + b_z)
    r = sigmoid(x @ w_r + h @ u_r + b_r)
    return (z * h + (1 - z) * np.tanh(x @ w_c + r * (h @ u_c) + b_c),)


EQUATIONS = {"rnn": rnn_of_the_equations, "lstm": lstm_of_the_equations, "gru": gru_of_the_equations}


@pytest.mark.usefixtures("float64")
@every_cell
@both_ways
@pytest.mark.parametrize("with_initial_state", [False, True])
def test_equals_the_equations_row_by_row(cell, reverse, with_initial_state):
    layer, (inputs, mask) = built(cell), batch()
    first = some_state(cell, len(LENGTHS)) if with_initial_state else None
    outputs, state = layer(inputs, mask=mask, initial_state=first, reverse=reverse)
    begin = leaves(some_state(cell, len(LENGTHS)))
    for row, length in enumerate(LENGTHS):
        expected = [leaf[row] * with_initial_state for leaf in begin]
        for position in range(length)[::-1] if reverse else range(length):
            expected = EQUATIONS[cell](inputs[row, position], expected, *layer.get_weights())
            np.testing.assert_allclose(outputs[row, position], expected[0], rtol=1e-12)
        for leaf, want in zip(leaves(state), expected, strict=True):
            np.testing.assert_allclose(leaf[row], want, rtol=1e-12)
        # The state is carried over padding unchanged: not merely close.
        carried = begin[0][row] * with_initial_state if reverse else leaves(state)[0][row]
        np.testing.assert_array_equal(outputs[row, length:], np.tile(carried, (max(LENGTHS) - length, 1)))


# ---------------------------------------------------------------------------------------- other libraries, same weights

REFERENCE = np.load(Path(__file__).parent / "reference" / "recurrent.npz")
# Where PyTorch's gates stand in ours: its lstm has i, f, g, o; its gru r, z, c.
OURS_OF_TORCH = {"rnn": [0], "lstm": [1, 0, 2, 3], "gru": [1, 0, 2]}


def from_torch(cell, suffix):
    """W, U and b; PyTorch keeps them transposed, and two biases."""
    w, u, input_bias, state_bias = (
        REFERENCE[f"{cell}/{kind}_{suffix}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )

    def ordered(array):
        return np.concatenate([np.split(array, GATES[cell])[gate] for gate in OURS_OF_TORCH[cell]])

    return [ordered(w).T, ordered(u).T, ordered(input_bias + state_bias)]


@pytest.mark.usefixtures("float64")
@every_cell
def test_a_bidirectional_stack_equals_pytorch_with_copied_weights(cell):
    layer = stack(cell, layers=2, bidirectional=True)
    layer.set_weights(
        [weight for suffix in ("l0", "l0_reverse", "l1", "l1_reverse") for weight in from_torch(cell, suffix)]
    )
    inputs, lengths = tf.Variable(REFERENCE[f"{cell}/inputs"]), REFERENCE["lengths"]
    mask = np.arange(5) < lengths[:, None]
    with tf.GradientTape() as tape:
        outputs, states = layer(inputs, mask=mask)
        real = tf.where(mask[..., None], outputs, 0)
        loss = tf.reduce_sum(real**2) + sum(tf.reduce_sum(tf.sin(leaf)) for leaf in tf.nest.flatten(states))
    np.testing.assert_allclose(real, REFERENCE[f"{cell}/outputs"], rtol=1e-10)
    for part, index in (("h", 0), ("c", 1))[: len(leaves(states[0]))]:
        ours = [np.split(leaves(state)[index], 2, axis=-1) for state in states]  # levels, directions
        np.testing.assert_allclose(np.concatenate(ours), REFERENCE[f"{cell}/{part}"], rtol=1e-10)
    np.testing.assert_allclose(tape.gradient(loss, inputs), REFERENCE[f"{cell}/gradient"], rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
@every_cell
def test_equals_keras_with_copied_weights(cell):
    layer, (inputs, mask) = built(cell), batch([5, 2, 1, 4])
    options = {"gru": {"reset_after": True}}.get(cell, {})
    kind = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[cell]
    reference = kind(UNITS, return_sequences=True, return_state=True, **options)
    reference.build(inputs.shape)
    kernel, recurrent_kernel, bias = layer.get_weights()
    if cell == "gru":
        bias = np.stack([bias, np.zeros_like(bias)])
    if cell == "lstm":  # theirs in the order i, f, g, o
        kernel, recurrent_kernel, bias = (
            np.concatenate([np.split(array, 4, -1)[gate] for gate in (1, 0, 2, 3)], -1)
            for array in (kernel, recurrent_kernel, bias)
        )
    reference.set_weights([kernel, recurrent_kernel, bias])
    outputs, state = layer(inputs, mask=mask)
    for ours, theirs in zip((outputs, *leaves(state)), reference(inputs, mask=mask), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.usefixtures("float64")
@every_cell
@pytest.mark.parametrize(("reverse", "masked"), [(False, False), (False, True), (True, True)])
def test_gradients_equal_autodiff_through_single_steps(cell, reverse, masked):
    """The loop has a gradient of its own; `step` and `tf.where` have TensorFlow's."""
    layer, (inputs, mask) = built(cell), batch()
    mask = mask if masked else np.ones_like(mask)
    random = np.random.default_rng(3)
    read = tf.constant(random.normal(size=(*mask.shape, UNITS)))
    inputs, first = tf.Variable(inputs), tf.nest.map_structure(tf.Variable, some_state(cell, len(LENGTHS)))
    variables = [inputs, *tf.nest.flatten(first), *(weight.value for weight in layer.weights)]

    @tf.function
    def looped():
        with tf.GradientTape() as tape:
            start = tf.nest.map_structure(tf.convert_to_tensor, first)
            outputs, state = layer(inputs, mask=mask if masked else None, initial_state=start, reverse=reverse)
            loss = tf.reduce_sum(read * outputs) + sum(tf.reduce_sum(x**2) for x in tf.nest.flatten(state))
        return loss, tape.gradient(loss, variables)

    with tf.GradientTape() as tape:
        state, want = tf.nest.map_structure(tf.convert_to_tensor, first), 0.0
        for position in range(max(LENGTHS))[:: -1 if reverse else 1]:
            _, following = layer.step(inputs[:, position], state)
            here = mask[:, position, None]
            state = tf.nest.map_structure(lambda new, old, here=here: tf.where(here, new, old), following, state)
            want += tf.reduce_sum(read[:, position] * tf.nest.flatten(state)[0])
        want += sum(tf.reduce_sum(x**2) for x in tf.nest.flatten(state))
    loss, gradients = looped()
    np.testing.assert_allclose(loss, want, rtol=1e-12)
    for ours, theirs in zip(gradients, tape.gradient(want, variables), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("float64")
@every_cell
def test_gradients_equal_finite_differences(cell):
    layer, (inputs, mask) = built(cell), batch()
    random = np.random.default_rng(3)
    inputs = tf.Variable(inputs)
    read = random.normal(size=(*mask.shape, UNITS))

    @tf.function
    def loss():
        outputs, state = layer(inputs, mask=mask)
        return tf.reduce_sum(outputs * read) + sum(tf.reduce_sum(tf.sin(leaf)) for leaf in tf.nest.flatten(state))

    variables = [inputs, *(weight.value for weight in layer.trainable_variables)]
    with tf.GradientTape() as tape:
        value = loss()
    for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
        direction, h = random.normal(size=variable.shape), 1e-6
        variable.assign_add(h * direction)
        above = loss()
        variable.assign_sub(2 * h * direction)
        slope = (above - loss()) / (2 * h)
        variable.assign_add(h * direction)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6, err_msg=variable.name)


@pytest.mark.usefixtures("float64")
@every_cell
def test_no_gradient_comes_from_padding(cell):
    layer, (inputs, mask) = built(cell), batch()
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs, _ = layer(inputs, mask=mask)
        loss = tf.reduce_sum(outputs)
    gradient = tape.gradient(loss, inputs).numpy()
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).all()


@pytest.mark.usefixtures("float64")
def test_jacobians_of_the_state_across_time():
    """What is looked at for vanishing gradients; of a linear layer it is a power of U, transposed."""
    layer = RNN(UNITS, activation="linear", name="linear")
    layer.build((None, None, FEATURES))
    fill(layer)
    inputs, first = tf.constant(batch([3])[0]), some_state("rnn", 1)

    @tf.function
    def jacobian():
        with tf.GradientTape() as tape:
            tape.watch(first)
            _, last = layer(inputs, initial_state=first)
        return tape.jacobian(last, first, experimental_use_pfor=False)[0, :, 0]

    power = np.linalg.matrix_power(layer.recurrent_kernel.numpy(), 3)
    np.testing.assert_allclose(jacobian(), power.T, rtol=1e-10)


# ------------------------------------------------------------------------------------------------- masks, steps, shapes


@pytest.mark.usefixtures("float64")
@every_cell
@both_ways
def test_padding_and_batch_mates_change_nothing(cell, reverse):
    layer, (inputs, mask) = stack(cell, layers=2, bidirectional=True), batch()
    outputs, states = layer(inputs, mask=mask, reverse=reverse)
    for row, length in enumerate(LENGTHS):  # one of them has no steps at all
        alone, alone_states = layer(inputs[row : row + 1, :length], reverse=reverse)
        np.testing.assert_allclose(alone[0], outputs[row, :length], rtol=1e-12)
        for leaf, alone_leaf in zip(leaves(states), leaves(alone_states), strict=True):
            np.testing.assert_allclose(alone_leaf[0], leaf[row], rtol=1e-12)


@pytest.mark.usefixtures("float64")
@every_cell
def test_steps_equal_the_whole_sequence_for_any_axes_in_front(cell):
    layer, (inputs, _) = stack(cell, layers=2), batch()
    first = tuple(layer.zero_state(len(LENGTHS)) for (layer,) in layer.levels)
    outputs, last = layer(inputs)
    beams = tf.nest.map_structure(lambda leaf: tf.stack([leaf, leaf + 1], axis=1), first)  # (rows, beams, units)
    states = first
    for position in range(max(LENGTHS)):
        output, states = layer.step(inputs[:, position], states)
        np.testing.assert_allclose(output, outputs[:, position], rtol=1e-12)
        each, beams = layer.step(np.stack([inputs[:, position]] * 2, axis=1), beams)
        np.testing.assert_allclose(each[:, 0], outputs[:, position], rtol=1e-12)
        assert np.abs(each[:, 1] - each[:, 0]).max() > 1e-6
    for leaf, want in zip(leaves(states), leaves(last), strict=True):
        np.testing.assert_allclose(leaf, want, rtol=1e-12)


def test_one_trace_serves_all_shapes():
    layer = stack("lstm", bidirectional=True)
    traced = tf.function(
        lambda inputs, mask: layer(inputs, mask=mask),
        input_signature=[tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, None), tf.bool)],
    )
    for lengths in ([3], [6, 1]):
        inputs, mask = batch(lengths)
        outputs, states = traced(inputs.astype("float32"), mask)
        assert outputs.shape == (len(lengths), max(lengths), 2 * UNITS)
        for leaf, want in zip(leaves(states), leaves(layer(inputs, mask=mask)[1]), strict=True):
            np.testing.assert_allclose(leaf, want, rtol=1e-5, atol=1e-6)


@every_cell
def test_mixed_precision_keeps_weights_in_float32_and_multiplies_in_bfloat16(cell):
    exact, (inputs, mask) = built(cell), batch()
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = built(cell)
    weights = [weight.value for weight in layer.weights]
    with tf.GradientTape() as tape:
        outputs, state = layer(inputs, mask=mask)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32))
    gradients = tape.gradient(loss, weights)
    output, _ = layer.step(inputs[:, 0], layer.zero_state(len(LENGTHS)))
    assert {outputs.dtype, output.dtype, *(leaf.dtype for leaf in tf.nest.flatten(state))} == {tf.bfloat16}
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    assert {gradient.dtype for gradient in gradients} == {tf.float32}
    # bfloat16 has 8 significant bits; a handful of steps lose a few of them.
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), exact(inputs, mask=mask)[0], atol=0.06)


# ------------------------------------------------------------------------------------------------------ first weights


@every_cell
def test_each_gate_is_drawn_on_its_own(cell):
    layer = CELLS[cell](64, name=cell)
    layer.build((None, None, 32))
    gates = np.split(layer.recurrent_kernel.numpy(), GATES[cell], axis=1)
    for gate in gates:  # orthogonal: U^T U = I
        np.testing.assert_allclose(gate.T @ gate, np.eye(64), atol=1e-5)
    assert len({gate[0, 0] for gate in gates}) == GATES[cell]
    # Glorot and Bengio 2010, equation 16, with the fans of one gate: uniform within sqrt(6 / (32 + 64)) = 0.25.
    assert 0.24 < np.abs(layer.kernel).max() <= 0.25


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, 2.5])
def test_the_forget_gate_has_a_bias_of_its_own(forget_bias):
    layer = LSTM(UNITS, forget_bias=forget_bias)
    layer.build((None, None, FEATURES))
    assert layer.bias.numpy().tolist() == [forget_bias] * UNITS + [0.0] * 3 * UNITS
    assert not any(built_layer.bias.numpy().any() for built_layer in _unfilled("rnn", "gru"))
    deep = Stack("lstm", UNITS, layers=2, forget_bias=forget_bias, name="deep")
    deep.build((None, None, FEATURES))
    assert [layer.bias.numpy()[0] for (layer,) in deep.levels] == [forget_bias] * 2


def _unfilled(*cells):
    for cell in cells:
        layer = CELLS[cell](UNITS)
        layer.build((None, None, FEATURES))
        yield layer


def test_memories_last_where_the_forget_gate_is_open():
    """With a wide open forget gate and closed input gate the cell keeps its value: c' = f c + i g."""
    layer = LSTM(1, forget_bias=50.0)
    layer.build((None, None, 1))
    layer.set_weights([np.zeros((1, 4)), np.zeros((1, 4)), np.array([50.0, -50.0, 0.0, 0.0])])
    _, state = layer(np.ones((1, 100, 1)), initial_state=LSTMState(np.zeros((1, 1)), np.full((1, 1), 7.0)))
    assert float(state.c[0, 0]) == pytest.approx(7.0)
    assert float(state.h[0, 0]) == pytest.approx(0.5 * np.tanh(7.0), rel=1e-5)


NON_LINEARITIES = {
    "relu": lambda z: max(z, 0),
    "relu_squared": lambda z: max(z, 0) ** 2,
    "leaky_relu": lambda z: max(z, 0.2 * z),
    "elu": lambda z: z if z > 0 else np.exp(z) - 1,
    "gelu": lambda z: z * math.erfc(-z / math.sqrt(2)) / 2,
    "silu": lambda z: z * sigmoid(z),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "linear": lambda z: z,
}


@pytest.mark.parametrize("activation", get_args(Activation))
def test_the_plain_layer_takes_every_activation(activation):
    """h' = f(x + 2 h + 1/2), of which f gets numbers on both sides of 0."""
    layer = RNN(1, activation=activation)
    layer.build((None, None, 1))
    layer.set_weights([np.array([[1.0]]), np.array([[2.0]]), np.array([0.5])])
    outputs, state = layer(np.array([[[1.0], [-6.0], [3.0]]]))
    expected, h = [], 0.0
    for x in (1.0, -6.0, 3.0):
        h = NON_LINEARITIES[activation](x + 2 * h + 0.5)
        expected.append(h)
    np.testing.assert_allclose(outputs.numpy().ravel(), expected, rtol=1e-5, atol=1e-6)
    step, _ = layer.step(np.array([[-6.0]]), outputs[:, 0])
    np.testing.assert_allclose(step, outputs[:, 1], rtol=1e-5, atol=1e-6)
    assert state.shape == (1, 1)


# --------------------------------------------------------------------------------------------------------------- stacks


@pytest.mark.usefixtures("float64")
@every_cell
def test_bidirectional_is_forward_and_reversed_side_by_side(cell):
    layer, (inputs, mask) = stack(cell, bidirectional=True), batch()
    forward, backward = layer.levels[0]
    outputs, (state,) = layer(inputs, mask=mask)
    ahead, ahead_state = forward(inputs, mask=mask)
    back, back_state = backward(inputs, mask=mask, reverse=True)
    np.testing.assert_array_equal(outputs, np.concatenate([ahead, back], axis=-1))
    for leaf, *sides in zip(leaves(state), leaves(ahead_state), leaves(back_state), strict=True):
        np.testing.assert_array_equal(leaf, np.concatenate(sides, axis=-1))
    # Reversed is: each row turned around, read forward, and turned around again.
    turned = inputs.copy()
    for row, length in enumerate(LENGTHS):
        turned[row, :length] = inputs[row, :length][::-1]
    read, _ = backward(turned, mask=mask)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(back[row, :length], read.numpy()[row, :length][::-1], rtol=1e-12)


@pytest.mark.usefixtures("float64")
@every_cell
@both_ways
def test_a_stack_is_one_layer_after_another(cell, reverse):
    layer, (inputs, mask) = stack(cell, layers=3), batch()
    first = tuple(some_state(cell, len(LENGTHS), seed) for seed in range(3))
    outputs, states = layer(inputs, mask=mask, initial_state=first, reverse=reverse)
    x = inputs
    for (level,), begin, state in zip(layer.levels, first, states, strict=True):
        x, want = level(x, mask=mask, initial_state=begin, reverse=reverse)
        for leaf, other in zip(leaves(state), leaves(want), strict=True):
            np.testing.assert_array_equal(leaf, other)
    np.testing.assert_array_equal(outputs, x)


@pytest.mark.usefixtures("float64")
@every_cell
def test_a_bidirectional_stack_goes_on_from_its_own_state(cell):
    """Each direction gets its half back: the forward one reads on where it stopped."""
    layer, (inputs, _) = stack(cell, bidirectional=True), batch([6])
    whole, _ = layer(inputs)
    _, states = layer(inputs[:, :4])
    rest, _ = layer(inputs[:, 4:], initial_state=states)
    np.testing.assert_allclose(rest[..., :UNITS], whole[:, 4:, :UNITS], rtol=1e-12)
    assert np.abs(rest[..., UNITS:] - whole[:, 4:, UNITS:]).max() > 1e-3


@pytest.mark.parametrize("time", [1, 4])
def test_a_decoder_step_by_step(time):
    """Its state is the sum of all inputs so far, and it says that and the number of the step."""
    inputs = np.random.default_rng(0).normal(size=(2, time, 3)).astype(np.float32)

    def step(given, state):
        total, count = state
        assert given.shape == total.shape == (2, 1, 3)
        total, count = total + given, count + 1
        return tf.concat([total, count], -1), (total, count)

    outputs = one_by_one(step, tf.constant(inputs), (tf.zeros((2, 3)), tf.zeros((2, 1))), width=4)
    numbers = np.broadcast_to(np.arange(1, time + 1)[:, np.newaxis], (2, time, 1))
    np.testing.assert_allclose(outputs, np.concatenate([inputs.cumsum(1), numbers], -1), rtol=1e-5, atol=1e-6)


def test_dropout_is_between_levels_only():
    inputs, mask = batch()

    def outputs(training, seed=1, **options):
        with step_context.use(StepContext(tf.constant([seed, 0]), tf.constant(0))):
            return stack("lstm", **options)(inputs, mask=mask, training=training)[0].numpy()

    shallow, deep = {"dropout": 0.5}, {"layers": 2, "dropout": 0.5}
    np.testing.assert_array_equal(outputs(True, **shallow), outputs(False, **shallow))
    np.testing.assert_array_equal(outputs(False, **deep), outputs(False, layers=2))
    assert np.abs(outputs(True, **deep) - outputs(False, **deep)).max() > 0.01
    assert np.abs(outputs(True, **deep) - outputs(True, seed=2, **deep)).max() > 0.01
    # Each step's input to the second level is dropped anew: what is dropped is not the same for all steps.
    layer = stack("lstm", **deep)
    with step_context.use(StepContext(tf.constant([1, 0]), tf.constant(0))):
        dropped = layer.dropouts[0](tf.ones((1, 50, UNITS)), training=True).numpy()[0]
    assert len({tuple(step) for step in dropped}) > 5


def test_names_are_by_place():
    layer = Stack("gru", 2, layers=2, bidirectional=True, dropout=0.1, name="encoder")
    layer.build((None, None, 3))
    places = [f"encoder/encoder_gru{level}{side}" for level in (1, 2) for side in ("", "_backward")]
    parts = ("kernel", "recurrent_kernel", "bias")
    assert [weight.path for weight in layer.weights] == [f"{place}/{part}" for place in places for part in parts]
    # Layers of the second level read both directions of the first.
    assert [tuple(weight.shape) for weight in layer.weights[::3]] == [(3, 6)] * 2 + [(4, 6)] * 2


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRU(4, recurrent_init="orthogonl").build((None, None, 3)), "unknown init: orthogonl"),
        (lambda: RNN(4, activation="tahn"), "unknown activation: tahn"),
        (lambda: Stack("lstn", 4, name="encoder"), "unknown cell: lstn"),
    ],
)
def test_an_unknown_name_is_a_usage_error(make, message):
    with pytest.raises(UsageError, match=message) as error:
        make()
    assert "did you mean" in error.value.hint
