import errno
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from spoilt import KINDS, ODD, encoded, noise, png, spoil

from dlkit import data
from dlkit.data import folders
from dlkit.data.check import decode_all
from dlkit.data.folders import ImageFile, divide, folder, in_threads, list_images, natural
from dlkit.data.image_files import read_image
from dlkit.data.images import fingerprint, statistics
from dlkit.errors import DataError, UsageError


def fill(root, *paths, image=None):
    """Writes a PNG of 8x8 pixels, or of `image`, to each path; those that are alike have other pixels."""
    for seed, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encoded(image or noise(seed), "PNG"))
    return root


def classes(root, count=20, names=("cat", "dog")):
    return fill(root, *(f"{name}/{i}.png" for name in names for i in range(count)))


def names_of(listing):
    return {(file.path, file.label, file.split) for file in listing.files}


def sizes(loaded):
    return {name: len(split) for name, split in loaded.splits.items()}


def refused(root, **options):
    """The one line that is said about a folder, with its hint, before anything is trained on it."""
    with pytest.raises(DataError) as caught:
        decode_all(folder(str(root), **options))
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint, caught.value.message
    return f"{caught.value.message} | {caught.value.hint}"


# ------------------------------------------------------------------------------------------------------------- layouts


def test_folders_of_splits_and_classes(tmp_path):
    fill(tmp_path, "train/cat/1.png", "train/dog/deep/er/2.JPG", "val/cat/3.png", "test/dog/4.jpeg", "test/cat/5.webp")
    assert names_of(list_images(tmp_path)) == {
        ("train/cat/1.png", "cat", "train"),
        ("train/dog/deep/er/2.JPG", "dog", "train"),
        ("val/cat/3.png", "cat", "validation"),
        ("test/dog/4.jpeg", "dog", "test"),
        ("test/cat/5.webp", "cat", "test"),
    }
    loaded = folder(str(tmp_path))
    assert sizes(loaded) == {"train": 2, "validation": 1, "test": 2}
    assert loaded.classes == ["cat", "dog"]
    test = loaded.splits["test"]
    for label, file in enumerate(["test/cat/5.webp", "test/dog/4.jpeg"]):
        image = test.fetch(np.flatnonzero(test.labels == label))
        np.testing.assert_array_equal(image, read_image(tmp_path / file, (8, 8, 3))[np.newaxis])


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Val", "dev", "Validation_set"])
def test_every_name_of_the_validation_split(tmp_path, name):
    fill(tmp_path, "train/a/1.png", "train/b/2.png", f"{name}/a/3.png")
    assert sizes(folder(str(tmp_path))) == {"train": 2, "validation": 1}


@pytest.mark.parametrize("names", [("Training", "Testing"), ("training_set", "test_set"), ("train", "testing")])
def test_other_names_of_splits(tmp_path, names):
    fill(tmp_path, *(f"{name}/{label}/{i}.png" for name in names for label in ("glioma", "none") for i in range(3)))
    loaded = folder(str(tmp_path), validation=0)
    assert (loaded.classes, sizes(loaded)) == (["glioma", "none"], {"train": 6, "test": 6})


def test_splits_of_unknown_names_are_not_taken_for_classes(tmp_path):
    fill(
        tmp_path, *(f"{name}/{label}/{i}.png" for name in ("seen", "new") for label in ("cat", "dog") for i in range(3))
    )
    said = refused(tmp_path)
    assert "new, seen hold the same folders, cat, dog, as splits do" in said
    fill(tmp_path, "seen/owl/1.png")  # folders of classes need not be alike
    assert folder(str(tmp_path)).classes == ["new", "seen"]


def test_two_names_of_one_split_are_refused(tmp_path):
    fill(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "valid/a/4.png")
    assert "val and valid are the same split" in refused(tmp_path)


