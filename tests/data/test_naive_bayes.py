"""What naive Bayes gets on film reviews: the mark that recipes are held against. By hand, `pytest -m slow`.

The texts are in a folder of the environment variable RT_POLARITY, `rt-polarity.neg` and `rt-polarity.pos`.
"""

import os
from collections import Counter
from itertools import pairwise
from math import log

import numpy as np
import pytest

from dlkit import data

pytestmark = pytest.mark.slow


def words_and_pairs(text):
    words = text.split()
    return {*words, *pairwise(words)}


def naive_bayes(texts, labels):
    """Bernoulli counts of words and word pairs with one added; answers with the class of a text."""
    counts = [Counter(f for text, its in zip(texts, labels, strict=True) if its == c for f in words_and_pairs(text))
              for c in (0, 1)]  # fmt: skip
    known = {*counts[0], *counts[1]}
    totals = [sum(each.values()) + len(known) for each in counts]
    weight = {f: log((counts[1][f] + 1) / totals[1]) - log((counts[0][f] + 1) / totals[0]) for f in known}
    prior = log(sum(labels) / (len(labels) - sum(labels)))
    return lambda text: int(prior + sum(weight.get(f, 0.0) for f in words_and_pairs(text)) > 0)


def test_naive_bayes_gets_78_8_percent():
    folder = os.environ.get("RT_POLARITY")
    if folder is None:
        pytest.skip("RT_POLARITY names no folder")
    accuracies = []
    for fold in range(10):
        texts = data.load_kind(folder, "labelled_texts", folds=10, fold=fold).texts
        # It has nothing to choose: the validation part is training data, too.
        learned = [*texts["train"].texts, *texts["validation"].texts]
        labels = np.concatenate([texts["train"].labels, texts["validation"].labels]).tolist()
        answer = naive_bayes(learned, labels)
        accuracies.append(np.mean([answer(t) == its for t, its in zip(*_columns(texts["test"]), strict=True)]))
    print("accuracies", [f"{accuracy:.3f}" for accuracy in accuracies])
    assert np.mean(accuracies) == pytest.approx(0.788, abs=0.004)


def _columns(split):
    return split.texts, split.labels.tolist()
