"""The drawn shapes are what their descriptions say: area by geometry, colours, places, and no image twice."""

import math

import numpy as np
import pytest

from dlkit import data
from dlkit.data import shapes
from dlkit.data.images import ImageSplit, LazySplit
from dlkit.data.shapes import SHAPES, Drawing, describe, draw
from dlkit.errors import UsageError

GOLDEN = (1 + math.sqrt(5)) / 2
# Of a shape in a circle of radius 1; the cross is two bars of 2 by 2/3 in units of cos(atan(1/3)).
AREAS = {
    "circle": math.pi,
    "square": 2.0,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 5 * math.sin(math.pi / 5) / GOLDEN**2,
    "cross": (2 * 2 * 2 / 3 - 4 / 9) * math.cos(math.atan(1 / 3)) ** 2,
    "ring": math.pi * (1 - 0.55**2),
}


@pytest.mark.parametrize("angle", [0.0, 0.7, 4.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_the_area_of_their_geometry(shape, angle):
    """White on black, the brightness of all pixels is the area, to the dots on the edge."""
    drawing = Drawing(shape, "large", "white", "black", 0.4, (0.45, 0.55), angle, (255, 255, 255), (0, 0, 0))
    area = draw(drawing, 128)[..., 0].sum() / 255
    assert area == pytest.approx(AREAS[shape] * (0.4 * 128) ** 2, rel=0.02)


def test_a_shape_turns_clockwise_about_its_centre():
    """A triangle stands on its side; turned by 90 degrees, its first corner points to the right."""
    drawn = {}
    for angle in (0.0, math.pi / 2):
        drawing = Drawing("triangle", "large", "white", "black", 0.4, (0.5, 0.5), angle, (255,) * 3, (0,) * 3)
        drawn[angle] = draw(drawing, 64)[..., 0]
    still, turned = drawn.values()
    assert still[:32].sum() < still[32:].sum()
    np.testing.assert_allclose(turned, np.rot90(still, -1), atol=130)  # dots of the edge round otherwise
    assert np.abs(turned.astype(int) - np.rot90(still, -1)).mean() < 3


@pytest.mark.parametrize("index", range(30))
def test_an_image_shows_what_its_description_says(index):
    drawing, image = describe("train", index, seed=4), draw(describe("train", index, seed=4), 96)
    x, y = drawing.centre
    assert drawing.radius <= min(x, y, 1 - x, 1 - y), "all of it lies inside"
    inside = drawing.ground if drawing.shape == "ring" else drawing.fill
    assert np.abs(image[int(96 * y), int(96 * x)].astype(int) - inside).max() <= 1
    away = [(row, column) for row in (1, 94) for column in (1, 94) if math.hypot(column / 96 - x, row / 96 - y) > 0.45]
    assert away
    for row, column in away:
        assert image[row, column].tolist() == list(drawing.ground)
    nearest = {
        name: min(shapes.COLOURS, key=lambda other: math.dist(shapes.COLOURS[other], colour))
        for name, colour in (("colour", drawing.fill), ("background", drawing.ground))
    }
    assert nearest == {"colour": drawing.colour, "background": drawing.background}
    assert drawing.colour != drawing.background
    assert drawing.caption == f"a {drawing.size} {drawing.colour} {drawing.shape} on a {drawing.background} background"
    assert (drawing.radius > 0.25) == (drawing.size == "large")


def test_all_that_is_drawn_occurs_evenly():
    drawings = [describe("train", index) for index in range(4000)]
    for name, values in [("size", shapes.SIZES), ("colour", shapes.COLOURS), ("background", shapes.COLOURS)]:
        found = [getattr(drawing, name) for drawing in drawings]
        expected = 4000 / len(values)
        assert sum((found.count(value) - expected) ** 2 / expected for value in values) < 26  # once in 2000, 7 degrees


def test_the_dataset_has_its_sizes_and_as_many_of_each_shape():
    loaded = data.load("synthetic:shapes", size=8, train=30, validation=12, test=7)
    assert loaded.classes == ["circle", "square", "triangle", "star", "cross", "ring"]
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 30, "validation": 12, "test": 7}
    assert loaded.shape == (8, 8, 3)
    assert np.bincount(loaded.splits["train"].labels).tolist() == [5] * 6
    assert [describe("train", index).shape for index in range(30)] == [
        loaded.classes[label] for label in loaded.splits["train"].labels
    ]


def test_an_image_depends_on_seed_split_and_index_alone():
    few, many = (data.load("synthetic:shapes", size=16, train=n, test=n // 2) for n in (6, 60))
    for name, count in [("train", 6), ("test", 3)]:
        assert np.array_equal(few.splits[name].images, many.splits[name].images[:count])
    other = data.load("synthetic:shapes", size=16, train=6, seed=1)
    assert (other.splits["train"].images != few.splits["train"].images).any(axis=(1, 2, 3)).all()


def test_no_image_stands_in_two_splits_or_twice():
    loaded = data.load("synthetic:shapes", size=16, train=900, validation=300, test=300, noise=0)
    images = [image.tobytes() for split in loaded.splits.values() for image in split.images]
    assert len(set(images)) == len(images)
    captions = {(name, describe(name, 0).centre) for name in loaded.splits}
    assert len({centre for _, centre in captions}) == 3


def test_noise_has_its_standard_deviation():
    clean, noisy = (data.load("synthetic:shapes", train=300, noise=noise).splits["train"].images for noise in (0, 0.05))
    middle = (clean > 60) & (clean < 195)  # where nothing is clipped
    off = noisy.astype(float)[middle] - clean[middle]
    assert off.mean() == pytest.approx(0, abs=0.1)
    assert off.std() == pytest.approx(0.05 * 255, rel=0.02)


def test_images_that_do_not_fit_are_drawn_when_wanted(monkeypatch):
    options = {"size": 8, "train": 12, "test": 6}
    kept = data.load("synthetic:shapes", **options).splits["train"]
    monkeypatch.setattr(shapes, "fits_in_memory", lambda *_: False)
    lazy = data.load("synthetic:shapes", **options).splits["train"]
    assert (type(kept), type(lazy)) == (ImageSplit, LazySplit)
    assert np.array_equal(lazy.fetch([7, 2]), kept.images[[7, 2]])


@pytest.mark.parametrize("options", [{"size": 4}, {"train": 0}, {"noise": 2.0}, {"colours": 3}])
def test_wrong_options_are_usage_errors(options):
    with pytest.raises(UsageError, match=f"data.{next(iter(options))}"):
        data.load("synthetic:shapes", **options)
