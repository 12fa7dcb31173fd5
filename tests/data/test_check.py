import json
import shutil

import numpy as np
import pytest
from PIL import Image
from spoilt import KINDS, ODD, encoded, noise, spoil

from dlkit import data
from dlkit.data import check as check_module
from dlkit.data.check import check, decode_all, not_measured
from dlkit.data.images import ImageData, ImageSplit, LazySplit
from dlkit.errors import DataError, UsageError


@pytest.fixture
def photos(tmp_path):
    """Two classes of 6 + 1 + 2 images in three splits, no two alike."""
    for seed in range(18):
        split = "train" if seed < 12 else "test" if seed < 16 else "val"
        name = "cat" if seed % 2 else "dog"
        path = tmp_path / "photos" / split / name / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(seed), "PNG"))
    return tmp_path / "photos"


def found(folder):
    report = check(str(folder))
    return {(finding.kind, finding.where) for finding in report.findings}, report


def test_a_folder_without_faults(photos):
    findings, report = found(photos)
    assert findings == set()
    assert not report.is_bad
    assert report.counts == {name: {"train": 6, "validation": 1, "test": 2} for name in ("cat", "dog")}
    assert report.verdict == f"{photos}: all 18 images can be read, and none is in several splits or classes"


def test_every_kind_of_bad_file_is_found_and_named_with_its_reason(photos):
    names = spoil(photos / "train" / "cat", len(KINDS))
    findings, report = found(photos)
    assert findings == {("unreadable", f"train/cat/{name}") for name in names}
    reasons = {finding.where.partition("_")[2]: finding.what for finding in report.findings}
    assert "empty" in reasons["empty.jpg"]
    assert "pixels" in reasons["huge.png"]
    assert "circle" in reasons["circle.png"]
    assert "cut short" in reasons["cut.jpg"]
    assert report.is_bad
    assert f"{len(KINDS)} of {18 + len(KINDS)} images cannot be read" in report.verdict
    assert "`--on-bad skip`" in report.hint


def test_ten_thousand_bad_files_are_all_found_and_none_of_the_good(photos):
    names = spoil(photos / "train" / "cat", 10_000)
    findings, report = found(photos)
    assert findings == {("unreadable", f"train/cat/{name}") for name in names}
    assert len(report.findings) == 10_000
    assert report.counts["cat"] == {"train": 6, "validation": 1, "test": 2}


def test_odd_images_are_named_and_are_not_bad(photos):
    for seed, (name, (_, content)) in enumerate(ODD.items(), 100):
        (photos / "train" / "dog" / name).write_bytes(content(seed))
    findings, report = found(photos)
    odd = {(kind, f"train/dog/{name}") for name, (kind, _) in ODD.items() if kind}
    assert findings == odd | {("gray", "train/dog/gray16.png")}
    assert not report.is_bad


@pytest.mark.parametrize(
    ("gray", "coloured", "told"),
    [
        (6, 0, []),
        (0, 6, []),
        (1, 5, [("gray", "1 of 6 images")]),
        (5, 1, [("in colour", "1 of 6 images")]),
        (3, 3, [("in colour", "3 of 6 images")]),
    ],
)
def test_one_image_in_colour_makes_all_of_them_rgb(tmp_path, gray, coloured, told):
    """What is told is what makes the difference: that the net looks at three channels."""
    files = {"gray": [], "in colour": []}
    for number, kind in enumerate(["gray"] * gray + ["in colour"] * coloured):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        noise(number, channels=1 if kind == "gray" else 3).save(path)
        files[kind].append(path.relative_to(tmp_path).as_posix())
    findings = [each for each in check(str(tmp_path)).findings if each.kind in files]
    assert [(each.kind, each.what.partition(";")[0]) for each in findings] == told
    assert all(each.where in files[each.kind] for each in findings)
    assert data.load(str(tmp_path)).shape == (8, 8, 3 if coloured else 1)


def test_an_animation_whose_later_frames_are_damaged_is_whole_enough(photos):
    content = ODD["animated.gif"][1](0)
    (photos / "train" / "dog" / "a.gif").write_bytes(content[:-100])
    assert not found(photos)[1].is_bad
    assert data.load(str(photos)).splits["train"]


def test_images_of_a_few_pixels(photos):
    for side in (7, 8):
        Image.new("L", (50, side), side).save(photos / "train" / "cat" / f"{side}.png")
    assert found(photos)[0] == {("small", "train/cat/7.png"), ("gray", "train/cat/7.png")}


