"""`dlkit data show` and `dlkit data check` of data that are read, not looked at."""

import json

from PIL import Image

from dlkit import data
from dlkit.data.batching import shuffled


def reviews(folder, *, again=False):
    """Eight texts in two classes and a test split, one of which is a training text."""
    folder.mkdir()
    rows = [f"{label}\t{label} thing {number}" for label in ("dull", "fine") for number in range(4)]
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    (folder / "dev.tsv").write_text("dull\tdull new\nfine\tfine new\n")
    (folder / "test.tsv").write_text("dull\tdull thing\nfine\tfine thing" + (" 3" if again else "") + "\n")


def test_labelled_texts_are_printed_with_their_classes_counted(dlkit, tmp_path):
    reviews(tmp_path / "reviews")
    result = dlkit("data", "show", "reviews", "--count", "2", "--seed", "1")
    assert result.code == 0, result.err
    assert result.err == "data    reviews: 8 train, 2 validation, 2 test texts, 2 classes, 2.7 words each\n"
    header, dull, fine, empty, columns, *rows = result.out.splitlines()
    assert [line.split() for line in (header, dull, fine)] == [
        ["class", "train", "validation", "test"], ["dull", "4", "1", "1"], ["fine", "4", "1", "1"]
    ]  # fmt: skip
    assert (empty, columns.split()) == ("", ["row", "class", "text"])
    expected = [(int(at), "dull" if at < 4 else "fine", at % 4) for at in shuffled(8, seed=1, epoch=0)[:2]]
    assert [row.split() for row in rows] == [[str(at), label, label, "thing", str(of)] for at, label, of in expected]
    assert not list(tmp_path.glob("*.png"))


def test_running_text_is_shown_from_its_beginning(dlkit):
    result = dlkit("data", "show", "shakespeare", "--count", "3", "--json")
    assert result.code == 0, result.err
    shown = json.loads(result.out)["examples"]
    assert [row["text"] for row in shown] == [
        "First Citizen:", "Before we proceed any further, hear me speak.", "All:"
    ]  # fmt: skip
    assert [row["line"] for row in shown] == ["1", "2", "4"], "line 3 is empty"


def test_pairs_and_numbers(dlkit):
    pairs = json.loads(dlkit("data", "show", "synthetic:reverse", "--count", "2", "--json").out)
    for row in pairs["examples"]:
        assert row["target"].split() == row["source"].split()[::-1]
    told = json.loads(
        dlkit("data", "show", "synthetic:copy_delay", "--set", "data.delay=5", "--count", "1", "--json").out
    )["examples"][0]
    assert told["steps"] == "25"  # 10 symbols, 5 steps, 10 symbols
    assert told["to be told"].startswith("15 x blank, ")


def test_captions_are_drawn(dlkit, tmp_path):
    result = dlkit("data", "show", "synthetic:shapes", "--kind", "captions", "--count", "3", "-o", "a.png")
    assert result.code == 0, result.err
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 600
    split = data.load_kind("synthetic:shapes", "captions").splits["train"]
    for at in shuffled(len(split), seed=0, epoch=0)[:3]:
        assert split.captions[at][0] in result.out


def test_options_that_are_not_for_texts(dlkit, tmp_path):
    for options, said in (
        (["-o", "a.png"], "-o is for pictures"),
        (["--augment", "crop"], "--augment is shown on labelled images"),
        (["--split", "dev"], "no split dev"),
        (["--kind", "text"], "kind of data"),
    ):
        result = dlkit("data", "show", "tatoeba", *options)
        assert (result.code, said in result.err) == (2, True), result.err
        assert not result.out
    assert not list(tmp_path.iterdir())


def test_good_texts_are_said_to_be_so(dlkit, tmp_path):
    reviews(tmp_path / "reviews")
    result = dlkit("data", "check", "reviews")
    assert (result.code, result.err) == (0, "reviews: none of 12 texts is in several splits or has several labels\n")


def test_a_test_text_that_is_trained_on_ends_with_3(dlkit, tmp_path):
    reviews(tmp_path / "reviews", again=True)
    result = dlkit("data", "check", "reviews")
    assert result.code == 3
    assert "in several splits  test 1  is also train 7: fine thing 3" in result.out
    assert result.err.splitlines()[0] == "error: reviews: 1 texts are in training and in another split"


def test_what_is_not_checked_is_said(dlkit):
    result = dlkit("data", "check", "synthetic:adding")
    assert (result.code, "sequences of numbers are not checked" in result.err) == (2, True), result.err
