"""Splits of images, their statistics, standardization, and reading an image file as a model wants it."""

import collections
import errno
import hashlib
import io
import math
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, NamedTuple, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlkit import workers
from dlkit.errors import DataError, UsageError
from dlkit.runtime import memory, place

if TYPE_CHECKING:
    from PIL import Image

Result = TypeVar("Result")

# What Pillow may decode. Its other formats are not photographs, and some start programs (EPS) or are rarely tested.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# A file can claim any size in a few bytes. This many pixels, more than most cameras take, are 360 MB in colour while
# they are decoded (Pillow takes 4 bytes for each), 720 MB while they are converted, and 1.1 GB while they are turned.
MAX_PIXELS = 90_000_000
DEFAULT_SIZE = 224  # side of the images of a set whose images differ in size, as in ImageNet
# Images of more pixels than this are decoded one at a time: what each takes would add up over the threads.
LARGE = 8_000_000
# So many images stand for a split of more bytes than that; their mean is off by a hundredth of their deviation.
SAMPLE, MEASURED_WHOLE = 10_000, 1 << 32
RUN = 1 << 26  # bytes of pixels that are looked at together
HELD_OUT = 0.1  # the share of the images that is held out where there is no such split


@dataclass(frozen=True)
class ImageSplit:
    """One split of an image dataset, held in memory.

    Args:
        images: (n, height, width, channels) uint8.
        labels: (n,) int32, the index of each image's class.
        source: text that names these images in this order, such that other images have another; empty: the pixels do.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    source: str = ""

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
        return ImageSplit(self.images[rows], self.labels[rows], _part(self.source, rows))


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
    """

    read: Callable[[int], NDArray[np.uint8]]
    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    shape: tuple[int, int, int]
    source: str = ""
    kept: Kept | None = None

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
        source = _part(self.source, rows)
        return replace(self, rows=self.rows[rows], labels=self.labels[rows], source=source)


Split = ImageSplit | LazySplit


def _part(source: str, rows: NDArray[np.int64]) -> str:
    """The source of some rows of a split."""
    return source and hashlib.sha256(f"{source}\n".encode() + rows.tobytes()).hexdigest()


@cache
def decoders() -> ThreadPoolExecutor:
    """The threads that decode images; Pillow lets them run side by side."""
    return ThreadPoolExecutor(thread_name_prefix="dlkit-decode")


def in_memory(split: LazySplit) -> ImageSplit:
    """Decodes a split once and for all."""
    return ImageSplit(split.fetch(np.arange(len(split))), split.labels, split.source)


