"""The metrics of classifiers, against arithmetic by hand, exact fractions and published figures."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlkit import metrics

# Three classes: the first is right 3 times of 4, the second 1 of 2, the third never occurs but is predicted once.
LABELS = np.array([0, 0, 0, 0, 1, 1])
PREDICTED = np.array([0, 0, 0, 1, 1, 2])


def test_softmax_by_hand():
    """Odds of 6 : 3 : 1, whatever is added to all logits."""
    found = metrics.softmax([np.log([6, 3, 1]), np.log([6, 3, 1]) + 5000.0])
    np.testing.assert_allclose(found, [[0.6, 0.3, 0.1]] * 2, rtol=1e-12)


# ------------------------------------------------------------------------------------------------ how often it is right


def test_top_k_by_hand():
    scores = [[0.1, 0.6, 0.3], [0.1, 0.6, 0.3], [0.1, 0.6, 0.3]]
    assert metrics.top_k_hits(scores, [1, 2, 0], 1).tolist() == [True, False, False]
    assert metrics.top_k_hits(scores, [1, 2, 0], 2).tolist() == [True, True, False]
    assert metrics.top_k_hits(scores, [1, 2, 0], 3).all()


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=8), st.data())
def test_top_k_breaks_ties_as_argmax_does(rows, data):
    """Scores of three values tie all the time. The k best are the first k of a stable sort from the top."""
    labels = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    for k in (1, 2, 4):
        best = [sorted(range(4), key=lambda at, row=row: (-row[at], at))[:k] for row in rows]
        expected = [label in among for label, among in zip(labels, best, strict=True)]
        assert metrics.top_k_hits(rows, labels, k).tolist() == expected
    assert metrics.top_k_hits(rows, labels, 1).mean() == np.mean(np.argmax(rows, axis=1) == labels)


def test_what_is_not_a_number_is_no_hit():
    assert not metrics.top_k_hits([[math.nan] * 3, [0.0, math.nan, -1.0]], [0, 0], 1).any()


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(hits, count, low, high):
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert metrics.wilson_interval(hits, count) == pytest.approx((low, high), abs=5e-5)


@given(count=st.integers(1, 10_000), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_solves_its_equation(count, share, confidence):
    """At both limits p the observed share is z standard deviations of a binomial with that p away."""
    z = {0.8: 1.2815515655446004, 0.95: 1.959963984540054, 0.99: 2.5758293035489004}[confidence]
    hits = round(share * count)
    low, high = metrics.wilson_interval(hits, count, confidence=confidence)
    assert 0 <= low <= hits / count <= high <= 1
    for p in (low, high):
        assert abs(hits / count - p) == pytest.approx(z * math.sqrt(p * (1 - p) / count), abs=1e-9)


def test_a_share_of_nothing_has_no_interval():
    assert all(math.isnan(limit) for limit in metrics.wilson_interval(0, 0))


# ------------------------------------------------------------------------------------------------------- class by class


def test_the_confusion_matrix_by_hand():
    matrix = metrics.confusion_matrix(LABELS, PREDICTED, 3)
    assert matrix.tolist() == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_precision_recall_and_f1_by_hand():
    """Class 0: 3 of 3 predicted, 3 of 4 there. Class 1: 1 of 2, 1 of 2. Class 2: 0 of 1 predicted, none there."""
    found = metrics.by_class(metrics.confusion_matrix(LABELS, PREDICTED, 3))
    assert found.precision.tolist() == [1, 0.5, 0]
    assert found.recall[:2].tolist() == [0.75, 0.5]
    assert math.isnan(found.recall[2])
    assert found.f1.tolist() == pytest.approx([6 / 7, 0.5, 0])
    assert found.support.tolist() == [4, 2, 0]


def test_macro_f1_weighs_classes_alike_and_leaves_out_those_that_are_not_there():
    matrix = metrics.confusion_matrix(LABELS, PREDICTED, 3)
    expected = float((Fraction(6, 7) + Fraction(1, 2) + 0) / 3)
    assert metrics.macro_f1(matrix) == pytest.approx(expected, rel=1e-12)
    assert metrics.macro_f1(np.pad(matrix, (0, 2))) == pytest.approx(expected, rel=1e-12)


def test_a_class_that_is_never_predicted_has_no_precision_and_an_f1_of_0():
    found = metrics.by_class([[2, 0], [3, 0]])
    assert math.isnan(found.precision[1])
    assert (found.recall[1], found.f1[1]) == (0, 0)


def test_perfect_and_all_wrong():
    labels = np.arange(4)
    perfect = metrics.confusion_matrix(labels, labels, 4)
    wrong = metrics.confusion_matrix(labels, labels[::-1], 4)
    assert [metrics.macro_f1(matrix) for matrix in (perfect, wrong)] == [1, 0]
    assert metrics.most_confused(perfect, 5) == []
    assert metrics.most_confused(wrong, 5) == [(0, 3, 1), (1, 2, 1), (2, 1, 1), (3, 0, 1)]


def test_nothing_at_all():
    empty = metrics.confusion_matrix([], [], 3)
    assert empty.tolist() == [[0] * 3] * 3
    assert math.isnan(metrics.macro_f1(empty))
    assert metrics.most_confused(empty, 5) == []
    assert math.isnan(metrics.expected_calibration_error(metrics.reliability([], [])))


def test_the_most_confused_come_first_and_of_equals_the_first():
    matrix = np.array([[9, 2, 5], [7, 9, 0], [2, 5, 9]])
    assert metrics.most_confused(matrix, 4) == [(1, 0, 7), (0, 2, 5), (2, 1, 5), (0, 1, 2)]
    assert matrix.trace() == 27, "the matrix is left as it was"


# ---------------------------------------------------------------------------------------------------------- calibration


def test_brier_by_hand():
    """Sure and right 0, sure and wrong 2, undecided between 4 classes 9/16 + 3/16."""
    rows = [[1, 0, 0, 0], [0, 1, 0, 0], [0.25] * 4]
    assert [metrics.brier_score([row], [0]) for row in rows] == [0, 2, 0.75]
    assert metrics.brier_score(rows, [0, 0, 0]) == pytest.approx(2.75 / 3)


def test_bins_hold_their_upper_end():
    """With 5 bins 0.2 is in the first and 1 in the last; what is just above 0.2 is in the second."""
    bins = metrics.reliability([0.0, 0.2, 0.2000001, 0.6, 1.0], [1, 0, 1, 1, 1], bins=5)
    assert bins.examples.tolist() == [2, 1, 1, 0, 1]
    assert bins.accuracy[[0, 1, 2, 4]].tolist() == [0.5, 1, 1, 1]
    assert bins.confidence[[0, 2, 4]] == pytest.approx([0.1, 0.6, 1])
    assert math.isnan(bins.accuracy[3])
    assert math.isnan(bins.confidence[3])


def test_every_edge_of_15_bins_belongs_below():
    assert metrics.reliability([m / 15 for m in range(1, 16)], [0] * 15).examples.tolist() == [1] * 15


def test_calibration_error_by_hand():
    """Of 4 examples said with 0.9 three are right: gap 0.15. Of 6 said with 0.5 three are: no gap. 0.4 * 0.15."""
    confidence, right = [0.9] * 4 + [0.5] * 6, [1, 1, 1, 0, 1, 1, 1, 0, 0, 0]
    assert metrics.expected_calibration_error(metrics.reliability(confidence, right)) == pytest.approx(0.06)


def test_gaps_of_both_signs_add_up():
    """0.1 too sure in one bin and 0.1 too modest in another is an error of 0.1, not of 0."""
    bins = metrics.reliability([0.6] * 2 + [0.9] * 5, [1, 0, 1, 1, 1, 1, 1])
    assert metrics.expected_calibration_error(bins) == pytest.approx(0.1)


# ----------------------------------------------------------------------------------------------- which of two is better


def test_pairs_by_hand():
    first, second = [1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0]
    assert metrics.paired(first, second) == metrics.Paired(both=2, only_first=1, only_second=3, neither=1)


def test_mcnemar_counts_every_way_the_coins_can_fall():
    """Of b + c fair coins: how many of all outcomes are at least as uneven as what was seen."""
    for first, second in product(range(7), repeat=2):
        coins = first + second
        outcomes = [sum(tossed) for tossed in product((0, 1), repeat=coins)]
        uneven = sum(abs(2 * heads - coins) >= abs(first - second) for heads in outcomes)
        found = metrics.mcnemar_exact(metrics.Paired(5, first, second, 3))
        assert found == pytest.approx(float(Fraction(uneven, 2**coins)), rel=1e-12)


def test_mcnemar_of_many_is_exact():
    """1,000 coins: the tail from Pascal's triangle, summed as whole numbers; far out it is tiny and not 0."""
    tail = sum(math.comb(1000, heads) for heads in range(451))
    assert metrics.mcnemar_exact(metrics.Paired(0, 450, 550, 0)) == float(Fraction(2 * tail, 2**1000))
    assert metrics.mcnemar_exact(metrics.Paired(0, 0, 1000, 0)) == 2.0**-999
    assert metrics.mcnemar_exact(metrics.Paired(7, 0, 0, 7)) == 1
    assert 0 < metrics.mcnemar_exact(metrics.Paired(0, 24_000, 26_000, 0)) < 1e-15


