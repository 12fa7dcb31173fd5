"""Recurrent language models (Mikolov et al. 2010; with LSTM cells Zaremba et al. 2014)."""

from functools import partial
from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.decode.step import Step
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.read_out import Logits, tied_logits
from dlkit.layers.recurrent import Cell, Stack
from dlkit.models import Paper
from dlkit.values import Count

PAPERS = {
    "rnn_lm": Paper("Mikolov et al. 2010, Recurrent neural network based language model"),
    "lstm_lm": Paper("Zaremba et al. 2014, Recurrent neural network regularization"),
    "gru_lm": Paper(
        "Zaremba et al. 2014, Recurrent neural network regularization, with the unit of Cho et al. 2014, Learning "
        "phrase representations using RNN encoder-decoder"
    ),
}


class RecurrentLM(keras.Model):
    """An embedding, recurrent layers and a read-out.

    `call` begins with a zero state; `run` with a given one and tells the last, so that a text can be read in parts.
    `start` and `step` are what decoding needs, see `dlkit.decode.step`.
    """

    def __init__(
        self,
        name: str,
        vocabulary: int,
        *,
        cell: Cell,
        layers: int,
        width: int,
        tied: bool,
        dropout: float,
        init: str,
        **drawn: Any,
    ) -> None:
        super().__init__(name=name)
        self.vocabulary = vocabulary
        self.embedding = keras.layers.Embedding(vocabulary, width, name="embedding")
        self.embedding.build(None)
        self.embedding_dropout = Dropout(dropout, name="embedding_dropout")
        self.stack = Stack(cell, width, layers=layers, dropout=dropout, init=init, name="stack", **drawn)
        self.stack.build((None, None, width))
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = None
        if not tied:
            self.head = Logits(vocabulary, kernel_initializer=initializer(init), name="head")
            self.head.build((None, None, width))
        self.built = True

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits (batch, time, vocabulary) of the token after each position of ids (batch, time), in float32."""
        return self.run(ids, None, training=training)[0]

    def run(self, ids: tf.Tensor, state: Any, *, training: bool = False) -> tuple[tf.Tensor, Any]:
        """The same, going on after a state of `zero_state`'s form, None for that; and the state after it."""
        embedded = self.embedding_dropout(self.embedding(ids), training=training)
        outputs, state = self.stack(embedded, initial_state=state, training=training)
        return self._logits(self.head_dropout(outputs, training=training)), state

    def zero_state(self, *rows: int | tf.Tensor) -> Any:
        """The state before the first token, a nest of tensors (*rows, width)."""
        return tuple(level[0].zero_state(*rows) for level in self.stack.levels)

    def start(self, source: tf.Tensor, *, max_len: tf.Tensor | int = 0) -> tuple[Any, tuple[()]]:
        """The state before the first token, of one beam; of the source (batch, any) only the rows count."""
        return self.zero_state(tf.shape(source)[0], 1), ()

    def step(self, tokens: tf.Tensor, state: Any, memory: tuple[()] = ()) -> Step:
        """Logits (batch, beams, vocabulary) after one more token on each beam, and the state after it."""
        outputs, state = self.stack.step(self.embedding(tokens), state)
        return Step(self._logits(outputs), state)

    def _logits(self, outputs: tf.Tensor) -> tf.Tensor:
        return self.head(outputs) if self.head else tied_logits(outputs, self.embedding)


Layers = Annotated[int, Field(ge=1, le=5)]


def recurrent_lm(
    cell: Literal["rnn", "gru"],
    vocabulary: int,
    *,
    layers: Layers = 2,
    width: Count = 256,
    tied: bool = False,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
) -> keras.Model:
    """A language model of recurrent layers.

    Args:
        cell: rnn or gru.
        vocabulary: number of ids.
        layers: recurrent layers.
        width: size of the embeddings and of each layer's state.
        tied: whether the read-out's matrix is the embedding (Press and Wolf 2017), without a bias.
        dropout: share of units dropped between layers, never between time steps.
        init: initializer of the input and output matrices.
        recurrent_init: initializer of the recurrent matrices.

    Example:
        >>> rnn_lm(65)(ids).shape  # ids (32, 64)
        TensorShape([32, 64, 65])
    """
    return RecurrentLM(
        f"{cell}_lm", vocabulary, cell=cell, layers=layers, width=width, tied=tied, dropout=dropout, init=init,
        recurrent_init=recurrent_init,
    )  # fmt: skip


rnn_lm = partial(recurrent_lm, "rnn")
"""A language model of plain recurrent layers."""

gru_lm = partial(recurrent_lm, "gru")
"""A language model of gated recurrent units."""


def lstm_lm(
    vocabulary: int,
    *,
    layers: Layers = 2,
    width: Count = 256,
    tied: bool = False,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    forget_bias: float = 1.0,
) -> keras.Model:
    """A language model of LSTM layers. Two of 256 units with 10,000 words have 6,180,624 parameters.

    Args:
        vocabulary: number of ids.
        layers: recurrent layers.
        width: size of the embeddings and of each layer's state.
        tied: whether the read-out's matrix is the embedding (Press and Wolf 2017), without a bias.
        dropout: share of units dropped between layers, never between time steps.
        init: initializer of the input and output matrices.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: bias of the forget gates before training.

    Example:
        >>> lstm_lm(10_000)(ids).shape  # ids (32, 35)
        TensorShape([32, 35, 10000])
    """
    return RecurrentLM(
        "lstm_lm", vocabulary, cell="lstm", layers=layers, width=width, tied=tied, dropout=dropout, init=init,
        recurrent_init=recurrent_init, forget_bias=forget_bias,
    )  # fmt: skip