def test_a_validation_split_is_taken_from_the_training_images_and_a_test_split_is_not(tmp_path):
    fill(tmp_path, *(f"train/{name}/{i}.png" for name in "ab" for i in range(10)), "test/a/1.png")
    assert sizes(folder(str(tmp_path), validation=4)) == {"train": 16, "validation": 4, "test": 1}
    assert sizes(folder(str(tmp_path), validation=0)) == {"train": 20, "test": 1}


def test_folders_of_classes_are_sorted_as_people_sort(tmp_path):
    fill(tmp_path, *(f"{name}/{i}.png" for name in ("class10", "Class2", "class1") for i in range(5)))
    assert folder(str(tmp_path)).classes == ["class1", "Class2", "class10"]
    digits = [str(i) for i in range(120)]
    assert sorted(sorted(digits), key=natural) == digits
    sorted(["", "1", "a", "1a", "a1", "９", "²", "1" * 5000, "a" + "1" * 5000], key=natural)  # none is like another


def test_train_may_be_a_class(tmp_path):
    fill(tmp_path, *(f"{name}/{i}.png" for name in ("train", "bus", "test") for i in range(5)))
    assert folder(str(tmp_path)).classes == ["bus", "test", "train"]
    fill(tmp_path, "train/steam/9.png")
    assert folder(str(tmp_path)).classes == ["bus", "test", "train"]


def test_a_folder_beside_the_splits_is_left_out_and_told(tmp_path, capsys):
    fill(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png", "more/5.png", "more/c/6.png")
    assert folder(str(tmp_path), validation=0).classes == ["a", "b"]
    assert "left out 2 images outside of a class folder (more/" in capsys.readouterr().err


def test_a_table_of_labels(tmp_path):
    fill(tmp_path, "1.png", "sub/2.png", "3.png", "4.dat")
    table = '\ufefffile,label\n1.png,cat\r\n./sub/2.png,"dog, small"\n\n3.png, cat\n4.dat,cat\n'
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    assert names_of(list_images(tmp_path)) == {
        ("1.png", "cat", ""),
        ("sub/2.png", "dog, small", ""),
        ("3.png", "cat", ""),
        ("4.dat", "cat", ""),
    }


@pytest.mark.parametrize("header", ["Filename,Class,Set", "image;category;subset", "path\tlabel\tsplit"])
def test_other_names_of_columns_and_other_separators(tmp_path, header):
    fill(tmp_path, "1.png", "2.png", "3.png")
    separator = header[-4] if "Set" in header else ";" if ";" in header else "\t"
    rows = [["1.png", "a", "train"], ["2.png", "b", "Train"], ["3.png", "a", "val"]]
    (tmp_path / "labels.csv").write_text("\n".join([header, *(separator.join(row) for row in rows)]))
    assert sizes(folder(str(tmp_path))) == {"train": 2, "validation": 1}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("name,label\n", "line 1: unknown column: name"),
        ("file,label,labl\n", "did you mean `label`?"),
        (",file,label\n", "line 1: unknown column: one without a name"),
        ("1.png,cat\n2.png,dog\n", "the first line is `file,label`"),
        ("file,path,label\n", "line 1: two columns for the file"),
        ("file,split\n", "line 1: no column for the label"),
        ("file,label\n1.png,a\n1.png,b\n", "line 3: 1.png stands in line 2 already"),
        ("file,label\n1.png,a\n./1.png,b\n", "line 3: 1.png stands in line 2 already"),
        ("file,label\n1.png,a\n\n2.png,b,c\n", "line 4: 1 cells too many"),
        ("file,label\n1.png\n", "line 2: 1 cells too few"),
        ("file,label\n1.png,\n", "line 2: the label is missing"),
        ("file,label\n,a\n", "line 2: the file is missing"),
        ("file,label\n../1.png,a\n", "line 2: ../1.png leads out of the folder"),
        ("file,label\na/../../1.png,a\n", "leads out of the folder"),
        ("file,label\n/etc/passwd,a\n", "line 2: /etc/passwd leads out of the folder"),
        ("file,label,split\n1.png,a,held\n", "line 2: no split is called held"),
        ("file,label,split\n1.png,a,\n", "line 2: the split is missing"),
        ('file,label\n"1.png,a\n', "line 2: "),
        ("file,label\n1.png,a\n2.png,b\n3.png,a\n", "labels.csv line 4: "),
        ("file,label\n", "no image is named in labels.csv"),
        ("", "no image is named in labels.csv"),
    ],
)
def test_a_wrong_table_is_explained_with_its_line(tmp_path, rows, words):
    fill(tmp_path, "1.png", "2.png")
    (tmp_path / "labels.csv").write_text(rows)
    assert words in refused(tmp_path)


