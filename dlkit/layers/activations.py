"""The non-linearities that nets offer."""

from typing import Literal, get_args

import keras

from dlkit.errors import unknown

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "linear"]


def activation(kind: Activation, *, name: str) -> keras.layers.Layer:
    """The layer that applies a non-linearity to each unit; `linear` passes its input on.

    Raises:
        dlkit.errors.UsageError: there is no such activation.
    """
    if kind not in get_args(Activation):
        raise unknown("activation", kind, get_args(Activation))
    return keras.layers.Activation(kind, name=name)
