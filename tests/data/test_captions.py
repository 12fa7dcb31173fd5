"""Images with captions from files: layouts, splits, Flickr8k with its oddities, what is left out, and mistakes."""

import gzip
import tarfile

import numpy as np
import pytest
from PIL import Image

from dlkit import console, data
from dlkit.data import text_files
from dlkit.data.caption_files import folder, is_undivided
from dlkit.data.captions import CaptionData, CaptionPreparation, CaptionSplit, sides_swapped
from dlkit.data.images import ImageSplit
from dlkit.errors import DataError, UsageError


def picture(path, shade, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), shade, np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path):
    """Ten images in a folder of their own, image i of shade 10 i, with two captions each."""
    for i in range(10):
        picture(tmp_path / "photos" / "images" / f"{i}.png", 10 * i)
    lines = [f"{i}.png\tA photo of {word} .\n" for i in range(10) for word in (f"shade {i}", "grey")]
    (tmp_path / "photos" / "captions.txt").write_text("".join(lines))
    return tmp_path / "photos"


@pytest.fixture
def warnings(monkeypatch):
    """What is told."""
    told = []
    monkeypatch.setattr(console, "warn", told.append)
    return told


def shown(split):
    """Image -> its captions, the image by its shade."""
    shades = split.images.fetch(np.arange(len(split)))[:, 0, 0, 0] // 10
    return dict(zip(shades.tolist(), split.captions, strict=True))


def test_left_and_right_change_places_in_whole_words():
    assert (
        sides_swapped("On the LEFT, left-handed; Right is bright .") == "On the Right, right-handed; Left is bright ."
    )


# -------------------------------------------------------------------------------------------------------- captions.txt


def test_images_are_divided_with_all_their_captions(photos, warnings):
    loaded = data.load_kind(str(photos), "captions", validation=2, test=3)
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 5, "validation": 2, "test": 3}
    assert loaded.shape == (6, 8, 3)
    everything = {}
    for split in loaded.splits.values():
        everything |= shown(split)
    assert everything == {i: [f"A photo of shade {i} .", "A photo of grey ."] for i in range(10)}
    assert warnings == []
    assert is_undivided(str(photos))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,caption\n0.png,A dog , wet .\n", {0: ["A dog , wet ."]}),
        ('0.png,"A ""wet"" dog, he runs"\n\n1.png,b\r\n', {0: ['A "wet" dog, he runs'], 1: ["b"]}),
        ("file\tcaption\nimages/1.png\tleft, right\n1.png\tno\n", {1: ["left, right", "no"]}),
        ("image,caption\n0.png\ta dog , wet\n", {0: ["a dog , wet"]}),
        ("image,caption\n0.png,a dog\truns\n1.png,b\n", {0: ["a dog\truns"], 1: ["b"]}),
        ('"image","caption"\n0.png,"a dog, wet"\n', {0: ["a dog, wet"]}),
        ("﻿images\\2.png,x\n", {2: ["x"]}),
    ],
)
def test_tables_with_commas_tabs_quotes_and_headers(photos, warnings, text, expected):
    (photos / "captions.txt").write_text(text, encoding="utf-8")
    assert shown(folder(str(photos), test="all").splits["test"]) == expected
    assert len(warnings) == 1  # of the images without a caption
    assert "without a caption" in warnings[0]


def test_folders_of_the_paths_are_the_splits(tmp_path):
    for i, path in enumerate(["train/a.png", "train/b.png", "val/a.png", "test/c.png"]):
        picture(tmp_path / path, 10 * i)
    (tmp_path / "captions.csv").write_text("train/a.png,0\ntrain/b.png,1\nval/a.png,2\ntest/c.png,3\n")
    loaded = folder(str(tmp_path))
    assert {name: shown(split) for name, split in loaded.splits.items()} == {
        "train": {0: ["0"], 1: ["1"]}, "validation": {2: ["2"]}, "test": {3: ["3"]},
    }  # fmt: skip
    assert not is_undivided(str(tmp_path))
    with pytest.raises(UsageError, match="data.test changes nothing"):
        folder(str(tmp_path), test=3)


