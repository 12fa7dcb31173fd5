import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import dlkit
from dlkit import cli, recipe, runs
from dlkit.cli import training
from dlkit.errors import CheckpointError, DataError, DlkitError, UsageError
from dlkit.tasks.task import open_task
from dlkit.train import checkpoints

INFO = {"task": "image_classification", "data": {}, "model_arguments": {"input_shape": [4, 4, 1], "classes": 10}}


@pytest.fixture
def mlp():
    return recipe.resolve("mlp", overrides=[("model.hidden", "[3]", "set")])


@pytest.fixture
def run(tmp_path, mlp):
    return runs.create(tmp_path, mlp, INFO)


def write(run, step, **weights):
    arrays = {name: np.full(2, value, np.float32) for name, value in weights.items()}
    checkpoints.write(run.path / "checkpoints" / f"step-{step}", {"weights": arrays}, {"step": step})


def test_names_are_numbered_and_never_given_twice(tmp_path, mlp):
    found = []
    barrier = threading.Barrier(8)

    def claim():
        barrier.wait()
        found.append(runs.create(tmp_path, mlp, INFO).name)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"mlp_digits-{n}" for n in range(1, 9)]


def test_an_existing_name_is_refused_and_nothing_is_touched(tmp_path, mlp):
    first = runs.create(tmp_path, mlp, INFO, name="mine")
    before = (first.path / "run.json").read_bytes()
    with pytest.raises(UsageError, match="exists") as caught:
        runs.create(tmp_path, mlp, {**INFO, "task": "other"}, name="mine")
    assert f"--resume {first.path}" in caught.value.hint
    assert (first.path / "run.json").read_bytes() == before


def test_what_a_hint_says_of_a_run_can_be_pasted(tmp_path, mlp):
    folder = tmp_path / "my runs"
    run = runs.create(folder, mlp, INFO, name="mine")
    assert run.shown == f"'{run.path}'"
    hints = []
    for call in (
        lambda: runs.create(folder, mlp, INFO, name="mine"),
        lambda: runs.open_run(folder / "mina"),
        lambda: runs.open_run(f"{run.path}@best", whole=True),
        lambda: runs.best_whole(run),
        lambda: training.resolve(str(run.path), None, None, [], {}),
    ):
        with pytest.raises(DlkitError) as caught:
            call()
        hints += re.findall("`(.*?)`", caught.value.hint)
    pasted = [shlex.split(hint)[-1] for hint in hints if "my runs" in hint]
    assert pasted == [str(run.path)] * 6


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "x@best", "a\nb", "a\x1b[31m", "x" * 256])
def test_a_name_has_to_be_one(tmp_path, mlp, name):
    with pytest.raises(UsageError, match="not a name"):
        runs.create(tmp_path, mlp, INFO, name=name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ("pairs.tsv", "{}/pairs.tsv"), ("a.en,b.de", "{0}/a.en,{0}/b.de"), ("photos/", "{}/photos"), (".", "{}"),
        ("~/photos", "~/photos"), ("/x/photos", "/x/photos"), ("tatoeba", "tatoeba"), ("cifar10", "cifar10"),
    ],
)  # fmt: skip
def test_a_run_keeps_where_its_data_lie(tmp_path, mlp, monkeypatch, data, kept):
    monkeypatch.chdir(tmp_path)
    options = {"validation_file": "dev.tsv", "test_file": None}
    mlp = replace(mlp, data=mlp.data.model_copy(update={"name": data, "dir": Path("sets"), "options": options}))
    found = runs.create(Path("runs"), mlp, INFO).recipe["data"]
    assert found["name"] == kept.format(tmp_path)
    assert (found["dir"], found["validation_file"]) == (f"{tmp_path}/sets", f"{tmp_path}/dev.tsv")