@pytest.mark.parametrize("path", ["labels.csv", "."])
def test_what_may_not_be_read(tmp_path, monkeypatch, path):
    (tmp_path / "labels.csv").write_text("file,label\n1.png,a\n")

    def refuse(place, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(place))

    monkeypatch.setattr(*((Path, "read_text") if path == "labels.csv" else (os, "scandir")), refuse)
    assert refused(tmp_path).endswith(": permission denied | `ls -l` says who may read it")


def test_a_table_in_another_encoding(tmp_path):
    (tmp_path / "labels.csv").write_bytes("file,label\n1.png,Bär\n".encode("latin-1"))
    assert "UTF-8" in refused(tmp_path)


def test_images_that_the_table_lacks_are_counted(tmp_path, capsys):
    fill(tmp_path, *(f"{i}.png" for i in range(9)))
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(6)))
    folder(str(tmp_path))
    assert "left out 3 images outside of labels.csv (6.png, ...)" in capsys.readouterr().err


def test_what_systems_put_into_folders_is_passed_over(tmp_path, capsys):
    classes(tmp_path)
    fill(tmp_path, "__MACOSX/cat/1.png", ".hidden/1.png", "cat/.1.png", "cat/__MACOSX/2.png")
    for name in ("cat/Thumbs.db", "cat/desktop.ini", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    assert sum(sizes(folder(str(tmp_path))).values()) == 40
    assert capsys.readouterr().err == ""


def test_files_that_are_no_images_are_told_once(tmp_path, capsys):
    classes(tmp_path)
    for name in ("cat/notes.txt", "cat/README", "LICENSE", "dog/scan.tiff"):
        (tmp_path / name).write_text("x")
    fill(tmp_path, "stray.png")
    folder(str(tmp_path))
    first, second = capsys.readouterr().err.splitlines()
    assert "left out 4 files not named as PNG, JPEG, BMP, GIF or WebP (LICENSE, ...)" in first
    assert "left out 1 image outside of a class folder (stray.png)" in second


def test_no_folder_no_images_no_classes(tmp_path):
    assert f"no such folder: {tmp_path / 'none'}" in refused(tmp_path / "none")
    assert "no images" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert "is a file, not a folder" in refused(tmp_path / "notes.txt")
    fill(tmp_path, "1.png", "2.png")
    assert "no image is in a class folder" in refused(tmp_path)
    fill(tmp_path, "cat/1.png")
    assert "only one class: cat" in refused(tmp_path)
    shutil.rmtree(tmp_path / "cat")
    fill(tmp_path, "images/cat/1.png", "images/dog/1.png")
    assert f"did you mean {tmp_path / 'images'}?" in refused(tmp_path)


def test_a_folder_may_be_for_tests_only(tmp_path, capsys):
    fill(tmp_path / "folders", "val/cat/1.png", "test/dog/1.png", "test/cat/2.png")
    loaded = folder(str(tmp_path / "folders"))
    assert (sizes(loaded), loaded.shape, loaded.classes) == ({"validation": 1, "test": 2}, (8, 8, 3), ["cat", "dog"])
    fill(tmp_path / "table", "1.png", "2.png")
    (tmp_path / "table" / "labels.csv").write_text("file,label,split\n1.png,a,test\n2.png,b,test\n")
    assert sizes(folder(str(tmp_path / "table"))) == {"test": 2}
    assert sizes(folder(str(classes(tmp_path / "all")), test="all")) == {"test": 40}
    assert capsys.readouterr().err == ""


def test_classes_that_are_empty_or_stand_in_one_split_only(tmp_path, capsys):
    fill(tmp_path, *(f"train/{name}/{i}.png" for name in "abc" for i in range(4)))
    fill(tmp_path, *(f"test/{name}/{i}.png" for name in "abd" for i in range(2)))
    (tmp_path / "train" / "e").mkdir()
    assert folder(str(tmp_path), validation=0).classes == ["a", "b", "c", "d"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "left out 1 class folder without images (train/e)" in told[0]
    assert "1 class has no images to train on (d)" in told[1]


def test_an_unreadable_folder(tmp_path, monkeypatch):
    classes(tmp_path)
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert f"cannot read the folder {tmp_path / 'dog'}: permission denied" in refused(tmp_path)


# --------------------------------------------------------------------------------------------------------------- links


def test_links_stand_for_images_and_classes_but_circles_of_them_end(tmp_path, capsys):
    store = fill(tmp_path / "store", "1.png", "2.png", "deep/3.png")
    root = classes(tmp_path / "photos", 5, ("cat",))
    (root / "dog").symlink_to(store)
    (root / "cat" / "far.png").symlink_to(store / "1.png")
    (root / "cat" / "down").symlink_to(store)  # a folder below a class
    (root / "up").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "here").symlink_to(".")
    (root / "cat" / "again").symlink_to("../cat")
    (root / "cat" / "circle").symlink_to("circle")
    listing = list_images(root)
    assert {path for path, label, _ in names_of(listing) if label == "dog"} == {
        "dog/1.png", "dog/2.png", "dog/deep/3.png"
    }  # fmt: skip
    assert "cat/far.png" in {file.path for file in listing.files}
    assert sorted(listing.links) == ["cat/again", "cat/down", "here", "up"]
    assert sorted(listing.others) == ["cat/circle", "self"]
    folder(str(root), validation=0, test=0)
    assert "left out 4 links to folders (here, ...)" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- splits


def paths(split):
    return {file.path for file in split}


def test_an_image_stays_in_its_split_when_others_are_added():
    before = [ImageFile(f"cat/{i}.png", "cat") for i in range(0, 3000, 3)]
    after = [ImageFile(f"cat/{i}.png", "cat") for i in range(3000)]
    small, large = (divide(files, validation=0.1, test=0.2) for files in (before, after))
    for name in ("train", "validation", "test"):
        assert paths(small[name]) == paths(large[name]) & paths(before)


def test_the_shares_are_met_and_the_splits_are_apart():
    """Of n images with share p, sqrt(n p (1 - p)) is the deviation of their number."""
    files = [ImageFile(f"{name}/{i}.png", name) for name in "abcd" for i in range(2500)]
    splits = divide(files, validation=0.1, test=0.2)
    assert len(splits["test"]) == pytest.approx(2000, abs=4 * 40)
    assert len(splits["validation"]) == pytest.approx(800, abs=4 * 27)
    assert sum(map(len, splits.values())) == len(set().union(*map(paths, splits.values()))) == 10_000
    for name in "abcd":
        assert sum(file.label == name for file in splits["test"]) == pytest.approx(500, abs=4 * 20)


def test_the_first_images_are_of_all_classes():
    """Of 100 draws a given class of ten is missing with probability 0.9 ** 100 = 0.00003."""
    files = [ImageFile(f"{name}/{i}.png", str(name)) for name in range(10) for i in range(500)]
    first = divide(files, validation=0, test=0)["train"][:100]
    assert {file.label for file in first} == {str(name) for name in range(10)}


def test_numbers_of_images_and_small_folders():
    files = [ImageFile(f"{i}.png", "a") for i in range(10)]
    assert {k: len(v) for k, v in divide(files, validation=3, test=2).items()} == {
        "train": 5, "validation": 3, "test": 2
    }  # fmt: skip
    assert {k: len(v) for k, v in divide(files[:3], validation=0.01, test=0.01).items()} == {
        "train": 1, "validation": 1, "test": 1
    }  # fmt: skip
    assert {k: len(v) for k, v in divide(files[:2], validation=0.9, test=0.9).items()} == {"train": 1, "test": 1}
    assert set(divide(files, validation=0, test=0)) == {"train"}
    with pytest.raises(UsageError, match="data.test 10 leaves nothing of 10 images"):
        divide(files, validation=0, test=10)


def test_the_division_depends_on_names_only(tmp_path):
    """Other content, another place, another process."""
    classes(tmp_path / "here")
    fill(tmp_path / "there", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(20)), image=noise(7, 5))
    code = (
        "import sys; from dlkit.data.folders import divide, list_images;"
        "splits = divide(list_images(sys.argv[1]).files, validation=0.2, test=0.2);"
        "print({name: [file.path for file in files] for name, files in splits.items()})"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / place], capture_output=True, text=True, check=True
        ).stdout
        for place in ("here", "there")
    ]
    assert done[0] == done[1]
    assert "test" in done[0]


