"""Images in memory: splits, their statistics, standardization, and reading an image file as a model wants it."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL import Image

# What Pillow may decode. Its other formats are not photographs, and some start programs (EPS) or are rarely tested.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# A file can claim any size in a few bytes; this many pixels are 270 MB as RGB, and more than a camera takes.
MAX_PIXELS = 90_000_000


@dataclass(frozen=True)
class ImageSplit:
    """One split of an image dataset, held in memory.

    Args:
        images: (n, height, width, channels) uint8.
        labels: (n,) int32, the index of each image's class.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """The images at `indices`, (n, height, width, channels) uint8, in that order."""
        return self.images[np.asarray(indices, dtype=np.int64)]


@dataclass(frozen=True)
class ImageData:
    """A dataset of labelled images.

    Args:
        name: the name it is loaded by.
        classes: the class names; a label is an index into them.
        splits: split name -> images and labels, `train` among them.
    """

    name: str
    classes: list[str]
    splits: dict[str, ImageSplit]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.splits["train"].fetch([0]).shape[1:]
        return height, width, channels


def statistics(split: ImageSplit) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel over all pixels of a split, in units of 1 = white.

    Computed from how often each of the 256 values occurs, so the result is exact and needs one pass and no memory.

    Returns:
        Two (channels,) float64 arrays.

    Raises:
        dlkit.errors.DataError: the split is empty.
    """
    if not len(split):
        raise DataError("a split without images has no mean and standard deviation")
    counts = np.zeros((split.fetch([0]).shape[-1], 256), dtype=np.int64)  # (channels, values)
    for start in range(0, len(split), 1024):
        images = split.fetch(np.arange(start, min(start + 1024, len(split))))
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


def read_image(path: str | Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Reads an image file as a model takes it: upright, in its channels and size.

    The orientation tag of cameras is applied, 16-bit samples are scaled to 8, transparent parts become white, the first
    frame of an animation is taken, and the image is stretched to the size (bilinear, with antialiasing).

    Args:
        path: a PNG, JPEG, BMP, GIF or WebP file.
        shape: height, width and channels (1 or 3) of the model's input.

    Returns:
        An array of that shape, uint8.

    Raises:
        dlkit.errors.DataError: there is no such file, or it is not an image, damaged, truncated or too large.
        dlkit.errors.UsageError: the model takes neither gray nor RGB images.
    """
    from PIL import Image, UnidentifiedImageError

    height, width, channels = shape
    if channels not in {1, 3}:
        raise UsageError(f"the model takes images of {channels} channels: an image file has 1 (gray) or 3 (RGB)")
    path = Path(path)
    if not path.exists():
        raise DataError(f"no such file: {path}", "the path counts from the current folder")
    if not path.is_file():
        raise DataError(f"{path} is not a file", "name image files one by one" if path.is_dir() else "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata; what matters to the pixels raises
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                upright = _upright_8_bit(image, "L" if channels == 1 else "RGB")
                resized = upright.resize((width, height), Image.Resampling.BILINEAR)
    except Image.DecompressionBombError:
        raise DataError(f"{path} claims more than {MAX_PIXELS:,} pixels", "scale it down first") from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is not an image that can be read", f"known: {', '.join(FORMATS)}") from None
    except PermissionError:
        raise DataError(f"{path} cannot be read: permission denied", "`chmod +r` lets you") from None
    except Exception as failure:  # decoders fail as OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise DataError(f"{path} is damaged or cut short: {failure}", "fetch or save it again") from failure
    return np.asarray(resized, dtype=np.uint8).reshape(shape)


def _upright_8_bit(image: "Image.Image", mode: str) -> "Image.Image":
    """A Pillow image of any mode, turned upright, in the 8-bit mode `L` or `RGB`, on white where it is transparent."""
    from PIL import Image, ImageOps

    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a sample, which `convert` would clip instead of scale
        samples = np.clip(np.asarray(image, dtype=np.float64) / 257, 0, 255)
        image = Image.fromarray(np.rint(samples).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
