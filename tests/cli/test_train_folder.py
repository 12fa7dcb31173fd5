"""A run on a folder of images, from the first bad file to the last prediction, with a net that can learn it."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlkit.cli import main
from dlkit.data import folders

COUNT = 40
SMALL = ["--set", "model.hidden=[4]", "--set", "data.augment=[]", "--set", "train.batch_size=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bright and dark images of several sizes, and one file that is cut short."""
    root = tmp_path_factory.mktemp("folder")
    random = np.random.default_rng(0)
    for name, shade in (("bright", 180), ("dark", 20)):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(COUNT):
            pixels = shade + random.integers(0, 50, (8 + i % 3, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{i}.png")
    whole = (root / "photos" / "dark" / "0.png").read_bytes()
    (root / "photos" / "dark" / "bad.png").write_bytes(whole[:-60])
    return root


@pytest.fixture(scope="module")
def run(folder):
    """A run that skipped the bad file, and said so."""
    arguments = ["--data", str(folder / "photos"), "--set", "data.size=8", *SMALL, "--epochs", "6", "--lr", "0.05"]
    with contextlib.redirect_stderr(io.StringIO()) as told:
        assert main(["train", "mlp", *arguments, "--on-bad", "skip", "--runs-dir", str(folder), "--name", "run"]) == 0
    assert "skipped 1 of 81 images, which cannot be read; the first: dark/bad.png" in told.getvalue()
    return folder / "run"


def test_a_bad_file_is_named_and_nothing_is_written(folder, dlkit):
    result = dlkit("train", "mlp", "--data", str(folder / "photos"), "--set", "data.size=8", *SMALL, "--epochs", "1")
    assert result.code == 3
    error, hint = result.err.splitlines()
    assert error.startswith(f"error: {folder / 'photos' / 'dark' / 'bad.png'} is damaged or cut short")
    assert "`--on-bad skip`" in hint
    assert not Path("runs").exists()


def test_the_run_is_evaluated_on_all_its_splits(run, dlkit):
    sizes = {}
    for split in ("train", "validation", "test"):
        result = dlkit("evaluate", str(run), "--split", split, "--json")
        assert result.code == 0, result.err
        report = json.loads(result.out)
        sizes[split] = report["examples"]
        assert report["accuracy"] == 1.0
    assert sum(sizes.values()) == 2 * COUNT


def test_predict_reads_images_as_training_did(run, folder, dlkit):
    files = [str(folder / "photos" / name / f"{i}.png") for name in ("bright", "dark") for i in (0, 1, 2)]
    result = dlkit("predict", *files, "--model", str(run), "--json")
    assert result.code == 0, result.err
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert [answer["classes"][0]["class"] for answer in answers] == ["bright"] * 3 + ["dark"] * 3


def test_a_run_goes_on_with_its_files_and_not_with_others(run, folder, dlkit):
    assert dlkit("train", "--resume", str(run)).code == 0
    photos, moved = folder / "photos", folder / "moved"
    shutil.copytree(photos, moved)
    try:
        for change in (
            lambda: shutil.copy(photos / "dark" / "1.png", photos / "bright" / "new.png"),
            lambda: [path.unlink() for path in photos.glob("dark/*3.png")],
            lambda: [Image.new("RGB", (9, 8), 7).save(path) for path in photos.glob("dark/*.png")],
        ):
            change()
            result = dlkit("train", "--resume", str(run))
            assert result.code == 3
            assert "has changed since it began" in result.err
            shutil.rmtree(photos)
            shutil.copytree(moved, photos)
            assert dlkit("train", "--resume", str(run)).code == 0
    finally:
        shutil.rmtree(photos)
        moved.rename(photos)


def test_images_that_do_not_fit_into_memory_are_read_when_wanted(run, folder, dlkit, monkeypatch):
    """The run goes on with them, since they are the same; what is cut short is found by then."""
    monkeypatch.setattr(folders, "fits_in_memory", lambda images, shape: False)
    assert dlkit("train", "--resume", str(run)).code == 0
    assert json.loads(dlkit("evaluate", str(run), "--json").out)["accuracy"] == 1.0
    result = dlkit("train", "mlp", "--data", str(folder / "photos"), "--set", "data.size=8", *SMALL, "--epochs", "1")
    assert result.code == 3
    error, hint = result.err.splitlines()[-2:]
    assert error.startswith(f"error: {folder / 'photos' / 'dark' / 'bad.png'} is damaged or cut short")
    assert "`--on-bad skip`" in hint


def test_a_folder_that_is_gone(run, folder, dlkit):
    (folder / "photos").rename(folder / "away")
    try:
        result = dlkit("evaluate", str(run))
        assert (result.code, result.err.count("\n")) == (3, 2)
        assert f"no such folder: {folder / 'photos'}" in result.err
    finally:
        (folder / "away").rename(folder / "photos")


def test_a_folder_named_like_a_dataset(folder, dlkit, tmp_path):
    shutil.copytree(folder / "photos", tmp_path / "cifar10")
    (tmp_path / "cifar10" / "dark" / "bad.png").unlink()
    result = dlkit("train", "mlp", "--data", "./cifar10", "--set", "data.size=8", *SMALL, "--steps", "1", "--dry-run")
    assert result.code == 0, result.err
    assert "./cifar10: " in result.err
    assert "8x8x3, 2 classes" in result.err


def test_on_bad_is_for_folders_and_has_two_values(folder, dlkit):
    assert dlkit("train", "mlp", "--data", "digits", "--on-bad", "skip").code == 2
    result = dlkit("train", "mlp", "--data", str(folder / "photos"), "--on-bad", "stop")
    assert result.code == 2
    assert "data.on_bad must be one of error, skip" in result.err
