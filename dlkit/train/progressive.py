"""Progressive resizing: small images early in training, whole ones in the end (Tan and Le 2021, section 4).

A convolution costs in proportion to the area of its image, and what is learned first is coarse: half the side is a
quarter of the work. The net must not depend on the size, as those do not that end in a pool over the whole map.
"""

from functools import partial

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit.errors import UsageError
from dlkit.recipe import TrainSection
from dlkit.tasks.task import Task


class Progressive:
    """How large images are when.

    Args:
        settings: its `progressive` are sides, as shares of the whole one, and `progressive_until` the shares of
            all steps until which they last.
        total_steps: of the training.

    Example:
        >>> sizes = Progressive(TrainSection(progressive=[0.5], progressive_until=[0.6]), total_steps=100)
        >>> sizes.scale(59), sizes.scale(60)
        (0.5, 1.0)
    """

    def __init__(self, settings: TrainSection, total_steps: int) -> None:
        ends = [round(share * total_steps) for share in settings.progressive_until]
        self.stages = [*zip(settings.progressive, ends, strict=True), (1.0, total_steps)]

    def scale(self, step: int) -> float:
        """The share of their side that the images of a step have."""
        return next((scale for scale, end in self.stages if step < end), 1.0)

    def steps_left(self, done: int) -> float:
        """How many steps like the last of those `done` take as long as all that are left: time goes by the area."""
        work, first = 0.0, done
        for scale, end in self.stages:
            work += scale**2 * max(0, end - first)
            first = max(first, end)
        return work / self.scale(done - 1) ** 2


def resized(images: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Images (n, height, width, channels) at a share of their sides: bilinear, with antialiasing."""
    if scale == 1:
        return images
    return tf.image.resize(images, _sides(images.shape[1:3], scale), antialias=True).numpy()


def _sides(sides: tuple[int, ...], scale: float) -> list[int]:
    return [max(1, round(side * scale)) for side in sides]


def accept_sizes(task: Task, model: keras.Model, settings: TrainSection) -> None:
    """Lets a model of a task with images take those of all sizes that are to come.

    Raises:
        dlkit.errors.UsageError: the model is made for one size, or layers of it shrink such small images to nothing.
    """
    if not settings.progressive:
        return
    net = task.about.image_net_of(model)
    _, *sides, channels = net.input_shape
    net.input_spec = keras.layers.InputSpec(shape=(None, None, None, channels))
    for scale in settings.progressive:
        height, width = _sides(tuple(sides), scale)
        try:
            image = tf.TensorSpec((1, height, width, channels), net.input.dtype)
            tf.function(partial(task.see, model), autograph=False).get_concrete_function(image)
        except ValueError:
            raise UsageError(
                f"{model.name} cannot take images of {height}x{width}, which train.progressive {scale} makes them",
                "leave it out, or choose a larger share or a net that ends in a pool over the whole map, as resnet18",
            ) from None
