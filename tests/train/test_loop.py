"""What the loop decides: when to log, stop, save, warn; and what `train` says when something is wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dlkit import runs, runtime, signals, workers
from dlkit.cli import main
from dlkit.errors import Interrupted
from dlkit.train import checkpoints, loop
from dlkit.train.evaluation import Evaluation
from dlkit.train.step import TrainingStep

SMALL = [
    "--batch-size",
    "32",
    "--limit",
    "64",
    "--set",
    "model.hidden=[8]",
    "--set",
    "data.size=8",
    "--set",
    "train.keep=2",
]


def train(folder, *arguments, name="x", model="mlp"):
    return main(["train", model, "--runs-dir", str(folder), "--name", name, *SMALL, *arguments])


def test_what_a_newcomer_sees(tmp_path, capsys):
    assert train(tmp_path, "--epochs", "2") == 0
    out, error = capsys.readouterr()
    assert out == "", "stdout carries data only"
    lines = error.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["recipe", "run", "data", "model", "device", "steps"]
    assert "64 train, 64 validation, 64 test, 8x8x1, 10 classes; standardized with mean" in lines[2]
    assert f"{64 * 8 + 8 + 8 * 10 + 10:,} parameters" in lines[3]
    assert "CPU" in lines[4]
    assert lines[4].endswith("KiB")
    assert lines[5].endswith("2 epochs x 2 = 4")
    assert sum(line.startswith("epoch") and "|g|" in line for line in lines) == 2, "one line an interval"
    assert lines[-2].startswith("test accuracy ")
    assert " of 64)" in lines[-2]
    assert lines[-1].startswith(f"next: dlkit evaluate {tmp_path / 'x'}")


def test_the_estimate_comes_after_the_first_steps(tmp_path, capsys):
    assert train(tmp_path, "--epochs", "5") == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("time"))
    assert re.fullmatch(r"time +about \d+ s for the 6 steps that are left, and the evaluations", line)


@pytest.mark.parametrize(
    ("on_gpu", "every", "left", "rates"),
    [(False, 1, [None, 4, 3, 2, 1, 0], [None, 32, 16, 32, 32, 16]), (True, 3, [3, 0], [80 / 3, 80 / 3])],
)
def test_steps_that_trace_a_graph_are_left_out_of_rate_and_time(
    tmp_path, capsys, monkeypatch, on_gpu, every, left, rates
):
    """Such a step takes 100 s here, and any other 1 s; the last batch of an epoch, 16 of 80, is of another shape."""
    now, update = 0.0, TrainingStep.__call__

    def timed(self, *arguments, **options):
        nonlocal now
        before = self._update.experimental_get_tracing_count()
        measured = update(self, *arguments, **options)
        now += 100 if self._update.experimental_get_tracing_count() > before else 1
        return measured

    monkeypatch.setattr(TrainingStep, "__call__", timed)
    monkeypatch.setattr(runtime.Devices, "on_gpu", on_gpu)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now))
    assert train(tmp_path, "--limit", "80", "--epochs", "2", "--set", f"train.log_every={every}") == 0
    told = capsys.readouterr().err
    assert re.search(r"^time +about 2 s for the 2 steps that are left", told, re.MULTILINE)
    lines = [line for line in runs.open_run(tmp_path / "x").metrics() if line["kind"] == "train"]
    assert [line["seconds_left"] for line in lines] == left
    assert [line["img_per_second"] for line in lines] == pytest.approx(rates)
    first = next(line for line in told.splitlines() if line.startswith("epoch"))
    assert ("img/s" in first, " left" in first) == (left[0] is not None,) * 2


def test_the_time_that_is_left_counts_evaluations_once_one_like_them_has_been_timed(tmp_path, monkeypatch):
    """A step takes 1 s here, an evaluation 10 s, and each second one, which decodes, 100 s."""
    now, update, evaluate = 0.0, TrainingStep.__call__, loop.Evaluation.__call__

    def step_timed(self, *arguments, **options):
        nonlocal now
        now += 1
        return update(self, *arguments, **options)

    def evaluation_timed(self, split, *, decode):
        nonlocal now
        now += 100 if decode else 10
        return evaluate(self, split, decode=decode)

    begin = loop.Loop.__init__

    def decoding_every_second_epoch(self, run, settings, *of, **rest):
        begin(self, run, settings.model_copy(update={"decode_every": 2}), *of, **rest)

    monkeypatch.setattr(TrainingStep, "__call__", step_timed)
    monkeypatch.setattr(loop.Evaluation, "__call__", evaluation_timed)
    monkeypatch.setattr(loop.Loop, "__init__", decoding_every_second_epoch)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now))
    assert train(tmp_path, "--limit", "80", "--epochs", "4", "--set", "train.log_every=1", "-q") == 0
    lines = [line for line in runs.open_run(tmp_path / "x").metrics() if line["kind"] == "train"]
    assert [line["seconds_left"] for line in lines] == [
        None, 10, 9,  # none timed yet
        8 + 10, 7 + 10, 6 + 10,  # one without decoding is to come, and what the others take is not known
        5 + 110, 4 + 110, 3 + 110,
        2 + 100, 1 + 100, 0,
    ]  # fmt: skip


def left_of(step, *, steps, every, decode_every, timed):
    """The seconds that a loop foresees for evaluations after a step."""
    stub = SimpleNamespace(
        length=loop.Length(steps, 1, every, 1), settings=SimpleNamespace(decode_every=decode_every),
        progress=loop.Progress(step=step), evaluation_seconds=timed,
    )  # fmt: skip
    return loop.Loop._evaluations_left(stub)


@pytest.mark.parametrize("decode_every", [None, 1, 2, 3])
@pytest.mark.parametrize(("steps", "every"), [(12, 3), (13, 3), (14, 4), (5, 7), (6, 1)])
def test_the_evaluations_that_are_left_one_by_one(steps, every, decode_every):
    for step in range(1, steps):
        plain = decoding = 0
        for done in range(step, steps + 1):  # none was made at the step of a log line
            if done % every == 0 or done == steps:
                decodes = decode_every is not None and (done == steps or done // every % decode_every == 0)
                plain, decoding = plain + (not decodes), decoding + decodes
        options = {"steps": steps, "every": every, "decode_every": decode_every}
        assert left_of(step, **options, timed={False: 1.0, True: 1000.0}) == plain + 1000 * decoding
        assert left_of(step, **options, timed={True: 1.0}) == decoding
        assert left_of(step, **options, timed={}) == 0


def test_counting_what_is_left_takes_no_time():
    start = time.process_time()
    left = left_of(1, steps=10**7, every=1, decode_every=2, timed={False: 1.0, True: 1.0})
    assert left == 10**7
    assert time.process_time() - start < 0.1


def test_every_line_of_the_log_says_all_that_it_should(tmp_path):
    assert train(tmp_path, "--epochs", "2", "--clip-norm", "0.1", "-q") == 0
    records = runs.open_run(tmp_path / "x").metrics()
    logged = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in logged] == [2, 4]
    for record in logged:
        assert {
            "schema", "attempt", "epoch", "loss", "accuracy", "lr", "gradient_norm", "gradient_norm_p90", "clipped",
            "update_ratio", "img_per_second", "memory", "seconds", "seconds_left",
        } <= record.keys()  # fmt: skip
        assert record["clipped"] == 1.0
        assert record["gradient_norm_p90"] >= record["gradient_norm"]  # of two norms the larger one
        assert 0 < record["update_ratio"] < 1
        assert record["memory"] > 100e6
    assert logged[-1]["seconds_left"] == 0


def test_every_line_of_the_log_has_the_size_of_an_update(tmp_path):
    """Three steps an interval, of 4 an epoch and 10 in all: lines at multiples of 3, at each evaluation and at the end.

    An update of plain descent is lr g, and its size that of the last one of the interval.
    """
    plain = ["--optimizer", "sgd", "--set", "train.momentum=0", "--weight-decay", "0", "--schedule", "constant"]
    often = ["--set", "train.log_every=3", "--set", "train.checkpoint_every=1", "--set", "train.keep=20"]
    rest = ["--limit", "128", "--steps", "10", "--lr", "0.05", "--warmup", "0", "--set", "train.clip_norm=none", "-q"]
    assert train(tmp_path, *plain, *often, *rest) == 0
    run = runs.open_run(tmp_path / "x")
    logged = [line for line in run.metrics() if line["kind"] == "train"]
    assert [line["step"] for line in logged] == [3, 4, 6, 8, 9, 10]

    def weights(step):
        arrays = checkpoints.read(run.path / "checkpoints" / f"step-{step}", "weights")
        return np.concatenate([array.ravel() for array in arrays.values()]).astype(np.float64)

    for line in logged:
        before, after = weights(line["step"] - 1), weights(line["step"])
        assert line["update_ratio"] == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-4)
    of_one = next(line for line in logged if line["step"] == 4)
    size = of_one["update_ratio"] * np.linalg.norm(weights(3))
    assert size == pytest.approx(0.05 * of_one["gradient_norm"], rel=1e-4)


def test_json_on_stdout(tmp_path, capsys):
    assert train(tmp_path, "--epochs", "1", "--json", "-q") == 0
    out, error = capsys.readouterr()
    result = json.loads(out)
    assert result["split"] == "test"
    assert result["metrics"].keys() == {"loss", "accuracy"}
    assert error == ""


def test_evaluate_repeats_what_training_said(tmp_path, capsys):
    assert train(tmp_path, "--epochs", "2", "--ema", "0.5", "--json", "-q") == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["weights"] == "ema"
    assert main(["evaluate", str(tmp_path / "x"), "--limit", "64", "--json", "-q"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["weights"] == "ema"
    assert evaluated["accuracy"] == pytest.approx(trained["metrics"]["accuracy"], abs=1e-9)
    assert evaluated["loss"] == pytest.approx(trained["metrics"]["loss"], rel=1e-5)
    both = [line for line in runs.open_run(tmp_path / "x").metrics() if line.get("split") == "validation"]
    assert {line["weights"] for line in both} == {"raw", "ema"}, "both weights are evaluated"


def scripted_evaluation(monkeypatch, values, losses=()):
    """Lets the monitored metric be what the test says, and the loss, which is 1 otherwise."""
    series, of_loss = iter(values), iter(losses)

    def evaluate(self, split, *, decode):
        measured = split == "validation"
        return {"loss": next(of_loss, 1.0) if measured else 1.0, "accuracy": next(series) if measured else 0.0}

    monkeypatch.setattr(Evaluation, "__call__", evaluate)


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        ("train.schedule=plateau", ["--schedule", "plateau"]),
        ("train.patience", ["--set", "train.patience=3"]),
        ("train.monitor", ["--set", "train.monitor=loss"]),
    ],
)
def test_what_looks_at_the_validation_split_is_refused_without_one(tmp_path, capsys, key, asked):
    folder = tmp_path / "images"
    for number in range(8):
        file = folder / "train" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 30 * number, np.uint8)).save(file)
    without = ["--data", str(folder), "--set", "data.validation=0", "--epochs", "1", "-q"]
    assert train(tmp_path / "runs", *without, *asked) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {key} looks at the validation split, and {folder} has none",
        "hint: leave it out, or let data.validation hold some of the training data out",
    ]
    assert not (tmp_path / "runs").exists()


def test_early_stopping_and_the_best_checkpoint(tmp_path, monkeypatch, capsys):
    scripted_evaluation(monkeypatch, [0.5, 0.9, 0.8, 0.9, 0.7, 0.95])
    watching = ["--set", "train.patience=3", "--set", "train.monitor=accuracy"]
    assert train(tmp_path, "--epochs", "6", *watching) == 0
    run = runs.open_run(tmp_path / "x")
    assert run.pointer("best") == "step-4", "0.9 first came after two epochs; as good again is not better"
    assert run.pointer("last") == "step-10"
    assert run.checkpoints() == ["step-4", "step-8", "step-10"], "two kept, and the best"
    assert "early stopping after step 10" in capsys.readouterr().err
    assert main(["train", "--resume", str(run.path)]) == 0
    assert "early stopping after step 10" in capsys.readouterr().err, "and not a step further"
    assert run.checkpoints() == ["step-4", "step-8", "step-10"]


def test_a_run_may_stand_for_its_last_weights(tmp_path, monkeypatch, capsys):
    scripted_evaluation(monkeypatch, [0.5, 0.9, 0.7])
    assert train(tmp_path, "--epochs", "3", "--set", "train.select=last", "--set", "train.monitor=accuracy") == 0
    assert " with the last weights; " in capsys.readouterr().err
    run = runs.open_run(tmp_path / "x")
    assert (run.pointer("best"), run.pointer("last")) == ("step-6", "step-6")
    assert (run.info["result"]["step"], run.info["result"]["best"]) == (6, False)
    assert main(["runs", "list", "--runs-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["best"] == 0.7
    shutil.rmtree(run.path / "checkpoints" / "step-6")
    scripted_evaluation(monkeypatch, [0.8])
    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    assert (run.pointer("best"), run.pointer("last")) == ("step-6", "step-6"), "step-4 was better, and is not chosen"
    assert train(tmp_path, "--set", "train.select=last", "--set", "train.patience=2", name="y") == 2
    assert "train.patience waits for a better checkpoint" in capsys.readouterr().err


def test_of_equals_the_best_is_the_one_with_the_lower_loss(tmp_path, monkeypatch):
    """Patience waits for a better accuracy all the same; and a run that is stopped between two equals knows of it."""
    script = [0.9, 0.9, 0.9, 0.8, 0.9], [0.06, 0.02, 0.04, 0.01, 0.03]
    watching = ["--set", "train.patience=4", "--set", "train.monitor=accuracy", "--set", "train.keep=9", "-q"]
    scripted_evaluation(monkeypatch, *script)
    assert train(tmp_path, "--epochs", "6", *watching) == 0
    run = runs.open_run(tmp_path / "x")
    assert (run.pointer("best"), run.pointer("last")) == ("step-4", "step-10"), "early stopping, four after the first"
    state = checkpoints.read_state(run.path / "checkpoints" / "step-10")
    assert (state["best"], state["best_step"], state["best_loss"], state["stale"]) == (0.9, 4, 0.02, 4)
    for name in ("step-6", "step-8", "step-10"):
        shutil.rmtree(run.path / "checkpoints" / name)
    scripted_evaluation(monkeypatch, *(each[2:] for each in script))
    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    assert (run.pointer("best"), run.pointer("last")) == ("step-4", "step-10")
    assert checkpoints.read_state(run.path / "checkpoints" / "step-10")["best_loss"] == 0.02


def test_a_best_checkpoint_of_unknown_loss_gives_way_to_a_better_metric_alone(tmp_path, monkeypatch):
    """As in a run of an older dlkit that is resumed."""
    scripted_evaluation(monkeypatch, [0.9, 0.9, 0.95], [float("nan"), 0.02, 0.03])
    watching = ["--set", "train.monitor=accuracy", "--set", "train.keep=9", "-q"]
    assert train(tmp_path, "--epochs", "3", *watching) == 0
    run = runs.open_run(tmp_path / "x")
    states = [checkpoints.read_state(run.path / "checkpoints" / name) for name in run.checkpoints()]
    assert [state["best_step"] for state in states] == [2, 2, 6]
    assert run.pointer("best") == "step-6"


def scripted_decoding(monkeypatch, values):
    """Lets `exact` be what the test says, where an evaluation decodes, and notes the steps at which it does."""
    series, steps = iter(values), []

    def evaluate(self, split, *, decode):
        if split == "validation":
            steps.append(decode)
        return {"loss": 1.0 / (1 + len(steps)), "accuracy": 0.5} | ({"exact": next(series, 0.0)} if decode else {})

    monkeypatch.setattr(Evaluation, "__call__", evaluate)
    return steps


TRANSLATOR = [
    "--set", "data.train=32", "--set", "data.validation=4", "--set", "data.test=4", "--set", "data.length=3",
    "--set", "model.width=4", "--set", "model.layers=1", "--set", "train.keep=9", "-q",
]  # fmt: skip


def train_translator(folder, *arguments):
    start = ["train", "seq2seq", "--runs-dir", str(folder), "--name", "x", "--batch-size", "32"]
    return main([*start, *TRANSLATOR, *arguments])


def test_the_best_is_chosen_among_the_evaluations_that_decoded(tmp_path, monkeypatch):
    """One update an epoch; after each an evaluation, every other one decodes, and the last."""
    decoded = scripted_decoding(monkeypatch, [0.2, 0.9, 0.1])
    watching = ["--set", "train.monitor=exact", "--set", "train.decode_every=2", "--set", "train.patience=2"]
    assert train_translator(tmp_path, "--epochs", "5", *watching) == 0
    assert decoded == [False, True, False, True, True]
    run = runs.open_run(tmp_path / "x")
    assert run.pointer("best") == "step-4"
    assert run.pointer("last") == "step-5"
    state = json.loads((run.path / "checkpoints" / "step-5" / "state.json").read_text())
    assert (state["best"], state["best_step"], state["stale"]) == (0.9, 4, 1), "patience counts decodings"
    logged = [line for line in run.metrics() if line.get("split") == "validation"]
    assert ["exact" in line for line in logged] == decoded


def test_decoding_may_be_left_to_the_test_split(tmp_path, monkeypatch):
    decoded = scripted_decoding(monkeypatch, [0.75])
    assert train_translator(tmp_path, "--epochs", "2", "--set", "train.decode_every=none") == 0
    assert decoded == [False, False]
    run = runs.open_run(tmp_path / "x")
    assert run.pointer("best") == "step-2", "the loss falls"
    assert run.info["result"]["metrics"]["exact"] == 0.75


def test_scheduled_sampling_rises_as_the_recipe_says(tmp_path):
    """Linear up to 0.5 in six updates: 0.5 k / 5 in update k, from 0."""
    every = ["--set", "train.steps=6", "--set", "train.log_every=1", "--set", "train.decode_every=none"]
    mixed = ["--set", "train.sampling=linear", "--set", "train.sampling_rate=0.5"]
    assert train_translator(tmp_path, *every, *mixed) == 0
    assert train_translator(tmp_path, *every, "--name", "y") == 0
    with_own, without = (runs.open_run(tmp_path / name) for name in "xy")
    logged, plain = ([line for line in run.metrics() if line["kind"] == "train"] for run in (with_own, without))
    assert [line["sampling"] for line in logged] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert not any("sampling" in line for line in plain)
    assert logged[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-6), "at probability 0 all words are true"
    ours, theirs = (checkpoints.read(runs.find_checkpoint(run, "last"), "weights") for run in (with_own, without))
    assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) > 1e-3


def test_sources_that_are_too_long_are_told_once_and_not_at_each_decoding(tmp_path, capsys):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{'a ' * words}\tb\n" for words in (1, 2, 3, 3000)))
    settings = ["train.epochs=3", "data.tokenizer=word", "model.width=4", "model.layers=1", "decode.max_len=2"]
    settings += [f"data.validation_file={pairs}", "data.test=0"]
    arguments = ["train", "seq2seq", "--data", str(pairs), "--runs-dir", str(tmp_path), "--name", "x"]
    assert main([*arguments, *(f"--set={setting}" for setting in settings)]) == 0
    decoded = [line for line in runs.open_run(tmp_path / "x").metrics() if "exact" in line]
    assert [line["split"] for line in decoded] == ["validation"] * 3
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("1 of 4 validation sources are too long to be read") == 1
    assert f"next: dlkit evaluate {tmp_path / 'x'} --split validation |" in said, "there is no test split"


def test_plateau_counts_the_evaluations_that_decoded(tmp_path, monkeypatch):
    """Patience of two epochs is one decoding every two epochs: 0.5, then no better, lowers the rate after epoch 4."""
    scripted_decoding(monkeypatch, [0.5, 0.5, 0.5])
    falling = ["--schedule", "plateau", "--set", "train.plateau_patience=2", "--set", "train.gamma=0.5", "--lr", "0.01"]
    watching = ["--set", "train.monitor=exact", "--set", "train.decode_every=2", "--set", "train.log_every=1"]
    assert train_translator(tmp_path, "--epochs", "6", *falling, *watching) == 0
    rates = [line["lr"] for line in runs.open_run(tmp_path / "x").metrics() if line["kind"] == "train"]
    assert rates == pytest.approx([0.01] * 4 + [0.005] * 2)


def test_a_metric_that_is_better_when_lower(tmp_path, monkeypatch):
    losses = iter([0.5, 0.2, 0.3])
    monkeypatch.setattr(Evaluation, "__call__", lambda self, split, *, decode: {"loss": next(losses, 1.0)})
    assert train(tmp_path, "--epochs", "3", "--set", "train.monitor=loss", "-q") == 0
    assert runs.open_run(tmp_path / "x").pointer("best") == "step-4"


def test_what_is_not_a_number_is_never_the_best(tmp_path, monkeypatch):
    scripted_evaluation(monkeypatch, [float("nan"), 0.4, float("nan"), 0.6])
    assert train(tmp_path, "--epochs", "4", "--set", "train.monitor=accuracy", "-q") == 0
    run = runs.open_run(tmp_path / "x")
    assert run.pointer("best") == "step-8"
    assert checkpoints.read_state(run.path / "checkpoints" / "step-8")["best"] == 0.6


def test_a_kill_between_a_checkpoint_and_its_pointers_is_mended(tmp_path, monkeypatch):
    """The best checkpoint is written, the pointers are not: the resumed run knows it from the state."""
    scripted_evaluation(monkeypatch, [0.5, 0.9, 0.8, 0.7])
    arguments = ["--epochs", "4", "--set", "train.monitor=accuracy", "-q"]
    assert train(tmp_path, *arguments) == 0
    run = runs.open_run(tmp_path / "x")
    assert run.checkpoints() == ["step-4", "step-6", "step-8"]
    for name in ("step-6", "step-8"):
        shutil.rmtree(run.path / "checkpoints" / name)
    run.point("best", "step-2")
    run.point("last", "step-2")
    scripted_evaluation(monkeypatch, [0.8, 0.7])
    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    assert run.pointer("best") == "step-4"


def test_a_damaged_best_checkpoint_does_not_keep_a_run_from_its_end(tmp_path, monkeypatch, capsys):
    scripted_evaluation(monkeypatch, [0.5, 0.9, 0.8, 0.0])
    assert train(tmp_path, "--epochs", "3", "--set", "train.monitor=accuracy", "-q") == 0
    run = runs.open_run(tmp_path / "x")
    with (run.path / "checkpoints" / "step-4" / "weights.safetensors").open("r+b") as file:
        file.truncate(100)
    assert main(["train", "--resume", str(run.path)]) == 0
    error = capsys.readouterr().err
    assert "step-4 is damaged" in error
    assert "test accuracy" in error


def test_initial_weights_are_taken_again_when_no_checkpoint_is_whole(tmp_path, capsys):
    assert train(tmp_path, "--epochs", "1", "-q") == 0
    start = ["--init-from", str(tmp_path / "x"), "--freeze", "dense*", "--epochs", "1", "-q"]
    assert train(tmp_path, *start, name="y") == 0
    run = runs.open_run(tmp_path / "y")
    for name in run.checkpoints():
        (run.path / "checkpoints" / name / "manifest.json").unlink()
    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    assert "starting from its beginning" in capsys.readouterr().err
    paths = [runs.find_checkpoint(runs.open_run(tmp_path / name)) for name in "xy"]
    first, second = (checkpoints.read(path, "weights")["dense1/kernel"] for path in paths)
    np.testing.assert_array_equal(first, second)


def test_each_way_of_ending_prints_one_json_object(tmp_path, capsys):
    for name, arguments in [("x", ["--dry-run"]), ("x", ["--max-time", "0.001s"]), ("y", ["--epochs", "1"])]:
        assert train(tmp_path, "--epochs", "9", *arguments, "--json", "-q", name=name) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["reason"] in {"dry run", "time is up", "done"}


def test_evaluation_repeats_the_precision_of_the_run(tmp_path, capsys):
    """In processes of their own: the policy of the training must come from the run, not from what ran before."""
    assert train(tmp_path, "--epochs", "2", "--precision", "bfloat16", "--json", "-q") == 0
    trained = json.loads(capsys.readouterr().out)["metrics"]["loss"]
    keras.config.set_dtype_policy("float32")
    assert main(["evaluate", str(tmp_path / "x"), "--limit", "64", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(trained, rel=1e-6)
    assert keras.config.dtype_policy().name == "float32", "and it is put back"


def test_plateau_lowers_the_rate_and_remembers(tmp_path, monkeypatch):
    scripted_evaluation(monkeypatch, [0.5, 0.4, 0.4, 0.4])
    plateau = ["--schedule", "plateau", "--lr", "0.01", "--set", "train.plateau_patience=2", "--set", "train.gamma=0.5"]
    plateau += ["--set", "train.monitor=accuracy"]
    assert train(tmp_path, "--epochs", "4", *plateau, "-q") == 0
    run = runs.open_run(tmp_path / "x")
    assert [line["lr"] for line in run.metrics() if line["kind"] == "train"] == pytest.approx([0.01, 0.01, 0.01, 0.005])
    assert checkpoints.read_state(run.path / "checkpoints" / "step-8")["plateau"]["drops"] == 1


def test_divergence_ends_with_code_5_and_keeps_what_was_good(tmp_path, capsys, monkeypatch):
    call = TrainingStep.__call__

    def poisoned(self, batch, *, step, **rest):
        if step == 5:
            batch["images"][0] = np.inf
        return call(self, batch, step=step, **rest)

    monkeypatch.setattr(TrainingStep, "__call__", poisoned)
    assert train(tmp_path, "--epochs", "5") == 5
    error = capsys.readouterr().err.splitlines()
    assert error[-2].startswith("error: training diverged")
    assert "--lr" in error[-1]
    run = runs.open_run(tmp_path / "x")
    assert run.pointer("last") == "step-4"
    weights = checkpoints.read(run.path / "checkpoints" / "step-4", "weights")
    assert all(np.isfinite(array).all() for array in weights.values())


def test_what_may_stop_several_processes_is_one_sum_a_step(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(runtime.Devices, "any", lambda self, flag: asked.append(flag) or flag)
    monkeypatch.setattr(Evaluation, "_agree", lambda self, failure: None)  # it asks for its own batches
    assert train(tmp_path, "--epochs", "3", "--max-time", "1h", "-q") == 0
    assert asked == [False] * (1 + 6 + 1), "once the data are read, before each step, and after the last"


@pytest.mark.parametrize(("launched", "at_once"), [(None, True), (object(), False)])
def test_only_a_worker_takes_a_second_signal_for_the_first(monkeypatch, launched, at_once):
    """It may get SIGUSR1 from a batch system and from `--workers`, which ends it at the second Ctrl-C."""
    monkeypatch.setattr(workers, "launcher", lambda: launched)
    with loop.stop_signals() as signalled:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signalled() == signal.SIGUSR1
        if at_once:
            with pytest.raises(Interrupted, match="at once"):
                os.kill(os.getpid(), signal.SIGUSR1)
        else:
            os.kill(os.getpid(), signal.SIGUSR1)
        assert signalled() == signal.SIGUSR1


@pytest.mark.parametrize("number", signals.STOP)
def test_processes_end_with_the_signal_that_came_to_one_of_them(number):
    together, asked = threading.Barrier(2, timeout=20), {}

    class Process:
        def __init__(self, name, number):
            self.name, self.number, self.devices = name, number, self
            self.peers = SimpleNamespace(say_goodbye=lambda: None)
            self._log = self.save = lambda: None

        def any(self, flag):
            asked[self.name] = flag
            together.wait()
            found = any(asked.values())
            together.wait()
            return found

        def _interrupted(self, number):
            return Interrupted("", "", number)

        def stop(self):
            with pytest.raises(Interrupted) as caught:
                loop.Loop._stop(self, self.number, None)
            return caught.value.code

    with ThreadPoolExecutor() as threads:
        codes = list(threads.map(Process.stop, [Process("chief", None), Process("other", number)]))
    assert codes == [128 + number] * 2


def test_a_second_signal_while_a_graph_is_traced_is_no_internal_error():
    """What TensorFlow makes of an exception that is raised while it traces is another one, of many lines."""

    @tf.function
    def traced(x):
        os.kill(os.getpid(), signal.SIGINT)
        return x

    with pytest.raises(Interrupted, match="interrupted at once") as caught, loop.stop_signals("go on") as signalled:
        os.kill(os.getpid(), signal.SIGINT)
        assert signalled() == signal.SIGINT
        traced(tf.constant(1.0))
    assert (caught.value.code, caught.value.hint) == (130, "go on")


def test_another_failure_after_one_signal_stays_what_it_is():
    with pytest.raises(ZeroDivisionError), loop.stop_signals():
        os.kill(os.getpid(), signal.SIGINT)
        raise ZeroDivisionError


def test_out_of_memory_ends_with_advice_in_numbers(tmp_path, capsys, monkeypatch):
    def exhausted(self, *_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(TrainingStep, "__call__", exhausted)
    assert train(tmp_path, "--epochs", "1") == 1
    error = capsys.readouterr().err
    assert "out of memory with 32 examples per update" in error
    assert "`--accumulate 2` makes the same update from 16 examples at a time" in error
    by_tokens = ["train", "seq2seq", "--runs-dir", str(tmp_path), *TRANSLATOR, "--batch-tokens"]
    assert main([*by_tokens, "2000"]) == 1
    error = capsys.readouterr().err
    assert "out of memory with 2,000 tokens per update" in error
    assert "`--accumulate 2` makes the same update from 1,000 tokens at a time" in error
    assert main([*by_tokens, "4"]) == 1  # three letters and the end: one pair at a time, which cannot be divided
    error = capsys.readouterr().err
    assert "out of memory with 4 tokens per update" in error
    assert "--batch-tokens" in error
    assert "--accumulate" not in error


def test_more_memory_than_there_is_is_told_before_the_start(tmp_path, capsys, monkeypatch):
    """Four copies of the 610 numbers of a 64-8-10 net are 9,760 bytes; a batch of 32 takes about 9,000 more."""
    monkeypatch.setattr(runtime, "memory", lambda: 16_000)
    assert train(tmp_path, "--epochs", "1") == 1
    error = capsys.readouterr().err
    assert "with 32 examples per update takes about 0.0 GB, and this machine has 0.0 GB" in error
    assert "--accumulate" not in error, "four copies of 610 numbers are more than half"
    monkeypatch.setattr(runtime, "memory", lambda: 20_500)
    assert train(tmp_path, "--epochs", "1", "--batch-size", "64") == 1
    assert "makes the same update from" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert train(tmp_path / "runs", "--epochs", "3", "--dry-run") == 0
    error = capsys.readouterr().err
    assert "3 epochs x 2 = 6" in error
    assert re.search(r"^time +about ", error, re.MULTILINE)
    assert "nothing was written" in error
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 300 kB of its own, and a Python that lives in it; see `unshare`(1)."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no user namespaces to mount a small file system in")
    (tmp_path / "small").mkdir()
    return tmp_path / "small", ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=300k none "$0" && "$@"']


def test_a_disk_that_is_really_full(full_disk):
    """The first checkpoint fits and the second does not: one line, and the first is whole."""
    folder, mounted = full_disk
    command = [sys.executable, "-m", "dlkit", "train", "mlp", "--runs-dir", str(folder), "--name", "x", "--epochs", "4"]
    settings = ["--limit", "64", "--set", "data.size=8", "--set", "model.hidden=[128]", "--set", "train.keep=9"]
    after = "; ".join(
        [
            "$0",
            f"echo code $?; ls -A {folder}/x/checkpoints",
            f"{sys.executable} -m dlkit evaluate -q --json {folder}/x",
        ]
    )
    script = " ".join(command + settings) + " -q"
    process = subprocess.run(
        [*mounted, str(folder), "sh", "-c", after.replace("$0", script)], capture_output=True, text=True, check=False
    )
    assert process.stderr.startswith(
        f"error: cannot write to {folder}/x: No space left on device\nhint: free some space"
    )
    assert process.stderr.count("\n") == 2
    lines = process.stdout.splitlines()
    assert lines[0] == "code 1"
    assert any(line.startswith("step-") for line in lines)
    assert not any(line.endswith(".tmp") for line in lines)
    assert json.loads(lines[-1])["examples"] == 360, "what was good still works"


def test_fine_tuning_keeps_the_body_and_gets_a_new_head(tmp_path, capsys):
    assert train(tmp_path, "--epochs", "1", "-q") == 0
    weights = checkpoints.read(runs.find_checkpoint(runs.open_run(tmp_path / "x")), "weights")
    start = ["--init-from", str(tmp_path / "x"), "--freeze", "dense*", "--epochs", "1"]
    assert train(tmp_path, *start, "--lr", "0.1", name="y") == 0
    assert "90 of them trained" in capsys.readouterr().err
    tuned = checkpoints.read(runs.find_checkpoint(runs.open_run(tmp_path / "y")), "weights")
    np.testing.assert_array_equal(tuned["dense1/kernel"], weights["dense1/kernel"])
    assert np.abs(tuned["head/kernel"] - weights["head/kernel"]).max() > 0.01
    slots = checkpoints.read(runs.find_checkpoint(runs.open_run(tmp_path / "y")), "optimizer")
    assert {name.split("/", 1)[1] for name in slots} == {"head/kernel", "head/bias"}


def test_a_run_that_freezes_and_averages_goes_on(tmp_path):
    """A checkpoint has an average of every weight, of a frozen one the weight itself."""
    averaging = ["--freeze", "dense*", "--ema", "0.5", "--epochs", "2", "-q"]
    assert train(tmp_path, *averaging, "--max-time", "0.001s") == 0
    run = runs.open_run(tmp_path / "x")
    averages, weights = (checkpoints.read(run.path / "checkpoints" / "step-1", group) for group in ("ema", "weights"))
    assert averages.keys() == weights.keys()
    np.testing.assert_array_equal(averages["dense1/kernel"], weights["dense1/kernel"])
    assert np.abs(averages["head/kernel"] - weights["head/kernel"]).max() > 0
    assert main(["train", "--resume", str(run.path), "--max-time", "1h", "-q"]) == 0
    run = runs.open_run(run.path)
    assert run.pointer("last") == "step-4"
    assert run.info["result"]["weights"] == "ema"


def test_only_the_head_may_differ(tmp_path):
    from dlkit.errors import CheckpointError
    from dlkit.train.start import load_initial

    assert train(tmp_path, "--epochs", "1", "-q") == 0
    weights = checkpoints.read(runs.find_checkpoint(runs.open_run(tmp_path / "x")), "weights")
    from dlkit import models

    seven = models.build("mlp", input_shape=(8, 8, 1), classes=7, hidden=(8,))
    assert load_initial(seven, str(tmp_path / "x")) == ["head/kernel", "head/bias"]
    np.testing.assert_array_equal(seven.get_layer("dense1").get_weights()[0], weights["dense1/kernel"])
    wider = models.build("mlp", input_shape=(8, 8, 1), classes=10, hidden=(9,))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_initial(wider, str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--set", "model.hiden=[3]"], 2, ("unknown key: model.hiden", "model.hidden")),
        (["--set", "train.lrr=1"], 2, ("unknown key: train.lrr", "train.lr")),
        (["--set", "model.dropout=much"], 2, ("model.dropout must be", "much")),
        (["--set", "model.classes=3"], 2, ("model.classes follows from the data", "")),
        (["--optimizer", "adamm"], 2, ("train.optimizer must be", "adam")),
        (["--lr", "-1"], 2, ("train.lr must be", "-1")),
        (["--accumulate", "64"], 2, ("train.accumulate 64 is more than train.batch_size", "one example")),
        (["--set", "train.monitor=accuracie"], 2, ("unknown metric: accuracie", "accuracy")),
        (["--data", "digit"], 2, ("unknown dataset: digit", "digits")),
        (["--set", "data.augment=crop_flop"], 2, ("unknown augmentation: crop_flop", "crop_flip")),
        (["--data-dir", "/tmp"], 2, ("digits is no set of TensorFlow Datasets", "--data-dir")),
        (["--set", "train.nesterov=true"], 2, ("train.nesterov is for the optimizer sgd", "--optimizer sgd")),
        (["--set", "train.milestones=[0.5]"], 2, ("train.milestones is for the schedule step", "--schedule step")),
        (["--set", "decode.max_len=5"], 2, ("decode.max_len is for tasks that generate", "")),
        (["--set", "decode.beams=5"], 2, ("decode.beams is for tasks that generate", "")),
        (["--set", "train.decode_every=2"], 2, ("train.decode_every is for tasks that generate", "")),
        (["--freeze", "dense9"], 2, ("matches no layer", "dense1")),
        (["--freeze", "*"], 2, ("every layer is frozen", "")),
        (["--init-from", "runs/none"], 3, ("no run runs/none", "")),
        (["--devices", "gpu:9"], 2, ("no GPU found", "")),
        (["--devices", "tpu"], 2, ("unknown devices: tpu", "")),
        (["--recipe", "missing.toml"], 3, ("no recipe file", "")),
    ],
)
def test_mistakes_are_one_line_and_a_hint(tmp_path, capsys, arguments, code, says):
    assert train(tmp_path / "runs", "--epochs", "1", *arguments) == code
    out, error = capsys.readouterr()
    lines = error.splitlines()
    assert out == ""
    assert lines[0].startswith("error: ")
    assert says[0] in lines[0]
    assert len(lines) <= 2
    assert says[1] in error
    assert not (tmp_path / "runs" / "x").exists(), "nothing is begun"


def test_a_recipe_file_as_the_model_is_pointed_to_its_option(tmp_path, capsys):
    (tmp_path / "own.toml").write_text('[model]\nname = "lenet"\n')
    assert main(["train", str(tmp_path / "own.toml")]) == 2
    path = tmp_path / "own.toml"
    assert capsys.readouterr().err.splitlines() == [
        f"error: {path} is a file, not the name of a model",
        f"hint: `dlkit train --recipe {path}` trains what a recipe says",
    ]


def test_data_of_another_task_are_refused(tmp_path, capsys):
    assert main(["train", "lenet", "--data", "synthetic:reverse", "--runs-dir", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.startswith("error: synthetic:reverse has no labelled images")
    assert main(["train", "seq2seq", "--data", "digits", "--runs-dir", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.startswith("error: digits has no pairs of sequences")
    assert not (tmp_path / "runs").exists()


def test_an_existing_name_is_refused_before_anything_runs(tmp_path, capsys):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("precious")
    assert train(tmp_path) == 2
    assert "exists" in capsys.readouterr().err
    assert os.listdir(tmp_path / "x") == ["mine"]


def test_another_backend_is_one_line():
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    process = subprocess.run(
        [sys.executable, "-m", "dlkit", "train", "lenet"], capture_output=True, text=True, env=environment, check=False
    )
    assert process.returncode == 2
    assert process.stderr == (
        "error: KERAS_BACKEND is jax, and dlkit runs on tensorflow\n"
        "hint: unset it (`unset KERAS_BACKEND`) or set it to tensorflow\n"
    )


def test_bfloat16_keeps_float32_weights_and_learns(tmp_path):
    assert train(tmp_path, "--epochs", "20", "--precision", "bfloat16", "-q") == 0
    run = runs.open_run(tmp_path / "x")
    assert {array.dtype for array in checkpoints.read(runs.find_checkpoint(run), "weights").values()} == {
        np.dtype("float32")
    }
    losses = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_tensorboard_is_written_when_asked(tmp_path):
    assert train(tmp_path, "--epochs", "1", "--tensorboard", "-q") == 0
    assert list((tmp_path / "x" / "tensorboard").glob("events*"))


def test_no_warm_up_is_a_whole_number(tmp_path):
    assert train(tmp_path, "--epochs", "1", "--warmup", "0", "-q") == 0
    assert runs.open_run(tmp_path / "x").recipe["train"]["warmup"] == 0


def test_the_length_of_a_run():
    class Task:
        def plan(self, *_, **__):
            return [None] * 12

    from dlkit.recipe import TrainSection

    by_epochs = loop.length_of(TrainSection(epochs=2.5, evaluate_every=0.5), Task())
    assert (by_epochs.steps, by_epochs.evaluate_every, by_epochs.log_every, by_epochs.epochs) == (30, 6, 12, 2.5)
    by_steps = loop.length_of(TrainSection(steps=7, log_every=100), Task())
    assert (by_steps.steps, by_steps.evaluate_every, by_steps.log_every) == (7, 12, 100)


def test_a_model_is_loaded_from_python(tmp_path):
    import dlkit

    assert train(tmp_path, "--epochs", "1", "-q") == 0
    model = dlkit.load(tmp_path / "x")
    assert isinstance(model, keras.Model)
    assert model(np.zeros((2, 8, 8, 1), np.float32)).shape == (2, 10)
    shutil.rmtree(tmp_path / "x")
