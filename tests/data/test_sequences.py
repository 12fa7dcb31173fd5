"""The adding and the copying problem, by hand and by arithmetic."""

import math

import numpy as np
import pytest

from dlkit import data
from dlkit.data.sequences import Examples, SequenceData, SequenceSplit, adding, copy_delay, statistics
from dlkit.errors import UsageError


def test_the_sum_is_that_of_the_two_marked_numbers_one_in_each_half():
    inputs, lengths, targets = adding(length=9, test=500).splits["test"].fetch(np.arange(500))
    assert (inputs.shape, targets.shape) == ((500, 9, 2), (500, 1))
    numbers, marks = inputs[..., 0], inputs[..., 1]
    assert set(np.unique(marks)) == {0, 1}
    assert (marks[:, :4].sum(1) == 1).all()  # 9 // 2 = 4
    assert (marks[:, 4:].sum(1) == 1).all()
    np.testing.assert_allclose(targets[:, 0], (numbers * marks).sum(1), rtol=1e-6)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert (lengths == 9).all()
    assert (marks.sum(0) > 0).all(), "every place is marked in some sequence"


def test_whoever_says_the_mean_has_an_error_of_a_sixth():
    found = adding(length=6)
    targets = found.splits["train"].fetch(np.arange(20_000)).targets
    # The squared deviation of a sum of two has itself a deviation of 0.18: of the mean of 20,000 that is 0.0013.
    assert np.mean((targets - 1) ** 2) == pytest.approx(1 / 6, abs=0.006)
    assert found.memoryless == {"mse": 1 / 6}


def test_shorter_sequences_end_in_zeros_and_have_their_marks_inside():
    inputs, lengths, targets = adding(length=10, shortest=2, train=400).splits["train"].fetch(np.arange(400))
    assert set(lengths) == set(range(2, 11))
    for row, length, target in zip(inputs, lengths, targets, strict=True):
        assert not row[length:].any()
        assert row[: length // 2, 1].sum() == row[length // 2 : length, 1].sum() == 1
        assert target[0] == pytest.approx(float(row[:, 0] @ row[:, 1]), rel=1e-6)


def test_what_is_to_be_copied_step_by_step():
    inputs, lengths, labels = copy_delay(delay=3, symbols=2, remembered=2).splits["test"].fetch(np.arange(50))
    assert (inputs.shape, labels.shape) == ((50, 7, 4), (50, 7))
    assert (inputs.sum(-1) == 1).all(), "one-hot"
    ids = inputs.argmax(-1)  # 0 the blank, 1 and 2 symbols, 3 the sign to begin
    assert set(np.unique(ids[:, :2])) == {1, 2}
    assert (ids[:, 2:] == [0, 0, 3, 0, 0]).all()
    assert (labels[:, :5] == 0).all()
    np.testing.assert_array_equal(labels[:, 5:], ids[:, :2])
    assert (lengths == 7).all()


def test_the_loss_of_who_remembers_nothing():
    """Arjovsky et al. 2016, section 4.1: ten symbols of eight, and a delay T: 10 ln 8 / (T + 20)."""
    found = copy_delay(delay=100)
    assert found.memoryless["loss"] == pytest.approx(10 * math.log(8) / 120)
    assert found.classes[found.blank] == "blank"
    assert len(found.classes) == 9


@pytest.mark.parametrize("name", ["synthetic:adding", "synthetic:copy_delay"])
def test_a_sequence_depends_on_seed_split_and_index_alone(name):
    few, many = (data.load(name, train=size, test=size) for size in (5, 50))
    for split in ("train", "test"):
        for one, other in zip(few.splits[split].fetch([3, 1]), many.splits[split].fetch([3, 1]), strict=True):
            np.testing.assert_array_equal(one, other)
    (train, *_), (test, *_) = (few.splits[split].fetch([0, 1]) for split in ("train", "test"))
    assert not np.array_equal(train, test)
    assert not np.array_equal(train[0], train[1])
    assert not np.array_equal(train, data.load(name, train=5, seed=1).splits["train"].fetch([0, 1]).inputs)
    assert few.fingerprint() != many.fingerprint() != data.load(name, train=50, seed=1).fingerprint()


def test_statistics_are_those_of_numpy_over_all_steps_that_are_no_padding():
    found = adding(length=7, shortest=3, train=200)
    inputs, lengths, targets = found.splits["train"].fetch(np.arange(200))
    numbers = np.concatenate([row[:length, 0] for row, length in zip(inputs, lengths, strict=True)])
    mean, std, output_mean, output_std = statistics(found)
    np.testing.assert_allclose(mean, [numbers.mean(dtype=np.float64), 0], rtol=1e-6)
    np.testing.assert_allclose(std, [numbers.std(dtype=np.float64), 1], rtol=1e-6)  # marks stay 0 and 1
    np.testing.assert_allclose(output_mean, targets.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(output_std, targets.std(0, dtype=np.float64), rtol=1e-6)


def test_what_never_changes_is_divided_by_one():
    constant = Examples(np.full((4, 2, 1), 0.3, np.float32), np.full(4, 2, np.int32), np.full((4, 1), 7, np.float32))
    split = SequenceSplit(4, lambda indices: Examples(*(array[indices] for array in constant)))
    found = statistics(SequenceData("x", {"train": split}, 2, False, (True,), outputs=1))
    assert found.std.tolist() == found.output_std.tolist() == [1]
    assert found.output_mean == pytest.approx([7])


def test_a_shortest_that_is_longer_than_the_longest_is_told():
    with pytest.raises(UsageError, match="shortest 5 is more than data.length 4"):
        adding(length=4, shortest=5)