def fits_in_memory(images: int, shape: tuple[int, int, int]) -> bool:
    """Whether so many images may be kept decoded: in a quarter of the memory, which leaves the rest to training.

    The processes of `--workers` share the quarter, since each keeps images of its own.
    """
    there = memory()
    processes = len(place().addresses) if workers.launcher() else 1
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
    """

    name: str
    classes: list[str]
    splits: Mapping[str, Split]

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
        check_unread("validation", validation, splits)
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


def check_unread(option: str, given: object, splits: Iterable[str]) -> None:
    """Raises a UsageError when a user asks for a division of data that are divided already.

    Args:
        option: the key of [data] that nothing reads.
        given: its value; the default and 0, for nothing, are let pass.
        splits: what there is.
    """
    if given not in (0, HELD_OUT):
        raise UsageError(f"data.{option} changes nothing: the data have the splits {', '.join(splits)}", "leave it out")


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
    if not len(split):
        raise DataError("a split without images has no mean and standard deviation")
    counts = np.zeros((split.shape[-1], 256), dtype=np.int64)  # (channels, values)
    whole = len(split) * math.prod(split.shape) <= MEASURED_WHOLE
    for rows in in_runs(np.arange(len(split)) if whole else _sample(len(split), SAMPLE), split.shape):
        images = split.fetch(rows)
        for channel in range(len(counts)):
            counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
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


# --------------------------------------------------------------------------------------------------------------- files

# How an image is turned whose camera was held so (Exif 2.3, tag 0x0112); 1 is upright. Names of Pillow's operations.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip

_SILENCE = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class UnreadableImage(DataError):
    """An image file that cannot be decoded.

    Args:
        path: the file.
        reason: why, as the end of a sentence that begins with the file's name.
        hint: the next step.
        message: the whole sentence, where it is another one.
    """

    def __init__(self, path: str | Path, reason: str, hint: str = "", *, message: str = "") -> None:
        super().__init__(message or f"{path} {reason}", hint)
        self.reason = reason


class Header(NamedTuple):
    """What is known of an image file before its pixels are decoded.

    Args:
        height: of the upright image.
        width: of the upright image.
        is_gray: whether one channel holds all of it.
        mark: the size of the file and a checksum of its first and last 4 KiB: another image has another.
    """

    height: int
    width: int
    is_gray: bool
    mark: str


# Where an image stands in a file that holds several, such as a tar: its first byte, and how many it has.
Within = tuple[int, int]


@contextmanager
def open_image(path: str | Path, within: Within | None = None) -> "Iterator[Image.Image]":
    """Opens an image file, its pixels not decoded yet; what the file makes fail in the block is explained.

    Args:
        path: the file.
        within: where in it the image stands; None for one that is the whole file.

    Raises:
        UnreadableImage: there is no such file, or it is not an image, damaged, truncated or too large.
    """
    from PIL import Image, UnidentifiedImageError

    # Pillow warns of odd metadata; what matters to the pixels raises. `catch_warnings` would not do: it changes the
    # filters of the whole process, and of two threads in it at once the one leaves what it found in the other.
    if _SILENCE not in warnings.filters:
        warnings.filterwarnings("ignore", module=_SILENCE[3].pattern)
    path = Path(path)
    try:
        _check_is_file(path)
        with path.open("rb") as file, Image.open(_part_of_file(file, within), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except UnreadableImage:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(path, f"claims more than {MAX_PIXELS:,} pixels", "scale it down first") from None
    except UnidentifiedImageError:
        raise UnreadableImage(path, "is not an image that can be read", f"known: {', '.join(FORMATS)}") from None
    except PermissionError:
        raise UnreadableImage(path, "cannot be read: permission denied", "`chmod +r` lets you") from None
    except MemoryError:
        raise UnreadableImage(path, "does not fit into memory when decoded", "scale it down first") from None
    except Exception as failure:  # decoders fail as OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        reason = f"is damaged or cut short: {failure}".replace("\n", " ")
        raise UnreadableImage(path, reason, "fetch or save it again") from failure


def _part_of_file(file: BinaryIO, within: Within | None) -> BinaryIO:
    if within is None:
        return file
    file.seek(within[0])
    return io.BytesIO(file.read(within[1]))


def _check_is_file(path: Path) -> None:
    """Stops before what is no regular file is opened: to open a pipe waits for ever."""
    try:
        status = path.stat()
    except PermissionError:
        raise
    except OSError as failure:
        if failure.errno == errno.ELOOP:
            raise UnreadableImage(path, "is a symbolic link that leads in a circle", "remove it") from None
        if path.is_symlink():
            raise UnreadableImage(path, "is a symbolic link that leads nowhere", "remove it") from None
        hint = "the path counts from the current folder"
        raise UnreadableImage(path, "does not exist", hint, message=f"no such file: {path}") from None
    if not stat.S_ISREG(status.st_mode):
        is_folder = stat.S_ISDIR(status.st_mode)
        raise UnreadableImage(
            path,
            "is not a file",
            "name image files one by one" if is_folder else "copy into a file what comes out of it",
        )
    if status.st_size == 0:
        raise UnreadableImage(path, "is not an image: the file is empty", "fetch or save it again")


def read_header(path: str | Path, within: Within | None = None) -> Header:
    """Reads what `Header` holds, which takes as long for a large image as for a small one. Arguments: `open_image`.

    Raises:
        UnreadableImage: as `open_image`.
    """
    with open_image(path, within) as image:
        return Header(*upright_size(image), _is_gray(image), _mark(path, within))


def upright_size(image: "Image.Image") -> tuple[int, int]:
    """Height and width of an opened image, after the camera was turned upright; decodes no pixels."""
    # In a PNG the orientation may stand behind the pixels, and Pillow would decode them to find it.
    turned = (image.format != "PNG" or "exif" in image.info) and _orientation(image) >= 5
    return image.size if turned else (image.height, image.width)


def _is_gray(image: "Image.Image") -> bool:
    if image.mode == "P" and image.palette:
        order, colours = image.palette.getdata()
        step = len(order)
        return bytes(colours[::step]) == bytes(colours[1::step]) == bytes(colours[2::step])
    return image.mode in {"1", "L", "LA"} or image.mode.startswith("I")


def _mark(path: str | Path, within: Within | None) -> str:
    with Path(path).open("rb") as whole:
        file = _part_of_file(whole, within)
        size = file.seek(0, os.SEEK_END)
        checksum = 0
        for place in sorted({0, max(0, size - 4096)}):
            file.seek(place)
            checksum = crc32(file.read(4096), checksum)
    return f"{size}:{checksum:08x}"


def read_image(path: str | Path, shape: tuple[int, int, int], within: Within | None = None) -> NDArray[np.uint8]:
    """Reads an image file as a model takes it, see `fitted`.

    Args:
        path: a PNG, JPEG, BMP, GIF or WebP file.
        shape: height, width and channels (1 or 3) of the model's input.
        within: see `open_image`.

    Returns:
        An array of that shape, uint8.

    Raises:
        dlkit.errors.DataError: there is no such file, or it is not an image, damaged, truncated or too large.
        dlkit.errors.UsageError: the model takes neither gray nor RGB images.
    """
    if shape[2] not in {1, 3}:
        raise UsageError(f"the model takes images of {shape[2]} channels: an image file has 1 (gray) or 3 (RGB)")
    with open_image(path, within) as image:
        return fitted(image, shape)


# What can turn an image or make parts of it transparent, as Pillow calls it.
_ODD = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp", "transparency"}


def fitted(image: "Image.Image", shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The pixels of an opened image as a model takes them: upright, in its channels and size.

    The orientation tag of cameras is applied, 16-bit samples are scaled to 8, transparent parts become white, and the
    first frame of an animation is taken. Then the image is scaled until it just covers the size (bilinear, with
    antialiasing), and what stands out on two sides is cut off: training, evaluation and prediction see the same. An
    image that has the size stays as it is.

    Args:
        image: a Pillow image whose pixels are not decoded yet.
        shape: height, width and channels, 1 or 3.

    Returns:
        An array of that shape, uint8.
    """
    from PIL import Image, ImageOps

    height, width, channels = shape
    mode = "L" if channels == 1 else "RGB"
    side = 2 * max(height, width)
    image.draft(None, (side, side))  # a JPEG can be decoded at 1/2, 1/4 or 1/8: still twice what is wanted

    def fit() -> NDArray[np.uint8]:
        image.load()  # what stands behind the pixels of a PNG is known from here on
        if (image.size, image.mode) == ((width, height), mode) and not image.info.keys() & _ODD:
            return np.asarray(image)  # as nearly all are in the usual sets, and it takes half the time
        return np.asarray(ImageOps.fit(_upright_8_bit(image, mode), (width, height), Image.Resampling.BILINEAR))

    return _with_room(image, fit).reshape(shape)


