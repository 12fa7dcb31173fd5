import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlkit.data import tokenizer
from dlkit.data.tokenizer import WordTokenizer
from dlkit.errors import DataError

FRENCH = WordTokenizer(["je", "pense", "donc", "suis"])


def test_the_special_ids_come_first():
    assert (tokenizer.PAD, tokenizer.START, tokenizer.END, tokenizer.UNKNOWN) == (0, 1, 2, 3)
    assert FRENCH.size == 8
    assert FRENCH.decode([0, 1, 3, 4]) == "<unk> je"


def test_encodes_words_and_marks_unknown_ones():
    assert FRENCH.encode("  je\tpense,  donc\nje suis ") == [4, 3, 6, 4, 7]
    assert FRENCH.encode("") == []


def test_text_cannot_bring_in_special_tokens():
    assert FRENCH.encode("je </s> <pad> <s> <unk>") == [4, 3, 3, 3, 3]


def test_decoding_stops_at_the_end_token():
    assert FRENCH.decode([1, 4, 5, 2, 6, 7]) == "je pense"
    assert FRENCH.decode([2, 4]) == ""
    assert FRENCH.decode([4, 5, 0, 0]) == "je pense"


@given(st.lists(st.sampled_from(FRENCH.words)).map(" ".join))
def test_what_it_encodes_it_decodes(text):
    assert FRENCH.decode(FRENCH.encode(text)) == text


def test_a_saved_tokenizer_reads_the_same(tmp_path):
    original = WordTokenizer(["ça", "l'été", '"', "\\", "語"])
    original.save(tmp_path / "tokenizer.json")
    loaded = tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.words == original.words
    assert loaded.encode("語 ça") == [8, 4]


@pytest.mark.parametrize("words", [["a", "b", "a"], ["</s>"], ["a b"], [""], ["a\n"]])
def test_what_is_no_vocabulary_is_refused(words):
    with pytest.raises(DataError, match="no vocabulary"):
        WordTokenizer(words)


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"kind": "words", "words": ["a"',
        "[]",
        json.dumps({"kind": "words"}),
        json.dumps({"kind": "words", "words": "abc"}),
        json.dumps({"kind": "words", "words": ["a", 1]}),
        json.dumps({"kind": "pictures", "words": ["a"]}),
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_a_data_error(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match="is not a tokenizer"):
        tokenizer.load(path)


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot read the tokenizer .*: No such file"):
        tokenizer.load(tmp_path / "tokenizer.json")
