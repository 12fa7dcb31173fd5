import importlib.metadata
import subprocess
import sys

import pytest

from dlkit import data
from dlkit.data.folders import folder
from dlkit.data.tfds import tfds_set
from dlkit.data.tfds_translation import translation_set
from dlkit.errors import DataError, UsageError, nearest


def test_names_lists_the_table_in_its_order():
    assert data.names()[0] == "digits"
    assert set(data.DATASETS) <= set(data.names())


def test_every_name_of_the_table_can_be_imported():
    assert data.DATASETS
    for name in data.DATASETS:
        assert callable(data.builder(name))


def test_load_builds_with_options():
    assert data.load("digits", size=8).shape == (8, 8, 1)


def test_translation_sets_of_tensorflow_datasets_are_told_by_their_category(tmp_path):
    for name in ("ted_hrlr_translate/ru_to_en", "wmt14_translate/de-en:1.0.0", "opus"):
        assert data.builder(name, tmp_path).func is translation_set
    assert data.builder("tatoeba").__module__ == "dlkit.data.tatoeba"


def test_a_name_that_ends_like_a_folder_is_one_whether_it_is_there_or_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert data.builder("photos/").func is folder
    with pytest.raises(DataError, match="photos"):
        data.load("photos/")


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_current_folder(name):
    with pytest.raises(UsageError, match="is empty"):
        data.builder(name)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="unknown dataset: digist") as caught:
        data.builder("digist")
    assert "`digits`" in caught.value.hint
    assert "`dlkit data list`" in caught.value.hint


@pytest.mark.parametrize(
    ("word", "meant"), [("cifar11", "cifar10"), ("CIFAR10", "cifar10"), ("Digits", "digits"), ("mnsit", "mnist")]
)
def test_the_nearest_name_differs_in_a_letter_or_in_capitals(word, meant):
    with pytest.raises(UsageError) as caught:
        data.builder(word)
    assert f"did you mean `{meant}`?" in caught.value.hint


def test_of_names_that_are_as_near_it_is_the_first():
    """In the list of datasets those that lie prepared come first."""
    assert nearest("wiki_a", ["wiki_b", "wiki_c"]) == "wiki_b"
    assert nearest("wiki_a", ["wiki_c", "wiki_b"]) == "wiki_c"
    assert nearest("wiki_a", ["cifar10"]) is None


def test_a_misspelt_option_is_a_usage_error():
    with pytest.raises(UsageError, match="sise"):
        data.load("digits", sise=8)


@pytest.mark.parametrize(
    "name",
    ["huggingface:mnist", "ns:name", "ns:name:3.0.2", ":digits", "a/b:c", "digits:latest", "kaggle:mnist/a:1.0.0"],
)
def test_a_namespace_is_refused(name):
    with pytest.raises(UsageError, match="no namespace"):
        data.builder(name)


@pytest.mark.parametrize("name", ["synthetic:revers", "mnsit:3.0.2", "digits:3.0.2", "nothing:*", "nothing/at-all"])
def test_versions_and_our_own_namespace_are_looked_up(name):
    with pytest.raises(UsageError, match="unknown dataset"):
        data.builder(name)


@pytest.mark.parametrize("name", ["mnist", "mnist:3.0.2", "mnist:*", "cifar10:3.*.*", "imagenette/160px-v2:1.0.0"])
def test_names_of_tensorflow_datasets_are_taken_with_configuration_and_version(name):
    builder = data.builder(name)
    assert (builder.func, builder.args) == (tfds_set, (name,))


def test_a_misspelt_name_of_tensorflow_datasets_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="unknown dataset: cifr100") as caught:
        data.builder("cifr100")
    assert "`cifar100`" in caught.value.hint


def test_our_names_come_first_then_folders_then_those_of_tensorflow_datasets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "mnist"):
        (tmp_path / name).mkdir()
    assert data.builder("digits").__module__ == "dlkit.data.digits"
    assert data.builder("mnist").func is folder
    (tmp_path / "mnist").rmdir()
    assert data.builder("mnist").func is tfds_set


def test_a_package_adds_datasets_but_does_not_replace_ours(monkeypatch):
    entries = [
        importlib.metadata.EntryPoint("mine", "collections:OrderedDict", "dlkit.datasets"),
        importlib.metadata.EntryPoint("digits", "collections:Counter", "dlkit.datasets"),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries if group == "dlkit.datasets" else [])
    data.targets.cache_clear()
    try:
        assert data.names()[-1] == "mine"
        assert data.builder("mine").__name__ == "OrderedDict"
        assert data.builder("digits").__module__ == "dlkit.data.digits"
    finally:
        data.targets.cache_clear()


def test_names_and_digits_load_no_tensorflow():
    code = (
        "import sys; from dlkit import data; from dlkit.data import augment, digits; data.names(); digits.digits();"
        "data.builder('cifar10'); data.builder('wmt14_translate'); data.builder('pairs.tsv');"
        "data.load('synthetic:copy', train=9, test=1, validation=1).splits;"
        "print([m for m in ('tensorflow', 'keras', 'tensorflow_datasets', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_file_is_no_dataset_and_an_empty_table_has_no_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.en").write_text("a line\n")
    with pytest.raises(UsageError, match="x.en is one file") as caught:
        data.builder("x.en")
    assert "x.en,x.de" in caught.value.hint
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(DataError, match=r"empty\.tsv has no pair to train on"):
        _ = data.load_pairs("empty.tsv").splits


def test_a_file_with_the_name_of_a_set_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10").write_text("a log")
    assert data.builder("cifar10").func is tfds_set
    assert data.paths("cifar10") == []
    (tmp_path / "notes").write_text("a file")
    with pytest.raises(UsageError, match="notes is one file"):
        data.builder("notes")
