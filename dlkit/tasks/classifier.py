"""Says what is in image files, with a run or with several."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import runs
from dlkit.data.image_files import decoders, read_image
from dlkit.data.images import standardize
from dlkit.errors import DataError, UsageError

Guesses = list[dict[str, Any]]  # {"class", "probability"}, the most probable first


Models = str | Path | Sequence[str | Path]


def open_alike(models: Models, *, task: str, what: str) -> list[tuple[str | Path, runs.Run]]:
    """Opens runs whose probabilities are to be averaged.

    Args:
        models: runs or checkpoints, or one.
        task: that all are to be of.
        what: such a run in words.

    Returns:
        Each as it was named, and its run.

    Raises:
        dlkit.errors.UsageError: one is of another task, or they tell different classes apart.
    """
    named = [models] if isinstance(models, str | Path) else list(models)
    opened = [(name, runs.open_run(name)) for name in named]
    first = opened[0][1]
    for _, run in opened:
        if run.task != task:
            title = run.task.replace("_", " ")
            raise UsageError(f"{run.path} is no {what} but a run of {title}", "`dlkit runs list` shows others")
        if run.info["data"]["classes"] != first.info["data"]["classes"]:
            raise UsageError(
                f"{first.path} and {run.path} tell different classes apart", "an ensemble is of runs with the same ones"
            )
    return opened


class Classifier:
    """Classifies image files with a run; with several, their probabilities are averaged.

    Args:
        model: a run or a checkpoint, or several.

    Raises:
        dlkit.errors.UsageError: one is a run of another task, or they take other images or tell other classes apart.

    Example:
        >>> Classifier("runs/lenet_digits-1")("three.png")
        [{'class': '3', 'probability': 0.998}]
    """

    def __init__(self, model: Models) -> None:
        opened = open_alike(model, task="image_classification", what="image classifier")
        self.info = opened[0][1].info["data"]
        for _, run in opened:
            if run.info["data"]["shape"] != self.info["shape"]:
                taken = ("x".join(map(str, each.info["data"]["shape"])) for each in (opened[0][1], run))
                raise UsageError("the runs take images of {} and of {}".format(*taken), "name runs of the same size")
        self._nets = [_Net(name, run.info["data"]) for name, run in opened]

    @overload  # a text, too, is a sequence of texts
    def __call__(self, images: str | Path, *, top: int = 1) -> Guesses: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Sequence[str | Path], *, top: int = 1) -> list[Guesses]: ...
    def __call__(self, images: str | Path | Sequence[str | Path], *, top: int = 1) -> Guesses | list[Guesses]:
        """The most probable classes of an image file, the most probable first; of several files a list of that.

        Args:
            images: a file or several, converted as `dlkit.data.image_files.read_image` says.
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

    def _guesses(self, images: NDArray[np.uint8], top: int) -> list[Guesses]:
        probabilities = np.mean([net(images) for net in self._nets], axis=0)  # (n, classes)
        names = self.info["classes"]
        return [
            [{"class": names[index], "probability": float(row[index])} for index in order]
            for row, order in zip(probabilities, np.argsort(-probabilities, kind="stable")[:, :top], strict=True)
        ]


class _Net:
    """The model of a run, and the way from pixels to probabilities."""

    def __init__(self, name: str | Path, info: Mapping[str, Any]) -> None:
        self.info = info
        self.model = runs.load_model(name)
        images = tf.TensorSpec((None, *info["shape"]), tf.float32)  # one graph for batches of any size
        self._probabilities = tf.function(self._of_standardized, input_signature=[images], autograph=False)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Takes pixels (n, height, width, channels) to probabilities (n, classes)."""
        return self._probabilities(standardize(images, self.info["mean"], self.info["std"])).numpy()

    def _of_standardized(self, images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.cast(self.model(images, training=False), tf.float32))
