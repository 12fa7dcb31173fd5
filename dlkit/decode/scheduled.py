"""Scheduled sampling: in training a decoder reads some of its own words instead of the true ones."""

from typing import Any

import tensorflow as tf

from dlkit.data.tokenizer import PAD
from dlkit.decode.greedy import any_batch
from dlkit.decode.sample import invert
from dlkit.decode.step import StepFunction


def mixed_inputs(
    step: StepFunction,
    state: Any,
    memory: Any = (),
    *,
    target_in: tf.Tensor,
    probability: tf.Tensor | float,
    uniforms: tf.Tensor,
) -> tf.Tensor:
    """What a decoder reads when each word is, with some probability, one that it has just drawn itself.

    Bengio, Vinyals, Jaitly and Shazeer 2015, section 2.4: a coin for each word, and a draw from the model's own
    distribution after all that it has read so far, its own words among them. Teacher forcing on the result is then
    their training step, for a model of any kind; no gradient flows through a draw, which is an integer.

    Args:
        step: see `dlkit.decode.step`, with dropout off.
        state: nest of tensors (batch, 1, ...).
        memory: nest of tensors (batch, ...).
        target_in: (batch, time) int32, the start token and the true words, padded with 0.
        probability: of reading the own word, a scalar.
        uniforms: (batch, time, 2) in [0, 1): for each position a coin, and the number that draws.

    Returns:
        (batch, time) int32; the start token and padding are as they were.

    Example:
        >>> mixed_inputs(model.step, *model.start(source), target_in=target_in, probability=0.25, uniforms=uniforms)
    """
    target_in = tf.convert_to_tensor(target_in)
    batch, time = tf.shape(target_in)[0], tf.shape(target_in)[1]
    own_turn = (uniforms[..., 0] < tf.cast(probability, uniforms.dtype)) & (target_in != PAD)

    def inside(position: tf.Tensor, *_: Any) -> tf.Tensor:
        return position < time

    def extend(
        position: tf.Tensor, read: tf.Tensor, inputs: tf.TensorArray, state: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray, Any]:
        made = step(read[:, tf.newaxis], state, memory)
        logits = tf.cast(made.logits[:, 0], tf.float32)
        allowed = tf.where(tf.range(logits.shape[-1]) == PAD, -float("inf"), logits)
        drawn = invert(tf.nn.softmax(allowed), uniforms[:, position, 1])
        read = tf.where(own_turn[:, position], drawn, target_in[:, position])
        return position + 1, read, inputs.write(position, read), made.state

    first = target_in[:, 0]
    inputs = tf.TensorArray(target_in.dtype, time, element_shape=(None,)).write(0, first)
    begin = (tf.constant(1), first, inputs, state)
    _, _, inputs, _ = tf.while_loop(inside, extend, begin, shape_invariants=any_batch(begin), maximum_iterations=time)
    return tf.reshape(tf.transpose(inputs.stack()), (batch, time))
