"""`dlkit data list` lists every dataset that a name of it can be: ours, prepared ones, and those to be prepared."""

import json

import pytest

from dlkit import data
from dlkit.data import tfds_names


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    """A folder in which two sets lie prepared, as far as lists look."""
    for name in ("mnist/3.0.1", "imagenette/160px-v2/1.0.0", "mine/1.0.0"):
        (tmp_path / "sets" / name).mkdir(parents=True)
        (tmp_path / "sets" / name / "dataset_info.json").touch()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))


def test_ours_come_first_then_what_is_prepared_then_what_can_be(dlkit):
    result = dlkit("data", "list")
    assert (result.code, result.err) == (0, "")
    header, *lines = result.out.splitlines()
    assert header.split() == ["dataset", "ready", "about"]
    rows = [line.split(maxsplit=2) for line in lines]
    ours, others = rows[: len(data.names())], rows[len(data.names()) :]
    assert [(name, ready) for name, ready, _ in ours] == [(name, "yes") for name in data.names()]
    assert others[:3] == [
        ["imagenette/160px-v2", "yes", "labelled images of TensorFlow Datasets"],
        ["mine", "yes", "prepared by TensorFlow Datasets"],
        ["mnist", "yes", "labelled images of TensorFlow Datasets"],
    ]
    assert {ready for _, ready, _ in others[3:]} == {"-"}
    names = [name for name, _, _ in others[3:]]
    assert names == sorted({*tfds_names.image_names(), *tfds_names.translation_names()} - {"mnist", *data.names()})
    assert [name for name, *_ in rows].count("tatoeba") == 1, "a name of ours means ours"
    assert {"cifar10_1", "cifar10", "imagenette", "wmt14_translate"} <= set(names)


def test_as_json_with_what_each_is(dlkit, tmp_path):
    listed = {entry["name"]: entry for entry in json.loads(dlkit("data", "list", "--json").out)}
    assert all(entry["about"] for entry in listed.values())
    assert (listed["digits"]["ready"], listed["mnist"]["ready"], listed["kmnist"]["ready"]) == (True, True, False)
    elsewhere = json.loads(dlkit("data", "list", "--data-dir", str(tmp_path), "--json").out)
    assert not any(entry["ready"] for entry in elsewhere if entry["name"] == "mnist")


def test_what_an_error_proposes_is_in_the_list(dlkit):
    listed = [entry["name"] for entry in json.loads(dlkit("data", "list", "--json").out)]
    for wrong in ("cifar10_2", "cfiar10", "digist", "mine2"):
        hint = dlkit("data", "check", wrong).err.splitlines()[1]
        assert hint.endswith("`dlkit data list` lists all")
        assert hint.split("`")[1] in listed