def test_another_seed_holds_out_other_images_and_0_the_usual_ones():
    """The places of 0 are by hand: the first 8 bytes of a sha256 sum, such as that of `test/cat/0.png`."""
    files = [ImageFile(f"cat/{i}.png", "cat") for i in range(1000)]
    places = {
        file: int(hashlib.sha256(f"test/{file.path}".encode()).hexdigest()[:16], 16) / 2**64 for file in files
    }  # fmt: skip
    usual, same, other = (paths(divide(files, split_seed=seed)["test"]) for seed in (0, 0, 1))
    assert usual == same == {file.path for file, place in places.items() if place < 0.1}
    assert 60 < len(other) < 140
    assert len(usual & other) < 30, "10 are expected by chance"
    seeds = [paths(divide(files, split_seed=seed)["validation"]) for seed in (0, 1, 2)]
    assert not set.intersection(*seeds) - seeds[0]
    assert seeds[0] != seeds[1] != seeds[2]


@pytest.mark.parametrize(
    ("option", "given", "names"),
    [
        ("validation", 0.2, ["train/a/1.png", "train/b/2.png", "val/a/3.png"]),
        ("split_seed", 3, ["train/a/1.png", "train/b/2.png", "val/a/3.png"]),
        ("test", 1, ["train/a/1.png", "train/b/2.png", "test/a/3.png"]),
        ("test", 0.2, ["train/a/1.png", "train/b/2.png"]),
        ("test", "all", ["train/a/1.png", "train/b/2.png"]),
        ("validation", 5, ["test/a/1.png", "test/b/2.png"]),
    ],
)
def test_a_size_that_nothing_reads_is_refused(tmp_path, option, given, names):
    fill(tmp_path, *names)
    with pytest.raises(UsageError, match=f"data.{option} changes nothing: the data have the splits t.*"):
        folder(str(tmp_path), **{option: given})
    folder(str(tmp_path), **{option: 0})


