import json
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlkit.errors import CheckpointError, UsageError
from dlkit.train.schedules import SCHEDULES, Plateau, is_better, schedule

OPTIONS = {name: {"lr": 0.1, "total_steps": 100} for name in SCHEDULES}
OPTIONS["noam"]["width"] = 64


def rates(name, steps=range(100), **options):
    rate = schedule(name, **{**OPTIONS[name], **options})
    return np.array([rate(step) for step in steps])


# ---------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, {0: 0.1, 99: 0.1, 1000: 0.1}),
        ("step", {"gamma": 0.2}, {0: 0.1, 49: 0.1, 50: 0.02, 74: 0.02, 75: 0.004, 99: 0.004}),
        ("step", {"milestones": [0.55]}, {54: 0.1, 55: 0.01}),  # though 0.55 * 100 > 55
        ("cosine", {}, {0: 0.1, 25: 0.05 + 0.05 * math.sqrt(0.5), 50: 0.05, 100: 0.0, 150: 0.0}),
        ("cosine", {"final_lr": 0.5}, {0: 0.1, 50: 0.075, 100: 0.05}),
        ("one_cycle", {}, {0: 0.1 / 30, 14: 0.05, 29: 0.1, 100: 0.0, 150: 0.0}),
        ("one_cycle", {"warmup": 50, "final_lr": 0.02}, {0: 0.002, 49: 0.1, 100: 0.002}),
        ("one_cycle", {"warmup": 0.21, "power": 3.0}, {20: 0.1, 60: 0.05, 80: 0.025}),  # the power is polynomial's
        ("polynomial", {"power": 2.0}, {0: 0.1, 50: 0.025, 90: 0.001, 100: 0.0}),
        ("polynomial", {"power": 2.0, "final_lr": 0.1}, {0: 0.1, 50: 0.01 + 0.09 / 4, 100: 0.01}),
        ("inverse_sqrt", {"warmup": 4}, {0: 0.025, 1: 0.05, 3: 0.1, 15: 0.05, 35: 0.1 / 3}),
        # 64^-0.5 = 1/8; at n = 4: 4^-0.5 = 1/2; at n = 16: 1/4; at n = 1: 4^-1.5 = 1/8.
        ("noam", {"warmup": 4, "lr": 1.0}, {0: 1 / 64, 3: 1 / 16, 15: 1 / 32}),
        ("constant", {"warmup": 10}, {0: 0.01, 4: 0.05, 9: 0.1, 10: 0.1}),
        ("constant", {"warmup": 0.2}, {0: 0.005, 19: 0.1, 20: 0.1}),
        ("step", {"warmup": 50}, {24: 0.05, 49: 0.1, 50: 0.01, 75: 0.001}),
        ("cosine", {"warmup": 21}, {0: 0.1 / 21, 20: 0.1, 60: 0.05, 100: 0.0}),
    ],
)
def test_values(name, options, expected):
    found = rates(name, steps=expected, **options)
    assert found == pytest.approx(list(expected.values()), rel=1e-12, abs=1e-15)


def test_noam_equals_the_formula_of_the_transformer():
    # Vaswani et al. 2017, eq. 3; their base model peaks at 7.0e-4.
    n = np.arange(1, 20_001)
    expected = 512**-0.5 * np.minimum(n**-0.5, n * 4000**-1.5)
    found = rates("noam", range(20_000), lr=1, total_steps=20_000, warmup=4000, width=512)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.max() == found[3999] == pytest.approx(6.99e-4, rel=1e-3)


def test_inverse_sqrt_is_noam_with_the_peak_as_its_lr():
    peak = (64 * 10) ** -0.5
    np.testing.assert_allclose(rates("inverse_sqrt", warmup=10, lr=peak), rates("noam", warmup=10, lr=1.0), rtol=1e-12)


# ----------------------------------------------------------------------------------------- another implementation