def test_what_has_no_partner_is_left_out_and_told(photos, warnings):
    with (photos / "captions.txt").open("a") as file:
        file.write("gone.png\tx\ngone.png\ty\nlost.png\tz\n")
    picture(photos / "spare.png", 0)
    assert sum(len(split) for split in folder(str(photos)).splits.values()) == 10
    assert warnings == [
        f"{photos}: left out 3 captions of 2 images that are not there (gone.png, ...)",
        f"{photos}: left out 1 image without a caption (spare.png)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no captions.txt and no Flickr8k.token.txt"),
        ("", "captions.txt has no caption"),
        ("image,caption\n", "captions.txt has no caption"),
        ("0.png x\n", "captions.txt line 1 has no tab and no comma"),
        ("0.png\tx\n1.png,y\n", "captions.txt line 2 has no tab$"),
        ("0.png,x\n1.png\ty\n", "captions.txt line 2 has no comma$"),
        ("0.png\tx\n1.png\t \n", "captions.txt line 2 has no caption"),
        ("0.png\tx\n\ty\n", "captions.txt line 2 has no file"),
        ("no.png\tx\n", "has none of the images that captions.txt names, such as no.png"),
        ("a.png\tx\n", "a.png is images/a.png and more/a.png"),
    ],
)
def test_mistakes_in_captions_are_data_errors(photos, text, message):
    picture(photos / "images" / "a.png", 0)
    picture(photos / "more" / "a.png", 0)
    (photos / "captions.txt").unlink()
    if text is not None:
        (photos / "captions.txt").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        folder(str(photos))
    assert caught.value.hint


def test_a_cell_in_quotes_that_is_too_long(photos):
    (photos / "captions.txt").write_text(f'0.png,x\n1.png,"{"y" * 140_000}\n')
    with pytest.raises(DataError, match=r"captions.txt line 2 cannot be read: field larger than"):
        folder(str(photos))


def test_captions_that_are_larger_than_the_memory(photos, monkeypatch):
    size = (photos / "captions.txt").stat().st_size
    monkeypatch.setattr(text_files, "memory", lambda: size * text_files.BYTES_EACH - 1)
    with pytest.raises(DataError, match=r"captions.txt is too large for the memory"):
        folder(str(photos))


def test_text_that_is_no_utf8_and_a_folder_that_is_none(photos):
    (photos / "captions.txt").write_bytes(b"0.png\tcaf\xe9\n")
    with pytest.raises(DataError, match="line 1 is not UTF-8"):
        folder(str(photos))
    with pytest.raises(DataError, match="no such folder"):
        folder(str(photos / "nowhere"))
    with pytest.raises(DataError, match="is a file, not a folder"):
        folder(str(photos / "captions.txt"))


def test_an_image_that_cannot_be_read_stops_or_is_skipped(photos, warnings):
    (photos / "images" / "3.png").write_bytes(b"not a picture")
    loaded = folder(str(photos), test="all", size=8)
    with pytest.raises(DataError, match=r"images/3.png is not an image that can be read") as caught:
        shown(loaded.splits["test"])
    assert "--on-bad skip" in caught.value.hint
    kept = folder(str(photos), test="all", on_bad="skip").splits["test"]
    assert set(shown(kept)) == set(range(10)) - {3}
    skipped = "skipped 1 of 10 images, which cannot be read; the first: images/3.png is not an image that can be read"
    assert warnings == [f"{photos}: {skipped}"]


def test_images_that_differ_in_size_are_fitted(photos):
    picture(photos / "images" / "0.png", 0, size=(50, 20))
    assert folder(str(photos)).shape == (224, 224, 3)
    assert folder(str(photos), size=16).shape == (16, 16, 3)


# ------------------------------------------------------------------------------------------------------------ Flickr8k


