"""Labelled texts from files: every layout, every part of them, and what is said of files that are no such texts."""

import gzip

import numpy as np
import pytest

from dlkit import data, recipe_keys
from dlkit.data.labelled_texts import Labelled, LabelledTexts, TextPreparation, duplicates, is_undivided, stratified
from dlkit.data.tokenizer import UNKNOWN, WordTokenizer
from dlkit.errors import DataError, UsageError

LINES = [f"{'pos' if number % 3 else 'neg'}\tthe film number {number}" for number in range(60)]


def load(name, **options):
    return data.load_kind(str(name), "labelled_texts", **options)


def everything(loaded):
    """(class, text) of all splits together, in any order."""
    pairs = [
        (loaded.classes[label], text)
        for split in loaded.texts.values()
        for text, label in zip(split.texts, split.labels, strict=True)
    ]
    return sorted(pairs)


EXPECTED = sorted(tuple(line.split("\t")) for line in LINES)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "reviews.tsv"
    path.write_text("\n".join(LINES) + "\n")
    return path


# ------------------------------------------------------------------------------------------------------------- layouts


def test_a_table_of_two_columns_is_divided_class_by_class(table):
    loaded = load(table)
    assert {split: len(each) for split, each in loaded.texts.items()} == {"train": 49, "validation": 5, "test": 6}
    assert everything(loaded) == EXPECTED
    assert loaded.classes == ["neg", "pos"]
    assert loaded.texts["test"].labels.mean() == pytest.approx(2 / 3, abs=0.01)


def test_a_heading_names_the_columns(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("id\tSentence\tLabel\n" + "".join(f"7\t{text}\t{label}\n" for label, text in EXPECTED))
    assert everything(load(path)) == EXPECTED
    path.write_text("id\tbody\tstars\n" + "".join(f"7\t{text}\t{label}\n" for label, text in EXPECTED))
    assert everything(load(path, label_column="stars", text_column="body")) == EXPECTED
    with pytest.raises(DataError, match=r"line 1 has 3 columns, not 2"):
        load(path)
    with pytest.raises(DataError, match=r"has no column star: its first line is"):
        load(path, label_column="star", text_column="body")


@pytest.mark.parametrize("names", [("a.neg", "a.pos"), ("neg.txt", "pos.txt"), ("rt-x.neg.gz", "rt-x.pos.gz")])
def test_a_folder_has_a_file_for_each_class(tmp_path, names):
    for name in names:
        label = "neg" if "neg" in name else "pos"
        text = "".join(f"{text}\n" for its, text in EXPECTED if its == label).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (tmp_path / "README.md").write_text("about")
    loaded = load(tmp_path)
    assert everything(loaded) == EXPECTED
    assert loaded.notes == ("left out README.md: the classes are neg, pos",)


def test_a_folder_has_a_table_for_each_split(tmp_path):
    for name, part in {"train": LINES[:40], "dev": LINES[40:50], "test": LINES[50:]}.items():
        (tmp_path / f"{name}.tsv").write_text("label\ttext\n" + "\n".join(part))
    loaded = load(tmp_path)
    assert [len(loaded.texts[split]) for split in ("train", "validation", "test")] == [40, 10, 10]
    assert list(loaded.texts["test"].texts) == [line.split("\t")[1] for line in LINES[50:]]
    with pytest.raises(UsageError, match=r"data.test is for data without such a split"):
        load(tmp_path, test=5)
    with pytest.raises(UsageError, match=r"data.folds is for data without splits, not train, validation, test"):
        load(tmp_path, folds=3)


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    (tmp_path / "x.tsv").write_text("".join(f"{number}\ttext of {number}\n" for number in [10, 9, 1] * 4))
    assert load(tmp_path / "x.tsv", min_count=1).classes == ["1", "9", "10"]


def test_what_has_no_splits_is_tested_on_as_a_whole(table, tmp_path):
    assert is_undivided(str(table))
    assert not is_undivided(str(tmp_path / "nothing"))
    assert {split: len(each) for split, each in load(table, test="all").texts.items()} == {"test": 60}


# --------------------------------------------------------------------------------------------------------------- folds


def test_folds_are_disjoint_and_cover_everything(table):
    tests, sizes = [], set()
    for fold in range(4):
        loaded = load(table, folds=4, fold=fold)
        assert everything(loaded) == EXPECTED, "no text is lost, none is twice"
        tests += loaded.texts["test"].texts
        sizes.add(len(loaded.texts["test"]))
        assert len(loaded.texts["validation"]) == round(0.1 * 45)
    assert sizes == {15}
    assert sorted(tests) == sorted(text for _, text in EXPECTED)


def test_the_seed_chooses_the_folds_and_nothing_else_does(table):
    once, again, other = (load(table, folds=4, fold=1, seed=seed).texts["test"].texts for seed in (0, 0, 1))
    assert once == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 4, "fold": 4}, "data.fold is 4, and of 4 folds the last is 3"),
        ({"fold": 2}, "data.fold is for data.folds"),
        ({"folds": 4, "test": 5}, "exclude each other"),
        ({"folds": 61}, "60 texts do not make 61 folds"),
        ({"validation": 60}, "leave nothing"),
        ({"validation": 0.5, "test": 60}, "60 texts for test leave nothing of 60 to train on"),
    ],
)
def test_parts_that_cannot_be(table, options, message):
    with pytest.raises(UsageError, match=message):
        load(table, **options)