# -------------------------------------------------------------------------------------------------------------- pixels


def test_images_are_decoded_when_wanted_and_once(tmp_path, monkeypatch):
    classes(tmp_path)
    read = []
    monkeypatch.setattr(folders, "read_image", lambda path, shape: [read.append(path), read_image(path, shape)][1])
    loaded = folder(str(tmp_path))
    assert loaded.shape == (8, 8, 3)
    assert read == []
    test = loaded.splits["test"]
    first = test.fetch(np.arange(len(test)))
    np.testing.assert_array_equal(test.fetch([1, 0, 1]), first[[1, 0, 1]])
    assert len(read) == len(set(read)) == len(test)


def test_a_bad_file_in_another_split_is_no_matter(tmp_path):
    fill(tmp_path, *(f"{split}/{name}/{i}.png" for split in ("train", "test") for name in "ab" for i in range(3)))
    spoil(tmp_path / "train" / "a", len(KINDS))
    loaded = folder(str(tmp_path), size=8, validation=0)
    assert loaded.splits["test"].fetch(np.arange(6)).shape == (6, 8, 8, 3)
    with pytest.raises(DataError, match=str(tmp_path / "train")):
        loaded.splits["train"].fetch(np.arange(6 + len(KINDS)))


def test_alike_images_keep_their_size_and_others_are_made_square(tmp_path, capsys):
    fill(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(9)), image=Image.new("RGB", (30, 20)))
    assert folder(str(tmp_path)).shape == (20, 30, 3)
    assert folder(str(tmp_path), size=16).shape == (16, 16, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 30)).save(tmp_path / "a" / "turned.jpg", exif=exif)  # upright it is 30 x 20
    assert folder(str(tmp_path)).shape == (20, 30, 3)
    fill(tmp_path, "a/odd.png", image=Image.new("RGB", (31, 20)))
    assert folder(str(tmp_path)).shape == (224, 224, 3)
    assert "all images" not in capsys.readouterr().err


