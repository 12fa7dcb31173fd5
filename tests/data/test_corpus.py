import gzip
import random
import tracemalloc
from importlib import resources

import numpy as np
import pytest

from dlkit import data
from dlkit.data import corpus, text_files, tokenizer
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
    words = found.tokenizer.encode("I like machine learning")
    for step, padding in ((1, []), (8, [0, 0, 0])):
        inputs, targets = found.splits["train"].batch(np.array([1]), step=step)
        np.testing.assert_array_equal(inputs, [[START, *words, *padding]])
        np.testing.assert_array_equal(targets, [[*words, END, *padding]])


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
    assert found.splits["train"].characters == 5 * len("a b\n")


def test_some_of_the_lines_have_the_characters_that_they_have(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("a\nbbb\nab ab ab ab\n")
    lines = load(file, tokenizer="word", units="lines", validation=0).splits["train"]
    assert [lines.limited(count).characters for count in (1, 2, 3, 9)] == [2, 6, 18, 18]
    assert [lines.limited(count).predicted for count in (1, 2, 3)] == [2, 4, 9]
    assert lines.no_longer(2).tolist() == [0, 1]


@pytest.mark.parametrize("content", ["", "x", "\n"])
@pytest.mark.parametrize("units", ["text", "lines"])
def test_a_text_without_anything_to_predict_is_none_to_test_on(tmp_path, content, units):
    file = tmp_path / "x.txt"
    file.write_text(content)
    found = load(file, units=units, test="all").with_tokenizer(tokenizer.CharacterTokenizer("ab"))
    if content == "x" and units == "lines":
        assert found.splits["test"].predicted == 2
        return
    with pytest.raises(DataError, match=r"x\.txt has no text to test on"):
        _ = found.splits


@pytest.mark.parametrize("content", ["", "\n", " \n", "\n\n \t\n"])
@pytest.mark.parametrize("units", ["text", "lines"])
def test_a_text_without_a_word_is_none(tmp_path, content, units):
    """Neither to test on, nor to validate on, nor to train on with the tokenizer of another run."""
    (tmp_path / "train.txt").write_text("a b\n" * 3)
    (tmp_path / "val.txt").write_text(content)
    words = tokenizer.WordTokenizer(["a", "b"])
    how = {"units": units, "tokenizer": "word"}
    with pytest.raises(DataError, match=r"val\.txt has no text to test on"):
        _ = load(tmp_path / "val.txt", test="all", **how).with_tokenizer(words).splits
    found = load(tmp_path, **how)
    assert set(found.splits) == {"train"}
    assert found.remarks() == ["no validation split: nothing would be predicted in it"]
    for own, options in ((words, how), (tokenizer.CharacterTokenizer("ab \n\t"), {"units": units})):
        with pytest.raises(DataError, match=r"val\.txt has no text to train on"):
            _ = load(tmp_path / "val.txt", validation=0, **options).with_tokenizer(own).splits


def test_an_empty_text_has_no_line():
    assert list(corpus.text_lines(["a\n\nb", "", "\n", "c\n\n"])) == ["a", "", "b", "", "c", ""]


def test_lines_are_the_same_in_whatever_parts_they_are_made(tmp_path, monkeypatch):
    draw = random.Random(0)
    whole = "".join(draw.choices("ab \n", k=400))
    file = tmp_path / "x.txt"
    file.write_text(whole)

    def read():
        stream, lines = (
            load(file, tokenizer="word", units=units, validation=0).splits["train"] for units in ("text", "lines")
        )
        return stream.ids, stream.characters, lines.rows.flat, lines.rows.lengths, lines.of_each

    at_once = read()
    monkeypatch.setattr(text_files, "CHARACTERS_AT_ONCE", 3)
    monkeypatch.setattr(text_files, "LINES_AT_ONCE", 4)
    assert list(corpus.text_lines([whole])) == whole.removesuffix("\n").split("\n")
    for one, other in zip(at_once, read(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("kind", "content", "options"),
    [
        ("corpus", "\N{GRINNING FACE}" + "a b " * 40_000, {}),  # makes four bytes of each character
        ("corpus", "ab cd\n" * 20_000, {"tokenizer": "word"}),
        ("corpus", "ab cd\n" * 20_000, {"tokenizer": "word", "units": "lines"}),
        ("tagged_texts", "the\tDT\ncat\tNN\nsleeps\tVB\nhere\tRB\n.\tSTOP\n\n" * 2000, {}),
        ("labelled_texts", "".join(f"{'neg' if n % 3 else 'pos'}\ta text, number {n}\n" for n in range(4000)), {}),
        (
            "labelled_texts",
            "".join(f"{'neg' if n % 3 else 'pos'}\t{n:09}\n" for n in range(4000)),
            {"tokenizer": "char"},
        ),
    ],
    ids=["wide", "words", "lines", "tags", "classes", "letters of classes"],
)
def test_a_text_takes_no_more_memory_than_is_counted_on(tmp_path, monkeypatch, kind, content, options):
    monkeypatch.setattr(text_files, "CHARACTERS_AT_ONCE", 1000)
    monkeypatch.setattr(text_files, "LINES_AT_ONCE", 200)
    monkeypatch.setattr(text_files, "CHUNK", 1000)
    file = tmp_path / "x.tsv" if kind == "labelled_texts" else tmp_path / "x.txt"
    file.write_text(content, encoding="utf-8")
    _ = data.load_kind(str(file), kind, **options).splits  # so that all modules are there
    tracemalloc.start()
    try:
        _ = data.load_kind(str(file), kind, **options).splits
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < text_files.BYTES_EACH * file.stat().st_size


@pytest.mark.parametrize(
    "options", [{"units": "lines"}, {"tokenizer": "word"}, {"tokenizer": "word", "units": "lines"}]
)
def test_no_line_is_divided(tmp_path, options):
    lines = [f"{'word ' * (n * 5 % 7)}{n}" for n in range(50)]
    file = tmp_path / "x.txt"
    file.write_text("\n".join(lines) + "\n")
    size, longest = file.stat().st_size, max(map(len, lines)) + 1
    found = load(file, validation=0.13, test=0.21, **options)
    parts = [found.texts[role][0] for role in ("train", "validation", "test")]
    assert "".join(parts) == file.read_text()
    assert all(part.endswith("\n") for part in parts)
    assert abs(len(parts[1]) - 0.13 * size) < longest
    assert abs(len(parts[2]) - 0.21 * size) < longest
    if "tokenizer" not in options:
        rows = [row for split in found.splits.values() for row in split.rows]
        assert [found.tokenizer.decode(row) for row in rows] == lines


@pytest.mark.parametrize(
    ("content", "share", "options", "held"),
    [
        ("to be or not to be that is", 0.3, {"tokenizer": "word"}, "that is"),
        ("to be or not to be that is", 0.3, {"units": "lines"}, ""),  # which would be no line
        ("ab cd ef\n" * 10, 0.04, {"tokenizer": "word"}, "ab cd ef\n"),  # nearer is the end, where nothing would be
        ("ab cd ef\n" * 10, 0.04, {"units": "lines"}, ""),
        ("ab cd ef\n" * 10, 0.06, {"units": "lines"}, "ab cd ef\n"),
        ("word " * 10_000 + "\n", 0.1, {"tokenizer": "word"}, "word " * 1000 + "\n"),
        ("word " * 4_000 + "\n" + "w " * 30, 0.1, {"tokenizer": "word"}, "word " * 389 + "\n" + "w " * 30),
        ("a" * 18, 0.1, {"tokenizer": "word"}, ""),
        ("\u5b57" * 300, 0.1, {"tokenizer": "bpe"}, "\u5b57" * 30),
        ("to be or not to be that is", 0.3, {}, " that is"),
        ("ab cd ef\n" * 10, 0, {"tokenizer": "word"}, None),
    ],
    ids=map(str, range(11)),
)
def test_where_a_text_is_divided(tmp_path, content, share, options, held):
    file = tmp_path / "x.txt"
    file.write_text(content, encoding="utf-8")
    texts = load(file, validation=share, **options).texts
    assert texts.get("validation") == (None if held is None else [held])
    assert texts["train"][0] + (held or "") == content


def test_shakespeare_is_divided_at_a_line_end_for_words():
    texts, usual = (load("shakespeare", **how).texts for how in ({"tokenizer": "word"}, {}))
    whole = [of["train"][0] + of["validation"][0] for of in (texts, usual)]
    assert whole[0] == whole[1]
    assert texts["train"][0].endswith("\n")
    assert abs(len(texts["train"][0]) - 1_003_854) < 40
    assert not usual["train"][0].endswith("\n")


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


def test_a_folder_with_a_test_text_alone_is_for_tests(tmp_path):
    (tmp_path / "test.txt").write_text("cab")
    found = load(tmp_path)
    assert found.texts == {"test": ["cab"]}
    with pytest.raises(UsageError, match="has nothing to train on: it has only test"):
        _ = found.tokenizer
    with pytest.raises(UsageError, match=r"has no train.txt that data.validation could be held out of"):
        load(tmp_path, validation=0.1)
    (tmp_path / "test.txt").unlink()
    with pytest.raises(DataError, match=r"has no train\.txt"):
        load(tmp_path)


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


def test_a_gzip_file_that_is_cut_short_is_told(tmp_path):
    (tmp_path / "y.txt.gz").write_bytes(gzip.compress(b"abc" * 1000)[:30])
    with pytest.raises(DataError, match="no whole gzip file"):
        load(tmp_path / "y.txt.gz")


def test_one_line_works(tmp_path):
    file = tmp_path / "one"
    file.write_text("to be or not")
    splits = load(file).splits
    assert {name: len(split.ids) for name, split in splits.items()} == {"train": 11}


def test_a_text_that_is_larger_than_the_memory_is_told_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "memory", lambda: text_files.BYTES_EACH * 2**20)
    fits = tmp_path / "fits.txt"
    fits.write_bytes(b"a" * 2**20)
    assert len(corpus.read(fits)) == 2**20
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"a" * 2**26))
    unpacked = []

    def counted(file, size):
        unpacked.append(size)
        return read(file, size)

    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(DataError, match="too large for the memory"):
        load(tmp_path / "bomb.txt.gz")
    assert unpacked == [2**20 + 1]
    monkeypatch.setattr(text_files, "_within", None)
    (tmp_path / "x.txt").write_bytes(b"a" * (2**20 + 1))
    with pytest.raises(DataError, match="too large for the memory"):
        load(tmp_path / "x.txt")


def test_a_missing_text_is_missed_and_other_data_are_no_text():
    with pytest.raises(DataError, match=r"no such file: nothing\.txt"):
        load("nothing.txt")
    with pytest.raises(UsageError, match="digits has no running text"):
        load("digits")
