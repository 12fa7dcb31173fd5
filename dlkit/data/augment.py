"""Augmentation of images on the host.

What chance does to an example depends on (seed, epoch, example) and nothing else. So it does not matter how a batch is
put together, how many devices share it, or where a run was resumed.
"""

import zlib
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlkit.errors import unknown

Keys = NDArray[np.uint64]
Images = NDArray[np.float32]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(state: Keys, position: Keys) -> Keys:
    """The output at `position` (0 is the first) of the SplitMix64 generator seeded with `state`, element by element.

    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", with the mixing function that Vigna
    published in splitmix64.c (David Stafford's variant 13). The state after k steps is seed + k * gamma: any output can
    be had without those before it.
    """
    mixed = state + (position + np.uint64(1)) * _GAMMA  # modulo 2**64, as the generator wants
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def example_keys(seed: int, epoch: int, examples: ArrayLike) -> Keys:
    """One key for each example of an epoch.

    Args:
        seed: the seed of the run, non-negative.
        epoch: which pass over the data, non-negative.
        examples: (n,) indices of the examples in their split.

    Returns:
        (n,) uint64.
    """
    of_run = np.array([seed & 0xFFFF_FFFF_FFFF_FFFF], dtype=np.uint64)
    of_epoch = splitmix64(of_run, np.array([epoch], dtype=np.uint64))
    return splitmix64(of_epoch, np.asarray(examples, dtype=np.uint64))


def uniform(keys: Keys, draws: int, *, purpose: str) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for each key; another purpose gives other numbers, as if independent.

    Returns:
        (n, draws) float64.
    """
    of_purpose = splitmix64(keys, np.array([zlib.crc32(purpose.encode())], dtype=np.uint64))
    bits = splitmix64(of_purpose[:, np.newaxis], np.arange(draws, dtype=np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def crop(images: Images, keys: Keys) -> Images:
    """Pads each side with 1/8 of the image (4 pixels of 32) in zeros and cuts out a random window of the old size.

    He et al. 2015, section 4.2. In standardized images zero is the mean.

    Args:
        images: (n, height, width, channels) float32, standardized.
        keys: (n,) uint64, of `example_keys`.
    """
    _, height, width, _ = images.shape
    margin_y, margin_x = height // 8, width // 8
    draws = uniform(keys, 2, purpose="crop")
    tops = (draws[:, 0] * (2 * margin_y + 1)).astype(np.int64).tolist()
    lefts = (draws[:, 1] * (2 * margin_x + 1)).astype(np.int64).tolist()
    padded = np.pad(images, ((0, 0), (margin_y, margin_y), (margin_x, margin_x), (0, 0)))
    windows = np.empty_like(images)
    for window, whole, top, left in zip(windows, padded, tops, lefts, strict=True):
        window[...] = whole[top : top + height, left : left + width]
    return windows


def flip(images: Images, keys: Keys) -> Images:
    """Mirrors each image left to right with probability 1/2. Arguments as for `crop`."""
    mirrored = uniform(keys, 1, purpose="flip")[:, 0] < 0.5
    flipped = images.copy()
    flipped[mirrored] = images[mirrored, :, ::-1]
    return flipped


def crop_flip(images: Images, keys: Keys) -> Images:
    """A random crop, then a random flip, as He et al. 2015, section 4.2, train on CIFAR-10. Arguments as for `crop`."""
    return flip(crop(images, keys), keys)


AUGMENTATIONS: dict[str, Callable[[Images, Keys], Images]] = {"crop": crop, "flip": flip, "crop_flip": crop_flip}


def augment(names: Iterable[str], images: Images, keys: Keys) -> Images:
    """Applies the named augmentations in their order; `images` itself stays as it is.

    Args:
        names: keys of `AUGMENTATIONS`.
        images: (n, height, width, channels) float32, standardized.
        keys: (n,) uint64, of `example_keys`.

    Raises:
        dlkit.errors.UsageError: there is no such augmentation.

    Example:
        >>> keys = example_keys(seed=0, epoch=3, examples=[17, 4])
        >>> augment(["crop_flip"], images[[17, 4]], keys)
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
        images = AUGMENTATIONS[name](images, keys)
    return images
