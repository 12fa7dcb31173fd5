"""Text classification: a text in, its class out; cross-entropy and accuracy."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.data import pairs
from dlkit.data.batching import ROW_WEIGHTS, Batch
from dlkit.data.labelled_texts import LabelledTexts
from dlkit.tasks import TASKS
from dlkit.tasks.task import Sums
from dlkit.tasks.text_task import TextTask
from dlkit.train.losses import softmax_cross_entropy


class TextClassification(TextTask):
    """See the module; the metrics are `loss` and `accuracy` (top-1), per text."""

    about = TASKS["text_classification"]
    unit = "texts"
    padded_together = (("ids",),)
    kind = "labelled_texts"
    things = "texts"

    def class_names(self) -> list[str]:
        """The classes of the dataset."""
        data: LabelledTexts = self.data
        return list(data.classes)

    def most_tokens(self) -> int:
        """How many tokens of a text are read."""
        data: LabelledTexts = self.data
        return data.options.max_length

    def adapt(self, model: keras.Model) -> None:
        """Shows a net that begins with counts the ids of the texts that it is trained on, and their classes."""
        begin = getattr(model, "begin_with", None)
        if begin is not None:
            split, rows = self.data.splits["train"], self.trained_on("train", self.size("train"))
            begin(split.ids.take(rows), split.labels[rows])

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`ids` (n, time) int32, padded with 0, and `labels` (n,) int32."""
        source = self.data.splits[split]
        length = self._padded_length(split, indices, epoch)
        return {"ids": pairs.pad([source.ids[row] for row in indices], length=length), "labels": source.labels[indices]}

    def batch_of_ids(self, ids: NDArray[np.int64]) -> Batch:
        """The ids, and a label for each row."""
        return {"ids": ids.astype(np.int32), "labels": np.zeros(len(ids), np.int32)}

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Cross-entropy and hits, summed over texts."""
        logits = model(batch["ids"], training=training)  # (rows, classes)
        losses = softmax_cross_entropy(logits, batch["labels"], label_smoothing=smoothing)
        best = tf.argmax(logits, axis=-1, output_type=batch["labels"].dtype)
        hits = tf.cast(tf.equal(best, batch["labels"]), losses.dtype)
        rows = tf.cast(batch[ROW_WEIGHTS], losses.dtype) if ROW_WEIGHTS in batch else tf.ones_like(losses)
        weight = tf.reduce_sum(rows)
        return Sums(tf.reduce_sum(losses * rows), weight, {"accuracy": (tf.reduce_sum(hits * rows), weight)}, logits)