def test_where_data_lie_may_have_a_comma_in_its_name(tmp_path, mlp, monkeypatch):
    (tmp_path / "a,b").mkdir()
    monkeypatch.chdir(tmp_path / "a,b")
    Path("pairs.tsv").touch()
    for data, kept in (("pairs.tsv", f"{tmp_path}/a,b/pairs.tsv"), ("x.en,x.de", "x.en,x.de")):
        named = replace(mlp, data=mlp.data.model_copy(update={"name": data}))
        assert runs.create(Path("runs"), named, INFO).recipe["data"]["name"] == kept


def test_a_run_keeps_where_its_first_weights_lie(run, mlp, monkeypatch):
    monkeypatch.chdir(run.path.parent)
    for given, kept in ((run.name, run.path), (f"{run.name}@best", f"{run.path}@best")):
        fine_tuned = replace(mlp, train=mlp.train.model_copy(update={"init_from": given}))
        assert runs.create(Path("others"), fine_tuned, INFO).recipe["train"]["init_from"] == str(kept)


@pytest.mark.parametrize(
    ("recipe_name", "expected"), [("a@b", "a-b-1"), (".x", "x-1"), ("a\nb/c\\d", "a-b-c-d-1"), ("..", "run-1")]
)
def test_a_run_is_named_after_its_recipe_as_far_as_it_can_be(tmp_path, mlp, recipe_name, expected):
    run = runs.create(tmp_path / "me@host", replace(mlp, name=recipe_name), INFO)
    assert run.name == expected
    assert runs.open_run(str(run.path)).path == run.path
    assert [found.name for found in runs.list_runs(tmp_path / "me@host")] == [expected]


@pytest.mark.parametrize("when", ["recipe.toml", "prepare", "run.json"])
def test_a_creation_that_fails_half_way_leaves_the_name_free(tmp_path, mlp, monkeypatch, when):
    real = Path.write_text

    def full(path, *arguments, **keywords):
        if path.name == when:
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(DlkitError, match="cannot write to.*No space left"):
            runs.create(tmp_path, mlp, INFO, name="x", prepare=lambda path: (path / "prepare").write_text("vocabulary"))
    assert os.listdir(tmp_path) == []
    runs.create(tmp_path, mlp, INFO, name="x")


def test_a_creation_that_is_killed_leaves_the_name_free(tmp_path, mlp):
    script = """
import os, signal, sys
from pathlib import Path
from dlkit import recipe, runs
kill = lambda _: os.kill(os.getpid(), signal.SIGKILL)
runs.create(Path(sys.argv[1]), recipe.resolve("mlp"), {}, name="x", prepare=kill)
"""
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".")
    assert runs.list_runs(tmp_path) == []
    assert runs.create(tmp_path, mlp, INFO, name="x").name == "x"
    os.utime(tmp_path / left, (1, 1))
    assert runs.create(tmp_path, mlp, INFO).name == "mlp_digits-1"
    assert sorted(os.listdir(tmp_path)) == ["mlp_digits-1", "x"], "what is a day old is swept away"


def test_run_json_comes_last(tmp_path, mlp):
    def prepare(path):
        shutil.copytree(elsewhere.path, path.parent / ".half.tmp")
        assert runs.list_runs(tmp_path) == [], "not even when it is whole but for its name"
        shutil.rmtree(path.parent / ".half.tmp")
        assert sorted(os.listdir(path)) == ["checkpoints", "recipe.toml"]
        assert not (tmp_path / "x").exists()
        (path / "labels").write_text("cat")

    elsewhere = runs.create(tmp_path / "elsewhere", mlp, INFO)
    run = runs.create(tmp_path, mlp, INFO, name="x", prepare=prepare)
    assert sorted(os.listdir(run.path)) == ["checkpoints", "labels", "recipe.toml", "run.json"]


def test_a_name_that_holds_nothing_is_free_and_one_that_is_no_run_is_not(tmp_path, mlp):
    (tmp_path / "empty").mkdir()
    assert runs.create(tmp_path, mlp, INFO, name="empty").name == "empty"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="mine exists and is no run"):
        runs.create(tmp_path, mlp, INFO, name="mine")
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def test_a_name_that_another_process_takes_meanwhile(tmp_path, mlp):
    def prepare(_):
        runs.create(tmp_path, mlp, INFO, name="x")

    with pytest.raises(UsageError, match="run .*x exists"):
        runs.create(tmp_path, mlp, INFO, name="x", prepare=prepare)
    assert os.listdir(tmp_path) == ["x"]


