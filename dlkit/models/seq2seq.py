"""Sequence to sequence with two recurrent networks (Sutskever et al. 2014; Cho et al. 2014)."""

from typing import Annotated

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.data.tokenizer import PAD
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.recurrent import GRU
from dlkit.models import Paper

PAPERS = {
    "seq2seq": Paper(
        "Sutskever et al. 2014, Sequence to sequence learning with neural networks, "
        "with the gated unit of Cho et al. 2014, Learning phrase representations using RNN encoder-decoder"
    )
}


class Seq2Seq(keras.Model):
    """An encoder GRU whose last state is the first state of a decoder GRU; each has weights of its own.

    `start` and `step` are what decoding needs; `call` is teacher forcing: all decoder inputs are known.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        width: int,
        init: str,
        recurrent_init: str,
        dropout: float,
        reverse_source: bool,
    ) -> None:
        super().__init__(name="seq2seq")
        self.reverse_source = reverse_source
        self.source_embedding = keras.layers.Embedding(source_vocabulary, width, name="source_embedding")
        self.source_dropout = Dropout(dropout, name="source_dropout")
        self.encoder = GRU(width, init=init, recurrent_init=recurrent_init, name="encoder_gru1")
        self.target_embedding = keras.layers.Embedding(target_vocabulary, width, name="target_embedding")
        self.target_dropout = Dropout(dropout, name="target_dropout")
        self.decoder = GRU(width, init=init, recurrent_init=recurrent_init, name="decoder_gru1")
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = keras.layers.Dense(target_vocabulary, kernel_initializer=initializer(init), name="head")
        for layer in (self.source_embedding, self.target_embedding):
            layer.build((None, None))
        for layer in (self.encoder, self.decoder, self.head):
            layer.build((None, None, width))
        self.built = True

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits of every target position, given the tokens before it.

        Args:
            inputs: source (batch, source time) and target_in (batch, target time), int ids padded with 0.
            training: whether dropout is on.

        Returns:
            (batch, target time, target vocabulary).
        """
        source, target_in = inputs
        embedded = self.target_dropout(self.target_embedding(target_in), training=training)
        # No mask: padding comes after all that counts, and the decoder does not look ahead.
        outputs, _ = self.decoder(embedded, initial_state=self._encode(source, training))
        return self.head(self.head_dropout(outputs, training=training))

    def start(self, source: tf.Tensor) -> tf.Tensor:
        """The decoder's first state, (batch, width), for source ids (batch, source time)."""
        return self._encode(source, training=False)

    def step(self, tokens: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits (batch, target vocabulary) after one more token (batch,), and the state after it."""
        output, state = self.decoder.step(self.target_embedding(tokens), state)
        return self.head(output), state

    def _encode(self, source: tf.Tensor, training: bool) -> tf.Tensor:
        real = tf.not_equal(source, PAD)
        if self.reverse_source:
            source = tf.reverse_sequence(source, tf.reduce_sum(tf.cast(real, tf.int32), axis=1), seq_axis=1)
        embedded = self.source_dropout(self.source_embedding(source), training=training)
        _, state = self.encoder(embedded, mask=real)
        return state


def seq2seq(
    source_vocabulary: int,
    target_vocabulary: int,
    *,
    width: Annotated[int, Field(ge=1)] = 128,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    dropout: float = 0.0,
    reverse_source: bool = True,
) -> keras.Model:
    """One recurrent layer reads the source, another writes the target, with nothing but a state between them.

    Sutskever et al. (2014, section 3.3) read the source backwards, which brings its first words close to the first
    words of the target.

    Args:
        source_vocabulary: number of source ids.
        target_vocabulary: number of target ids.
        width: size of the embeddings and of the states.
        init: initializer of the input and output matrices.
        recurrent_init: initializer of the recurrent matrices.
        dropout: share of units dropped between layers, never between time steps (Zaremba et al. 2014).
        reverse_source: whether the source is read from its end.

    Example:
        >>> model = seq2seq(30, 30, width=64)
        >>> model((source, target_in)).shape  # ids (32, 11) and (32, 12)
        TensorShape([32, 12, 30])
    """
    return Seq2Seq(
        source_vocabulary,
        target_vocabulary,
        width=width,
        init=init,
        recurrent_init=recurrent_init,
        dropout=dropout,
        reverse_source=reverse_source,
    )
