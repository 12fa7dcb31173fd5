"""Recurrent layers, from their equations: one input projection for all steps, one recurrent product a step.

In the equations x is the input, h the state before it and h' the state after it; * multiplies elementwise.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from dlkit.errors import UsageError, unknown
from dlkit.layers.activations import Activation, function
from dlkit.layers.attention import linear, sizes
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import side_by_side
from dlkit.layers.recurrent_scan import State, scan

Cell = Literal["rnn", "lstm", "gru"]


class LSTMState(NamedTuple):
    """What an LSTM carries from step to step, both (..., units)."""

    h: tf.Tensor  # the output
    c: tf.Tensor  # the memory cell, which is never squashed


class Recurrent(keras.layers.Layer):
    """What the cells share. A cell says how many gates it has, and in `advance` how they make its next state.

    Args:
        units: width of the state.
        init: initializer of each gate's W.
        recurrent_init: initializer of each gate's U.
    """

    gates: int

    def __init__(
        self, units: int, *, init: str = "glorot", recurrent_init: str = "orthogonal", name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.units = units
        self.init = init
        self.recurrent_init = recurrent_init

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates W (inputs, gates * units), U (units, gates * units) and b, gates side by side in the order named."""
        width = self.gates * self.units
        kernel, recurrent_kernel = (side_by_side(name, self.gates) for name in (self.init, self.recurrent_init))
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], width), initializer=kernel)
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(self.units, width), initializer=recurrent_kernel
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer=self.first_bias)

    def first_bias(self, shape: tuple[int], dtype: Any = None) -> tf.Tensor:
        """The bias before training."""
        return ops.zeros(shape, dtype)

    def gate_values(self, projected: tf.Tensor, product: tf.Tensor) -> dict[str, tf.Tensor]:
        """The gates and the candidate by name, (..., units) each, of x W + b and h U; the plain layer has none."""
        return {}

    def advance(self, projected: tf.Tensor, product: tf.Tensor, state: State) -> State:
        """The state after one input: x W + b and h U, both (..., gates * units), and the state before the input."""
        raise NotImplementedError

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor | None = None,
        initial_state: State | None = None,
        reverse: bool = False,
    ) -> tuple[tf.Tensor, State]:
        """Runs over whole sequences.

        Args:
            inputs: (batch, time, features).
            mask: (batch, time) bool, False at padding, over which the state is carried unchanged; None without padding.
            initial_state: the state before the first input, of tensors (batch, units); None for zeros.
            reverse: read each row from its last real element back to its first.

        Returns:
            The outputs, (batch, time, units), each at the place of its input, and the state after the last input.
        """
        batch, steps, _ = inputs.shape
        outputs, state = scan(
            self.advance,
            self._project(tf.transpose(inputs, (1, 0, 2))),
            ops.cast(self.recurrent_kernel, self.compute_dtype),
            self.zero_state(sizes(inputs)[0]) if initial_state is None else initial_state,
            mask=None if mask is None else tf.transpose(mask),
            reverse=reverse,
        )
        return tf.ensure_shape(tf.transpose(outputs, (1, 0, 2)), (batch, steps, self.units)), state

    def step(self, inputs: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """One step: inputs (..., features) and the state before them give the output and the state after them."""
        recurrent = ops.cast(self.recurrent_kernel, self.compute_dtype)
        product = tf.tensordot(tf.nest.flatten(state)[0], recurrent, 1)
        state = self.advance(self._project(inputs), product, state)
        return tf.nest.flatten(state)[0], state

    def zero_state(self, *rows: int | tf.Tensor) -> State:
        """The state before the first input, for rows of the given sizes: `zero_state(batch)`."""
        return tf.zeros((*rows, self.units), self.compute_dtype)

    def compute_mask(self, inputs: tf.Tensor, previous_mask: tf.Tensor | None = None) -> None:
        """Attaches no mask to the results, unlike Keras' layers: a mask goes only where it is passed."""

    def _project(self, inputs: tf.Tensor) -> tf.Tensor:
        dtype = self.compute_dtype  # cast here: Keras does it for `call`, not for `step`
        return linear(*(ops.cast(tensor, dtype) for tensor in (inputs, self.kernel, self.bias)))


class RNN(Recurrent):
    """The plain recurrent layer (Elman 1990): one matrix on the state and the input side by side, one non-linearity.

        h' = tanh([h, x] [U; W] + b) = tanh(h U + x W + b)

    The matrix is kept as its two parts, U above W: so the products of all inputs with W are one.

    Args:
        activation: the non-linearity.

    Example:
        >>> outputs, state = RNN(64)(tf.ones((2, 5, 8)), mask=tf.sequence_mask([5, 3], 5))
        >>> outputs.shape, state.shape
        (TensorShape([2, 5, 64]), TensorShape([2, 64]))
    """

    gates = 1

    def __init__(
        self,
        units: int,
        *,
        init: str = "glorot",
        recurrent_init: str = "orthogonal",
        activation: Activation = "tanh",
        name: str | None = None,
    ) -> None:
        super().__init__(units, init=init, recurrent_init=recurrent_init, name=name)
        self.activation = function(activation)

    def advance(self, projected: tf.Tensor, product: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """The equation above."""
        return self.activation(projected + product)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with the forget gate of Gers et al. 2000.

        f  = sigmoid(x W_f + h U_f + b_f)     forget gate
        i  = sigmoid(x W_i + h U_i + b_i)     input gate
        g  = tanh(x W_g + h U_g + b_g)        candidate
        o  = sigmoid(x W_o + h U_o + b_o)     output gate
        c' = f * c + i * g
        h' = o * tanh(c')

    Args:
        forget_bias: b_f before training, the other biases being 0. At 1 the gate is open, so that memories last until
            the layer has learned when to forget (Jozefowicz et al. 2015).

    Example:
        >>> outputs, state = LSTM(64)(tf.ones((2, 5, 8)))
        >>> outputs.shape, state.h.shape, state.c.shape
        (TensorShape([2, 5, 64]), TensorShape([2, 64]), TensorShape([2, 64]))
    """

    gates = 4

    def __init__(
        self,
        units: int,
        *,
        init: str = "glorot",
        recurrent_init: str = "orthogonal",
        forget_bias: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(units, init=init, recurrent_init=recurrent_init, name=name)
        self.forget_bias = forget_bias

    def first_bias(self, shape: tuple[int], dtype: Any = None) -> tf.Tensor:
        """`forget_bias` in the forget gate, else 0."""
        return ops.concatenate(
            [ops.full((self.units,), self.forget_bias, dtype), ops.zeros((shape[0] - self.units,), dtype)]
        )

    def gate_values(self, projected: tf.Tensor, product: tf.Tensor) -> dict[str, tf.Tensor]:
        """The first four equations above."""
        forget, write, candidate, read = tf.split(projected + product, 4, axis=-1)
        return {
            "forget gate": tf.sigmoid(forget),
            "input gate": tf.sigmoid(write),
            "candidate": tf.tanh(candidate),
            "output gate": tf.sigmoid(read),
        }

    def advance(self, projected: tf.Tensor, product: tf.Tensor, state: LSTMState) -> LSTMState:
        """The equations above."""
        forget, write, candidate, read = self.gate_values(projected, product).values()
        c = forget * state.c + write * candidate
        return LSTMState(read * tf.tanh(c), c)

    def zero_state(self, *rows: int | tf.Tensor) -> LSTMState:
        """Zeros for h and for c."""
        return LSTMState(super().zero_state(*rows), super().zero_state(*rows))


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder").

    Of its two published forms this is the first (arXiv:1406.1078v1): the reset gate acts after the recurrent product,
    so that one product a step serves all three gates. In the other the candidate has (r * h) U_c and needs a second.

        z  = sigmoid(x W_z + h U_z + b_z)        update gate
        r  = sigmoid(x W_r + h U_r + b_r)        reset gate
        c  = tanh(x W_c + r * (h U_c) + b_c)     candidate
        h' = z * h + (1 - z) * c

    Example:
        >>> outputs, state = GRU(64)(tf.ones((2, 5, 8)), reverse=True)
        >>> outputs.shape, state.shape
        (TensorShape([2, 5, 64]), TensorShape([2, 64]))
    """

    gates = 3

    def gate_values(self, projected: tf.Tensor, product: tf.Tensor) -> dict[str, tf.Tensor]:
        """The first three equations above."""
        input_z, input_r, input_c = tf.split(projected, 3, axis=-1)
        state_z, state_r, state_c = tf.split(product, 3, axis=-1)
        update = tf.sigmoid(input_z + state_z)
        reset = tf.sigmoid(input_r + state_r)
        return {"update gate": update, "reset gate": reset, "candidate": tf.tanh(input_c + reset * state_c)}

    def advance(self, projected: tf.Tensor, product: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """The equations above."""
        update, _, candidate = self.gate_values(projected, product).values()
        return update * state + (1 - update) * candidate


class Stack(keras.layers.Layer):
    """Recurrent layers on top of each other, each reading the outputs of the one below.

    A bidirectional stack has two layers at each level, one that reads forward and one that reads back; their outputs
    stand side by side and go to both layers above (Schuster and Paliwal 1997). Dropout acts between the levels, never
    between time steps (Zaremba et al. 2014).

    Args:
        cell: rnn, lstm or gru.
        units: width of the state of each layer, and of each direction.
        layers: number of levels.
        bidirectional: whether every level reads both ways.
        dropout: share of units dropped between levels.
        init: initializer of the input matrices.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: see `LSTM`; the other cells have none.
        activation: the non-linearity of the plain `RNN`; the other cells have their own.
        name: its layers are called `name_lstm1`, `name_lstm1_backward`, `name_lstm2` and so on.

    Raises:
        dlkit.errors.UsageError: there is no such cell.

    Example:
        >>> encoder = Stack("lstm", 64, layers=2, bidirectional=True, name="encoder")
        >>> outputs, states = encoder(tf.ones((2, 5, 8)))
        >>> outputs.shape, states[1].h.shape
        (TensorShape([2, 5, 128]), TensorShape([2, 128]))
    """

    names_parts = True  # views name them without it

    def __init__(
        self,
        cell: Cell,
        units: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        init: str = "glorot",
        recurrent_init: str = "orthogonal",
        forget_bias: float = 1.0,
        activation: Activation = "tanh",
        name: str,
    ) -> None:
        super().__init__(name=name)
        kinds: dict[str, Callable[..., Recurrent]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
        if cell not in kinds:
            raise unknown("cell", cell, kinds)
        options: dict[str, Any] = {"init": init, "recurrent_init": recurrent_init}
        if cell == "lstm":
            options["forget_bias"] = forget_bias
        if cell == "rnn":
            options["activation"] = activation
        directions = ("", "_backward") if bidirectional else ("",)
        self.units = units
        self.levels = [
            [kinds[cell](units, **options, name=f"{name}_{cell}{level}{direction}") for direction in directions]
            for level in range(1, layers + 1)
        ]
        self.dropouts = [Dropout(dropout, name=f"{name}_dropout{level}") for level in range(1, layers)]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds all layers."""
        for level in self.levels:
            for layer in level:
                layer.build(input_shape)
            input_shape = (*input_shape[:-1], len(level) * self.units)

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor | None = None,
        initial_state: tuple[State, ...] | None = None,
        reverse: bool = False,
        training: bool = False,
    ) -> tuple[tf.Tensor, tuple[State, ...]]:
        """Runs over whole sequences.

        Args:
            inputs: (batch, time, features).
            mask: (batch, time) bool, False at padding; None without padding.
            initial_state: of each level, before the first input; None for zeros.
            reverse: read each row from its last real element back to its first.
            training: whether dropout is on.

        Returns:
            The outputs of the highest level, (batch, time, units), and the state of each level after the last input.
            Of a bidirectional stack outputs and states have 2 * units, those that read forward first.
        """
        states = []
        for index, level in enumerate(self.levels):
            if index:
                inputs = self.dropouts[index - 1](inputs, training=training)
            first = [None] * len(level) if initial_state is None else _apart(initial_state[index], len(level))
            results = [
                layer(inputs, mask=mask, initial_state=state, reverse=back != reverse)
                for layer, state, back in zip(level, first, (False, True), strict=False)
            ]
            inputs = results[0][0] if len(results) == 1 else tf.concat([outputs for outputs, _ in results], -1)
            states.append(_joined([state for _, state in results]))
        return inputs, tuple(states)

    def step(self, inputs: tf.Tensor, states: tuple[State, ...]) -> tuple[tf.Tensor, tuple[State, ...]]:
        """One step without dropout: inputs (..., features) and the states before them give output and states after.

        A bidirectional stack has none, since it has to know the whole sequence.
        """
        following = []
        for (layer,), before in zip(self.levels, states, strict=True):
            inputs, after = layer.step(inputs, before)
            following.append(after)
        return inputs, tuple(following)

    def compute_mask(self, inputs: tf.Tensor, previous_mask: tf.Tensor | None = None) -> None:
        """Attaches no mask to the results."""


def one_by_one(
    step: Callable[[tf.Tensor, State], tuple[tf.Tensor, State]], inputs: tf.Tensor, state: State, *, width: int
) -> tf.Tensor:
    """All steps of a decoder, one after another: each can read what follows from the state before it.

    Args:
        step: takes an input (batch, 1, features) and the state before it, and gives an output (batch, 1, width) and the
            state after it; of a state the tensors are (batch, 1, units).
        inputs: (batch, time, features).
        state: before the first step, a nest of tensors (batch, units).
        width: of the outputs.

    Returns:
        The outputs, (batch, time, width).
    """
    batch, time, _ = inputs.shape
    steps = tf.shape(inputs)[1]
    by_step = tf.TensorArray(inputs.dtype, steps).unstack(tf.transpose(inputs, (1, 0, 2))[:, :, tf.newaxis])

    def body(at: tf.Tensor, state: State, outputs: tf.TensorArray) -> tuple[tf.Tensor, State, tf.TensorArray]:
        output, state = step(by_step.read(at), state)
        return at + 1, state, outputs.write(at, output[:, 0])

    first = tf.nest.map_structure(lambda leaf: leaf[:, tf.newaxis], state)
    _, _, outputs = tf.while_loop(
        lambda at, *_: at < steps,
        body,
        (0, first, tf.TensorArray(inputs.dtype, steps)),
        maximum_iterations=steps,  # XLA differentiates only loops with a bound
    )
    return tf.ensure_shape(tf.transpose(outputs.stack(), (1, 0, 2)), (batch, time, width))


def _joined(states: list[State]) -> State:
    return states[0] if len(states) == 1 else tf.nest.map_structure(lambda *leaves: tf.concat(leaves, -1), *states)


def _apart(state: State, parts: int) -> list[State]:
    halves = [tf.split(leaf, parts, axis=-1) for leaf in tf.nest.flatten(state)]
    return [tf.nest.pack_sequence_as(state, leaves) for leaves in zip(*halves, strict=True)]


def units_each_way(width: int, *, bidirectional: bool) -> int:
    """The units of each direction of an encoder whose outputs are `width` wide: half of it when it reads both ways.

    Raises:
        dlkit.errors.UsageError: it does, and the width is odd.
    """
    if not bidirectional:
        return width
    if width % 2:
        raise UsageError(
            f"a bidirectional encoder has half of the width for each direction, and {width} is odd",
            f"set model.width={width + 1} or model.bidirectional=false",
        )
    return width // 2
