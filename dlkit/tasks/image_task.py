"""What tasks share whose models see single images: how a prepared set is obtained, and layers that images adapt."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from dlkit import data as datasets
from dlkit.data import tfds_names
from dlkit.data.images import Split, moments, standardize, statistics, value_counts
from dlkit.recipe import image_options
from dlkit.tasks.task import Task

if TYPE_CHECKING:
    from dlkit.data.tfds_prepare import Check


class ImageTask(Task):
    """A task whose `info` has the images' `mean`, `std` and `shape`; see the module."""

    # Layers that take their weights from images, not by gradients, see so many of them; of large ones so many pixels,
    # which hold as many patches: they are in memory together.
    adapted_to: int
    adapted_pixels: int
    _counts: NDArray[np.int64] | None = None  # of all processes together

    @property
    @abstractmethod
    def training_images(self) -> Split:
        """The images of the training split.

        Raises:
            dlkit.errors.UsageError: there is no such split.
        """

    @staticmethod
    @abstractmethod
    def tfds_reader() -> "tuple[Callable[..., Any], Check]":
        """The function that reads a set of TensorFlow Datasets, and what it needs of one."""

    def obtain(self) -> None:
        """Prepares a set of TensorFlow Datasets; to decode it takes as long again, and every process does so."""
        name, folder = self.options["name"], self.options.get("dir")
        reader, wanted = self.tfds_reader()
        if getattr(datasets.builder(name, folder, kind=self.about.data_kind), "func", None) is reader:
            from dlkit.data import tfds_prepare

            tfds_prepare.obtain(name, tfds_names.data_dir(folder), wanted=wanted)
        elif name in datasets.targets() and name not in datasets.DATASETS:
            super().obtain()  # of another package, whose function may do anything

    def count(self, *, rank: int, processes: int) -> NDArray[np.int64] | None:
        """How often each value occurs in each channel of the images, which have to be decoded for it."""
        return None if self.stored is not None else value_counts(self.training_images, rank=rank, processes=processes)

    def take_counts(self, counts: NDArray[np.int64]) -> None:
        """Takes the counts of all processes together."""
        self._counts = counts

    def standardization(self) -> dict[str, list[float]]:
        """Mean and standard deviation of the training images, which `info` has as `mean` and `std`."""
        mean, std = statistics(self.training_images) if self._counts is None else moments(self._counts)
        return {"mean": mean.tolist(), "std": std.tolist()}

    def dataset_options(self) -> dict[str, Any]:
        """What the dataset's own function takes of the section [data]."""
        ours = image_options()
        return {key: value for key, value in super().dataset_options().items() if key not in ours}

    def show_images(self, net: keras.Model, images: Split) -> None:
        """Shows training images to the layers of a net that take their weights from them, as the net sees them."""
        layers = [layer for layer in net._flatten_layers(include_self=False) if hasattr(layer, "adapt")]
        if not layers:
            return
        count = self.size("train")
        height, width, _ = self.info["shape"]
        seen = min(count, self.adapted_to, max(1, self.adapted_pixels // (height * width)))
        evenly = np.linspace(0, count - 1, seen).astype(np.int64)  # files may lie class by class
        shown = standardize(images.fetch(evenly), self.info["mean"], self.info["std"])
        for layer in layers:
            layer.adapt(shown)
