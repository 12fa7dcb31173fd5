"""Texts that would spoil a training or a test are found: each kind by hand, and nothing else."""

import numpy as np
import pytest

from dlkit.data.captions import CaptionData
from dlkit.data.check_texts import check_texts
from dlkit.data.corpus import CorpusData
from dlkit.data.labelled_texts import Labelled, LabelledTexts
from dlkit.data.pairs import PairData, Texts
from dlkit.data.tagged_texts import Tagged, TaggedTexts
from dlkit.errors import UsageError


def labelled(**splits):
    """A dataset of two classes; of each split its (class, text)."""
    texts = {
        split: Labelled([text for _, text in rows], np.array([label for label, _ in rows], np.int32))
        for split, rows in splits.items()
    }
    return LabelledTexts("reviews", ["bad", "good"], texts)


def test_good_texts():
    report = check_texts(labelled(train=[(0, "dull"), (1, "fine")], test=[(0, "dull thing"), (1, "fine thing")]))
    assert not report.is_bad
    assert not report.findings
    assert report.verdict == "reviews: none of 4 texts is in several splits or has several labels"
    assert report.counts == {"bad": {"train": 1, "test": 1}, "good": {"train": 1, "test": 1}}


def test_texts_of_another_split_are_counted_whatever_their_case_and_spaces():
    report = check_texts(
        labelled(
            train=[(0, "so dull"), (1, "fine")], validation=[(1, "new")], test=[(0, "So  DULL"), (1, "fine"), (1, "x")]
        )
    )
    (finding,) = (each for each in report.findings if each.kind == "in several splits")
    assert (finding.where, finding.what) == ("test 0", "is also train 0: So  DULL; 1 more are so")
    assert report.bad == {"in several splits": 2}
    assert report.verdict == "reviews: 2 texts are in training and in another split"


def test_a_text_with_two_labels():
    report = check_texts(labelled(train=[(0, "odd"), (1, "fine"), (1, "ODD"), (0, "odd")]))
    (finding,) = report.findings
    assert finding == ("several labels", "train 0", "is labelled bad, and good as train 2: odd")
    assert report.is_bad


def test_classes_without_texts():
    report = check_texts(labelled(train=[(0, "a b"), (1, "c d")], test=[(0, "e")]))
    assert report.findings == [("not measured", "good", "has no test texts")]
    assert not report.is_bad


@pytest.mark.parametrize(
    ("text", "kind"),
    [("", "no words"), ("  ", "no words"), ("a\x00b", "control characters"), ("na\ufffdve", "wrong encoding")],
)
def test_odd_texts(text, kind):
    report = check_texts(labelled(train=[(0, "plain"), (1, text), (1, "fine")]))
    assert [(each.kind, each.where) for each in report.findings] == [(kind, "train 1")]
    assert not report.is_bad


@pytest.mark.parametrize(
    ("pair", "kinds"),
    [
        (("ein Hund", "a dog"), []),
        (("Berlin", "berlin"), ["same sides"]),
        (("", "a dog"), ["no words"]),
        (("a b c d e f g h", "x y"), []),  # four times the words
        (("a b c d e f g h i", "x y"), ["uneven"]),
        (("a b c d e", "x"), []),  # too few words to say so
    ],
)
def test_odd_pairs(pair, kinds):
    report = check_texts(PairData("pairs", {"train": Texts([pair[0]], [pair[1]])}))
    assert [each.kind for each in report.findings] == kinds


def test_a_source_with_two_translations_is_no_contradiction_and_the_same_pair_is_shared():
    splits = {"train": Texts(["hallo", "hallo"], ["hi", "hello"]), "test": Texts(["hallo", "hallo"], ["hey", "Hi"])}
    report = check_texts(PairData("pairs", splits))
    assert [(each.kind, each.where) for each in report.findings] == [("in several splits", "test 1")]


def test_a_sentence_with_two_rows_of_tags():
    splits = {"train": Tagged([["time", "flies"], ["time", "flies"]], [[0, 1], [1, 0]])}
    report = check_texts(TaggedTexts("tags", ["N", "V"], splits))
    assert report.findings == [("several labels", "train 0", "is labelled otherwise as train 1: time flies")]


def test_of_running_text_only_the_characters_are_looked_at():
    report = check_texts(CorpusData("plays", {"train": ["Exit\n\nExit\n"], "validation": ["Exit\nna\ufffdve\n"]}))
    assert report.findings == [("wrong encoding", "validation 1", "na\ufffdve")]
    assert report.sizes == {"train": 3, "validation": 2}
    assert not report.is_bad


def test_what_is_no_text_is_refused():
    with pytest.raises(UsageError, match="nothing that can be checked"):
        check_texts(CaptionData("photos", {}))
