"""Metrics: of classifiers how often they are right, about what, how sure of it they are; of translators BLEU and chrF.

Those of classifiers are pure NumPy. n is the number of examples, K the number of classes, and a label is an index of a
class. A share of nothing is not-a-number, never 0: the precision of a class that was never predicted, say.

Those of text are sacrebleu's (Post 2018, "A call for clarity in reporting BLEU scores"), on raw text that nobody has
tokenized before, each with the signature that says how it was computed.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]

SIGNIFICANT = 0.05  # p-values below are taken to show a difference

# Bootstrap: 1000 resamples, fewer of many sentences, since sacrebleu holds the counts of all of them at once (for chrF
# 72 bytes a sentence), and at least so many that 1 / (number + 1), the smallest p-value, is significant.
MOST_RESAMPLES, FEWEST_RESAMPLES, MOST_RESAMPLED = 1000, 40, 5_000_000


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Probabilities exp(x_k) / sum_j exp(x_j) of logits (n, K)."""
    scores = np.asarray(logits, np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# ------------------------------------------------------------------------------------------------ how often it is right


def top_k_hits(scores: ArrayLike, labels: ArrayLike, k: int) -> NDArray[np.bool_]:
    """Whether the right class is among the k with the highest scores.

    Of equal scores that of the smaller index comes first, as in argmax, so for k = 1 the mean is the accuracy.

    Args:
        scores: (n, K), logits or probabilities.
        labels: (n,).
        k: how many guesses there are.

    Returns:
        (n,) bool.

    Example:
        >>> top_k_hits([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]], [2, 2], k=1)
        array([False, False])
    """
    scores, labels = np.asarray(scores), np.asarray(labels)[:, np.newaxis]  # (n, K), (n, 1)
    own = np.take_along_axis(scores, labels, axis=1)
    earlier = np.arange(scores.shape[1]) < labels
    ahead = ~(scores <= own) | ((scores == own) & earlier)  # a score that is not a number is ahead of all
    return np.count_nonzero(ahead, axis=1) < k


def wilson_interval(hits: int, count: int, *, confidence: float = 0.95) -> Interval:
    """The score interval of Wilson (1927, JASA 22) for a proportion.

    All p that a two-sided normal test on `hits` of `count` does not reject: |hits / n - p| <= z sqrt(p (1 - p) / n).
    Unlike p +- z sqrt(p (1 - p) / n) with the observed p it has a width when all or nothing is right.

    Args:
        hits: number of successes.
        count: number of trials.
        confidence: how often such intervals hold the true proportion.

    Returns:
        The lower and the upper limit, not-a-number without trials.

    Example:
        >>> wilson_interval(356, 360)
        (0.9718..., 0.9956...)
    """
    if count == 0:
        return math.nan, math.nan
    z = normal_bound(confidence)
    share, weight = hits / count, z * z / count
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def normal_bound(confidence: float) -> float:
    """Standard deviations within which of the mean so much of a normal distribution lies: 1.96 of 0.95."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


# ------------------------------------------------------------------------------------------------------ class by class


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts of (true class, predicted class).

    Args:
        labels: (n,) true classes.
        predicted: (n,) predicted classes.
        classes: K.

    Returns:
        (K, K): a row for each true class, a column for each predicted one.

    Example:
        >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2)
        array([[1, 1],
               [0, 1]])
    """
    pairs = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


class ByClass(NamedTuple):
    """Precision, recall, F1 and support of each class, (K,) each."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]


def by_class(confusion: ArrayLike) -> ByClass:
    """Precision TP / (TP + FP), recall TP / (TP + FN), F1 2 TP / (2 TP + FP + FN) and support TP + FN of each class.

    Args:
        confusion: (K, K), of `confusion_matrix`.
    """
    matrix = np.asarray(confusion)
    right, support, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return ByClass(_share(right, predicted), _share(right, support), _share(2 * right, support + predicted), support)


def macro_f1(confusion: ArrayLike) -> float:
    """The mean F1 of the classes that occur or are predicted, each with the same weight however rare it is.

    The mean of the classes' F1, not the F1 of their mean precision and recall (Opitz and Burst 2019 on the two).

    Args:
        confusion: (K, K), of `confusion_matrix`.
    """
    f1 = by_class(confusion).f1
    there = f1[~np.isnan(f1)]
    return float(there.mean()) if len(there) else math.nan


def most_confused(confusion: ArrayLike, limit: int) -> list[tuple[int, int, int]]:
    """The commonest mistakes as (true class, predicted class, count), the commonest first.

    Args:
        confusion: (K, K), of `confusion_matrix`.
        limit: how many at most.
    """
    mistakes = np.array(confusion)
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    counted = [(int(true), int(predicted), int(mistakes[true, predicted])) for true, predicted in pairs]
    return [each for each in counted if each[2]]


def _share(part: NDArray, whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


# --------------------------------------------------------------------------------------------------------- calibration


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The mean of sum_k (p_k - [k = label])^2, from 0 to 2, lower is better (Brier 1950).

    Args:
        probabilities: (n, K).
        labels: (n,).
    """
    errors = np.array(probabilities, np.float64)
    errors[np.arange(len(errors)), np.asarray(labels)] -= 1
    return float(np.square(errors).sum(axis=1).mean())


class Reliability(NamedTuple):
    """What a reliability diagram shows, (bins,) each: a bin's examples, their mean confidence, and the share right."""

    examples: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability(confidence: ArrayLike, right: ArrayLike, *, bins: int = 15) -> Reliability:
    """Sorts examples by confidence into bins of equal width, ((m - 1) / M, m / M] (Guo et al. 2017, section 2).

    Args:
        confidence: (n,), the probability of the predicted class.
        right: (n,), whether it is the right one.
        bins: M; the paper takes 15.
    """
    edges = np.arange(1, bins) / bins
    bin_of = np.digitize(np.asarray(confidence), edges, right=True)
    examples = np.bincount(bin_of, minlength=bins)
    sums = (np.bincount(bin_of, weights=values, minlength=bins) for values in (confidence, right))
    return Reliability(examples, *(_share(total, examples) for total in sums))


def expected_calibration_error(bins: Reliability) -> float:
    """The mean gap between confidence and accuracy: sum_m n_m / n |acc_m - conf_m| (Guo et al. 2017, equation 3)."""
    total = bins.examples.sum()
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(np.nansum(bins.examples * gaps) / total) if total else math.nan


# ----------------------------------------------------------------------------------------------- which of two is better


class Paired(NamedTuple):
    """On how many of the same examples both of two classifiers are right, only one of them, or neither."""

    both: int
    only_first: int
    only_second: int
    neither: int


def paired(first: ArrayLike, second: ArrayLike) -> Paired:
    """Counts where two classifiers are right.

    Args:
        first: (n,), whether the first is right.
        second: (n,), whether the second is right on the same examples.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    return Paired(*(int(np.count_nonzero(where)) for where in (a & b, a & ~b, ~a & b, ~a & ~b)))


def mcnemar_exact(pairs: Paired) -> float:
    """The two-sided p-value that two classifiers err equally often (McNemar 1947; Dietterich 1998, section 3.1).

    Only the examples on which one alone is right tell them apart, and if they are equally good each of these is a fair
    coin: p = 2 sum_{i <= min(b, c)} C(b + c, i) / 2^(b + c), at most 1. Exact, where the papers take chi-squared.

    The test is about two sets of weights. What another seed or other training data would have given it does not know.

    Example:
        >>> mcnemar_exact(Paired(both=90, only_first=1, only_second=5, neither=4))  # 2 (1 + 6) / 2^6
        0.21875
    """
    fewer, discordant = min(pairs[1:3]), sum(pairs[1:3])
    tail = term = 1  # in whole numbers, so that nothing is rounded before the division
    for i in range(fewer):
        term = term * (discordant - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / 2**discordant)


def paired_difference(pairs: Paired, *, confidence: float = 0.95) -> tuple[float, Interval]:
    """The accuracy of the first classifier less that of the second, with its confidence interval.

    The interval is the paired normal one with half an example added to each of the four counts ("Wald+2" of Agresti and
    Min 2005, Statistics in Medicine 24): with n + 2 examples, d = (b - c) / (n + 2) and
    d +- z sqrt((b + c + 1) - (b - c)^2 / (n + 2)) / (n + 2). It has a width when the two never differ.

    Example:
        >>> paired_difference(Paired(both=90, only_first=1, only_second=5, neither=4))[0]
        -0.04
    """
    count, gain = sum(pairs), pairs.only_first - pairs.only_second
    if count == 0:
        return math.nan, (math.nan, math.nan)
    centre = gain / (count + 2)
    spread = math.sqrt(pairs.only_first + pairs.only_second + 1 - gain * centre) / (count + 2)
    half = normal_bound(confidence) * spread
    return gain / count, (max(-1.0, centre - half), min(1.0, centre + half))


# ------------------------------------------------------------------------------------------------ generated text


def exact_matches(hypotheses: Sequence[str], references: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each text is its reference, word for word, (n,); white space does not count."""
    return np.array([one.split() == other.split() for one, other in zip(hypotheses, references, strict=True)], bool)


class TextScores(NamedTuple):
    """Corpus scores of translations, all in percent, with sacrebleu's signatures and perhaps 95 % intervals."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str
    bleu_interval: Interval | None = None
    chrf_interval: Interval | None = None


def text_scores(
    hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool = False, intervals: bool = False
) -> TextScores:
    """BLEU (Papineni et al. 2002) with sacrebleu's own tokenizer, and chrF2 (Popovic 2015), of a whole corpus.

    Args:
        hypotheses: the translations, n texts.
        references: what they should be, n texts as people wrote them.
        lowercase: whether both sides are lower-cased first; the signature says so.
        intervals: whether to resample the sentences (Koehn 2004), which takes a second or two; the signature says how.

    Raises:
        ValueError: there are not as many references as hypotheses, or there are none.

    Example:
        >>> text_scores(["the cat sat on the mat"], ["the cat sat on the mat"]).bleu
        100.0
    """
    bleu, chrf = _text_metrics(hypotheses, references, lowercase=lowercase)
    if not intervals:
        scores = bleu.corpus_score(hypotheses, [references]).score, chrf.corpus_score(hypotheses, [references]).score
        return TextScores(*scores, str(bleu.get_signature()), str(chrf.get_signature()))
    signatures, results = _bootstrap([("system", hypotheses)], {"BLEU": bleu, "chrF2": chrf}, [references])
    (one,), (other,) = results["BLEU"], results["chrF2"]
    return TextScores(
        one.score, other.score, str(signatures["BLEU"]), str(signatures["chrF2"]), _interval(one), _interval(other)
    )  # fmt: skip


def _interval(result: Any) -> Interval:
    """Sacrebleu's: as far on either side of the mean of the resamples as 95 % of them reach."""
    return max(0.0, float(result.mean - result.ci)), min(100.0, float(result.mean + result.ci))


class ByLength(NamedTuple):
    """Scores of the sentences whose references have from `shortest` to `longest` words."""

    shortest: int
    longest: int
    sentences: int
    exact: float  # share of the hypotheses that are the reference, word for word
    length_ratio: float  # words of the hypotheses / words of the references
    bleu: float | None  # None of what is no text, as is chrF; and where no reference has as many words as BLEU looks at
    chrf: float | None


def text_scores_by_length(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    bins: int = 5,
    lowercase: bool = False,
    is_text: bool = True,
) -> list[ByLength]:
    """Corpus scores of sentences of about the same length, the short ones first.

    Bins hold about the same number of sentences each, sentences of equal length never being divided: so there may be
    fewer bins than asked for.

    Args:
        hypotheses: the translations, n texts.
        references: what they should be, n texts; their words, apart by white space, are what is counted.
        bins: the most bins.
        lowercase: as `text_scores`.
        is_text: whether BLEU and chrF say something of them.
    """
    words = np.array([len(text.split()) for text in references])
    edges = np.unique(np.quantile(words, np.arange(1, bins) / bins, method="lower")) if len(words) else words
    bin_of = np.searchsorted(edges, words, side="left")
    found = []
    for number in np.unique(bin_of):
        chosen = np.flatnonzero(bin_of == number).tolist()
        outputs, wanted = [hypotheses[i] for i in chosen], [references[i] for i in chosen]
        sizes = int(words[chosen].min()), int(words[chosen].max())
        exact = float(exact_matches(outputs, wanted).mean())
        ratio = sum(len(text.split()) for text in outputs) / max(1, int(words[chosen].sum()))
        bleu, chrf = None, None
        if is_text:
            scores = text_scores(outputs, wanted, lowercase=lowercase)
            bleu, chrf = scores.bleu if _have_four_tokens(wanted) else None, scores.chrf
        found.append(ByLength(*sizes, len(chosen), exact, ratio, bleu, chrf))
    return found


def paired_bootstrap(
    first: Sequence[str], second: Sequence[str], references: Sequence[str], *, lowercase: bool = False
) -> dict[str, float]:
    """How often BLEU would differ so much by chance alone: paired bootstrap resampling (Koehn 2004) by sacrebleu.

    The test is about these sentences and two sets of weights, not about what another training would give.

    Args:
        first: translations of one system, n texts.
        second: those of another, of the same sources.
        references: n texts.
        lowercase: as `text_scores`.

    Returns:
        "difference" of the BLEU scores, first less second, and "p_value".
    """
    bleu, _ = _text_metrics(first, references, lowercase=lowercase)
    _text_metrics(second, references, lowercase=lowercase)  # checks it
    return paired_resampling(first, second, [references], bleu)


def paired_resampling(
    first: Sequence[str], second: Sequence[str], streams: Sequence[Sequence[str | None]], bleu: Any
) -> dict[str, float]:
    """As `paired_bootstrap`, of texts that have one reference or several.

    Args:
        first: n texts.
        second: n texts.
        streams: the first reference of each text, n of them; the second of each, None where there is none; and so on.
        bleu: sacrebleu's metric.
    """
    _, results = _bootstrap([("first", first), ("second", second)], {"BLEU": bleu}, streams)
    baseline, other = results["BLEU"]
    difference = float(baseline.score - other.score)
    # Of two systems that score the same sacrebleu counts no resample as further apart, and calls that significant.
    return {"difference": difference, "p_value": float(other.p_value) if difference else 1.0}


def _bootstrap(
    systems: list[tuple[str, Sequence[str]]], scorers: dict[str, Any], streams: Sequence[Sequence[str | None]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Signatures and results by name of the score; the first system is what the others are tested against."""
    from sacrebleu.significance import PairedTest

    count = min(MOST_RESAMPLES, max(FEWEST_RESAMPLES, MOST_RESAMPLED // len(streams[0])))
    return PairedTest(systems, scorers, streams, "bs", n_samples=count)()


def _have_four_tokens(references: Sequence[str]) -> bool:
    """Whether there is a sequence of four tokens; BLEU is 0 where there is none, whatever is said."""
    bleu, _ = _text_metrics(references, references, lowercase=False)
    return bleu.corpus_score(references, [references]).totals[-1] > 0


def _text_metrics(hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool) -> tuple[Any, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    if len(hypotheses) != len(references) or not references:
        raise ValueError(f"{len(hypotheses)} translations and {len(references)} references")
    # Forced, it does not warn that translations look tokenized: users see no logging of libraries.
    return BLEU(lowercase=lowercase, force=True), CHRF(lowercase=lowercase)
