"""Training in bfloat16 is as accurate as in float32. By hand: `pytest -m slow`."""

import json
import statistics

import pytest

from dlkit.cli import main

pytestmark = pytest.mark.slow

SEEDS = (0, 1, 2)


def accuracies(arguments, precision, folder, capsys):
    """Test accuracy of each seed."""
    found = []
    for seed in SEEDS:
        capsys.readouterr()
        name = f"{precision}-{seed}"
        options = ["--precision", precision, "--seed", str(seed), "--runs-dir", str(folder), "--name", name]
        assert main(["train", *arguments, *options, "--json", "-q"]) == 0
        found.append(json.loads(capsys.readouterr().out)["metrics"]["accuracy"])
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ["lenet", "--data", "digits", "--epochs", "20"],
        ["resnet20", "--data", "synthetic:shapes", "--set", "data.train=4000", "--batch-size", "32", "--epochs", "6"],
    ],
    ids=["lenet", "resnet20"],
)
def test_the_mean_of_three_seeds_is_within_their_spread(arguments, tmp_path, capsys):
    whole, half = (accuracies(arguments, precision, tmp_path, capsys) for precision in ("float32", "bfloat16"))
    print("float32", whole, "bfloat16", half)
    spread = max(max(each) - min(each) for each in (whole, half))
    assert spread < 0.03, "within a wide spread anything would be as accurate"
    assert abs(statistics.mean(whole) - statistics.mean(half)) <= max(spread, 0.005)
