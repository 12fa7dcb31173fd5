"""A run on a folder of images, from the first bad file to the last prediction, with a net that can learn it."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlkit import runs
from dlkit.cli import main
from dlkit.data import folders

sys.path.append(str(Path(__file__).parents[1] / "data"))
from spoilt import spoil

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


def splits_of(root, count):
    """A folder with as many bright and dark images in `train` and in `test`."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, shade in (("bright", 180), ("dark", 20)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = shade + random.integers(0, 50, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
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
    assert "split_seed" in runs.open_run(run).recipe["data"], "by which remarks know that chance has divided it"


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


def test_a_run_does_not_go_on_with_another_class(dlkit, tmp_path):
    photos = splits_of(tmp_path / "photos", 5)
    assert dlkit("train", "mlp", "--data", str(photos), *SMALL, "--epochs", "1", "--name", "x").code == 0
    shutil.copytree(photos / "train" / "dark", photos / "train" / "zebra")
    result = dlkit("train", "--resume", "runs/x")
    assert result.code == 3
    error, hint = result.err.splitlines()[-2:]
    assert error.startswith("error: the training data of runs/x has changed since it began: ")
    assert error.endswith("has zebra")
    assert hint == "hint: put back what was there, or start a new run, with `--init-from` to keep the weights"


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


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_bad_file_anywhere_ends_training_before_the_first_step(dlkit, tmp_path, monkeypatch, split, kept):
    """It is neither the first, nor among the images whose mean stands for all."""
    monkeypatch.setattr(folders, "fits_in_memory", lambda images, shape: kept)
    monkeypatch.setattr("dlkit.data.images.SAMPLE", 2)
    monkeypatch.setattr("dlkit.data.images.MEASURED_WHOLE", 0)
    photos = splits_of(tmp_path / "photos", 20)
    bad = photos / split / "dark" / "7.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-40])
    arguments = ["--data", str(photos), *SMALL, "--epochs", "1", "--name", "x"]
    result = dlkit("train", "mlp", *arguments)
    assert result.code == 3
    assert result.err.splitlines()[-2].startswith(f"error: {bad} is damaged or cut short")
    assert "step" not in result.err
    assert not Path("runs").exists()
    bad.write_bytes(whole)
    assert dlkit("train", "mlp", *arguments).code == 0


def test_a_run_says_which_of_its_files_is_damaged_and_goes_on_when_it_is_back(dlkit, tmp_path):
    photos = splits_of(tmp_path / "photos", 10)
    assert dlkit("train", "mlp", "--data", str(photos), *SMALL, "--epochs", "1", "--name", "x").code == 0
    for split in ("train", "test"):
        bad = photos / split / "bright" / "3.png"
        whole = bad.read_bytes()
        bad.write_bytes(whole[:-40])
        result = dlkit("train", "--resume", "runs/x")
        assert result.code == 3
        error, hint = result.err.splitlines()[-2:]
        assert error.startswith(f"error: {bad} is damaged or cut short")
        assert hint == "hint: a run goes on with the images that it began with: put back what was there"
        bad.write_bytes(whole)
        assert dlkit("train", "--resume", "runs/x").code == 0


def test_what_is_for_tests_only_is_not_trained_on(dlkit, tmp_path):
    photos = splits_of(tmp_path / "photos", 5)
    shutil.rmtree(photos / "train")
    result = dlkit("train", "mlp", "--data", str(photos), *SMALL, "--epochs", "1")
    assert result.code == 2
    error, hint = result.err.splitlines()
    assert error == f"error: {photos} has nothing to train on: it has only test"
    assert "`dlkit evaluate RUN --data NAME`" in hint
    result = dlkit("data", "show", str(photos), "--split", "test", "--augment", "flip", "-o", "a.png")
    assert result.code == 0, result.err
    result = dlkit("data", "check", str(photos))
    assert result.code == 0, result.err
    assert "not learned" not in result.out