def test_the_interval_of_the_difference_is_the_paired_one_of_the_sample_and_half_an_example_each():
    """From the mean and variance of +1, -1 and 0 over the examples, each cell of the table counted half once more."""
    pairs = metrics.Paired(both=90, only_first=1, only_second=5, neither=4)
    values, weights = np.array([0, 1, -1, 0]), np.array(pairs) + 0.5
    mean = np.average(values, weights=weights)
    deviation = math.sqrt(np.average((values - mean) ** 2, weights=weights) / weights.sum())
    difference, (low, high) = metrics.paired_difference(pairs)
    assert difference == -0.04
    assert (low, high) == pytest.approx((mean - 1.959963984540054 * deviation, mean + 1.959963984540054 * deviation))


def test_the_interval_of_no_difference_has_a_width_and_stays_in_range():
    difference, (low, high) = metrics.paired_difference(metrics.Paired(8, 0, 0, 2))
    assert difference == 0
    assert low == -high < 0
    assert metrics.paired_difference(metrics.Paired(0, 1, 0, 0))[1][1] == 1
    assert math.isnan(metrics.paired_difference(metrics.Paired(0, 0, 0, 0))[0])


def test_95_of_100_intervals_hold_the_true_value():
    """5,000 samples of 200 examples, of which 8 % are right with the first alone and 5 % with the second alone."""
    rng = np.random.default_rng(0)
    tables = rng.multinomial(200, [0.8, 0.08, 0.05, 0.07], size=5000)
    held = [low <= 0.03 <= high for _, (low, high) in (metrics.paired_difference(metrics.Paired(*t)) for t in tables)]
    assert 0.94 < np.mean(held) < 0.965
    hits = rng.binomial(200, 0.9, size=5000)
    held = [low <= 0.9 <= high for low, high in (metrics.wilson_interval(int(h), 200) for h in hits)]
    assert 0.94 < np.mean(held) < 0.965


