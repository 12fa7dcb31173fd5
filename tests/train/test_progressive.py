"""Progressive resizing: which step has images of which size, how they are made smaller, and which nets take them."""

import json

import numpy as np
import pytest
from PIL import Image

from dlkit import recipe
from dlkit.cli import main
from dlkit.errors import UsageError
from dlkit.recipe import TrainSection
from dlkit.train import loop, start
from dlkit.train.progressive import Progressive, resized

SMALL_NET = {"model.width": 4, "model.whitening": False, "data.size": 16}
STAGES = {"train.progressive": [0.625, 0.75], "train.progressive_until": [0.25, 0.6]}


def prepared(model="airbench", data="digits", **flags):
    """Some training of 10 steps: 2 epochs of 5."""
    lengths = {"train.epochs": 2, "train.batch_size": 20, "train.limit": 90}
    return start.prepare(recipe.resolve(model, data, flags=lengths | flags), devices="cpu")


def sizes(made, progress=None, *, epochs=2):
    plan = made.task.plan("train", batch_size=20, epoch=0)
    drawn = loop.batches(made.task, made.recipe.train, progress or loop.Progress(), made.devices)
    return [next(drawn).batch["images"].shape for _ in range(epochs * len(plan) - (progress.step if progress else 0))]


def test_each_step_has_the_size_of_its_stage_also_after_a_resumption():
    """0.25 of 10 steps is 2 (halves go to the even number), 0.6 is 6; sides 0.625, 0.75 and 1 of 16 are 10, 12, 16."""
    made = prepared(**SMALL_NET, **STAGES)
    sides = [10, 10, 12, 12, 12, 12, 16, 16, 16, 16]
    found = sizes(made)
    assert [shape[1:3] for shape in found] == [(side, side) for side in sides]
    assert [shape[0] for shape in found] == [20, 20, 20, 20, 10] * 2
    assert sizes(made, loop.Progress(step=4, epoch=0, position=4)) == found[4:]
    assert sizes(made, loop.Progress(step=5, epoch=1, position=0)) == found[5:]


def test_the_time_that_is_left_goes_by_the_area():
    settings = TrainSection(progressive=[0.5, 0.75], progressive_until=[0.4, 0.8])
    stages = Progressive(settings, 10)
    assert stages.steps_left(1) == (3 * 0.25 + 4 * 0.5625 + 2) / 0.25
    assert stages.steps_left(4) == (4 * 0.5625 + 2) / 0.25  # measured in the stage that is over
    assert stages.steps_left(5) == (3 * 0.5625 + 2) / 0.5625
    assert stages.steps_left(9) == 1
    assert stages.steps_left(10) == 0
    assert Progressive(TrainSection(), 10).steps_left(3) == 7


@pytest.mark.parametrize(("side", "scale", "smaller"), [(32, 0.5, 16), (32, 0.75, 24), (15, 0.6, 9)])
def test_images_shrink_as_pillow_shrinks_them(side, scale, smaller):
    images = np.random.default_rng(0).standard_normal((3, side, side, 2)).astype(np.float32)
    found = resized(images, scale)
    assert found.dtype == np.float32
    for image, shrunk in zip(images, found, strict=True):
        for channel in range(2):
            of_pillow = Image.fromarray(image[..., channel]).resize((smaller, smaller), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(shrunk[..., channel], np.asarray(of_pillow), atol=1e-5)


def test_a_share_of_one_changes_nothing():
    images = np.ones((1, 4, 4, 1), np.float32)
    assert resized(images, 1.0) is images


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_a_net_of_one_size_is_refused(model):
    with pytest.raises(UsageError, match=f"{model} cannot take images of 8x8, which train.progressive 0.5 makes them"):
        prepared(model, **{"data.size": 16, "train.progressive": [0.5], "train.progressive_until": [0.5]})


def test_images_that_the_layers_shrink_to_nothing_are_refused():
    with pytest.raises(UsageError, match="airbench cannot take images of 2x2"):
        prepared(**SMALL_NET, **{"train.progressive": [0.125], "train.progressive_until": [0.5]})


CAPTIONER = {
    "model.encoder": "airbench", "model.encoder_options": {"width": 4, "whitening": False}, "model.width": 8,
    "data.name": "synthetic:shapes", "data.size": 32, "data.train": 60, "data.validation": 20, "data.test": 20,
}  # fmt: skip


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize("model", ["captioner", "captioner_attention"])
def test_a_captioner_reads_small_images_first_and_whole_ones_in_the_end(model, tmp_path, capsys, monkeypatch):
    looked_at = []
    in_size = loop.resized
    monkeypatch.setattr(
        loop, "resized", lambda images, scale: looked_at.append(in_size(images, scale).shape) or in_size(images, scale)
    )
    halves = {"train.progressive": [0.5], "train.progressive_until": [0.5]}
    sets = [word for key, value in (CAPTIONER | halves).items() for word in ("--set", f"{key}={toml(value)}")]
    command = ["train", model, *sets, "--runs-dir", str(tmp_path), "--name", "x", "--quiet"]
    assert main([*command, "--epochs", "2", "--batch-size", "20", "--devices", "cpu"]) == 0
    assert [shape[1:3] for shape in looked_at[:6]] == [(16, 16)] * 3 + [(32, 32)] * 3
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "x"), "--quiet", "--json"]) == 0
    result = json.loads((tmp_path / "x" / "run.json").read_text())["result"]
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(result["metrics"]["loss"])
    assert main(["inspect", str(tmp_path / "x"), "gradients", "--quiet"]) == 0, "of its first batch, a small one"


