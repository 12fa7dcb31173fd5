"""The loop over time that all recurrent cells share, and its gradient."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

State = Any  # a nest of tensors (..., units) whose first leaf is h, the one that the recurrent product takes
Advance = Callable[[tf.Tensor, tf.Tensor, State], State]


def scan(
    advance: Advance,
    projected: tf.Tensor,
    recurrent: tf.Tensor,
    state: State,
    *,
    mask: tf.Tensor | None = None,
    reverse: bool = False,
) -> tuple[tf.Tensor, State]:
    """Runs a cell over time: one product h U a step, everything else elementwise.

    A loop in the graph, not unrolled: as fast on a CPU, and the graph does not grow with the length. The gradient is
    a loop of its own for two reasons. The gradient of U is one product over all steps after that loop, where
    TensorFlow's own would add up one for each step. And the gates are computed again from the two products instead of
    being kept, so that one step keeps its products and its state only. Each cell's derivative is TensorFlow's.

    Args:
        advance: (x W + b, h U, state) -> the state after it, elementwise: no product of matrices, no weights.
        projected: x W + b for all inputs, (time, batch, gates).
        recurrent: U, (units, gates).
        state: before the first input.
        mask: (time, batch) bool, False at padding, over which the state is carried unchanged; None without padding.
        reverse: go from the last step to the first. Rows that are padded at their end begin at their last real element.

    Returns:
        h after each step, (time, batch, units), at the place of the step's input; and the state after the last step.
    """
    steps, structure = tf.shape(projected)[0], state
    real = None if mask is None else _rows(mask[..., tf.newaxis])

    def place(step: tf.Tensor) -> tf.Tensor:
        return steps - 1 - step if reverse else step

    def following(at: tf.Tensor, given: tf.Tensor, product: tf.Tensor, leaves: list[tf.Tensor]) -> list[tf.Tensor]:
        reached = tf.nest.flatten(advance(given, product, tf.nest.pack_sequence_as(structure, leaves)))
        if real is None:
            return reached
        here = real.read(at)
        return [tf.where(here, new, old) for new, old in zip(reached, leaves, strict=True)]

    @tf.custom_gradient
    def run(projected: tf.Tensor, recurrent: tf.Tensor, *first: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Any]:
        inputs = _rows(projected)

        def forward(step: tf.Tensor, leaves: list, products: tf.TensorArray, before: list) -> tuple:
            at = place(step)
            product = tf.matmul(leaves[0], recurrent)
            before = [kept.write(at, leaf) for kept, leaf in zip(before, leaves, strict=True)]
            leaves = following(at, inputs.read(at), product, leaves)
            return step + 1, leaves, products.write(at, product), before

        _, last, products, before = tf.while_loop(
            lambda step, *_: step < steps,
            forward,
            (0, list(first), _rows_to_be(projected), [_array(leaf.dtype, leaf.shape, steps) for leaf in first]),
            maximum_iterations=steps,  # XLA takes only loops with a bound
        )
        states = before[0].stack()  # h before each step, (time, batch, units)
        outputs = tf.concat([last[0][tf.newaxis], states[:-1]] if reverse else [states[1:], last[0][tf.newaxis]], 0)
        outputs = outputs[:steps]  # of no steps there are none

        def gradient(to_outputs: tf.Tensor, *to_last: tf.Tensor) -> tuple[tf.Tensor, ...]:
            upstream = _rows(to_outputs)
            transposed = tf.transpose(recurrent)  # once: for a few rows transposing in each product takes twice as long

            def backward(
                step: tf.Tensor, to_state: list, to_inputs: tf.TensorArray, to_products: tf.TensorArray
            ) -> tuple:
                at = place(step)
                to_state = [to_state[0] + upstream.read(at), *to_state[1:]]
                given, product = inputs.read(at), products.read(at)
                leaves = [kept.read(at) for kept in before]
                with tf.GradientTape() as tape:
                    tape.watch([given, product, leaves])
                    reached = following(at, given, product, leaves)
                to_given, to_product, to_leaves = tape.gradient(
                    reached, [given, product, leaves], to_state, unconnected_gradients="zero"
                )
                to_leaves[0] += tf.matmul(to_product, transposed)
                return step - 1, to_leaves, to_inputs.write(at, to_given), to_products.write(at, to_product)

            _, to_first, to_inputs, to_products = tf.while_loop(
                lambda step, *_: step >= 0,
                backward,
                (steps - 1, list(to_last), _rows_to_be(projected), _rows_to_be(projected)),
                maximum_iterations=steps,
            )
            flat = [tf.reshape(x, (-1, x.shape[-1])) for x in (states, to_products.stack())]
            return to_inputs.stack(), tf.matmul(*flat, transpose_a=True), *to_first

        return (outputs, *last), gradient

    outputs, *last = run(projected, recurrent, *tf.nest.flatten(state))
    return outputs, tf.nest.pack_sequence_as(structure, last)


def _array(dtype: tf.DType, shape: tf.TensorShape, steps: tf.Tensor) -> tf.TensorArray:
    # The shape says what an array without elements is made of.
    return tf.TensorArray(dtype, steps, element_shape=shape, clear_after_read=False)


def _rows_to_be(like: tf.Tensor) -> tf.TensorArray:
    """Room for the rows of such a tensor."""
    return _array(like.dtype, like.shape[1:], tf.shape(like)[0])


def _rows(tensor: tf.Tensor) -> tf.TensorArray:
    """The rows of a tensor, to be read one by one as often as wanted."""
    return _rows_to_be(tensor).unstack(tensor)