def test_what_is_created_is_opened(run):
    opened = runs.open_run(run.path)
    assert opened.recipe == run.recipe
    assert opened.recipe["model"]["name"] == "mlp"
    assert opened.recipe["model"]["hidden"] == [3]
    assert opened.info["format"] == runs.FORMAT
    assert opened.info["sources"]["model.hidden"] == "set"
    assert runs.open_run(f"{run.path}@best").path == run.path


def test_a_run_in_the_default_folder_goes_by_its_name(tmp_path, mlp, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = runs.create(runs.DEFAULT_FOLDER, mlp, INFO)
    assert runs.open_run("mlp_digits-1").path == run.path
    assert runs.is_run("mlp_digits-1")
    assert runs.is_run("mlp_digits-1@last")
    assert not runs.is_run("mlp")


def test_the_name_of_a_model_is_no_run(tmp_path, mlp, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.create(runs.DEFAULT_FOLDER, mlp, INFO, name="mlp")
    assert not runs.is_run("mlp")
    assert runs.is_run("mlp@best")
    assert runs.is_run("runs/mlp")
    assert runs.open_run("mlp").path == Path("runs/mlp"), "where only a run can be meant"


def test_what_exists_is_never_divided_at_an_at(tmp_path, mlp, monkeypatch):
    run = runs.create(tmp_path / "me@host", mlp, INFO)
    assert runs.split_operand(str(run.path)) == (run.path, None)
    assert runs.split_operand(f"{run.path}@step-12") == (run.path, "step-12")
    assert runs.split_operand(f"{run.path}@average") == (run.path, "average")
    assert runs.split_operand(str(tmp_path / "me@host" / "missing")) == (tmp_path / "me@host" / "missing", None)
    (tmp_path / "runs").mkdir()
    run.path.rename(tmp_path / "runs" / "a@best")
    monkeypatch.chdir(tmp_path)
    assert runs.split_operand("a@best") == (Path("runs/a@best"), None)
    assert runs.split_operand("a@best@best") == (Path("runs/a@best"), "best")
    with pytest.raises(DataError, match="no run"):
        runs.open_run("x" * 5000 + "@best")


@pytest.mark.parametrize("which", ["bset", "step-", "step-x", "step-1.5", "LAST", ""])
def test_what_cannot_be_a_checkpoint_is_answered_with_those_there_are(run, which):
    write(run, 7, w=1)
    with pytest.raises(DataError, match="has no checkpoint") as caught:
        runs.open_run(f"{run.path}@{which}")
    assert "best, last, step-7" in caught.value.hint


def test_a_whole_run_is_not_a_checkpoint(run):
    with pytest.raises(UsageError, match="is a checkpoint") as caught:
        runs.open_run(f"{run.path}@best", whole=True)
    assert str(run.path) in caught.value.hint
    assert runs.open_run(run.path, whole=True).path == run.path


def test_a_missing_run_is_named_with_the_nearest(run):
    with pytest.raises(DataError, match="no run") as caught:
        runs.open_run(run.path.with_name("mlp_digit-1"))
    assert "mlp_digits-1" in caught.value.hint
    assert caught.value.code == 3


@pytest.mark.parametrize("broken", ["run.json", "recipe.toml"])
def test_a_folder_that_is_no_run(run, broken):
    (run.path / broken).write_text("{")
    with pytest.raises(DataError, match="not a whole run"):
        runs.open_run(run.path)
    assert runs.list_runs(run.path.parent) == []


WHOLE = {"format": 1, **INFO}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"format": 1}, "task is missing"),
        ({**WHOLE, "task": 3}, "task is of the wrong type"),
        ({**WHOLE, "task": "telepathy"}, "no task telepathy"),
        ({**WHOLE, "format": True}, "format is of the wrong type"),
        ({**WHOLE, "format": "1"}, "format is of the wrong type"),
        ({**WHOLE, "fingerprint": []}, "fingerprint is of the wrong type"),
        ({**WHOLE, "attempt": "2"}, "attempt is of the wrong type"),
        ([], "format is missing"),
        (None, "format is missing"),
        *[({key: value for key, value in WHOLE.items() if key != gone}, f"{gone} is missing") for gone in WHOLE],
    ],
)
def test_a_run_json_that_is_not_one(run, content, problem):
    (run.path / "run.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"run.json: .*{problem}"):
        runs.open_run(run.path)
    assert runs.list_runs(run.path.parent) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "mlp"', "", r"\[model\] name is missing"),
        ('name = "digits"', "name = 3", r"\[data\] name is of the wrong type"),
        ("[model]", "[[model]]", "model is of the wrong type"),
        ("[train]", "[Train]", "train is missing"),
        ("seed = 0", "seed = 0.5", r"\[train\] seed is of the wrong type"),
        ("max_len = 100", "", r"\[decode\] max_len is missing"),
    ],
)
def test_a_recipe_that_no_run_can_have(run, old, new, problem):
    text = (run.path / "recipe.toml").read_text()
    assert text.count(old) == 1
    (run.path / "recipe.toml").write_text(text.replace(old, new))
    with pytest.raises(DataError, match=f"recipe.toml: {problem}"):
        runs.open_run(run.path)