def test_a_map_that_is_smaller_than_what_a_captioner_makes_one_place_of_it_is_refused():
    """Of 32x32 the encoder's map is 4x4; of 16x16 2x2, of which no mean of 3x3 can be taken."""
    stages = {"train.progressive": [0.5], "train.progressive_until": [0.5]}
    flags = {"train.epochs": 1, "train.batch_size": 20} | CAPTIONER | stages | {"model.map_pool": 3}
    made = recipe.resolve("captioner_attention", "synthetic:shapes", flags=flags)
    with pytest.raises(UsageError, match="captioner_attention cannot take images of 16x16"):
        start.prepare(made, devices="cpu")


@pytest.mark.parametrize(
    ("model", "sides", "ends", "says"),
    [
        ("transformer", "[0.5]", "[0.5]", "train.progressive is for images, not for translation"),
        ("resnet20", "[0.5]", "[]", "train.progressive has 1 sides, and train.progressive_until says of 0 how long"),
        ("resnet20", "[0.5, 0.75]", "[0.6, 0.3]", "train.progressive_until must rise, not [0.6, 0.3]"),
        ("resnet20", "[1.5]", "[0.5]", "train.progressive must be a list of numbers above 0 and below 1, not [1.5]"),
    ],
)
def test_mistakes_in_a_recipe(model, sides, ends, says):
    overrides = [("train.progressive", sides, "set"), ("train.progressive_until", ends, "set")]
    with pytest.raises(UsageError) as caught:
        recipe.resolve(model, overrides=overrides)
    assert caught.value.message == says


def test_a_net_learns_from_small_images_and_is_evaluated_on_whole_ones(tmp_path, capsys):
    options = SMALL_NET | {"model.width": 8} | STAGES
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    command = ["train", "airbench", "--data", "digits", "--epochs", "3", "--batch-size", "32"]
    assert main([*command, *sets, "--runs-dir", str(tmp_path), "--name", "x", "--quiet"]) == 0
    capsys.readouterr()
    records = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if record["kind"] == "evaluation"][-1]
    assert last["accuracy"] > 0.8
    assert main(["evaluate", str(tmp_path / "x"), "--quiet", "--json"]) == 0
    result = json.loads((tmp_path / "x" / "run.json").read_text())["result"]
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(result["metrics"]["accuracy"])
    assert main(["inspect", str(tmp_path / "x"), "gradients", "--quiet"]) == 0, "of its first batch, a small one"


def test_whose_row_an_image_is_does_not_change_how_it_shrinks():
    """So each process may shrink its own part of a batch (progressive resizing)."""
    images = np.random.default_rng(0).standard_normal((6, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(resized(images[[4, 1]], 0.75), resized(images, 0.75)[[4, 1]])
