import json

import numpy as np
import pytest
from PIL import Image

from dlkit import recipe, runs
from dlkit.cli import main
from dlkit.train.schedules import schedule


@pytest.fixture
def run(tmp_path):
    """A run that has logged three intervals and an evaluation, by hand."""
    info = {"task": "image_classification", "data": {}, "model_arguments": {}}
    made = runs.create(tmp_path / "runs", recipe.resolve("lenet"), info, name="one")
    for step, loss in ((10, 2.0), (20, 1.0), (30, 0.5)):
        made.log({"kind": "train", "step": step, "epoch": step / 10, "loss": loss, "lr": 0.1, "seconds": step})
    made.log({"kind": "evaluation", "step": 20, "epoch": 2.0, "split": "validation", "weights": "raw", "loss": 1.25})
    return made


@pytest.fixture
def plot(capfd):
    def call(*arguments):
        code = main(["plot", *map(str, arguments)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_json_has_the_points_of_the_log(plot, run):
    code, out, _ = plot(run.path, "--json", "--metric", "loss", "--along", "step")
    assert code == 0
    (panel,) = json.loads(out)["panels"]
    assert panel["series"] == [
        {"run": "one", "part": "training", "x": [10, 20, 30], "y": [2.0, 1.0, 0.5]},
        {"run": "one", "part": "validation", "x": [20], "y": [1.25]},
    ]


def test_a_pipe_gets_a_table_of_what_was_least_greatest_and_last(plot, run):
    code, out, _ = plot(run.path)
    assert code == 0
    header, training, *_ = (line.split() for line in out.splitlines())
    assert header == ["metric", "run", "part", "least", "at", "greatest", "at", "last"]
    assert training == ["loss", "one", "training", "0.5", "3", "2", "1", "0.5"]


def test_a_picture_and_a_page_go_into_the_run_and_are_made_anew(plot, run):
    for _ in range(2):
        assert plot(run.path, "--png", "--html")[0] == 0
    with Image.open(run.path / "curves.png") as picture:
        assert picture.size[0] > 500
    page = (run.path / "curves.html").read_text()
    assert "<svg" in page
    assert "<td>training</td>" in page, "a word is no number"


def test_a_file_that_is_there_stays(plot, run, tmp_path):
    file = tmp_path / "mine.html"
    file.write_text("mine")
    code, _, err = plot(run.path, "--html", file)
    assert (code, file.read_text()) == (2, "mine")
    assert "exists" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metric", "los"], "unknown metric: los"),
        (["x.png"], "what to do with x.png?"),
        (["--set", "train.lr=1"], "--set is about a training that has not begun"),
        (["--schedule", "--metric", "lr"], "--schedule draws the learning rate"),
        (["--schedule", "--along", "minutes"], "how long a training takes"),
        (["--schedule", "--set", "train.lr=1"], "its recipe is settled"),
    ],
)
def test_mistakes_are_one_line(plot, run, arguments, words):
    code, out, err = plot(run.path, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 2


def test_the_schedule_of_a_training_that_has_not_begun(plot):
    """Of the 1,797 digits 360 are tested on and 144 validated on: 11 updates of 128 an epoch, by arithmetic."""
    sets = ["train.schedule=cosine", "train.epochs=2", "train.lr=0.5", "train.warmup=3", "train.batch_size=128"]
    options = [word for text in sets for word in ("--set", text)]
    code, out, _ = plot("lenet", "--data", "digits", *options, "--schedule", "--json", "--along", "step")
    assert code == 0
    (series,) = json.loads(out)["panels"][0]["series"]
    updates = 2 * -(-(1797 - 360 - 144) // 128)
    assert series["x"] == list(range(1, updates + 1))
    rate = schedule("cosine", lr=0.5, total_steps=updates, warmup=3)
    np.testing.assert_allclose(series["y"], [rate(step) for step in range(updates)])
    assert series["y"][:3] == pytest.approx([0.5 / 3, 1 / 3, 0.5])


def test_a_plateau_cannot_be_drawn_before(plot):
    code, _, err = plot("lenet", "--schedule", "--set", "train.schedule=plateau")
    assert code == 2
    assert "follows from what training measures" in err
