"""Recurrent text classifiers: word vectors, recurrent layers over them, and one vector of the whole text."""

from functools import partial
from typing import Annotated, Any, Literal, get_args

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.data.tokenizer import PAD
from dlkit.errors import unknown
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.masked_pooling import masked_max, masked_mean
from dlkit.layers.read_out import Logits
from dlkit.layers.recurrent import Cell, Stack, units_each_way
from dlkit.layers.word_dropout import WordDropout
from dlkit.models import Paper
from dlkit.values import Count

PAPERS = {
    "text_rnn": Paper("Elman 1990, Finding structure in time"),
    "text_lstm": Paper("Hochreiter and Schmidhuber 1997, Long short-term memory"),
    "text_gru": Paper("Cho et al. 2014, Learning phrase representations using RNN encoder-decoder"),
}

Pool = Literal["last", "mean", "max"]


class TextRNN(keras.Model):
    """Recurrent layers read a text; their last state, or the mean or maximum of their outputs, is classified.

    For the arguments see `recurrent_classifier`.
    """

    def __init__(
        self,
        name: str,
        vocabulary: int,
        classes: int,
        *,
        cell: Cell,
        embedding_width: int,
        layers: int,
        width: int,
        bidirectional: bool,
        pool: Pool,
        word_dropout: float,
        embedding_dropout: float,
        dropout: float,
        init: str,
        **drawn: Any,
    ) -> None:
        if pool not in get_args(Pool):
            raise unknown("pool", pool, get_args(Pool))
        super().__init__(name=name)
        self.pool = pool
        self.word_dropout = WordDropout(word_dropout, name="word_dropout")
        self.embedding = keras.layers.Embedding(vocabulary, embedding_width, name="embedding")
        self.embedding_dropout = Dropout(embedding_dropout, name="embedding_dropout")
        units = units_each_way(width, bidirectional=bidirectional)
        self.encoder = Stack(
            cell, units, layers=layers, bidirectional=bidirectional, dropout=dropout, init=init, name="encoder", **drawn
        )
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = Logits(classes, kernel_initializer=initializer(init), name="head")
        self.embedding.build((None, None))
        self.encoder.build((None, None, embedding_width))
        self.head.build((None, width))
        self.built = True

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the classes.

        Args:
            ids: (batch, time) int, padded with 0 after the last token; a text may have none.
            training: whether dropout is on.

        Returns:
            (batch, classes), float32 (float64 when the model is).
        """
        real = tf.not_equal(ids, PAD)
        x = self.embedding(self.word_dropout(ids, training=training))
        x = self.embedding_dropout(x, training=training)
        outputs, states = self.encoder(x, mask=real, training=training)  # (batch, time, width)
        if self.pool == "last":
            text = tf.nest.flatten(states[-1])[0]  # of a second direction the state at the first word
        else:
            text = (masked_mean if self.pool == "mean" else masked_max)(outputs, real)
        return self.head(self.head_dropout(text, training=training))


def recurrent_classifier(
    cell: Literal["rnn", "gru"],
    vocabulary: int,
    classes: int,
    *,
    embedding_width: Count = 128,
    layers: Annotated[int, Field(ge=1, le=5)] = 1,
    width: Count = 128,
    bidirectional: bool = True,
    pool: Pool = "max",
    word_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
) -> keras.Model:
    """Recurrent layers over word vectors, and a linear layer on one vector of the text.

    Args:
        cell: rnn or gru.
        vocabulary: number of ids.
        classes: number of classes.
        embedding_width: size of the word vectors.
        layers: recurrent layers on top of each other.
        width: size of their outputs; of a bidirectional layer each direction has half of it.
        bidirectional: whether every layer reads both ways.
        pool: what becomes of the outputs: the `last` state of each direction, their `mean`, or the `max` of each unit.
        word_dropout: share of the words that are unknown in training.
        embedding_dropout: share of units of the word vectors that are dropped.
        dropout: share of units dropped between layers and in front of the linear layer, never between time steps.
        init: initializer of the input and output matrices.
        recurrent_init: initializer of the recurrent matrices.

    Raises:
        dlkit.errors.UsageError: an unknown name, or an odd width of a bidirectional net.

    Example:
        >>> text_rnn(8000, 2)(ids).shape  # ids (32, 20)
        TensorShape([32, 2])
    """
    return TextRNN(
        f"text_{cell}", vocabulary, classes, cell=cell, embedding_width=embedding_width, layers=layers, width=width,
        bidirectional=bidirectional, pool=pool, word_dropout=word_dropout, embedding_dropout=embedding_dropout,
        dropout=dropout, init=init, recurrent_init=recurrent_init,
    )  # fmt: skip


text_rnn = partial(recurrent_classifier, "rnn")
"""Plain recurrent layers over word vectors, and a linear layer on one vector of the text."""

text_gru = partial(recurrent_classifier, "gru")
"""GRU layers over word vectors, and a linear layer on one vector of the text."""


def text_lstm(
    vocabulary: int,
    classes: int,
    *,
    embedding_width: Count = 128,
    layers: Annotated[int, Field(ge=1, le=5)] = 1,
    width: Count = 128,
    bidirectional: bool = True,
    pool: Pool = "max",
    word_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    forget_bias: float = 1.0,
) -> keras.Model:
    """LSTM layers over word vectors, and a linear layer on one vector of the text.

    Args:
        vocabulary: number of ids.
        classes: number of classes.
        embedding_width: size of the word vectors.
        layers: recurrent layers on top of each other.
        width: size of their outputs; of a bidirectional layer each direction has half of it.
        bidirectional: whether every layer reads both ways.
        pool: what becomes of the outputs: the `last` state of each direction, their `mean`, or the `max` of each unit.
        word_dropout: share of the words that are unknown in training.
        embedding_dropout: share of units of the word vectors that are dropped.
        dropout: share of units dropped between layers and in front of the linear layer, never between time steps.
        init: initializer of the input and output matrices.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: bias of the forget gates before training.

    Raises:
        dlkit.errors.UsageError: an unknown name, or an odd width of a bidirectional net.

    Example:
        >>> text_lstm(8000, 2, layers=2)(ids).shape  # ids (32, 20)
        TensorShape([32, 2])
    """
    return TextRNN(
        "text_lstm", vocabulary, classes, cell="lstm", embedding_width=embedding_width, layers=layers, width=width,
        bidirectional=bidirectional, pool=pool, word_dropout=word_dropout, embedding_dropout=embedding_dropout,
        dropout=dropout, init=init, recurrent_init=recurrent_init, forget_bias=forget_bias,
    )  # fmt: skip
