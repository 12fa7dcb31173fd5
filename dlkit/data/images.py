"""Splits of images, decoded or still to be decoded, their statistics and standardization."""

import collections
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from dlkit import workers
from dlkit.data.image_files import decoders
from dlkit.errors import DataError, UsageError
from dlkit.runtime import memory, process

DEFAULT_SIZE = 224  # side of the images of a set whose images differ in size, as in ImageNet
# So many images stand for a split of more bytes than that; their mean is off by a hundredth of their deviation.
SAMPLE, MEASURED_WHOLE = 10_000, 1 << 32
RUN = 1 << 26  # bytes of pixels that are looked at together
HELD_OUT = 0.1  # the share of the images that is held out where there is no such split
# The side of images in pixels, as a recipe may set it.
Side = Annotated[int, Field(ge=1, le=4096)]


@dataclass(frozen=True)
class ImageSplit:
    """One split of an image dataset, held in memory.

    Args:
        images: (n, height, width, channels) uint8.
        labels: (n,) int32, the index of each image's class.
        source: text that names these images in this order, such that other images have another; empty: the pixels do.
        origin: text that does so whatever size the images are brought to; empty where `source` knows no size.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    source: str = ""
    origin: str = ""

    is_kept: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def fetch(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """The images at `indices`, (n, height, width, channels) uint8, in that order."""
        return self.images[np.asarray(indices, dtype=np.int64)]

    def take(self, rows: NDArray[np.int64]) -> "ImageSplit":
        """The split of these rows only."""
        source, origin = _source_of(self.source, rows), _source_of(self.origin, rows)
        return ImageSplit(self.images[rows], self.labels[rows], source, origin)


class Kept(NamedTuple):
    """Room for the images of a source, which stay here once they are decoded; the system gives it when it is filled.

    Args:
        images: (n, height, width, channels) uint8.
        there: (n,) bool, which of them are decoded.
    """

    images: NDArray[np.uint8]
    there: NDArray[np.bool_]

    @classmethod
    def room(cls, count: int, shape: tuple[int, int, int]) -> "Kept":
        """Room for so many images of a shape."""
        return cls(np.empty((count, *shape), np.uint8), np.zeros(count, np.bool_))


@dataclass(frozen=True)
class LazySplit:
    """One split of an image dataset whose images are decoded when they are wanted.

    Args:
        read: takes the position of an image in its source and returns it, (height, width, channels) uint8. It is called
            from several threads.
        rows: (n,) int64, which images of the source make up the split.
        labels: (n,) int32, the index of each image's class.
        shape: height, width and channels of every image.
        source: text that names these images in this order, such that other images have another: a name and a version, a
            checksum; empty when there is none.
        kept: where the images of the source stay once they are decoded; None when they do not fit into memory.
        origin: as of an `ImageSplit`.
    """

    read: Callable[[int], NDArray[np.uint8]]
    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    shape: tuple[int, int, int]
    source: str = ""
    kept: Kept | None = None
    origin: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_kept(self) -> bool:
        """Whether each image is decoded once only."""
        return self.kept is not None

    def fetch(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """The images at `indices`, (n, height, width, channels) uint8, in that order."""
        wanted = self.rows[np.asarray(indices, dtype=np.int64)]
        if self.kept is None:
            return self._decoded(wanted)
        images, there = self.kept
        missing = np.unique(wanted[~there[wanted]])  # two threads that miss the same image write the same pixels
        if len(missing):
            images[missing] = self._decoded(missing)
            there[missing] = True
        return images[wanted]

    def _decoded(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.shape), np.uint8)
        step = max(1, len(rows) // 64)  # to hand over a small image to a thread takes as long as to decode it

        def fill(start: int) -> None:
            for at in range(start, min(start + step, len(rows))):
                images[at] = self.read(int(rows[at]))

        collections.deque(decoders().map(fill, range(0, len(rows), step)), maxlen=0)
        return images

    def take(self, rows: NDArray[np.int64]) -> "LazySplit":
        """The split of these rows only."""
        source, origin = _source_of(self.source, rows), _source_of(self.origin, rows)
        return replace(self, rows=self.rows[rows], labels=self.labels[rows], source=source, origin=origin)


Split = ImageSplit | LazySplit


def _source_of(source: str, rows: NDArray[np.int64]) -> str:
    """The source of some rows of a split."""
    return source and hashlib.sha256(f"{source}\n".encode() + rows.tobytes()).hexdigest()


def in_memory(split: LazySplit) -> ImageSplit:
    """Decodes a split once and for all."""
    return ImageSplit(split.fetch(np.arange(len(split))), split.labels, split.source, split.origin)


def fits_in_memory(images: int, shape: tuple[int, int, int]) -> bool:
    """Whether so many images may be kept decoded: in a quarter of the memory, which leaves the rest to training.

    The processes of `--workers` share the quarter, since each keeps images of its own.
    """
    there = memory()
    processes = len(process().addresses) if workers.launcher() else 1
    return there is None or images * math.prod(shape) * processes <= there // 4


def in_runs(rows: NDArray[np.int64], shape: tuple[int, int, int]) -> Iterator[NDArray[np.int64]]:
    """Consecutive rows of images of a shape, as many at a time as may be in memory beside everything else."""
    count = max(1, min(1024, RUN // math.prod(shape)))
    for start in range(0, len(rows), count):
        yield rows[start : start + count]


@dataclass(frozen=True)
class ImageData:
    """A dataset of labelled images.

    Args:
        name: the name it is loaded by.
        classes: the class names; a label is an index into them.
        splits: split name -> images and labels; one at least. Without `train` there is nothing to train on.
        ignored_options: those of [data] that would divide the images, and have no effect: they are divided already.
    """

    name: str
    classes: list[str]
    splits: Mapping[str, Split]
    ignored_options: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return next(iter(self.splits.values())).shape


def hold_out(splits: Mapping[str, Split], validation: float) -> dict[str, Split]:
    """Takes a validation split out of the training split, drawn once for all, unless there is one.

    The draw depends on the number of images only, so all runs on a dataset are validated on the same images.

    Args:
        splits: without `train` among them there is nothing to take from.
        validation: a number of images, or below 1 a share of the training images; 0 takes none.

    Raises:
        dlkit.errors.UsageError: nothing would be left to train on, or a number is given where nothing is held out.
    """
    if "validation" in splits or "train" not in splits:
        check_ignored("validation", validation, splits)
        return dict(splits)
    train = splits["train"]
    count = round(validation * len(train)) if validation < 1 else int(validation)
    if count == 0:
        return dict(splits)
    if count >= len(train):
        raise UsageError(
            f"data.validation {count} leaves nothing of {len(train)} training images",
            "choose fewer, or a share such as 0.1",
        )
    order = np.random.default_rng(0).permutation(len(train))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    return {"train": train.take(kept), "validation": train.take(held)} | {
        name: split for name, split in splits.items() if name != "train"
    }


def check_ignored(option: str, given: object, splits: Iterable[str]) -> None:
    """Raises a UsageError when a user asks for a division of data that are divided already.

    Args:
        option: the key of [data] that nothing reads.
        given: its value; the default and 0, for nothing, are let pass: nobody needs to have asked for them.
        splits: what there is.
    """
    if given not in (0, HELD_OUT):
        raise changes_nothing(option, splits)


def check_division(data: ImageData, asked: Mapping[str, object]) -> None:
    """Raises a UsageError when a user asks for a division of images that are divided already.

    Whatever else is asked for than the default or nothing was refused when they were opened.

    Args:
        data: the images.
        asked: options of [data] and their values, those that a user wrote and not those of a recipe, which may be for
            several data.
    """
    for option in data.ignored_options:
        # Nothing to hold out is what there is, and the way to overrule a recipe.
        if asked.get(option, 0) != 0:
            raise changes_nothing(option, data.splits)


def changes_nothing(option: str, splits: Iterable[str]) -> UsageError:
    """The error for a key of [data] that would divide data which have these splits already."""
    return UsageError(
        f"data.{option} changes nothing: the data have the splits {', '.join(splits)}",
        f"leave it out; `--set data.{option}=0` overrules a recipe that has it",
    )


def fingerprint(split: Split) -> str:
    """sha256 of the labels and of what stands for the images.

    That is the split's `source` where it has one, so that the same data have the same fingerprint whether or not they
    fit into memory; else every pixel, or where images do not fit into memory every pixel of 100.
    """
    digest = hashlib.sha256(split.labels.tobytes())
    if split.source:
        digest.update(split.source.encode())
        return digest.hexdigest()
    for rows in in_runs(np.arange(len(split)) if split.is_kept else _sample(len(split), 100), split.shape):
        digest.update(split.fetch(rows).tobytes())
    return digest.hexdigest()


def fingerprint_of_origin(split: Split) -> str:
    """As `fingerprint`, and the same for the same images at another size where the split knows their origin."""
    return fingerprint(replace(split, source=split.origin or split.source))


def _sample(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of `count` rows, always the same ones, in their order."""
    return np.sort(np.random.default_rng(0).choice(count, min(count, most), replace=False))


