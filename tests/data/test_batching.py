import threading

import numpy as np
import pytest

from dlkit.data import batching


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch_only():
    order = batching.shuffled(1000, seed=3, epoch=5)
    assert sorted(order) == list(range(1000))
    np.testing.assert_array_equal(order, batching.shuffled(1000, seed=3, epoch=5))
    for seed, epoch in [(3, 6), (4, 5), (5, 3)]:
        assert (order != batching.shuffled(1000, seed=seed, epoch=epoch)).mean() > 0.9


def test_batches_cut_the_order_and_lose_nothing():
    cut = batching.in_batches(np.arange(10), 4)
    assert [batch.tolist() for batch in cut] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_padding_adds_rows_of_weight_0():
    batch = {"images": np.ones((3, 2), np.float32), "labels": np.array([7, 8, 9], np.int32)}
    padded = batching.pad_rows(batch, 4)
    np.testing.assert_array_equal(padded["images"], [[1, 1], [1, 1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(padded["labels"], [7, 8, 9, 0])
    np.testing.assert_array_equal(padded["row_weights"], [1, 1, 1, 0])
    assert padded["labels"].dtype == np.int32
    assert batching.pad_rows(batch, 3) is batch
    np.testing.assert_array_equal(batching.pad_rows(batch, 3, always_weighted=True)["row_weights"], [1, 1, 1])


@pytest.mark.parametrize(("replicas", "accumulate"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 3), (3, 2)])
def test_a_micro_batch_has_the_same_rows_whatever_the_number_of_devices(replicas, accumulate):
    places = batching.layout(36, replicas=replicas, accumulate=accumulate)
    assert places.shape == (replicas, accumulate, 36 // replicas // accumulate)
    for micro in range(accumulate):
        np.testing.assert_array_equal(places[:, micro].ravel(), np.arange(36).reshape(accumulate, -1)[micro])


def test_prefetch_keeps_the_order_and_raises_here():
    def items():
        yield from range(5)
        raise OSError("disk")

    drawn = []
    with pytest.raises(OSError, match="disk"):
        drawn.extend(batching.prefetch(items()))
    assert drawn == [0, 1, 2, 3, 4]


def test_prefetch_runs_ahead_by_its_depth_and_stops_when_it_is_left():
    begun = []
    endless = batching.prefetch((begun.append(i) or i for i in iter(int, 1)), depth=2)
    next(endless)
    endless.close()
    count = len(begun)
    assert count <= 5
    assert all(not thread.name.startswith("dlkit-prefetch") for thread in threading.enumerate())
    assert len(begun) == count


@pytest.mark.parametrize(
    ("size", "replicas", "accumulate", "places"),
    [
        (7, 1, 2, [[[0, 1, 2, 3], [4, 5, 6, -1]]]),
        (7, 3, 2, [[[0, 1], [4, 5]], [[2, 3], [6, -1]], [[-1, -1], [-1, -1]]]),
        (1, 2, 1, [[[0]], [[-1]]]),
        (7, 1, 7, [[[row] for row in range(7)]]),
    ],
)
def test_what_does_not_divide_is_padded_in_each_micro_batch(size, replicas, accumulate, places):
    assert batching.layout(size, replicas=replicas, accumulate=accumulate).tolist() == places


def test_rows_are_laid_out_at_their_places():
    batch = {"x": np.arange(10, 17), "images": np.ones((7, 2), np.float32)}
    laid = batching.lay_out(batch, np.array([[2, 3], [6, -1]]), weighted=True)
    assert laid["x"].tolist() == [12, 13, 16, 0]
    assert laid["images"].tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]]
    assert laid["row_weights"].tolist() == [1, 1, 1, 0]
    assert laid["row_weights"].dtype == laid["images"].dtype == np.float32
    full = batching.lay_out(batch, np.array([[2, 3], [4, 5]]), weighted=True)
    assert full["row_weights"].tolist() == [1, 1, 1, 1], "another device has to pad"
    assert full["x"].tolist() == [12, 13, 14, 15]
    assert "row_weights" not in batching.lay_out(batch, np.arange(7), weighted=False)
    weighted = batch | {"row_weights": np.array([1, 1, 1, 1, 0, 0, 0], np.float32)}
    assert batching.lay_out(weighted, np.array([3, 4, -1]), weighted=True)["row_weights"].tolist() == [1, 0, 0]
