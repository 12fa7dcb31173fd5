"""`dlkit search` from end to end: one tiny training, one that fails, and what is said of mistakes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from dlkit import console, recipe, runs
from dlkit.cli import searching
from dlkit.errors import DlkitError
from dlkit.train.search import study as studies
from dlkit.train.search.loop import Outcome, Search
from dlkit.train.search.space import parse
from dlkit.train.search.study import Plan, Result
from dlkit.train.search.trials import Finished


def test_a_grid_of_two_one_of_which_fails(dlkit, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(Path(searching.__file__).parents[2]))
    done = dlkit(
        "search", "lenet", "train.freeze={[nothing],[]}", "--sampler", "grid", "--epochs", "1", "--limit", "32",
        "--set", "train.lr=0.001", "--set", "train.max_time=1h", "--devices", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    folder = tmp_path / "runs" / "lenet_digits-search-1"
    header, row = done.out.splitlines()[:2]
    assert header.split() == ["trial", "train.freeze", "loss", "epochs", "state"]
    assert (row.split()[:2], row.split()[-1]) == (["1", "[]"], "complete")
    assert "trial 0  failed  --freeze nothing matches no layer of lenet" in done.err
    assert "the test split chooses nothing" in done.err
    # What made the trial short is not in the command that trains at full length.
    again = next(line for line in done.err.splitlines() if line.startswith("again"))
    assert again.split("   # ")[0] == "again   dlkit train lenet --set train.lr=0.001 --set 'train.freeze=[]'"

    run = runs.open_run(folder / "trial-1")
    assert run.recipe["train"]["epochs"] == 1.0
    with (folder / "trials.csv").open() as stream:
        failed, trained = csv.DictReader(stream)
    assert failed["reason"].startswith("--freeze nothing")
    assert float(trained["loss"]) == min(run.monitored().values())
    assert trained["run"] == str(run.path)

    # Nothing is left to train: the same is told again, with a picture, and as JSON.
    told = dlkit("search", "--resume", "runs/lenet_digits-search-1", "--json", "--png", "-q")
    assert (told.code, told.err) == (0, "")
    found = json.loads(told.out)
    assert found["objective"] == {"metric": "loss", "direction": "lower", "split": "validation"}
    assert [trial["state"] for trial in found["trials"]] == ["failed", "complete"]
    assert found["best"]["number"] == 1
    assert found["command"] == ["dlkit", "train", "lenet", "--set", "train.lr=0.001", "--set", "train.freeze=[]"]
    with Image.open(found["picture"]) as picture:
        assert picture.size[0] > 500
    assert len(runs.list_runs(folder)) == 1
    assert dlkit("runs", "show", str(folder / "trial-1")).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["lenet"], 2, "nothing is to be searched"),
        (["lenet", "train.lr"], 2, "train.lr has no space"),
        (["lenet", "resnet20", "train.lr=0.1..1"], 2, "two models, lenet and resnet20"),
        (["lenet", "lr=0.1..1"], 2, "lr names no section"),
        (["lenet", "train.lrr=0.1..1"], 2, "unknown key: train.lrr"),
        (["lennet", "train.lr=0.1..1"], 2, "unknown model: lennet"),
        (["lenet", "train.lr=0.1..1/3", "--trials", "4"], 2, "the grid has 3 points"),
        (["lenet", "train.lr=0.1..1/3", "--sampler", "tpe"], 2, "is a grid, and the sampler is tpe"),
        (["lenet", "train.lr=0.1..1", "--sampler", "grid"], 2, "has no points for a grid"),
        (["lenet", "train.lr=0.1..1", "--sampler", "tpe", "--refine", "1"], 2, "--refine is for random values"),
        (["lenet", "train.lr=0.1..1", "--trials", "2", "--refine", "2"], 2, "too few for 3 rounds"),
        (["lenet", "train.lr=0.1..1", "--time-limit", "soon"], 2, "--time-limit must be a time"),
        (["lenet", "train.lr=0.1..1", "--name", "a/b"], 2, "not a name for a run"),
        (["lenet", "train.select={best,last}"], 2, "train.select cannot be searched"),
        (["lenet", "train.lr=0.1..1", "--set", "train.select=last"], 2, "a trial stands for its best checkpoint"),
        (["--resume", "nowhere"], 3, "no search nowhere"),
        (["--resume", "nowhere", "--seed", "1", "--epochs", "2"], 2, "--epochs, --seed cannot change now"),
        (
            ["--resume", "nowhere", "--first-look", "1", "--prune", "median", "--seed", "0", "--refine", "0"],
            2,
            "takes all from the search: --refine, --prune, --first-look, --seed cannot change now",
        ),
    ],
)
def test_mistakes_are_one_line_and_a_hint(dlkit, arguments, code, words, tmp_path):
    done = dlkit("search", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert len(done.err.splitlines()) == 2
    assert not (tmp_path / "runs").exists()


def test_the_base_of_the_trials_is_the_recipe_with_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    question = searching.Question(
        operands=["lenet", "train.lr=log:1e-4..1"], data="photos/", recipe=None, sets=["model.activation=relu"],
        data_dir=None, epochs=2.0, steps=None, limit=None, trials=None, sampler=None, refine=1, prune="none",
        first_look=1, seed=4,
    )  # fmt: skip
    plan, stem = searching._planned(question)
    assert stem == "lenet_photos"
    (tmp_path / "recipe.toml").write_text(plan.recipe)
    base = recipe.load(tmp_path / "recipe.toml")
    assert (base.data.name, base.train.epochs) == (f"{tmp_path}/photos", 2.0)
    assert plan.command == ("dlkit", "train", "lenet", "--data", "photos/", "--set", "model.activation=relu")
    assert base.train.select == "best", "whatever the recipe says"
    assert (plan.trials, plan.refine, plan.seed, plan.sampler, plan.metric) == (20, 1, 4, "random", "accuracy")


def result(number, state, score, **values):
    return Result(number, 0, state, values, score, 1, "too large" if state == "failed" else "", f"r/{number}", {})


def test_the_table_goes_from_the_best_to_the_worst(capsys, in_place):
    plan = Plan(tuple(parse(["a=0..1", "b={x,y}"])), 4, metric="accuracy", direction="higher")
    found = [result(0, "complete", 0.5, a=0.25, b="x"), result(1, "pruned", 0.9, a=0.5), result(2, "failed", None)]
    found.append(result(3, "complete", 0.75, a=0.125, b="y"))
    in_place(plan, found)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ["trial", "a", "b", "accuracy", "epochs", "state"],
        ["3", "0.125", "y", "75.0", "complete"],
        ["0", "0.25", "x", "50.0", "complete"],
        ["1", "0.5", "-", "90.0", "pruned"],
    ]


@pytest.fixture
def in_place(tmp_path, monkeypatch):
    """Reports results without a search behind them."""

    class Nothing:
        study = None

        def __init__(self, plan):
            self.plan = plan

    def report(plan, found, folder=tmp_path):
        monkeypatch.setattr(searching, "importances", lambda study, plan: {})
        searching._report(Nothing(plan), found, folder, tmp_path / "trials.csv", reason="done", png=False)

    return report


def test_each_command_to_look_further_stands_by_itself(capsys, in_place):
    in_place(PLAN, [result(0, "complete", 0.5, a=0.25, b="x")], folder=Path("my runs/s"))
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().err.splitlines()]
    told = {line[0]: line[1] for line in lines if len(line) == 2}
    assert told["look"] == "dlkit evaluate r/0"
    assert told["all"] == "dlkit runs list --runs-dir 'my runs/s'"


@pytest.fixture
def at_work(tmp_path, monkeypatch):
    """Works on a search of twelve trials which all fail, for so many seconds; gives its folder."""
    monkeypatch.chdir(tmp_path)

    class Failed(Finished):
        def outcome(self):
            return Outcome("failed", "no such data", perhaps_common=True)

        def scores(self):
            return []

        def figures(self):
            return {}

    class Trainer:
        def begin(self, number, values, folder, lock):
            return Failed(folder)

    def work(seconds, *, storage=None):
        plan = Plan(tuple(parse(["a=0..1"])), 12)
        study, plan, folder = studies.create(tmp_path / "runs", plan, stem="x")
        search = Search(study, plan, Trainer(), folder, display=searching._Shown(plan), poll=0.001)
        searching._work(search, searching.Options(jobs=1, devices="cpu", png=False, seconds=seconds), storage=storage)

    return work


def test_trials_that_all_fail_are_in_the_table(at_work, tmp_path):
    with pytest.raises(DlkitError, match="the first 5 trials have all failed: no such data"):
        at_work(None)
    with (tmp_path / "runs" / "x-search-1" / "trials.csv").open() as stream:
        assert [row["reason"] for row in csv.DictReader(stream)] == ["no such data"] * 5


def test_no_time_is_no_time_and_a_password_has_to_be_given_again(at_work, capsys):
    at_work(0.0, storage="postgresql://there/x?password=secret")
    said = capsys.readouterr().err
    again = "dlkit search --resume runs/x-search-1 --storage 'postgresql://there/x?password=***'"
    assert f"time is up: `{again}` goes on" in said
    at_work(0.0, storage="shared.journal")
    assert "time is up: `dlkit search --resume runs/x-search-2` goes on" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


PLAN = Plan(tuple(parse(["a=0..1", "b={x,y}"])), 4, metric="accuracy", direction="higher")


def test_on_a_terminal_the_trials_are_a_table_that_is_drawn_anew(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    console.reset()
    shown = searching._Shown(PLAN)
    with console.LiveTable(searching._columns(PLAN)) as shown.table:
        shown.show([result(0, "running", None, a=0.25, b="x")])
        first = stream.getvalue()
        shown.show([result(0, "complete", 0.5, a=0.25, b="\x1b[2J"), result(1, "running", 0.25, a=0.5, b="y")])
    assert "trial" in first
    assert "running" in first
    last = stream.getvalue()[len(first) :]
    assert "complete" in last
    assert "1 complete, 1 running of 4; best: trial 0, acc 50.0" in last
    assert "\x1b[2J" not in last  # what comes from elsewhere controls no terminal
    console.reset()


def test_elsewhere_each_trial_is_told_once_it_has_ended(capsys):
    shown = searching._Shown(PLAN)
    shown.show([result(0, "running", None, a=0.25, b="x")])
    shown.show([result(0, "complete", 0.5, a=0.25, b="x"), result(1, "running", 0.25, a=0.5, b="y")])
    shown.show([result(0, "complete", 0.5, a=0.25, b="x"), result(1, "failed", None, a=0.5, b="y")])
    shown.waiting([2, 3])
    shown.waiting([2, 3])
    assert capsys.readouterr().err.splitlines() == [
        "trial 0  complete  acc 50.0  a 0.25  b x  (the best so far)",
        "trial 1  failed  too large  a 0.5  b y",
        "waits for trials 2, 3, which other processes train",
    ]


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_with_its_trial(tmp_path):
    """SIGKILL to the search; its trial trains on, and is taken in by the search that is resumed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(searching.__file__).parents[2])}
    words = [sys.executable, "-m", "dlkit", "search"]
    options = {"cwd": tmp_path, "env": environment, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(
        [*words, "lenet", "train.lr=log:1e-3..1e-2", "--trials", "2", "--epochs", "5", "--name", "x"], **options
    )
    log = tmp_path / "runs" / "x" / "trial-0" / "metrics.jsonl"
    while not log.exists():
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    rest = subprocess.run([*words, "--resume", "runs/x"], check=False, **options)
    assert rest.returncode == 0
    study, plan = studies.open_search(tmp_path / "runs" / "x")
    assert [each.state for each in studies.results(study, plan)] == ["complete"] * 2
    assert runs.open_run(tmp_path / "runs" / "x" / "trial-0").info["attempt"] == 1
