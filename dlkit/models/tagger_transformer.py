"""A Transformer that tags words: the encoder of `text_transformer`, and a linear layer at each word."""

from typing import Literal

import keras
import tensorflow as tf

from dlkit.layers.activations import FeedForwardActivation
from dlkit.models import Paper
from dlkit.models.text_transformer import EncoderNet
from dlkit.models.transformer import Settings
from dlkit.values import Count

PAPERS = {
    "tagger_transformer": Paper(
        "Vaswani et al. 2017, Attention is all you need; a linear layer at each token as in Devlin et al. 2019, BERT: "
        "Pre-training of deep bidirectional transformers"
    )
}


class TransformerTagger(EncoderNet):
    """An encoder, and the linear layer at each of its positions; for the arguments see `tagger_transformer`."""

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the tags of each word.

        Args:
            ids: (batch, time) int, padded with 0 after the last word; a sentence may have none.
            training: whether dropout is on.

        Returns:
            (batch, time, classes), float32 even when the products are of bfloat16.
        """
        return self.head(self.encoded(self.word_dropout(ids, training=training), training))


def tagger_transformer(
    vocabulary: int,
    classes: int,
    *,
    layers: Count = 2,
    width: Count = 128,
    ffn: Count = 256,
    heads: Count = 4,
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
    """The encoder of a Transformer, and a linear layer at each word.

    Args:
        vocabulary: number of ids.
        classes: number of tags.
        layers: blocks.
        width: of embeddings, blocks and states, d_model.
        ffn: hidden units of the position-wise networks.
        heads: of every attention; a divisor of the width.
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
        >>> tagger_transformer(8000, 12)(ids).shape  # ids (32, 20)
        TensorShape([32, 20, 12])
    """
    settings = Settings(
        layers=layers, decoder_layers=layers, width=width, ffn=ffn, heads=heads, dropout=dropout,
        attention_dropout=attention_dropout, ffn_dropout=ffn_dropout, norm=norm, activation=activation, init=init,
    )  # fmt: skip
    return TransformerTagger(
        "tagger_transformer", vocabulary, classes, settings=settings, positions=positions, max_length=max_length,
        word_dropout=word_dropout,
    )  # fmt: skip