def test_large_images_that_are_alike_are_told(tmp_path, capsys):
    fill(tmp_path, "a/1.png", "b/2.png", "b/3.png", image=Image.new("L", (600, 10)))
    folder(str(tmp_path))
    assert "all images are 10x600 and stay so; `--set data.size=224`" in capsys.readouterr().err


def test_gray_when_all_files_are_gray(tmp_path):
    fill(tmp_path, "a/1.png", "b/2.png", image=noise(0, channels=1))
    assert folder(str(tmp_path)).shape == (8, 8, 1)
    fill(tmp_path, "b/3.png")
    assert folder(str(tmp_path)).shape == (8, 8, 3)


def test_images_are_as_predict_reads_them_in_memory_and_not(tmp_path, monkeypatch):
    for i in range(6):
        fill(tmp_path, f"a/{i}.png", f"b/{i}.png", image=noise(i, 10 + 3 * i))
    kept = folder(str(tmp_path), size=12)
    monkeypatch.setattr(folders, "fits_in_memory", lambda images, shape: False)
    lazy = folder(str(tmp_path), size=12)
    assert kept.splits["train"].is_kept
    assert not lazy.splits["train"].is_kept
    files = divide(list_images(tmp_path).files, validation=0.1, test=0.1)
    for name, split in kept.splits.items():
        other = lazy.splits[name]
        rows = np.arange(len(split))
        np.testing.assert_array_equal(split.fetch(rows), other.fetch(rows))
        np.testing.assert_array_equal(split.labels, other.labels)
        for row, file in enumerate(files[name]):
            np.testing.assert_array_equal(split.fetch([row])[0], read_image(tmp_path / file.path, (12, 12, 3)))
            assert kept.classes[split.labels[row]] == file.label
        assert fingerprint(split) == fingerprint(other)
    np.testing.assert_array_equal(statistics(kept.splits["train"]), statistics(lazy.splits["train"]))


def test_the_fingerprint_is_of_the_training_files(tmp_path):
    fill(tmp_path / "a", *(f"train/{name}/{i}.png" for name in "ab" for i in range(4)), "test/a/1.png")
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def now():
        return fingerprint(folder(str(tmp_path / "b"), validation=0).splits["train"])

    first = now()
    assert first == fingerprint(folder(str(tmp_path / "a"), validation=0).splits["train"])
    fill(tmp_path / "b", "test/a/2.png")
    assert now() == first
    (tmp_path / "b/train/a/1.png").write_bytes(encoded(noise(99), "PNG"))  # as long as the one before
    second = now()
    fill(tmp_path / "b", "train/a/9.png")
    third = now()
    (tmp_path / "b/train/a/9.png").rename(tmp_path / "b/train/b/9.png")
    assert len({first, second, third, now()}) == 4


