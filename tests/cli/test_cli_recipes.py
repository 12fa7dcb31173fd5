"""`dlkit recipes` lists, shows and copies the shipped recipes."""

import json
from pathlib import Path

import pytest

from dlkit import recipe

TEXT = """# LeNet-5 on the handwritten digits (LeCun et al. 1998)
# dlkit train lenet

[model]
name = "lenet"

[data]
name = "digits"

[train]
lr = 0.01  # of three tried
"""


@pytest.fixture(autouse=True)
def shipped(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "lenet_digits.toml").write_text(TEXT)
    monkeypatch.setattr(recipe, "folder", lambda: folder)
    return folder


def test_list(dlkit):
    result = dlkit("recipes", "list")
    assert (result.code, result.err) == (0, "")
    assert [line.split(maxsplit=3) for line in result.out.splitlines()] == [
        ["recipe", "model", "data", "about"],
        ["lenet_digits", "lenet", "digits", "LeNet-5 on the handwritten digits (LeCun et al. 1998)"],
    ]
    assert json.loads(dlkit("recipes", "list", "--json").out)[0]["recipe"] == "lenet_digits"


def test_show_prints_the_file(dlkit, tmp_path):
    assert dlkit("recipes", "show", "lenet_digits") == (0, TEXT, "")
    (tmp_path / "mine.toml").write_text(TEXT)
    assert dlkit("recipes", "show", "mine.toml").out == TEXT
    shown = json.loads(dlkit("recipes", "show", "lenet_digits", "--json").out)
    assert shown["train"] == {"lr": 0.01}
    assert shown["about"][1] == "dlkit train lenet"


def test_copy_gives_a_file_that_trains_the_same(dlkit, tmp_path):
    result = dlkit("recipes", "copy", "lenet_digits")
    copied = tmp_path / "lenet_digits.toml"
    assert (result.code, result.out) == (0, "")
    assert copied.read_text() == TEXT
    assert "next: dlkit train lenet --recipe lenet_digits.toml" in result.err
    assert recipe.resolve(recipe_path=copied).diff(recipe.resolve("lenet")) == {}


def test_copy_to_a_name_or_a_folder_and_never_over_a_file(dlkit, tmp_path):
    (tmp_path / "mine").mkdir()
    assert dlkit("recipes", "copy", "lenet_digits", "mine").code == 0
    assert dlkit("recipes", "copy", "lenet_digits", "mine/b.toml").code == 0
    assert sorted(path.name for path in Path("mine").iterdir()) == ["b.toml", "lenet_digits.toml"]
    Path("mine/b.toml").write_text("precious")
    again = dlkit("recipes", "copy", "lenet_digits", "mine/b.toml")
    assert again.code == 2
    assert again.err.startswith("error: mine/b.toml exists\n")
    assert Path("mine/b.toml").read_text() == "precious"


def test_copy_says_in_json_where_the_file_is(dlkit):
    result = dlkit("recipes", "copy", "lenet_digits", "mine.toml", "--json")
    assert json.loads(result.out) == {"recipe": "lenet_digits", "file": "mine.toml"}


def test_what_is_not_there(dlkit):
    unknown = dlkit("recipes", "show", "lenet_digit")
    assert unknown.code == 2
    assert unknown.err.splitlines() == [
        "error: unknown recipe: lenet_digit", "hint: did you mean `lenet_digits`? `dlkit recipes list` shows all"
    ]  # fmt: skip
    assert dlkit("recipes", "show", "./none.toml").code == 3
    assert dlkit("recipes", "copy", "lenet_digits", "no/such/folder.toml").code == 3


def test_a_damaged_recipe_is_named_with_its_line(dlkit, shipped):
    (shipped / "odd.toml").write_text('[model]\nname = "lenet\n')
    result = dlkit("recipes", "list")
    assert result.code == 2
    assert f"error: {shipped / 'odd.toml'}, line 2, column 14: " in result.err