def test_the_same_pixels_in_two_splits_however_they_are_saved(photos):
    noise(1).save(photos / "test" / "cat" / "again.bmp")
    noise(3).convert("RGBA").save(photos / "train" / "cat" / "other.png")  # in the same split and class: no matter
    findings, report = found(photos)
    assert {finding for finding in findings if finding[0] != "transparent"} == {
        ("in several splits", "train/cat/1.png")
    }  # fmt: skip
    assert report.findings[0].what == "is also in test: test/cat/again.bmp"
    assert report.is_bad
    assert "1 image is in several splits" in report.verdict
    assert "tells nothing" in report.hint


def test_the_same_pixels_with_two_labels(photos):
    shutil.copy(photos / "train/cat/1.png", photos / "train/dog/copy.png")
    findings, report = found(photos)
    assert findings == {("several labels", "train/cat/1.png")}
    assert report.findings[0].what == "is also labelled dog: train/dog/copy.png"
    assert report.is_bad
    assert "1 image has several labels" in report.verdict
    assert "no net can learn both" in report.hint


def test_a_folder_of_classes_is_divided_as_training_does(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(30):
            (tmp_path / name / f"{i}.png").write_bytes(encoded(noise(i, 9 if name == "a" else 8), "PNG"))
    report = check(str(tmp_path))
    loaded = data.load(str(tmp_path))
    for split, held in loaded.splits.items():
        counted = np.bincount(held.labels, minlength=2).tolist()
        assert [report.counts[name][split] for name in "ab"] == counted


def test_other_images_of_the_same_name(photos):
    for i in (1, 3, 5):
        (photos / "test" / "cat" / f"{i}.PNG").write_bytes(encoded(noise(50 + i), "PNG"))
    _, report = found(photos)
    [finding] = report.findings
    assert finding.kind == "same name"
    assert finding.what.endswith("; 2 more names are used so")
    assert not report.is_bad


def test_empty_unbalanced_and_unlearned_classes(tmp_path):
    for name, count in (("many", 33), ("few", 3)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "train" / name / f"{i}.png").write_bytes(encoded(noise(1000 * count + i), "PNG"))
    for name in ("train/none", "test/new", "test/many", "val/many"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "test/new/1.png").write_bytes(encoded(noise(5), "PNG"))
    (tmp_path / "val/many/v.png").write_bytes(encoded(noise(6), "PNG"))
    (tmp_path / "train/many/20.png").unlink()
    (tmp_path / "train/few/x.txt").write_text("x")
    noise(8).save(tmp_path / "train" / "y.png")
    (tmp_path / "train" / "up").symlink_to("..")
    findings, report = found(tmp_path)
    assert findings == {
        ("empty class", "train/none"),
        ("empty class", "test/many"),
        ("not learned", "new"),
        ("unbalanced", "few"),
        ("not measured", "few"),
        ("not measured", "many"),
        ("no image", "train/few/x.txt"),
        ("left out", "train/y.png"),
        ("left out", "train/up"),
    }
    [unbalanced] = [finding for finding in report.findings if finding.kind == "unbalanced"]
    assert "data.class_weights=balanced" in unbalanced.what
    unmeasured = {finding.where: finding.what for finding in report.findings if finding.kind == "not measured"}
    assert unmeasured == {"few": "has no validation and no test images", "many": "has no test images"}
    assert not report.is_bad
    (tmp_path / "train/many/0.png").unlink()
    (tmp_path / "train/many/1.png").unlink()  # 30 to 3 is ten times as many, and no more
    assert ("unbalanced", "few") not in found(tmp_path)[0]


@pytest.mark.parametrize(("splits", "remedied"), [("", {"b", "c"}), ("test", {"b"}), ("validation,test", set())])
def test_where_chance_has_held_out_too_little_another_draw_is_proposed(splits, remedied):
    """`a` is measured, `b` is not validated, `c` not tested; `splits` are those that the user has named."""
    whole = {"train": 5, "validation": 1, "test": 1}
    counts = {"a": whole, "b": {**whole, "validation": 0}, "c": {**whole, "test": 0}}
    drawn = {"validation", "test"}.difference(splits.split(","))
    findings = not_measured(counts, list(whole), drawn=drawn)
    assert [(one.kind, one.where) for one in findings] == [("not measured", "b"), ("not measured", "c")]
    assert {one.where for one in findings if "data.split_seed" in one.what} == remedied
    assert findings[0].what.startswith("has no validation images")


def test_a_folder_that_chance_divides_says_what_helps(tmp_path):
    for label, count in (("many", 40), ("few", 1)):
        for number in range(count):
            path = tmp_path / label / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            noise(100 * count + number).save(path)
    (told,) = [finding for finding in check(str(tmp_path)).findings if finding.kind == "not measured"]
    assert (told.where, "`--set data.split_seed=1`" in told.what) == ("few", True)


def test_a_table_with_missing_files(photos):
    names = [f"train/cat/{i}.png" for i in (1, 3, 5)] + [f"train/dog/{i}.png" for i in (0, 2, 4)] + ["gone.png"]
    rows = "".join(f"{name},{'cat' if 'cat' in name else 'dog'}\n" for name in names)
    (photos / "labels.csv").write_text("file,label\n" + rows)
    findings, report = found(photos)
    assert ("unreadable", "gone.png") in findings
    assert [finding.what for finding in report.findings if finding.where == "gone.png"] == ["does not exist (line 8)"]
    assert sum(kind == "left out" for kind, _ in findings) == 12


def test_what_is_no_dataset_at_all(tmp_path):
    with pytest.raises(DataError, match="no images"):
        check(str(tmp_path))
    with pytest.raises(DataError, match="no such folder"):
        check(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="--data-dir"):
        check(str(tmp_path), data_dir=tmp_path)
    with pytest.raises(UsageError, match="has no labelled images"):
        check("synthetic:reverse")


def test_the_shipped_digits_are_fine():
    report = check("digits")
    assert not report.is_bad
    assert report.images == 1797
    assert sum(sum(counts.values()) for counts in report.counts.values()) == 1797
    assert report.findings == []


@pytest.mark.parametrize("lazy", [False, True])
def test_a_dataset_by_name(monkeypatch, lazy):
    """Images 1 and 2,000 of the training split are image 0 of the test split; the class c has no images."""
    pixels = np.random.default_rng(0).integers(0, 256, (2500, 4, 4, 1), dtype=np.uint8)
    pixels[2000] = pixels[1]
    labels = np.zeros(2500, np.int32)
    labels[:20] = 1
    train, test = ImageSplit(pixels, labels), ImageSplit(pixels[1:3].copy(), np.array([1, 0], np.int32))
    if lazy:
        train = LazySplit(lambda row: pixels[row], np.arange(2500), labels, (4, 4, 1))
    loaded = ImageData("mine", ["a", "b", "c"], {"train": train, "test": test})
    monkeypatch.setattr(check_module.datasets, "load_images", lambda name, **options: loaded)
    report = check("mine")
    assert report.counts == {"a": {"train": 2480, "test": 1}, "b": {"train": 20, "test": 1}, "c": {}}
    assert [(finding.kind, finding.where) for finding in report.findings] == [
        ("in several splits", "train 1"),
        ("in several splits", "train 2"),
        ("several labels", "train 1"),
        ("several labels", "train 2"),
        ("small", "mine"),
        ("empty class", "c"),
        ("unbalanced", "b"),
    ]
    assert report.findings[0].what == "is also in test: test 0"
    assert report.findings[2].what == "is also labelled a: train 2000"


def lazy(name, count, read):
    return LazySplit(lambda row: read(name, row), np.arange(count), np.zeros(count, np.int32), (4, 4, 1))


@pytest.mark.parametrize("count", [1, 3])
def test_processes_that_train_together_share_out_what_is_decoded_before_training(monkeypatch, count):
    """Each every so manieth image, all of them together each one once; splits that nobody reads stay as they are."""
    seen = []

    def read(*place):
        seen.append(place)
        return np.zeros((4, 4, 1), np.uint8)

    sizes = {"test": 5, "extra": 9, "train": 7}
    loaded = ImageData("mine", ["a"], {name: lazy(name, size, read) for name, size in sizes.items()})
    everything = []
    for number in range(count):
        workers = {"worker": [f"127.0.0.1:{port}" for port in range(1, count + 1)]}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": workers, "task": {"type": "worker", "index": number}}))
        seen.clear()
        decode_all(loaded)
        assert all(row % count == number for _, row in seen)
        everything += seen
    assert sorted(everything) == [(name, row) for name in ("test", "train") for row in range(sizes[name])]


def test_of_several_damaged_images_the_first_one_of_training_is_named():
    def read(*place):
        raise DataError(f"{place} is damaged")

    loaded = ImageData("mine", ["a"], {name: lazy(name, 3, read) for name in ("test", "validation", "train")})
    with pytest.raises(DataError, match=r"\('train', 0\) is damaged"):
        decode_all(loaded)
