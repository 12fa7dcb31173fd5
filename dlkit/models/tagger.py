"""Taggers: word vectors, an encoder that reads them, and a tag for each word; here those of recurrent layers."""

from functools import partial
from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.data.tokenizer import PAD
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.read_out import Logits
from dlkit.layers.recurrent import Cell, Stack, units_each_way
from dlkit.layers.word_dropout import WordDropout
from dlkit.models import Paper
from dlkit.values import Count

_BOTH_WAYS = "Schuster and Paliwal 1997, Bidirectional recurrent neural networks"
PAPERS = {name: Paper(_BOTH_WAYS) for name in ("tagger_rnn", "tagger_lstm", "tagger_gru")}


class TaggerNet(keras.Model):
    """Word vectors, an encoder that reads them, and a linear layer that tags each word.

    Args:
        name: of the model.
        vocabulary: number of ids.
        classes: number of tags.
        encoder: not built yet; makes (batch, time, width) of the word vectors, see `encoded`.
        embedding_width: size of the word vectors.
        width: of what the encoder makes of each word.
        word_dropout: share of the words that are unknown in training.
        dropout: share of units dropped of the word vectors and in front of the linear layer.
        init: initializer of the linear layer.
    """

    def __init__(
        self,
        name: str,
        vocabulary: int,
        classes: int,
        *,
        encoder: keras.layers.Layer,
        embedding_width: int,
        width: int,
        word_dropout: float,
        dropout: float,
        init: str,
    ) -> None:
        super().__init__(name=name)
        self.word_dropout = WordDropout(word_dropout, name="word_dropout")
        self.embedding = keras.layers.Embedding(vocabulary, embedding_width, name="embedding")
        self.embedding_dropout = Dropout(dropout, name="embedding_dropout")
        self.encoder = encoder
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = Logits(classes, kernel_initializer=initializer(init), name="head")
        self.embedding.build((None, None))
        self.encoder.build((None, None, embedding_width))
        self.head.build((None, None, width))
        self.built = True

    def encoded(self, x: tf.Tensor, real: tf.Tensor, training: bool) -> tf.Tensor:
        """What the encoder makes of word vectors (batch, time, features): (batch, time, width).

        Args:
            x: the word vectors.
            real: (batch, time) bool, False at padding, which must change nothing.
            training: whether dropout is on.
        """
        return self.encoder(x, mask=real, training=training)

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the tags of each word.

        Args:
            ids: (batch, time) int, padded with 0 after the last word; a sentence may have none.
            training: whether dropout is on.

        Returns:
            (batch, time, classes), float32 (float64 when the model is).
        """
        x = self.embedding(self.word_dropout(ids, training=training))
        x = self.embedding_dropout(x, training=training)
        outputs = self.encoded(x, tf.not_equal(ids, PAD), training)
        return self.head(self.head_dropout(outputs, training=training))


class RecurrentTagger(TaggerNet):
    """Recurrent layers read a sentence; for the arguments see `recurrent_tagger`."""

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
        word_dropout: float,
        dropout: float,
        init: str,
        **drawn: Any,
    ) -> None:
        units = units_each_way(width, bidirectional=bidirectional)
        encoder = Stack(
            cell, units, layers=layers, bidirectional=bidirectional, dropout=dropout, init=init, name="encoder", **drawn
        )
        super().__init__(
            name, vocabulary, classes, encoder=encoder, embedding_width=embedding_width, width=width,
            word_dropout=word_dropout, dropout=dropout, init=init,
        )  # fmt: skip

    def encoded(self, x: tf.Tensor, real: tf.Tensor, training: bool) -> tf.Tensor:
        """The outputs of the highest layer."""
        outputs, _ = super().encoded(x, real, training)
        return outputs


def recurrent_tagger(
    cell: Literal["rnn", "gru"],
    vocabulary: int,
    classes: int,
    *,
    embedding_width: Count = 64,
    layers: Annotated[int, Field(ge=1, le=5)] = 1,
    width: Count = 128,
    bidirectional: bool = True,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
) -> keras.Model:
    """Recurrent layers over word vectors, and a linear layer at each word.

    Args:
        cell: rnn or gru.
        vocabulary: number of ids.
        classes: number of tags.
        embedding_width: size of the word vectors.
        layers: recurrent layers on top of each other.
        width: size of their outputs; of a bidirectional layer each direction has half of it.
        bidirectional: whether every layer reads both ways; else a tag knows nothing of what comes after its word.
        word_dropout: share of the words that are unknown in training.
        dropout: share of units dropped of the word vectors, between layers and in front of the linear layer, never
            between time steps.
        init: initializer of the input and output matrices.
        recurrent_init: initializer of the recurrent matrices.

    Raises:
        dlkit.errors.UsageError: an unknown name, or an odd width of a bidirectional net.

    Example:
        >>> tagger_rnn(8000, 12)(ids).shape  # ids (32, 20)
        TensorShape([32, 20, 12])
    """
    return RecurrentTagger(
        f"tagger_{cell}", vocabulary, classes, cell=cell, embedding_width=embedding_width, layers=layers, width=width,
        bidirectional=bidirectional, word_dropout=word_dropout, dropout=dropout, init=init,
        recurrent_init=recurrent_init,
    )  # fmt: skip


tagger_rnn = partial(recurrent_tagger, "rnn")
"""Plain recurrent layers over word vectors, and a linear layer at each word."""

tagger_gru = partial(recurrent_tagger, "gru")
"""GRU layers over word vectors, and a linear layer at each word."""


def tagger_lstm(
    vocabulary: int,
    classes: int,
    *,
    embedding_width: Count = 64,
    layers: Annotated[int, Field(ge=1, le=5)] = 1,
    width: Count = 128,
    bidirectional: bool = True,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    forget_bias: float = 1.0,
) -> keras.Model:
    """LSTM layers over word vectors, and a linear layer at each word.

    Args:
        vocabulary: number of ids.
        classes: number of tags.
        embedding_width: size of the word vectors.
        layers: recurrent layers on top of each other.
        width: size of their outputs; of a bidirectional layer each direction has half of it.
        bidirectional: whether every layer reads both ways; else a tag knows nothing of what comes after its word.
        word_dropout: share of the words that are unknown in training.
        dropout: share of units dropped of the word vectors, between layers and in front of the linear layer, never
            between time steps.
        init: initializer of the input and output matrices.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: bias of the forget gates before training.

    Raises:
        dlkit.errors.UsageError: an unknown name, or an odd width of a bidirectional net.

    Example:
        >>> tagger_lstm(8000, 12)(ids).shape  # ids (32, 20)
        TensorShape([32, 20, 12])
    """
    return RecurrentTagger(
        "tagger_lstm", vocabulary, classes, cell="lstm", embedding_width=embedding_width, layers=layers, width=width,
        bidirectional=bidirectional, word_dropout=word_dropout, dropout=dropout, init=init,
        recurrent_init=recurrent_init, forget_bias=forget_bias,
    )  # fmt: skip
