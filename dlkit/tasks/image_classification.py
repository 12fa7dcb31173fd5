"""Image classification: standardized images in, the class of each out; cross-entropy and accuracy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit.data.augment import alternation, augment, example_keys, mixes, partners_of
from dlkit.data.batching import ROW_WEIGHTS, Batch
from dlkit.data.check import decode_all
from dlkit.data.folders import DRAW_OTHERS, classes_without, uncovered_by
from dlkit.data.images import ImageData, Split, fingerprint, fingerprint_of_origin, standardize
from dlkit.errors import DataError, UsageError, nothing_to_train_on
from dlkit.models.heads import log_mean_probabilities, of_each_head
from dlkit.tasks import TASKS
from dlkit.tasks.image_task import ImageTask
from dlkit.tasks.task import Sums
from dlkit.train.losses import softmax_cross_entropy

if TYPE_CHECKING:
    from dlkit.data.tfds_prepare import Check

EXAMPLES = "examples"  # of a batch: which example each row is, where the heads of a net weigh them differently


def class_weights(chosen: str | Sequence[float], labels: NDArray[np.int32], classes: Sequence[str]) -> list[float]:
    """What an example of each class weighs in the training loss, scaled so that the training images weigh 1 on average.

    Args:
        chosen: a weight for each class; or `balanced`, which makes all classes weigh the same in sum: n / (classes *
            count) for each of the `count` images of a class.
        labels: (n,) int32, of the training images.
        classes: the class names.

    Raises:
        dlkit.errors.UsageError: the number of weights is not that of the classes.
        dlkit.errors.DataError: a class has no images that could be balanced.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if chosen == "balanced":
        if not counts.all():
            empty = [name for name, count in zip(classes, counts, strict=True) if not count]
            raise DataError(
                f"class_weights balanced: no training images of {', '.join(empty[:3])}"
                + (f" and {len(empty) - 3} more classes" if len(empty) > 3 else ""),
                "leave out the class, or give data.class_weights as a list of numbers",
            )
        return (len(labels) / (len(classes) * counts)).tolist()
    weights = np.array(chosen, dtype=np.float64)
    if len(weights) != len(classes):
        first = f"{', '.join(classes[:3])}{', ...' * (len(classes) > 3)}"
        raise UsageError(
            f"data.class_weights has {len(weights)} numbers, and there are {len(classes)} classes",
            f"give one for each, in this order: {first}; or `balanced`",
        )
    return (weights * len(labels) / (weights @ counts)).tolist()


