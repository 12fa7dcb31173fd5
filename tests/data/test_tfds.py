"""Sets of TensorFlow Datasets. Tiny ones are made by its own machinery, which also reads them to compare with."""

import errno
import http.server
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_set
from PIL import Image
from tensorflow_datasets.core.download import extractor
from tiny_set import CLASSES, COUNTS, NAME, picture

from dlkit import data
from dlkit.cli import main
from dlkit.data import tfds as tfds_module
from dlkit.data import tfds_files, tfds_names, tfds_prepare
from dlkit.data.check import check, decode_all
from dlkit.data.image_files import read_image
from dlkit.data.tfds import tfds_set
from dlkit.errors import DataError, DlkitError, UsageError

VERSION = "1.2.0"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the configurations that tests only read."""
    root = tmp_path_factory.mktemp("prepared")
    for config in ("color", "gray", "alike", "published", "hidden", "renamed", "tested", "texts"):
        tiny_set.build(root, config)
    return root


@pytest.fixture
def root(tmp_path):
    """A folder of its own with one prepared configuration, to be damaged."""
    tiny_set.build(tmp_path)
    return tmp_path


@pytest.fixture
def builder(monkeypatch):
    """The class of the builder, to be changed for a test; its name is among the known ones."""
    monkeypatch.setattr(tfds_names, "names", lambda: [NAME])
    cls = tiny_set.builder_class()
    for name in ("files", "address", "hook", "url_infos", "MANUAL_DOWNLOAD_INSTRUCTIONS"):
        monkeypatch.setattr(cls, name, cls.__dict__.get(name, None))
    return cls


def pixels(split):
    """All images of a split."""
    return split.fetch(np.arange(len(split)))


def numbers(images):
    """Which pictures these are."""
    return images[:, 0, 0, 0].tolist()


def two_lines(failure):
    """The message and the hint of an error, each of which is one line."""
    assert "\n" not in failure.message + failure.hint
    return failure.message, failure.hint


# -------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("options", [{}, {"num_shards": 3}, {"file_format": "array_record"}], ids=str)
@pytest.mark.parametrize("config", ["color", "gray"])
def test_images_and_labels_are_those_that_tensorflow_datasets_reads_in_its_order(tmp_path, config, options):
    theirs = tiny_set.build(tmp_path, config, **options)
    ours = tfds_set(f"{NAME}/{config}", dir=tmp_path, validation=0)
    assert ours.classes == CLASSES
    assert next(iter(ours.splits)) == "train"
    for name, split in ours.splits.items():
        at_random = "file_format" in options
        expected = list(theirs.as_data_source(name) if at_random else tfds.as_numpy(theirs.as_dataset(name)))
        assert len(split) == COUNTS[name]
        np.testing.assert_array_equal(pixels(split), [example["photo"] for example in expected])
        np.testing.assert_array_equal(split.labels, [example["kind"] for example in expected])


def test_pixels_are_those_that_were_put_in(made):
    split = tfds_set(NAME, dir=made).splits["test"]
    images = pixels(split)
    assert (images.dtype, split.labels.dtype) == (np.uint8, np.int32)
    assert sorted(numbers(images)) == list(range(COUNTS["test"]))
    for image, kind in zip(images, split.labels, strict=True):
        np.testing.assert_array_equal(image, picture("test", image[0, 0, 0]))
        assert kind == image[0, 0, 0] % 3


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_decoded_when_wanted_gives_the_same_as_in_memory(tmp_path, monkeypatch, file_format):
    tiny_set.build(tmp_path, file_format=file_format)
    eager = tfds_set(NAME, dir=tmp_path)
    monkeypatch.setattr("dlkit.data.tfds.fits_in_memory", lambda images, shape: False)
    lazy = tfds_set(NAME, dir=tmp_path)
    assert list(lazy.splits) == list(eager.splits) == ["train", "validation", "test"]
    for name, split in lazy.splits.items():
        assert (split.is_kept, eager.splits[name].is_kept) == (False, True)
        assert split.source == eager.splits[name].source != ""
        np.testing.assert_array_equal(split.labels, eager.splits[name].labels)
        rows = np.random.default_rng(0).integers(0, len(split), 50)
        np.testing.assert_array_equal(split.fetch(rows), eager.splits[name].fetch(rows))
        np.testing.assert_array_equal(pixels(split)[rows], eager.splits[name].fetch(rows))
    train = lazy.splits["train"]
    with ThreadPoolExecutor(8) as threads:
        batches = list(threads.map(train.fetch, [np.arange(len(train))] * 40))
    assert all((batch == pixels(eager.splits["train"])).all() for batch in batches)


def test_two_sets_of_the_same_name_and_version_have_different_sources(tmp_path, builder, monkeypatch):
    sources = []
    for folder, files in (("a", []), ("b", [picture("else", number) for number in range(20)])):
        monkeypatch.setattr(builder, "files", files)
        tiny_set.build(tmp_path / folder)
        sources.append(tfds_set(NAME, dir=tmp_path / folder).splits["train"].source)
    assert sources[0] != sources[1]


def test_what_is_read_at_another_size_is_of_the_same_origin(made):
    """Not so another configuration, whose pictures are others, or another split."""
    own, small = (tfds_set(f"{NAME}/color", dir=made, **options).splits for options in ({}, {"size": 3}))
    assert small["test"].shape == (3, 3, 3)
    for split in own:
        assert own[split].origin == small[split].origin != ""
        assert own[split].source != small[split].source
    gray = tfds_set(f"{NAME}/gray", dir=made).splits
    assert len({gray["test"].origin, *(split.origin for split in own.values())}) == 1 + len(own)


@pytest.fixture
def varied(tmp_path, builder, monkeypatch):
    """Picture files of differing size and kind, and the folder in which they are prepared."""
    images = {
        "wide.png": Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)),
        "tall.jpg": Image.radial_gradient("L").convert("RGB").resize((300, 500)),
        "turned.jpg": Image.linear_gradient("L").convert("RGB").resize((90, 40)),
        "turned square.jpg": Image.linear_gradient("L").convert("RGB").resize((224, 224)),
        "gray.png": Image.linear_gradient("L").resize((50, 50)),
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image in images.items():
        image.save(tmp_path / name, **({"exif": exif} if name.startswith("turned") else {}))
    files = [tmp_path / name for name in images]
    monkeypatch.setattr(builder, "files", [str(path) for path in files])
    tiny_set.build(tmp_path / "prepared", "varied")
    return files, tmp_path / "prepared"


@pytest.mark.parametrize(("size", "side"), [(None, 224), (16, 16), (64, 64)])
def test_pictures_that_differ_in_size_become_what_prediction_sees(varied, size, side):
    files, root = varied
    split = tfds_set(f"{NAME}/varied", dir=root, size=size, validation=0).splits["train"]
    expected = {read_image(path, (side, side, 3)).tobytes() for path in files}
    assert split.shape == (side, side, 3)
    assert {image.tobytes() for image in pixels(split)} == expected


def test_pictures_that_are_all_alike_keep_their_size_though_the_set_does_not_promise_it(made):
    assert tfds_set(f"{NAME}/alike", dir=made).shape == (4, 5, 3)
    assert tfds_set(f"{NAME}/alike", dir=made, size=9).shape == (9, 9, 3)


def test_pictures_are_alike_when_they_are_so_upright(tmp_path, builder, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 90)).save(tmp_path / "a.jpg")
    Image.new("RGB", (90, 40)).save(tmp_path / "b.jpg", exif=exif)
    monkeypatch.setattr(builder, "files", [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "a.jpg")])
    tiny_set.build(tmp_path, "varied")
    assert tfds_set(f"{NAME}/varied", dir=tmp_path).shape == (90, 40, 3)


def test_gray_stays_gray(made):
    assert tfds_set(f"{NAME}/gray", dir=made).shape == (4, 5, 1)
    assert tfds_set(f"{NAME}/gray", dir=made, size=9).shape == (9, 9, 1)


def test_reading_loads_neither_tensorflow_nor_its_datasets(made):
    assert process("load", made).communicate() == ("20 False False\n", "")


# --------------------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize(
    ("config", "validation", "sizes"),
    [
        ("color", 0.1, {"train": 18, "validation": 2, "test": 6}),
        ("color", 5, {"train": 15, "validation": 5, "test": 6}),
        ("color", 0, {"train": 20, "test": 6}),
        ("gray", 0.1, {"train": 20, "validation": 8, "test": 6}),  # has its own
        ("published", 0.1, {"train": 18, "validation": 2, "test": 8}),
        ("hidden", 0.1, {"train": 18, "validation": 2, "test": 8}),  # of its test split the labels are secret
        ("renamed", 0.1, {"train": 18, "validation": 2, "test": 8, "extra": 8}),
    ],
)
def test_splits_are_called_by_what_they_are_for(made, config, validation, sizes):
    loaded = tfds_set(f"{NAME}/{config}", dir=made, validation=validation)
    assert {name: len(split) for name, split in loaded.splits.items()} == sizes


def test_what_was_published_on_is_the_test_split_and_validation_comes_from_training(made):
    splits = tfds_set(f"{NAME}/published", dir=made).splits
    for number, image in zip(numbers(pixels(splits["test"])), pixels(splits["test"]), strict=True):
        np.testing.assert_array_equal(image, picture("validation", number))
    held, kept = numbers(pixels(splits["validation"])), numbers(pixels(splits["train"]))
    assert sorted(held + kept) == list(range(COUNTS["train"]))


def test_unlabelled_images_of_a_labelled_split_are_left_out(tmp_path, builder, monkeypatch):
    monkeypatch.setattr(tiny_set, "label", lambda number: -1 if number < 3 else 1)
    tiny_set.build(tmp_path)
    split = tfds_set(NAME, dir=tmp_path).splits["test"]
    assert sorted(numbers(pixels(split))) == [3, 4, 5]
    assert split.labels.tolist() == [1, 1, 1]


def test_a_set_without_training_images_is_for_tests(made):
    loaded = tfds_set(f"{NAME}/tested", dir=made)
    assert {name: len(split) for name, split in loaded.splits.items()} == {"test": COUNTS["test"]}
    assert loaded.shape == (4, 5, 3)


def test_a_set_without_any_labels(tmp_path, builder, monkeypatch):
    monkeypatch.setattr(tiny_set, "label", lambda number: -1)
    tiny_set.build(tmp_path)
    with pytest.raises(UsageError, match="has no image with a class: its splits are train, test"):
        tfds_set(NAME, dir=tmp_path)


def test_a_size_of_validation_for_a_set_that_has_its_own(made):
    with pytest.raises(
        UsageError, match=r"data\.validation changes nothing: the data have the splits train, validation"
    ):
        tfds_set(f"{NAME}/gray", dir=made, validation=5)


def test_a_split_is_decoded_when_it_is_wanted(made, monkeypatch):
    decoded = []
    inner = tfds_module.decode
    monkeypatch.setattr(
        tfds_module, "decode", lambda encoded, shape: [decoded.append(encoded), inner(encoded, shape)][1]
    )
    splits = tfds_set(NAME, dir=made).splits
    assert decoded == []
    for _ in range(2):
        pixels(splits["test"])
        assert len(decoded) == COUNTS["test"]


def test_a_set_of_something_else_is_refused_with_what_it_has(made):
    with pytest.raises(UsageError) as caught:
        tfds_set(f"{NAME}/texts", dir=made)
    message, hint = two_lines(caught.value)
    assert message == f"{NAME}/texts has no images with a class each: it has title (text)"
    assert "cifar10" in hint


# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("cifar10", ("cifar10", "", "")),
        ("imagenette/160px-v2", ("imagenette", "160px-v2", "")),
        ("cifar10:3.0.2", ("cifar10", "", "3.0.2")),
        ("a/b.c+d:1.*.*", ("a", "b.c+d", "1.*.*")),
        ("mnist:*", ("mnist", "", "*")),
        ("ns:mnist", None),
        ("mnist:latest", None),
        ("huggingface:mnist:3.0.2", None),
        ("a/..", None),
        ("a/../b", None),
        ("a/b/c", None),
        ("Cifar10", None),
        ("", None),
        ("mnist:1.0", None),
        ("mnist\n", None),
        ("mnist/arg=1", None),
    ],
)
def test_a_name_is_a_set_a_configuration_and_a_version(text, parts):
    assert tfds_names.parse(text) == parts


def test_the_sets_of_the_package_are_found_without_importing_it():
    known = set(tfds_names.names())
    of_tests = {"tiny_captions", "tiny_pictures", "tiny_reviews", "tiny_talk"}  # registered by whoever ran before
    imported = set(tfds.list_builders(with_community_datasets=False)) - of_tests
    assert len(imported - known) < 0.01 * len(imported)  # those that are hidden deeper, none of images
    assert len(known - imported) < 0.01 * len(imported)
    images = set(tfds_names.image_names())
    assert {"cifar10", "cifar100", "mnist", "fashion_mnist", "imagenette", "imagenet2012", "svhn_cropped"} <= images
    assert images <= imported


def test_the_default_folder_is_that_of_tensorflow_datasets(monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert tfds_names.data_dir() == Path.home() / "tensorflow_datasets"
    assert tfds_names.shown(tfds_names.data_dir() / "x") == "~/tensorflow_datasets/x"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "a"))
    assert tfds_names.data_dir() == tmp_path / "a"
    assert tfds_names.data_dir(tmp_path / "b") == tmp_path / "b"


def test_a_set_of_the_users_own_is_known_where_it_lies(made, monkeypatch, tmp_path):
    (tmp_path / "downloads" / NAME).mkdir(parents=True)
    for name in (NAME, "downloads"):
        with pytest.raises(UsageError, match="unknown dataset"):
            data.builder(name, tmp_path)
    assert data.load(NAME, dir=made).shape == (4, 5, 3)
    monkeypatch.setenv("TFDS_DATA_DIR", str(made))
    assert data.load(f"{NAME}/gray").shape == (4, 5, 1)
    assert f"{NAME}/gray" in tfds_names.prepared(made)
    with pytest.raises(UsageError) as caught:
        data.builder("tiny_picture/gray", made)
    assert f"did you mean `{NAME}/gray`?" in caught.value.hint


def test_the_newest_version_that_fits_is_read(root):
    first = root / NAME / "color"
    shutil.copytree(first / VERSION, first / "1.10.0")
    found = {text: tfds_files.find(f"{NAME}/color{text}", root).folder.name for text in ("", ":*", ":1.2.0", ":1.2.*")}
    assert found == {"": "1.10.0", ":*": "1.10.0", ":1.2.0": "1.2.0", ":1.2.*": "1.2.0"}
    with pytest.raises(tfds_files.NotPrepared) as caught:
        tfds_files.find(f"{NAME}/color:2.0.0", root)
    message, hint = two_lines(caught.value)
    assert message == f"{NAME}/color:2.0.0 is not prepared in {root}"
    assert hint.endswith(f"prepared there: {NAME}/color:1.2.0, {NAME}/color:1.10.0")


def test_without_a_configuration_the_default_one_is_meant(root):
    assert tfds_files.find(NAME, root).folder.parent.name == "color"
    shutil.rmtree(root / NAME / "color")
    tiny_set.build(root, "gray")
    with pytest.raises(tfds_files.NotPrepared) as caught:
        tfds_files.find(NAME, root)
    assert caught.value.hint.endswith(f"prepared there: {NAME}/gray")


# -------------------------------------------------------------------------------------------------------- half prepared


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def first_record(path):
    return 16 + int.from_bytes(path.read_bytes()[:8], "little")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


TRAIN = f"{NAME}-train.tfrecord-00000-of-00001"
DAMAGES = {
    "no info": lambda folder: (folder / "dataset_info.json").unlink(),
    "half an info": lambda folder: cut(folder / "dataset_info.json", 100),
    "an info of something else": lambda folder: (folder / "dataset_info.json").write_text("[]"),
    "an info without splits' names": lambda folder: edit(folder / "dataset_info.json", splits=[{}]),
    "a path out of the folder": lambda folder: edit(
        folder / "dataset_info.json",
        splits=[{"name": "train", "shardLengths": ["20"], "filepathTemplate": f"../{VERSION}/{TRAIN}"}],
    ),
    "no features": lambda folder: (folder / "features.json").unlink(),
    "no file": lambda folder: (folder / TRAIN).unlink(),
    "an empty file": lambda folder: cut(folder / TRAIN, 0),
    "a file cut in a header": lambda folder: cut(folder / TRAIN, first_record(folder / TRAIN) + 5),
    "a file cut in a record": lambda folder: cut(folder / TRAIN, -30),
    "a file cut between records": lambda folder: cut(folder / TRAIN, first_record(folder / TRAIN)),
    "a file too long": lambda folder: (folder / TRAIN).write_bytes(2 * (folder / TRAIN).read_bytes()),
    "another file": lambda folder: (folder / TRAIN).write_bytes(os.urandom(5000)),
    "only an interrupted attempt": lambda folder: folder.rename(folder.parent / "incomplete.ABCDEF_1.2.0"),
}


@pytest.mark.parametrize(("key", "value"), [("validation", 1.5), ("validation", -1), ("size", 1_000_000), ("size", 0)])
def test_sizes_that_cannot_be_are_refused_before_anything_is_read(root, key, value):
    with pytest.raises(UsageError, match=key):
        data.load(NAME, dir=root, **{key: value})


def test_half_of_a_newer_version_hides_no_whole_one(root):
    first = root / NAME / "color"
    for damage, version in (("no file", "1.10.0"), ("no features", "2.0.0")):
        shutil.copytree(first / VERSION, first / version)
        DAMAGES[damage](first / version)
    assert tfds_files.find(NAME, root).folder.name == VERSION
    shutil.rmtree(first / VERSION)
    with pytest.raises(tfds_files.NotPrepared, match=r"only half prepared in .*/2\.0\.0"):
        tfds_files.find(NAME, root)


@pytest.mark.parametrize("damage", DAMAGES)
def test_half_a_set_is_noticed_in_one_line_and_made_whole_by_prepare(root, builder, damage):
    DAMAGES[damage](root / NAME / "color" / VERSION)
    with pytest.raises(DataError) as caught:
        tfds_set(NAME, dir=root)
    message, hint = two_lines(caught.value)
    assert message.startswith(f"{NAME} is only half prepared in {root}")
    assert hint == f"`dlkit data prepare {NAME} --data-dir {root}` does it again"
    tfds_prepare.prepare(NAME, root, agreed=True)
    assert len(tfds_set(NAME, dir=root, validation=0).splits["train"]) == COUNTS["train"]


def put(path, pattern, number, new):
    """Writes over a file from the place where it holds a pattern for the time of this number."""
    content = path.read_bytes()
    place = [match.start() for match in re.finditer(pattern, content)][number]
    path.write_bytes(content[:place] + new + content[place + len(new) :])


# What is wrong within files that are as long as they should be: what does it, and how it is called.
SPOILT = {
    "a picture": (lambda folder: put(folder / TRAIN, rb"IDAT", 3, bytes(8)), "image 3 of train cannot be decoded"),
    "a record": (
        lambda folder: put(folder / TRAIN, rb"photo", 3, b"\xff" * 5),
        f"a record of {TRAIN} does not hold what it should",
    ),
    "the names of the classes": (
        lambda folder: (folder / "kind.labels.txt").write_text("circle\nsquare\n"), "class 2 occurs, and it has 2"
    ),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
@pytest.mark.parametrize("lazily", [False, True])
def test_damage_within_files_is_named_and_what_is_said_mends_it(root, builder, monkeypatch, spoilt, lazily):
    """Preparing the set again does not: its files are as long as they should be, and their records as many."""
    damage, reason = SPOILT[spoilt]
    folder = root / NAME / "color" / VERSION
    damage(folder)
    if lazily:
        monkeypatch.setattr("dlkit.data.tfds.fits_in_memory", lambda images, shape: False)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            decode_all(tfds_set(NAME, dir=root, validation=0))
        message, hint = two_lines(caught.value)
        assert message == f"{NAME} is damaged in {folder}: {reason}"
        tfds_prepare.prepare(NAME, root, agreed=True)
    assert hint == f"move this folder away, then `dlkit data prepare {NAME} --data-dir {root}` makes it anew"
    folder.rename(root / "away")
    tfds_prepare.prepare(NAME, root, agreed=True)
    decode_all(tfds_set(NAME, dir=root, validation=0))


def test_damaged_compression_is_named(tmp_path):
    """An ArrayRecord has a checksum of each chunk; the end of the file, where all are listed, is whole here."""
    built = tiny_set.build(tmp_path, file_format="array_record")
    (path,) = Path(built.data_dir).glob("*-train.array_record-*")
    content = path.read_bytes()
    assert len(content) > 2000
    path.write_bytes(content[:1000] + bytes(64) + content[1064:])
    with pytest.raises(DataError, match=r"is damaged in .*: a record of .* does not hold what it should"):
        decode_all(tfds_set(NAME, dir=tmp_path))


def test_a_damaged_picture_that_does_not_fit_into_memory_is_named_when_it_is_wanted(root, monkeypatch):
    put(root / NAME / "color" / VERSION / TRAIN, rb"IDAT", 3, bytes(8))
    monkeypatch.setattr("dlkit.data.tfds.fits_in_memory", lambda images, shape: False)
    train = tfds_set(NAME, dir=root, validation=0).splits["train"]
    assert len(train.fetch([0, 1, 2])) == 3
    with pytest.raises(DataError, match="image 3 of train cannot be decoded"):
        train.fetch([0, 1, 2, 3])


@pytest.mark.parametrize("which", [0, 3])
def test_a_damaged_picture_of_a_set_of_any_size_is_named_when_it_is_wanted(tmp_path, which):
    """Sizes are looked up in the pictures themselves, of which this one is none any more."""
    tiny_set.build(tmp_path, "alike")
    put(tmp_path / NAME / "alike" / VERSION / TRAIN, rb"\x89PNG", which, bytes(8))
    loaded = tfds_set(f"{NAME}/alike", dir=tmp_path)
    assert loaded.shape == (4, 5, 3)
    assert pixels(loaded.splits["test"]).shape == (6, 4, 5, 3)
    for look in (lambda: decode_all(loaded), lambda: check(f"{NAME}/alike", data_dir=tmp_path)):
        with pytest.raises(DataError, match=f"image {which} of train cannot be decoded"):
            look()


def test_a_picture_that_does_not_fit_into_memory_is_decoded_before_training(root, monkeypatch):
    monkeypatch.setattr("dlkit.data.tfds.fits_in_memory", lambda images, shape: False)
    put(root / NAME / "color" / VERSION / TRAIN.replace("train", "test"), rb"IDAT", -1, bytes(8))
    with pytest.raises(DataError, match="image 5 of test cannot be decoded"):
        decode_all(tfds_set(NAME, dir=root))


@pytest.mark.parametrize("keep", [-1, 40, 0])
def test_half_an_array_record_is_noticed(tmp_path, keep):
    builder = tiny_set.build(tmp_path, file_format="array_record")
    (path,) = Path(builder.data_dir).glob("*-train.array_record-*")
    cut(path, keep)
    with pytest.raises(DataError, match="only half prepared"):
        tfds_set(NAME, dir=tmp_path)


def test_a_format_that_cannot_be_read_is_named(root):
    edit(root / NAME / "color" / VERSION / "dataset_info.json", fileFormat="riegeli")
    with pytest.raises(DataError, match="is prepared as riegeli"):
        tfds_set(NAME, dir=root)


# --------------------------------------------------------------------------------------------------------- not prepared


@pytest.fixture
def no_network(monkeypatch):
    def refuse(request, timeout):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_without_a_network_the_line_says_what_to_do_on_another_machine(tmp_path, no_network):
    with pytest.raises(DataError) as caught:
        tfds_set("cifar10", dir=tmp_path)
    message, hint = two_lines(caught.value)
    assert message == f"cifar10 is not prepared in {tmp_path}, and its source cannot be reached"
    assert hint.startswith("on a machine with a network run `dlkit data prepare cifar10`, then copy the folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "is_its_own"),
    [
        (f"{NAME}/pictures.bin", True),
        (f"{NAME}/pictures.bin.tmp.0123/pictures.bin", False),  # cut off
        ("other/pictures.bin", False),
        ("manual/pictures.tar", False),
    ],
)
def test_only_what_was_downloaded_of_a_set_does_without_a_network(
    tmp_path, no_network, builder, monkeypatch, file, is_its_own
):
    path = tmp_path / "downloads" / file
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setattr(tfds_names, "downloads", lambda dataset: {"http://example.org/pictures.bin": 1})
    monkeypatch.setattr(tfds_prepare, "_carry_out", lambda plan: "it begins")
    unreachable = f"{NAME}/fetched is not prepared in {tmp_path}, and its source cannot be reached"
    with pytest.raises(tfds_files.NotPrepared) as caught:  # nobody can be asked here
        tfds_set(f"{NAME}/fetched", dir=tmp_path)
    message, hint = two_lines(caught.value)
    if is_its_own:
        assert message == f"{NAME}/fetched is not prepared in {tmp_path}"
        assert hint == f"`dlkit data prepare {NAME}/fetched --data-dir {tmp_path}` does it"
        assert tfds_prepare.prepare(f"{NAME}/fetched", tmp_path, agreed=True) == "it begins"
    else:
        assert message == unreachable
        monkeypatch.setattr(tfds_prepare, "_ask", lambda plan: pytest.fail("it asked in vain"))
        with pytest.raises(tfds_files.NotPrepared) as caught:
            tfds_prepare.prepare(f"{NAME}/fetched", tmp_path)
        assert caught.value.message == unreachable


def test_a_configuration_that_there_is_not_is_told_without_a_network(tmp_path, no_network, builder, monkeypatch):
    monkeypatch.setattr(tfds_names, "names", lambda: [NAME])
    with pytest.raises(UsageError, match=f"unknown configuration of {NAME}: grey") as caught:
        tfds_set(f"{NAME}/grey", dir=tmp_path)
    assert "`gray`" in caught.value.hint
    monkeypatch.setattr(builder, "BUILDER_CONFIGS", [])
    with pytest.raises(UsageError, match=f"{NAME} has no configurations: {NAME}/grey") as caught:
        tfds_set(f"{NAME}/grey", dir=tmp_path)
    assert caught.value.hint == f"did you mean `{NAME}`?"


def test_nothing_is_downloaded_where_nobody_can_be_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_prepare, "_can_be_reached", lambda addresses: True)
    monkeypatch.setattr(tfds_prepare, "prepare", lambda *arguments, **options: pytest.fail("it began"))
    with pytest.raises(DataError) as caught:
        tfds_set("cifar10", dir=tmp_path)
    message, hint = two_lines(caught.value)
    assert message == f"cifar10 is not prepared in {tmp_path}"
    assert hint == f"`dlkit data prepare cifar10 --data-dir {tmp_path}` does it"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def cluster(index):
    return json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": index}})


@pytest.mark.parametrize(
    ("stdin", "stderr", "config", "quiet", "expected"),
    [
        (Terminal, Terminal, None, False, True),
        (io.StringIO, Terminal, None, False, False),
        (Terminal, io.StringIO, None, False, False),
        (Terminal, Terminal, None, True, False),
        (Terminal, Terminal, cluster(0), False, True),
        (Terminal, Terminal, cluster(1), False, False),
    ],
)
def test_who_may_be_asked(monkeypatch, stdin, stderr, config, quiet, expected):
    monkeypatch.setattr(sys, "stdin", stdin())
    monkeypatch.setattr(sys, "stderr", stderr())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("dlkit.console.settings.quiet", quiet)
    if config:
        monkeypatch.setenv("TF_CONFIG", config)
    assert tfds_prepare.may_ask() is expected


@pytest.mark.parametrize("answer", ["y\n", "YES\n", "n\n", "\n", ""])
def test_a_question_is_asked_with_sizes_and_place_first(tmp_path, builder, monkeypatch, capsys, answer):
    address = "http://127.0.0.1:9/pictures"
    monkeypatch.setattr(builder, "address", address)
    monkeypatch.setattr(
        builder, "url_infos", {address: tfds.core.download.checksums.UrlInfo(2_500_000, "0" * 64, None)}
    )
    monkeypatch.setattr(tfds_prepare, "_can_be_reached", lambda addresses: True)
    monkeypatch.setattr(tfds_prepare, "may_ask", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    agreed = answer.strip().lower() in {"y", "yes"}
    with pytest.raises(DataError) as caught:  # agreed or not: nobody serves the pictures
        tfds_set(f"{NAME}/fetched", dir=tmp_path)
    assert ("cannot be reached" in caught.value.message) is agreed
    assert capsys.readouterr().err.splitlines() == [
        f"{NAME}/fetched: 2.5 MB to download, up to 7.5 MB on disk, to be prepared in {tmp_path}",
        "go on? [y/N]",
    ]


def test_what_has_no_labelled_images_is_not_even_downloaded(tmp_path, builder, monkeypatch):
    monkeypatch.setattr(tfds_prepare, "may_ask", lambda: True)
    monkeypatch.setattr(tfds_prepare, "_carry_out", lambda plan: pytest.fail("it began"))
    with pytest.raises(UsageError, match=r"no images with a class each: it has title \(text\)"):
        tfds_set(f"{NAME}/texts", dir=tmp_path)


def test_the_download_of_a_configuration_is_that_of_its_own_files(tmp_path):
    # The sizes of the archives as the authors of Imagenette publish them, by way of the package's list of checksums.
    assert tfds_prepare._plan("imagenette/160px-v2", tmp_path).download == 99_003_388
    assert tfds_prepare._plan("cifar10", tmp_path).download == 170_052_171
    assert tfds_prepare._plan("mnist", tmp_path).download == 9_912_422 + 28_881 + 1_648_877 + 4_542


# ------------------------------------------------------------------------------------------------------------ preparing


@pytest.fixture
def served():
    """A server of this machine whose answers are set as `served.answer`; `served.address` is its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked += 1
            server.answer(self)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.closing = 0, threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}/pictures.bin"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


