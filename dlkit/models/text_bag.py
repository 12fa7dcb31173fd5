"""A bag of words and word pairs (Joulin et al. 2016): the mean of their vectors, and a linear layer."""

from typing import Annotated

import keras
import tensorflow as tf
from pydantic import Field

from dlkit.data.tokenizer import PAD
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.masked_pooling import masked_sum
from dlkit.layers.word_dropout import WordDropout
from dlkit.models import Paper

PAPERS = {"text_bag": Paper("Joulin et al. 2016, Bag of tricks for efficient text classification")}

Count = Annotated[int, Field(ge=1)]
# An odd number close to 2^31 / golden ratio (Knuth, volume 3, section 6.4): it spreads pairs over the rows.
SPREAD = 1_327_217_885


class TextBag(keras.Model):
    """The mean of the vectors of all words and pairs; for the arguments see `text_bag`."""

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        pairs: int,
        width: int,
        word_dropout: float,
        embedding_dropout: float,
        dropout: float,
        init: str,
    ) -> None:
        super().__init__(name="text_bag")
        self.word_dropout = WordDropout(word_dropout, name="word_dropout")
        self.embedding = keras.layers.Embedding(vocabulary, width, name="embedding")
        self.embedding_dropout = Dropout(embedding_dropout, name="embedding_dropout")
        self.pair_embedding = keras.layers.Embedding(pairs, width, name="pair_embedding") if pairs else None
        self.pair_dropout = Dropout(embedding_dropout, name="pair_dropout")
        self.pairs = pairs
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = keras.layers.Dense(classes, kernel_initializer=initializer(init), name="head")
        for layer in (self.embedding, self.pair_embedding):
            if layer is not None:
                layer.build((None, None))
        self.head.build((None, width))
        self.built = True

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the classes.

        Args:
            ids: (batch, time) int, padded with 0 after the last token; a text may have none.
            training: whether dropout is on.

        Returns:
            (batch, classes), float32 (float64 when the model is).
        """
        real = tf.not_equal(ids, PAD)
        ids = self.word_dropout(ids, training=training)
        words = self.embedding_dropout(self.embedding(ids), training=training)  # (batch, time, width)
        total, count = masked_sum(words, real)
        if self.pair_embedding is not None:
            first, second = tf.cast(ids[:, :-1], tf.int64), tf.cast(ids[:, 1:], tf.int64)
            # Pairs share rows by chance; a pair always has the same one.
            rows = tf.cast((first * SPREAD + second * 65_537) % 2_147_483_647 % self.pairs, tf.int32)
            vectors = self.pair_dropout(self.pair_embedding(rows), training=training)
            of_pairs, more = masked_sum(vectors, real[:, 1:])  # padding comes last: the first of a real second is real
            total, count = total + of_pairs, count + more
        text = tf.cast(total / tf.maximum(count, tf.ones((), count.dtype)), words.dtype)
        logits = self.head(self.head_dropout(text, training=training))
        return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def text_bag(
    vocabulary: int,
    classes: int,
    *,
    pairs: Annotated[int, Field(ge=0)] = 100_003,
    width: Count = 16,
    word_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    dropout: float = 0.0,
    init: str = "glorot",
) -> keras.Model:
    """The mean of the vectors of all words and of all pairs of neighbours, and a linear layer on it.

    Args:
        vocabulary: number of ids.
        classes: number of classes.
        pairs: rows of the table of pairs, which share them by chance (hashing); 0 for words alone.
        width: size of the vectors.
        word_dropout: share of the words that are unknown in training.
        embedding_dropout: share of units of each vector that are dropped.
        dropout: share of units of the mean that are dropped.
        init: how the linear layer is drawn.

    Example:
        >>> text_bag(8000, 2)(ids).shape  # ids (32, 20)
        TensorShape([32, 2])
    """
    return TextBag(
        vocabulary, classes, pairs=pairs, width=width, word_dropout=word_dropout, embedding_dropout=embedding_dropout,
        dropout=dropout, init=init,
    )  # fmt: skip