@pytest.mark.parametrize("file", ["run.json", "recipe.toml"])
@pytest.mark.parametrize("content", [b"\xff\xfe", b"x = " + b"[" * 100_000, b"[" * 100_000, None])
def test_a_file_that_cannot_be_read(run, file, content):
    (run.path / file).unlink()
    if content is not None:
        (run.path / file).write_bytes(content)
    with pytest.raises(DataError, match=f"not a whole run folder: {file}: ."):
        runs.open_run(run.path)
    assert runs.list_runs(run.path.parent) == []


def test_a_newer_format_is_refused(run):
    run.update_info(format=runs.FORMAT + 1)
    with pytest.raises(DataError, match="newer dlkit"):
        runs.open_run(run.path)


def test_metrics_keep_the_last_line_of_a_step_and_survive_a_cut_line(run):
    run.log({"kind": "train", "step": 1, "loss": 3.0})
    run.log({"kind": "train", "step": 2, "loss": float("nan")})
    with (run.path / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "train", "step": 3, "lo')
    run.log({"kind": "train", "step": 2, "loss": 2.0})
    run.log({"kind": "evaluation", "split": "validation", "step": 2, "loss": 5.0})
    assert [(line["step"], line["loss"]) for line in run.metrics()] == [(1, 3.0), (2, 2.0), (2, 5.0)]
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["loss"] is None
    assert all(json.loads(line)["schema"] == 1 for line in (lines[0], lines[3], lines[4]))


def test_which_checkpoint(run):
    with pytest.raises(DataError, match="no checkpoint"):
        runs.find_checkpoint(run)
    for step in (9, 10):
        write(run, step, w=step)
    assert runs.find_checkpoint(run).name == "step-10", "before there are pointers, the last"
    run.point("last", "step-10")
    run.point("best", "step-9")
    assert runs.find_checkpoint(run).name == "step-9"
    assert runs.find_checkpoint(run, "last").name == "step-10"
    assert runs.find_checkpoint(run, "step-10").name == "step-10"
    with pytest.raises(DataError, match="step-11") as caught:
        runs.find_checkpoint(run, "step-11")
    assert "best, last, step-9, step-10" in caught.value.hint


def test_a_damaged_checkpoint_is_named_with_one_that_is_whole(run, capsys):
    for step in (800, 900):
        write(run, step, w=step)
    run.point("best", "step-900")
    file = run.path / "checkpoints" / "step-900" / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="step-900 is damaged: weights.safetensors does not match") as caught:
        runs.find_checkpoint(run, "best")
    assert f"`{run.path}@step-800` is whole" in caught.value.hint
    assert caught.value.code == 4
    assert runs.newest_whole(run).name == "step-800"
    assert "step-900 is damaged" in capsys.readouterr().err


