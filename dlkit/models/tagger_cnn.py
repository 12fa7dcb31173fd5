"""A convolutional tagger: windows of words, layer upon layer, and a tag for the word in the middle of each."""

from typing import Annotated

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.errors import UsageError
from dlkit.layers import activations
from dlkit.layers.activations import Activation
from dlkit.layers.dropout import Dropout
from dlkit.layers.masked_pooling import without_padding
from dlkit.layers.time_convolution import TimeConv
from dlkit.models import Paper
from dlkit.models.tagger import TaggerNet
from dlkit.values import Count

PAPERS = {
    "tagger_cnn": Paper(
        "Collobert et al. 2011, Natural language processing (almost) from scratch; dilated as in Strubell et al. 2017, "
        "Fast and accurate entity recognition with iterated dilated convolutions"
    )
}


class Convolutions(keras.layers.Layer):
    """Convolutions over time on top of each other, each with its non-linearity, that give an output at each step.

    Each begins with zeros at padding: what the one below makes of it is no longer 0, and a sentence without padding has
    zeros behind its last word.

    Args:
        width: of the outputs of each layer.
        layers: how many.
        window: steps that a filter looks at, an odd number.
        dilated: whether these lie twice as far apart in each layer as in the one below.
        dropout: share of units dropped between layers.
        init: how the filters are drawn.
        activation: the non-linearity.
        name: its layers are called `name_conv1`, `name_relu1` (by the activation), `name_dropout1`, `name_conv2` and so
            on.

    Raises:
        dlkit.errors.UsageError: the window is even, or there is no such activation.

    Example:
        >>> encoder = Convolutions(64, layers=2, name="encoder")
        >>> encoder(tf.ones((8, 20, 32)), mask=tf.ones((8, 20), bool)).shape
        TensorShape([8, 20, 64])
    """

    names_parts = True  # views name them without it

    def __init__(
        self,
        width: int,
        *,
        layers: int,
        window: int = 3,
        dilated: bool = True,
        dropout: float = 0.0,
        init: str = "he",
        activation: Activation = "relu",
        name: str,
    ) -> None:
        super().__init__(name=name)
        if window % 2 == 0:
            raise UsageError(
                f"model.window is {window}, an even number: no word is in the middle of so many",
                f"{window - 1} or {window + 1} words have one",
            )
        self.convs = [
            TimeConv(
                width, kernel_size=window, dilation_rate=2**level if dilated else 1, init=init,
                name=f"{name}_conv{level + 1}",
            )
            for level in range(layers)
        ]  # fmt: skip
        self.activations = [
            activations.activation(activation, name=f"{name}_{activation}{number}") for number in range(1, layers + 1)
        ]
        self.dropouts = [Dropout(dropout, name=f"{name}_dropout{number}") for number in range(1, layers)]

    @property
    def receptive_field(self) -> int:
        """How many steps an output looks at, its own in their middle."""
        return 1 + sum(conv.reach for conv in self.convs)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds all layers."""
        for conv in self.convs:
            conv.build(input_shape)
            input_shape = (*input_shape[:-1], conv.filters)

    def call(self, inputs: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Outputs (batch, time, width), of which those at padding mean nothing.

        Args:
            inputs: (batch, time, features).
            mask: (batch, time) bool, False at padding.
            training: whether dropout is on.
        """
        x = inputs
        for level, (conv, activate) in enumerate(zip(self.convs, self.activations, strict=True)):
            if level:
                x = self.dropouts[level - 1](x, training=training)
            x = activate(conv(without_padding(x, mask)))
        return x

    def compute_mask(self, inputs: tf.Tensor, previous_mask: tf.Tensor | None = None) -> None:
        """Attaches no mask to the results."""


class ConvTagger(TaggerNet):
    """Convolutions read a sentence; for the arguments see `tagger_cnn`."""

    @property
    def receptive_field(self) -> int:
        """How many words a tag looks at, its own in their middle."""
        return self.encoder.receptive_field


def tagger_cnn(
    vocabulary: int,
    classes: int,
    *,
    embedding_width: Count = 64,
    layers: Annotated[int, Field(ge=1, le=12)] = 4,
    width: Count = 128,
    window: Count = 3,
    dilated: bool = True,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
    init: str = "he",
    activation: Activation = "relu",
) -> keras.Model:
    """Convolutions over word vectors, dilated if wanted, and a linear layer at each word.

    One layer is the window approach (Collobert et al. 2011, section 3.3.1), with ReLU by default and with zeros beyond
    both ends of a sentence. Dilated, of n layers each looks twice as far as the one below (Strubell et al. 2017,
    section 3), so that a tag depends on 1 + (window - 1) (2^n - 1) words, 31 by default; else on 1 + (window - 1) n.

    Args:
        vocabulary: number of ids.
        classes: number of tags.
        embedding_width: size of the word vectors.
        layers: convolutions on top of each other.
        width: feature maps of each.
        window: words that a filter looks at, an odd number: its own and as many before it as after it.
        dilated: whether these lie twice as far apart in each layer as in the one below: 1 word, 2, 4, 8.
        word_dropout: share of the words that are unknown in training.
        dropout: share of units dropped of the word vectors, between layers and in front of the linear layer.
        init: how filters and the linear layer are drawn.
        activation: the non-linearity behind each convolution.

    Raises:
        dlkit.errors.UsageError: an unknown name, or an even window.

    Example:
        >>> tagger_cnn(8000, 12)(ids).shape  # ids (32, 20)
        TensorShape([32, 20, 12])
    """
    encoder = Convolutions(
        width, layers=layers, window=window, dilated=dilated, dropout=dropout, init=init, activation=activation,
        name="encoder",
    )  # fmt: skip
    return ConvTagger(
        "tagger_cnn", vocabulary, classes, encoder=encoder, embedding_width=embedding_width, width=width,
        word_dropout=word_dropout, dropout=dropout, init=init,
    )  # fmt: skip