def give(content, *, length=None, code=200):
    def answer(request):
        request.send_response(code)
        request.send_header("Content-Length", str(len(content) if length is None else length))
        request.end_headers()
        request.wfile.write(content)

    return answer


def prepare_from(served, builder, monkeypatch, root, answer):
    served.answer = answer
    monkeypatch.setattr(builder, "address", served.address)
    return tfds_prepare.prepare(f"{NAME}/fetched", root, agreed=True)


def left_in(root):
    """What is in a folder of prepared data, but for the lock."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - {f".dlkit/{NAME}.lock"}


def test_prepare_downloads_and_says_nothing_of_its_own(tmp_path, builder, monkeypatch, served, capfd):
    prepared = prepare_from(served, builder, monkeypatch, tmp_path, give(b"x" * 100_000))
    assert prepared.sizes == {"train": COUNTS["train"]}
    assert prepared.folder == tmp_path / NAME / "fetched" / VERSION
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"{NAME}/fetched: a download of unknown size, to be prepared in {tmp_path}\n"
    assert not (tmp_path / ".dlkit" / NAME).exists()
    again = tfds_prepare.prepare(f"{NAME}/fetched", tmp_path)  # agreed to nothing, for nothing is to be done
    assert (again, served.asked) == (prepared, 1)
    # And TensorFlow Datasets finds it where it looks itself.
    assert tiny_set.builder_class()(data_dir=tmp_path, config="fetched").is_prepared()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (give(b"", code=404), "its source does not give it: Failed to get url .* HTTP code: 404"),
        (give(b"x" * 10, length=1000), "cannot be reached"),  # the connection breaks off
        (lambda request: request.server.closing.wait(15), "cannot be reached"),
    ],
    ids=["not found", "cut off", "silent"],
)
def test_a_source_that_fails_is_one_line_soon_and_leaves_nothing(
    tmp_path, builder, monkeypatch, served, answer, message
):
    monkeypatch.setattr(tfds_prepare, "CONNECT", 0.2)
    monkeypatch.setattr(tfds_prepare, "READ", 0.2)
    started = time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        prepare_from(served, builder, monkeypatch, tmp_path, answer)
    two_lines(caught.value)
    assert time.monotonic() - started < 8
    assert left_in(tmp_path) == set()


def test_a_download_that_is_interrupted_ends_at_once_and_leaves_nothing(tmp_path, builder, monkeypatch, served, capsys):
    def answer(request):
        give(b"x" * 10, length=1000)(request)
        request.wfile.flush()
        time.sleep(0.5)  # until it waits: a library that handles something else just then might swallow the first one
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        request.server.closing.wait(60)

    served.answer = answer
    monkeypatch.setattr(builder, "address", served.address)
    monkeypatch.setattr(tfds_names, "image_names", lambda: [NAME])
    started = time.monotonic()
    assert main(["data", "prepare", f"{NAME}/fetched", "--yes", "--data-dir", str(tmp_path)]) == 143
    assert time.monotonic() - started < 20, "not the 60 s in which more might come"
    assert capsys.readouterr().err.splitlines()[1:] == [
        "error: interrupted",
        f"hint: `dlkit data prepare {NAME}/fetched --data-dir {tmp_path}` begins anew, with those files that have come"
        " whole",
    ]
    assert left_in(tmp_path) == set()
    assert not (tmp_path / ".dlkit" / NAME).exists()


def test_after_an_interrupt_an_archive_is_unpacked_no_further(tmp_path, builder):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.txt", "x")
    before = extractor.iter_archive, extractor._copy
    with tfds_prepare._downloading(tfds_prepare._Plan(NAME, tmp_path, builder(data_dir=tmp_path), None)):
        members = extractor.iter_archive(tmp_path / "pictures.zip", tfds.download.ExtractMethod.ZIP)
        copy = extractor._copy
        assert next(members)[0] == "0.txt"
        copy(b"x", str(tmp_path / "0.txt"))
        assert (tmp_path / "0.txt").read_bytes() == b"x"
    with pytest.raises(ConnectionAbortedError):
        next(members)
    with pytest.raises(ConnectionAbortedError):
        copy(b"x", str(tmp_path / "1.txt"))
    assert not (tmp_path / "1.txt").exists()
    assert (extractor.iter_archive, extractor._copy) == before


def test_a_download_that_is_not_what_was_published_is_refused(tmp_path, builder, monkeypatch, served):
    expected = tfds.core.download.checksums.UrlInfo(3, "0" * 64, "pictures.bin")
    monkeypatch.setattr(builder, "url_infos", {served.address: expected})
    with pytest.raises(DataError, match="is not what was published"):
        prepare_from(served, builder, monkeypatch, tmp_path, give(b"abc"))
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "cannot write to ROOT: no space left on device"),
        (RuntimeError("ResourceExhaustedError: /x; No space left on device"), 1, "cannot write to ROOT: no space left"),
        (PermissionError(errno.EACCES, "Permission denied"), 1, "cannot write to ROOT: permission denied"),
        (ImportError("No module named 'cv2'", name="cv2"), 3, "NAME cannot be prepared: No module named 'cv2'"),
        (ValueError("odd\nvery odd"), 3, "NAME could not be prepared in ROOT: ValueError: odd"),
    ],
)
def test_whatever_fails_is_one_line_and_leaves_what_was_there(root, builder, monkeypatch, failure, code, message):
    def fail():
        raise failure

    before = left_in(root)
    monkeypatch.setattr(builder, "hook", staticmethod(fail))
    with pytest.raises(DlkitError) as caught:
        tfds_prepare.prepare(f"{NAME}/gray", root, agreed=True)
    assert two_lines(caught.value)[0].startswith(message.replace("ROOT", str(root)).replace("NAME", f"{NAME}/gray"))
    assert caught.value.code == code
    assert left_in(root) == before


def test_too_little_room_is_told_before_the_download(tmp_path, builder, monkeypatch):
    plan = tfds_prepare._Plan(NAME, tmp_path, builder(data_dir=tmp_path), 10**18)
    monkeypatch.setattr(tfds_prepare, "_plan", lambda name, root: plan)
    with pytest.raises(DlkitError, match=r"takes up to 3,?000,?000,?000\.0 GB on disk, and .* are free in "):
        tfds_prepare.prepare(NAME, tmp_path, agreed=True)


def test_files_that_the_user_has_to_fetch(tmp_path, builder, monkeypatch):
    monkeypatch.setattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", "Register at example.org,\n  then fetch pictures.tar.")
    with pytest.raises(DataError) as caught:
        tfds_prepare.prepare(f"{NAME}/manual", tmp_path, agreed=True)
    message, hint = two_lines(caught.value)
    assert message == f"{NAME}/manual has to be fetched by hand: put its files into {tmp_path}/downloads/manual"
    assert hint == "Register at example.org, then fetch pictures.tar."
    (tmp_path / "downloads" / "manual").mkdir(parents=True)
    (tmp_path / "downloads" / "manual" / "pictures.tar").touch()
    assert tfds_prepare.prepare(f"{NAME}/manual", tmp_path, agreed=True).sizes == {"train": 20}


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        (f"{NAME}/grey", f"unknown configuration of {NAME}: grey", "did you mean `gray`?"),
        (f"{NAME}:9.9.9", f"{NAME} cannot be prepared in version 9.9.9", "in version 1.2.0 it can"),
        ("tiny_picture", "unknown dataset: tiny_picture", "`dlkit data list` lists all"),
        ("ns:tiny_pictures", "ns:tiny_pictures is no name of TensorFlow Datasets", "such as"),
    ],
)
def test_a_name_that_cannot_be_prepared(tmp_path, builder, name, message, hint):
    with pytest.raises(UsageError) as caught:
        tfds_prepare.prepare(name, tmp_path, agreed=True)
    assert caught.value.message == message
    assert caught.value.hint.startswith(hint)


# ---------------------------------------------------------------------------------------------------- several processes


def process(command, root, **environment):
    return subprocess.Popen(
        [sys.executable, tiny_set.__file__, command, str(root)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


WAITING = f"{NAME} is being prepared by another process: waiting for it\n"


def test_who_comes_while_a_set_is_prepared_waits_and_uses_it(tmp_path, builder, monkeypatch):
    others = []

    def start_others():
        if not others:
            others.extend([process("prepare", tmp_path), process("load", tmp_path)])
            assert [other.stderr.readline() for other in others] == [WAITING] * 2

    monkeypatch.setattr(builder, "hook", staticmethod(start_others))
    tfds_prepare.prepare(NAME, tmp_path, agreed=True)
    (_, prepared), (loaded, nothing_more) = (other.communicate(timeout=60) for other in others)
    assert [other.returncode for other in others] == [0, 0]
    assert prepared == f"{NAME} is prepared in {tmp_path}/{NAME}/color/{VERSION}: 20 train, 6 test\n"
    assert (loaded, nothing_more) == ("20 False False\n", "")


def test_a_kill_while_a_set_is_prepared_leaves_room_for_who_waits(root, builder, monkeypatch, capsys):
    kept = root / "kept"
    (root / NAME).rename(kept)
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    marks = root / "marks"
    marks.mkdir()
    victim = process("prepare", root, TINY_MARKS=str(marks))
    wait_for(lambda: list(marks.iterdir()))
    begun = root / ".dlkit" / NAME
    assert list(begun.rglob("incomplete.*"))
    threading.Timer(0.5, victim.send_signal, [signal.SIGKILL]).start()
    monkeypatch.setattr(builder, "hook", staticmethod(lambda: None))
    prepared = tfds_prepare.prepare(NAME, root, agreed=True)
    assert capsys.readouterr().err.startswith(WAITING)
    assert victim.communicate()[0] == ""
    assert victim.returncode == -signal.SIGKILL
    tfds_files.verify(prepared)
    assert len(tfds_set(NAME, dir=root, validation=0).splits["train"]) == COUNTS["train"]
    assert not begun.exists()
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before
