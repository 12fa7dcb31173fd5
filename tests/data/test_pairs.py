import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlkit.data.pairs import PairSplit, batch, pad
from dlkit.errors import DataError

sequences = st.lists(st.integers(4, 30), max_size=40)


def test_pad_stands_sequences_side_by_side():
    padded = pad([[5, 6, 7], [8], []])
    assert padded.dtype == np.int32
    assert padded.tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
    assert pad([[5]], length=3).tolist() == [[5, 0, 0]]
    assert pad([]).shape == (0, 0)


def test_pad_cuts_nothing_off():
    with pytest.raises(ValueError, match="broadcast"):
        pad([[5, 6, 7]], length=2)


def test_the_decoder_reads_what_it_has_to_say_one_step_before():
    split = PairSplit(source=[[4, 5, 6], [7], [8, 9]], target=[[14], [15, 16], [17, 18, 19, 20]])
    source, target_in, target_out = batch(split, [2, 0])
    assert source.tolist() == [[8, 9, 2, 0], [4, 5, 6, 2]]
    assert target_in.tolist() == [[1, 17, 18, 19, 20], [1, 14, 0, 0, 0]]
    assert target_out.tolist() == [[17, 18, 19, 20, 2], [14, 2, 0, 0, 0]]
    assert {array.dtype for array in (source, target_in, target_out)} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("tokens", "padded"),
    # Multiples of 8, the end token counted; in the end the longest of the split, 20 + 1.
    [(0, 8), (7, 8), (8, 16), (15, 16), (16, 21), (20, 21)],
)
def test_few_lengths_occur(tokens, padded):
    split = PairSplit([[4] * tokens, [4] * 20], [[4] * tokens, [4] * 20])
    assert [array.shape for array in batch(split, [0])] == [(1, padded)] * 3


@given(st.lists(st.tuples(sequences, sequences), min_size=1, max_size=8), st.data())
def test_a_batch_holds_the_pairs_whatever_the_padding(pairs, data):
    split = PairSplit([source for source, _ in pairs], [target for _, target in pairs])
    indices = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=8))
    for i, source, target_in, target_out in zip(indices, *batch(split, indices), strict=True):
        assert source[source != 0].tolist() == [*pairs[i][0], 2]
        assert target_in[target_in != 0].tolist() == [1, *pairs[i][1]]
        assert target_out[target_out != 0].tolist() == [*pairs[i][1], 2]


def test_a_split_needs_a_target_for_every_source():
    assert len(PairSplit([[4], [5]], [[6], []])) == 2
    with pytest.raises(DataError, match="2 sources but 1 targets"):
        PairSplit([[4], [5]], [[6]])
