"""A bag of words and word pairs (Joulin et al. 2016): the mean of their vectors, and a linear layer."""

from typing import Annotated, Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import Field

from dlkit.data.pairs import Ragged
from dlkit.data.tokenizer import PAD
from dlkit.errors import UsageError, unknown
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.masked_pooling import masked_sum
from dlkit.layers.read_out import Logits
from dlkit.layers.word_dropout import WordDropout
from dlkit.models import Paper
from dlkit.values import Count

PAPERS = {
    "text_bag": Paper(
        "Joulin et al. 2016, Bag of tricks for efficient text classification; the start of Wang and Manning 2012, "
        "Baselines and bigrams"
    )
}

# An odd number close to 2^31 / golden ratio (Knuth, volume 3, section 6.4): it spreads pairs over the rows.
SPREAD = 1_327_217_885
Start = Literal["random", "naive_bayes"]
# What the mean of the log-ratios of naive Bayes is multiplied by at first. Their sum, over some 20 words and as many
# pairs that are not independent, would be far too sure.
GAIN = 5.0


class TextBag(keras.Model):
    """The mean of the vectors of all words and pairs; for the arguments see `text_bag`."""

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        pairs: int,
        width: int,
        start: Start,
        word_dropout: float,
        embedding_dropout: float,
        dropout: float,
        init: str,
    ) -> None:
        if start not in get_args(Start):
            raise unknown("start", start, get_args(Start))
        if start == "naive_bayes" and width < classes:
            raise UsageError(
                f"naive Bayes has a number for each of {classes} classes, and the vectors have {width}",
                f"set model.width={classes} or more",
            )
        super().__init__(name="text_bag")
        self.start = start
        self.word_dropout = WordDropout(word_dropout, name="word_dropout")
        self.embedding = keras.layers.Embedding(vocabulary, width, name="embedding")
        self.embedding_dropout = Dropout(embedding_dropout, name="embedding_dropout")
        self.pair_embedding = keras.layers.Embedding(pairs, width, name="pair_embedding") if pairs else None
        self.pair_dropout = Dropout(embedding_dropout, name="pair_dropout")
        self.pairs = pairs
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = Logits(classes, kernel_initializer=initializer(init), name="head")
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
            long = tf.cast(ids, tf.int64)
            rows = tf.cast(pair_rows(long[:, :-1], long[:, 1:], self.pairs), tf.int32)
            vectors = self.pair_dropout(self.pair_embedding(rows), training=training)
            of_pairs, more = masked_sum(vectors, real[:, 1:])  # padding comes last: the first of a real second is real
            total, count = total + of_pairs, count + more
        text = tf.cast(total / tf.maximum(count, tf.ones((), count.dtype)), words.dtype)
        return self.head(self.head_dropout(text, training=training))

    def begin_with(self, texts: Ragged, labels: NDArray[np.int32]) -> None:
        """Gives the vectors their first values from the training texts, where the net starts as naive Bayes.

        Of each word and pair, component c is log P(it | class c) less the mean over the classes, with 1 added to each
        count; the linear layer passes these on, and both learn from there.

        Args:
            texts: the ids of each text.
            labels: (n,), their classes.
        """
        if self.start != "naive_bayes":
            return
        classes, ids = self.head.units, texts.flat.astype(np.int64)
        of_ids = np.repeat(labels, texts.lengths)
        inside = np.repeat(np.arange(len(texts)), texts.lengths)
        together = inside[1:] == inside[:-1]  # both words of the same text
        counted = [(self.embedding, ids, of_ids)]
        if self.pair_embedding is not None:
            rows = pair_rows(ids[:-1][together], ids[1:][together], self.pairs)
            counted.append((self.pair_embedding, rows, of_ids[1:][together]))
        counts = []
        for layer, rows, of in counted:
            table = np.zeros((layer.input_dim, classes))
            np.add.at(table, (rows, of), 1.0)
            counts.append(table)
        seen = sum(int((table.sum(axis=1) > 0).sum()) for table in counts)
        totals = sum(table.sum(axis=0) for table in counts) + seen
        for (layer, _, _), table in zip(counted, counts, strict=True):
            ratios = np.log((table + 1) / totals)
            ratios -= ratios.mean(axis=1, keepdims=True)
            ratios[table.sum(axis=1) == 0] = 0  # of what has not been seen nothing is known
            values = layer.embeddings.numpy()
            values[:, :classes] = ratios
            layer.embeddings.assign(values)
        kernel = self.head.kernel.numpy()
        kernel[:classes] = GAIN * np.eye(classes)
        self.head.kernel.assign(kernel)


def pair_rows(first: Any, second: Any, rows: int) -> Any:
    """The row of each pair of ids, of a table with so many rows. Pairs share rows by chance; one pair has one row.

    Args:
        first: int64 ids, of NumPy or TensorFlow.
        second: those that follow.
        rows: of the table.
    """
    return (first * SPREAD + second * 65_537) % 2_147_483_647 % rows


def text_bag(
    vocabulary: int,
    classes: int,
    *,
    pairs: Annotated[int, Field(ge=0)] = 100_003,
    width: Count = 16,
    start: Start = "random",
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
        start: how the vectors begin: `random`; or `naive_bayes`, as the log-ratios that the counts of the training
            texts give, so that the net is right as often as naive Bayes before its first step (Wang and Manning 2012).
        word_dropout: share of the words that are unknown in training.
        embedding_dropout: share of units of each vector that are dropped.
        dropout: share of units of the mean that are dropped.
        init: how the linear layer is drawn.

    Raises:
        dlkit.errors.UsageError: an unknown start, or vectors that are too small for it.

    Example:
        >>> text_bag(8000, 2)(ids).shape  # ids (32, 20)
        TensorShape([32, 2])
    """
    return TextBag(
        vocabulary, classes, pairs=pairs, width=width, start=start, word_dropout=word_dropout,
        embedding_dropout=embedding_dropout, dropout=dropout, init=init,
    )  # fmt: skip