def test_bad_files_of_a_table_are_left_out_of_a_training(dlkit, tmp_path):
    """Without `--on-bad skip` the first one of training ends it, with its line of the table."""
    photos = splits_of(tmp_path / "photos", 5)
    spoil(photos / "train" / "dark", 500)
    paths = sorted(path.relative_to(photos) for path in photos.rglob("*.*"))
    assert len(paths) == 520
    rows = [f"{path},{path.parent.name},{path.parts[0]}" for path in paths]
    (photos / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    arguments = ["--data", str(photos), "--set", "data.size=8", *SMALL, "--epochs", "1", "--name", "x"]
    result = dlkit("train", "mlp", *arguments)
    assert (result.code, result.err.count("\n")) == (3, 2)
    line, path = re.match(rf"error: {photos}/labels.csv line (\d+): {photos}/(\S+) ", result.err).groups()
    assert rows[int(line) - 2].startswith(f"{path},dark,train")
    assert Path(path).name not in {f"{number}.png" for number in range(5)}
    result = dlkit("train", "mlp", *arguments, "--on-bad", "skip")
    assert result.code == 0, result.err
    assert "skipped 500 of 520 images, which cannot be read" in result.err
    assert "10 test, 8x8x3, 2 classes" in result.err
    assert (tmp_path / "runs" / "x" / "run.json").exists()


# A command line, and the most that its process has had in memory.
PEAK = """
import re, sys
from pathlib import Path
from dlkit.cli import main
code = main(sys.argv[1:])
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
sys.exit(code)
"""


@pytest.mark.slow
def test_ten_thousand_bad_files_take_no_more_memory_than_a_hundred(tmp_path):
    peaks = []
    for count in (100, 10_000):
        photos = splits_of(tmp_path / f"{count}", 10)
        spoil(photos / "train" / "dark", count)
        arguments = ["--data", photos, "--set", "data.size=8", *SMALL, "--on-bad", "skip", "--steps", "1", "--json"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "train", "mlp", *arguments, "--runs-dir", tmp_path / "runs"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"skipped {count:,} of {40 + count:,} images" in done.stderr
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] - peaks[0] < 50, peaks


@pytest.mark.parametrize("option", ["validation=0.1", "test=0.1", "split_seed=1"])
def test_a_division_of_what_is_divided_is_refused_by_who_only_looks(dlkit, tmp_path, option):
    photos = splits_of(tmp_path / "photos", 2)
    shutil.copytree(photos / "test", photos / "val")
    for command in (
        ("data", "show", str(photos), "-o", "a.png"),
        ("inspect", "lenet", "activations", "--data", str(photos)),
    ):
        result = dlkit(*command, "--set", f"data.{option}")
        assert (result.code, result.err.count("\n")) == (2, 2), result.err
        key = option.partition("=")[0]
        assert f"error: data.{key} changes nothing: the data have the splits " in result.err
    assert dlkit("data", "show", str(photos), "-o", "a.png", "--set", "data.validation=0").code == 0


def test_data_show_may_skip_bad_files(dlkit, tmp_path):
    photos = splits_of(tmp_path / "photos", 5)
    (photos / "train" / "dark" / "0.png").write_bytes(b"")
    result = dlkit("data", "show", str(photos), "-o", "a.png")
    assert result.code == 3
    assert "`--on-bad skip` leaves them out" in result.err
    result = dlkit("data", "show", str(photos), "-o", "a.png", "--on-bad", "skip")
    assert result.code == 0, result.err
    assert "skipped 1 of 20 images" in result.err
    assert dlkit("data", "show", str(photos), "--split", "test", "-o", "b.png").code == 0


def test_a_folder_that_is_gone(run, folder, dlkit):
    (folder / "photos").rename(folder / "away")
    try:
        result = dlkit("evaluate", str(run))
        assert (result.code, result.err.count("\n")) == (3, 2)
        assert f"there is no {folder / 'photos'}" in result.err
    finally:
        (folder / "away").rename(folder / "photos")


def test_a_run_can_be_used_from_any_folder(dlkit, tmp_path, monkeypatch):
    photos = splits_of(tmp_path / "photos", 5)
    result = dlkit("train", "mlp", "--data", "photos", *SMALL, "--epochs", "1", "--name", "x")
    assert result.code == 0, result.err
    assert "data    photos: " in result.err  # as it was typed
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    commands = (("evaluate", "../runs/x"), ("train", "--resume", "../runs/x"), ("inspect", "../runs/x", "features"))
    for command in commands:
        result = dlkit(*command)
        assert result.code == 0, result.err
    photos.rename(tmp_path / "away")
    for command in commands:
        result = dlkit(*command)
        assert (result.code, str(photos) in result.err.splitlines()[-2]) == (3, True)
        assert result.err.splitlines()[-1].startswith("hint: ")
    assert "../runs/x/recipe.toml" in dlkit(*commands[1]).err
    assert dlkit("predict", str(tmp_path / "away" / "test"), "--model", "../runs/x").code == 0  # needs no data
    assert dlkit("inspect", "../runs/x", "features", "--image", "../away/test/dark/0.png").code == 0


def test_a_folder_named_like_a_dataset(folder, dlkit, tmp_path):
    shutil.copytree(folder / "photos", tmp_path / "cifar10")
    (tmp_path / "cifar10" / "dark" / "bad.png").unlink()
    result = dlkit("train", "mlp", "--data", "./cifar10", "--set", "data.size=8", *SMALL, "--steps", "1", "--dry-run")
    assert result.code == 0, result.err
    assert "./cifar10: " in result.err
    assert "8x8x3, 2 classes" in result.err


def test_on_bad_is_for_folders_and_has_two_values(folder, dlkit):
    result = dlkit("train", "mlp", "--data", "digits", "--on-bad", "skip")
    assert result.code == 2
    assert "--on-bad is not for digits" in result.err
    result = dlkit("train", "mlp", "--data", str(folder / "photos"), "--on-bad", "stop")
    assert result.code == 2
    assert "data.on_bad must be one of error, skip" in result.err
