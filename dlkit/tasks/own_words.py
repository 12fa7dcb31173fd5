"""Decoders that read words which they drew themselves: in training, and to measure what that costs."""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.data.augment import example_keys, uniform
from dlkit.data.batching import Batch
from dlkit.decode.scheduled import mixed_inputs
from dlkit.layers import step_context
from dlkit.layers.dropout import row_uniforms
from dlkit.tasks.task import token_sums


def with_own_words(
    model: keras.Model, source: tf.Tensor, target_in: tf.Tensor, context: step_context.StepContext
) -> tf.Tensor:
    """What a decoder of a source reads in a training step with scheduled sampling, in place of `target_in`."""
    shape = tf.concat([tf.shape(target_in), [2]], axis=0)
    state, memory = model.start(source, max_len=tf.shape(target_in)[1])
    return mixed_inputs(
        model.step, state, memory, target_in=target_in, probability=context.sampling,
        uniforms=row_uniforms(shape, seed=context.seed, first_row=context.first_row, purpose="own words"),
    )  # fmt: skip


def own_words_loss(
    model: keras.Model,
    plan: Iterable[NDArray[np.int64]],
    batch_of: Callable[[NDArray[np.int64]], Batch],
    *,
    source: str,
    seed: int,
) -> float:
    """The loss per token when the decoder reads, before each true token, words that it drew itself.

    What a model that was trained on true words alone loses here, beside its `loss`, is what Bengio et al. 2015, section
    1, warn of. A draw depends on (seed, example, place) alone.

    Args:
        model: with `start` and `step`, see `dlkit.decode.step`.
        plan: the batches of an evaluation, as arrays of example indices.
        batch_of: makes the arrays of one: the source, `target_in` and `target_out`.
        source: the name of the source among them.
        seed: of what is drawn.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def sums(
        given: tf.Tensor, target_in: tf.Tensor, target_out: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        state, memory = model.start(given, max_len=tf.shape(target_in)[1])
        read = mixed_inputs(model.step, state, memory, target_in=target_in, probability=1.0, uniforms=draws)
        found = token_sums(model((given, read), training=False), target_out, {}, hits=False)
        return found.loss, found.weight

    total = weight = 0.0
    for indices in plan:
        batch = batch_of(indices)
        time = batch["target_in"].shape[1]
        draws = uniform(example_keys(seed, 0, indices), 2 * time, purpose="own words")
        draws = draws.reshape(-1, time, 2).astype(np.float32)
        # Rounded up to 1 it would be no draw from [0, 1).
        draws = np.minimum(draws, np.nextafter(np.float32(1), np.float32(0)))
        found = sums(batch[source], batch["target_in"], batch["target_out"], draws)
        total, weight = total + float(found[0]), weight + float(found[1])
    return total / weight
