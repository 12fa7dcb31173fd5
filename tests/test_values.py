"""Values are checked by type and converted, and what is wrong is told in words."""

import ast
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Optional

import numpy as np
import pytest
from pydantic import Field

import dlkit
from dlkit.errors import UsageError
from dlkit.values import Count, Positive, Rate, Share, accepted, check_call, defaults_of


def block(
    depth: int,
    input_shape: "tuple[int, int, int]" = (32, 32, 3),
    classes: int = 10,
    *,
    norm: Literal["batch", "layer", "none"] = "batch",
    dropout: float = 0.0,
    input_dropout: float | None = None,
    last_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None,
    widths: tuple[int, ...] = (16, 32),
    names: list[str] | None = None,
    folder: Path | None = None,
    flag: bool = False,
    limit: Optional[int] = None,  # noqa: UP045 (the older spelling must work, too)
    share: Annotated[float, Field(gt=0, le=1)] = 1.0,
    anything=None,
    **rest: int,
) -> None:
    """A function with every kind of annotation that builders have."""


class Net:
    """A class whose __new__ takes anything, as that of a Keras model does."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, units: int, *, bias: bool = True) -> None: ...


def check(function=block, **given):
    return check_call(function, given, where="model")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"norm": "none"}, {"norm": "none"}),
        ({"dropout": 0}, {"dropout": 0.0}),
        ({"input_shape": [1, 2, 3]}, {"input_shape": (1, 2, 3)}),
        ({"widths": [1, 2, 3, 4]}, {"widths": (1, 2, 3, 4)}),
        ({"names": ["a"]}, {"names": ["a"]}),
        ({"folder": "x/y"}, {"folder": Path("x/y")}),
        ({"flag": True}, {"flag": True}),
        ({"limit": "none"}, {"limit": None}),
        ({"limit": None}, {"limit": None}),
        ({"input_dropout": "none"}, {"input_dropout": None}),
        ({"anything": {"a": [1]}}, {"anything": {"a": [1]}}),
    ],
)
def test_what_was_given_comes_back_converted(given, expected):
    checked = check(**given)
    assert checked == expected
    assert {key: type(value) for key, value in checked.items()} == {key: type(value) for key, value in expected.items()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"norm": "grop"}, 'model.norm must be one of batch, layer, none, not "grop"'),
        ({"norm": True}, "model.norm must be one of batch, layer, none, not true"),
        ({"classes": "10"}, 'model.classes must be an integer, not "10"'),
        ({"classes": 1.0}, "model.classes must be an integer, not 1.0"),
        ({"classes": True}, "model.classes must be an integer, not true"),
        ({"dropout": "0.5"}, 'model.dropout must be a number of at least 0 and below 1, not "0.5"'),
        ({"dropout": 1.0}, "model.dropout must be a number of at least 0 and below 1, not 1.0"),
        ({"dropout": float("nan")}, "model.dropout must be a number of at least 0 and below 1, not nan"),
        ({"input_dropout": -0.1}, "model.input_dropout must be a number of at least 0 and below 1 or none, not -0.1"),
        ({"last_dropout": 1}, "model.last_dropout must be a number of at least 0 and below 1 or none, not 1"),
        ({"share": 0}, "model.share must be a number above 0 and up to 1, not 0"),
        ({"flag": 1}, "model.flag must be true or false, not 1"),
        ({"limit": 1.5}, "model.limit must be an integer or none, not 1.5"),
        ({"input_shape": [1, 2]}, "model.input_shape must be a list of 3 integers, not [1, 2]"),
        ({"widths": "16"}, 'model.widths must be a list of integers, not "16"'),
        ({"names": "a"}, 'model.names must be a list of texts or none, not "a"'),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(given, message):
    with pytest.raises(UsageError) as caught:
        check(**given)
    assert caught.value.message == message
    assert caught.value.code == 2


def test_a_near_word_is_proposed():
    with pytest.raises(UsageError) as caught:
        check(norm="bacth")
    assert caught.value.hint == "did you mean `batch`?"


def test_an_unknown_key_is_named_with_the_nearest_one():
    with pytest.raises(UsageError) as caught:
        check(nrom="none")
    assert caught.value.message == "unknown key: model.nrom"
    assert caught.value.hint == "did you mean `model.norm`?"


def test_an_unknown_key_that_is_near_to_none_lists_all():
    with pytest.raises(UsageError) as caught:
        check(zzz=1)
    assert "input_shape, classes, norm" in caught.value.hint
    assert "rest" not in caught.value.hint


def test_an_argument_that_a_partial_has_filled_in_cannot_be_given_again():
    builder = partial(block, 18)
    assert check(builder, classes=3) == {"classes": 3}
    with pytest.raises(UsageError, match=r"unknown key: model\.depth"):
        check(builder, depth=34)


def test_a_keyword_of_a_partial_is_a_default():
    builder = partial(partial(block, 18), norm="layer")
    assert defaults_of(builder)["norm"] == "layer"
    assert check(builder, norm="none") == {"norm": "none"}


def test_a_class_is_checked_by_its_init():
    assert check(Net, units=3) == {"units": 3}
    assert defaults_of(Net) == {"bias": True}
    assert defaults_of(partial(Net, 5)) == {"bias": True}
    with pytest.raises(UsageError, match=r"unknown key: model\.units"):
        check(partial(Net, 5), units=3)


def test_defaults_are_those_of_the_signature():
    defaults = defaults_of(block)
    assert defaults["input_shape"] == (32, 32, 3)
    assert defaults["limit"] is None
    assert "depth" not in defaults
    assert "rest" not in defaults


def test_numpy_numbers_are_numbers():
    assert check(classes=np.int64(7), dropout=np.float32(0.5)) == {"classes": 7, "dropout": 0.5}


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Count, "an integer of at least 1"),
        (Positive | None, "a number above 0 or none"),
        (list[Share], "a list of numbers above 0 and below 1"),
        (tuple[int, Rate], "a list of 2 values"),
    ],
)
def test_types_are_told_in_words(annotation, said):
    assert accepted(annotation) == said


@pytest.mark.parametrize("part", ["models", "layers", "data", "decode"])
def test_what_a_recipe_names_knows_no_recipe(part):
    """A recipe knows models and datasets: if they knew it, too, neither could be imported first."""
    files = sorted((Path(dlkit.__file__).parent / part).rglob("*.py"))
    assert len(files) > 5
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "dlkit.recipe", path
                assert node.module != "dlkit" or "recipe" not in [alias.name for alias in node.names], path
