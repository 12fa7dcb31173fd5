"""Sequence to sequence with two recurrent networks and attention (Bahdanau et al. 2015; Luong et al. 2015)."""

from typing import Annotated, Any, Literal, get_args

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.data.tokenizer import PAD
from dlkit.decode.step import Step
from dlkit.errors import UsageError, unknown
from dlkit.layers.attention import Attention, Kind, Memory
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.recurrent import Cell, Stack, one_by_one
from dlkit.models import Paper
from dlkit.models.seq2seq import Embedding, EncoderDecoder
from dlkit.values import Count

PAPERS = {
    "seq2seq_attention": Paper(
        "Luong et al. 2015, Effective approaches to attention-based neural machine translation, with the encoder, and "
        "as an option the additive score, of Bahdanau et al. 2015, Neural machine translation by jointly learning to "
        "align and translate"
    )
}

ContextTo = Literal["readout", "next_layer", "next_input"]


class Seq2SeqAttention(EncoderDecoder):
    """An encoder whose states the decoder looks back at, at every step; each has weights of its own.

    The query of a step is the output of the decoder's `lower` levels, which are all of them when the context goes to
    the read-out, else the first. For the arguments see `seq2seq_attention`.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        embedding: Embedding,
        score: Kind,
        context_to: ContextTo,
        cell: Cell,
        layers: int,
        width: int,
        bidirectional: bool,
        tied_embeddings: bool,
        dropout: float,
        init: str,
        recurrent_init: str,
        forget_bias: float,
    ) -> None:
        if context_to not in get_args(ContextTo):
            raise unknown("context_to", context_to, get_args(ContextTo))
        if context_to == "next_layer" and layers < 2:
            raise UsageError("a decoder of one layer has no next layer for the context", "set model.layers=2")
        drawn: dict[str, Any] = {"init": init, "recurrent_init": recurrent_init, "forget_bias": forget_bias}
        super().__init__(
            "seq2seq_attention", source_vocabulary, target_vocabulary,
            embedding=embedding, cell=cell, layers=layers, width=width, bidirectional=bidirectional,
            tied_embeddings=tied_embeddings, dropout=dropout, **drawn,
        )  # fmt: skip
        self.context_to = context_to
        self.attention = Attention(score, width, init=init, name="attention")
        self.lower_levels = layers if context_to == "readout" else 1
        self.lower = Stack(cell, width, layers=self.lower_levels, dropout=dropout, name="decoder", **drawn)
        self.upper = self.readout = None
        if self.lower_levels < layers:
            self.upper_dropout = Dropout(dropout, name="upper_dropout")
            self.upper = Stack(cell, width, layers=layers - 1, dropout=dropout, name="decoder_upper", **drawn)
        if context_to == "readout":
            draw = initializer(init)
            self.readout = keras.layers.Dense(width, activation="tanh", kernel_initializer=draw, name="readout")
        words = self.target_embedding.output_dim
        one, two = (None, None, width), (None, None, 2 * width)  # two: with the context beside it
        decoder = [
            (self.lower, (None, None, words + width if context_to == "next_input" else words)),
            (self.attention, one, one),
            (self.upper, two if context_to == "next_layer" else one),
            (self.readout, two),
        ]
        self._finish(decoder, dropout=dropout, init=init)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits of every target position, given the tokens before it.

        Args:
            inputs: source (batch, source time) and target_in (batch, target time), int ids padded with 0.
            training: whether dropout is on.

        Returns:
            (batch, target time, target vocabulary), float32 (float64 when the model is).
        """
        source, target_in = inputs
        states, memory = self._read(source, training)
        below, above = states[: self.lower_levels], states[self.lower_levels :]
        embedded = self.target_dropout(self.target_embedding(target_in), training=training)
        # No mask in the decoder: padding comes after all that counts, and the decoder does not look ahead.
        if self.context_to == "next_input":
            outputs = one_by_one(
                lambda inputs, state: self._look_and_read(inputs, state, memory)[:2], embedded, below, width=self.width
            )
        else:  # what the decoder reads does not depend on what it looks at: all steps at once
            outputs, _ = self.lower(embedded, initial_state=below, training=training)
            context, _ = self.attention(outputs, memory)
            outputs = tf.concat([outputs, context], -1)
        if self.upper:
            outputs, _ = self.upper(
                self.upper_dropout(outputs, training=training), initial_state=above, training=training
            )
        if self.readout:
            outputs = self.readout(outputs)
        return self._logits(self.head_dropout(outputs, training=training))

    def start(self, source: tf.Tensor, *, max_len: tf.Tensor | int = 0) -> tuple[Any, Memory]:
        """The decoder's first state, and the encoder's states to look at; see `dlkit.decode.step.Decodable`.

        Whatever `max_len` is, the state has one size.
        """
        states, memory = self._read(source, training=False)
        return tf.nest.map_structure(lambda leaf: leaf[:, tf.newaxis], states), memory

    def step(self, tokens: tf.Tensor, state: Any, memory: Memory) -> Step:
        """Logits (batch, beams, target vocabulary) after one more token on each beam, state and attention weights."""
        below, above = state[: self.lower_levels], state[self.lower_levels :]
        embedded = self.target_embedding(tokens)
        if self.context_to == "next_input":
            outputs, below, weights = self._look_and_read(embedded, below, memory)
        else:
            outputs, below = self.lower.step(embedded, below)
            context, weights = self.attention(outputs, memory)
            outputs = tf.concat([outputs, context], -1)
        if self.upper:
            outputs, above = self.upper.step(outputs, above)
        if self.readout:
            outputs = self.readout(outputs)
        return Step(self._logits(outputs), (*below, *above), tf.cast(weights, tf.float32))

    def _read(self, source: tf.Tensor, training: bool) -> tuple[tuple[Any, ...], Memory]:
        outputs, states = self._encode(source, training)
        return states, self.attention.memory(outputs, tf.not_equal(source, PAD))

    def _look_and_read(self, embedded: tf.Tensor, state: Any, memory: Memory) -> tuple[tf.Tensor, Any, tf.Tensor]:
        """One step (batch, beams, width) of the first level, whose last state is the query (Bahdanau et al. 2015)."""
        context, weights = self.attention(tf.nest.flatten(state)[0], memory)
        outputs, state = self.lower.step(tf.concat([embedded, context], -1), state)
        return outputs, state, weights


