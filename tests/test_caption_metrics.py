"""CIDEr-D against sums by hand, BLEU with several references against sacrebleu itself, and the blind baseline."""

import math

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from dlkit import metrics
from dlkit.caption_metrics import caption_scores, cider_d, constant_caption, exact_matches, paired_bootstrap, words_of


def test_words_are_lower_case_without_punctuation():
    assert words_of("A man's half-asleep DOG, 3 cats ... -- é .") == [
        "a",
        "man's",
        "half-asleep",
        "dog",
        "3",
        "cats",
        "é",
    ]


def test_cider_d_of_a_reference_itself():
    """Five words have n-grams of every order: all cosines are 1, there is no penalty, and 10 comes out."""
    references = [["a red bird sings loudly"], ["two dogs run in water"]]
    np.testing.assert_allclose(cider_d([text for (text,) in references], references), [10, 10])


def test_cider_d_by_hand():
    """Three images; "a" is said of all and weighs nothing, "cat" of two and weighs log 3/2, the rest log 3."""
    references = [["a cat sits", "a cat"], ["a cat runs"], ["a dog"]]
    rare, common = math.log(3), math.log(3 / 2)
    # The caption is "a cat sits sits"; its vectors by order: {cat: common, sits: 2 rare}, {a cat: common, cat sits:
    # rare, sits sits: rare}, {a cat sits: rare, cat sits sits: rare}, {a cat sits sits: rare}. An n-gram that is in no
    # reference has the weight log 3.
    one = math.hypot(common, 2 * rare)
    two = math.sqrt(common**2 + 2 * rare**2)
    three = math.sqrt(2) * rare
    # "a cat sits": {cat: common, sits: rare}, {a cat: common, cat sits: rare}, {a cat sits: rare}, {}.
    first = [
        (common**2 + rare**2) / (one * math.hypot(common, rare)),  # the second "sits" is clipped
        (common**2 + rare**2) / (two * math.hypot(common, rare)),
        rare**2 / (three * rare),
        0,
    ]
    # "a cat": {cat: common}, {a cat: common}.
    second = [common**2 / (one * common), common**2 / (two * common), 0, 0]
    penalties = math.exp(-(1**2) / 72), math.exp(-(2**2) / 72)
    expected = 10 * (penalties[0] * sum(first) / 4 + penalties[1] * sum(second) / 4) / 2
    found = cider_d(["a cat sits sits", "a dog", ""], references)
    assert found[0] == pytest.approx(expected)
    assert found[1] == 0  # all that it shares with "a cat runs" is "a", which is said of every image
    assert found[2] == 0


def test_cider_d_ignores_capitals_and_punctuation_and_knows_one_image_only_as_nothing():
    references = [["A dog , wet ."], ["two cats"]]
    np.testing.assert_allclose(cider_d(["a dog wet", "Two cats!"], references), [7.5, 5])  # three words: three orders
    assert cider_d(["a dog"], [["a dog"]]).tolist() == [0]


RAGGED = [
    ["a cat sits on a mat .", "the cat is there", "one cat"],
    ["dogs run over the green grass"],
    ["A boy .", "a boy"],
]
SAID = ["a cat sits on the mat .", "two dogs run over grass", "a BOY ."]


@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_takes_all_references(lowercase):
    """Against sacrebleu with an empty text, which it leaves out, where an image has fewer captions."""
    streams = [[texts[at] if at < len(texts) else "" for texts in RAGGED] for at in range(3)]
    scores = caption_scores(SAID, RAGGED, lowercase=lowercase)
    for order, found in enumerate(scores.bleu, 1):
        metric = BLEU(lowercase=lowercase, max_ngram_order=order, force=True)
        assert found == pytest.approx(metric.corpus_score(SAID, streams).score)
    assert scores.signature.startswith(f"nrefs:var|case:{'lc' if lowercase else 'mixed'}")
    assert scores.cider == pytest.approx(cider_d(SAID, RAGGED).mean())
    assert scores.bleu[0] > scores.bleu[3] > 0


def test_scores_need_a_list_of_references_for_each_caption():
    with pytest.raises(ValueError, match="2 captions and references for 3"):
        caption_scores(SAID[:2], RAGGED)


def test_exact_is_any_of_the_references():
    assert exact_matches(["One  cat", "dogs run", "A boy ."], RAGGED).tolist() == [True, False, True]


def test_the_paired_bootstrap_tells_captions_apart(monkeypatch):
    references = [[f"a {word} dog runs over the {word} grass", f"one {word} dog runs"] for word in map(str, range(40))]
    right = [texts[0] for texts in references]
    wrong = ["a cat"] * 40
    found = paired_bootstrap(right, wrong, references)
    assert found["difference"] > 90
    assert found["p_value"] == pytest.approx(1 / 1001), "the least of 1,000 resamples"
    assert paired_bootstrap(right, right, references) == {"difference": 0.0, "p_value": 1.0}
    monkeypatch.setattr(metrics, "MOST_RESAMPLED", 2000)
    assert paired_bootstrap(right, wrong, references)["p_value"] == pytest.approx(1 / 51), "fewer of many images"


def test_the_constant_caption_is_the_most_typical_one():
    references = [[f"a dog runs on grass number {i}", f"some {i} unlike {i} words of {i} thing"] for i in range(20)]
    references += [["a dog runs on grass", "a dog runs on grass all day long"]] * 5
    chosen = constant_caption(references)
    everything = [text for texts in references for text in texts]
    bleu = {text: caption_scores([text] * 25, references).bleu[3] for text in everything}
    assert chosen.startswith("a dog runs on grass")
    assert bleu[chosen] > np.mean([bleu[text] for text in everything])