def test_a_stratified_deal_differs_by_one_at_most_in_any_class():
    labels = np.array([0] * 17 + [1] * 5 + [2] * 30, np.int32)
    part = stratified(labels, 4, seed=3)
    for label in range(3):
        counts = np.bincount(part[labels == label], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(part)) <= 1


def test_duplicates_across_splits_are_counted_and_told():
    train = Labelled(["a b", "c", "c"], np.array([0, 1, 0], np.int32))
    test = Labelled(["A  b", "d"], np.array([0, 0], np.int32))
    assert duplicates({"train": train, "test": test}) == [
        "1 of 2 test texts are training texts, too", "1 training texts have several labels",
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------- ids


def test_the_tokenizer_knows_the_training_words_alone():
    texts = {
        "train": Labelled(["Good film", "bad film", "good good"], np.array([1, 0, 1], np.int32)),
        "test": Labelled(["good music", ""], np.array([1, 0], np.int32)),
    }
    loaded = LabelledTexts("x", ["neg", "pos"], texts, TextPreparation(min_count=1, max_length=1))
    assert loaded.tokenizer.words == ("good", "film", "bad")
    assert [row.tolist() for row in loaded.splits["test"].ids] == [[4], []]
    assert loaded.splits["test"].lengths.tolist() == [1, 0]
    assert loaded.remarks()[0] == "3 of 3 train texts have more than 1 tokens: the rest of them is not read"
    whole = LabelledTexts("x", ["neg", "pos"], texts, TextPreparation(min_count=1))
    assert whole.splits["test"].ids[0].tolist() == [4, UNKNOWN]
    assert whole.remarks() == ["unknown: 50.00% of test tokens"]


def test_its_options_are_described_as_what_they_do_to_texts():
    """Pairs that are too long are dropped, texts are cut; what all tokenizers have is described once, for both."""
    texts = recipe_keys.arguments_in(data.builder("reviews.tsv", kind="labelled_texts"))
    assert texts["max_length"].startswith("tokens of a text that are read; what comes after them is not")
    assert texts["validation"].startswith("size of the validation part where there is none")
    pairs = recipe_keys.arguments_in(data.builder("tatoeba"))
    assert pairs["max_length"].startswith("drop pairs of which a side has more tokens")
    assert texts["min_count"] == pairs["min_count"]


def test_a_run_counts_the_classes_of_other_data_as_its_own():
    texts = {"test": Labelled(["a", "b"], np.array([0, 1], np.int32))}
    loaded = LabelledTexts("x", ["ham", "spam"], texts)
    trained = loaded.as_trained(["spam", "eggs", "ham"], WordTokenizer(["a"]), 5)
    assert trained.splits["test"].labels.tolist() == [2, 0]
    with pytest.raises(UsageError, match="x has a class that the run was not trained on: ham"):
        loaded.as_trained(["spam", "eggs"], WordTokenizer(["a"]), 5)


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"label\ttext\n", "has no texts: it is empty"),
        (b"pos\tgood\nneg bad\n", "line 2 has 1 column, not 2"),
        (b"pos\tgood\nneg\tbad\tworse\n", "line 2 has 3 columns, not 2"),
        (b"pos\tgood\n\tbad\n", "line 2 has no label"),
        (b"pos\tgood\npos\tbetter\n", "has one class, pos: there is nothing to tell apart"),
        (b"pos\tgood\nneg\tna\xefve\n", "line 2 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is no text: it has zero bytes"),
        (b"\0\1\2", "is no text: it has zero bytes"),
    ],
)
def test_odd_tables(tmp_path, content, message):
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as failure:
        load(path)
    assert failure.value.code == 3


def test_of_a_text_in_latin_1_the_command_is_told_that_converts_it(tmp_path):
    (tmp_path / "x.neg").write_bytes(b"na\xefve\n")
    (tmp_path / "x.pos").write_bytes(b"good\n")
    with pytest.raises(DataError) as failure:
        load(tmp_path)
    assert "iconv -f latin1 -t utf-8 x.neg > new.x.neg" in failure.value.hint


def test_a_file_with_zero_bytes_is_no_text(tmp_path):
    (tmp_path / "x.neg").write_bytes(b"a bad film\n")
    (tmp_path / "x.pos").write_bytes("good\n".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"x\.pos is no text: it has zero bytes"):
        load(tmp_path)


def test_empty_lines_of_a_table_are_passed_over_and_told(table):
    table.write_text(table.read_text() + "\n\n")
    assert load(table).notes == ("passed over 2 empty lines of reviews.tsv",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no labelled texts"),
        (["a.txt"], "has no labelled texts"),
        (["a.neg", "a.pos", "b.neg", "b.pos"], "under several names: a and b"),
        (["a.neg", "a.pos", "a.pos.gz"], "has the class pos twice"),
        (["test.tsv"], "has test.tsv and no train.tsv"),
        (["train.tsv", "training.tsv"], "are the same split"),
    ],
)
def test_odd_folders(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_text("x\ty\n")
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "nothing.tsv")
    with pytest.raises(DataError):
        load("nowhere.tsv")
    with pytest.raises(UsageError, match="digits has no labelled texts"):
        load("digits")


def test_words_that_are_all_rare(table):
    loaded = load(table, min_count=60)
    with pytest.raises(DataError, match="no word of .* occurs 60 times"):
        _ = loaded.splits