def seq2seq_attention(
    source_vocabulary: int,
    target_vocabulary: int,
    *,
    embedding: Embedding = "learned",
    score: Kind = "linear",
    context_to: ContextTo = "readout",
    cell: Cell = "lstm",
    layers: Annotated[int, Field(ge=1, le=5)] = 2,
    width: Count = 128,
    bidirectional: bool = True,
    tied_embeddings: bool = False,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    forget_bias: float = 1.0,
) -> keras.Model:
    """Recurrent layers write the target and look, at each step, at what others made of every word of the source.

    So every step of the decoder is one hop from every step of the encoder, however long the sentence. The decoder
    begins with the encoder's last states. `linear` to the `readout` is Luong et al. 2015; `additive` to the
    `next_input` is Bahdanau et al. 2015, with one layer.

    Args:
        source_vocabulary: number of source ids.
        target_vocabulary: number of target ids.
        embedding: `learned`, a table of vectors, or `one_hot`: the first recurrent layers read one-hot words, and there
            is no table; as wide as the vocabulary, they suit characters and some thousands of words.
        score: how well a state of the decoder fits one of the encoder: identity, linear, key_value or additive; see
            `dlkit.layers.attention.Attention`.
        context_to: where the mean of the encoder's states goes: `readout`, beside the decoder's output in front of the
            logits; `next_layer`, beside the first layer's output into the second; `next_input`, beside the embedding
            of the next token. With the last, teacher forcing has to go step by step, and is slower.
        cell: rnn, lstm or gru.
        layers: recurrent layers of the encoder, and of the decoder.
        width: size of the learned embeddings, of each layer's state and of the context.
        bidirectional: whether the encoder reads both ways, each with half of the width.
        tied_embeddings: whether the target embeddings are the matrix of the logits, too (Press and Wolf 2017).
        dropout: share of units dropped between layers, never between time steps (Zaremba et al. 2014), nor of one-hot
            words.
        init: initializer of the input, output and attention matrices.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: bias of the forget gates of lstm before training.

    Raises:
        dlkit.errors.UsageError: an unknown name, an odd width with a bidirectional encoder, no next layer, or one-hot
            words that are tied.

    Example:
        >>> model = seq2seq_attention(30, 30, width=64)
        >>> state, memory = model.start(source)  # ids (32, 11)
        >>> model.step(tf.ones((32, 1), tf.int32), state, memory).attention.shape
        TensorShape([32, 1, 11])
    """
    return Seq2SeqAttention(
        source_vocabulary,
        target_vocabulary,
        embedding=embedding,
        score=score,
        context_to=context_to,
        cell=cell,
        layers=layers,
        width=width,
        bidirectional=bidirectional,
        tied_embeddings=tied_embeddings,
        dropout=dropout,
        init=init,
        recurrent_init=recurrent_init,
        forget_bias=forget_bias,
    )
