"""Looks through texts for what would spoil a training or a test: `dlkit data check` of what is read, not looked at."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, NamedTuple

from dlkit.data.check import CONTRADICTED, IN_SPLITS, Finding, not_measured, unbalanced
from dlkit.data.corpus import CorpusData, text_lines
from dlkit.data.labelled_texts import LabelledTexts
from dlkit.data.pairs import PairData
from dlkit.data.tagged_texts import TaggedTexts
from dlkit.data.tokenizer import CONTROL
from dlkit.errors import UsageError

RATIO, LEAST_WORDS = 4, 8  # sides of a pair may differ so many times in words, once the longer one has so many
SHOWN = 60  # letters of a text in a finding
DAMAGE = "\N{REPLACEMENT CHARACTER}"


class Row(NamedTuple):
    """A text, a pair or a sentence of a split.

    Args:
        sides: its texts: one, or source and target.
        label: what is to be told of it, where the same text must not have two; None where nothing is.
        named: the class that it counts for; empty where there are no classes.
    """

    sides: tuple[str, ...]
    label: Hashable = None
    named: str = ""

    @property
    def plain(self) -> tuple[str, ...]:
        """The texts without what makes no difference between two of them: case and spaces."""
        return tuple(" ".join(side.casefold().split()) for side in self.sides)


@dataclass
class TextReport:
    """What `check_texts` found.

    Args:
        name: of the dataset.
        what: an example is, in the plural.
        sizes: split -> examples.
        counts: class -> split -> number of examples; empty where there are no classes.
        findings: the bad ones first; one for each kind and split, with the number of them and the first.
        bad: kind -> how many examples it concerns, of the kinds that make data bad.
    """

    name: str
    what: str
    sizes: dict[str, int]
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)

    @property
    def splits(self) -> list[str]:
        """The names of the splits."""
        return list(self.sizes)

    @property
    def is_bad(self) -> bool:
        """Whether an example is in several splits, or has several labels."""
        return bool(self.bad)

    @property
    def verdict(self) -> str:
        """The sum of it in one line."""
        total = sum(self.sizes.values())
        parts = [f"{count:,} {self.what} {_SAID[kind]}" for kind, count in self.bad.items()]
        fine = f"none of {total:,} {self.what} is in several splits" + (" or has several labels" if self.counts else "")
        return f"{self.name}: {', '.join(parts) or fine}"

    @property
    def hint(self) -> str:
        """What to do about bad data."""
        once = "keep each in one split: a test on what was trained on tells nothing" if self.bad[IN_SPLITS] else ""
        right = "keep each text in the class that it is of: no net can learn both" if self.bad[CONTRADICTED] else ""
        return "; ".join(filter(None, [once, right]))

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "data": self.name, "splits": self.sizes, "fine": not self.is_bad, "classes": self.counts,
            "findings": [finding._asdict() for finding in self.findings],
        }  # fmt: skip


_SAID = {IN_SPLITS: "are in training and in another split", CONTRADICTED: "have several labels"}


@singledispatch
def _rows(data: Any) -> tuple[str, dict[str, list[Row]]]:
    """What the examples are, in the plural, and those of each split."""
    raise UsageError(f"{data.name} has nothing that can be checked", "images and texts can")


@_rows.register
def _(data: LabelledTexts) -> tuple[str, dict[str, list[Row]]]:
    return "texts", {
        split: [
            Row((text,), label, data.classes[label])
            for text, label in zip(each.texts, each.labels.tolist(), strict=True)
        ]
        for split, each in data.texts.items()
    }


@_rows.register
def _(data: TaggedTexts) -> tuple[str, dict[str, list[Row]]]:
    return "sentences", {
        split: [Row((" ".join(words),), tuple(tags)) for words, tags in zip(each.words, each.tags, strict=True)]
        for split, each in data.texts.items()
    }


@_rows.register
def _(data: PairData) -> tuple[str, dict[str, list[Row]]]:
    return "pairs", {
        split: [Row(sides) for sides in zip(each.source, each.target, strict=True)]
        for split, each in data.texts.items()
    }


def check_texts(data: Any) -> TextReport:
    """Looks through labelled or tagged texts, pairs or running text, whose splits are those of training.

    Found are examples that are in the training split and in another one, and texts with several labels, whatever their
    case and spaces; texts or sides without a word; control characters and those that a wrong encoding leaves behind;
    pairs of which both sides are the same, or one has several times the words of the other; unbalanced classes, and
    those that are learned but not measured. Of running text lines come again everywhere, so only its characters are
    looked at.

    Args:
        data: a dataset of one of these kinds.

    Raises:
        dlkit.errors.UsageError: it is of another kind.
    """
    if isinstance(data, CorpusData):
        lines = {split: [Row((line,)) for line in text_lines(texts)] for split, texts in data.texts.items()}
        report = TextReport(data.name, "lines", {split: len(rows) for split, rows in lines.items()})
        report.findings += [found for kind in _OF_CHARACTERS for found in _gathered(kind, _OF_CHARACTERS[kind], lines)]
        return report
    what, rows = _rows(data)
    report = TextReport(data.name, what, {split: len(of) for split, of in rows.items()})
    for split, of in rows.items():
        for row in of:
            if row.named:
                report.counts.setdefault(row.named, Counter())[split] += 1
    report.findings += _shared(rows, report.bad)
    report.findings += _contradicted(rows, report.bad)
    kinds = {"no words": _is_empty, **_OF_CHARACTERS, **_OF_PAIRS}
    report.findings += [found for kind in kinds for found in _gathered(kind, kinds[kind], rows)]
    report.findings += unbalanced(report.counts, what) + not_measured(report.counts, report.splits, what)
    return report


def _shared(rows: Mapping[str, Sequence[Row]], bad: Counter[str]) -> list[Finding]:
    """Examples of other splits that are training examples, too."""
    trained: dict[tuple[str, ...], int] = {}
    for at, row in enumerate(rows.get("train", ())):
        trained.setdefault(row.plain, at)
    found = []
    for split, of in rows.items():
        again = [(at, row) for at, row in enumerate(of) if split != "train" and any(row.plain) and row.plain in trained]
        if again:
            at, row = again[0]
            bad[IN_SPLITS] += len(again)
            what = f"is also train {trained[row.plain]:,}: {_told(row)}"
            found.append(Finding(IN_SPLITS, f"{split} {at:,}", what + _more(again)))
    return found


def _contradicted(rows: Mapping[str, Sequence[Row]], bad: Counter[str]) -> list[Finding]:
    """Texts that have one label here and another there."""
    labels: dict[tuple[str, ...], dict[Hashable, tuple[str, Row]]] = defaultdict(dict)
    for split, of in rows.items():
        for at, row in enumerate(of):
            if row.label is not None and any(row.plain):
                labels[row.plain].setdefault(row.label, (f"{split} {at:,}", row))
    several = [list(of.values()) for of in labels.values() if len(of) > 1]
    if not several:
        return []
    bad[CONTRADICTED] += len(several)
    (first, row), (second, other) = several[0][:2]
    labelled = f" {row.named}, and {other.named} as {second}" if row.named else f" otherwise as {second}"
    return [Finding(CONTRADICTED, first, f"is labelled{labelled}: {_told(row)}{_more(several)}")]


def _gathered(kind: str, holds: Callable[[Row], bool], rows: Mapping[str, Sequence[Row]]) -> list[Finding]:
    """One finding for each split in which something holds of an example."""
    found = []
    for split, of in rows.items():
        odd = [(at, row) for at, row in enumerate(of) if holds(row)]
        if odd:
            found.append(Finding(kind, f"{split} {odd[0][0]:,}", _told(odd[0][1]) + _more(odd)))
    return found


def _is_empty(row: Row) -> bool:
    return not all(map(str.strip, row.sides))


def _is_uneven(row: Row) -> bool:
    words = sorted(len(side.split()) for side in row.sides)
    return words[-1] >= LEAST_WORDS and words[-1] > RATIO * max(1, words[0])


_OF_CHARACTERS: Mapping[str, Callable[[Row], bool]] = {
    "control characters": lambda row: any(CONTROL.search(side) for side in row.sides),
    "wrong encoding": lambda row: any(DAMAGE in side for side in row.sides),
}
_OF_PAIRS: Mapping[str, Callable[[Row], bool]] = {
    "same sides": lambda row: len(row.sides) > 1 and len(set(row.plain)) == 1 and any(row.plain),
    "uneven": lambda row: len(row.sides) > 1 and not _is_empty(row) and _is_uneven(row),
}


def _told(row: Row) -> str:
    texts = [side if len(side) <= SHOWN else f"{side[:SHOWN]}..." for side in row.sides]
    return " | ".join(texts)


def _more(found: Sequence[Any]) -> str:
    return f"; {len(found) - 1:,} more are so" if len(found) > 1 else ""
