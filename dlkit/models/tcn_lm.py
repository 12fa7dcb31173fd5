"""A temporal convolutional network as a language model (Bai et al. 2018)."""

from typing import Annotated, Any

import keras
import tensorflow as tf
from keras import ops
from pydantic import Field

from dlkit.decode.step import Step
from dlkit.layers import activations
from dlkit.layers.activations import Activation
from dlkit.layers.causal_convolution import CausalConv
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.read_out import Logits, tied_logits
from dlkit.models import Paper
from dlkit.values import Count

PAPERS = {
    "tcn_lm": Paper(
        "Bai et al. 2018, An empirical evaluation of generic convolutional and recurrent networks for sequence modeling"
    )
}


class Block:
    """Figure 1 (b) of the paper: twice a dilated causal convolution, ReLU and dropout, and the input added to it.

    Another activation may stand in the place of all three ReLUs.
    """

    def __init__(
        self,
        at: str,
        width: int,
        *,
        kernel: int,
        dilation: int,
        dropout: float,
        weight_norm: bool,
        activation: Activation,
    ) -> None:
        self.convs = [
            CausalConv(
                width, kernel_size=kernel, dilation_rate=dilation, weight_norm=weight_norm, name=f"{at}_conv{number}"
            )
            for number in (1, 2)
        ]
        self.activations = [activations.activation(activation, name=f"{at}_{activation}{place}") for place in (1, 2, 3)]
        self.dropouts = [Dropout(dropout, name=f"{at}_dropout{number}") for number in (1, 2)]
        for conv in self.convs:
            conv.build((None, None, width))
        self.layers = [*self.convs, *self.activations, *self.dropouts]

    def __call__(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        """Outputs, shaped like `x` (batch, time, width)."""
        y, (*inner, last) = x, self.activations
        for conv, activate, dropout in zip(self.convs, inner, self.dropouts, strict=True):
            y = dropout(activate(conv(y)), training=training)
        return last(x + y)

    def step(self, x: tf.Tensor, past: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """One step, of (batch, beams, width) and what the two convolutions have seen before."""
        y, following, (*inner, last) = x, [], self.activations
        for conv, activate, before in zip(self.convs, inner, past, strict=True):
            y, after = conv.step(y, before)
            y = activate(y)
            following.append(after)
        return last(x + y), tuple(following)


class TemporalConvLM(keras.Model):
    """An embedding, blocks of causal convolutions whose dilation doubles from one to the next, and a read-out.

    `call` scores whole sequences, `start` and `step` are what decoding needs, see `dlkit.decode.step`.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        layers: int,
        width: int,
        kernel: int,
        tied: bool,
        dropout: float,
        weight_norm: bool,
        init: str,
        activation: Activation,
    ) -> None:
        super().__init__(name="tcn_lm")
        self.width = width
        self.embedding = keras.layers.Embedding(vocabulary, width, name="embedding")
        self.embedding.build(None)
        self.embedding_dropout = Dropout(dropout, name="embedding_dropout")
        self.blocks = [
            Block(
                f"block{i + 1}",
                width,
                kernel=kernel,
                dilation=2**i,
                dropout=dropout,
                weight_norm=weight_norm,
                activation=activation,
            )
            for i in range(layers)
        ]
        self.block_layers = [layer for block in self.blocks for layer in block.layers]
        self.head = None
        if not tied:
            self.head = Logits(vocabulary, kernel_initializer=initializer(init), name="head")
            self.head.build((None, None, width))
        self.built = True

    @property
    def receptive_field(self) -> int:
        """How many tokens a prediction looks at."""
        return 1 + sum(conv.reach for block in self.blocks for conv in block.convs)

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits (batch, time, vocabulary) of the token after each position of ids (batch, time), in float32."""
        x = self.embedding_dropout(self._embedded(ids), training=training)
        for block in self.blocks:
            x = block(x, training)
        return self._logits(x)

    def start(self, source: tf.Tensor, *, max_len: tf.Tensor | int = 0) -> tuple[Any, tuple[()]]:
        """Nothing has been read, by one beam; of the source (batch, any) only the number of rows counts."""
        batch = tf.shape(source)[0]
        return tuple(
            tuple(tf.zeros((batch, 1, conv.reach, self.width), self.compute_dtype) for conv in block.convs)
            for block in self.blocks
        ), ()

    def step(self, tokens: tf.Tensor, state: Any, memory: tuple[()] = ()) -> Step:
        """Logits (batch, beams, vocabulary) after one more token on each beam, and the state after it."""
        x, following = self._embedded(tokens), []
        for block, past in zip(self.blocks, state, strict=True):
            x, after = block.step(x, past)
            following.append(after)
        return Step(self._logits(x), tuple(following))

    def _embedded(self, ids: tf.Tensor) -> tf.Tensor:
        return ops.cast(self.embedding(ids), self.compute_dtype)

    def _logits(self, x: tf.Tensor) -> tf.Tensor:
        return self.head(x) if self.head else tied_logits(x, self.embedding)


def tcn_lm(
    vocabulary: int,
    *,
    layers: Annotated[int, Field(ge=1, le=12)] = 5,
    width: Count = 128,
    kernel: Annotated[int, Field(ge=2)] = 3,
    tied: bool = False,
    dropout: float = 0.0,
    weight_norm: bool = True,
    init: str = "glorot",
    activation: Activation = "relu",
) -> keras.Model:
    """A language model of causal convolutions: each block looks twice as far back as the one below it.

    A prediction sees 1 + 2 (kernel - 1) (2^layers - 1) tokens, 125 by default.

    Args:
        vocabulary: number of ids.
        layers: blocks of two convolutions.
        width: of embeddings and filters.
        kernel: steps that a filter looks at.
        tied: whether the read-out's matrix is the embedding, without a bias.
        dropout: share of units dropped after each convolution.
        weight_norm: whether length and direction of each filter are learned apart, as in the paper.
        init: initializer of the read-out.
        activation: the non-linearity behind each convolution and behind each sum.

    Example:
        >>> tcn_lm(65)(ids).shape  # ids (32, 64)
        TensorShape([32, 64, 65])
    """
    return TemporalConvLM(
        vocabulary, layers=layers, width=width, kernel=kernel, tied=tied, dropout=dropout, weight_norm=weight_norm,
        init=init, activation=activation,
    )  # fmt: skip