def test_options_are_checked():
    with pytest.raises(UsageError, match=r'data\.on_bad must be one of error, skip, not "stop"'):
        data.load("./x", on_bad="stop")
    with pytest.raises(UsageError, match=r"data\.validation must be"):
        data.load("./x", validation=1.5)
    with pytest.raises(UsageError, match=r"data\.size must be"):
        data.load("./x", size=1_000_000)


def test_a_folder_named_like_another_dataset_is_reached_by_its_path(tmp_path, monkeypatch):
    for name in ("cifar10", "digits"):
        classes(tmp_path / name, 3)
    monkeypatch.chdir(tmp_path)
    for name in ("./cifar10", "cifar10", "./digits", str(tmp_path / "digits")):
        assert data.load(name).classes == ["cat", "dog"]
    assert data.load("digits").classes == [str(digit) for digit in range(10)]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.load("~/cifar10").classes == ["cat", "dog"]


# ---------------------------------------------------------------------------------------------------------- bad images


@pytest.mark.parametrize("lazy", [False, True])
def test_a_bad_image_ends_the_work_with_its_name_or_is_skipped_and_counted(tmp_path, monkeypatch, capsys, lazy):
    """Of all kinds, among them those that only decoding finds."""
    monkeypatch.setattr(folders, "fits_in_memory", lambda images, shape: not lazy)
    for name in spoil(fill(tmp_path / "b", "1.png"), len(KINDS)):
        root = classes(tmp_path / "photos", 6)
        shutil.copy(tmp_path / "b" / name, root / "cat" / name, follow_symlinks=False) if "pipe" not in name else (
            os.mkfifo(root / "cat" / name)
        )
        said = refused(root)
        assert str(root / "cat" / name) in said
        assert f"`dlkit data check {root}`" in said
        assert "`--on-bad skip`" in said
        capsys.readouterr()
        loaded = folder(str(root), on_bad="skip", validation=0, test=0)
        assert sizes(loaded) == {"train": 12}
        assert (loaded.splits["train"].fetch(np.arange(12)).reshape(12, -1).std(axis=1) > 10).all()
        [line] = capsys.readouterr().err.splitlines()
        assert f"skipped 1 of 13 images, which cannot be read; the first: cat/{name} " in line
        shutil.rmtree(root)


def test_skipping_changes_neither_the_division_nor_the_good_images(tmp_path):
    good = folder(str(classes(tmp_path / "good", 30)))
    spoil(classes(tmp_path / "bad", 30) / "dog", 50)
    kept = folder(str(tmp_path / "bad"), on_bad="skip")
    assert sizes(kept) == sizes(good)
    for name in good.splits:
        rows = np.arange(len(good.splits[name]))
        np.testing.assert_array_equal(kept.splits[name].fetch(rows), good.splits[name].fetch(rows))


def test_nothing_is_left_when_all_images_are_bad(tmp_path):
    for name in "ab":
        fill(tmp_path, f"{name}/1.png")
        spoil(tmp_path / name, 20)
        (tmp_path / name / "1.png").unlink()
    assert f"{tmp_path}: none of the 40 images can be read | `dlkit data check" in refused(tmp_path, on_bad="skip")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "b").mkdir()
    for name in "ab":
        (tmp_path / "empty" / name / "1.png").touch()
    assert "none of the 2 images can be read" in refused(tmp_path / "empty")


