"""`dlkit data show` draws what is there and what training makes of it, and loads no TensorFlow for it."""

import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from dlkit import data
from dlkit.data.augment import augment, example_keys
from dlkit.data.batching import shuffled
from dlkit.probe import examples, pictures
from dlkit.recipe import resolve_data


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def places_of(tile, picture):
    """Where the upper left corner of a tile is in a picture."""
    height, width, _ = tile.shape
    lines = np.lib.stride_tricks.sliding_window_view(picture[..., 0], width, axis=1)  # (rows, columns, width)
    middle = np.argwhere((lines == tile[height // 2, :, 0]).all(axis=2)) - (height // 2, 0)
    return [
        (top, left)
        for top, left in middle.tolist()
        if top >= 0 and np.array_equal(picture[top : top + height, left : left + width], tile)
    ]


def test_it_says_where_the_picture_is_and_how_large_the_classes_are(dlkit, tmp_path):
    result = dlkit("data", "show", "synthetic:shapes", "--set", "data.train=20", "--count", "4")
    assert result.code == 0, result.err
    header, *rows = [line.split() for line in result.out.splitlines()]
    assert header == ["class", "train", "validation", "test"]
    assert rows[0] == ["circle", "4", "84", "84"]  # 20 = 3 * 6 + 2; 500 = 83 * 6 + 2
    assert rows[-1] == ["ring", "3", "83", "83"]
    first, last = result.err.splitlines()
    assert first.split(maxsplit=1) == [
        "data", "synthetic:shapes: 20 train, 500 validation, 500 test, 32x32x3, 6 classes"
    ]  # fmt: skip
    assert last.split() == ["picture", "shapes_train.png"]
    assert pixels_of(tmp_path / "shapes_train.png").shape[1] > 400


def test_a_comma_at_the_end_names_no_augmentation(dlkit):
    result = dlkit("data", "show", "digits", "--count", "2", "--augment", "crop,", "--json", "-o", "a.png")
    assert (result.code, json.loads(result.out)["augment"]) == (0, ["crop"])
    assert resolve_data("digits", overrides=[("data.augment", "crop, flip,", "set")]).augment == ["crop", "flip"]


def test_the_images_are_in_the_picture_in_the_order_of_training(dlkit, tmp_path):
    assert dlkit("data", "show", "digits", "--split", "test", "--count", "10", "--seed", "3", "-o", "a.png").code == 0
    picture = pixels_of(tmp_path / "a.png")
    split = data.load("digits").splits["test"]
    tops, lefts = [], []
    for index in shuffled(360, seed=3, epoch=0)[:10]:
        tile = split.images[index].repeat(3, axis=0).repeat(3, axis=1).repeat(3, axis=2)  # 32 -> 96 dots, gray
        ((top, left),) = places_of(tile, picture)
        tops.append(top)
        lefts.append(left)
    assert tops == sorted(tops)
    assert len(set(tops)) == 2, "eight in a row"
    assert lefts[:8] == sorted(lefts[:8])
    assert lefts[8:] == lefts[:2]


def test_augmented_images_stand_beside_their_originals(dlkit, tmp_path):
    options = ["--augment", "flip, cutmix", "--set", "data.cutmix_alpha=2", "--epoch", "2", "--count", "5"]
    result = dlkit("data", "show", "digits", *options, "--json", "-o", "a.png")
    assert result.code == 0, result.err
    shown = json.loads(result.out)
    split = data.load("digits").splits["train"]
    indices = shuffled(len(split), seed=0, epoch=2)[:5]
    keys = example_keys(0, 2, indices)
    batch = augment(
        ["flip", "cutmix"], split.images[indices], split.labels[indices], keys, mean=[0], std=[1],
        options={"cutmix_alpha": 2.0},
    )  # fmt: skip
    picture = pixels_of(tmp_path / "a.png")
    for place, index in enumerate(indices):
        original = split.images[index].repeat(3, axis=0).repeat(3, axis=1).repeat(3, axis=2)
        seen = np.rint(batch["images"][place] * 255).astype(np.uint8).repeat(3, axis=0).repeat(3, axis=1)
        beside = [(top, left + 100) for top, left in places_of(original, picture)]
        assert set(beside) & set(places_of(seen.repeat(3, axis=2), picture))
        one = shown["examples"][place]
        assert (one["index"], one["class"]) == (index, str(split.labels[index]))
        labels, share = (batch["labels"][place], batch["other_labels"][place]), float(batch["shares"][place])
        expected = {str(labels[0]): 1.0} if labels[0] == labels[1] else {
            str(labels[0]): share, str(labels[1]): 1 - share
        }  # fmt: skip
        assert one["labels"] == pytest.approx(expected)
    assert (shown["augment"], shown["epoch"], shown["picture"]) == (["flip", "cutmix"], 2, "a.png")


def test_a_picture_is_never_written_over(dlkit, tmp_path):
    (tmp_path / "digits_train.png").write_bytes(b"mine")
    result = dlkit("data", "show", "digits", "-o", "digits_train.png")
    assert result.code == 2
    assert result.err.splitlines() == [
        "error: digits_train.png exists", "hint: name another file after -o, or remove this one"
    ]  # fmt: skip
    for number in (2, 3):
        result = dlkit("data", "show", "digits", "--count", "2", "--augment", ["crop", "flip"][number - 2])
        assert result.err.splitlines()[-1] == f"picture digits_train-{number}.png"
    assert (tmp_path / "digits_train.png").read_bytes() == b"mine"
    misspelt = dlkit("data", "show", "digits", "-o", "digits_train.png", "--augment", "flpi")
    assert misspelt.err.startswith("error: unknown augmentation: flpi\n")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["digits", "-o", "a.jpg"], "a.jpg has no name for a picture", ".png"),
        (["digits", "--split", "tset"], "no split tset in digits", "known: train, validation, test"),
        (["digits", "--augment", "cutot"], "unknown augmentation: cutot", "did you mean `cutout`?"),
        (["digits", "--set", "data.mixup_alpha=1"], "data.mixup_alpha is for the augmentation mixup", "mixup"),
        (["digits", "--set", "train.lr=1"], "train.lr changes nothing here", "[data]"),
        (["digits", "--data-dir", "x"], "digits is no set of TensorFlow Datasets", "leave it out"),
        (["digist"], "unknown dataset: digist", "`digits`"),
        (["synthetic:reverse", "--kind", "images"], "synthetic:reverse has no labelled images", "dlkit data list"),
        (["digits", "-o", "nowhere/a.png"], "cannot write nowhere/a.png: there is no folder nowhere", "make it"),
        (["digits", "--count", "0"], "--count must be", "--help"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_hint(dlkit, tmp_path, arguments, message, hint):
    result = dlkit("data", "show", *arguments)
    assert result.code != 0
    error, advice = result.err.splitlines()
    assert error.startswith(f"error: {message}")
    assert hint in advice
    assert not list(tmp_path.iterdir())


def test_it_loads_no_tensorflow(tmp_path):
    code = (
        "import sys; from dlkit import cli;"
        "code = cli.main(['data', 'show', 'synthetic:shapes', '--augment', 'trivial,cutout,mixup', '-q']);"
        "sys.exit(code or any(name in sys.modules for name in ('tensorflow', 'keras', 'tensorflow_datasets')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shapes_train.png").is_file()


@pytest.mark.parametrize("count", [1, 33])
@pytest.mark.parametrize("augmentations", [[], ["crop"], ["trivial", "crop_flip", "cutout", "mixup", "cutmix"]])
@pytest.mark.parametrize("size", [8, 224])
def test_nothing_is_written_over_anything_else(count, augmentations, size, monkeypatch):
    sizes = {"size": size, "train": 33, "validation": 1, "test": 1}
    section = resolve_data(
        "synthetic:shapes",
        overrides=[(f"data.{key}", str(n), "set") for key, n in sizes.items()],
        flags={"data.augment": augmentations},
    )
    gallery = examples.Gallery.of(section, "train", count=count)
    drawn = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: drawn.append(figure))
    gallery.save("a.png")
    (figure,) = drawn
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    for place, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width, texts[place]
        for other in boxes[place + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(across, down) <= 1, texts[place]


def test_hostile_and_long_names_are_shown_as_text():
    image = np.zeros((8, 8, 1), np.uint8)
    one = examples.ShownImage(0, image, "\x1b[31m$b$\u202e" + "long" * 20, image, {"\x1b[31m": 0.5, "\u202eb": 0.5})
    figure = examples.draw([one], title="\x1bt", subtitle="\x1bs", note="\x1bn")
    shown = "".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
    assert "\\x1b" in shown
    assert not {"\x1b", "\u202e"} & set(shown)


def test_clips_are_drawn_frame_by_frame(dlkit, tmp_path):
    sets = ["--set", "data.label=revealed", "--set", "data.frames=3", "--set", "data.train=5"]
    result = dlkit("data", "show", "synthetic:moving_digits", *sets, "--count", "2", "--json")
    assert result.code == 0, result.err
    shown = json.loads(result.out)
    clips = data.load("synthetic:moving_digits", label="revealed", frames=3, train=5).splits["train"]
    picture = pixels_of(tmp_path / "moving_digits_train.png")
    for one in shown["examples"]:
        pixels, labels = clips.fetch([one["index"]])
        assert one["labels"] == [str(label) for label in labels[0]]
        for frame in pixels[0]:
            tile = frame.repeat(3, axis=0).repeat(3, axis=1).repeat(3, axis=2)  # 24 dots are 64 or more when tripled
            assert places_of(tile, picture)
    assert dlkit("data", "show", "synthetic:moving_digits", "--augment", "flip", "-o", "x.png").code == 2
