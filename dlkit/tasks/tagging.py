"""Tagging: a sentence in, a tag for each word out; cross-entropy and accuracy per word."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.data import pairs
from dlkit.data.batching import ROW_WEIGHTS, Batch
from dlkit.data.tagged_texts import TaggedTexts
from dlkit.data.tokenizer import PAD
from dlkit.tasks import TASKS
from dlkit.tasks.task import Judged, Sums
from dlkit.tasks.text_task import TextTask
from dlkit.train.losses import softmax_cross_entropy

NO_TAG = -1  # at padding


class Tagging(TextTask):
    """See the module; `loss` and `accuracy` are per word, `exact` is the share of sentences without a wrong tag."""

    about = TASKS["tagging"]
    unit = "words"
    padded_together = (("ids", "labels"),)
    kind = "tagged_texts"
    things = "sentences"

    def class_names(self) -> list[str]:
        """The tags of the dataset."""
        data: TaggedTexts = self.data
        return list(data.tags)

    def most_tokens(self) -> int:
        """How many words of a sentence are read."""
        data: TaggedTexts = self.data
        return data.max_length

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`ids` (n, time) int32, padded with 0, and `labels` (n, time) int32, padded with -1."""
        source = self.data.splits[split]
        length = self._padded_length(split, indices, epoch)
        ids = pairs.pad([source.ids[row] for row in indices], length=length)
        labels = pairs.pad([source.tags[row] for row in indices], length=length)
        return {"ids": ids, "labels": np.where(ids == PAD, np.int32(NO_TAG), labels)}

    def batch_of_ids(self, ids: NDArray[np.int64]) -> Batch:
        """The ids, and a label for each."""
        return {"ids": ids.astype(np.int32), "labels": np.zeros(ids.shape, np.int32)}

    def batch_of_text(self, model: keras.Model, text: str) -> Batch:
        """As many words of the text as are read, with the tags that the model gives them."""
        batch = super().batch_of_text(model, text)
        predicted = tf.argmax(model(tf.constant(batch["ids"]), training=False), axis=-1, output_type=tf.int32)
        return {**batch, "labels": predicted.numpy()}

    def likelihood(self, model: keras.Model, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, str]:
        """Of all tags of the sentence."""
        return -self.loss_sums(model, batch, training=False, smoothing=0.0).loss, "its tags"

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Cross-entropy and hits, summed over words; and the sentences that are right as a whole."""
        ids, labels = batch["ids"], batch["labels"]
        logits = model(ids, training=training)  # (rows, time, classes)
        real = tf.not_equal(ids, PAD)
        losses = softmax_cross_entropy(logits, tf.maximum(labels, 0), label_smoothing=smoothing)
        right = tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels)
        rows = tf.cast(batch[ROW_WEIGHTS], losses.dtype) if ROW_WEIGHTS in batch else tf.ones_like(losses[:, 0])
        words = tf.cast(real, losses.dtype) * rows[:, tf.newaxis]
        exact = tf.cast(tf.reduce_all(right | ~real, axis=1), losses.dtype)
        weight = tf.reduce_sum(words)
        metrics = {
            "accuracy": (tf.reduce_sum(tf.cast(right, losses.dtype) * words), weight),
            "exact": (tf.reduce_sum(exact * rows), tf.reduce_sum(rows)),
        }
        return Sums(tf.reduce_sum(losses * words), weight, metrics, logits)

    def judged(self, batch: Batch, outputs: NDArray) -> Judged:
        """Every word that is no padding, with the sentence that it is of."""
        real: NDArray[np.bool_] = batch["labels"] != NO_TAG
        return Judged(batch["labels"][real], outputs[real], np.argwhere(real)[:, 0])
