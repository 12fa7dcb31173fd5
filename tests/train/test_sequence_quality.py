"""Figures of regression against NumPy and by hand."""

import math

import numpy as np
import pytest

from dlkit.train.sequence_quality import by_length, curve, numbers, paired_errors


def test_figures_by_hand():
    """Errors 1, 0, 1, 2 on the targets 0, 1, 2, 3, whose variance is 1.25."""
    found = numbers(np.array([[0.0], [1], [2], [3]]), np.array([[1.0], [1], [1], [5]]))
    assert found["mae"] == 1
    assert found["mean_mse"] == 1.25
    assert found["r2"] == pytest.approx(1 - 1.5 / 1.25)
    squares = [1, 0, 1, 4]
    off = 1.959964 * np.std(squares, ddof=1) / 2
    assert found["intervals"]["mse"] == pytest.approx([max(0, 1.5 - off), 1.5 + off])
    assert found["points"] == [[0, 1], [1, 1], [2, 1], [3, 5]]


def test_targets_that_are_all_the_same_explain_nothing():
    assert numbers(np.full((3, 1), 2.0), np.zeros((3, 1)))["r2"] is None


def test_ranges_of_lengths_hold_like_numbers_and_part_no_length():
    lengths = np.array([1, 1, 1, 1, 2, 3, 4, 5, 6, 7])
    records = by_length(lengths, np.arange(10.0))
    assert [(r["shortest"], r["longest"], r["examples"]) for r in records] == [
        (1, 1, 4), (2, 3, 2), (4, 5, 2), (6, 7, 2)
    ]  # fmt: skip
    assert [r["mse"] for r in records] == [1.5, 4.5, 6.5, 8.5]
    assert len(by_length(np.array([4]), np.array([1.0]))) == 1


def test_the_nearer_of_two():
    random = np.random.default_rng(0)
    targets = random.normal(size=(400, 1))
    near, far = (targets + scale * random.normal(size=(400, 1)) for scale in (0.1, 0.2))
    found = paired_errors(targets, far, near)
    assert found["better"] == 1
    assert found["interval"][0] < 0.03 < found["interval"][1]  # 0.2**2 - 0.1**2
    differences = ((far - targets) ** 2 - (near - targets) ** 2)[:, 0]
    z = differences.mean() / (differences.std(ddof=1) / 20)
    assert found["p_value"] == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert paired_errors(targets, near, near)["better"] is None


def test_the_curve_of_a_run_is_that_of_the_weights_that_are_evaluated():
    records = [
        {"kind": "interval", "step": 1, "mse": 9},
        {"kind": "evaluation", "split": "validation", "weights": "raw", "step": 4, "mse": 2},
        {"kind": "evaluation", "split": "validation", "weights": "ema", "step": 4, "mse": 1},
        {"kind": "evaluation", "split": "validation", "weights": "raw", "step": 2, "mse": 3},
        {"kind": "evaluation", "split": "test", "weights": "raw", "step": 4, "mse": 5},
    ]
    assert curve(records, "mse", "raw") == [(2, 3), (4, 2)]
    assert curve(records, "mse", "ema") == [(4, 1)]
