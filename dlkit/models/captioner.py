"""A recurrent decoder that begins with what a conv net made of an image (Vinyals et al. 2015)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import keras
import tensorflow as tf
from pydantic import Field

from dlkit import models
from dlkit.decode.step import Step
from dlkit.errors import UsageError
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.read_out import Logits, as_float32
from dlkit.layers.recurrent import Cell, LSTMState, Stack
from dlkit.models import Paper
from dlkit.values import Count, check_call

PAPERS = {
    "captioner": Paper(
        "Vinyals, Toshev, Bengio and Erhan 2015, Show and Tell: A Neural Image Caption Generator, with the image in "
        "the first state instead of the first input"
    )
}


def encoder_of(name: str, image_shape: tuple[int, int, int], options: Mapping[str, Any]) -> keras.Model:
    """An image net without its head: images in; its last feature map, and what its head would read, out.

    Its layers and weights have the names that they have in the net, so that a trained net's weights fit.

    Args:
        name: of an image net.
        image_shape: height, width and channels.
        options: of the net's builder.

    Raises:
        dlkit.errors.UsageError: there is no such image net, an option is wrong, or the net has no graph of layers.
    """
    if models.task_of(name) != "image_classification":
        raise UsageError(f"model.encoder={name} is no image net", "such as resnet20; `dlkit models` lists all")
    function = models.builder(name)
    checked = check_call(function, options, where="model.encoder_options", hidden=("input_shape", "classes"))
    net = function(input_shape=image_shape, classes=2, **checked)
    head = next((layer for layer in reversed(net.layers) if layer.weights), None)
    maps = [layer.output for layer in net.layers[1:] if isinstance(layer.output, keras.KerasTensor)]
    maps = [tensor for tensor in maps if len(tensor.shape) == 4]
    if head is None or not isinstance(head.input, keras.KerasTensor) or len(head.input.shape) != 2 or not maps:
        raise UsageError(f"model.encoder={name} is no conv net with a head", "such as resnet20, lenet or vgg11")
    return keras.Model(net.inputs[0], [maps[-1], head.input], name="encoder")


class ImageDecoder(keras.Model):
    """What captioners share: the encoder, embeddings, the decoder's first state and the read-out.

    A subclass makes its own layers between `__init__` and `_finish`. For the arguments see `captioner`.
    """

    def __init__(
        self,
        name: str,
        image_shape: tuple[int, int, int],
        vocabulary: int,
        *,
        encoder: str,
        encoder_options: Mapping[str, Any],
        cell: Cell,
        layers: int,
        width: int,
        tied_embeddings: bool,
        dropout: float,
        init: str,
    ) -> None:
        super().__init__(name=name)
        self.image_shape = tuple(image_shape)
        self.encoder_name = encoder
        self.cell, self.layers_of_decoder, self.width = cell, layers, width
        self.encoder = encoder_of(encoder, image_shape, encoder_options)
        draw = initializer(init)
        leaves = 2 if cell == "lstm" else 1
        self.image_dropout = Dropout(dropout, name="image_dropout")
        self.first_state = keras.layers.Dense(
            layers * leaves * width, activation="tanh", kernel_initializer=draw, name="first_state"
        )
        self.embedding = keras.layers.ReversibleEmbedding(vocabulary, width, name="embedding")
        self.embedding_dropout = Dropout(dropout, name="embedding_dropout")
        self.words_dropout = Dropout(dropout, name="words_dropout")
        self.words = None if tied_embeddings else Logits(vocabulary, kernel_initializer=draw, name="words")

    def _finish(self, image: int, decoder: Sequence[tuple[Any, ...]]) -> None:
        """Builds everything: `image` is the width of what the first state is made of, `decoder` layers with shapes."""
        self.first_state.build((None, image))
        self.embedding.build((None, None))
        for layer, *shapes in decoder:
            if layer is not None:
                layer.build(*shapes)
        if self.words is not None:
            self.words.build((None, None, self.width))
        self.built = True

    def _look(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The encoder's feature map (batch, rows, columns, maps) and its pooled output (batch, features)."""
        # An encoder that takes all sizes, as progressive resizing wants it, says so in its specification.
        (wanted,) = tf.nest.flatten(self.encoder.input_spec)
        return self.encoder(tf.ensure_shape(images, wanted.shape), training=training)

    def _begin(self, image: tf.Tensor, training: bool) -> tuple[Any, ...]:
        """The first state of each level (batch, width), from features (batch, features) of the image."""
        made = self.first_state(self.image_dropout(image, training=training))
        parts = tf.split(made, self.layers_of_decoder * (2 if self.cell == "lstm" else 1), axis=-1)
        if self.cell == "lstm":
            return tuple(LSTMState(h, c) for h, c in zip(parts[::2], parts[1::2], strict=True))
        return tuple(parts)

    def _logits(self, outputs: tf.Tensor) -> tf.Tensor:
        return self.words(outputs) if self.words else as_float32(self.embedding(outputs, reverse=True))


