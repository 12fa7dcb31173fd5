"""Examples of data that are read and not looked at: texts, pairs, tagged sentences, numbers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from itertools import chain, groupby, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlkit.data.captions import CaptionData
from dlkit.data.corpus import CorpusData, text_lines
from dlkit.data.labelled_texts import LabelledTexts
from dlkit.data.pairs import PairData
from dlkit.data.sequences import SequenceData
from dlkit.data.split_names import check_split
from dlkit.data.tagged_texts import TaggedTexts

Choose = Callable[[int], NDArray[np.int64]]  # of so many examples, the places of those to be shown


class Size(NamedTuple):
    """How large a split is.

    Args:
        examples: how many there are; of running text its lines.
        words: what is apart by white space, of all sides together; of numbers the steps.
    """

    examples: int
    words: int


@dataclass(frozen=True)
class Excerpt:
    """What a dataset says of itself, and some examples of one of its splits.

    Args:
        what: an example is, in the plural.
        sizes: split -> its size.
        columns: what the rows tell.
        rows: a line for each example that is shown.
        counts: class -> split -> how many examples, or words, it has; empty where there are no classes.
    """

    what: str
    sizes: dict[str, Size]
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def about(self, name: str) -> str:
        """The dataset in one line."""
        sizes = ", ".join(f"{size.examples:,} {split}" for split, size in self.sizes.items())
        classes = f", {len(self.counts):,} classes" if self.counts else ""
        examples, words = (sum(column) for column in zip(*self.sizes.values(), strict=True))
        unit = "steps" if self.what == "sequences" else "words"
        return f"{name}: {sizes} {self.what}{classes}, {words / max(1, examples):.1f} {unit} each"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "splits": {split: size._asdict() for split, size in self.sizes.items()},
            "classes": self.counts,
            "examples": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }


@singledispatch
def excerpt(data: Any, split: str, choose: Choose) -> Excerpt:
    """Some examples of a split, in the order in which `choose` wants them; of running text the first lines.

    Raises:
        dlkit.errors.UsageError: there is no such split.
    """
    raise TypeError(f"{type(data).__name__} is not read but looked at")


def _in(splits: Mapping[str, Any], split: str, name: str) -> Any:
    check_split(split, splits, name)
    return splits[split]


def _words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)


@excerpt.register
def _(data: PairData, split: str, choose: Choose) -> Excerpt:
    texts = _in(data.texts, split, data.name)
    sizes = {name: Size(len(each), _words(each.source) + _words(each.target)) for name, each in data.texts.items()}
    sides = [language or side for language, side in zip(data.languages, ("source", "target"), strict=True)]
    rows = [(str(at), texts.source[at], texts.target[at]) for at in choose(len(texts))]
    return Excerpt("pairs", sizes, ("row", *sides), rows)


@excerpt.register
def _(data: LabelledTexts, split: str, choose: Choose) -> Excerpt:
    texts = _in(data.texts, split, data.name)
    sizes = {name: Size(len(each), _words(each.texts)) for name, each in data.texts.items()}
    rows = [(str(at), data.classes[texts.labels[at]], texts.texts[at]) for at in choose(len(texts))]
    of_splits = {name: each.labels.tolist() for name, each in data.texts.items()}
    return Excerpt("texts", sizes, ("row", "class", "text"), rows, _counted(data.classes, of_splits))


@excerpt.register
def _(data: TaggedTexts, split: str, choose: Choose) -> Excerpt:
    texts = _in(data.texts, split, data.name)
    sizes = {name: Size(len(each), sum(map(len, each.words))) for name, each in data.texts.items()}
    rows = [
        (
            str(at),
            " ".join(f"{word}/{data.tags[tag]}" for word, tag in zip(texts.words[at], texts.tags[at], strict=True)),
        )
        for at in choose(len(texts))
    ]
    of_splits = {name: list(chain.from_iterable(each.tags)) for name, each in data.texts.items()}
    return Excerpt("sentences", sizes, ("row", "word/tag"), rows, _counted(data.tags, of_splits))


@excerpt.register
def _(data: CorpusData, split: str, choose: Choose) -> Excerpt:
    texts = _in(data.texts, split, data.name)
    sizes = {
        name: Size(sum(1 for line in text_lines(each) if line.strip()), _words(each))
        for name, each in data.texts.items()
    }
    count = len(choose(sizes[split].examples))  # lines follow each other: drawn at random they would say little
    filled = ((at, line) for at, line in enumerate(text_lines(texts), 1) if line.strip())
    return Excerpt("lines", sizes, ("line", "text"), [(str(at), line) for at, line in islice(filled, count)])


@excerpt.register
def _(data: CaptionData, split: str, choose: Choose) -> Excerpt:
    captions = _in(data.splits, split, data.name).captions
    sizes = {
        name: Size(sum(map(len, each.captions)), _words(list(chain.from_iterable(each.captions))))
        for name, each in data.splits.items()
    }
    rows = [(str(at), caption) for at in choose(len(captions)) for caption in captions[at]]
    return Excerpt("captions", sizes, ("image", "caption"), rows)


@excerpt.register
def _(data: SequenceData, split: str, choose: Choose) -> Excerpt:
    held = _in(data.splits, split, data.name)
    at = choose(len(held))
    examples = held.fetch(at)
    rows = [
        (str(place), str(length), _asked(data, target[:length] if data.classes else target))
        for place, length, target in zip(at, examples.lengths, examples.targets, strict=True)
    ]
    sizes = {name: Size(len(each), len(each) * data.longest) for name, each in data.splits.items()}
    return Excerpt("sequences", sizes, ("row", "steps", "to be told"), rows)


def _asked(data: SequenceData, target: NDArray) -> str:
    """What is to be told of a sequence: its numbers, or its labels with how often each stands in a row."""
    if not data.classes:
        return " ".join(f"{value:.4g}" for value in target)
    runs = [(data.classes[label], len(list(group))) for label, group in groupby(target.tolist())]
    return ", ".join(name if times == 1 else f"{times} x {name}" for name, times in runs)


def _counted(classes: Sequence[str], labels: Mapping[str, Sequence[int]]) -> dict[str, dict[str, int]]:
    """Class -> split -> how often it is there."""
    counts = {split: Counter(each) for split, each in labels.items()}
    return {label: {split: counted[at] for split, counted in counts.items()} for at, label in enumerate(classes)}
