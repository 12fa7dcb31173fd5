import itertools
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit.data.buckets import BUCKETS, TokenBatches, _ends

lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=300)


def token_batches(pairs, **options):
    source, target = np.array(pairs).T
    return TokenBatches(source, target, **{"batch_tokens": 256} | options)


@settings(deadline=None)
@given(lengths, st.integers(60, 2000), st.integers(0, 5), st.integers(0, 5))
def test_every_pair_once_and_never_too_many_tokens(pairs, batch_tokens, seed, epoch):
    made = token_batches(pairs, batch_tokens=batch_tokens)
    batches = made.epoch(epoch, seed=seed)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(pairs)))
    assert len(batches) == len(made) == len(made.epoch(epoch + 1, seed=seed)) == len(made.epoch(None, seed=seed))
    seen = Counter()
    padded = 0
    for batch in batches:
        source, target = made.lengths(batch)
        assert {made.lengths(batch[row : row + 1]) for row in range(len(batch))} == {(source, target)}
        assert source >= max(pairs[row][0] for row in batch)
        assert target >= max(pairs[row][1] for row in batch)
        assert len(batch) * max(source, target) <= batch_tokens
        seen[len(batch), source, target] += 1
        padded += len(batch) * (source + target)
    # One shape a bucket, and one batch that is not full, or more where a bucket is more than twice as long as the last.
    ends = [max(shape.source, shape.target) for shape in made.shapes]
    gaps = sum(longer > 2 * shorter for shorter, longer in itertools.pairwise(ends))
    partial = [shape for shape in seen if shape not in {tuple(full) for full in made.shapes}]
    assert len(made.shapes) <= BUCKETS == 16
    assert sum(seen[shape] for shape in partial) <= 1 + gaps
    assert made.padding_share == pytest.approx(1 - np.sum(pairs) / padded)


@settings(deadline=None)
@given(lengths, st.integers(0, 5))
def test_the_order_is_a_function_of_seed_and_epoch(pairs, epoch):
    def order(seed, epoch):
        return [batch.tolist() for batch in token_batches(pairs).epoch(epoch, seed=seed)]

    assert order(1, epoch) == order(1, epoch)


def test_batches_and_pairs_are_shuffled():
    pairs = np.random.default_rng(0).integers(1, 60, (2000, 2))
    made = token_batches(pairs, batch_tokens=600)

    def order(epoch, seed):
        return [batch.tolist() for batch in made.epoch(epoch, seed=seed)]

    for other in (order(1, 0), order(0, 1)):
        assert other != order(0, 0)
        assert {frozenset(batch) for batch in other} != {frozenset(batch) for batch in order(0, 0)}
    longest = [made.lengths(batch)[0] for batch in made.epoch(0, seed=0)]
    assert longest != sorted(longest)
    # Not from short to long: the mean of each half of the epoch is about the same.
    halves = np.array_split(longest, 2)
    assert abs(halves[0].mean() - halves[1].mean()) < 10
    in_order = [int(pairs[batch].max()) for batch in made.epoch(None, seed=0)]
    assert in_order == sorted(in_order)


def test_by_hand():
    # Two lengths, two buckets: 3 rows of 4 and 2 rows of 6. Of the five short pairs two are left over and move up.
    pairs = [(4, 4), (2, 4), (4, 1), (6, 5), (4, 4), (6, 6), (1, 4)]
    made = token_batches(pairs, batch_tokens=12)
    assert made.shapes == [(3, 4, 4), (2, 6, 6)]
    in_order = [batch.tolist() for batch in made.epoch(None, seed=0)]
    # By the longer side, then by the shorter: 2 and 6, then 1, 0, 4; then 3, 5.
    assert in_order == [[2, 6, 1], [0, 4], [3, 5]]
    assert [made.lengths(np.array(batch)) for batch in in_order] == [(4, 4), (6, 6), (6, 6)]
    assert made.padding_share == pytest.approx(1 - sum(map(sum, pairs)) / (3 * 8 + 4 * 12))


def test_a_pair_longer_than_a_batch_is_a_batch_of_its_own():
    made = token_batches([(3, 3), (3, 3), (100_000, 2)], batch_tokens=10)
    assert sorted(batch.tolist() for batch in made.epoch(0, seed=0)) == [[0, 1], [2]]


def test_nothing_makes_no_batches():
    nothing = np.zeros(0, np.int64)
    made = TokenBatches(nothing, nothing, batch_tokens=10)
    assert (len(made), made.epoch(0, seed=0), made.padding_share) == (0, [], 0.0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 5))
def test_buckets_end_where_least_is_added(values, most):
    """Against all ways to choose the ends."""
    values = np.array(values)

    def added(ends):
        return sum(min(end for end in ends if end >= value) - value for value in values)

    largest = values.max()
    others = [value for value in np.unique(values) if value != largest]
    ways = itertools.chain(*(itertools.combinations(others, n) for n in range(most)))
    ends = _ends(values, most)
    assert len(ends) <= most
    assert added(ends) == min(added((*way, largest)) for way in ways)


def test_many_pairs_take_well_under_a_second():
    random = np.random.default_rng(0)
    source = random.gamma(4, 4, 200_000).astype(int) + 1
    target = np.maximum(source + random.integers(-3, 4, 200_000), 1)
    start = time.process_time()
    made = TokenBatches(source, target, batch_tokens=4096)
    batches = made.epoch(0, seed=0)
    assert time.process_time() - start < 1
    assert made.padding_share < 0.15
    assert sum(map(len, batches)) == 200_000
    assert len({(len(batch), *made.lengths(batch)) for batch in batches}) <= 17


def test_thousands_of_different_lengths_are_no_burden():
    start = time.process_time()
    made = TokenBatches(np.arange(1, 20_001), np.arange(1, 20_001), batch_tokens=40_000)
    assert time.process_time() - start < 1
    assert made.padding_share < 0.1
