"""Sequence to sequence with two recurrent networks (Sutskever et al. 2014)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.data.tokenizer import PAD
from dlkit.decode.step import Step
from dlkit.errors import UsageError, unknown
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.read_out import Logits, as_float32
from dlkit.layers.recurrent import Cell, Stack, units_each_way
from dlkit.models import Paper
from dlkit.values import Count

PAPERS = {
    "seq2seq": Paper(
        "Sutskever et al. 2014, Sequence to sequence learning with neural networks; with gru as the cell Cho et al. "
        "2014, Learning phrase representations using RNN encoder-decoder"
    )
}

Embedding = Literal["learned", "one_hot"]


class OneHot(keras.layers.Layer):
    """Each id as a vector of zeros with a 1 at its place, in place of a table of embeddings: nothing is learned here.

    What reads the vectors multiplies them by a matrix, and so looks a row of it up. They are as wide as the vocabulary,
    which suits characters and some thousands of words.

    Args:
        input_dim: size of the vocabulary.

    Example:
        >>> OneHot(3)(tf.constant([[2, 0]]))[0].numpy()
        array([[0., 0., 1.],
               [1., 0., 0.]], dtype=float32)
    """

    def __init__(self, input_dim: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.input_dim = self.output_dim = input_dim

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """The vectors (..., vocabulary) of ids (...)."""
        return tf.one_hot(ids, self.input_dim, dtype=self.compute_dtype)


class EncoderDecoder(keras.Model):
    """What recurrent translators share: embeddings, the encoder and the read-out. A subclass adds the decoder.

    It makes its layers between `__init__` and `_finish`. For the arguments see `seq2seq`.
    """

    def __init__(
        self,
        name: str,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        embedding: Embedding,
        cell: Cell,
        layers: int,
        width: int,
        bidirectional: bool,
        tied_embeddings: bool,
        dropout: float,
        **drawn: Any,
    ) -> None:
        if embedding not in get_args(Embedding):
            raise unknown("embedding", embedding, get_args(Embedding))
        if tied_embeddings and embedding == "one_hot":
            raise UsageError(
                "one-hot words have no table of embeddings that could be tied",
                "set model.tied_embeddings=false or model.embedding=learned",
            )
        super().__init__(name=name)
        self.width = width
        self.tied_embeddings = tied_embeddings
        one_hot = embedding == "one_hot"
        of_words = 0.0 if one_hot else dropout  # of a one-hot word there is but one unit to drop, and with it the word
        self.source_embedding = (
            OneHot(source_vocabulary, name="source_embedding")
            if one_hot
            else keras.layers.Embedding(source_vocabulary, width, name="source_embedding")
        )
        self.source_dropout = Dropout(of_words, name="source_dropout")
        units = units_each_way(width, bidirectional=bidirectional)
        self.encoder = Stack(
            cell, units, layers=layers, bidirectional=bidirectional, dropout=dropout, name="encoder", **drawn
        )
        self.target_embedding = (
            OneHot(target_vocabulary, name="target_embedding")
            if one_hot
            else keras.layers.ReversibleEmbedding(target_vocabulary, width, name="target_embedding")
        )
        self.target_dropout = Dropout(of_words, name="target_dropout")

    def _finish(self, decoder: Sequence[tuple[Any, ...]], *, dropout: float, init: str) -> None:
        """Adds the read-out, and builds everything; `decoder` are its layers with weights, and of what shapes."""
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = None
        if not self.tied_embeddings:
            self.head = Logits(self.target_embedding.input_dim, kernel_initializer=initializer(init), name="head")
        for layer in (self.source_embedding, self.target_embedding):
            layer.build((None, None))
        words, states = (None, None, self.source_embedding.output_dim), (None, None, self.width)
        for layer, *shapes in ((self.encoder, words), *decoder, (self.head, states)):
            if layer is not None:
                layer.build(*shapes)
        self.built = True

    def _encode(self, source: tf.Tensor, training: bool, *, reverse: bool = False) -> tuple[tf.Tensor, tuple[Any, ...]]:
        """The encoder's outputs (batch, source time, width) and the last states of its levels."""
        embedded = self.source_dropout(self.source_embedding(source), training=training)
        return self.encoder(embedded, mask=tf.not_equal(source, PAD), reverse=reverse, training=training)

    def _logits(self, outputs: tf.Tensor) -> tf.Tensor:
        return self.head(outputs) if self.head else as_float32(self.target_embedding(outputs, reverse=True))


