import hashlib
import json

import numpy as np
import pytest

from dlkit.data import images as images_module
from dlkit.data.images import (
    ImageData,
    ImageSplit,
    Kept,
    LazySplit,
    check_division,
    fingerprint,
    fingerprint_of_origin,
    fits_in_memory,
    hold_out,
    in_memory,
    moments,
    standardize,
    statistics,
    value_counts,
)
from dlkit.errors import DataError, UsageError


def split_of(images):
    images = np.asarray(images, np.uint8)
    return ImageSplit(images, np.zeros(len(images), np.int32))


def test_fetch_follows_the_indices():
    split = ImageSplit(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), np.array([7, 8, 9], np.int32))
    assert len(split) == 3
    assert split.fetch([2, 0, 2]).ravel().tolist() == [2, 0, 2]
    assert split.fetch([]).shape == (0, 1, 1, 1)


def test_shape_is_that_of_one_image():
    assert ImageData("x", ["a"], {"train": split_of(np.zeros((2, 5, 4, 3)))}).shape == (5, 4, 3)


def test_statistics_by_hand():
    """Red is 0 and 255: mean 1/2, deviation 1/2. Green is 51 throughout: mean 1/5, deviation 0."""
    mean, std = statistics(split_of([[[[0, 51], [255, 51]]]]))
    np.testing.assert_allclose(mean, [0.5, 0.2], rtol=1e-15)
    np.testing.assert_allclose(std, [0.5, 0.0], atol=1e-15)


def test_statistics_equal_numpy_over_more_than_one_chunk():
    images = np.random.default_rng(0).integers(0, 256, (2500, 3, 2, 3), dtype=np.uint8)
    mean, std = statistics(split_of(images))
    assert mean.dtype == std.dtype == np.float64
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("most", [1 << 32, 0])
@pytest.mark.parametrize(("count", "processes"), [(25, 2), (25, 3), (2, 3)])
def test_processes_that_share_the_images_out_count_what_one_counts(monkeypatch, most, count, processes):
    """Each looks at images of its own; of very many, at its part of those that stand for all."""
    monkeypatch.setattr("dlkit.data.images.MEASURED_WHOLE", most)
    monkeypatch.setattr("dlkit.data.images.SAMPLE", 10)
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 2, 3), dtype=np.uint8)
    read = []
    split = LazySplit(
        lambda row: read.append(row) or images[row], np.arange(count), np.zeros(count, np.int32), (3, 2, 3)
    )
    counted = sum(value_counts(split, rank=rank, processes=processes) for rank in range(processes))
    assert len(read) == len(set(read)) == (count if most else min(count, 10))
    for channel in range(3):
        shades = images[sorted(read), ..., channel].ravel()
        assert counted[channel].tolist() == [int((shades == shade).sum()) for shade in range(256)]
    np.testing.assert_array_equal(moments(counted), statistics(split))


def test_statistics_of_nothing_is_an_error():
    with pytest.raises(DataError):
        statistics(split_of(np.zeros((0, 2, 2, 1))))


def test_standardized_training_data_have_mean_0_and_deviation_1():
    images = np.random.default_rng(1).integers(0, 200, (50, 4, 4, 3), dtype=np.uint8)
    scaled = standardize(images, *statistics(split_of(images)))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=(0, 1, 2)), 1, atol=1e-6)


def test_standardize_centres_a_constant_channel():
    images = np.full((1, 2, 2, 1), 51, np.uint8)
    np.testing.assert_allclose(standardize(images, [0.2], [0.0]), 0, atol=1e-7)


# Images that are decoded when they are wanted


def lazy_split(count, **options):
    """Image i of the source is a 1x1 image of the shade i."""
    calls = []

    def read(row):
        calls.append(row)
        return np.full((1, 1, 1), row % 256, np.uint8)

    labels = np.arange(count, dtype=np.int32) % 7
    return LazySplit(read, np.arange(count), labels, (1, 1, 1), **options), calls


