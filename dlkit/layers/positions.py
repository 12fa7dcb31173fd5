"""Where in the sequence a token stands: what attention alone cannot see."""

from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from dlkit.errors import DataError, UsageError, unknown

Kind = Literal["sinusoidal", "learned", "none"]


def sinusoids(positions: tf.Tensor, width: int) -> tf.Tensor:
    """Sines and cosines of wavelengths from 2 pi to 10000 * 2 pi (Vaswani et al. 2017, section 3.5).

        PE(t, 2i) = sin(t / 10000^(2i/d)),   PE(t, 2i + 1) = cos(t / 10000^(2i/d))

    Args:
        positions: (time,) integers, the first position being 0.
        width: d.

    Returns:
        (time, width) float64: in float32 the angle of a far position would be too coarse.

    Example:
        >>> sinusoids(tf.range(2), 4).numpy().round(4)
        array([[0.    , 1.    , 0.    , 1.    ],
               [0.8415, 0.5403, 0.01  , 1.    ]])
    """
    features = np.arange(width)
    rates = 10_000.0 ** -(2 * (features // 2) / width)
    quarter = np.where(features % 2, np.pi / 2, 0.0)  # a cosine is a sine that is a quarter ahead
    return tf.sin(tf.cast(positions, tf.float64)[:, tf.newaxis] * rates + quarter)


class TooLong(DataError):
    """A sequence is longer than the table of its positions."""

    _keras_call_info_injected = True  # Keras passes such an error on as it is: no report of the call in the message


class Positions(keras.layers.Layer):
    """Adds to each embedding what stands for its position.

    Args:
        kind: `sinusoidal`, see `sinusoids`, for any length; `learned`, a table (Gehring et al. 2017, section 3.1), for
            `max_length` positions; `none` adds nothing, and a net of attention alone takes its input for a bag.
        max_length: rows of the learned table.

    Raises:
        dlkit.errors.UsageError: an unknown kind, or no `max_length` for a learned table.

    Example:
        >>> Positions("sinusoidal")(tf.zeros((8, 20, 128))).shape
        TensorShape([8, 20, 128])
    """

    def __init__(self, kind: Kind = "sinusoidal", *, max_length: int | None = None, name: str | None = None) -> None:
        super().__init__(name=name)
        if kind not in get_args(Kind):
            raise unknown("positions", kind, get_args(Kind))
        if kind == "learned" and (max_length is None or max_length < 1):
            raise UsageError("learned positions need the largest length they are for", "256 is a usual one")
        self.kind = kind
        self.max_length = max_length if kind == "learned" else None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the table (max_length, width) of learned positions, as small as Vaswani's embeddings."""
        if self.kind == "learned":
            width = input_shape[-1] or 1
            self.table = self.add_weight(
                name="table",
                shape=(self.max_length, width),
                initializer=keras.initializers.RandomNormal(0.0, width**-0.5),
            )

    def call(self, embedded: tf.Tensor) -> tf.Tensor:
        """Adds the positions 0, 1, ... to (batch, time, width).

        Raises:
            TooLong: a sequence is longer than the learned table. Where the length is not known before
                the graph runs, it is TensorFlow that raises an InvalidArgumentError.
        """
        time = embedded.shape[1]
        if self.max_length and time is not None and time > self.max_length:
            raise TooLong(
                f"a sequence of {time} tokens is longer than the {self.max_length} learned positions of the model",
                "leave it out, or train with a larger model.max_length or with sinusoidal positions",
            )
        return embedded + self.at(tf.range(tf.shape(embedded)[1]), embedded.shape[-1])

    def at(self, positions: tf.Tensor, width: int) -> tf.Tensor:
        """What stands for positions (time,): (time, width)."""
        if self.kind == "none":
            return tf.zeros((), self.compute_dtype)
        if self.kind == "sinusoidal":
            return ops.cast(sinusoids(positions, width), self.compute_dtype)
        # Else a CPU would complain about an index out of range, and a GPU would add zeros.
        within = tf.debugging.assert_less(
            positions, self.max_length, message=f"a sequence is longer than the {self.max_length} learned positions"
        )
        with tf.control_dependencies([within] if within is not None else []):  # None where nothing is traced
            return ops.cast(tf.gather(tf.convert_to_tensor(self.table), positions), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape
