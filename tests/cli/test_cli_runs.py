"""`dlkit runs` lists, shows, compares and removes run folders, here written by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = """[model]
name = "{model}"  # flag

[data]
name = "digits"
{extra}
[train]
epochs = 1.0
lr = {lr}  # set
seed = 0
precision = "float32"
{train}
[decode]
max_len = 100
"""


def make(name, *, model="lenet", lr=0.5, accuracies=(0.5, 0.75, 0.625), age=0, extra="", train=""):
    """A run folder with a line of training and one of validation for each accuracy."""
    path = Path("runs") / name
    path.mkdir(parents=True)
    (path / "recipe.toml").write_text(RECIPE.format(model=model, lr=lr, extra=extra, train=train))
    info = {"format": 1, "task": "image_classification", "recipe": "lenet_digits", "parameters": 61706}
    info |= {"data": {}, "model_arguments": {}}
    (path / "run.json").write_text(json.dumps({**info, "command": ["dlkit", "train", model], "devices": "CPU"}))
    lines = []
    for step, value in enumerate(accuracies, 1):
        lines.append({"schema": 1, "kind": "train", "attempt": 1, "step": step, "loss": 1.0})
        lines.append(
            {"schema": 1, "kind": "evaluation", "attempt": 1, "step": step, "split": "validation", "accuracy": value}
        )
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(path / "run.json", (1e9 - age, 1e9 - age))
    return path


@pytest.fixture
def runs(dlkit):
    make("lenet_digits-1", age=60)
    make("mlp_digits-1", model="mlp", lr=0.25, accuracies=())
    return dlkit


def test_list_says_the_best_value_of_the_monitored_metric_and_the_newest_run_first(runs):
    listed = json.loads(runs("runs", "list", "--json").out)
    assert [line["run"] for line in listed] == ["runs/mlp_digits-1", "runs/lenet_digits-1"]
    assert (listed[1]["monitored"], listed[1]["best"], listed[1]["step"]) == ("accuracy", 0.75, 3)
    assert listed[0]["best"] is None
    lines = runs("runs", "list").out.splitlines()
    assert lines[0].split()[:4] == ["run", "model", "data", "step"]
    assert lines[2].split()[:6] == ["runs/lenet_digits-1", "lenet", "digits", "3", "accuracy", "0.75"]


def test_the_best_loss_is_the_lowest(dlkit):
    path = make("a-1", train='monitor = "loss"')
    with (path / "metrics.jsonl").open("a") as file:
        for step, loss in [(1, 0.5), (2, 0.25), (3, 0.375)]:
            file.write(json.dumps({"kind": "evaluation", "split": "validation", "step": step, "loss": loss}) + "\n")
    assert json.loads(dlkit("runs", "list", "--json").out)[0]["best"] == 0.25


def evaluated(path, records):
    """Gives a run evaluations: (step, weights, accuracy)."""
    with (path / "metrics.jsonl").open("a") as file:
        for step, weights, accuracy in records:
            record = {"kind": "evaluation", "split": "validation", "step": step, "weights": weights}
            file.write(json.dumps({**record, "accuracy": accuracy}) + "\n")


def test_best_is_the_value_that_chose_the_best_checkpoint(dlkit):
    """By the averaged weights, although the raw ones were once better; and of the checkpoint, not of the metrics."""
    path = make("a-1", accuracies=())
    evaluated(path, [(1, "raw", 0.9), (1, "ema", 0.5), (2, "raw", 0.7), (2, "ema", 0.625), (3, "ema", 0.875)])
    assert json.loads(dlkit("runs", "list", "--json").out)[0]["best"] == 0.875, "no checkpoint yet"
    (path / "checkpoints" / "step-2").mkdir(parents=True)
    (path / "checkpoints" / "best").write_text("step-2\n")
    assert json.loads(dlkit("runs", "list", "--json").out)[0]["best"] == 0.625


def test_a_broken_file_takes_no_other_run_out_of_the_list(dlkit):
    good, bad = make("good-1"), make("bad-1")
    (bad / "run.json").write_text('{"format": 1}')
    with (good / "metrics.jsonl").open("ab") as file:
        file.write(b'[]\n3\n"x"\n{}\n{"kind": [], "step": 1}\n{"kind": "evaluation", "step": "x"}\n\xff\n')
        file.write(b'{"kind": "evaluation", "split": "validation", "step": 9, "accuracy": "x"}\n')
        file.write(b'{"kind": "evaluation", "split": "validation", "step": 9, "weights": "raw", "accuracy": NaN}\n')
        file.write(b"[" * 100_000 + b"\n")
    result = dlkit("runs", "list", "--json")
    assert [(line["run"], line["best"]) for line in json.loads(result.out)] == [("runs/good-1", 0.75)]
    assert dlkit("runs", "list").code == 0
    assert dlkit("runs", "show", "good-1").code == 0
    shown = dlkit("runs", "show", "bad-1")
    assert (shown.code, shown.err.count("\n")) == (3, 2)


def test_an_empty_list_is_no_failure(dlkit):
    result = dlkit("runs", "list", "--runs-dir", "elsewhere")
    assert (result.code, result.out) == (0, "")
    assert "no runs in elsewhere" in result.err


def test_show_tells_how_it_was_made_and_where_each_value_came_from(runs):
    out = runs("runs", "show", "runs/lenet_digits-1").out
    assert "dlkit train lenet" in out
    assert "lr = 0.5  # set" in out
    assert "0.625" in out
    assert json.loads(runs("runs", "show", "lenet_digits-1", "--json").out)["recipe"]["train"]["lr"] == 0.5


def test_diff_shows_what_differs_and_nothing_else(runs):
    result = runs("runs", "diff", "lenet_digits-1", "mlp_digits-1")
    assert [line.split() for line in result.out.splitlines()] == [
        ["key", "runs/lenet_digits-1", "runs/mlp_digits-1"],
        ["model.name", '"lenet"', '"mlp"'],
        ["train.lr", "0.5", "0.25"],
    ]
    as_json = json.loads(runs("runs", "diff", "lenet_digits-1", "mlp_digits-1", "--json").out)
    assert as_json == {"model.name": ["lenet", "mlp"], "train.lr": [0.5, 0.25]}
    same = runs("runs", "diff", "lenet_digits-1", "lenet_digits-1")
    assert (same.code, same.out) == (0, "")


def test_rm_deletes_only_when_it_is_sure(runs):
    unsure = runs("runs", "rm", "lenet_digits-1")
    assert unsure.code == 2
    assert "--yes" in unsure.err
    assert runs("runs", "rm", "lenet_digits-1", "no_such_run", "--yes").code == 3
    assert Path("runs/lenet_digits-1").exists(), "nothing is deleted when one of the names is wrong"
    assert runs("runs", "rm", "lenet_digits-1", "--yes").code == 0
    assert [path.name for path in Path("runs").iterdir()] == ["mlp_digits-1"]


def test_a_name_with_escapes_is_written_out(dlkit):
    make("evil\x1b[31m", extra="")
    out = dlkit("runs", "show", "runs/evil\x1b[31m").err + dlkit("runs", "list").out
    assert r"evil\x1b[31m" in out


def test_a_run_that_is_not_there(runs):
    result = runs("runs", "show", "runs/lenet_digits-2")
    assert result.code == 3
    assert "did you mean `runs/lenet_digits-1`?" in result.err


@pytest.mark.parametrize(
    "command",
    [
        ["rm", "runs/lenet_digits-1@step-2", "--yes"],
        ["show", "lenet_digits-1@best"],
        ["diff", "mlp_digits-1", "lenet_digits-1@last"],
    ],
)
def test_a_checkpoint_is_not_taken_for_its_run(runs, command):
    result = runs("runs", *command)
    assert result.code == 2
    assert "is a checkpoint" in result.err
    assert "did you mean `runs/lenet_digits-1`?" in result.err
    assert Path("runs/lenet_digits-1/run.json").exists()


def test_rm_leaves_a_run_that_is_being_trained_and_then_all(runs):
    script = "import sys; from dlkit import runs; runs.lock(runs.open_run('lenet_digits-1')); print(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as training:
        assert training.stdout.readline() == b"\n"
        result = runs("runs", "rm", "mlp_digits-1", "lenet_digits-1", "--yes")
        training.stdin.close()
    assert result.code == 2
    assert "is being trained by another process" in result.err
    assert sorted(path.name for path in Path("runs").iterdir()) == ["lenet_digits-1", "mlp_digits-1"]
    assert runs("runs", "rm", "mlp_digits-1", "lenet_digits-1", "mlp_digits-1", "--yes").code == 0
    assert list(Path("runs").iterdir()) == []


def test_rm_of_a_link_leaves_what_it_points_to(runs):
    Path("runs/link").symlink_to("lenet_digits-1")
    assert runs("runs", "rm", "link", "--yes").code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["lenet_digits-1", "mlp_digits-1"]
    assert Path("runs/lenet_digits-1/metrics.jsonl").exists()