def test_equal_to_keras():
    theirs = keras.optimizers.schedules
    cases = {
        "cosine": ({"final_lr": 0.1}, theirs.CosineDecay(0.1, 100, alpha=0.1)),
        "polynomial": ({"final_lr": 0.1, "power": 0.5}, theirs.PolynomialDecay(0.1, 100, 0.01, power=0.5)),
        "step": ({}, theirs.PiecewiseConstantDecay([49, 74], [0.1, 0.01, 0.001])),
    }
    steps = [0, 1, 30, 49, 50, 60, 74, 75, 99, 100, 120]
    for name, (options, rate) in cases.items():
        np.testing.assert_allclose(rates(name, steps, **options), [float(rate(step)) for step in steps], rtol=2e-5)


# ------------------------------------------------------------------------------------------------------ properties


@given(
    name=st.sampled_from(SCHEDULES),
    total=st.integers(1, 300),
    share=st.floats(0, 1),
    final=st.floats(0, 1),
    power=st.floats(0.1, 4),
)
def test_every_schedule_rises_to_its_peak_and_never_again(name, total, share, final, power):
    longest = math.ceil(total / 2) if name == "step" else total  # up to the first milestone
    warmup = max(1, round(share * longest))
    options = {"total_steps": total, "warmup": warmup, "final_lr": final, "power": power}
    found = rates(name, range(total + 5), **options)
    peak = 0.1 / math.sqrt(64 * warmup) if name == "noam" else 0.1
    assert np.all(np.isfinite(found))
    assert found[warmup - 1] == pytest.approx(peak) == found.max()
    np.testing.assert_allclose(found[:warmup], peak * np.arange(1, warmup + 1) / warmup, rtol=1e-12)
    assert np.all(np.diff(found[warmup - 1 :]) <= 1e-15)
    assert found[total - 1] > 0  # the last update is not wasted
    if name in {"cosine", "one_cycle", "polynomial"}:
        assert found[total] == pytest.approx(0.1 * final, abs=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_end_of_the_warm_up_is_no_jump(name):
    found = rates(name, range(10_000), total_steps=10_000, warmup=1000)
    steps = np.abs(np.diff(found[900:1100]))
    assert steps.max() <= found.max() / 1000 * (1 + 1e-9)


@pytest.mark.parametrize("name", ["constant", "cosine", "polynomial", "step"])
def test_without_warm_up_training_starts_at_the_peak(name):
    assert rates(name, [0]) == pytest.approx([0.1], rel=1e-15)
    np.testing.assert_array_equal(rates(name, warmup=0), rates(name, warmup=1))


def test_one_step_of_training():
    for name in SCHEDULES:
        assert rates(name, [0], total_steps=1, warmup=1) > 0


# --------------------------------------------------------------------------------------------------------- plateau


def plateau(**options):
    return Plateau(**{"lr": 0.1, "total_steps": 100, "gamma": 0.5, "patience": 2, **options})


def after(rate, values):
    found = []
    for value in values:
        rate.observe(value)
        found.append(rate(99))
    return found


@pytest.mark.parametrize(("best", "lower", "higher"), [(None, True, True), (2.0, True, False), (0.5, False, True)])
def test_what_is_better(best, lower, higher):
    assert (is_better(1.0, best, "lower"), is_better(1.0, best, "higher")) == (lower, higher)
    assert not is_better(1.0, 1.0, "lower")
    assert not is_better(1.0, 1.0, "higher")
    assert not is_better(math.nan, best, "lower")
    assert not is_better(math.inf, best, "higher"), "what has diverged is no success"


def test_plateau_by_hand():
    values = [3.0, 2.0, 2.0, 2.5, 1.0, 1.1, 1.2, 1.0, 1.3]
    expected = [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.0125]
    assert after(plateau(), values) == pytest.approx(expected)


def test_plateau_of_a_score():
    assert after(plateau(direction="higher"), [0.5, 0.6, 0.6, 0.55, 0.7]) == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05])


