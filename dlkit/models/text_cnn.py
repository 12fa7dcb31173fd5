"""A convolutional text classifier (Kim 2014): windows of words, and of each map the maximum over time."""

import keras
import tensorflow as tf
from keras import ops

from dlkit.data.tokenizer import PAD
from dlkit.layers.activations import Activation, function
from dlkit.layers.dropout import Dropout
from dlkit.layers.initializers import initializer
from dlkit.layers.masked_pooling import masked_max, without_padding
from dlkit.layers.read_out import Logits
from dlkit.layers.word_dropout import WordDropout
from dlkit.models import Paper
from dlkit.values import Count

PAPERS = {"text_cnn": Paper("Kim 2014, Convolutional neural networks for sentence classification")}


class TextCNN(keras.Model):
    """Convolutions over time side by side; for the arguments see `text_cnn`."""

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        windows: tuple[int, ...],
        maps: int,
        width: int,
        word_dropout: float,
        embedding_dropout: float,
        dropout: float,
        init: str,
        activation: Activation,
    ) -> None:
        super().__init__(name="text_cnn")
        self.windows = windows
        self.word_dropout = WordDropout(word_dropout, name="word_dropout")
        # As in the paper, uniform in [-a, a]; its a of 0.25 is for vectors of 300.
        self.embedding = keras.layers.Embedding(
            vocabulary, width, embeddings_initializer=keras.initializers.RandomUniform(-0.25, 0.25), name="embedding"
        )
        self.embedding_dropout = Dropout(embedding_dropout, name="embedding_dropout")
        self.convs = [
            keras.layers.Conv1D(
                maps,
                window,
                activation=function(activation),
                kernel_initializer=initializer(init),
                name=f"conv{number}",
            )
            for number, window in enumerate(windows, 1)
        ]
        self.head_dropout = Dropout(dropout, name="head_dropout")
        self.head = Logits(classes, kernel_initializer=initializer(init), name="head")
        self.embedding.build((None, None))
        for conv in self.convs:
            conv.build((None, None, width))
        self.head.build((None, maps * len(windows)))
        self.built = True

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the classes.

        A text is continued with zeros on both sides, so that a window of h words stands at its length + h - 1 places:
        all at which it has a word. A text without words has none, and the maximum of each map is then 0.

        Args:
            ids: (batch, time) int, padded with 0 after the last token; a text may have none.
            training: whether dropout is on.

        Returns:
            (batch, classes), float32 (float64 when the model is).
        """
        real = tf.not_equal(ids, PAD)
        x = self.embedding(self.word_dropout(ids, training=training))
        x = without_padding(self.embedding_dropout(x, training=training), real)  # (batch, time, width)
        lengths, time = tf.reduce_sum(tf.cast(real, tf.int32), axis=1), tf.shape(ids)[1]
        pooled = []
        for window, conv in zip(self.windows, self.convs, strict=True):
            maps = conv(tf.pad(x, [[0, 0], [window - 1, window - 1], [0, 0]]))  # (batch, time + window - 1, maps)
            places = tf.where(lengths > 0, lengths + window - 1, 0)
            pooled.append(masked_max(maps, tf.sequence_mask(places, time + window - 1)))
        text = ops.concatenate(pooled, axis=-1)  # (batch, maps * windows)
        return self.head(self.head_dropout(text, training=training))


def text_cnn(
    vocabulary: int,
    classes: int,
    *,
    windows: tuple[Count, ...] = (3, 4, 5),
    maps: Count = 100,
    width: Count = 128,
    word_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    dropout: float = 0.5,
    init: str = "glorot",
    activation: Activation = "relu",
) -> keras.Model:
    """Feature maps over windows of words, each reduced to its maximum over time, and a linear layer on these.

    Args:
        vocabulary: number of ids.
        classes: number of classes.
        windows: how many words a map looks at; the paper's are 3, 4 and 5.
        maps: feature maps of each window.
        width: size of the word vectors, 300 in the paper.
        word_dropout: share of the words that are unknown in training.
        embedding_dropout: share of units of the word vectors that are dropped.
        dropout: share of the maxima that are dropped, 0.5 in the paper.
        init: how matrices are drawn.
        activation: the non-linearity of the feature maps.

    Example:
        >>> text_cnn(8000, 2)(ids).shape  # ids (32, 20)
        TensorShape([32, 2])
    """
    return TextCNN(
        vocabulary, classes, windows=tuple(windows), maps=maps, width=width, word_dropout=word_dropout,
        embedding_dropout=embedding_dropout, dropout=dropout, init=init, activation=activation,
    )  # fmt: skip