def pixel_digest(image: "Image.Image") -> bytes:
    """16 bytes that stand for the upright 8-bit RGB pixels of an opened image, whatever file holds them."""

    def digest() -> bytes:
        upright = _upright_8_bit(image, "RGB")
        digest = hashlib.blake2b(repr(upright.size).encode(), digest_size=16)
        for _, strip in _strips(upright):
            digest.update(strip.tobytes())
        return digest.digest()

    return _with_room(image, digest)


def _with_room(image: "Image.Image", work: Callable[[], Result]) -> Result:
    """Does what decodes an image here, or for a large one where large ones wait for each other."""
    large = image.width * image.height > LARGE
    return _large_decoder().submit(work).result() if large else work()


@cache
def _large_decoder() -> ThreadPoolExecutor:
    """One thread, since what the allocator keeps for each thread would add up, too."""
    return ThreadPoolExecutor(1, thread_name_prefix="dlkit-decode-large")


def _orientation(image: "Image.Image") -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken metadata, as broken as can be: no viewer refuses the image for them
        return 1


def _upright_8_bit(image: "Image.Image", mode: str) -> "Image.Image":
    """A Pillow image of any mode, turned upright, in the 8-bit mode `L` or `RGB`, on white where it is transparent."""
    from PIL import Image

    image.load()
    if operation := _UPRIGHT.get(_orientation(image)):
        image = image.transpose(Image.Transpose[operation])
    if image.mode == mode and not image.has_transparency_data:
        return image
    converted = Image.new(mode, image.size)
    for top, strip in _strips(image):
        converted.paste(_8_bit(strip).convert(mode), (0, top))
    return converted


def _strips(image: "Image.Image") -> "Iterator[tuple[int, Image.Image]]":
    """The rows of an image from the top, so few at a time that what they become on their way takes no room."""
    height = max(1, (1 << 18) // image.width)
    for top in range(0, image.height, height):
        yield top, image.crop((0, top, image.width, min(top + height, image.height)))


def _8_bit(image: "Image.Image") -> "Image.Image":
    """The image in a mode of 8 bits, on white where it is transparent."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits a sample, which `convert` would clip instead of scale
        samples = np.asarray(image).clip(0, 65535).astype(np.uint32)
        return Image.fromarray(((samples + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
