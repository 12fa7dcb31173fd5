"""`dlkit average` makes one checkpoint of several, here of hand-written ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from dlkit import cli, runs
from dlkit.train import checkpoints

RECIPE = (
    '[model]\nname = "mlp"\n[data]\nname = "digits"\n[train]\nseed = 0\nprecision = "float32"\n[decode]\nmax_len = 1\n'
)


@pytest.fixture
def run(dlkit):
    """A run with three checkpoints whose one weight is 1, 2 and 6 and whose counter is 10, 11 and 13."""
    path = Path("runs/mlp_digits-1")
    (path / "checkpoints").mkdir(parents=True)
    (path / "recipe.toml").write_text(RECIPE)
    info = {"format": 1, "task": "image_classification", "recipe": "x", "data": {}, "model_arguments": {}}
    (path / "run.json").write_text(json.dumps(info))
    for step, value, count in ((10, 1, 10), (20, 2, 11), (30, 6, 13)):
        arrays = {"w": np.full((2, 2), value, np.float32), "n": np.array([count], np.float64)}
        checkpoints.write(path / "checkpoints" / f"step-{step}", {"weights": arrays}, {"step": step})
    return path


def test_the_average_is_the_mean_of_the_last_checkpoints(dlkit, run):
    result = dlkit("average", str(run), "--last", "2", "--json")
    assert result.code == 0
    made = run / "checkpoints" / "average"
    assert json.loads(result.out) == {"checkpoint": str(made), "averaged": ["step-20", "step-30"]}
    arrays = checkpoints.read(runs.find_checkpoint(runs.open_run(run), "average"), "weights")
    np.testing.assert_array_equal(arrays["w"], np.full((2, 2), 4, np.float32))  # (2 + 6) / 2
    np.testing.assert_array_equal(arrays["n"], [12.0])
    assert arrays["w"].dtype == np.float32
    assert "step-20 step-30 average" in dlkit("runs", "show", str(run)).out
    assert runs.split_operand(f"{run}@average") == (run, "average")


def test_it_is_made_anew_and_is_no_step_of_the_run(dlkit, run):
    assert dlkit("average", str(run), "--last", "2").code == 0
    assert dlkit("average", str(run), "--last", "3").code == 0
    arrays = checkpoints.read(run / "checkpoints" / "average", "weights")
    np.testing.assert_array_equal(arrays["w"], np.full((2, 2), 3, np.float32))  # (1 + 2 + 6) / 3
    opened = runs.open_run(run)
    assert opened.checkpoints() == ["step-10", "step-20", "step-30"]
    assert runs.newest_whole(opened).name == "step-30"


def test_many_small_updates_are_not_lost_in_the_sum(tmp_path):
    """In float32 the sum of 2**24 and ones would stay 2**24."""
    values = [2.0**24, *[1.0] * 31]
    for step, value in enumerate(values):
        arrays = {"w": np.array([value], np.float32)}
        checkpoints.write(tmp_path / f"step-{step}", {"weights": arrays}, {"step": step})
    mean = checkpoints.average([tmp_path / f"step-{step}" for step in range(32)])["w"]
    np.testing.assert_array_equal(mean, np.float32((2**24 + 31) / 32))


def test_all_that_are_newest_unless_a_number_is_given(dlkit, run):
    result = dlkit("average", str(run))
    assert result.code == 0
    assert "the mean of 3 checkpoints: step-10, step-20, step-30" in " ".join(result.err.split())
    arrays = checkpoints.read(run / "checkpoints" / "average", "weights")
    np.testing.assert_array_equal(arrays["w"], np.full((2, 2), 3, np.float32))  # (1 + 2 + 6) / 3


def test_a_best_checkpoint_that_is_older_than_the_newest_is_left_out(dlkit, run):
    """A run that keeps two checkpoints keeps a third one, the best, beside them."""
    (run / "recipe.toml").write_text(RECIPE.replace("seed = 0", "seed = 0\nkeep = 2"))
    (run / "checkpoints" / "best").write_text("step-10\n")
    result = dlkit("average", str(run))
    assert result.code == 0
    assert "the mean of 2 checkpoints: step-20, step-30" in " ".join(result.err.split())
    arrays = checkpoints.read(run / "checkpoints" / "average", "weights")
    np.testing.assert_array_equal(arrays["w"], np.full((2, 2), 4, np.float32))  # (2 + 6) / 2
    result = dlkit("average", str(run), "--last", "3")
    assert result.code == 2
    assert "keeps its newest 2 checkpoints, and 3 are to be averaged" in result.err


def test_a_best_checkpoint_among_the_newest_counts(dlkit, run):
    (run / "recipe.toml").write_text(RECIPE.replace("seed = 0", "seed = 0\nkeep = 2"))
    (run / "checkpoints" / "best").write_text("step-20\n")
    assert "step-20, step-30" in " ".join(dlkit("average", str(run), "--last", "2").err.split())
    assert "the mean of 1 checkpoint: step-30" in " ".join(dlkit("average", str(run), "--last", "1").err.split())


def test_more_checkpoints_than_there_are(dlkit, run):
    result = dlkit("average", str(run), "--last", "5")
    assert result.code == 2
    assert "keeps its newest 3 checkpoints, and 5 are to be averaged" in result.err
    assert "`--last 3`" in result.err
    assert not (run / "checkpoints" / "average").exists()


def test_a_damaged_checkpoint_is_named_and_the_old_average_stays(dlkit, run):
    assert dlkit("average", str(run), "--last", "1").code == 0
    weights = run / "checkpoints" / "step-20" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    result = dlkit("average", str(run), "--last", "2")
    assert result.code == 4
    assert "step-20 is damaged" in result.err
    kept = checkpoints.read(run / "checkpoints" / "average", "weights")
    np.testing.assert_array_equal(kept["w"], np.full((2, 2), 6, np.float32))


def test_checkpoints_of_different_models_are_not_mixed(dlkit, run):
    checkpoints.write(run / "checkpoints" / "step-40", {"weights": {"v": np.zeros(2, np.float32)}}, {"step": 40})
    result = dlkit("average", str(run), "--last", "2")
    assert result.code == 4
    assert "does not fit" in result.err


def test_an_average_that_was_not_made(dlkit, run):
    result = dlkit("evaluate", f"{run}@average")
    assert result.code == 3
    assert "has no checkpoint average" in result.err
    assert "`dlkit average" in result.err


def test_a_damaged_average_says_how_it_is_made_anew(dlkit, run):
    assert dlkit("average", str(run), "--last", "1").code == 0
    (run / "checkpoints" / "average" / "weights.safetensors").unlink()
    result = dlkit("evaluate", f"{run}@average")
    assert result.code == 4
    assert "`dlkit average" in result.err


def test_a_checkpoint_is_no_run_to_average(dlkit, run):
    assert dlkit("average", f"{run}@last").code == 2
    assert cli.main(["average", "runs/none"]) == 3


def test_completion_proposes_the_average(dlkit, run):
    from dlkit.cli.options import complete_run

    assert f"{run}@average" not in complete_run(f"{run}@")
    assert dlkit("average", str(run), "--last", "1").code == 0
    assert f"{run}@average" in complete_run(f"{run}@")
