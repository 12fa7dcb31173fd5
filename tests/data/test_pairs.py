import inspect
import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit.data.pairs import PairData, PairPreparation, PairSplit, Ragged, Texts, batch, pad, prepared
from dlkit.data.tokenizer import WordTokenizer
from dlkit.errors import DataError
from dlkit.values import check_call, defaults_of

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


@settings(deadline=None)
@given(st.lists(sequences, max_size=8), st.data())
def test_sequences_in_one_array_are_the_sequences(lists, data):
    ragged = Ragged.of(lists)
    assert [row.tolist() for row in ragged] == lists
    assert [row.tolist() for row in ragged[1:3]] == lists[1:3]
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8)) if lists else []
    taken = ragged.take(np.array(rows, np.int64))
    assert [row.tolist() for row in taken] == [lists[row] for row in rows]
    assert taken.flat.dtype == np.int32


def test_the_decoder_reads_what_it_has_to_say_one_step_before():
    split = PairSplit(source=[[4, 5, 6], [7], [8, 9]], target=[[14], [15, 16], [17, 18, 19, 20]])
    source, target_in, target_out = batch(split, [2, 0])
    assert source.tolist() == [[8, 9, 2, 0], [4, 5, 6, 2]]
    assert target_in.tolist() == [[1, 17, 18, 19, 20], [1, 14, 0, 0, 0]]
    assert target_out.tolist() == [[17, 18, 19, 20, 2], [14, 2, 0, 0, 0]]
    assert {array.dtype for array in (source, target_in, target_out)} == {np.dtype(np.int32)}
    assert [array.shape for array in batch(split, [1], lengths=(3, 7))] == [(1, 3), (1, 7), (1, 7)]


@pytest.mark.parametrize(
    ("tokens", "padded"),
    # Multiples of 8, the end token counted; in the end the longest of the split, 20 + 1.
    [(0, 8), (7, 8), (8, 16), (15, 16), (16, 21), (20, 21)],
)
def test_few_lengths_occur(tokens, padded):
    split = PairSplit([[4] * tokens, [4] * 20], [[4] * tokens, [4] * 20])
    assert [array.shape for array in batch(split, [0])] == [(1, padded)] * 3


@settings(deadline=None)
@given(st.lists(st.tuples(sequences, sequences), min_size=1, max_size=8), st.booleans(), st.data())
def test_a_batch_holds_the_pairs_whatever_the_padding(pairs, in_one_array, data):
    sides = [list(side) for side in zip(*pairs, strict=True)]
    split = PairSplit(*([Ragged.of(side) for side in sides] if in_one_array else sides))
    indices = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=8))
    for i, source, target_in, target_out in zip(indices, *batch(split, indices), strict=True):
        assert source[source != 0].tolist() == [*pairs[i][0], 2]
        assert target_in[target_in != 0].tolist() == [1, *pairs[i][1]]
        assert target_out[target_out != 0].tolist() == [*pairs[i][1], 2]


def test_a_split_needs_a_target_for_every_source():
    assert len(PairSplit([[4], [5]], [[6], []])) == 2
    for make in (PairSplit, Texts):
        with pytest.raises(DataError, match="2 sources but 1 targets"):
            make([[4], [5]], [[6]])


def test_lengths_count_the_end_token():
    source, target = PairSplit([[4, 5], []], [[6], [7, 8, 9]]).lengths
    assert (source.tolist(), target.tolist()) == ([3, 1], [2, 4])
    assert PairSplit([[4, 5], []], [[6], [7, 8, 9]]).longest == (3, 4)


# --------------------------------------------------------------------------------------------------------- preparation

PAIRS = [
    ("a b", "b a"),
    ("", "a"),
    ("a a a a", "b"),
    ("a b", "b a"),
    ("b", "b b"),
    ("a b", "a b"),
    ("a\tb", " "),
    ("b a b a b", "b"),
]


def made(pairs=PAIRS, evaluated=(), **options):
    texts = {"train": Texts(*map(list, zip(*pairs, strict=True)))}
    if evaluated:
        texts["test"] = Texts(*map(list, zip(*evaluated, strict=True)))
    return PairData("pairs", texts, PairPreparation(**{"tokenizer": "word", "min_count": 1} | options))


def test_training_pairs_are_dropped_for_one_reason_each():
    data = made(max_length=4, length_ratio=3)
    assert list(data.splits["train"].source_texts) == ["a b", "b", "a b"]
    assert list(data.splits["train"].target_texts) == ["b a", "b b", "a b"]
    assert [row.tolist() for row in data.splits["train"].source] == [
        data.source_tokenizer.encode(text) for text in ("a b", "b", "a b")
    ]
    assert data.report.read == 8
    assert data.report.dropped == {
        "with an empty side": 2,
        "longer than 4 tokens": 1,
        "with a side more than 3 times the other": 1,
        "twice": 1,
    }
    assert data.report.lines() == [
        "1 training pair with control characters",
        "dropped 5 of 8 training pairs: 2 with an empty side, 1 longer than 4 tokens, "
        "1 with a side more than 3 times the other, 1 twice",
    ]