def statistics(split: Split) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel over all pixels of a split, in units of 1 = white.

    Computed from how often each of the 256 values occurs, so the result is exact and needs one pass and no memory. Of a
    split of more than 4 GiB 10,000 images stand for all, always the same ones: whether a split is kept in memory makes
    no difference, so machines of different sizes agree.

    Returns:
        Two (channels,) float64 arrays.

    Raises:
        dlkit.errors.DataError: the split is empty.
    """
    return moments(value_counts(split))


def value_counts(split: Split, *, rank: int = 0, processes: int = 1) -> NDArray[np.int64]:
    """How often each value occurs in each channel of the images that `statistics` looks at.

    Args:
        split: the images.
        rank: the number of this process, from 0, of several that share the images out.
        processes: how many they are; the sum over all of them is what one would count.

    Returns:
        A (channels, 256) array.

    Raises:
        dlkit.errors.DataError: the split is empty.
    """
    if not len(split):
        raise DataError("a split without images has no mean and standard deviation")
    counts = np.zeros((split.shape[-1], 256), dtype=np.int64)  # (channels, values)
    whole = len(split) * math.prod(split.shape) <= MEASURED_WHOLE
    looked_at = np.arange(len(split)) if whole else _sample(len(split), SAMPLE)
    for rows in in_runs(looked_at[rank::processes], split.shape):
        images = split.fetch(rows)
        for channel in range(len(counts)):
            counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    return counts


def moments(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel, in units of 1 = white, from `value_counts`: (channels,) each."""
    values = np.arange(256) / 255
    pixels = counts[0].sum()
    mean = counts @ values / pixels
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / pixels
    return mean, np.sqrt(variance)


def standardize(images: NDArray[np.uint8], mean: ArrayLike, std: ArrayLike) -> NDArray[np.float32]:
    """Subtracts the mean and divides by the standard deviation, channel by channel.

    A channel that never varies (standard deviation 0) is only centred.

    Args:
        images: (..., channels) uint8.
        mean: (channels,), of pixels / 255, from the training split.
        std: (channels,), likewise.

    Returns:
        An array of the same shape, float32.
    """
    deviation = np.asarray(std, dtype=np.float64)
    deviation = np.where(deviation > 0, deviation, 1.0)
    scaled = images.astype(np.float32)
    scaled *= (1 / (255 * deviation)).astype(np.float32)
    scaled -= (np.asarray(mean, dtype=np.float64) / deviation).astype(np.float32)
    return scaled
