"""Dropout whose draws belong to the row of the global batch, whatever device or micro-batch the row is on."""

import zlib
from typing import Any

import keras
import tensorflow as tf

from dlkit.errors import UsageError
from dlkit.layers import step_context

PHILOX = 1
PER_COUNTER = 4  # one Philox counter yields four 32-bit numbers


def row_uniforms(shape: tf.Tensor, *, seed: tf.Tensor, first_row: tf.Tensor, purpose: str) -> tf.Tensor:
    """Uniform numbers in [0, 1) of which row i depends on the seed, the purpose and `first_row + i` alone.

    Philox (Salmon et al. 2011) is a function of a key and a counter: the key comes from seed and purpose, and each row
    owns a range of counters. So rows 4 to 7 of a batch get the same numbers alone as within the whole batch.

    Args:
        shape: of the result, rows first; (rank,) int32.
        seed: (2,) int32.
        first_row: scalar integer, place of row 0 in the global batch.
        purpose: what the numbers are for; another purpose gets other numbers.

    Returns:
        float32 tensor of the given shape.
    """
    rows, row_size = shape[0], tf.reduce_prod(shape[1:])
    counters_per_row = (row_size + PER_COUNTER - 1) // PER_COUNTER
    folded = tf.stack([tf.bitcast(seed, tf.int64), tf.constant(zlib.crc32(purpose.encode()), tf.int64)])
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=folded)
    skipped = tf.cast(first_row, tf.uint64) * tf.cast(counters_per_row, tf.uint64)
    uniforms = tf.raw_ops.StatelessRandomUniformV2(
        shape=[rows, counters_per_row * PER_COUNTER],
        key=key,
        counter=counter + tf.stack([skipped, tf.zeros_like(skipped)]),
        alg=PHILOX,
        dtype=tf.float32,
    )
    return tf.reshape(uniforms[:, :row_size], shape)


class Dropout(keras.layers.Layer):
    """Drops units with probability `rate` in training and scales the others by 1/(1 - rate) (Srivastava et al. 2014).

    Inside a step context the draw depends on (seed, layer name, place of the row in the global batch), so the names of
    the dropout layers of a model must differ, and a layer that is called twice in a step draws the same both times.
    Outside one it draws anew at each call, as Keras' layer does. It holds no random state, so none is saved or lost.

    Args:
        rate: the share to drop, at least 0 and below 1.

    Raises:
        dlkit.errors.UsageError: the rate is out of range.
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise UsageError(f"dropout must be at least 0 and below 1, and it is {rate}", "0.5 drops half of the units")
        self.rate = rate
        self.supports_masking = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Drops units when training, else returns `inputs` as they are."""
        if not training or self.rate == 0:
            return inputs
        context = step_context.current()
        shape = tf.shape(inputs)
        # In float32 whatever the data are: a bfloat16 number in [0, 1) is too coarse to compare with a rate.
        if context is None:
            uniforms = tf.random.uniform(shape)
        else:
            uniforms = row_uniforms(shape, seed=context.seed, first_row=context.first_row, purpose=self.name)
        return tf.where(uniforms >= self.rate, inputs / (1 - self.rate), tf.zeros((), inputs.dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "rate": self.rate}
