import pytest

from dlkit.data.split_files import files_by_role
from dlkit.errors import DataError


def test_files_are_found_by_the_names_of_splits(tmp_path):
    for name in ("Train.txt", "dev.TXT.gz", "testing.tsv", "notes.txt", "train.md", ".train.txt"):
        (tmp_path / name).touch()
    (tmp_path / "test.txt").mkdir()
    found = files_by_role(tmp_path, [".txt", ".tsv"])
    assert {role: path.name for role, path in found.items()} == {
        "train": "Train.txt", "validation": "dev.TXT.gz", "test": "testing.tsv"
    }  # fmt: skip
    assert list(files_by_role(tmp_path, [".tsv"])) == ["test"]


def test_two_files_of_one_split_and_no_folder_are_told(tmp_path):
    for name in ("val.txt", "valid.txt"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"val\.txt and valid\.txt are the same split"):
        files_by_role(tmp_path, [".txt"])
    with pytest.raises(DataError, match="the folder"):
        files_by_role(tmp_path / "nowhere", [".txt"])