class ImageClassification(ImageTask):
    """See the module; the metrics are `loss` and `accuracy` (top-1), per image."""

    about = TASKS["image_classification"]
    unit = "img"
    adapted_to = 5000
    adapted_pixels = 5000 * 32 * 32
    _mirrors = False

    @staticmethod
    def tfds_reader() -> "tuple[Callable[..., Any], Check]":
        """Of images with a label each."""
        from dlkit.data import tfds

        return tfds.tfds_set, tfds.image_and_label

    @cached_property
    def data(self) -> ImageData:
        """The dataset, loaded when first needed: predictions with a stored run never need it."""
        loaded = datasets.load_images(self.options["name"], **self.dataset_options())
        return self._as_trained(loaded) if self.stored else loaded

    def _as_trained(self, data: ImageData) -> ImageData:
        """The dataset with labels that count its classes as the run does: names must agree, their order need not."""
        assert self.stored is not None
        classes, shape, name = list(self.stored["classes"]), tuple(self.stored["shape"]), self.options["name"]
        if odd := sorted(set(classes) ^ set(data.classes)):
            owner = name if odd[0] in data.classes else "the run"
            raise UsageError(
                f"{name} has other classes than the run was trained on: only {owner} has {odd[0]}",
                "evaluate on data whose classes have the same names",
            )
        if data.shape != shape:
            found, wanted = ("x".join(map(str, sides)) for sides in (data.shape, shape))
            raise UsageError(f"the images of {name} are {found}, and the run takes {wanted}")
        if classes == data.classes:
            return data
        order = np.array([classes.index(label) for label in data.classes], np.int32)
        splits = {key: replace(split, labels=order[split.labels]) for key, split in data.splits.items()}
        return ImageData(data.name, classes, splits)

    @cached_property
    def info(self) -> dict[str, Any]:
        """Standardization, classes, their weights when they have some, and shape."""
        if self.stored is not None:
            return dict(self.stored)
        info = {**self.standardization(), "classes": self.data.classes, "shape": list(self.data.shape)}
        if chosen := self.options.get("class_weights"):
            info["class_weights"] = class_weights(chosen, self.training_images.labels, self.data.classes)
        return info

    def with_mirror_images(self) -> Self:
        """The same task, but its evaluation averages the probabilities of each image and of its mirror image."""
        task = self._copy()
        task._mirrors = True
        return task

    @property
    def training_images(self) -> Split:
        """The training split."""
        splits = self.data.splits
        if "train" not in splits:
            raise nothing_to_train_on(self.options["name"], splits)
        return splits["train"]

    def fingerprint(self) -> str:
        """sha256 of the training split's labels and of its images, or of the files that they come from.

        It is asked for when training begins and when it goes on. So all images are decoded here, which finds damaged
        ones before the first step; those that do not fit into memory when training begins only.

        Raises:
            dlkit.errors.DataError: an image cannot be decoded.
        """
        train = self.training_images
        if self.stored is None:
            decode_all(self.data)
        elif train.is_kept:
            try:
                decode_all(self.data)
            except DataError as failure:
                hint = "a run goes on with the images that it began with: put back what was there"
                raise DataError(failure.message, hint) from failure
        return fingerprint(train)

    def tested_on(self, split: str) -> tuple[str, str]:
        """The images, as the sha256 of their labels and of them, or of the files or records that they come from."""
        size, held = self.size(split), self.data.splits[split]  # the size checks the name
        return "images", fingerprint_of_origin(held if size == len(held) else held.take(np.arange(size)))

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

    def remarks(self) -> list[str]:
        """Which classes are learned without being validated or tested on."""
        lacking = uncovered_by(self.data.splits, self.data.classes)
        told = {name: classes_without(lacking[name], f"{name} images") for name in lacking if name != "train"}
        drawn = set(told).difference(self.data.ignored_options) if "split_seed" in self.options else set()
        return [f"{line}; {DRAW_OTHERS}" if name in drawn else line for name, line in told.items() if line]

    def check_model(self, model: keras.Model) -> None:
        """Whether the model has heads, where each is to have a bootstrap sample of its own.

        Raises:
            dlkit.errors.UsageError: it has none.
        """
        if self.resampling and self.resampling.kind == "head_bootstrap" and not of_each_head(model):
            raise UsageError(
                f"train.resample=head_bootstrap is for nets with heads, and {model.name} has none",
                f"`--set train.resample=bootstrap`, or `dlkit train heads --set model.trunk={model.name}`",
            )

    def adapt(self, model: keras.Model) -> None:
        """Shows training images to the layers that take their weights from them; they see what the model sees."""
        self.show_images(model, self.data.splits["train"])

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`images` (n, h, w, c) float32 and `labels` (n,) int32; of mixed images also `other_labels` and `shares`."""
        return self.rows_of(split, indices, np.arange(len(indices)), epoch=epoch)

    def rows_of(self, split: str, indices: NDArray[np.int64], rows: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """The given rows of `batch`: their images are decoded and, for a mix, those that they are mixed with."""
        source, info = self.data.splits[split], self.info
        if epoch is None:
            wanted = indices[rows]
            images = standardize(source.fetch(wanted), info["mean"], info["std"])
            return {"images": images, "labels": source.labels[wanted]}
        keys = example_keys(self.seed, epoch, indices)
        names = self.options.get("augment") or []
        others = partners_of(keys)[rows] if mixes(names) else rows
        needed = np.concatenate([rows, np.setdiff1d(others, rows)])
        at = np.empty(len(indices), np.int64)
        at[needed] = np.arange(len(needed))
        wanted = indices[needed]
        batch = augment(
            names, source.fetch(wanted), source.labels[wanted], keys[needed], mean=info["mean"], std=info["std"],
            options=self.options, partners=at[others], mirrored=alternation(self.seed, epoch, indices[needed]),
        )  # fmt: skip
        by_head = self.resampling is not None and self.resampling.kind == "head_bootstrap"
        return batch | {EXAMPLES: indices[rows].astype(np.int32)} if by_head else batch

    def batch_of_image(self, model: keras.Model, image: NDArray[np.float32]) -> Batch:
        """The image, and a label that means nothing."""
        return {"images": image[np.newaxis], "labels": np.zeros(1, np.int32)}

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Cross-entropy and hits, summed over images; of a net with several heads the mean of their losses.

        An image that is mixed of two counts as a part of each. Class weights are for the loss in training only.
        """
        # (rows, classes); of a net with heads, in training, (rows, heads, classes)
        logits = model(batch["images"], training=training)
        heads = logits.shape[1] if logits.shape.rank == 3 else None
        if self._mirrors and not training:
            of_mirror = model(tf.reverse(batch["images"], axis=[2]), training=False)
            # Logarithms of the mean probabilities: their softmax is these again.
            dtype = tf.float64 if logits.dtype == tf.float64 else tf.float32
            both = [tf.nn.log_softmax(tf.cast(each, dtype)) for each in (logits, of_mirror)]
            logits = tf.reduce_logsumexp(both, axis=0) - tf.math.log(tf.constant(2.0, dtype))
        outputs = logits if heads is None else log_mean_probabilities(logits)
        best = tf.argmax(outputs, axis=-1, output_type=batch["labels"].dtype)
        of_classes = self.info.get("class_weights") if training else None

        def of(labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            """Losses, weights and hits (rows,), as if the images were of these labels."""
            wanted = labels if heads is None else tf.repeat(labels[:, tf.newaxis], heads, axis=1)
            losses = softmax_cross_entropy(logits, wanted, label_smoothing=smoothing)
            weights = tf.ones_like(losses)
            if EXAMPLES in batch:
                weights = tf.gather(tf.constant(self._head_counts(heads), losses.dtype), batch[EXAMPLES])
            losses *= weights
            if heads is not None:  # the mean over the heads, each of which may weigh an example otherwise
                losses, weights = tf.reduce_mean(losses, axis=1), tf.reduce_mean(weights, axis=1)
            if of_classes:
                of_class = tf.gather(tf.constant(of_classes, losses.dtype), labels)
                losses, weights = losses * of_class, weights * of_class
            return losses, weights, tf.cast(tf.equal(best, labels), losses.dtype)

        losses, weights, hits = of(batch["labels"])
        if "shares" in batch:
            share = tf.cast(batch["shares"], losses.dtype)
            mixed = zip((losses, weights, hits), of(batch["other_labels"]), strict=True)
            losses, weights, hits = (share * own + (1 - share) * other for own, other in mixed)
        rows = tf.cast(batch[ROW_WEIGHTS], losses.dtype) if ROW_WEIGHTS in batch else tf.ones_like(losses)
        return Sums(
            tf.reduce_sum(losses * rows),
            tf.reduce_sum(weights * rows),
            {"accuracy": (tf.reduce_sum(hits * rows), tf.reduce_sum(rows))},
            outputs,
        )

    def _head_counts(self, heads: int | None) -> NDArray[np.float32]:
        """How often each training example is in the bootstrap sample of each head, (examples, heads)."""
        assert self.resampling is not None
        assert heads is not None
        return self.resampling.head_counts(self.size("train"), heads)