# ------------------------------------------------------------------------------------------------------ other libraries


@pytest.mark.slow
def test_other_libraries_say_the_same():
    sklearn = pytest.importorskip("sklearn.metrics")
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 12, 500), rng.normal(size=(500, 12))
    logits[np.arange(500), labels] += 1
    probabilities, predicted = metrics.softmax(logits), logits.argmax(axis=1)
    matrix = metrics.confusion_matrix(labels, predicted, 12)
    np.testing.assert_array_equal(matrix, sklearn.confusion_matrix(labels, predicted))
    for ours, theirs in zip(
        metrics.by_class(matrix), sklearn.precision_recall_fscore_support(labels, predicted), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert metrics.macro_f1(matrix) == pytest.approx(sklearn.f1_score(labels, predicted, average="macro"), rel=1e-12)
    assert metrics.top_k_hits(logits, labels, 5).mean() == sklearn.top_k_accuracy_score(labels, probabilities, k=5)
    expected = sklearn.brier_score_loss(labels, probabilities, scale_by_half=False)
    assert metrics.brier_score(probabilities, labels) == pytest.approx(expected, rel=1e-12)
    for hits, count in [(0, 5), (356, 360), (9123, 10_000), (10_000, 10_000)]:
        expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
        assert metrics.wilson_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)
    for first, second in [(0, 1), (3, 9), (120, 80), (1000, 1100)]:
        found = metrics.mcnemar_exact(metrics.Paired(5, first, second, 5))
        assert found == pytest.approx(stats.binomtest(first, first + second).pvalue, rel=1e-9)
