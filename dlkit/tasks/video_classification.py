"""Video classification: standardized clips in, the class of each, or of each of their frames, out."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit.data import videos
from dlkit.data.batching import ROW_WEIGHTS, Batch
from dlkit.errors import UsageError
from dlkit.tasks import TASKS
from dlkit.tasks.sequences import judged_steps, step_sums
from dlkit.tasks.task import Judged, Sums, Task
from dlkit.train.losses import softmax_cross_entropy


class VideoClassification(Task):
    """See the module; `loss` and `accuracy` are per label, `exact` counts the clips whose frames are all right."""

    about = TASKS["video_classification"]
    unit = "clips"

    @cached_property
    def data(self) -> videos.VideoData:
        """The dataset, loaded when first needed."""
        loaded = datasets.load_kind(self.options["name"], "videos", **self.dataset_options())
        if self.stored:
            found = self._form(loaded)
            if odd := [key for key, value in found.items() if value != self.stored[key]]:
                raise UsageError(
                    f"{loaded.name} has other {odd[0]} than the run was trained on", "evaluate on data of the same form"
                )
        return loaded

    @staticmethod
    def _form(data: videos.VideoData) -> dict[str, Any]:
        return {"classes": data.classes, "shape": list(data.shape), "every_frame": data.every_frame}

    @cached_property
    def info(self) -> dict[str, Any]:
        """Classes, shape of a frame, what is labelled, and mean and deviation of the pixels of the training clips."""
        if self.stored is not None:
            return dict(self.stored)
        mean, std = videos.statistics(self.data.splits["train"])
        return {**self._form(self.data), "mean": mean.tolist(), "std": std.tolist()}

    def fingerprint(self) -> str:
        """sha256 of what stands for the training clips."""
        return self.data.fingerprint()

    def model_arguments(self) -> dict[str, Any]:
        """Shape of a frame, number of classes, and whether each frame has one."""
        return {
            "frame_shape": tuple(self.info["shape"]), "classes": len(self.info["classes"]),
            "every_step": self.info["every_frame"],
        }  # fmt: skip

    def example_inputs(self) -> Any:
        """A clip."""
        return keras.KerasTensor((1, self.data.frames, *self.info["shape"]), "float32")

    def describe(self) -> str:
        """Sizes, frames, classes and standardization."""
        sizes = ", ".join(f"{self.size(split):,} {split}" for split in self.splits)
        shape = "x".join(str(side) for side in self.info["shape"])
        what = "frame" if self.info["every_frame"] else "clip"
        mean, std = (" ".join(f"{value:.2f}" for value in self.info[key]) for key in ("mean", "std"))
        return (
            f"{self.options['name']}: {sizes} clips of {self.data.frames} frames of {shape}, each {what} one of "
            f"{len(self.info['classes'])} classes; standardized with mean {mean}, sd {std}"
        )

    def remarks(self) -> list[str]:
        """What a net gets at most that does not look ahead."""
        most = self.data.looking_back
        return (
            []
            if most is None
            else [f"who sees no later frame gets at most {100 * most:.1f} % of the frames right, on average"]
        )

    def batch(self, split: str, indices: NDArray[np.int64], *, epoch: int | None) -> Batch:
        """`clips` (n, frames, height, width, channels) float32, and `labels` (n,) or (n, frames) int32."""
        clips, info = self.data.splits[split].fetch(indices), self.info
        scale = np.float32(1 / 255)
        pixels = (clips.pixels * scale - np.float32(info["mean"])) / np.float32(info["std"])
        return {"clips": pixels, "labels": clips.labels}

    def loss_sums(
        self, model: keras.Model, batch: Mapping[str, tf.Tensor], *, training: bool, smoothing: float
    ) -> Sums:
        """Cross-entropy and hits, summed over clips or over frames."""
        logits = model(batch["clips"], training=training)
        if self.info["every_frame"]:
            return step_sums(logits, batch, blank=None, smoothing=smoothing)
        labels = batch["labels"]
        losses = softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
        rows = tf.cast(batch[ROW_WEIGHTS], losses.dtype) if ROW_WEIGHTS in batch else tf.ones_like(losses)
        hits = tf.cast(tf.argmax(logits, axis=-1, output_type=labels.dtype) == labels, losses.dtype)
        weight = tf.reduce_sum(rows)
        return Sums(tf.reduce_sum(losses * rows), weight, {"accuracy": (tf.reduce_sum(hits * rows), weight)}, logits)

    def judged(self, batch: Batch, outputs: NDArray) -> Judged:
        """Labels and logits of the clips, or of all their frames."""
        return judged_steps(batch, outputs) if self.info["every_frame"] else super().judged(batch, outputs)
