import hashlib

import numpy as np
import pytest
from PIL import Image

from dlkit.data import digits
from dlkit.errors import UsageError


@pytest.fixture(scope="module")
def published():
    return digits.read()


def test_the_images_are_those_that_scikit_learn_ships(published):
    """The sums are of scikit-learn's copy, which is no dependency and so is not compared with in CI.

    With `d = sklearn.datasets.load_digits()` they are those of `d.images.astype("uint8").tobytes()` and of
    `d.target.astype("uint8").tobytes()`.
    """
    images, labels = published
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    assert hashlib.sha256(images.tobytes()).hexdigest() == (
        "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    )
    assert hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest() == (
        "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"
    )


def test_class_counts_are_the_published_ones(published):
    counts = np.bincount(published[1])
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_first_image_is_the_zero_of_the_documentation(published):
    """The ink of the first row of the published file, which every tutorial on this set prints."""
    images, labels = published
    assert labels[0] == 0
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert images[0, 1].tolist() == [0, 0, 13, 15, 10, 15, 5, 0]


def test_splits_have_their_sizes_and_share_no_row(published):
    rows = digits.split_rows(published[1])
    assert {name: len(at) for name, at in rows.items()} == {"train": 1293, "validation": 144, "test": 360}
    together = np.concatenate(list(rows.values()))
    assert np.array_equal(np.sort(together), np.arange(1797))


def test_splits_are_stratified(published):
    labels = published[1]
    shares = np.bincount(labels) / len(labels)
    for at in digits.split_rows(labels).values():
        # test and validation are off by less than one image of a digit, so train is by less than two
        assert np.abs(np.bincount(labels[at]) - shares * len(at)).max() < 2


def test_no_image_stands_in_two_splits(published):
    assert len(np.unique(published[0].reshape(1797, -1), axis=0)) == 1797


def test_the_data_are_32x32_gray_bytes():
    data = digits.digits()
    assert data.shape == (32, 32, 1)
    assert data.classes == list("0123456789")
    test = data.splits["test"]
    images = test.fetch([5, 0])
    assert images.shape == (2, 32, 32, 1)
    assert images.dtype == np.uint8
    assert test.labels.dtype == np.int32
    assert images.max() <= 255
    assert max(split.images.max() for split in data.splits.values()) == 255


def test_labels_stay_with_their_images(published):
    """At the published size nothing is interpolated: 16 shades become 255."""
    images, labels = published
    test = digits.digits(size=8).splits["test"]
    rows = np.array(digits.TEST_ROWS)
    assert np.array_equal(test.labels, labels[rows])
    assert np.array_equal(test.images[..., 0], np.rint(images[rows] * 255.0 / 16))


@pytest.mark.parametrize("size", [9, 16, 32, 57])
def test_resize_agrees_with_pillow(published, size):
    images = published[0][:3].astype(np.float32)
    ours = digits.resize(images, size)
    for image, enlarged in zip(images, ours, strict=True):
        theirs = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(enlarged, np.asarray(theirs), atol=1e-4)


def test_resize_by_hand():
    """Two columns at twice the size: centres at -1/4, 1/4, 3/4 and 5/4 of the old grid, the outer ones clamped."""
    image = np.array([[[0, 8], [0, 8]]], np.float32)
    assert digits.resize(image, 4)[0].tolist() == [[0, 2, 6, 8]] * 4


@pytest.mark.parametrize("size", [7, 257, 0, -1])
def test_a_size_out_of_range_is_a_usage_error(size):
    with pytest.raises(UsageError, match=str(size)):
        digits.digits(size=size)
