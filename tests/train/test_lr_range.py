"""The learning rate range test on losses that are written by hand, and that it leaves no trace."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dlkit.train.lr_range import RangeTest, growing, range_test

SMALL = ["--set", "model.hidden=[8]", "--limit", "60", "--batch-size", "20"]


def bowl(rate, least=1e-2):
    """A loss that falls up to a rate and then rises tenfold with each decade."""
    return 2.0 - 0.4 * min(math.log10(rate / 1e-5), 3) + (10 * rate / least - 10 if rate > least else 0)


def test_rates_grow_by_the_same_factor():
    rates = growing(1e-4, 1.0, 9)
    np.testing.assert_allclose(np.array(rates[1:]) / rates[:-1], 10**0.5)
    assert (rates[0], rates[-1]) == (pytest.approx(1e-4), pytest.approx(1.0))


def test_it_ends_where_the_mean_of_five_is_over_four_times_the_least_one():
    drawn = []

    def losses():
        for at, loss in enumerate([3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 9, 9, 9, 9, 9, 9]):
            drawn.append(at)
            yield float(loss)

    found = range_test(growing(1e-3, 1, 16), losses())
    # The least mean is 2. Means of five with 1, 2, 3, 4, 5 nines: 3.4, 4.8, 6.2, 7.6, 9; 8 is four times 2.
    assert found.ended == "diverged"
    assert len(found.losses) == len(found.rates) == 15
    assert drawn == list(range(15)), "no batch is drawn that is not looked at"


def test_one_loss_that_jumps_does_not_end_it():
    found = range_test(growing(1e-3, 1, 12), [2.0] * 5 + [15.0] + [2.0] * 6)  # a mean of 4.6
    assert (found.ended, len(found.losses)) == ("end of the range", 12)


def test_a_loss_that_is_not_finite_ends_it_and_is_not_kept():
    found = range_test(growing(1e-3, 1, 12), [2.0, 1.0, math.nan, 5.0])
    assert (found.ended, found.losses, len(found.rates)) == ("not finite", [2.0, 1.0], 2)
    assert range_test([1.0, 2.0], [math.inf]).suggestion is None


def test_a_tenth_of_the_rate_with_the_least_mean_loss_is_suggested():
    rates = growing(1e-6, 1.0, 121)  # twenty a decade
    found = range_test(rates, map(bowl, rates))
    means = [np.mean([bowl(rate) for rate in rates[max(0, at - 2) : at + 3]]) for at in range(len(found.rates))]
    np.testing.assert_allclose(found.means[:-2], means[:-2])
    assert found.least == int(np.argmin(means))
    assert rates[found.least] == pytest.approx(1e-2, rel=0.3)
    assert found.suggestion == pytest.approx(rates[found.least] / 10)
    assert found.ended == "diverged"
    assert not found.is_open


def test_the_steepest_decade_is_found_though_single_losses_jump():
    rates = growing(1e-6, 1.0, 121)
    draw = np.random.default_rng(0)
    falls = [3 - 2 / (1 + 10 ** (-2 * math.log10(rate / 1e-3))) for rate in rates]  # half of it around 1e-3
    found = range_test(rates, np.array(falls) + draw.normal(scale=0.1, size=121))
    assert found.ended == "end of the range"
    assert rates[found.steepest] == pytest.approx(1e-3, rel=0.5)


def test_a_loss_that_hardly_falls_suggests_nothing_and_one_that_falls_to_the_end_says_so():
    rates = growing(1e-6, 1e-3, 30)
    flat = RangeTest(rates, [2.0 - 0.001 * at for at in range(30)], "end of the range")  # by 1.5 %
    assert (flat.least, flat.steepest, flat.suggestion, flat.is_open) == (None, None, None, False)
    falling = RangeTest(rates, [2.0 - 0.02 * at for at in range(30)], "end of the range")
    assert falling.is_open
    assert falling.suggestion == pytest.approx(1e-4)


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    from dlkit import cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        return cli.main(arguments), *capsys.readouterr()

    return call


def test_it_trains_on_the_data_and_leaves_no_trace(run):
    code, out, _ = run("train", "mlp", *SMALL, "--find-lr", "--steps", "30", "--lr-range", "1e-5,1e4", "--json")
    assert code == 0
    found = json.loads(out)
    np.testing.assert_allclose(found["rates"], growing(1e-5, 1e4, 30)[: found["updates"]])
    assert found["ended"] in {"diverged", "not finite"}, "a rate of 10,000 is too high for any net"
    assert found["losses"][0] == pytest.approx(math.log(10), rel=0.6), "ten classes, fresh weights"
    assert found["suggestion"] == pytest.approx(found["least"] / 10)
    assert list(Path().iterdir()) == []

    # the updates are those of training: with one rate throughout, the losses that its log has
    from dlkit import recipe
    from dlkit.train import start

    overrides = [
        ("model.hidden", "[8]", "set"),
        ("train.schedule", "constant", "set"),
        ("train.accumulate", "2", "set"),
    ]
    flags = {"train.limit": 60, "train.batch_size": 20, "train.steps": 4, "train.lr": 0.05}
    resolved = recipe.resolve("mlp", overrides=[*overrides, ("train.log_every", "1", "set")], flags=flags)

    class Kept:
        def __init__(self):
            self.losses = []

        def interval(self, record):
            self.losses.append(record["loss"])

        def estimate(self, **_): ...
        def advance(self, step): ...
        def evaluation(self, record): ...

    tested = start.new_loop(start.prepare(resolved), Kept(), folder=None)
    losses = list(tested.losses_at([0.05] * 4))
    trained = start.new_loop(start.prepare(resolved), Kept(), folder=None)
    trained.fit()
    np.testing.assert_allclose(losses, trained.display.losses, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0.1"], "train.lr is not for --find-lr"),
        (["--schedule", "cosine"], "train.schedule is not for --find-lr"),
        (["--set", "train.warmup=3"], "train.warmup is not for --find-lr"),
        (["--set", "train.steps=3"], "--steps` says"),
        (["--epochs", "3"], "train.epochs is not for --find-lr"),
        (["--ema", "0.9"], "train.ema is not for --find-lr"),
        (["--steps", "3"], "--steps 3 is too few"),
        (["--resume", "x"], "--resume is about a run"),
        (["--name", "x"], "--name is about a run"),
        (["--workers", "2"], "--workers is about a run"),
        (["--dry-run"], "--dry-run is about a run"),
        (["--lr-range", "1e-3"], "--lr-range must be two numbers, not 1e-3"),
        (["--lr-range", "1,0.1"], "the first rate is above 0"),
        (["--lr-range", "0,1"], "the first rate is above 0"),
        (["--lr-range", "1,inf"], "the first rate is above 0"),
    ],
)
def test_what_has_no_place_in_it_is_refused(run, arguments, message):
    code, _, err = run("train", "mlp", "--find-lr", *arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 2


def test_its_options_are_for_it_alone(run):
    for arguments in (["--png"], ["--lr-range", "1e-5,1"]):
        code, _, err = run("train", "mlp", *arguments)
        assert (code, f"{arguments[0]} is for --find-lr" in err) == (2, True)
