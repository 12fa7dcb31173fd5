"""Says what is in image files, with a run."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import runs
from dlkit.data.images import decoders, read_image, standardize
from dlkit.errors import DataError, UsageError

Guesses = list[dict[str, Any]]  # {"class", "probability"}, the most probable first


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

    def __init__(self, model: str | Path) -> None:
        run = runs.open_run(model)
        if run.task != "image_classification":
            what = run.task.replace("_", " ")
            raise UsageError(f"{run.path} is no image classifier but a run of {what}", "`dlkit runs list` shows others")
        self.info = run.info["data"]
        self.model = runs.load_model(model)
        images = tf.TensorSpec((None, *self.info["shape"]), tf.float32)  # one graph for batches of any size
        self._probabilities = tf.function(self._of_standardized, input_signature=[images])

    @overload  # a text, too, is a sequence of texts
    def __call__(self, images: str | Path, *, top: int = 1) -> Guesses: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Sequence[str | Path], *, top: int = 1) -> list[Guesses]: ...
    def __call__(self, images: str | Path | Sequence[str | Path], *, top: int = 1) -> Guesses | list[Guesses]:
        """The most probable classes of an image file, the most probable first; of several files a list of that.

        Args:
            images: a file or several, converted as `dlkit.data.images.read_image` says.
            top: how many classes to name.

        Returns:
            A list of {"class", "probability"}, or one for each file.

        Raises:
            dlkit.errors.DataError: a file cannot be read as an image.
        """
        if isinstance(images, str | Path):
            return self([images], top=top)[0]
        found = []
        for guesses in self.each(images, top=top):
            if isinstance(guesses, DataError):
                raise guesses
            found.append(guesses)
        return found

    def each(self, paths: Iterable[str | Path], *, top: int = 1, batch_size: int = 64) -> Iterator[Guesses | DataError]:
        """Classifies any number of image files, and gives in their order the guesses or why a file cannot be read.

        Args:
            paths: the files; no more are drawn from it than the next batch takes.
            top: how many classes to name.
            batch_size: images at a time; does not change the result.
        """
        waiting = iter(paths)
        while group := list(islice(waiting, batch_size)):
            read = list(decoders().map(self._attempt, group))
            images = [image for image in read if not isinstance(image, DataError)]
            guesses = iter(self._guesses(np.stack(images), top) if images else ())
            for result in read:
                yield result if isinstance(result, DataError) else next(guesses)

    def _attempt(self, path: str | Path) -> NDArray[np.uint8] | DataError:
        height, width, channels = self.info["shape"]
        try:
            return read_image(path, (height, width, channels))
        except DataError as failure:
            return failure

    def _of_standardized(self, images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.cast(self.model(images, training=False), tf.float32))

    def _guesses(self, images: NDArray[np.uint8], top: int) -> list[Guesses]:
        standardized = standardize(images, self.info["mean"], self.info["std"])
        probabilities = self._probabilities(standardized).numpy()  # (n, classes)
        names = self.info["classes"]
        return [
            [{"class": names[index], "probability": float(row[index])} for index in order]
            for row, order in zip(probabilities, np.argsort(-probabilities, kind="stable")[:, :top], strict=True)
        ]
