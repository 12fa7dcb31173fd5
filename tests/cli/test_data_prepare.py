"""`dlkit data prepare` says what it takes, asks, prepares, and says where the data lie."""

import json
import sys
from pathlib import Path

import pytest

from dlkit.data import tfds_names, tfds_prepare

sys.path.append(str(Path(__file__).parents[1] / "data"))
import tiny_set
from tiny_set import NAME


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder of prepared data, and a set that the package knows."""
    monkeypatch.setattr(tfds_names, "names", lambda: [NAME])
    monkeypatch.setattr(tfds_names, "image_names", lambda: [NAME])
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    tiny_set.builder_class()
    return tmp_path / "prepared"


def test_it_prepares_once(dlkit, place):
    result = dlkit("data", "prepare", NAME, "--yes")
    there = f"{NAME} is prepared in {place}/{NAME}/color/1.2.0: 20 train, 6 test"
    assert (result.code, result.out) == (0, "")
    sizes, done = result.err.splitlines()
    assert sizes == f"{NAME}: a download of unknown size, to be prepared in {place}"
    assert done == there
    assert dlkit("data", "prepare", NAME) == (0, "", there + "\n")


def test_as_json_in_another_folder(dlkit, place, tmp_path):
    result = dlkit("data", "prepare", f"{NAME}/gray", "--yes", "--json", "-q", "--data-dir", str(tmp_path / "b"))
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == {
        "name": f"{NAME}/gray", "folder": f"{tmp_path}/b/{NAME}/gray/1.2.0",
        "splits": {"train": 20, "validation": 8, "test": 6},
    }  # fmt: skip
    assert not place.exists()


def test_without_a_terminal_it_needs_a_yes(dlkit, place):
    result = dlkit("data", "prepare", NAME)
    assert (result.code, result.out) == (2, "")
    _, *mistake = result.err.splitlines()
    assert mistake == [
        f"error: nobody can be asked whether to download {NAME}",
        "hint: add `--yes` to agree beforehand",
    ]
    assert not place.exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 3), ("", 3)])
def test_on_a_terminal_it_asks(dlkit, place, monkeypatch, tmp_path, answer, code):
    (tmp_path / "answer").write_text(answer)
    monkeypatch.setattr(tfds_prepare, "may_ask", lambda: True)
    with (tmp_path / "answer").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        result = dlkit("data", "prepare", NAME)
    assert result.code == code
    assert result.err.splitlines()[1] == "go on? [y/N]"
    assert (place / NAME).exists() == (code == 0)
    if code:  # the next step is not what was just refused
        assert result.err.splitlines()[2:] == [
            f"error: nothing was downloaded: {NAME} is not prepared", "hint: `dlkit data list` shows what is ready"
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("digits", "digits is not of TensorFlow Datasets: there is nothing to prepare", "`--data digits` takes it"),
        ("tiny_picture", "unknown dataset: tiny_picture", f"did you mean `{NAME}`? `dlkit data list` lists all"),
        ("ns:mnist", "a dataset name has no namespace: ns:mnist", "after a colon only a version may stand"),
    ],
)
def test_a_wrong_name_is_answered_before_tensorflow_is_needed(dlkit, place, monkeypatch, name, message, hint):
    monkeypatch.setattr(tfds_prepare, "_import_tfds", lambda: pytest.fail("it was imported"))
    result = dlkit("data", "prepare", name, "--yes")
    first, *rest = result.err.splitlines()
    assert (result.code, first) == (2, f"error: {message}")
    assert " ".join(rest).removeprefix("hint: ").startswith(hint)


def test_train_on_a_set_that_is_not_prepared(dlkit, place, monkeypatch):
    monkeypatch.setattr(tfds_prepare, "_can_be_reached", lambda addresses: False)
    result = dlkit("train", "lenet", "--data", NAME, "--steps", "1")
    assert (result.code, result.out) == (3, "")
    assert result.err.splitlines() == [
        f"error: {NAME} is not prepared in {place}, and its source cannot be reached",
        f"hint: on a machine with a network run `dlkit data prepare {NAME}`, then copy the folder to {place} or pass "
        "--data-dir",
    ]


def test_train_on_a_set_that_is_prepared(dlkit, place):
    tiny_set.build(place)
    small = ["--set", "data.size=8", "--set", "model.hidden=[2]", "--steps", "1", "--batch-size", "4"]
    result = dlkit("train", "mlp", "--data", NAME, *small, "--json")
    assert result.code == 0, result.err
    assert f"data    {NAME}: 18 train, 2 validation, 6 test, 8x8x3, 3 classes" in result.err
