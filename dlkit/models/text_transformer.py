"""A Transformer that classifies a text: the encoder blocks of `transformer`, and one vector of the text."""

from typing import Literal, get_args

import keras
import tensorflow as tf

from dlkit.data.tokenizer import PAD, START
from dlkit.errors import unknown
from dlkit.layers.activations import FeedForwardActivation
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.masked_pooling import masked_mean
from dlkit.layers.norms import EPSILON
from dlkit.layers.positions import Positions
from dlkit.layers.read_out import Logits
from dlkit.layers.word_dropout import WordDropout
from dlkit.models import Paper
from dlkit.models.transformer import Embedding, EncoderBlock, Settings
from dlkit.values import Count

PAPERS = {
    "text_transformer": Paper(
        "Vaswani et al. 2017, Attention is all you need; with pool cls Devlin et al. 2019, BERT: Pre-training of deep "
        "bidirectional transformers"
    )
}

Pool = Literal["mean", "cls"]


class EncoderNet(keras.Model):
    """Embeddings and positions, blocks of self-attention, and a linear layer; a subclass says what that is given.

    Args:
        name: of the model.
        vocabulary: number of ids.
        classes: units of the linear layer.
        settings: of the blocks.
        positions: see `Positions`.
        max_length: tokens that there are learned positions for.
        word_dropout: share of the words that are unknown in training.
        extra_tokens: tokens that the model adds to a text, which have positions, too.
    """

    def __init__(
        self,
        name: str,
        vocabulary: int,
        classes: int,
        *,
        settings: Settings,
        positions: Literal["sinusoidal", "learned", "none"],
        max_length: int,
        word_dropout: float,
        extra_tokens: int = 0,
    ) -> None:
        super().__init__(name=name)
        self.word_dropout = WordDropout(word_dropout, name="word_dropout")
        self.embedding = Embedding(vocabulary, settings.width, name="embedding")
        self.positions = Positions(positions, max_length=max_length + extra_tokens, name="positions")
        self.max_length = max_length if positions == "learned" else None  # None: any length
        self.embedding_dropout = Dropout(settings.dropout, name="embedding_dropout")
        self.encoder = [EncoderBlock(f"encoder_block{i + 1}", settings) for i in range(settings.layers)]
        self.encoder_layers = [layer for block in self.encoder for layer in block.layers]
        # A sum that nothing has normalized would come out of blocks that begin with their norms.
        self.encoder_norm = (
            keras.layers.LayerNormalization(epsilon=EPSILON, name="encoder_norm") if settings.norm == "pre" else None
        )
        self.head = Logits(classes, kernel_initializer=initializer(settings.init), name="head")
        for layer in (self.embedding, self.positions, self.encoder_norm, self.head):
            if layer is not None:
                layer.build((None, None, settings.width))
        self.built = True

    def encoded(self, ids: tf.Tensor, training: bool) -> tf.Tensor:
        """What the blocks make of the tokens (batch, time), padded with 0: (batch, time, width)."""
        real = tf.not_equal(ids, PAD)
        x = self.embedding_dropout(self.positions(self.embedding(ids)), training=training)  # (batch, time, width)
        for block in self.encoder:
            x, _ = block(x, real[:, tf.newaxis, tf.newaxis], training)
        return x if self.encoder_norm is None else self.encoder_norm(x)


class TextTransformer(EncoderNet):
    """An encoder, and the linear layer on one vector of the text; for the arguments see the builder."""

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        settings: Settings,
        pool: Pool,
        positions: Literal["sinusoidal", "learned", "none"],
        max_length: int,
        word_dropout: float,
    ) -> None:
        if pool not in get_args(Pool):
            raise unknown("pool", pool, get_args(Pool))
        super().__init__(
            "text_transformer", vocabulary, classes, settings=settings, positions=positions, max_length=max_length,
            word_dropout=word_dropout, extra_tokens=int(pool == "cls"),
        )  # fmt: skip
        self.pool = pool

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the classes.

        Args:
            ids: (batch, time) int, padded with 0 after the last token; a text may have none.
            training: whether dropout is on.

        Returns:
            (batch, classes), float32 even when the products are of bfloat16.
        """
        ids = self.word_dropout(ids, training=training)
        if self.pool == "cls":  # what stands first says what is to be known of the text
            ids = tf.pad(ids, [[0, 0], [1, 0]], constant_values=START)
        x = self.encoded(ids, training)
        return self.head(x[:, 0] if self.pool == "cls" else masked_mean(x, tf.not_equal(ids, PAD)))


def text_transformer(
    vocabulary: int,
    classes: int,
    *,
    layers: Count = 2,
    width: Count = 128,
    ffn: Count = 256,
    heads: Count = 4,
    pool: Pool = "mean",
    norm: Literal["post", "pre"] = "pre",
    activation: FeedForwardActivation = "relu",
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal",
    max_length: Count = 512,
    word_dropout: float = 0.0,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    ffn_dropout: float = 0.0,
    init: str = "glorot",
) -> keras.Model:
    """The encoder of a Transformer, and a linear layer on one vector of the text.

    Args:
        vocabulary: number of ids.
        classes: number of classes.
        layers: blocks.
        width: of embeddings, blocks and states, d_model.
        ffn: hidden units of the position-wise networks.
        heads: of every attention; a divisor of the width.
        pool: `mean` of all positions, or `cls`: a token of its own stands first, and its position is classified.
        norm: `pre` normalizes before each sublayer and once at the end, `post` after each sum, as the paper does.
        activation: of the hidden units; `relu_squared` is the squared ReLU of So et al. 2021, Primer.
        positions: `sinusoidal` for any length, `learned` for up to `max_length`, or `none`, which makes a bag of words.
        max_length: rows of the learned table.
        word_dropout: share of the words that are unknown in training.
        dropout: on the sum of embeddings and positions, and on the output of each sublayer.
        attention_dropout: on the weights of attention.
        ffn_dropout: on the hidden units of the position-wise networks.
        init: how matrices are drawn; embeddings are drawn from N(0, 1 / width).

    Raises:
        dlkit.errors.UsageError: an unknown name, or heads that do not divide the width.

    Example:
        >>> text_transformer(8000, 2)(ids).shape  # ids (32, 20)
        TensorShape([32, 2])
    """
    settings = Settings(
        layers=layers, decoder_layers=layers, width=width, ffn=ffn, heads=heads, dropout=dropout,
        attention_dropout=attention_dropout, ffn_dropout=ffn_dropout, norm=norm, activation=activation, init=init,
    )  # fmt: skip
    return TextTransformer(
        vocabulary, classes, settings=settings, pool=pool, positions=positions, max_length=max_length,
        word_dropout=word_dropout,
    )  # fmt: skip
