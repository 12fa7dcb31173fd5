"""A run that is killed, at any moment, and resumed ends with the weights of one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from dlkit import cluster, runs
from dlkit.cli import main, training
from dlkit.errors import DataError
from dlkit.tasks.image_classification import ImageClassification
from dlkit.train import checkpoints, loop

# Three epochs of 4 steps, uneven last batches, momentum, dropout, augmentation, averaged weights.
SETTINGS = [
    "--epochs", "3", "--batch-size", "32", "--limit", "100", "--ema", "0.9", "--seed", "3", "-q",
    "--set", "model.hidden=[16]", "--set", "model.dropout=0.3", "--set", "data.size=8", "--set", "data.augment=crop",
    "--set", "train.checkpoint_every=2", "--set", "train.keep=20",
]  # fmt: skip

# Epochs of 5 uneven batches by tokens, dropout, a decoder that reads own words, averaged weights.
TRANSLATION = [
    "--steps", "12", "--batch-tokens", "24", "--ema", "0.9", "--seed", "3",
    "--set", "data.train=30", "--set", "data.validation=4", "--set", "data.test=4", "--set", "data.length=3",
    "--set", "model.width=8", "--set", "model.layers=1", "--set", "model.dropout=0.3",
    "--set", "train.sampling=constant", "--set", "train.sampling_rate=0.5", "--set", "train.log_every=1",
    "--set", "train.decode_every=none",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(["train", "mlp", "--runs-dir", str(folder), "--name", "whole", *SETTINGS]) == 0
    return runs.open_run(folder / "whole")


def final(run, group="weights"):
    return checkpoints.read(run.path / "checkpoints" / "step-12", group)


def assert_same_end(run, whole):
    assert run.checkpoints()[-1] == "step-12"
    for group in ("weights", "optimizer", "ema"):
        ours, theirs = final(run, group), final(whole, group)
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6, err_msg=f"{group} {name}")
    assert run.pointer("last") == "step-12"
    assert run.pointer("best") == whole.pointer("best")
    ours, theirs = ([line for line in each.metrics() if line["kind"] == "evaluation"] for each in (run, whole))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    np.testing.assert_allclose([line["loss"] for line in ours], [line["loss"] for line in theirs], rtol=1e-4)


def test_the_same_command_gives_the_same_weights(whole, tmp_path):
    assert main(["train", "mlp", "--runs-dir", str(tmp_path), "--name", "again", *SETTINGS]) == 0
    assert_same_end(runs.open_run(tmp_path / "again"), whole)


@pytest.mark.parametrize("fatal", [3, 17])
def test_killed_while_a_checkpoint_is_written(whole, tmp_path, fatal):
    script = Path(__file__).with_name("killed.py")
    killed = subprocess.run([sys.executable, script, tmp_path, str(fatal), *SETTINGS], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    run = runs.open_run(tmp_path / "killed")
    half = list((run.path / "checkpoints").glob(".step-*.tmp"))
    assert len(half) == 1, "the kill has to hit a write"
    assert any(half[0].iterdir())
    assert all(checkpoints.damage(run.path / "checkpoints" / name) is None for name in run.checkpoints())
    assert len(run.checkpoints()) < 6

    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    assert_same_end(run, whole)
    assert not list((run.path / "checkpoints").glob(".*")), "what the kill left is swept away"
    assert max(line["attempt"] for line in run.metrics()) == 2


@pytest.mark.parametrize(("model", "settings"), [("mlp", SETTINGS), ("seq2seq", TRANSLATION)])
def test_deterministic_runs_resume_bit_for_bit(tmp_path, model, settings):
    """In a process of its own, since determinism cannot be switched off again. Stopped after steps 3 and 7."""
    script = Path(__file__).with_name("deterministic.py")
    command = [sys.executable, script, tmp_path, model, *settings]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    whole, parts = (runs.open_run(tmp_path / name) for name in ("whole", "parts"))
    assert {line["attempt"]: line["step"] for line in parts.metrics()} == {1: 3, 2: 7, 3: 12}
    assert whole.info["resumes"] == parts.info["resumes"] == "bit for bit"
    for group in ("weights", "optimizer", "ema"):
        for name, array in final(whole, group).items():
            np.testing.assert_array_equal(final(parts, group)[name], array, err_msg=f"{group} {name}")


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """Ten kills of a run of 1,200 steps, wherever they come: the start, a step, an evaluation, a write."""
    random = np.random.default_rng(0)
    command = [sys.executable, "-m", "dlkit", "train"]
    settings = [{"3": "300"}.get(word, word) if place == 1 else word for place, word in enumerate(SETTINGS)]
    settings += ["--precision", "float64"]  # in float32 it grows over so many steps what the order of the sums leaves
    subprocess.run([*command, "mlp", "--runs-dir", tmp_path, "--name", "whole", *settings], check=True)
    start = [*command, "mlp", "--runs-dir", tmp_path, "--name", "killed", *settings]
    hits = 0
    while hits < 10:
        begun = (tmp_path / "killed" / "run.json").exists()
        process = subprocess.Popen([*command, "--resume", tmp_path / "killed", "-q"] if begun else start)
        time.sleep(random.uniform(5, 7.5))
        if process.poll() is not None:
            break  # it came to its end
        process.kill()
        process.wait()
        hits += 1
    assert hits >= 3
    assert subprocess.run([*command, "--resume", tmp_path / "killed", "-q"], check=True)
    whole, killed = (runs.open_run(tmp_path / name) for name in ("whole", "killed"))
    assert killed.pointer("last") == "step-1200"
    for group in ("weights", "optimizer", "ema"):
        ours, theirs = (checkpoints.read(run.path / "checkpoints" / "step-1200", group) for run in (killed, whole))
        for name, array in theirs.items():
            np.testing.assert_allclose(ours[name], array, rtol=1e-5, atol=1e-5, err_msg=f"{group} {name}")


def cut_short(whole, folder, step):
    """A copy of the whole run as it was after `step` updates."""
    shutil.copytree(whole.path, folder)
    run = runs.open_run(folder)
    for name in run.checkpoints():
        if checkpoints.step_of(name) > step:
            shutil.rmtree(folder / "checkpoints" / name)
    run.point("last", f"step-{step}")
    best = [4, 8, 12]
    run.point("best", f"step-{max(s for s in best if s <= step)}" if step >= 4 else f"step-{step}")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in kept))
    return run


@pytest.mark.parametrize("step", [2, 6, 8])
def test_resumed_in_the_middle_of_an_epoch_and_at_its_end(whole, tmp_path, step):
    run = cut_short(whole, tmp_path / "cut", step)
    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    for group in ("weights", "optimizer", "ema"):
        for name, array in final(run, group).items():
            np.testing.assert_allclose(array, final(whole, group)[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("harm", ["flip", "truncate"])
def test_a_damaged_checkpoint_is_left_aside_for_the_one_before(whole, tmp_path, capsys, harm):
    run = cut_short(whole, tmp_path / "cut", 8)
    file = run.path / "checkpoints" / "step-8" / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content if harm == "flip" else content[:-100])
    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    error = capsys.readouterr().err
    assert "step-8 is damaged" in error
    assert "using the one before it" in error
    for name, array in final(run).items():
        np.testing.assert_allclose(array, final(whole)[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert checkpoints.damage(run.path / "checkpoints" / "step-8") is None, "written anew"


def rewrite(path, group, change):
    """Changes the arrays of a checkpoint and gives it a manifest that fits, as another program might."""
    groups = {name: checkpoints.read(path, name) for name in ("weights", "optimizer", "ema")}
    groups[group] = change(dict(groups[group]))
    checkpoints.write(path, groups, checkpoints.read_state(path))


def test_an_optimizer_state_without_one_slot_is_refused(whole, tmp_path, capsys):
    run = cut_short(whole, tmp_path / "cut", 8)
    before = sorted(os.listdir(run.path / "checkpoints"))

    def without_one(arrays):
        del arrays["v/dense1/bias"]
        return arrays

    rewrite(run.path / "checkpoints" / "step-8", "optimizer", without_one)
    assert main(["train", "--resume", str(run.path), "-q"]) == 4
    error = capsys.readouterr().err
    assert "optimizer state" in error
    assert "v/dense1/bias is missing" in error
    assert sorted(os.listdir(run.path / "checkpoints")) == before


def test_a_checkpoint_of_another_architecture_is_refused(whole, tmp_path, capsys):
    run = cut_short(whole, tmp_path / "cut", 8)
    text = (run.path / "recipe.toml").read_text()
    (run.path / "recipe.toml").write_text(text.replace("hidden = [16]", "hidden = [17]"))
    for command in (["train", "--resume", str(run.path)], ["evaluate", str(run.path)]):
        assert main([*command, "-q"]) == 4
        error = capsys.readouterr().err
        assert "does not fit the model: dense1/kernel is 64x16, not 64x17" in error
        assert error.count("\n") == 2


def test_changed_data_are_noticed(whole, tmp_path, capsys):
    run = cut_short(whole, tmp_path / "cut", 8)
    run.update_info(fingerprint="0" * 64)
    assert main(["train", "--resume", str(run.path), "-q"]) == 3
    assert "has changed since it began" in capsys.readouterr().err


def test_a_finished_run_is_not_trained_again(whole, tmp_path, capsys):
    shutil.copytree(whole.path, tmp_path / "done")
    before = (tmp_path / "done" / "checkpoints" / "step-12" / "manifest.json").read_bytes()
    assert main(["train", "--resume", str(tmp_path / "done")]) == 0
    assert (tmp_path / "done" / "checkpoints" / "step-12" / "manifest.json").read_bytes() == before
    assert "test accuracy" in capsys.readouterr().err


@pytest.mark.parametrize("flag", [["--lr", "0.1"], ["--set", "train.lr=1"], ["--data", "digits"], ["--name", "x"]])
def test_the_recipe_of_a_resumed_run_is_its_own(whole, capsys, flag):
    assert main(["train", "--resume", str(whole.path), *flag]) == 2
    assert f"{flag[0]} cannot change" in capsys.readouterr().err


def farewells(monkeypatch):
    """What a process does at the end: says goodbye to the others, saves."""
    events = []
    save = loop.Loop.save
    monkeypatch.setattr(cluster.Peers, "say_goodbye", lambda self: events.append("goodbye"))
    monkeypatch.setattr(loop.Loop, "save", lambda self, **best: events.append("save") or save(self, **best))
    return events


TERMINAL_IS_CLOSED = (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)  # by the system, the shell, and a session's end


@pytest.mark.parametrize(("numbers", "code"), [((signal.SIGINT,), 130), (TERMINAL_IS_CLOSED, 143)])
def test_a_signal_saves_and_the_run_goes_on(whole, tmp_path, capsys, monkeypatch, numbers, code):
    step = loop.TrainingStep.__call__

    def interrupted(self, batch, *, step, call=step, **rest):
        if step == 4:
            for number in numbers:
                os.kill(os.getpid(), number)
        return call(self, batch, step=step, **rest)

    events = farewells(monkeypatch)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(loop.TrainingStep, "__call__", interrupted)
    assert main(["train", "mlp", "--runs-dir", str(tmp_path), "--name", "stopped", *SETTINGS]) == code
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert events[-2:] == ["goodbye", "save"], "nobody waits for the others while the chief saves"
    error = capsys.readouterr().err
    assert "interrupted after step 5, saved" in error
    assert f"--resume {tmp_path / 'stopped'}" in error
    run = runs.open_run(tmp_path / "stopped")
    assert run.pointer("last") == "step-5"
    (line,) = (line for line in run.metrics() if line["kind"] == "train" and line["step"] == 5)
    assert 0 < line["update_ratio"] < 1, "that of the first update behind the line before"
    monkeypatch.undo()
    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    assert_same_end(run, whole)


def test_a_signal_outside_of_the_loop_says_how_the_run_goes_on(whole, tmp_path, capsys, monkeypatch):
    def stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    def lines_of(*arguments):
        assert main(["train", *arguments]) == 143
        return capsys.readouterr().err.splitlines()

    monkeypatch.setattr(training, "introduce", stop)  # before the first step
    hint = f"hint: `dlkit train --resume {tmp_path}/x` goes on with the run"
    assert lines_of("mlp", "--runs-dir", str(tmp_path), "--name", "x", *SETTINGS) == ["error: interrupted", hint]
    monkeypatch.undo()
    monkeypatch.setattr(loop.Loop, "test", stop)  # after the last one
    path = shutil.copytree(whole.path, tmp_path / "whole")
    hint = f"hint: `dlkit train --resume {path}` goes on with the run"
    assert lines_of("--resume", str(path), "-q") == ["error: interrupted", hint]


class Damaged:
    """Makes the data of a split fail from its n-th batch on."""

    def __init__(self, monkeypatch, split, batch):
        self.split, self.left = split, batch
        for name in ("rows_of", "batch"):
            monkeypatch.setattr(ImageClassification, name, self.counted(getattr(ImageClassification, name)))

    def counted(self, make):
        def counted(task, split, *arguments, epoch):
            mine = split == self.split and (epoch is None or make.__name__ == "rows_of")
            if mine and self.left == 0:
                raise DataError("cat.png is damaged or cut short", "`--on-bad skip` leaves it out")
            self.left -= mine
            return make(task, split, *arguments, epoch=epoch)

        return counted


def assert_kept(run, step, capsys):
    assert run.pointer("last") == f"step-{step}"
    assert capsys.readouterr().err.splitlines() == [
        "error: cat.png is damaged or cut short",
        f"hint: step {step} is saved: with the file as it was, `dlkit train --resume {run.path}` goes on from there;"
        f" without it, `--init-from {run.path}` starts a new run from these weights",
    ]


def test_an_image_that_is_damaged_on_the_way_ends_a_run_that_can_go_on(whole, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        Damaged(patch, "train", 5)
        events = farewells(patch)
        assert main(["train", "mlp", "--runs-dir", str(tmp_path), "--name", "kept", *SETTINGS]) == 3
    assert events[-2:] == ["goodbye", "save"]
    run = runs.open_run(tmp_path / "kept")
    assert_kept(run, 5, capsys)
    with monkeypatch.context() as patch:
        Damaged(patch, "train", 0)
        assert main(["train", "--resume", str(run.path), "-q"]) == 3
    assert_kept(run, 5, capsys)
    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    assert_same_end(run, whole)


def test_an_image_that_is_damaged_in_the_validation_split_ends_a_run_that_can_go_on(tmp_path, capsys, monkeypatch):
    settings = ["--set", "train.checkpoint_every=100", "--set", "train.evaluate_every=1.5"]
    Damaged(monkeypatch, "validation", 0)
    assert main(["train", "mlp", "--runs-dir", str(tmp_path), "--name", "kept", *SETTINGS, *settings]) == 3
    assert_kept(runs.open_run(tmp_path / "kept"), 6, capsys)


def test_nothing_is_saved_when_nothing_is_trained_or_what_is_trained_is_not_finite(tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        Damaged(patch, "train", 0)
        assert main(["train", "mlp", "--runs-dir", str(tmp_path), "--name", "x", *SETTINGS]) == 3
    with monkeypatch.context() as patch:
        Damaged(patch, "train", 1)
        one_step = loop.TrainingStep.__call__
        infinite = {"finite": tf.constant(False)}
        patch.setattr(loop.TrainingStep, "__call__", lambda self, *of, **rest: one_step(self, *of, **rest) | infinite)
        assert main(["train", "mlp", "--runs-dir", str(tmp_path), "--name", "y", *SETTINGS]) == 3
    for name in "xy":
        assert runs.open_run(tmp_path / name).checkpoints() == []
    lines = ["error: cat.png is damaged or cut short", "hint: `--on-bad skip` leaves it out"]
    assert capsys.readouterr().err.splitlines() == lines * 2


def test_max_time_saves_and_the_run_goes_on(whole, tmp_path):
    command = ["train", "mlp", "--runs-dir", str(tmp_path), "--name", "short", "--max-time", "0.001s"]
    assert main([*command, *SETTINGS]) == 0
    run = runs.open_run(tmp_path / "short")
    assert run.pointer("last") == "step-1"
    assert main(["train", "--resume", str(run.path), "--max-time", "1h", "-q"]) == 0
    assert run.pointer("last") == "step-12"
    for name, array in final(run).items():
        np.testing.assert_allclose(array, final(whole)[name], rtol=1e-5, atol=1e-6, err_msg=name)
