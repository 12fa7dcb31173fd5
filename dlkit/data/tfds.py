"""Datasets of TensorFlow Datasets, by name: image classification, `tfds_set`.

Names are in `tfds_names`, the files of a prepared set in `tfds_files`, preparing in `tfds_prepare`. A set of another
kind gets a function of its own beside `tfds_set`, on the same three.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlkit.data import tfds_names
from dlkit.data.image_files import FORMATS, fitted, upright_size
from dlkit.data.images import DEFAULT_SIZE, HELD_OUT, ImageData, Kept, LazySplit, Side, fits_in_memory, hold_out
from dlkit.data.split_names import NumberOrShare, own_names
from dlkit.data.tfds_files import EncodedImages, Prepared, encoded_images
from dlkit.errors import DataError, UsageError


def tfds_set(
    name: str,
    *,
    dir: Path | None = None,  # noqa: A002 - the recipe's key is data.dir
    size: Side | None = None,
    validation: NumberOrShare = HELD_OUT,
) -> ImageData:
    """The image classification set `name` of TensorFlow Datasets, prepared before with `dlkit data prepare`.

    The split called `test` here is the one that results are published on. Sets without a test split publish them on
    their validation split (Imagenette, Food-101; ImageNet, whose test split has no labels): that one becomes `test`,
    and validation images are held out of the training images, as they are for sets with no validation split.

    Images keep their channels. When they differ in size, they are scaled until they just cover `size` x `size`, and the
    middle is cut out; so they are when a size is given. They are decoded when they are wanted, and kept where they fit.

    Args:
        name: `cifar10`, `imagenette/160px-v2`, `cifar10:3.0.2`.
        dir: the folder of prepared data; by default TFDS_DATA_DIR, else `~/tensorflow_datasets`.
        size: side of the images in pixels; by default their own, and 224 when they differ in size.
        validation: how many training images to hold out, below 1 as a share of them; 0 for none.

    Raises:
        dlkit.errors.DataError: the set is not prepared, or only half, or it is damaged; on a terminal the user is asked
            first.
        dlkit.errors.UsageError: it has no images with a class each, or `validation` is given and it has such a split.

    Example:
        >>> len(tfds_set("cifar10").splits["test"])
        10000
    """
    from dlkit.data.tfds_prepare import obtain

    prepared = obtain(name, tfds_names.data_dir(dir), wanted=image_and_label)
    image, label = image_and_label(name, prepared.features, prepared.supervised)
    encoded = {split: encoded_images(prepared, split, image, label) for split in prepared.splits}
    classes = prepared.classes(label, max(int(images.labels.max()) for images in encoded.values()))
    roles = roles_of([split for split, images in encoded.items() if images.labels.max() >= 0])
    if not roles:
        raise UsageError(f"{name} has no image with a class: its splits are {', '.join(prepared.splits)}")
    shape = shape_of(prepared.features[image], [encoded[split] for split in roles.values()], size)
    used = {role: split for role, split in roles.items() if role in {"train", "validation", "test"}}
    keep = fits_in_memory(sum(len(encoded[split].labels) for split in used.values()), shape)
    splits = hold_out(
        {
            role: lazy_split(prepared, split, encoded[split], shape, keep=keep and role in used)
            for role, split in roles.items()
        },
        validation,
    )
    return ImageData(name, classes, splits, ignored_options=("validation",) if "validation" in roles else ())


def image_and_label(name: str, features: dict[str, Any], supervised: tuple[str, str] | None) -> tuple[str, str]:
    """The names of the features that hold the image and its class.

    Args:
        name: of the set.
        features: as in `tfds_files.Prepared`.
        supervised: the features that the set says to learn with.

    Raises:
        dlkit.errors.UsageError: there are none, or several and the set does not say which; it says what the set has.
    """
    candidates = {key: features[key]["kind"] for key in supervised or features if key in features}
    images = [key for key, kind in candidates.items() if kind == "image"]
    labels = [key for key, kind in candidates.items() if kind == "classLabel"]
    if len(images) == len(labels) == 1 and features[images[0]].get("dtype", "uint8") in {"uint8", "uint16"}:
        return images[0], labels[0]
    words = {"classLabel": "class", "featuresDict": "several features"}
    has = ", ".join(f"{key} ({words.get(value['kind'], value['kind'])})" for key, value in features.items())
    raise UsageError(
        f"{name} has no images with a class each: it has {has}",
        "sets that do: cifar10, fashion_mnist, imagenette/160px-v2",
    )


def roles_of(splits: list[str]) -> dict[str, str]:
    """What each split is called here -> what the set calls it."""
    roles = own_names(splits)
    if "test" not in roles and "validation" in roles:
        roles["test"] = roles.pop("validation")
    return roles


def shape_of(feature: dict[str, Any], encoded: list[EncodedImages], size: int | None) -> tuple[int, int, int]:
    """Height, width and channels that all images are brought to."""
    dimensions = [int(side) for side in feature.get("shape", {}).get("dimensions", [])] or [-1, -1, -1]
    height, width, channels = dimensions
    channels = 1 if channels == 1 else 3
    if size is not None:
        return size, size, channels
    if height > 0 and width > 0:
        return height, width, channels
    return *(_common_size(encoded) or (DEFAULT_SIZE, DEFAULT_SIZE)), channels


def _common_size(encoded: list[EncodedImages]) -> tuple[int, int] | None:
    """Height and width of all images that can be read, or None when they differ, which mostly the second tells."""
    sizes = (_size_of(images.read(row)) for images in encoded for row in range(len(images.labels)))
    there = (size for size in sizes if size is not None)
    first = next(there, None)
    return first if all(size == first for size in there) else None


def lazy_split(
    prepared: Prepared, split: str, images: EncodedImages, shape: tuple[int, int, int], *, keep: bool
) -> LazySplit:
    """The images of a split that have a label, decoded when they are wanted; with `keep` once only."""

    def read(row: int) -> NDArray[np.uint8]:
        try:
            return decode(images.read(row), shape)
        except DataError:
            raise
        except Exception as failure:  # as decoders do: OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
            reason = f"image {row} of {split} cannot be decoded"
            raise prepared.spoilt(reason) from failure

    digest = hashlib.sha256(images.checksums.tobytes()).hexdigest()
    home = f"{prepared.folder.relative_to(prepared.root)} {split}"
    count = len(images.labels)
    kept = Kept.room(count, shape) if keep else None
    everything = LazySplit(
        read, np.arange(count), images.labels, shape, f"{home} {shape} {digest}", kept, origin=f"{home} {digest}"
    )
    labelled = np.flatnonzero(images.labels >= 0)
    return everything if len(labelled) == count else everything.take(labelled)


def decode(encoded: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decodes an image as `dlkit.data.image_files.read_image` does a file."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        return fitted(image, shape)


def _size_of(encoded: bytes) -> tuple[int, int] | None:
    """Height and width of an image; None when it is damaged, which is told when it is wanted."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return upright_size(image)
    except Exception:  # as in `lazy_split`
        return None
