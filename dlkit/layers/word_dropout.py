"""Word dropout: whole words of a text are made unknown in training."""

import keras
import tensorflow as tf

from dlkit.data.tokenizer import PAD, UNKNOWN
from dlkit.errors import UsageError
from dlkit.layers import step_context
from dlkit.layers.dropout import row_uniforms


class WordDropout(keras.layers.Layer):
    """Replaces each token of a text by `<unk>` with probability `rate` in training (Iyyer et al. 2015, section 3.2).

    So no word alone decides, and the vector of `<unk>` learns what an unknown word is worth. As with `Dropout`, the
    draw depends on (seed, layer name, place of the row in the global batch) within a training step.

    Args:
        rate: the share to replace, at least 0 and below 1.

    Raises:
        dlkit.errors.UsageError: the rate is out of range.
    """

    def __init__(self, rate: float, *, name: str | None = None) -> None:
        super().__init__(name=name)
        if not 0 <= rate < 1:
            raise UsageError(f"word dropout must be at least 0 and below 1, and it is {rate}", "0.1 is usual")
        self.rate = rate

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Ids (batch, time), some of them replaced when training; padding stays."""
        if not training or self.rate == 0:
            return ids
        context = step_context.current()
        shape = tf.shape(ids)
        if context is None:
            uniforms = tf.random.uniform(shape)
        else:
            uniforms = row_uniforms(shape, seed=context.seed, first_row=context.first_row, purpose=self.name)
        stays = (uniforms >= self.rate) | tf.equal(ids, PAD)
        return tf.where(stays, ids, tf.constant(UNKNOWN, ids.dtype))