def damaged(run, step):
    (run.path / "checkpoints" / f"step-{step}" / "weights.safetensors").write_bytes(b"")


def evaluation(run, step, **values):
    run.log({"kind": "evaluation", "split": "validation", "weights": "raw", "step": step, **values})


def test_the_best_checkpoint_when_it_is_whole(run, capsys):
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        runs.best_whole(run)
    for step in (1, 2):
        write(run, step, w=step)
    run.point("best", "step-1")
    assert runs.best_whole(run).name == "step-1"
    assert capsys.readouterr().err == ""


def test_the_best_of_those_that_are_whole(run, capsys):
    for step, accuracy in [(1, 0.5), (2, 0.75), (3, 0.625), (4, 0.875), (5, 1.0)]:
        write(run, step, w=step)
        evaluation(run, step, accuracy=accuracy, loss=1 - accuracy / 2)
    run.point("best", "step-5")
    for step in (5, 4):
        damaged(run, step)
    assert runs.best_whole(run).name == "step-2", "by accuracy, the task's own metric"
    error = capsys.readouterr().err
    assert "step-5 is damaged" in error
    assert "using step-2" in error
    evaluation(run, 1, accuracy=0.25, loss=0.0625)
    by_loss = runs.Run(run.path, {**run.recipe, "train": {**run.recipe["train"], "monitor": "loss"}}, run.info)
    assert runs.best_whole(by_loss).name == "step-1"
    of_the_end = runs.Run(run.path, {**run.recipe, "train": {**run.recipe["train"], "select": "last"}}, run.info)
    assert runs.best_whole(of_the_end).name == "step-3", "the last one that is whole, whatever its value"
    for step, accuracy in [(1, 0.1), (2, 0.2), (3, 0.3)]:
        run.log({"kind": "evaluation", "split": "validation", "weights": "ema", "step": step, "accuracy": accuracy})
    assert runs.best_whole(run).name == "step-3", "by the averaged weights when there are some"
    for step, loss in [(1, 0.4), (2, 0.2), (3, 0.3)]:
        run.log(
            {"kind": "evaluation", "split": "validation", "weights": "ema", "step": step, "accuracy": 0.5, "loss": loss}
        )
    assert runs.best_whole(run).name == "step-2", "of equals by the loss"
    (run.path / "metrics.jsonl").unlink()
    (run.path / "checkpoints" / "best").unlink()
    assert runs.best_whole(run).name == "step-3", "the newest"


def test_raw_weights_have_no_say_where_averaged_ones_are_about_to_be_evaluated(tmp_path):
    averaging = runs.create(tmp_path, recipe.resolve("mlp", overrides=[("train.ema", "0.9", "set")]), INFO)
    line = {"kind": "evaluation", "split": "validation", "step": 5, "loss": 0.25}
    averaging.log({**line, "weights": "raw"})
    assert averaging.monitored() == {}
    averaging.log({**line, "weights": "ema", "loss": 0.75})
    assert averaging.monitored() == {5: 0.75}


def test_a_pointer_to_nothing_or_to_elsewhere_is_none(run):
    write(run, 1, w=1)
    (run.path / "checkpoints" / "best").write_text("step-2")
    assert run.pointer("best") is None
    (run.path / "checkpoints" / "best").write_text("../../other")
    assert run.pointer("best") is None
    (run.path / "checkpoints" / "best").write_bytes(b"\xff\xfe")
    assert run.pointer("best") is None


