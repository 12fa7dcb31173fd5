"""Names of splits."""

import pytest

from dlkit.data.split_names import own_names, split_of, uncovered


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("train Train TRAINING training_set train-set", "train"),
        ("val valid validation dev devel Val_Set", "validation"),
        ("test testing Test_set", "test"),
        ("cat set _set trains evaluation extra", None),
    ],
)
def test_what_a_name_means(names, split):
    assert [split_of(name) for name in names.split()] == [split] * len(names.split())


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train", "test"], {"train": "train", "test": "test"}),
        (["train", "dev", "eval"], {"train": "train", "validation": "dev", "test": "eval"}),
        (["train", "validation", "val"], {"train": "train", "validation": "validation", "val": "val"}),
        (["test", "eval", "extra"], {"test": "test", "eval": "eval", "extra": "extra"}),
    ],
)
def test_splits_of_a_prepared_set(splits, expected):
    assert own_names(splits) == expected


def test_classes_that_a_split_lacks():
    """`d` is in no split, and nobody can learn what is only tested on, `c`."""
    classes, there = set("abcd"), {"train": {"a", "b"}, "validation": {"a"}, "test": {"b", "c"}}
    assert uncovered(there, classes) == {"train": {"c", "d"}, "validation": {"b"}, "test": {"a"}}
    assert uncovered({"test": {"a"}}, classes) == {"test": set()}, "without a training split nothing is learned"
