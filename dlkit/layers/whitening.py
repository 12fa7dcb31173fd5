"""A first convolution whose filters follow from the images: it whitens their patches."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dlkit.layers.convolution import Conv2D

# Added to each variance. Directions of the finest detail vary so little that whitened they would be noise.
EPSILON = 5e-4

# Patches are taken of so many images together: those of 5,000 images of 32x32 would be half a gigabyte.
AT_ONCE = 64


class Whitening(Conv2D):
    """A convolution without padding whose outputs, over all patches of the images, are uncorrelated, of variance 1.

    Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.2. A patch of size x size x channels has
    as many principal directions as numbers; each is a filter, and its negative another, so that a non-linearity behind
    it loses no half. The filters do not train, their biases do. Until `adapt` has seen images each takes one number of
    a patch as it is, or its negative.

    Args:
        size: height and width of a patch.
        channels: of the images.

    Example:
        >>> layer = Whitening(2, 3, name="whitening")
        >>> layer.adapt(images)  # (5000, 32, 32, 3), standardized
        >>> layer(images[:8]).shape
        TensorShape([8, 31, 31, 24])
    """

    def __init__(self, size: int, channels: int, **kwargs: Any) -> None:
        super().__init__(2 * size * size * channels, size, padding="valid", kernel_initializer=_as_they_are, **kwargs)
        self.size = size
        self.channels = channels

    def add_weight(self, *args: Any, **options: Any) -> keras.Variable:
        """As of any layer, but for filters, which no gradient changes."""
        return super().add_weight(*args, **options | ({"trainable": False} if options.get("name") == "kernel" else {}))

    def adapt(self, images: NDArray[np.float32]) -> None:
        """Takes the filters from the patches of images (n, height, width, channels), standardized as for training."""
        if not self.built:
            self.build(images.shape)
        filters = whitening_filters(images, self.size)
        self._kernel.assign(np.concatenate([filters, -filters], axis=-1))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        config = keras.layers.Layer.get_config(self)
        return {**config, "size": self.size, "channels": self.channels}


def _as_they_are(shape: tuple[int, int, int, int], dtype: Any = None) -> NDArray[np.float32]:
    """Filters that take one number of a patch each, and their negatives."""
    count = shape[3] // 2
    return np.concatenate([np.eye(count), -np.eye(count)], axis=1).reshape(shape).astype(np.float32)


def whitening_filters(images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The principal directions of all patches, each over the root of its variance: v / sqrt(lambda + epsilon).

    The mean is not taken off: that of standardized images is zero. Which of v and -v is the direction is settled by
    its greatest number, which is positive, so that two machines agree.

    Args:
        images: (n, height, width, channels).
        size: height and width of a patch.

    Returns:
        (size, size, channels, size * size * channels), in falling order of variance.
    """
    count = size * size * images.shape[-1]
    products, number = np.zeros((count, count)), 0
    for start in range(0, len(images), AT_ONCE):
        patches = _patches(images[start : start + AT_ONCE], size)
        products += patches.T @ patches
        number += len(patches)
    variances, directions = np.linalg.eigh(products / number)
    greatest = directions[np.abs(directions).argmax(axis=0), np.arange(len(directions))]
    directions = directions * np.sign(greatest) / np.sqrt(variances + EPSILON)
    return directions[:, ::-1].reshape(size, size, -1, count).astype(np.float32)


def _patches(images: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """All patches of some images, a row each."""
    _, height, width, _ = images.shape
    places = [
        images[:, i : height - size + 1 + i, j : width - size + 1 + j].astype(np.float64)
        for i in range(size)
        for j in range(size)
    ]
    patches = np.concatenate(places, axis=-1)
    return patches.reshape(-1, patches.shape[-1])