class Seq2Seq(EncoderDecoder):
    """An encoder whose last states are the first states of a decoder, level by level; each has weights of its own.

    `start` and `step` are what decoding needs; `call` is teacher forcing: all decoder inputs are known. For the
    arguments see `seq2seq`.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        embedding: Embedding,
        cell: Cell,
        layers: int,
        width: int,
        bidirectional: bool,
        reverse_source: bool,
        tied_embeddings: bool,
        dropout: float,
        init: str,
        recurrent_init: str,
        forget_bias: float,
    ) -> None:
        drawn: dict[str, Any] = {"init": init, "recurrent_init": recurrent_init, "forget_bias": forget_bias}
        super().__init__(
            "seq2seq", source_vocabulary, target_vocabulary,
            embedding=embedding, cell=cell, layers=layers, width=width, bidirectional=bidirectional,
            tied_embeddings=tied_embeddings, dropout=dropout, **drawn,
        )  # fmt: skip
        self.reverse_source = reverse_source
        self.decoder = Stack(cell, width, layers=layers, dropout=dropout, name="decoder", **drawn)
        words = (None, None, self.target_embedding.output_dim)
        self._finish([(self.decoder, words)], dropout=dropout, init=init)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits of every target position, given the tokens before it.

        Args:
            inputs: source (batch, source time) and target_in (batch, target time), int ids padded with 0.
            training: whether dropout is on.

        Returns:
            (batch, target time, target vocabulary), float32 (float64 when the model is).
        """
        source, target_in = inputs
        embedded = self.target_dropout(self.target_embedding(target_in), training=training)
        # No mask: padding comes after all that counts, and the decoder does not look ahead.
        outputs, _ = self.decoder(embedded, initial_state=self._last_states(source, training), training=training)
        return self._logits(self.head_dropout(outputs, training=training))

    def start(self, source: tf.Tensor, *, max_len: tf.Tensor | int = 0) -> tuple[Any, tuple[()]]:
        """The decoder's first state and no memory; see `dlkit.decode.step.Decodable`. Any length fits the state."""
        return tf.nest.map_structure(lambda leaf: leaf[:, tf.newaxis], self._last_states(source, training=False)), ()

    def step(self, tokens: tf.Tensor, state: Any, memory: tuple[()] = ()) -> Step:
        """Logits (batch, beams, target vocabulary) after one more token on each beam, and the state after it."""
        outputs, state = self.decoder.step(self.target_embedding(tokens), state)
        return Step(self._logits(outputs), state)

    def _last_states(self, source: tf.Tensor, training: bool) -> tuple[Any, ...]:
        return self._encode(source, training, reverse=self.reverse_source)[1]


def seq2seq(
    source_vocabulary: int,
    target_vocabulary: int,
    *,
    embedding: Embedding = "learned",
    cell: Cell = "lstm",
    layers: Annotated[int, Field(ge=1, le=5)] = 2,
    width: Count = 128,
    bidirectional: bool = False,
    reverse_source: bool = True,
    tied_embeddings: bool = False,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    forget_bias: float = 1.0,
) -> keras.Model:
    """Recurrent layers read the source, others write the target, with nothing but their states between them.

    Sutskever et al. (2014, section 3.3) read the source backwards, which brings its first words close to the first
    words of the target. They have four layers.

    Args:
        source_vocabulary: number of source ids.
        target_vocabulary: number of target ids.
        embedding: `learned`, a table of vectors, or `one_hot`: the first recurrent layers read one-hot words, and there
            is no table; as wide as the vocabulary, they suit characters and some thousands of words.
        cell: rnn, lstm or gru.
        layers: recurrent layers of the encoder, and of the decoder.
        width: size of the learned embeddings and of each layer's state.
        bidirectional: whether the encoder reads both ways, each with half of the width.
        reverse_source: whether the source is read from its end; a bidirectional encoder swaps its halves.
        tied_embeddings: whether the target embeddings are the matrix of the logits, too (Press and Wolf 2017).
        dropout: share of units dropped between layers, never between time steps (Zaremba et al. 2014), nor of one-hot
            words.
        init: initializer of the input and output matrices.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: bias of the forget gates of lstm before training.

    Raises:
        dlkit.errors.UsageError: an unknown name, an odd width with a bidirectional encoder, or one-hot words that are
            tied.

    Example:
        >>> model = seq2seq(30, 30, width=64)
        >>> model((source, target_in)).shape  # ids (32, 11) and (32, 12)
        TensorShape([32, 12, 30])
    """
    return Seq2Seq(
        source_vocabulary,
        target_vocabulary,
        embedding=embedding,
        cell=cell,
        layers=layers,
        width=width,
        bidirectional=bidirectional,
        reverse_source=reverse_source,
        tied_embeddings=tied_embeddings,
        dropout=dropout,
        init=init,
        recurrent_init=recurrent_init,
        forget_bias=forget_bias,
    )
