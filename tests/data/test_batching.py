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
    batch = {"x": np.arange(36).reshape(36, 1)}
    shares = [
        batching.rows_of_replica(batch, r, replicas=replicas, accumulate=accumulate)["x"] for r in range(replicas)
    ]
    size = 36 // replicas // accumulate
    for micro in range(accumulate):
        together = np.concatenate([share[micro * size : (micro + 1) * size] for share in shares])
        np.testing.assert_array_equal(together[:, 0], np.arange(36).reshape(accumulate, -1)[micro])


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


def test_micro_batches_hold_the_same_rows_on_any_number_of_devices():
    """7 rows in 2 parts are 4 and 3; for 3 devices each is padded to 6."""
    batch = {"x": np.arange(1, 8)}
    padded = batching.pad_micro_batches(batch, 2, 3)
    assert padded["x"].tolist() == [1, 2, 3, 4, 0, 0, 5, 6, 7, 0, 0, 0]
    assert padded["row_weights"].tolist() == [1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0]
    assert batching.pad_micro_batches(batch, 2, 1)["x"].tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert batching.pad_micro_batches(batch, 7, 1) is batch