class CaptionerNet(ImageDecoder):
    """An image net whose pooled output is the first state of a recurrent decoder; both are trained end to end.

    `start` and `step` are what decoding needs; `call` is teacher forcing. For the arguments see `captioner`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        vocabulary: int,
        *,
        encoder: str,
        encoder_options: Mapping[str, Any],
        cell: Cell,
        layers: int,
        width: int,
        tied_embeddings: bool,
        dropout: float,
        init: str,
        recurrent_init: str,
        forget_bias: float,
    ) -> None:
        super().__init__(
            "captioner", image_shape, vocabulary, encoder=encoder, encoder_options=encoder_options, cell=cell,
            layers=layers, width=width, tied_embeddings=tied_embeddings, dropout=dropout, init=init,
        )  # fmt: skip
        self.decoder = Stack(
            cell, width, layers=layers, dropout=dropout, init=init, recurrent_init=recurrent_init,
            forget_bias=forget_bias, name="decoder",
        )  # fmt: skip
        self._finish(self.encoder.outputs[1].shape[-1], [(self.decoder, (None, None, width))])

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
        _, pooled = self._look(images, training)
        embedded = self.embedding_dropout(self.embedding(target_in), training=training)
        # No mask: padding comes after all that counts, and the decoder does not look ahead.
        outputs, _ = self.decoder(embedded, initial_state=self._begin(pooled, training), training=training)
        return self._logits(self.words_dropout(outputs, training=training))

    def start(self, source: tf.Tensor, *, max_len: tf.Tensor | int = 0) -> tuple[Any, tuple[()]]:
        """The decoder's first state for images, and no memory; see `dlkit.decode.step.Decodable`."""
        _, pooled = self._look(source, training=False)
        return tf.nest.map_structure(lambda leaf: leaf[:, tf.newaxis], self._begin(pooled, training=False)), ()

    def step(self, tokens: tf.Tensor, state: Any, memory: tuple[()] = ()) -> Step:
        """Logits (batch, beams, vocabulary) after one more word on each beam, and the state after it."""
        outputs, state = self.decoder.step(self.embedding(tokens), state)
        return Step(self._logits(outputs), state)


def captioner(
    image_shape: tuple[int, int, int],
    vocabulary: int,
    *,
    encoder: str = "resnet20",
    encoder_options: dict[str, Any] = {},  # noqa: B006 - never changed
    cell: Cell = "lstm",
    layers: Annotated[int, Field(ge=1, le=5)] = 1,
    width: Count = 256,
    tied_embeddings: bool = False,
    dropout: float = 0.0,
    init: str = "glorot",
    recurrent_init: str = "orthogonal",
    forget_bias: float = 1.0,
) -> keras.Model:
    """A conv net reads the image, and recurrent layers that begin with its pooled output write the caption.

    Args:
        image_shape: height, width and channels of the images.
        vocabulary: number of ids of the captions.
        encoder: any image net of `dlkit models` with convolutions; `--init-from` takes its weights from a trained run.
        encoder_options: options of that net, such as {norm = "none"}.
        cell: rnn, lstm or gru.
        layers: recurrent layers.
        width: size of the embeddings and of each layer's state.
        tied_embeddings: whether the embeddings are the matrix of the logits, too (Press and Wolf 2017).
        dropout: share of units dropped of the image's features, of embeddings and of what the words are read from;
            between layers, too, never between time steps (Zaremba et al. 2014).
        init: initializer of the decoder's matrices; the encoder has its own.
        recurrent_init: initializer of the recurrent matrices.
        forget_bias: bias of the forget gates of lstm before training.

    Raises:
        dlkit.errors.UsageError: an unknown name, or an encoder that is no conv net.

    Example:
        >>> model = captioner((32, 32, 3), 30, encoder="lenet", width=64)
        >>> model((images, target_in)).shape  # (8, 32, 32, 3) and ids (8, 12)
        TensorShape([8, 12, 30])
    """
    return CaptionerNet(
        image_shape, vocabulary, encoder=encoder, encoder_options=encoder_options, cell=cell, layers=layers,
        width=width, tied_embeddings=tied_embeddings, dropout=dropout, init=init, recurrent_init=recurrent_init,
        forget_bias=forget_bias,
    )  # fmt: skip
