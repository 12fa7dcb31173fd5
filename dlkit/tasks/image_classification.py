"""Image classification: standardized images in, the class of each out; cross-entropy and accuracy."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit import runs
from dlkit.data.augment import augment, example_keys
from dlkit.data.batching import ROW_WEIGHTS, Batch, in_batches
from dlkit.data.images import ImageData, read_image, standardize, statistics
from dlkit.errors import UsageError
from dlkit.tasks.task import Sums, Task
from dlkit.train.losses import softmax_cross_entropy


class ImageClassification(Task):
    """See the module; the metrics are `loss` and `accuracy` (top-1), per image."""

    unit = "img"

    @cached_property
    def data(self) -> ImageData:
        """The dataset, loaded when first needed: predictions with a stored run never need it."""
        loaded = datasets.load(self.options["name"], **self.dataset_options())
        if not isinstance(loaded, ImageData):
            raise UsageError(
                f"{self.options['name']} has no labelled images", "`dlkit data list` says what each one is"
            )
        if self.stored and list(self.stored["classes"]) != loaded.classes:
            raise UsageError(f"{self.options['name']} has other classes than the run was trained on")
        return loaded

    @cached_property
    def info(self) -> dict[str, Any]:
        """Standardization, classes and shape."""
        if self.stored is not None:
            return dict(self.stored)
        mean, std = statistics(self.data.splits["train"])
        return {
            "mean": mean.tolist(), "std": std.tolist(), "classes": self.data.classes, "shape": list(self.data.shape)
        }  # fmt: skip

    def fingerprint(self) -> str:
        """sha256 of the training split's labels and of every image in it."""
        split = self.data.splits["train"]
        digest = hashlib.sha256(split.labels.tobytes())
        for indices in in_batches(np.arange(len(split)), 1024):
            digest.update(split.fetch(indices).tobytes())
        return digest.hexdigest()

    def model_arguments(self) -> dict[str, Any]:
        """Shape and number of classes."""
        return {"input_shape": tuple(self.info["shape"]), "classes": len(self.info["classes"])}

    def describe(self) -> str:
        """Sizes, shape, classes and standardization."""
        sizes = ", ".join(f"{self.size(split):,} {split}" for split in self.splits)
        shape = "x".join(str(side) for side in self.info["shape"])
        mean, std = (" ".join(f"{value:.2f}" for value in self.info[key]) for key in ("mean", "std"))
        return (
            f"{self.options['name']}: {sizes}, {shape}, {len(self.info['classes'])} classes; "
            f"standardized with mean {mean}, sd {std}"
        )

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`images` (n, h, w, c) float32 and `labels` (n,) int32."""
        source = self.data.splits[split]
        images = standardize(source.fetch(indices), self.info["mean"], self.info["std"])
        names = self.options.get("augment") or []
        if epoch is not None and names:
            images = augment(names, images, example_keys(self.seed, epoch, indices))
        return {"images": images, "labels": source.labels[indices]}

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Cross-entropy and hits, summed over images."""
        labels = batch["labels"]
        logits = model(batch["images"], training=training)  # (rows, classes)
        losses = softmax_cross_entropy(logits, labels, label_smoothing=smoothing)  # (rows,)
        hits = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels), losses.dtype)
        weights = tf.cast(batch[ROW_WEIGHTS], losses.dtype) if ROW_WEIGHTS in batch else tf.ones_like(losses)
        weight = tf.reduce_sum(weights)
        return Sums(tf.reduce_sum(losses * weights), weight, {"accuracy": (tf.reduce_sum(hits * weights), weight)})


class Classifier:
    """Classifies image files with a run.

    Args:
        model: a run or a checkpoint.

    Raises:
        dlkit.errors.UsageError: it is a run of another task.

    Example:
        >>> Classifier("runs/lenet_digits-1")("three.png")
        [{'class': '3', 'probability': 0.998}]
    """

    def __init__(self, model: str) -> None:
        run = runs.open_run(model)
        if run.task != "image_classification":
            what = run.task.replace("_", " ")
            raise UsageError(f"{run.path} is no image classifier but a run of {what}", "`dlkit runs list` shows others")
        self.info = run.info["data"]
        self.model = runs.load_model(model)

    def __call__(self, path: str | Path, *, top: int = 1) -> list[dict[str, Any]]:
        """The most probable classes of an image file, the most probable first.

        Args:
            path: an image of any size, converted as `dlkit.data.images.read_image` says.
            top: how many classes to name.

        Returns:
            A list of {"class", "probability"}.

        Raises:
            dlkit.errors.DataError: the file cannot be read as an image.
        """
        height, width, channels = self.info["shape"]
        image = standardize(read_image(path, (height, width, channels)), self.info["mean"], self.info["std"])
        logits = self.model(image[np.newaxis], training=False)  # (1, classes)
        probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))[0].numpy()
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [{"class": self.info["classes"][index], "probability": float(probabilities[index])} for index in best]
