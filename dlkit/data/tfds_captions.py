"""Sets of TensorFlow Datasets whose images have captions, such as `coco_captions`, by name."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dlkit.data import tfds_names
from dlkit.data.captions import CaptionData, CaptionPreparation, CaptionSplit
from dlkit.data.images import HELD_OUT, LazySplit, Side, Split, fits_in_memory, hold_out
from dlkit.data.pairs import prepared
from dlkit.data.split_names import NumberOrShare
from dlkit.data.tfds import lazy_split, roles_of, shape_of
from dlkit.data.tfds_files import feature, images_with_texts
from dlkit.errors import DataError, UsageError


@partial(prepared, how=CaptionPreparation)
def caption_set(
    name: str,
    *,
    dir: Path | None = None,  # noqa: A002 - the recipe's key is data.dir
    size: Side | None = None,
    validation: NumberOrShare = HELD_OUT,
) -> CaptionData:
    """The set `name` of TensorFlow Datasets, prepared before with `dlkit data prepare`, with its captions.

    Splits and sizes are as of `dlkit.data.tfds.tfds_set`; images without a caption are left out.

    Args:
        name: `coco_captions`, `coco_captions/2014:1.1.0`.
        dir: the folder of prepared data; by default TFDS_DATA_DIR, else `~/tensorflow_datasets`.
        size: side of the images in pixels; by default their own, and 224 when they differ in size.
        validation: how many training images to hold out, below 1 as a share of them; 0 for none.

    Raises:
        dlkit.errors.DataError: the set is not prepared, or only half.
        dlkit.errors.UsageError: it has no images with captions, or `validation` is given and it has such a split.
    """
    from dlkit.data.tfds_prepare import obtain

    found = obtain(name, tfds_names.data_dir(dir), wanted=image_and_captions)
    image, texts = image_and_captions(name, found.features, found.supervised)
    read = {split: images_with_texts(found, split, image, texts) for split in found.splits}
    roles = roles_of([split for split, (_, of_images) in read.items() if any(map(_kept, of_images))])
    if not roles:
        raise DataError(f"{name} has no caption: its splits are {', '.join(found.splits)}")
    shape = shape_of(found.features[image], [read[split][0] for split in roles.values()], size)
    keep = fits_in_memory(sum(len(read[split][1]) for split in roles.values()), shape)
    notes: list[str] = []
    images: dict[str, Split] = {}
    captions: dict[str, dict[int, list[str]]] = {}
    for role, split in roles.items():
        encoded, of_images = read[split]
        rows = np.array([row for row, of in enumerate(of_images) if _kept(of)], np.int64)
        images[role] = lazy_split(found, split, encoded, shape, keep=keep)
        if len(rows) < len(of_images):
            images[role] = images[role].take(rows)
            notes.append(f"left out {len(of_images) - len(rows):,} {role} images without a caption")
        captions[role] = {int(row): _kept(of_images[row]) for row in rows}
    divided = hold_out(images, validation)
    of_role = {role: captions.get(role, captions.get("train", {})) for role in divided}
    splits = {}
    for role, part in divided.items():
        assert isinstance(part, LazySplit)  # whose rows are those of the set
        splits[role] = CaptionSplit(part, [of_role[role][int(row)] for row in part.rows])
    return CaptionData(name, splits, notes=tuple(notes))


def _kept(texts: list[str]) -> list[str]:
    return [text.strip() for text in texts if text.strip()]


def image_and_captions(name: str, features: dict[str, Any], supervised: tuple[str, str] | None) -> tuple[str, str]:
    """The names of the features that hold the image and its captions.

    Args:
        name: of the set.
        features: as in `tfds_files.Prepared`.
        supervised: not looked at.

    Raises:
        dlkit.errors.UsageError: there are none, or several; it says what the set has.
    """
    images = [key for key, value in features.items() if value["kind"] == "image"]
    texts = [path for key, value in features.items() for path in _texts(key, value)]
    texts = [path for path in texts if "caption" in path] or [path for path in texts if path == "text"]
    if len(images) == len(texts) == 1:
        return images[0], texts[0]
    has = ", ".join(f"{key} ({value['kind']})" for key, value in features.items())
    raise UsageError(f"{name} has no images with captions: it has {has}", "a set that does: coco_captions")


def _texts(key: str, value: dict[str, Any]) -> list[str]:
    """The paths of all texts in a feature."""
    if value["kind"] == "text":
        return [key]
    if value["kind"] == "sequence":
        return _texts(key, feature(value["feature"]))
    if value["kind"] == "featuresDict":
        inner = {name: feature(each) for name, each in value["features"].items()}
        return [path for name, each in inner.items() for path in _texts(f"{key}/{name}", each)]
    return []