def flickr8k(root, *, in_tar, packed):
    """The files of Flickr8k with six images: one that captions name is missing, one is in no split."""
    for i in range(6):
        picture(root / "made" / f"{i}_ab.png", 10 * i)
    if in_tar:
        with tarfile.open(root / "flickr8k_96.tar", "w") as archive:
            archive.add(root / "made", arcname="flickr8k_96")
        for path in (root / "made").iterdir():
            path.unlink()
    names = [f"{i}_ab.png" for i in range(6)] + ["9_xy.png.1"]
    text = "".join(f"{name}#{k}\tCaption {k} of {name[0]} .\n" for name in names for k in range(5))
    if packed:
        (root / "Flickr8k.token.txt.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (root / "Flickr8k_text").mkdir()
        (root / "Flickr8k_text" / "Flickr8k.token.txt").write_text(text)
    place = root if packed else root / "Flickr8k_text"
    for split, of in {"train": [0, 1, 2], "dev": [3], "test": [4]}.items():
        (place / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{i}_ab.png\n" for i in of))


@pytest.mark.parametrize(("in_tar", "packed"), [(True, True), (False, False)])
def test_flickr8k_as_it_lies_there(tmp_path, warnings, in_tar, packed):
    flickr8k(tmp_path, in_tar=in_tar, packed=packed)
    loaded = folder(str(tmp_path))
    assert {name: sorted(shown(split)) for name, split in loaded.splits.items()} == {
        "train": [0, 1, 2], "validation": [3], "test": [4],
    }  # fmt: skip
    assert shown(loaded.splits["test"])[4] == [f"Caption {k} of 4 ." for k in range(5)]
    assert warnings[0] == f"{tmp_path}: left out 5 captions of 1 image that is not there (9_xy.png.1)"
    assert warnings[1].startswith(f"{tmp_path}: left out 1 image in no split (")
    assert len(loaded.pairs("train").image) == 15
    assert not is_undivided(str(tmp_path))


def test_a_damaged_tar_and_a_damaged_line(tmp_path):
    flickr8k(tmp_path, in_tar=True, packed=True)
    (tmp_path / "flickr8k_96.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(DataError, match="flickr8k_96.tar is no whole tar"):
        folder(str(tmp_path))
    (tmp_path / "Flickr8k.token.txt.gz").write_bytes(gzip.compress(b"1.jpg#0 no tab\n"))
    with pytest.raises(DataError, match="line 1 is not of the form"):
        folder(str(tmp_path))
    (tmp_path / "Flickr8k.token.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="is no whole gzip file"):
        folder(str(tmp_path))
    packed = bytearray(gzip.compress(b"1.jpg#0\tone caption\n" * 50))
    packed[12:20] = b"\xff" * 8  # its heading is whole, what follows is not
    (tmp_path / "Flickr8k.token.txt.gz").write_bytes(packed)
    with pytest.raises(DataError, match="is no whole gzip file"):
        folder(str(tmp_path))


# ----------------------------------------------------------------------------------------------------- what becomes ids


def made(*captions, **options):
    count = len(captions)
    images = ImageSplit(np.zeros((count, 4, 4, 3), np.uint8), np.zeros(count, np.int32))
    return CaptionData("x", {"train": CaptionSplit(images, captions)}, CaptionPreparation(**options))


def test_training_captions_that_cannot_be_learned_from_are_dropped_and_counted():
    loaded = made(["A b c", "a b c d"], [" ", "c b"], max_length=3, min_count=2)
    pairs = loaded.pairs("train")
    assert pairs.image.tolist() == [0, 1]
    assert pairs.texts == ["A b c", "c b"]
    assert set(loaded.tokenizer.words) == {"a", "b", "c"}
    assert loaded.remarks() == ["dropped 2 of 4 training captions: 1 without a token, 1 longer than 3 tokens"]


def test_unknown_words_are_told():
    loaded = made(["a b"], ["a q"], min_count=2)
    assert loaded.remarks() == ["unknown (such as b q): 50.00% of train tokens"]


def test_the_ids_of_a_mirrored_image():
    both = made(["a man left of a tree"], ["right of it"], min_count=1)
    assert both.tokenizer.decode(both.mirrored[0]) == "a man right of a tree"
    assert both.mirrored[1].tolist() == both.tokenizer.encode("left of it")


def test_splits_have_captions_for_each_image():
    images = ImageSplit(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32))
    with pytest.raises(DataError, match="2 images but captions for 1"):
        CaptionSplit(images, [["a"]])
    with pytest.raises(DataError, match="an image has no caption"):
        CaptionSplit(images, [["a"], []])
