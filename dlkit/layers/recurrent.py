"""Recurrent layers, from their equations: one input projection for all steps, one recurrent product a step."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dlkit.layers.initializers import initializer


class GRU(keras.layers.Layer):
    """Gated recurrent unit (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder").

    Of its two published forms this is the first (arXiv:1406.1078v1): the reset gate acts after the recurrent product,
    so that one product a step serves all three gates. In the other the candidate has (r * h) U_c and needs a second.

        z  = sigmoid(x W_z + h U_z + b_z)        update gate
        r  = sigmoid(x W_r + h U_r + b_r)        reset gate
        c  = tanh(x W_c + r * (h U_c) + b_c)     candidate
        h' = z * h + (1 - z) * c

    Args:
        units: width of the state.
        init: initializer of each W.
        recurrent_init: initializer of each U.

    Example:
        >>> outputs, state = GRU(64)(tf.ones((2, 5, 8)), mask=tf.sequence_mask([5, 3], 5))
        >>> outputs.shape, state.shape
        (TensorShape([2, 5, 64]), TensorShape([2, 64]))
    """

    def __init__(
        self, units: int, *, init: str = "glorot", recurrent_init: str = "orthogonal", name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.units = units
        self.init = init
        self.recurrent_init = recurrent_init

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates W (inputs, 3 * units), U (units, 3 * units) and b, gates side by side in the order z, r, c."""
        gates = 3 * self.units
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], gates), initializer=_gate_by_gate(self.init, 3)
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(self.units, gates), initializer=_gate_by_gate(self.recurrent_init, 3)
        )
        self.bias = self.add_weight(name="bias", shape=(gates,), initializer="zeros")

    def call(
        self, inputs: tf.Tensor, mask: tf.Tensor | None = None, initial_state: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs over whole sequences.

        Args:
            inputs: (batch, time, features).
            mask: (batch, time) bool, False at padding, over which the state is carried unchanged; None without padding.
            initial_state: (batch, units), the state before the first input; None for zeros.

        Returns:
            The outputs, (batch, time, units), and the state after the last input, (batch, units).
        """
        projected = tf.transpose(self._project(inputs), (1, 0, 2))  # (time, batch, 3 * units)
        recurrent = ops.cast(self.recurrent_kernel, self.compute_dtype)
        steps = tf.shape(projected)[0]
        if initial_state is None:
            initial_state = tf.zeros((tf.shape(projected)[1], self.units), projected.dtype)
        # In the graph, not unrolled: as fast on a CPU, and the graph does not grow with the length.
        by_step = tf.TensorArray(projected.dtype, steps).unstack(projected)
        real = None if mask is None else tf.TensorArray(tf.bool, steps).unstack(tf.transpose(mask)[..., tf.newaxis])

        def body(step: tf.Tensor, state: tf.Tensor, outputs: tf.TensorArray) -> tuple[tf.Tensor, ...]:
            following = _gru(by_step.read(step), state, recurrent)
            if real is not None:
                following = tf.where(real.read(step), following, state)
            return step + 1, following, outputs.write(step, following)

        _, state, outputs = tf.while_loop(
            lambda step, *_: step < steps,
            body,
            (0, initial_state, tf.TensorArray(projected.dtype, steps)),
            maximum_iterations=steps,  # XLA differentiates only loops with a bound
        )
        outputs = tf.transpose(outputs.stack(), (1, 0, 2))  # (batch, time, units)
        return tf.ensure_shape(outputs, (*inputs.shape[:2], self.units)), state

    def compute_mask(self, inputs: tf.Tensor, previous_mask: tf.Tensor | None = None) -> None:
        """Attaches no mask to the results, unlike Keras' layers: a mask goes only where it is passed."""

    def step(self, inputs: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One step: inputs (batch, features) and the state before them give the output and the state after them."""
        state = _gru(self._project(inputs), state, ops.cast(self.recurrent_kernel, self.compute_dtype))
        return state, state

    def _project(self, inputs: tf.Tensor) -> tf.Tensor:
        dtype = self.compute_dtype  # cast here: Keras does it for `call`, not for `step`
        return ops.matmul(ops.cast(inputs, dtype), ops.cast(self.kernel, dtype)) + ops.cast(self.bias, dtype)


def _gru(projected: tf.Tensor, state: tf.Tensor, recurrent: tf.Tensor) -> tf.Tensor:
    """The state after `state` for projected inputs x W + b, (batch, 3 * units), and the recurrent kernel U."""
    input_z, input_r, input_c = tf.split(projected, 3, axis=-1)
    state_z, state_r, state_c = tf.split(tf.matmul(state, recurrent), 3, axis=-1)
    update = tf.sigmoid(input_z + state_z)
    reset = tf.sigmoid(input_r + state_r)
    candidate = tf.tanh(input_c + reset * state_c)
    return update * state + (1 - update) * candidate


def _gate_by_gate(name: str, gates: int) -> Callable[..., Any]:
    """An initializer for matrices that stand side by side: each is drawn on its own, with its own fans."""
    initializers = [initializer(name) for _ in range(gates)]

    def draw(shape: tuple[int, int], dtype: Any = None) -> Any:
        return ops.concatenate([one((shape[0], shape[1] // gates), dtype) for one in initializers], axis=1)

    return draw
