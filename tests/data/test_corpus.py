import gzip
from importlib import resources

import numpy as np
import pytest

from dlkit import data, runtime
from dlkit.data import corpus
from dlkit.data.tokenizer import END, START
from dlkit.errors import DataError, UsageError


def load(name, **options):
    return data.load_kind(str(name), "corpus", **options)


def test_shakespeare_ships_with_its_attribution_and_is_divided_as_usual():
    texts = load("shakespeare").texts
    assert (len(texts["train"][0]), len(texts["validation"][0])) == (1_003_854, 111_540)
    about = resources.files("dlkit.data").joinpath("files/README.md").read_text()
    assert all(word in about for word in ("shakespeare.txt.gz", "public domain", "Karpathy", "1,115,394"))


def test_a_stream_of_characters_is_the_text_itself(tmp_path):
    file = tmp_path / "x.txt"
    file.write_bytes("ein Ü\r\nzwei\n".encode() * 20)
    found = load(file, block=7)
    train, held = found.splits["train"], found.splits["validation"]
    assert found.tokenizer.decode(train.ids) + found.tokenizer.decode(held.ids) == "ein Ü\nzwei\n" * 20
    assert len(held.ids) == 22
    assert held.characters == held.predicted == 21
    assert found.first == found.tokenizer.encode("\n")[0]


def test_blocks_predict_each_token_but_the_first_once():
    stream = corpus.Stream(np.arange(10, 21, dtype=np.int32), 10, block=4)
    inputs, targets = stream.batch(np.arange(len(stream)) * 4)
    np.testing.assert_array_equal(inputs, [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 0, 0]])
    np.testing.assert_array_equal(targets, [[11, 12, 13, 14], [15, 16, 17, 18], [19, 20, 0, 0]])
    assert not stream.batch(np.array([10, 12]))[1].any(), "behind the end there is nothing"


def test_lines_stand_between_start_and_stop():
    found = load("three_sentences")
    inputs, targets = found.splits["train"].batch(np.array([1]))
    words = found.tokenizer.encode("I like machine learning")
    np.testing.assert_array_equal(inputs, [[START, *words, 0, 0, 0]])
    np.testing.assert_array_equal(targets, [[*words, END, 0, 0, 0]])


def test_between_lines_of_words_stands_a_stop_token(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("a b\n\na\n")
    found = load(file, tokenizer="word", validation=0)
    a, b = found.tokenizer.encode("a b")
    np.testing.assert_array_equal(found.splits["train"].ids, [END, a, b, END, END, a, END])
    assert found.splits["train"].characters == 7
    assert found.first == END


def test_long_lines_are_left_out_and_told(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("a b c\na b\n" * 5)
    found = load(file, tokenizer="word", units="lines", block=3, validation=0)
    assert len(found.splits["train"]) == 5
    assert "left 5 of 10 training lines out" in found.remarks()[0]


def test_a_folder_has_its_own_splits(tmp_path):
    (tmp_path / "train.txt").write_text("abc" * 10)
    (tmp_path / "dev.txt.gz").write_bytes(gzip.compress(b"abcabc"))
    (tmp_path / "test.txt").write_text("cab")
    (tmp_path / "notes.md").write_text("none")
    assert {name: len(split.ids) for name, split in load(tmp_path).splits.items()} == {
        "train": 30, "validation": 6, "test": 3
    }  # fmt: skip
    with pytest.raises(UsageError, match="data.validation is for data without"):
        load(tmp_path, validation=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text to train on"),
        (b" \n \n", "no text to train on"),
        (b"x", "nothing to train on"),
        (b"\x00\x01\x02", "zero bytes"),
        (b"fine\n\xff\xfe", "line 2 is not UTF-8"),
        (None, "no such file"),
    ],
)
def test_what_is_no_text_gets_one_clear_line(tmp_path, content, message):
    file = tmp_path / "x.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        _ = load(file).splits
    with pytest.raises(DataError, match="no whole gzip file"):
        (tmp_path / "y.txt.gz").write_bytes(gzip.compress(b"abc" * 1000)[:30])
        load(tmp_path / "y.txt.gz")


def test_one_line_works(tmp_path):
    file = tmp_path / "one"
    file.write_text("to be or not")
    splits = load(file).splits
    assert {name: len(split.ids) for name, split in splits.items()} == {"train": 11}


def test_a_text_that_is_larger_than_the_memory_is_told_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "memory", lambda: 12 * 2**20)
    (tmp_path / "x.txt").write_bytes(b"a" * (2**20 + 1))
    with pytest.raises(DataError, match="too large for the memory"):
        load(tmp_path / "x.txt")
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"a" * 2**26))
    with pytest.raises(DataError, match="too large for the memory"):
        load(tmp_path / "bomb.txt.gz")
    assert runtime.memory() != 12 * 2**20


def test_a_missing_text_is_missed_and_other_data_are_no_text():
    with pytest.raises(DataError, match=r"no such file: nothing\.txt"):
        load("nothing.txt")
    with pytest.raises(UsageError, match="digits has no running text"):
        load("digits")
