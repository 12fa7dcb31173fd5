"""`dlkit data check`: what it prints, its exit codes, and hostile names on their way to the terminal."""

import json

import numpy as np
import pytest
from PIL import Image
from test_predict import CHARACTERS, as_file_name, on_a_terminal

from dlkit import console


@pytest.fixture
def photos(tmp_path):
    """Two classes in two splits."""
    random = np.random.default_rng(0)
    for path in ("train/cat/1", "train/cat/2", "train/dog/1", "val/cat/4", "val/dog/2", "test/cat/3", "test/dog/3"):
        file = tmp_path / "photos" / f"{path}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    return tmp_path / "photos"


def test_a_good_folder(dlkit, photos):
    result = dlkit("data", "check", "photos")
    assert result.code == 0
    header, *rows = (line.split() for line in result.out.splitlines())
    assert header == ["class", "train", "validation", "test"]
    assert rows == [["cat", "2", "1", "1"], ["dog", "1", "1", "1"]]
    assert result.err == "photos: all 7 images can be read, and none is in several splits or classes\n"


def test_bad_files_end_with_3(dlkit, photos):
    (photos / "train/cat/empty.png").write_bytes(b"")
    (photos / "train/cat/notes.txt").write_text("x")
    result = dlkit("data", "check", "photos")
    assert result.code == 3
    assert "unreadable  train/cat/empty.png  is not an image: the file is empty" in result.out
    assert "no image    train/cat/notes.txt  is not named as PNG, JPEG, BMP, GIF or WebP" in result.out
    assert result.err.splitlines()[0] == "error: photos: 1 of 8 images cannot be read"


def test_an_image_in_two_splits_ends_with_3(dlkit, photos):
    (photos / "test/cat/again.png").write_bytes((photos / "train/cat/1.png").read_bytes())
    result = dlkit("data", "check", "photos")
    assert result.code == 3
    assert "in several splits  train/cat/1.png  is also in test: test/cat/again.png" in result.out
    assert "error: photos: 1 image is in several splits" in result.err


def test_a_class_on_which_nothing_is_measured_is_told_and_is_no_bad_data(dlkit, photos):
    (photos / "test/dog/3.png").unlink()
    (photos / "test/dog").rmdir()
    result = dlkit("data", "check", "photos")
    assert result.code == 0
    assert "not measured  dog    has no test images" in result.out


def test_as_json(dlkit, photos):
    (photos / "train/cat/3.png").write_bytes(b"x")
    result = dlkit("data", "check", "photos", "--json")
    assert result.code == 3
    report = json.loads(result.out)
    assert report["classes"] == {
        "cat": {"train": 2, "validation": 1, "test": 1}, "dog": {"train": 1, "validation": 1, "test": 1}
    }  # fmt: skip
    assert report["findings"] == [
        {"kind": "unreadable", "where": "train/cat/3.png", "what": "is not an image that can be read"}
    ]
    assert (report["images"], report["fine"]) == (8, False)
    (photos / "train/cat/3.png").unlink()
    assert json.loads(dlkit("data", "check", "photos", "--json").out)["fine"] is True


def test_a_dataset_by_name(dlkit):
    result = dlkit("data", "check", "digits")
    assert result.code == 0
    assert result.out.splitlines()[1].split() == ["0", "127", "15", "36"]


def test_a_gray_image_among_coloured_ones_is_told_and_is_no_bad_data(dlkit, photos):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(photos / "train/cat/9.png")
    result = dlkit("data", "check", "photos")
    assert result.code == 0
    assert "gray     train/cat/9.png  1 of 8 images; read as RGB like the others" in result.out


@pytest.mark.parametrize("data", ["digits", "tatoeba", "./photos"])
def test_a_folder_of_prepared_data_is_for_prepared_sets(dlkit, photos, data):
    result = dlkit("data", "check", data, "--data-dir", "prepared")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"error: {data} is no set of TensorFlow Datasets: --data-dir is for those\nhint: leave it out\n"
    )


@pytest.mark.parametrize(("data", "code"), [("none/such", 2), ("./none", 3), ("synthetic:adding", 2)])
def test_what_cannot_be_checked(dlkit, data, code):
    result = dlkit("data", "check", data)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 2


def test_hostile_names_are_written_out(photos, tmp_path, monkeypatch):
    hostile = as_file_name(CHARACTERS)
    (photos / "train" / f"{hostile} class").mkdir()
    (photos / "train" / "cat" / f"{hostile}.png").write_bytes(b"")
    (photos / "train" / "cat" / f"{hostile}.txt").write_bytes(b"")
    (photos / "train" / f"{hostile} dog").symlink_to("dog")
    photos = photos.rename(tmp_path / hostile.replace("\udcff", ""))  # no recipe can hold what is not Unicode
    monkeypatch.setenv("COLUMNS", "1000")  # so that no name is broken over lines
    for arguments in (["data", "check", str(photos)], ["train", "mlp", "--data", str(photos)]):
        code, out, error = on_a_terminal(monkeypatch, *arguments)
        assert code == 3
        assert console.safe(hostile) in out + error
    on_a_terminal(monkeypatch, "data", "check", str(photos), "--json")