def test_plateau_of_what_is_no_number():
    assert after(plateau(), [math.nan, math.nan, 5.0, math.nan, 4.0, -math.inf]) == pytest.approx(
        [0.1, 0.05, 0.05, 0.05, 0.05, 0.05]
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_plateau_equals_keras():
    values = np.random.default_rng(0).normal(size=60).cumsum() * -0.1 + np.random.default_rng(1).normal(size=60)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1))
    theirs = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=3, min_delta=0)
    theirs.set_model(model)
    theirs.on_train_begin()
    expected = []
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {"loss": float(value)})
        expected.append(float(model.optimizer.learning_rate))
    found = after(plateau(patience=3), values)
    assert len(set(found)) > 3
    assert found == pytest.approx(expected, rel=1e-6)


def test_plateau_warms_up():
    rate = plateau(warmup=0.1)
    assert [rate(step) for step in (0, 4, 9, 10, 50)] == pytest.approx([0.01, 0.05, 0.1, 0.1, 0.1])
    after(rate, [1.0, 1.0, 1.0])
    assert [rate(step) for step in (4, 50)] == pytest.approx([0.025, 0.05])


@pytest.mark.parametrize("cut", range(8))
def test_plateau_goes_on_from_its_state(cut):
    values = [np.float32(3.0), 2.0, 2.0, 2.5, 1.0, 1.1, 1.2, 1.0]
    whole = after(plateau(), values)
    first = plateau()
    begun = after(first, values[:cut])
    second = plateau()
    second.restore(json.loads(json.dumps(first.state, allow_nan=False)))
    assert begun + after(second, values[cut:]) == whole


@pytest.mark.parametrize("state", [{}, {"best": 1.0}, {"best": 1.0, "waited": None, "drops": 1}])
def test_plateau_refuses_another_state(state):
    with pytest.raises(CheckpointError):
        plateau().restore(state)


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("noam", {"warmup": 10, "width": None}, "needs the width"),
        ("noam", {"warmup": 0}, "needs a warm-up"),
        ("inverse_sqrt", {}, "needs a warm-up"),
        ("cosine", {"warmup": 101}, "warm-up of 101 steps is longer than the training of 100"),
        ("cosine", {"warmup": 1.5}, "warm-up is a number of steps"),
        ("cosine", {"warmup": -1}, "warm-up is a number of steps"),
        ("cosine", {"warmup": math.nan}, "warm-up is a number of steps"),
        ("cosine", {"lr": 0.0}, "lr must be above 0"),
        ("cosine", {"lr": math.inf}, "lr must be above 0"),
        ("cosine", {"total_steps": 0}, "at least one step"),
        ("cosine", {"final_lr": 1.1}, "final lr is a share"),
        ("polynomial", {"power": 0.0}, "power must be above 0"),
        ("step", {"gamma": 0.0}, "gamma must be above 0"),
        ("step", {"milestones": []}, "milestones are rising shares"),
        ("step", {"milestones": [0.75, 0.5]}, "milestones are rising shares"),
        ("step", {"milestones": [0.5, 1.0]}, "milestones are rising shares"),
        ("step", {"milestones": [30, 60]}, "milestones are rising shares"),
        ("step", {"warmup": 51}, "before the warm-up ends"),
    ],
)
def test_what_does_not_go_together(name, options, message):
    with pytest.raises(UsageError, match=message):
        rates(name, **options)


def test_unknown_name():
    with pytest.raises(UsageError, match="unknown schedule: cosin") as caught:
        schedule("cosin", lr=0.1, total_steps=10)
    assert "`cosine`" in caught.value.hint


@pytest.mark.parametrize("options", [{"gamma": 0.0}, {"patience": 0}, {"lr": -1}, {"warmup": 200}])
def test_plateau_out_of_range(options):
    with pytest.raises(UsageError):
        plateau(**options)


def test_schedules_load_no_tensorflow():
    code = "import sys, dlkit.train.schedules; sys.exit('tensorflow' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
