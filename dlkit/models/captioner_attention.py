"""A recurrent decoder that looks at an image, place by place, before each word (Xu et al. 2015)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.decode.step import Step
from dlkit.errors import UsageError, unknown
from dlkit.layers.attention import Attention, Kind, Memory
from dlkit.layers.initializers import initializer
from dlkit.layers.recurrent import Cell, Stack, one_by_one
from dlkit.models import Paper
from dlkit.models.captioner import ImageDecoder
from dlkit.values import Count

PAPERS = {
    "captioner_attention": Paper(
        "Xu et al. 2015, Show, Attend and Tell: Neural Image Caption Generation with Visual Attention, its soft "
        "attention without the gate and without the penalty on the sums of weights"
    )
}

ContextTo = Literal["next_input", "readout"]


class CaptionerAttention(ImageDecoder):
    """An image net whose feature map the decoder looks at, at every step. For the arguments see `captioner_attention`.

    `grid` is the rows and columns of what it looks at: attention weights are over these places, row by row.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        vocabulary: int,
        *,
        encoder: str,
        encoder_options: Mapping[str, Any],
        score: Kind,
        context_to: ContextTo,
        map_pool: int,
        cell: Cell,
        layers: int,
        width: int,
        tied_embeddings: bool,
        dropout: float,
        init: str,
        recurrent_init: str,
        forget_bias: float,
    ) -> None:
        if context_to not in get_args(ContextTo):
            raise unknown("context_to", context_to, get_args(ContextTo))
        super().__init__(
            "captioner_attention", image_shape, vocabulary, encoder=encoder, encoder_options=encoder_options,
            cell=cell, layers=layers, width=width, tied_embeddings=tied_embeddings, dropout=dropout, init=init,
        )  # fmt: skip
        self.context_to = context_to
        _, height, breadth, maps = self.encoder.outputs[0].shape
        if map_pool > min(height, breadth):
            raise UsageError(
                f"model.map_pool={map_pool} is more than the {height}x{breadth} places of the encoder's last map",
                f"at most {min(height, breadth)}",
            )
        self.map_pool = keras.layers.AveragePooling2D(map_pool, name="map_pool") if map_pool > 1 else None
        self.grid = (height // map_pool, breadth // map_pool)
        self.attention = Attention(score, width, init=init, name="attention")
        self.decoder = Stack(
            cell, width, layers=layers, dropout=dropout, init=init, recurrent_init=recurrent_init,
            forget_bias=forget_bias, name="decoder",
        )  # fmt: skip
        self.readout = keras.layers.Dense(
            width, activation="tanh", kernel_initializer=initializer(init), name="readout"
        )
        values = width if score == "key_value" else maps
        inputs = width + values if context_to == "next_input" else width
        self._finish(
            maps,
            [
                (self.attention, (None, None, width), (None, None, maps)),
                (self.decoder, (None, None, inputs)),
                (self.readout, (None, None, width + values)),
            ],
        )

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits of every word, given the words before it.

        Args:
            inputs: images (batch, height, width, channels), standardized, and target_in (batch, time), int ids padded
                with 0.
            training: whether dropout is on.

        Returns:
            (batch, time, vocabulary), float32 (float64 when the model is).
        """
        images, target_in = inputs
        state, memory = self._read(images, training)
        embedded = self.embedding_dropout(self.embedding(target_in), training=training)
        # No mask in the decoder: padding comes after all that counts, and the decoder does not look ahead.
        if self.context_to == "next_input":
            outputs = one_by_one(
                lambda inputs, state: self._look_and_write(inputs, state, memory)[:2], embedded, state,
                width=self.width + memory.values.shape[-1],
            )  # fmt: skip
        else:  # what the decoder reads does not depend on what it looks at: all steps at once
            outputs, _ = self.decoder(embedded, initial_state=state, training=training)
            outputs = tf.concat([outputs, self.attention(outputs, memory)[0]], -1)
        return self._logits(self.words_dropout(self.readout(outputs), training=training))

    def start(self, source: tf.Tensor, *, max_len: tf.Tensor | int = 0) -> tuple[Any, Memory]:
        """The decoder's first state for images, and the places to look at; see `dlkit.decode.step.Decodable`."""
        state, memory = self._read(source, training=False)
        return tf.nest.map_structure(lambda leaf: leaf[:, tf.newaxis], state), memory

    def step(self, tokens: tf.Tensor, state: Any, memory: Memory) -> Step:
        """Logits (batch, beams, vocabulary) after one more word on each beam, state and attention weights."""
        embedded = self.embedding(tokens)
        if self.context_to == "next_input":
            outputs, state, weights = self._look_and_write(embedded, state, memory)
        else:
            outputs, state = self.decoder.step(embedded, state)
            context, weights = self.attention(outputs, memory)
            outputs = tf.concat([outputs, context], -1)
        return Step(self._logits(self.readout(outputs)), state, tf.cast(weights, tf.float32))

    def _read(self, images: tf.Tensor, training: bool) -> tuple[tuple[Any, ...], Memory]:
        """The first state, from the mean of all places (section 3.1.2), and the places."""
        seen, _ = self._look(images, training)  # (batch, rows, columns, maps)
        if self.map_pool is not None:
            seen = self.map_pool(seen)
        _, *sides, maps = seen.shape
        places = tf.reshape(seen, (tf.shape(seen)[0], -1, maps))
        places.set_shape((None, sides[0] * sides[1] if all(sides) else None, maps))
        return self._begin(tf.reduce_mean(places, 1), training), self.attention.memory(places)

    def _look_and_write(self, embedded: tf.Tensor, state: Any, memory: Memory) -> tuple[tf.Tensor, Any, tf.Tensor]:
        """One step (batch, beams, width): what the highest level said before is the query, and it reads the context."""
        context, weights = self.attention(tf.nest.flatten(state[-1])[0], memory)
        outputs, state = self.decoder.step(tf.concat([embedded, context], -1), state)
        return tf.concat([outputs, context], -1), state, weights


def captioner_attention(
    image_shape: tuple[int, int, int],
    vocabulary: int,
    *,
    encoder: str = "resnet20",
    encoder_options: dict[str, Any] = {},  # noqa: B006 - never changed
    score: Kind = "additive",
    context_to: ContextTo = "next_input",
    map_pool: Count = 1,
    cell: Cell = "lstm",
    layers: Annotated[int, Field(ge=1, le=5)] = 1,
    width: Count = 256,
    tied_embeddings: bool = False,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    forget_bias: float = 1.0,
) -> keras.Model:
    """A conv net reads the image, and recurrent layers look at the places of its last feature map before each word.

    Args:
        image_shape: height, width and channels of the images.
        vocabulary: number of ids of the captions.
        encoder: any image net of `dlkit models` with convolutions; `--init-from` takes its weights from a trained run.
        encoder_options: options of that net, such as {norm = "none"}.
        score: how well a state of the decoder fits a place: identity, linear, key_value or additive; see
            `dlkit.layers.attention.Attention`. The paper has additive.
        context_to: where the mean of the places goes: `next_input`, beside the embedding of the next word and to the
            read-out, as in the paper; or to the `readout` alone, whose teacher forcing is faster, since it takes all
            steps at once (Luong et al. 2015).
        map_pool: the mean of so many places in both directions is one place to look at, which is faster.
        cell: rnn, lstm or gru.
        layers: recurrent layers.
        width: size of the embeddings, of each layer's state and of the read-out.
        tied_embeddings: whether the embeddings are the matrix of the logits, too (Press and Wolf 2017).
        dropout: share of units dropped of the image's features for the first state, of embeddings and of the read-out.
            Between layers where the context goes to the read-out.
        init: initializer of the decoder's matrices; the encoder has its own.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: bias of the forget gates of lstm before training.

    Raises:
        dlkit.errors.UsageError: an unknown name, an encoder that is no conv net, or more pooling than there are places.

    Example:
        >>> model = captioner_attention((32, 32, 3), 30, width=64)
        >>> state, memory = model.start(images)  # (8, 32, 32, 3)
        >>> model.step(tf.ones((8, 1), tf.int32), state, memory).attention.shape
        TensorShape([8, 1, 64])
    """
    return CaptionerAttention(
        image_shape, vocabulary, encoder=encoder, encoder_options=encoder_options, score=score, context_to=context_to,
        map_pool=map_pool, cell=cell, layers=layers, width=width, tied_embeddings=tied_embeddings, dropout=dropout,
        init=init, recurrent_init=recurrent_init, forget_bias=forget_bias,
    )  # fmt: skip