def test_a_missing_file_of_the_table_is_named_or_skipped(tmp_path, capsys):
    fill(tmp_path, *(f"{i}.png" for i in range(4)))
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(6)))
    said = refused(tmp_path, validation=0, test=0)
    assert f"{tmp_path / 'labels.csv'} line 6: {tmp_path / '4.png'} does not exist" in said
    assert sizes(folder(str(tmp_path), validation=0, test=0, on_bad="skip")) == {"train": 4}
    assert "skipped 2 of 6 images, which cannot be read; the first: 4.png does not exist" in capsys.readouterr().err


def test_odd_images_are_no_bad_ones(tmp_path, capsys):
    classes(tmp_path, 3)
    for name, (_, content) in ODD.items():
        (tmp_path / "cat" / name).write_bytes(content(0))
    assert sizes(folder(str(tmp_path), validation=0, test=0)) == {"train": 6 + len(ODD)}
    assert capsys.readouterr().err == ""


def test_a_thousand_bad_images_among_good_ones(tmp_path, capsys):
    """What is good is left as it is, what is odd is converted, and what is bad is counted."""
    for name in ("cat", "dog"):
        spoil(fill(tmp_path, *(f"{name}/{i}.png" for i in range(100))) / name, 500)
        for kind, (_, content) in ODD.items():
            (tmp_path / name / f"odd_{kind}").write_bytes(content(1000))
    train = folder(str(tmp_path), on_bad="skip", validation=0, test=0).splits["train"]
    assert len(train) == 2 * (100 + len(ODD))
    for label in (0, 1):
        seen = {image.tobytes() for image in train.fetch(np.flatnonzero(train.labels == label))}
        assert seen > {np.asarray(noise(i)).tobytes() for i in range(100)}
    assert f"skipped 1,000 of {1200 + 2 * len(ODD):,} images" in capsys.readouterr().err


# The most that this process has had in memory; what `resource` says may be that of the process that started it.
PEAK = """
import re, sys
from pathlib import Path
from dlkit.data.check import check
from dlkit.data.folders import folder
from PIL import Image, ImageOps
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
folder(sys.argv[1], on_bad="skip", size=32)
check(sys.argv[1])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process takes")
def test_memory_stays_bounded_with_bombs_and_ten_thousand_bad_files(tmp_path):
    """Claims, and honest images of 25 million pixels in a few kB: 25 MB as they are, 100 as RGB, 250 with a copy."""
    classes(tmp_path, 5)
    for i in range(50):
        (tmp_path / "cat" / f"claims{i}.png").write_bytes(png(30_000, 30_000, rows=bytes(1000)))
    rows = (b"\0" + bytes(625)) * 5000  # a filter byte, then 5,000 pixels of one bit
    for i in range(6):
        (tmp_path / "dog" / f"bomb{i}.png").write_bytes(png(5000, 5000, depth=1, rows=rows))
    for kind, (_, content) in ODD.items():
        (tmp_path / "dog" / f"odd_{kind}").write_bytes(content(0))
    spoil(tmp_path / "cat", 10_000)
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path], capture_output=True, text=True, check=True)
    assert f"skipped 10,050 of {10_066 + len(ODD):,} images" in done.stderr
    assert int(done.stdout) < 450, f"{done.stdout} MiB"


# ------------------------------------------------------------------------------------------------------------- threads


def test_results_come_in_order_and_a_failure_ends_the_work():
    assert list(in_threads(lambda item: item**2, range(500), "squares")) == [item**2 for item in range(500)]
    assert list(in_threads(str, [], "nothing")) == []
    begun = []

    def fail(item):
        begun.append(item)
        raise DataError("no")

    with pytest.raises(DataError):
        list(in_threads(fail, range(100_000), "failures"))
    assert len(begun) < 1000


def test_progress_is_told_where_there_is_no_bar(capsys, monkeypatch):
    monkeypatch.setattr(folders, "QUIET", -1)
    list(in_threads(str, range(100), "reading photos"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading photos: 63 of 100"
