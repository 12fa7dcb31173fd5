"""Sets of images with captions, made by the machinery of TensorFlow Datasets and read without it."""

from functools import cache

import numpy as np
import pytest
from tiny_set import prepared

from dlkit import data
from dlkit.data import text_files
from dlkit.data.tfds_captions import image_and_captions
from dlkit.errors import DataError, UsageError

NAME = "tiny_captions"


@cache
def builder_class():
    import tensorflow_datasets as tfds

    class TinyCaptions(tfds.core.GeneratorBasedBuilder):
        """Pictures of 4 x 5 pixels; image i, of shade i, has i % 3 captions. Features as of `coco_captions`."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            captions = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
            features = {
                "captions": captions,
                "image": tfds.features.Image(shape=(4, 5, 3), encoding_format="png"),
                "image/filename": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(12), "val": self._generate_examples(6)}

        def _generate_examples(self, count):
            for i in range(count):
                captions = [{"id": k, "text": f"é {i} {k} "} for k in range(i % 3)]
                yield i, {"captions": captions, "image": np.full((4, 5, 3), i, np.uint8), "image/filename": f"{i}.png"}

    return TinyCaptions


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_images_and_their_captions(tmp_path, monkeypatch, file_format):
    prepared(builder_class, tmp_path, file_format=file_format)
    loaded = data.load_kind(NAME, "captions", dir=tmp_path, validation=2, min_count=1)
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 6, "validation": 2, "test": 4}
    assert loaded.shape == (4, 5, 3)
    for split in loaded.splits.values():
        shades = split.images.fetch(np.arange(len(split)))[:, 0, 0, 0].tolist()
        assert list(split.captions) == [[f"é {i} {k}" for k in range(i % 3)] for i in shades]
    assert loaded.remarks()[0] == "left out 4 train images without a caption"
    assert not set(shades) & {0, 3}
    # For 0 to 11 there are 12 captions of 6 characters, and one more where i has two digits: 1 of 10, 2 of 11.
    for there, fits in ((75, True), (74, False)):
        monkeypatch.setattr(text_files, "memory", lambda there=there: text_files.BYTES_EACH * there)
        if fits:
            data.load_kind(NAME, "captions", dir=tmp_path)
        else:
            with pytest.raises(DataError, match="tiny_captions is too large for the memory"):
                data.load_kind(NAME, "captions", dir=tmp_path)


def test_other_sets_are_told_apart():
    texts = {"kind": "sequence", "feature": {"text": {}}}
    assert image_and_captions("x", {"image": {"kind": "image"}, "captions": texts}, None) == ("image", "captions")
    with pytest.raises(
        UsageError, match=r"x has no images with captions: it has image \(image\), label \(classLabel\)"
    ):
        image_and_captions("x", {"image": {"kind": "image"}, "label": {"kind": "classLabel"}}, None)
