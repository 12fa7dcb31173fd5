"""Generated texts whose class, or whose tag at each word, is known: of any size, the same for the same seed."""

from typing import Annotated

import numpy as np
from pydantic import Field

from dlkit.data.labelled_texts import Labelled, LabelledTexts, TextPreparation
from dlkit.data.synthetic import LETTERS
from dlkit.data.tagged_texts import Tagged, TaggedTexts
from dlkit.data.tokenizer import WordTokenizer
from dlkit.errors import UsageError

FIRST, SECOND = "x", "y"
FILLERS = LETTERS.replace(FIRST, "").replace(SECOND, "")
MOST_DRAWS = 50  # for each text that is wanted, before it is said that there are not as many


def order(
    *,
    length: Annotated[int, Field(ge=2)] = 12,
    symbols: Annotated[int, Field(ge=1, le=len(FILLERS))] = len(FILLERS),
    train: Annotated[int, Field(ge=1)] = 4_000,
    validation: Annotated[int, Field(ge=1)] = 500,
    test: Annotated[int, Field(ge=1)] = 500,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> LabelledTexts:
    """Letters with one x and one y among them, and which of the two comes first: a bag of words cannot know.

    A length from 2 to `length` is drawn first, each as likely, then the letters and the two places. Both classes are as
    likely for each set of letters, and all texts differ, over all splits too.

    Args:
        length: most letters of a text.
        symbols: number of different letters beside x and y.
        train: number of texts to train on.
        validation: number of texts for choosing.
        test: number of texts for reporting.
        seed: chooses the texts.

    Raises:
        dlkit.errors.UsageError: there are not as many different texts.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    random = np.random.default_rng(seed)
    found: dict[str, int] = {}
    for _ in range(MOST_DRAWS * sum(sizes.values())):
        if len(found) == sum(sizes.values()):
            break
        count = int(random.integers(2, length + 1))
        words = [FILLERS[at] for at in random.integers(0, symbols, count)]
        places = random.choice(count, 2, replace=False)
        words[places[0]], words[places[1]] = FIRST, SECOND
        found.setdefault(" ".join(words), int(places[0] > places[1]))
    _check_enough("synthetic:order", len(found), sizes)
    items = list(found.items())
    mixed = [items[at] for at in random.permutation(len(items))]  # short texts are soon used up
    texts, start = {}, 0
    for split, size in sizes.items():
        part = mixed[start : start + size]
        texts[split] = Labelled([text for text, _ in part], np.array([label for _, label in part], np.int32))
        start += size
    known = WordTokenizer([FIRST, SECOND, *FILLERS[:symbols]])
    classes = [f"{FIRST} first", f"{SECOND} first"]
    return LabelledTexts("synthetic:order", classes, texts, TextPreparation(max_length=length), known)


def next_marker(
    *,
    length: Annotated[int, Field(ge=2)] = 12,
    symbols: Annotated[int, Field(ge=1, le=len(FILLERS))] = len(FILLERS),
    markers: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    train: Annotated[int, Field(ge=1)] = 2_000,
    validation: Annotated[int, Field(ge=1)] = 500,
    test: Annotated[int, Field(ge=1)] = 500,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> TaggedTexts:
    """Letters, each tagged with which marker, x or y, comes next: what has not been read yet says the answer.

    A marker is tagged with itself, and the last word always is one. What reads forward alone can only guess the tags of
    the other letters: x and y are as likely. It is right at the markers, and at half of the rest.

    Args:
        length: most letters of a text; the fewest are 2.
        symbols: number of different letters beside x and y.
        markers: share of x and y among the letters before the last one.
        train: number of texts to train on.
        validation: number of texts for choosing.
        test: number of texts for reporting.
        seed: chooses the texts.

    Raises:
        dlkit.errors.UsageError: there are not as many different texts.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    random = np.random.default_rng(seed)
    found: dict[tuple[str, ...], None] = {}
    for _ in range(MOST_DRAWS * sum(sizes.values())):
        if len(found) == sum(sizes.values()):
            break
        count = int(random.integers(2, length + 1))
        letters = [FILLERS[at] for at in random.integers(0, symbols, count)]
        both = [(FIRST, SECOND)[at] for at in random.integers(0, 2, count)]
        is_marker = random.random(count) < markers
        is_marker[-1] = True
        found.setdefault(tuple(np.where(is_marker, both, letters).tolist()))
    _check_enough("synthetic:next_marker", len(found), sizes)
    items = list(found)
    mixed = [items[at] for at in random.permutation(len(items))]
    tags = [f"next {FIRST}", f"next {SECOND}"]
    texts, start = {}, 0
    for split, size in sizes.items():
        words = [list(text) for text in mixed[start : start + size]]
        texts[split] = Tagged(words, [_next_markers(text) for text in words])
        start += size
    known = WordTokenizer([FIRST, SECOND, *FILLERS[:symbols]])
    return TaggedTexts("synthetic:next_marker", tags, texts, known, max_length=length)


def _next_markers(words: list[str]) -> list[int]:
    tags: list[int] = []
    for word in reversed(words):
        tags.append([FIRST, SECOND].index(word) if word in {FIRST, SECOND} else tags[-1])
    return tags[::-1]


def _check_enough(name: str, there: int, sizes: dict[str, int]) -> None:
    if there < sum(sizes.values()):
        raise UsageError(
            f"{name} found {there:,} different texts of such letters, and {sum(sizes.values()):,} are asked for",
            "raise `length` or `symbols`, or lower `train`, `validation` or `test`",
        )
