"""Spaces against the recipe, before the first trial."""

import pytest

from dlkit import recipe, workers
from dlkit.errors import UsageError
from dlkit.train.search.keys import check, read
from dlkit.train.search.space import parse


def checked(*operands, sets=()):
    def resolve(values):
        texts = [*sets, *(f"{key}={value}" for key, value in values.items())]
        return recipe.resolve("lenet", overrides=[(*recipe.parse_override(text), "set") for text in texts])

    return check(parse(operands), resolve)


def test_the_base_has_none_of_the_searched_values():
    base = checked("train.lr=log:1e-4..1e-1", "train.batch_size={32,64}", sets=["train.epochs=3"])
    assert (base.train.lr, base.train.batch_size, base.train.epochs) == (
        *(getattr(recipe.resolve("lenet").train, key) for key in ("lr", "batch_size")), 3,
    )  # fmt: skip


def test_a_key_that_only_some_of_the_searched_choices_read():
    checked("train.optimizer={sgd,adam}", "train.momentum=0.5..0.99")
    assert read({"train.optimizer": "sgd", "train.momentum": 0.9}) == {"train.optimizer": "sgd", "train.momentum": 0.9}
    assert read({"train.optimizer": "adam", "train.momentum": 0.9}) == {"train.optimizer": "adam"}
    assert read({"train.momentum": 0.9}) == {"train.momentum": 0.9}  # the recipe's optimizer has been checked
    with pytest.raises(UsageError, match="is for the optimizer sgd"):
        checked("train.optimizer={adam,adamw}", "train.momentum=0.5..0.99")


@pytest.mark.parametrize(
    ("operand", "message", "hint"),
    [
        ("train.lrr=0.1..1", "unknown key: train.lrr", "did you mean `train.lr`"),
        ("train.lr=0..1", "train.lr must be a number above 0, not 0.0", "every value of train.lr=0..1"),
        ("train.batch_size=8..64", "train.batch_size must be an integer", "`train.batch_size=int:8..64` draws"),
        ("train.optimizer={sgd,adan}", "train.optimizer must be one of", "every value of"),
        ("train.monitor={loss,accuracy}", "train.monitor cannot be searched", "leave it out"),
        ("data.name={digits,cifar10}", "data.name cannot be searched", "leave it out"),
        ("train.momentum=0..0.9", "train.momentum is for the optimizer sgd", "--set train.optimizer=sgd"),
    ],
)
def test_mistakes(operand, message, hint):
    with pytest.raises(UsageError) as caught:
        checked(operand)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_what_is_searched_is_not_set():
    with pytest.raises(UsageError, match=r"train.lr is searched, and set besides"):
        checked("train.lr=0.1..1", sets=["train.lr=0.1"])


def test_options_of_the_model_are_guessed(monkeypatch):
    """To know them takes TensorFlow, so another process is asked; here a program that says it at once."""
    import sys

    listed = '[{"key": "model.name"}, {"key": "model.dropout"}]'
    monkeypatch.setattr(workers, "command", lambda arguments: [sys.executable, "-c", f"print({listed!r})"])
    checked("model.dropout=0..0.5")
    with pytest.raises(UsageError, match=r"unknown key: model.dropuot") as caught:
        checked("model.dropuot=0..0.5")
    assert "did you mean `model.dropout`" in caught.value.hint
