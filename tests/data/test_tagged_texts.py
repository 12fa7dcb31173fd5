"""Tagged texts from files of two columns, and generated texts whose answer is known."""

import numpy as np
import pytest

from dlkit import data
from dlkit.data.tagged_texts import Tagged, TaggedTexts, encode_words, is_undivided
from dlkit.data.tokenizer import UNKNOWN, WordTokenizer
from dlkit.errors import DataError, UsageError

SENTENCE = "the\tDT\ncat\tNN\nsleeps\tVB\n"


def load(name, **options):
    return data.load_kind(str(name), "tagged_texts", **options)


def test_an_empty_line_ends_a_sentence(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text("-DOCSTART- O\n\n" + (SENTENCE + "\n\n") * 9 + "a DT\ndog NN\n")
    loaded = load(path, min_count=1)
    assert loaded.tags == ["DT", "NN", "VB"]
    assert {split: len(each) for split, each in loaded.texts.items()} == {"train": 8, "validation": 1, "test": 1}
    words = [list(words) for split in loaded.texts.values() for words in split.words]
    assert words.count(["the", "cat", "sleeps"]) == 9
    assert words.count(["a", "dog"]) == 1
    at = next(row for row in range(8) if len(loaded.texts["train"].words[row]) == 3)
    assert loaded.splits["train"].tags[at].tolist() == [0, 1, 2]


def test_a_folder_has_splits_and_a_column_can_be_chosen(tmp_path):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.txt").write_text("He PRP B-NP\nsaid VBD B-VP\n\n" * 3)
    assert load(tmp_path, tag_column=3).tags == ["B-NP", "B-VP"]
    assert [len(each) for each in load(tmp_path, tag_column=2).texts.values()] == [3, 3, 3]
    assert not is_undivided(str(tmp_path))
    with pytest.raises(DataError, match="line 1 has 3 columns, not 2") as failure:
        load(tmp_path)
    assert "data.tag_column=3" in failure.value.hint


def test_every_word_has_one_id_whatever_white_space_is_in_it():
    known = WordTokenizer(["a", "b"])
    assert encode_words(["a", "a\u00a0b", "\u00a0", "c", "b"], known) == [4, UNKNOWN, UNKNOWN, UNKNOWN, 5]


def test_long_sentences_are_cut_and_told():
    texts = {"train": Tagged([["a", "b", "a"], ["b"]], [[0, 1, 0], [1]])}
    loaded = TaggedTexts("x", ["A", "B"], texts, WordTokenizer(["a", "b"]), max_length=2)
    assert loaded.splits["train"].lengths.tolist() == [2, 1]
    assert loaded.splits["train"].tags.lengths.tolist() == [2, 1]
    assert "1 of 2 train sentences have more than 2 words" in loaded.remarks()[0]


def test_other_data_counts_the_tags_of_the_run():
    loaded = TaggedTexts("x", ["B", "C"], {"test": Tagged([["b", "c"]], [[0, 1]])})
    trained = loaded.as_trained(["C", "A", "B"], WordTokenizer(["b"]), 9)
    assert trained.splits["test"].tags[0].tolist() == [2, 0]
    with pytest.raises(UsageError, match="has a tag that the run was not trained on: C"):
        loaded.as_trained(["A", "B"], WordTokenizer(["b"]), 9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no sentences: it is empty"),
        ("\n\n\n", "has no sentences: it is empty"),
        ("the\tDT\ncat\n", "line 2 has 1 column, not 2"),
        ("the\tDT\n\tNN\n", "line 2 has no word or no tag"),
    ],
)
def test_odd_files(tmp_path, content, message):
    path = tmp_path / "x.conll"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load(path)


def test_what_is_not_there_and_what_is_too_much(tmp_path):
    with pytest.raises(DataError):
        load(tmp_path / "x.conll")
    with pytest.raises(DataError, match="has no tagged sentences to train on"):
        load(tmp_path)
    (tmp_path / "x.tsv").write_text(SENTENCE)
    with pytest.raises(UsageError, match="leave nothing of 1 to train on"):
        load(tmp_path / "x.tsv", validation=1)


def test_a_seed_is_refused_where_it_would_change_nothing(tmp_path):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.conll").write_text(SENTENCE)
    assert list(load(tmp_path).texts) == ["train", "validation", "test"]
    with pytest.raises(UsageError, match="data.seed changes nothing: the data have the splits"):
        load(tmp_path, seed=1)


# ----------------------------------------------------------------------------------------------------------- generated


def test_the_class_of_a_generated_text_is_which_of_x_and_y_comes_first():
    loaded = data.load_kind("synthetic:order", "labelled_texts", train=400, validation=50, test=50)
    seen = []
    for split in loaded.texts.values():
        for text, label in zip(split.texts, split.labels, strict=True):
            words = text.split()
            assert (words.count("x"), words.count("y")) == (1, 1)
            assert loaded.classes[label] == ("x first" if words.index("x") < words.index("y") else "y first")
            assert 2 <= len(words) <= 12
        seen += split.texts
    assert len(set(seen)) == 500
    assert 0.4 < loaded.texts["train"].labels.mean() < 0.6


def test_the_tag_of_a_generated_word_is_the_marker_that_comes_next():
    loaded = data.load_kind("synthetic:next_marker", "tagged_texts", train=100, validation=20, test=20)
    ambiguous = []
    for split in loaded.texts.values():
        for words, tags in zip(split.words, split.tags, strict=True):
            for at, tag in enumerate(tags):
                following = next(word for word in words[at:] if word in {"x", "y"})
                assert loaded.tags[tag] == f"next {following}"
                if words[at] not in {"x", "y"}:
                    ambiguous.append(tag)
    assert 0.35 < np.mean(ambiguous) < 0.65, "no guess is better than another"


def test_there_are_only_so_many_generated_texts():
    with pytest.raises(UsageError, match="synthetic:order found 2 different texts"):
        data.load_kind("synthetic:order", "labelled_texts", length=2, train=5, validation=5, test=5)
