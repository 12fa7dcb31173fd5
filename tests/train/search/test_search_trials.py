"""The processes of trials, with small programs in place of `dlkit train`."""

import errno
import os
import sys
import time
from pathlib import Path

import pytest

from dlkit import recipe, runs, workers
from dlkit.train.search.loop import Outcome
from dlkit.train.search.study import claim
from dlkit.train.search.trials import Finished, Processes, TrialProcess


@pytest.fixture
def program(monkeypatch):
    """What is run instead of dlkit; keeps the arguments that dlkit would have got."""
    asked = []

    def set_program(code):
        def command(arguments):
            asked.append(list(arguments))
            return [sys.executable, "-c", code]

        monkeypatch.setattr(workers, "command", command)
        return asked

    return set_program


def outcome_of(job):
    deadline = time.monotonic() + 120
    while (outcome := job.outcome()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return outcome


def begin(folder, values=None):
    """A trial 0; and its lock, which the caller closes."""
    lock = claim(folder, 0)
    return Processes(folder / "recipe.toml", devices="cpu", jobs=1).begin(0, values or {}, folder, lock), lock


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("", Outcome("finished")),
        (
            "import sys; print('error: no such norm: foo\\nhint: none', file=sys.stderr); sys.exit(2)",
            Outcome("failed", "no such norm: foo", True),
        ),
        (
            "import sys; print('error: training diverged', file=sys.stderr); sys.exit(5)",
            Outcome("failed", "training diverged"),
        ),
        ("raise SystemExit(7)", Outcome("failed", "exit code 7")),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            Outcome("failed", "killed by SIGKILL, perhaps for want of memory"),
        ),
        ("raise SystemExit(143)", Outcome("failed", "exit code 143")),  # not by us
    ],
)
def test_how_a_process_ends(program, tmp_path, code, outcome):
    program(code)
    job, lock = begin(tmp_path)
    os.close(lock)
    assert outcome_of(job) == outcome


def test_the_reason_is_that_of_this_attempt(program, tmp_path):
    (tmp_path / "trial-0.log").write_text("error: an earlier one\n")
    program("raise SystemExit(1)")
    job, lock = begin(tmp_path)
    os.close(lock)
    assert outcome_of(job).reason == "exit code 1"


SAVING = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(60 * {stubborn}), sys.exit(143)))
pathlib.Path({ready!r}).touch()
time.sleep(120)
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_process_is_asked_to_save_and_the_second_time_killed(program, tmp_path, stubborn):
    ready = tmp_path / "ready"
    program(SAVING.format(stubborn=int(stubborn), ready=str(ready)))
    job, lock = begin(tmp_path)
    os.close(lock)
    while not ready.exists():
        time.sleep(0.01)
    assert job.outcome() is None
    job.stop()
    if stubborn:
        job.stop()
    assert outcome_of(job) == Outcome("stopped")


def test_a_trial_is_taken_until_its_process_is_gone_too(program, tmp_path):
    ready = tmp_path / "ready"
    program(SAVING.format(stubborn=0, ready=str(ready)))
    job, lock = begin(tmp_path)
    assert claim(tmp_path, 0) is None
    os.close(lock)  # as the system does when we are killed
    assert claim(tmp_path, 0) is None
    job.stop()
    job.stop()
    outcome_of(job)
    again = claim(tmp_path, 0)
    assert again is not None
    os.close(again)


def test_a_file_system_without_locks_is_warned_of_once(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    taken = [claim(tmp_path, number) for number in range(2)]
    assert capsys.readouterr().err == (
        f"warning: {tmp_path} has no locks (No locks available): two processes that search here would train the same"
        " trials\n"
    )
    for descriptor in taken:
        os.close(descriptor)


def test_what_dlkit_is_asked_for(program, tmp_path):
    asked = program("")
    job, lock = begin(tmp_path, {"train.lr": 1e-05, "train.batch_size": "64", "model.layers": 2})
    os.close(lock)
    outcome_of(job)
    sets = ["--set", "train.lr=1e-05", "--set", "train.batch_size=64", "--set", "model.layers=2"]
    assert asked == [
        ["train", "--recipe", str(tmp_path / "recipe.toml"), *sets, "--runs-dir", str(tmp_path), "--name", "trial-0",
         "--devices", "cpu"]
    ]  # fmt: skip
    overrides = [(*recipe.parse_override(text), "set") for text in sets[1:4:2]]
    resolved = recipe.resolve("lenet", overrides=overrides)
    assert (resolved.train.lr, resolved.train.batch_size) == (1e-05, 64)


@pytest.fixture
def run(tmp_path):
    info = {"task": "image_classification", "data": {}, "model_arguments": {}}
    return runs.create(tmp_path, recipe.resolve("lenet"), info, name="trial-0")


def test_a_run_that_is_there_is_gone_on_with(program, tmp_path, run):
    asked = program("")
    job, lock = begin(tmp_path)
    os.close(lock)
    outcome_of(job)
    assert asked[0][:3] == ["train", "--resume", str(run.path)]


def test_a_run_that_is_complete_is_only_read(program, tmp_path, run):
    run.log({"kind": "evaluation", "step": 9, "split": "validation", "weights": "ema", "loss": 0.5})
    run.update_info(result={"split": "test", "metrics": {}})
    asked = program("")
    job, lock = begin(tmp_path)
    os.close(lock)
    assert isinstance(job, Finished)
    assert (job.outcome(), job.scores(), asked) == (Outcome("finished"), [0.5], [])


def test_a_loss_that_is_not_finite_was_measured_and_is_no_score(run):
    job = Finished(run.path)
    assert not job.was_measured()
    run.log({"kind": "evaluation", "step": 4, "split": "test", "weights": "ema", "loss": 1.0})
    assert not job.was_measured()
    run.log({"kind": "evaluation", "step": 4, "split": "validation", "weights": "ema", "loss": float("nan")})
    assert job.was_measured()
    assert job.scores() == []


def test_scores_are_those_of_the_validation_split_in_order(program, tmp_path, run):
    program("")
    job, lock = begin(tmp_path)
    os.close(lock)
    for step, split, loss in ((4, "validation", 2.0), (8, "validation", 3.0), (8, "test", 0.0), (8, "validation", 1.0)):
        run.log({"kind": "evaluation", "step": step, "split": split, "weights": "ema", "loss": loss})
    assert job.scores() == [2.0, 1.0]  # the last line of a step counts
    run.log({"kind": "train", "step": 4, "loss": 1.0, "seconds_left": 3.0})
    assert not job.at_its_end()
    run.log({"kind": "train", "step": 8, "loss": 1.0, "seconds_left": 0.0})
    assert job.at_its_end()
    outcome_of(job)


def test_without_a_run_there_is_nothing_yet(program, tmp_path):
    program("")
    job, lock = begin(tmp_path)
    os.close(lock)
    assert (job.scores(), job.figures(), job.at_its_end()) == ([], {}, False)
    outcome_of(job)
    assert isinstance(job, TrialProcess)


def test_processors_are_divided_among_the_jobs(monkeypatch):
    monkeypatch.setattr("dlkit.train.search.trials.processors", lambda: 8)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "7")
    assert Processes(Path("x"), devices="cpu", jobs=3).environment == {"TF_NUM_INTRAOP_THREADS": "2"}
    assert Processes(Path("x"), devices="cpu", jobs=1).environment == {}
