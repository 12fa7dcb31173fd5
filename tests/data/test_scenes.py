"""Scenes of two shapes are what their captions say, and a mirrored image has the caption of what it shows."""

import math

import numpy as np
import pytest

from dlkit import data
from dlkit.data.captions import CaptionData
from dlkit.data.images import ImageData
from dlkit.data.scenes import RADII, WORDS, mirrored, scene
from dlkit.data.shapes import COLOURS, SHAPES, SIZES, draw
from dlkit.errors import UsageError


@pytest.mark.parametrize("index", range(30))
def test_an_image_shows_what_its_caption_says(index):
    shown = scene("train", index, seed=3)
    first, second = shown.first, shown.second
    image = draw(first, 96, second)
    for one in (first, second):
        x, y = one.centre
        assert one.radius <= min(x, y, 1 - x, 1 - y), "all of it lies inside"
        inside = one.ground if one.shape == "ring" else one.fill
        assert np.abs(image[int(96 * y), int(96 * x)].astype(int) - inside).max() <= 1
        assert RADII[one.size][0] <= one.radius <= RADII[one.size][1]
        nearest = min(COLOURS, key=lambda other, fill=one.fill: math.dist(COLOURS[other], fill))
        assert nearest == one.colour != one.background
    right, down = (b - a for a, b in zip(first.centre, second.centre, strict=True))
    assert math.hypot(right, down) > first.radius + second.radius, "they do not touch"
    along, across = (down, right) if shown.relation == "above" else (right, down)
    assert along > abs(across), "one relation alone is true"
    assert shown.caption == (
        f"a {first.size} {first.colour} {first.shape} {shown.relation} a {second.size} {second.colour} {second.shape}"
    )
    assert set(shown.caption.split()) <= set(WORDS)


def test_all_that_is_drawn_occurs_evenly():
    scenes = [scene("train", index) for index in range(2000)]
    for side in ("first", "second"):
        for name, values in [("size", SIZES), ("colour", COLOURS), ("shape", SHAPES)]:
            found = [getattr(getattr(each, side), name) for each in scenes]
            expected = 2000 / len(values)
            assert sum((found.count(value) - expected) ** 2 / expected for value in values) < 26
    above = sum(each.relation == "above" for each in scenes)
    assert abs(above - 1000) < 4 * math.sqrt(500)


def test_a_mirrored_image_has_the_caption_of_what_it_shows():
    assert mirrored("a small red ring left of a large blue star") == "a large blue star left of a small red ring"
    above = "a small red ring above a large blue star"
    assert mirrored(above) == above
    for index in range(20):
        caption = scene("test", index).caption
        assert mirrored(mirrored(caption)) == caption


def test_the_same_name_is_images_for_one_task_and_captions_for_the_other():
    images = data.load_images("synthetic:shapes", size=16, train=6, validation=2, test=2)
    captions = data.load_kind("synthetic:shapes", "captions", size=16, train=6, validation=2, test=2)
    assert (type(images), type(captions)) == (ImageData, CaptionData)
    assert {name: len(split) for name, split in captions.splits.items()} == {"train": 6, "validation": 2, "test": 2}
    assert captions.shape == (16, 16, 3)
    assert captions.splits["test"].captions == [[scene("test", 0).caption], [scene("test", 1).caption]]
    assert captions.tokenizer.size == len(WORDS) + 4
    assert captions.remarks() == []  # no word is unknown


def test_an_image_depends_on_seed_split_and_index_alone():
    def of(**options):
        return data.load_kind("synthetic:shapes", "captions", **({"size": 16, "train": 4} | options))

    few, many, other = of(), of(train=12), of(seed=1)
    rows = np.arange(4)
    assert np.array_equal(few.splits["train"].images.fetch(rows), many.splits["train"].images.fetch(rows))
    assert (
        (few.splits["train"].images.fetch(rows) != other.splits["train"].images.fetch(rows)).any(axis=(1, 2, 3)).all()
    )
    assert few.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("options", [{"size": 4}, {"train": 0}, {"tokenizer": "char"}])
def test_wrong_options_are_usage_errors(options):
    with pytest.raises(UsageError, match=f"data.{next(iter(options))}"):
        data.load_kind("synthetic:shapes", "captions", **options)
