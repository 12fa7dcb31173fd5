"""BLEU, chrF and their comparison, against arithmetic and properties; the scores themselves are sacrebleu's."""

import json
import math

import pytest
import sacrebleu

from dlkit import metrics

REFERENCE = "the cat sat on the big mat"


def test_bleu_is_the_product_of_the_precisions_and_the_brevity_penalty():
    scores = metrics.text_scores(["the cat sat on the mat"], [REFERENCE])
    precisions = 6 / 6 * 4 / 5 * 3 / 4 * 2 / 3  # of 1 to 4 words; "the mat" and what holds it are not in the reference
    assert scores.bleu == pytest.approx(100 * math.exp(1 - 7 / 6) * precisions ** (1 / 4))
    assert "case:mixed" in scores.bleu_signature
    assert "tok:13a" in scores.bleu_signature
    assert "nc:6" in scores.chrf_signature


def test_chrf_of_a_text_without_a_common_letter_is_zero():
    assert metrics.text_scores(["zzz"], ["aaa"]).chrf == 0
    assert metrics.text_scores([REFERENCE], [REFERENCE]).chrf == pytest.approx(100)


def test_case_counts_unless_it_is_said_not_to():
    shouted = REFERENCE.upper()
    assert metrics.text_scores([shouted], [REFERENCE]).bleu < 1
    lowered = metrics.text_scores([shouted], [REFERENCE], lowercase=True)
    assert lowered.bleu == pytest.approx(100)
    assert "case:lc" in lowered.bleu_signature


def test_bleu_is_of_the_corpus_and_not_the_mean_of_its_sentences():
    # Counts add up over the sentences: 7 + 2 of 9 words are right, and so on; the second has no pair of words right.
    scores = metrics.text_scores([REFERENCE, "down sit"], [REFERENCE, "sit down"])
    assert scores.bleu == pytest.approx(100 * (9 / 9 * 6 / 7 * 5 / 5 * 4 / 4) ** (1 / 4))


def test_references_of_fewer_tokens_than_bleu_looks_at_have_none():
    """Three words have no sequence of four; with a full stop, which is a token of its own, they have one."""
    references = ["Zwei Männer.", "Ein Hund.", "Drei Hunde laufen.", "Ein Mann läuft weg."]
    short, three, four = metrics.text_scores_by_length(references, references, bins=3)
    assert [part.longest for part in (short, three, four)] == [2, 3, 4]
    assert [part.bleu for part in (short, three, four)] == [None, pytest.approx(100), pytest.approx(100)]
    assert short.chrf == pytest.approx(100)
    assert metrics.text_scores_by_length(["x"], ["Drei Hunde laufen."])[0].bleu == 0, "what is said does not matter"


def test_scores_by_length_divide_the_corpus():
    references = ["a b", "a b c d", "a b c", "a b c d e f", "x y"]
    hypotheses = ["a b", "a b c d", "a b", "a b c d e f", "x y z"]
    found = metrics.text_scores_by_length(hypotheses, references, bins=2)
    assert [(part.shortest, part.longest, part.sentences) for part in found] == [(2, 3, 3), (4, 6, 2)]
    assert found[1].bleu == pytest.approx(100)
    assert [part.exact for part in found] == pytest.approx([1 / 3, 1])
    assert found[0].length_ratio == pytest.approx((2 + 2 + 3) / (2 + 3 + 2))
    assert len(metrics.text_scores_by_length(["a", "b"], ["a", "b"], bins=5)) == 1, "equal lengths are one bin"
    (letters,) = metrics.text_scores_by_length(["a b", "b"], ["a b", "a b"], is_text=False)
    assert (letters.exact, letters.bleu, letters.chrf) == (0.5, None, None)


def test_paired_bootstrap_tells_a_better_system_from_an_equal_one():
    # Every tenth number is written otherwise in `worse`, so that most sentences lose some of their pairs of words.
    references = [" ".join(f"w{(7 * i + j * j) % 23}" for j in range(8)) for i in range(60)]
    worse = [text.replace("w1 ", "v1 ").replace("w2 ", "v2 ") for text in references]
    compared = metrics.paired_bootstrap(references, worse, references)
    assert compared["difference"] > 5
    assert compared["p_value"] < 0.01
    assert metrics.paired_bootstrap(worse, worse, references) == {"difference": 0, "p_value": 1}


def test_intervals_are_those_that_sacrebleu_tells():
    """Its command line prints the mean of the resamples and how far to either side of it 95 % of them reach."""
    references = [f"the cat number {i} sat on the mat of cat {i % 7}" for i in range(40)]
    said = [text.replace("cat 3", "dog").replace("mat", "bed" if i % 3 else "mat") for i, text in enumerate(references)]
    found = metrics.text_scores(said, references, intervals=True)
    for metric, score, interval, signature in (
        (sacrebleu.BLEU(), found.bleu, found.bleu_interval, found.bleu_signature),
        (sacrebleu.CHRF(), found.chrf, found.chrf_interval, found.chrf_signature),
    ):
        expected = metric.corpus_score(said, [references], n_bootstrap=1000)
        told = json.loads(expected.format(width=4, signature=str(metric.get_signature()), is_json=True))
        assert score == pytest.approx(expected.score)
        mean, reach = told["confidence_mean"], told["confidence_var"]
        assert interval == pytest.approx((mean - reach, mean + reach), abs=2e-4)
        assert interval[0] < score < interval[1]
        assert signature == str(metric.get_signature())
    assert metrics.text_scores(references, references, intervals=True).bleu_interval == pytest.approx((100, 100))


def test_many_sentences_are_resampled_less_often(monkeypatch):
    monkeypatch.setattr(metrics, "MOST_RESAMPLED", 3000)
    texts = [f"number {i} of these sentences" for i in range(60)]
    assert "|bs:50|" in metrics.text_scores(texts, texts, intervals=True).bleu_signature
    assert "|bs:40|" in metrics.text_scores(texts * 2, texts * 2, intervals=True).bleu_signature, "never less"
    other = [text.replace("of", "off") for text in texts]
    assert metrics.paired_bootstrap(texts, other, texts)["p_value"] == pytest.approx(1 / 51), "the least of 50"


def test_no_logging_of_sacrebleu_reaches_the_user(caplog):
    divided = ["a b c d ."] * 200
    metrics.text_scores(divided, divided)
    assert not caplog.records


def test_a_match_is_word_for_word():
    assert metrics.exact_matches(["a  b", "A b", ""], ["a b", "a b", ""]).tolist() == [True, False, True]


def test_translations_and_references_must_be_as_many():
    with pytest.raises(ValueError, match="2 translations and 1 references"):
        metrics.text_scores(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 translations and 0 references"):
        metrics.text_scores([], [])
    assert metrics.text_scores_by_length([], []) == []