def test_a_lazy_split_decodes_what_is_wanted_and_no_more():
    split, calls = lazy_split(100)
    assert split.fetch([7, 3, 7]).ravel().tolist() == [7, 3, 7]
    assert sorted(calls) == [3, 7, 7]
    some = split.take(np.array([50, 20]))
    assert (len(some), some.labels.tolist()) == (2, [50 % 7, 20 % 7])
    assert some.fetch([1, 0]).ravel().tolist() == [20, 50]
    assert in_memory(some).fetch([1, 0]).ravel().tolist() == [20, 50]


def test_what_is_kept_is_decoded_once_for_all_splits_of_a_source():
    split, calls = lazy_split(100, kept=Kept.room(100, (1, 1, 1)))
    first, second = split.take(np.arange(60)), split.take(np.arange(50, 100))
    assert first.fetch([7, 59, 7]).ravel().tolist() == [7, 59, 7]
    assert second.fetch([0, 9]).ravel().tolist() == [50, 59]
    assert sorted(calls) == [7, 50, 59]
    statistics(first)
    assert split.fetch(np.arange(100)).ravel().tolist() == list(range(100))
    assert sorted(calls) == list(range(100))
    assert split.fetch([]).shape == (0, 1, 1, 1)


def test_the_processes_of_one_machine_share_the_memory(monkeypatch):
    """A quarter of 4,000 bytes is room for 100 images of 10 bytes, or for 33 in each of three processes."""
    monkeypatch.setattr(images_module, "memory", lambda: 4000)
    assert [fits_in_memory(count, (5, 2, 1)) for count in (100, 101)] == [True, False]
    workers = {"cluster": {"worker": ["a:1", "a:2", "a:3"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    assert fits_in_memory(100, (5, 2, 1)), "without a launcher they are on three machines"
    monkeypatch.setattr("dlkit.workers.launcher", object)
    assert [fits_in_memory(count, (5, 2, 1)) for count in (33, 34)] == [True, False]


def test_a_division_that_nothing_reads_is_refused():
    splits = {name: split_of(np.zeros((10, 1, 1, 1))) for name in ("train", "validation")}
    for default in (0.1, 0):
        assert {name: len(split) for name, split in hold_out(splits, default).items()} == {
            "train": 10,
            "validation": 10,
        }
    with pytest.raises(
        UsageError, match=r"data\.validation changes nothing: the data have the splits train, validation"
    ):
        hold_out(splits, 0.2)
    test = {"test": splits["train"]}
    assert hold_out(test, 0.1) == test
    with pytest.raises(UsageError, match=r"data\.validation changes nothing"):
        hold_out(test, 3)


def test_what_a_user_asks_for_of_a_division_that_there_is_is_refused():
    """Of what is asked for, not of what is so by default or in a recipe; to hold out nothing is no division."""
    splits = {name: split_of(np.zeros((10, 1, 1, 1))) for name in ("train", "validation")}
    data = ImageData("made", ["a"], splits, ignored_options=("validation", "split_seed"))
    for asked in ({}, {"validation": 0}, {"test": 0.1, "size": 8}):
        check_division(data, asked)
    for option, asked in (("validation", {"validation": 0.1}), ("split_seed", {"validation": 0, "split_seed": 1})):
        with pytest.raises(UsageError, match=f"data.{option} changes nothing: the data have the splits train, val"):
            check_division(data, asked)


def test_something_is_left_to_train_on():
    with pytest.raises(UsageError, match=r"data\.validation 10 leaves nothing of 10 training images") as caught:
        hold_out({"train": split_of(np.zeros((10, 1, 1, 1)))}, 10)
    assert "a share such as 0.1" in caught.value.hint


def test_an_image_that_cannot_be_decoded_stops_the_batch():
    def read(row):
        raise DataError(f"no image {row}")

    with pytest.raises(DataError, match="no image 3"):
        LazySplit(read, np.arange(5), np.zeros(5, np.int32), (1, 1, 1)).fetch([3])


def test_the_statistics_of_very_many_images_come_from_ten_thousand_of_them(monkeypatch):
    monkeypatch.setattr("dlkit.data.images.MEASURED_WHOLE", 25_599)
    split, calls = lazy_split(25_600)
    mean, std = statistics(split)
    assert len(set(calls)) == len(calls) == 10_000
    shades = np.arange(256) / 255  # each occurs a hundred times
    assert mean[0] == pytest.approx(shades.mean(), abs=4 * shades.std() / 100)
    assert std[0] == pytest.approx(shades.std(), rel=0.03)
    assert statistics(split)[0] == mean
    few, calls = lazy_split(300)
    statistics(few)
    assert sorted(calls) == list(range(300))


def test_statistics_are_the_same_whether_or_not_the_images_are_kept(monkeypatch):
    """Processes of one training may have room or not; they must see the same images."""
    for most in (1 << 32, 25_599):
        monkeypatch.setattr("dlkit.data.images.MEASURED_WHOLE", most)
        lazy, _ = lazy_split(25_600)
        kept = ImageSplit(lazy.fetch(np.arange(25_600)), lazy.labels)
        np.testing.assert_array_equal(statistics(kept), statistics(lazy))


def test_the_fingerprint_is_of_labels_and_pixels():
    images = np.random.default_rng(0).integers(0, 256, (1500, 2, 2, 3), dtype=np.uint8)
    labels = np.arange(1500, dtype=np.int32)
    assert fingerprint(ImageSplit(images, labels)) == hashlib.sha256(labels.tobytes() + images.tobytes()).hexdigest()
    assert fingerprint(ImageSplit(images, labels[::-1].copy())) != fingerprint(ImageSplit(images, labels))


def test_the_fingerprint_of_images_from_a_source_reads_no_image_and_is_that_of_the_same_in_memory():
    split, calls = lazy_split(300, source="shades 1.0.0")
    kept = ImageSplit(split.fetch(np.arange(300)), split.labels, split.source)
    calls.clear()
    assert fingerprint(split) == fingerprint(kept) == fingerprint(in_memory(split))
    calls.clear()
    assert fingerprint(split) != fingerprint(lazy_split(300, source="shades 1.0.1")[0])
    lazy_parts, parts = hold_out({"train": split}, 0.1), hold_out({"train": kept}, 0.1)
    assert fingerprint(lazy_parts["train"]) == fingerprint(parts["train"]) != fingerprint(parts["validation"])
    assert calls == []


@pytest.mark.parametrize(
    "part",
    [
        lambda split: split,
        in_memory,
        lambda split: split.take(np.arange(9)),
        lambda split: in_memory(split).take(np.arange(9)),
        lambda split: hold_out({"train": split}, 3)["train"],
    ],
)
def test_the_fingerprint_of_the_origin_knows_no_size(part):
    """Images a of two sizes, and others, b."""
    made = (("a", 1), ("a", 2), ("b", 1))
    splits = [part(lazy_split(30, source=f"{name} {size}", origin=name)[0]) for name, size in made]
    small, large, other = (fingerprint_of_origin(split) for split in splits)
    assert small == large != other
    assert len({fingerprint(split) for split in splits}) == 3


def test_the_fingerprint_of_the_origin_is_of_those_images_in_their_order():
    split, _ = lazy_split(30, source="a 1", origin="a")
    rows = ([0, 7], [7, 0], [14, 7])  # whose labels are all 0
    assert len({fingerprint_of_origin(split.take(np.array(each))) for each in rows}) == 3
    known, _ = lazy_split(30, source="files")
    assert fingerprint_of_origin(known) == fingerprint(known), "a source that knows no size"


def test_the_fingerprint_of_lazy_images_without_a_source_looks_at_a_hundred():
    split, calls = lazy_split(5000)
    shifted = LazySplit(lambda row: split.read(row + 1), split.rows, split.labels, split.shape)
    assert fingerprint(split) != fingerprint(shifted)
    assert len(calls) == 200
