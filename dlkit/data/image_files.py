"""Reading an image file as a model wants it: upright, in its channels and size; no file brings it down."""

import errno
import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dlkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL import Image

Result = TypeVar("Result")

# What Pillow may decode. Its other formats are not photographs, and some start programs (EPS) or are rarely tested.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# A file can claim any size in a few bytes. This many pixels, more than most cameras take, are 360 MB in colour while
# they are decoded (Pillow takes 4 bytes for each), 720 MB while they are converted, and 1.1 GB while they are turned.
MAX_PIXELS = 90_000_000
# Images of more pixels than this are decoded one at a time: what each takes would add up over the threads.
LARGE = 8_000_000

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
        if os.path.islink(path):  # noqa: PTH114 - Path.is_symlink() raises for a name that is too long
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
        return Header(*upright_size(image), is_gray(image), _mark(path, within))


def upright_size(image: "Image.Image") -> tuple[int, int]:
    """Height and width of an opened image, after the camera was turned upright; decodes no pixels."""
    # In a PNG the orientation may stand behind the pixels, and Pillow would decode them to find it.
    turned = (image.format != "PNG" or "exif" in image.info) and _orientation(image) >= 5
    return image.size if turned else (image.height, image.width)


def is_gray(image: "Image.Image") -> bool:
    """Whether one channel holds all of an opened image; decodes no pixels."""
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


@cache
def decoders() -> ThreadPoolExecutor:
    """The threads that decode images; Pillow lets them run side by side."""
    return ThreadPoolExecutor(thread_name_prefix="dlkit-decode")


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
