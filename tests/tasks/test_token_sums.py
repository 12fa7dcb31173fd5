"""Loss and hits of tokens, against sums by hand."""

import numpy as np
import pytest
import tensorflow as tf

from dlkit.tasks.task import token_sums

# Three words: what is said at each step is sure of one of them with 1/2, and of the others with 1/4 each.
SURE = np.log(np.float32([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]))
LOGITS = SURE[[[1, 2, 0], [1, 1, 2]]]
TARGETS = np.int32([[1, 1, 0], [2, 1, 2]])  # the last of the first row is padding


def test_padding_does_not_count():
    """Right are the first of the first row, and the last two of the second."""
    sums = token_sums(tf.constant(LOGITS), tf.constant(TARGETS), {})
    assert float(sums.weight) == 5
    assert float(sums.loss) == pytest.approx(3 * np.log(2) + 2 * np.log(4), rel=1e-6)
    assert tuple(map(float, sums.metrics["accuracy"])) == (3, 5)


def test_rows_that_are_padded_do_not_count():
    batch = {"row_weights": tf.constant([1.0, 0.0])}
    sums = token_sums(tf.constant(LOGITS), tf.constant(TARGETS), batch, hits=False)
    assert (float(sums.weight), sums.metrics) == (2, {})
    assert float(sums.loss) == pytest.approx(np.log(2) + np.log(4), rel=1e-6)


def test_a_smoothed_loss():
    """Of a tenth every word, the right one included, gets a third."""
    smoothed = token_sums(tf.constant(LOGITS), tf.constant(TARGETS), {}, smoothing=0.1)
    whole = 3 * np.log(2) + 2 * np.log(4)
    spread = 5 * (np.log(2) + 2 * np.log(4)) / 3
    assert float(smoothed.loss) == pytest.approx(0.9 * whole + 0.1 * spread, rel=1e-6)
