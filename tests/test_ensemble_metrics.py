"""What several models say together, against cases that are counted by hand."""

import numpy as np
import pytest

from dlkit import ensemble_metrics as together


def test_most_votes_win_even_against_the_averaged_probabilities():
    """Two members are a little for class 0, one is sure of class 1: the vote is 2 to 1, the mean is for class 1."""
    members = np.array([[[0.51, 0.49]], [[0.51, 0.49]], [[0.01, 0.99]]])
    vote = together.majority_vote(members.argmax(axis=2), members.mean(axis=0))
    assert members.mean(axis=0).argmax(axis=1).tolist() == [1]
    assert vote.classes.tolist() == [0]
    assert vote.tied.tolist() == [False]


def test_of_tied_classes_the_one_with_the_higher_averaged_probability_is_taken():
    """Two votes each for 1 and 3; class 2, which nobody names, has the highest mean of all."""
    named = [[1], [3], [1], [3]]
    vote = together.majority_vote(named, [[0.05, 0.2, 0.45, 0.3]])
    assert (vote.classes.tolist(), vote.tied.tolist()) == ([3], [True])
    assert together.majority_vote(named, [[0.1, 0.3, 0.4, 0.2]]).classes.tolist() == [1]
    assert together.majority_vote(named, [[0.1, 0.25, 0.4, 0.25]]).classes.tolist() == [1], "equal: the smaller class"


def test_the_vote_of_many_against_counting():
    draw = np.random.default_rng(0)
    named, mean = draw.integers(4, size=(5, 200)), draw.random((200, 4))
    vote = together.majority_vote(named, mean)
    for at in range(200):
        counts = [list(named[:, at]).count(label) for label in range(4)]
        first = [label for label in range(4) if counts[label] == max(counts)]
        assert vote.classes[at] == max(first, key=lambda label, at=at: mean[at, label])
        assert vote.tied[at] == (len(first) > 1)


def test_disagreement_is_the_share_of_answers_in_which_two_differ():
    matrix = together.disagreements([[0, 1, 2, 2], [0, 1, 0, 1], [3, 3, 3, 3]])
    np.testing.assert_array_equal(matrix, [[0, 0.5, 1], [0.5, 0, 1], [1, 1, 0]])
    assert together.mean_of_pairs(matrix) == pytest.approx((0.5 + 1 + 1) / 3)


def test_log_loss():
    assert together.log_loss([[0.5, 0.5], [0.75, 0.25]], [0, 1]) == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert together.log_loss([[1.0, 0.0]], [1]) == np.inf


def test_the_error_of_a_mean_is_the_mean_error_less_the_spread():
    """Members say 1 and 3 where 2.5 is right: errors 2.25 and 0.25, the mean 2 is off by 0.25, and 1 from each."""
    found = together.ambiguity([[[1.0]], [[3.0]]], [[2.5]])
    assert found == (0.25, 1.25, 1.0)
    draw = np.random.default_rng(1)
    said, wanted = draw.normal(size=(4, 50, 3)), draw.normal(size=(50, 3))
    found = together.ambiguity(said, wanted)
    assert found.error == pytest.approx(found.mean_error - found.spread)
    assert found.error == pytest.approx(((said.mean(0) - wanted) ** 2).mean())
