import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from dlkit import recipe, runs
from dlkit.errors import CheckpointError, DataError, DlkitError, UsageError
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


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "x@best"])
def test_a_name_has_to_be_one(tmp_path, mlp, name):
    with pytest.raises(UsageError, match="not a name"):
        runs.create(tmp_path, mlp, INFO, name=name)
    assert os.listdir(tmp_path) == []


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
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "is being trained by another process" in other.stderr
    os.close(runs._locks.pop(run.path.resolve()))
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_newest_run_of_a_task(tmp_path, mlp):
    first, second = (runs.create(tmp_path, mlp, INFO) for _ in range(2))
    with pytest.raises(DataError, match="no trained run for image classification"):
        runs.newest("image_classification", tmp_path)
    write(first, 1, w=1)
    assert runs.newest("image_classification", tmp_path).path == first.path
    write(second, 1, w=1)
    os.utime(second.path / "run.json", (2e9, 2e9))
    assert runs.newest("image_classification", tmp_path).path == second.path
    assert [run.name for run in runs.list_runs(tmp_path)] == [second.name, first.name]
