"""How good captions are, of which each image has several: exact matches, BLEU-1 to BLEU-4 and CIDEr-D. NumPy only."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlkit.metrics import paired_resampling

References = Sequence[Sequence[str]]  # of each image all captions

ORDERS = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # words, of CIDEr-D's penalty

# Words and numbers, with apostrophes and hyphens inside; punctuation is no word.
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def exact_matches(captions: Sequence[str], references: References) -> NDArray[np.bool_]:
    """Whether each caption is one of its references, word for word, (n,); white space and capitals do not count."""
    return np.array(
        [
            caption.lower().split() in [text.lower().split() for text in wanted]
            for caption, wanted in zip(captions, references, strict=True)
        ],
        bool,
    )


class CaptionScores(NamedTuple):
    """Scores of a whole split.

    Args:
        bleu: BLEU-1 to BLEU-4 in percent: of n-grams up to that order.
        signature: sacrebleu's.
        cider: the mean CIDEr-D, from 0 to 10.
    """

    bleu: tuple[float, ...]
    signature: str
    cider: float


def caption_scores(captions: Sequence[str], references: References, *, lowercase: bool = False) -> CaptionScores:
    """BLEU by sacrebleu with all references (Papineni et al. 2002), and CIDEr-D.

    Args:
        captions: n texts.
        references: of each image all captions as people wrote them; their numbers may differ.
        lowercase: whether both sides are lower-cased for BLEU; the signature says so. CIDEr-D always does.

    Raises:
        ValueError: there are not as many lists of references as captions, or there are none.

    Example:
        >>> caption_scores(["a cat sat on the mat"], [["a cat sat on the mat", "a cat lies"]]).bleu[3]
        100.0
    """
    from sacrebleu.metrics import BLEU

    if len(captions) != len(references) or not references:
        raise ValueError(f"{len(captions)} captions and references for {len(references)}")
    streams = [list(stream) for stream in zip_longest(*references)]  # None where an image has fewer
    # Forced, it does not warn that captions look tokenized: users see no logging of libraries.
    by_order = [BLEU(lowercase=lowercase, force=True, max_ngram_order=order) for order in range(1, ORDERS + 1)]
    scores = tuple(float(metric.corpus_score(captions, streams).score) for metric in by_order)
    return CaptionScores(scores, str(by_order[-1].get_signature()), float(cider_d(captions, references).mean()))


def words_of(text: str) -> list[str]:
    """The words of a caption in lower case, without punctuation: what CIDEr-D compares.

    Example:
        >>> words_of("A man's dog , half-asleep .")
        ['a', "man's", 'dog', 'half-asleep']
    """
    return _WORD.findall(text.lower())


def cider_d(captions: Sequence[str], references: References) -> NDArray[np.float64]:
    """CIDEr-D of each caption (Vedantam, Zitnick and Parikh 2015, section 4), (n,).

    The n-grams of a caption, n from 1 to 4, are a vector g of their counts times log(images / images whose references
    have the n-gram): what is said of every image says nothing. With l words,

        CIDEr-D_n(c, S) = 10/m sum_j exp(-(l(c) - l(s_j))^2 / (2 6^2)) min(g(c), g(s_j)) . g(s_j) / (|g(c)| |g(s_j)|)

    over the m references s_j, and CIDEr-D is the mean over n. As in the published code, counts are not divided by the
    length of the caption, and words are not stemmed. An n-gram of no reference counts as if one image had it. On a
    single image every n-gram is of all images, and the score is 0.

    Args:
        captions: n texts.
        references: of each image all captions.

    Example:
        >>> cider_d(["a cat", "a dog"], [["a cat"], ["a dog"]])  # the words of a pair, and no longer n-grams
        array([5., 5.])
    """
    counted = [[_ngrams(words_of(text)) for text in wanted] for wanted in references]
    images_with: Counter[tuple[str, ...]] = Counter()
    for of_image in counted:
        images_with.update({ngram for text in of_image for ngram in text})
    log_images = math.log(len(references)) if references else 0.0

    def vectors(counts: Counter[tuple[str, ...]]) -> "_Vectors":
        by_order: list[dict[tuple[str, ...], float]] = [{} for _ in range(ORDERS)]
        for ngram, count in counts.items():
            by_order[len(ngram) - 1][ngram] = count * (log_images - math.log(max(1, images_with[ngram])))
        norms = [math.sqrt(sum(value * value for value in vector.values())) for vector in by_order]
        length = sum(count for ngram, count in counts.items() if len(ngram) == 1)
        return _Vectors(by_order, norms, length)

    scores = []
    for caption, of_image in zip(captions, counted, strict=True):
        own = vectors(_ngrams(words_of(caption)))
        scores.append(float(np.mean([_likeness(own, vectors(text)) for text in of_image])))
    return 10 * np.array(scores, np.float64)


class _Vectors(NamedTuple):
    by_order: list[dict[tuple[str, ...], float]]
    norms: list[float]
    length: int


def _ngrams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(words[start : start + order]) for order in range(1, ORDERS + 1) for start in range(len(words) - order + 1)
    )


def _likeness(own: _Vectors, other: _Vectors) -> float:
    """The mean over the orders of the clipped cosine, times the penalty."""
    penalty = math.exp(-((own.length - other.length) ** 2) / (2 * SIGMA**2))
    cosines = []
    for one, two, norm_one, norm_two in zip(own.by_order, other.by_order, own.norms, other.norms, strict=True):
        product = sum(min(value, two.get(ngram, 0.0)) * two.get(ngram, 0.0) for ngram, value in one.items())
        cosines.append(product / (norm_one * norm_two) if norm_one and norm_two else 0.0)
    return penalty * sum(cosines) / ORDERS


def paired_bootstrap(
    first: Sequence[str], second: Sequence[str], references: References, *, lowercase: bool = False
) -> dict[str, float]:
    """As `dlkit.metrics.paired_bootstrap`, with all references of each image.

    Args:
        first: captions of one system, n texts.
        second: those of another, of the same images.
        references: of each image all captions.
        lowercase: as `caption_scores`.
    """
    from sacrebleu.metrics import BLEU

    streams = [list(stream) for stream in zip_longest(*references)]
    return paired_resampling(first, second, streams, BLEU(lowercase=lowercase, force=True))


# ------------------------------------------------------------------------------------------------- the blind baseline

CANDIDATES = 50  # captions among which the one for all images is chosen
JUDGED_BY = 1000  # images, evenly spaced, by whose references it is chosen


def constant_caption(references: References) -> str:
    """One caption for every image: how good captions are that see nothing.

    Of all captions those are candidates whose n-grams occur in most others, and which are no shorter than half of
    them; the one with the highest BLEU-4 on these images is taken. So it is a good one, and not surely the best.

    Args:
        references: of training images all captions.
    """
    counted = [[_ngrams(words_of(text)) for text in wanted] for wanted in references]
    images_with: Counter[tuple[str, ...]] = Counter()
    for of_image in counted:
        images_with.update({ngram for text in of_image for ngram in text})
    flat = [
        (text, counts)
        for wanted, of in zip(references, counted, strict=True)
        for text, counts in zip(wanted, of, strict=True)
    ]
    usual = float(np.median([sum(counts.values()) for _, counts in flat]))
    typical: dict[str, float] = {
        text: sum(math.log(images_with[ngram]) * count for ngram, count in counts.items()) / sum(counts.values())
        for text, counts in flat
        if counts and sum(counts.values()) >= usual
    }
    candidates = sorted(typical, key=lambda text: (-typical[text], text))[:CANDIDATES]
    at = np.unique(np.linspace(0, len(references) - 1, min(len(references), JUDGED_BY)).astype(np.int64))
    judges = [references[row] for row in at.tolist()]
    return _best_for_all(candidates, judges)


def _best_for_all(candidates: Iterable[str], references: References) -> str:
    from sacrebleu.metrics import BLEU

    metric = BLEU(lowercase=True, force=True, references=[list(stream) for stream in zip_longest(*references)])
    scores = {text: metric.corpus_score([text] * len(references), None).score for text in candidates}
    return max(scores, key=lambda text: scores[text])