@pytest.mark.parametrize("joint", [True, False])
def test_a_vocabulary_that_is_smaller_than_asked_for_is_told(joint):
    pairs = [(f"{a}{b} {b}", f"{b}x") for a in "abcd" for b in "abcd"]
    data = made(pairs, tokenizer="bpe", vocabulary=500, joint=joint)
    sizes = [data.source_tokenizer.size, data.target_tokenizer.size][: 1 if joint else 2]
    assert all(10 < size < 500 for size in sizes)
    told = f"{' and '.join(map(str, sizes))} tokens, where data.vocabulary is 500: no more are found"
    assert data.report.lines()[0] == told
    assert told not in data.with_tokenizers(data.source_tokenizer, data.target_tokenizer).report.lines()
    assert made(pairs, vocabulary=500, joint=joint).report.lines() == [], "of words it is the most there may be"


def test_limits_are_the_last_that_stay():
    assert made(max_length=5).report.dropped["longer than 5 tokens"] == 0
    assert made(length_ratio=5).report.dropped["with a side more than 5 times the other"] == 0
    assert made(length_ratio=4).report.dropped["with a side more than 4 times the other"] == 1
    assert len(made(duplicates="keep", max_length=None).splits["train"]) == 6
    assert "twice" not in made(duplicates="keep").report.dropped


def test_a_long_line_is_dropped_from_training_and_kept_in_evaluation():
    long = "ab " * 33_334
    data = made([*PAIRS, (long, "a")], [(long, "b"), ("", "")])
    assert data.report.dropped["longer than 128 tokens"] == 1
    assert [len(row) for row in data.splits["test"].source] == [33_334, 0]
    assert list(data.splits["test"].source_texts) == [long, ""]


def test_clean_pairs_need_no_words():
    assert made([("a", "b")]).report.lines() == []


def test_nothing_to_train_on_is_a_data_error():
    data = made([("", "a"), ("a b c", "a")], max_length=2)
    with pytest.raises(
        DataError, match=r"pairs has nothing to train on: dropped 1 with an empty side, 1 longer than 2 tokens"
    ):
        _ = data.splits


def test_unknown_tokens_are_told_by_split_and_side():
    data = made([("a a b", "x x"), ("a", "x y")], [("a z b", "x x y y")], min_count=2)
    assert data.report.unknown == {"train": (1 / 4, 1 / 4), "test": (2 / 3, 1 / 2)}
    assert data.report.unknown_pieces == ["b", "y"]
    assert data.report.lines() == [
        "unknown (such as b y): 25.00% of train source tokens, 25.00% of train target tokens, "
        "66.67% of test source tokens, 50.00% of test target tokens"
    ]


def test_one_vocabulary_or_two():
    joint = made([("a b", "x")])
    assert joint.source_tokenizer is joint.target_tokenizer
    assert set(joint.source_tokenizer.words) == {"a", "b", "x"}
    apart = made([("a b", "x")], joint=False)
    assert (set(apart.source_tokenizer.words), apart.target_tokenizer.words) == ({"a", "b"}, ("x",))


def test_the_tokenizers_of_a_run_take_the_place_of_new_ones(monkeypatch):
    monkeypatch.setattr("dlkit.data.tokenizer.train", None)
    data = made([("a b", "b")]).with_tokenizers(WordTokenizer("ab"), WordTokenizer("xb"))
    assert [row.tolist() for row in data.splits["train"].source] == [[4, 5]]
    assert [row.tolist() for row in data.splits["train"].target] == [[5]]


def test_evaluation_keeps_raw_texts():
    data = made([("A", "B")], [("A\tB ", " b ☃")], lower=True)
    assert list(data.splits["test"].source_texts) == ["A\tB "]
    assert list(data.splits["test"].target_texts) == [" b ☃"]
    assert data.source_tokenizer.words == ("a", "b")


def test_readers_of_texts_take_the_options_of_preparation():
    @prepared
    def reader(name: str, *, own: int = 3) -> PairData:
        return PairData(name, {"train": Texts(["a" * own], ["b"])})

    shared = {name: p.default for name, p in inspect.signature(PairPreparation).parameters.items()}
    assert defaults_of(reader) == {"own": 3} | shared
    assert typing.get_type_hints(reader, include_extras=True).keys() >= {"own", *shared}
    checked = check_call(reader, {"own": 2, "tokenizer": "char", "max_length": "none"}, where="data")
    data = reader("x", **checked)
    assert data.options == PairPreparation(tokenizer="char", max_length=None)
    assert data.texts["train"].source == ["aa"]