def test_weights_of_another_architecture_are_refused_and_the_model_is_unchanged(run):
    model = runs.build_model(run.path)
    before = model.get_weights()
    arrays = {name: np.zeros(variable.shape, np.float32) for name, variable in runs.named_variables(model).items()}
    arrays[next(iter(arrays))] = np.zeros((7, 7), np.float32)
    with pytest.raises(CheckpointError, match="does not fit the model.*7x7"):
        runs.load_weights(model, arrays, where="runs/other")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_come_back(run):
    model = runs.build_model(run.path)
    arrays = {path: variable.value.numpy() + 1 for path, variable in runs.named_variables(model).items()}
    checkpoints.write(
        run.path / "checkpoints" / "step-5", {"weights": arrays, "ema": {k: 2 * v for k, v in arrays.items()}}, {}
    )
    for weights, factor in [("raw", 1), ("ema", 2), ("auto", 2)]:
        loaded = runs.named_variables(runs.load_model(f"{run.path}@step-5", weights=weights))
        for path, array in arrays.items():
            np.testing.assert_array_equal(loaded[path].value.numpy(), factor * array)


def test_an_unwritable_folder_is_one_line(tmp_path, mlp):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(DlkitError, match="cannot write to") as caught:
        runs.create(tmp_path / "runs", mlp, INFO)
    assert caught.value.code == 1


def test_one_process_at_a_time_trains_a_run(run):
    script = f"from dlkit import runs; runs.lock(runs.open_run({str(run.path)!r}))"
    runs.lock(run)
    runs.lock(run)  # it is ours
    for line in (script, script.replace("runs.lock", "runs.remove")):
        other = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=False)
        assert "is being trained by another process" in other.stderr
    os.close(runs._locks.pop(run.path.resolve()))
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of_and_trained_on(run, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    runs.lock(run)
    assert capsys.readouterr().err == (
        f"warning: {run.path} cannot be locked ({os.strerror(number)}): train it in one process at a time\n"
    )
    runs.remove(run)
    assert not run.path.exists()


def test_the_newest_run_of_a_task(tmp_path, mlp):
    first, second = (runs.create(tmp_path, mlp, INFO) for _ in range(2))
    with pytest.raises(DataError, match="no trained run for image classification"):
        runs.newest("image_classification", tmp_path)
    write(first, 1, w=1)
    assert runs.newest("image_classification", tmp_path).path == first.path
    write(second, 1, w=1)
    first.update_info(attempt=2)  # what is written to later is not newer
    assert runs.newest("image_classification", tmp_path).path == second.path
    assert [run.name for run in runs.list_runs(tmp_path)] == [second.name, first.name]


def test_a_run_that_goes_away_leaves_no_lock(run, mlp):
    runs.remove(run)
    assert run.path.resolve() not in runs._locks
    again = runs.create(run.path.parent, mlp, INFO)
    assert again.path == run.path
    runs.lock(again)
    assert (again.path / ".lock").exists()
    with pytest.raises(DlkitError, match="cannot write to"):
        runs.lock(runs.Run(run.path / "nowhere", {}, {}))


FORMAT_1 = Path(__file__).with_name("format_1")


def test_a_run_of_format_1_is_opened(capsys):
    """Written by the first version and never again: `dlkit train mlp --epochs 1 --limit 32`, 8x8 images, 2 units."""
    run = runs.open_run(FORMAT_1)
    assert run.info["format"] == 1
    (step,) = run.checkpoints()
    arrays = load_file(FORMAT_1 / "checkpoints" / step / "weights.safetensors")

    def forward(images):
        x = images.reshape(len(images), -1)
        x = np.maximum(x @ arrays["dense1/kernel"] + arrays["dense1/bias"], 0)
        return x @ arrays["head/kernel"] + arrays["head/bias"]

    images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    for which in ("", "@best", "@last", f"@{step}"):
        np.testing.assert_allclose(dlkit.load(f"{FORMAT_1}{which}")(images).numpy(), forward(images), atol=1e-5)

    assert cli.main(["evaluate", str(FORMAT_1), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    task = open_task(run.task, run.recipe["data"], info=run.info["data"])
    batch = task.batch("test", np.arange(task.size("test")), epoch=None)
    logits, labels = forward(np.asarray(batch["images"])), np.asarray(batch["labels"])
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    assert found["examples"] == 360
    assert found["accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == labels))
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-4)
