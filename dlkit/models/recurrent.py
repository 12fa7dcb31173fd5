"""Recurrent nets that read a sequence of numbers: plain RNN, LSTM and GRU, and a linear layer behind them."""

from typing import Annotated, Any

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.layers.activations import Activation
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.read_out import Logits
from dlkit.layers.recurrent import Cell, Stack, units_each_way
from dlkit.models import Paper
from dlkit.values import Count

PAPERS = {
    "rnn": Paper("Elman 1990, Finding structure in time"),
    "lstm": Paper("Hochreiter and Schmidhuber 1997, Long short-term memory, with the forget gate of Gers et al. 2000"),
    "gru": Paper("Cho et al. 2014, Learning phrase representations using RNN encoder-decoder"),
}

Layers = Annotated[int, Field(ge=1, le=8)]


class SequenceNet(keras.Model):
    """A stack of recurrent layers, and a linear layer on its last state or on its output at every step.

    For the arguments see `lstm`.
    """

    def __init__(
        self,
        cell: Cell,
        features: int,
        outputs: int,
        *,
        every_step: bool,
        layers: int,
        width: int,
        bidirectional: bool,
        dropout: float,
        init: str,
        recurrent_init: str,
        **of_cell: Any,
    ) -> None:
        super().__init__(name=cell)
        self.every_step = every_step
        units = units_each_way(width, bidirectional=bidirectional)
        self.stack = Stack(
            cell, units, layers=layers, bidirectional=bidirectional, dropout=dropout, init=init,
            recurrent_init=recurrent_init, name="stack", **of_cell,
        )  # fmt: skip
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = Logits(outputs, kernel_initializer=initializer(init), name="head")
        self.stack.build((None, None, features))
        self.head.build((None, None, width) if every_step else (None, width))
        self.built = True

    def call(self, inputs: tf.Tensor, lengths: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """What is told at the end of each sequence, or at every step.

        Args:
            inputs: (batch, time, features).
            lengths: (batch,) integers, behind which each sequence is padded; None when none is.
            training: whether dropout is on.

        Returns:
            (batch, outputs) or (batch, time, outputs), float32 (float64 when the model is).
        """
        mask = None if lengths is None else tf.sequence_mask(lengths, tf.shape(inputs)[1])
        outputs, states = self.stack(inputs, mask=mask, training=training)
        if not self.every_step:
            outputs = tf.nest.flatten(states[-1])[0]  # h, carried to the end over padding
        return self.head(self.head_dropout(outputs, training=training))


def rnn(
    features: int = 1,
    outputs: int = 1,
    every_step: bool = False,
    *,
    layers: Layers = 1,
    width: Count = 128,
    bidirectional: bool = False,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    activation: Activation = "tanh",
) -> keras.Model:
    """The plain recurrent net, which forgets: the gradient shrinks or grows at every step (Bengio et al. 1994).

    Args:
        features: numbers of each step of the input.
        outputs: numbers told, or logits of as many labels.
        every_step: whether every step is told something, or the end of the sequence only.
        layers: recurrent layers on top of each other.
        width: size of each layer's state.
        bidirectional: whether each layer reads both ways, each with half of the width.
        dropout: share of units dropped between layers, never between time steps.
        init: initializer of the input matrices and of the linear layer.
        recurrent_init: initializer of the recurrent matrices; `identity` with `activation=relu` is the IRNN of Le,
            Jaitly and Hinton 2015.
        activation: the non-linearity.

    Raises:
        dlkit.errors.UsageError: an unknown name, or an odd width of a bidirectional net.
    """
    return SequenceNet(
        "rnn", features, outputs,
        every_step=every_step, layers=layers, width=width, bidirectional=bidirectional, dropout=dropout, init=init,
        recurrent_init=recurrent_init, activation=activation,
    )  # fmt: skip


def lstm(
    features: int = 1,
    outputs: int = 1,
    every_step: bool = False,
    *,
    layers: Layers = 1,
    width: Count = 128,
    bidirectional: bool = False,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    forget_bias: float = 1.0,
) -> keras.Model:
    """Long short-term memory: a cell that keeps what it holds until the forget gate closes.

    Args:
        features: numbers of each step of the input.
        outputs: numbers told, or logits of as many labels.
        every_step: whether every step is told something, or the end of the sequence only.
        layers: recurrent layers on top of each other.
        width: size of each layer's state.
        bidirectional: whether each layer reads both ways, each with half of the width.
        dropout: share of units dropped between layers, never between time steps.
        init: initializer of the input matrices and of the linear layer.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: bias of the forget gates before training: at b a memory fades to 1/e within about e**b steps.

    Raises:
        dlkit.errors.UsageError: an unknown name, or an odd width of a bidirectional net.

    Example:
        >>> lstm(2, 1)(tf.ones((32, 200, 2))).shape
        TensorShape([32, 1])
    """
    return SequenceNet(
        "lstm", features, outputs,
        every_step=every_step, layers=layers, width=width, bidirectional=bidirectional, dropout=dropout, init=init,
        recurrent_init=recurrent_init, forget_bias=forget_bias,
    )  # fmt: skip


def gru(
    features: int = 1,
    outputs: int = 1,
    every_step: bool = False,
    *,
    layers: Layers = 1,
    width: Count = 128,
    bidirectional: bool = False,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
) -> keras.Model:
    """Gated recurrent unit: a state that is kept or replaced, unit by unit.

    Args:
        features: numbers of each step of the input.
        outputs: numbers told, or logits of as many labels.
        every_step: whether every step is told something, or the end of the sequence only.
        layers: recurrent layers on top of each other.
        width: size of each layer's state.
        bidirectional: whether each layer reads both ways, each with half of the width.
        dropout: share of units dropped between layers, never between time steps.
        init: initializer of the input matrices and of the linear layer.
        recurrent_init: initializer of the recurrent matrices.

    Raises:
        dlkit.errors.UsageError: an unknown name, or an odd width of a bidirectional net.
    """
    return SequenceNet(
        "gru", features, outputs,
        every_step=every_step, layers=layers, width=width, bidirectional=bidirectional, dropout=dropout, init=init,
        recurrent_init=recurrent_init,
    )  # fmt: skip
