"""Pairs of sequences in memory, from raw texts to batches for teacher forcing.

A dataset of pairs is its texts, how to prepare them (`PairPreparation`), and tokenizers. The rest follows when it is
first asked for: tokenizers are trained, texts become ids, and training pairs that cannot be learned from are dropped.
"""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit.data.tokenizer import CONTROL, END, PAD, START, UNKNOWN, Kind, Tokenizer
from dlkit.data.tokenizer_options import TokenizerOptions
from dlkit.errors import DataError, nothing_to_train_on

# Batches are padded to multiples of this, so that few shapes occur: each costs a trace of the training step.
LENGTH_STEP = 8

Data = TypeVar("Data", bound=Any)  # a dataclass with the field `options`

# ----------------------------------------------------------------------------------------------------------------- ids


class Ragged(Sequence[NDArray[np.int32]]):
    """Many sequences of ids, one after another in one array: 4 bytes an id, where a list takes 8 and more.

    Args:
        flat: (all ids,) int32.
        lengths: (n,) how many of them each sequence has.
    """

    def __init__(self, flat: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        self.flat = flat
        self.lengths = lengths
        self._stops = np.cumsum(lengths)

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> "Ragged":
        """From lists of ids."""
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        return cls(np.fromiter(chain.from_iterable(sequences), np.int32, int(lengths.sum())), lengths)

    @classmethod
    def joined(cls, parts: Iterable["Ragged"]) -> "Ragged":
        """The sequences of all parts, one part after another."""
        parts = [cls.of([]), *parts]
        return cls(np.concatenate([part.flat for part in parts]), np.concatenate([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, row: int) -> NDArray[np.int32]: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[NDArray[np.int32]]: ...
    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        stop = self._stops[row]
        return self.flat[stop - self.lengths[row] : stop]

    def take(self, rows: NDArray[np.int64]) -> "Ragged":
        """The sequences at `rows`, in that order."""
        lengths = self.lengths[rows]
        starts = np.repeat(self._stops[rows] - lengths - (np.cumsum(lengths) - lengths), lengths)
        return Ragged(self.flat[starts + np.arange(int(lengths.sum()))], lengths)


@dataclass(frozen=True)
class PairSplit:
    """One split: `target[i]` belongs to `source[i]`. Token ids without start and end, and the texts they are made of.

    Raises:
        dlkit.errors.DataError: there are not as many targets as sources.
    """

    source: Sequence[Sequence[int]] | Ragged
    target: Sequence[Sequence[int]] | Ragged
    source_texts: Sequence[str] = ()
    target_texts: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target):
            raise DataError(f"{len(self.source)} sources but {len(self.target)} targets")

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of each source and of each target, the end token included, (n,) each."""
        sides = (self.source, self.target)
        source, target = (np.fromiter(map(len, side), np.int64, len(side)) + 1 for side in sides)
        return source, target

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Tokens of the longest source and of the longest target, the end token included."""
        return int(self.lengths[0].max()), int(self.lengths[1].max())


class PairBatch(NamedTuple):
    """A batch for teacher forcing, int32 ids padded with 0: the decoder reads `<s> y` and has to say `y </s>`."""

    source: NDArray[np.int32]  # (batch, source time), x </s>
    target_in: NDArray[np.int32]  # (batch, target time), <s> y
    target_out: NDArray[np.int32]  # (batch, target time), y </s>


def inputs_and_targets(
    sequences: Sequence[Sequence[int] | NDArray[np.int32]], *, length: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """What a decoder reads of each sequence, `<s> y`, and what it is to say, `y </s>`, padded with 0.

    Args:
        sequences: n sequences, without start and end.
        length: time steps of the result; by default those of the longest sequence with its end.

    Returns:
        Two of (n, length) int32.

    Example:
        >>> inputs, targets = inputs_and_targets([[7, 8], [9]])
        >>> inputs.tolist(), targets.tolist()
        ([[1, 7, 8], [1, 9, 0]], [[7, 8, 2], [9, 2, 0]])
    """
    length = length or max(map(len, sequences), default=0) + 1
    inputs, targets = np.full((2, len(sequences), length), PAD, np.int32)
    inputs[:, 0] = START
    for row, ids in enumerate(sequences):
        count = len(ids)
        inputs[row, 1 : count + 1] = ids
        targets[row, :count] = ids
        targets[row, count] = END
    return inputs, targets


def padded_length(longest: int, *, most: int | None = None, step: int = LENGTH_STEP) -> int:
    """Time steps that sequences are padded to: a multiple of `step`, but no more than `most`.

    Args:
        longest: tokens of the longest one, its end included.
        most: those of the longest one that there is, or that a model has positions for; None for any number.
        step: so few different lengths occur. In evaluations 1: there may be no position beyond the longest.

    Example:
        >>> padded_length(13), padded_length(13, most=14), padded_length(13, step=1)
        (16, 14, 13)
    """
    length = -(-longest // step) * step
    return length if most is None else min(length, most)


def teacher_forcing(ids: Sequence[int]) -> dict[str, NDArray[np.int32]]:
    """What a decoder reads and has to say, a row of each, for the ids of one output, its end token included.

    Example:
        >>> teacher_forcing([7, 8, END])
        {'target_in': array([[1, 7, 8]], dtype=int32), 'target_out': array([[7, 8, 2]], dtype=int32)}
    """
    return {"target_in": np.array([[START, *ids[:-1]]], np.int32), "target_out": np.array([ids], np.int32)}


def pad(sequences: Sequence[Sequence[int]], *, length: int | None = None) -> NDArray[np.int32]:
    """Stands sequences of ids side by side, with 0 after the end of each.

    Args:
        sequences: n sequences.
        length: time steps of the result, at least those of the longest sequence, which is the default.

    Returns:
        (n, length) int32.

    Example:
        >>> pad([[5, 6, 7], [8]])
        array([[5, 6, 7],
               [8, 0, 0]], dtype=int32)
    """
    padded = np.full((len(sequences), length or max(map(len, sequences), default=0)), PAD, np.int32)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded


def batch(split: PairSplit, indices: Iterable[int], *, lengths: tuple[int, int] | None = None) -> PairBatch:
    """The pairs at `indices`, in that order, for teacher forcing.

    Args:
        split: where the pairs are.
        indices: their rows.
        lengths: time steps of the padded source and target. By default each is the next multiple of 8, or the longest
            of the whole split where that is less.
    """
    rows = list(indices)
    source_length, target_length = lengths or (
        padded_length(int(side[rows].max()), most=longest)
        for side, longest in zip(split.lengths, split.longest, strict=True)
    )
    _, source = inputs_and_targets([split.source[row] for row in rows], length=source_length)
    return PairBatch(source, *inputs_and_targets([split.target[row] for row in rows], length=target_length))


# --------------------------------------------------------------------------------------------------------- preparation


@dataclass(frozen=True)
class Texts:
    """Raw texts: `target[i]` is the translation of `source[i]`.

    Raises:
        dlkit.errors.DataError: there are not as many targets as sources.
    """

    source: Sequence[str]
    target: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target):
            raise DataError(f"{len(self.source)} sources but {len(self.target)} targets")

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: Iterable[int]) -> "Texts":
        """The pairs at `rows`, in that order."""
        rows = list(rows)
        return Texts([self.source[i] for i in rows], [self.target[i] for i in rows])


@dataclass(frozen=True, kw_only=True)
class PairPreparation(TokenizerOptions):
    """How pairs of texts become ids. All datasets of pairs have these options; only training pairs are ever dropped.

    Args:
        coverage: share of the training text that the known characters make up; not for `word`. For Chinese or Japanese
            0.9995 keeps the vocabulary free of characters that hardly occur.
        lower: turn texts into lower case; references for evaluation stay as they are.
        joint: one vocabulary learned from both sides, which embeddings can share; else one each.
        max_length: drop pairs of which a side has more tokens; None for no limit.
        length_ratio: drop pairs of which one side has more than so many times the tokens of the other; None for any.
        duplicates: what becomes of a pair that has occurred before, with the same text on both sides.
    """

    tokenizer: Kind = "unigram"
    joint: bool = True
    max_length: Annotated[int, Field(ge=1)] | None = 128
    length_ratio: Annotated[float, Field(ge=1)] | None = None
    duplicates: Literal["drop", "keep"] = "drop"


@dataclass(frozen=True)
class Report:
    """What became of the texts.

    Args:
        read: training pairs before any was dropped.
        dropped: reason in words -> training pairs dropped for it; each counts once, under the first reason.
        unknown: split -> share of `<unk>` among the tokens of its sources and of its targets.
        unknown_pieces: what is `<unk>` in the training texts, the most frequent first, at most 20.
        notes: other lines for people, such as of the splits.
    """

    read: int
    dropped: dict[str, int]
    unknown: dict[str, tuple[float, float]]
    unknown_pieces: list[str]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report for people, a line each; none when there is nothing to tell."""
        lines = list(self.notes)
        if total := sum(self.dropped.values()):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items() if count)
            lines.append(f"dropped {total:,} of {self.read:,} training pairs: {reasons}")
        shares = {
            f"{split} {side}": share
            for split, both in self.unknown.items()
            for side, share in zip(("source", "target"), both, strict=True)
        }
        return [*lines, *unknown_shares(shares, examples=self.unknown_pieces)]


@dataclass(frozen=True)
class PairData:
    """A dataset of pairs of sequences; ids, tokenizers and the report are made when they are first asked for.

    Args:
        name: the name it is loaded by.
        texts: split name -> raw texts; without `train` they are for tests only.
        options: how the texts become ids.
        tokenizers: for the sources and for the targets; None to train them on the training texts.
        languages: codes or names of the source and the target language, empty where they are not known.
        notes: lines for the report.

    Raises:
        dlkit.errors.DataError: nothing is left to train on.
        dlkit.errors.UsageError: the vocabulary is too small for the text, or there is none to learn it from.
    """

    name: str
    texts: Mapping[str, Texts]
    options: PairPreparation = field(default_factory=PairPreparation)
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None
    languages: tuple[str, str] = ("", "")
    notes: tuple[str, ...] = ()

    def with_tokenizers(self, source: Tokenizer, target: Tokenizer) -> "PairData":
        """The same texts with the tokenizers of a run, so that none is trained."""
        return replace(self, tokenizers=(source, target))

    @cached_property
    def _tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        if self.tokenizers is not None:
            return self.tokenizers
        if "train" not in self.texts:
            raise nothing_to_train_on(self.name, self.texts)
        if not self.texts["train"].source:
            raise DataError(f"{self.name} has no pair to train on", "a pair a line, source and target divided by a tab")
        return _trained(self.texts["train"], self.options)

    @property
    def source_tokenizer(self) -> Tokenizer:
        """Makes the ids of the sources."""
        return self._tokenizers[0]

    @property
    def target_tokenizer(self) -> Tokenizer:
        """Makes those of the targets; the same object as for the sources where the vocabulary is joint."""
        return self._tokenizers[1]

    @cached_property
    def _encoded(self) -> tuple[dict[str, PairSplit], dict[str, int]]:
        splits = {
            name: PairSplit(
                Ragged.of(self.source_tokenizer.encode_all(texts.source)),
                Ragged.of(self.target_tokenizer.encode_all(texts.target)),
                texts.source,
                texts.target,
            )
            for name, texts in self.texts.items()
        }
        if "train" not in splits:
            return splits, {}
        splits["train"], dropped = _without_unfit(splits["train"], self.options)
        if not len(splits["train"]):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
            raise DataError(f"{self.name} has nothing to train on" + (f": dropped {reasons}" if reasons else ""))
        return splits, dropped

    @property
    def splits(self) -> dict[str, PairSplit]:
        """Split name -> pairs; those of `train` without the dropped ones, the others as they came."""
        return self._encoded[0]

    @cached_property
    def report(self) -> Report:
        """What became of the texts."""
        splits, dropped = self._encoded
        train, learned = self.texts.get("train", Texts([], [])), splits.get("train", PairSplit([], []))
        unknown = {name: (unknown_share(split.source), unknown_share(split.target)) for name, split in splits.items()}
        pieces: Counter[str] = Counter()
        for ids, texts, by in (
            (learned.source, learned.source_texts, self.source_tokenizer),
            (learned.target, learned.target_texts, self.target_tokenizer),
        ):
            for row in _rows_with_unknown(ids):
                pieces.update(by.unknown(texts[row]))
        notes = list(self.notes)
        if controls := sum(map(_has_control, train.source, train.target)):
            notes.append(f"{controls:,} training pair{'s' * (controls > 1)} with control characters")
        if self.tokenizers is None and self.options.tokenizer in ("unigram", "bpe"):
            sizes = dict.fromkeys(own.size for own in self._tokenizers)
            if min(sizes) < self.options.vocabulary:
                found = " and ".join(f"{size:,}" for size in sizes)
                notes.append(f"{found} tokens, where data.vocabulary is {self.options.vocabulary:,}: no more are found")
        most = sorted(pieces, key=lambda piece: (-pieces[piece], piece))[:20]
        return Report(len(train), dropped, unknown, most, tuple(notes))


def _has_control(source: str, target: str) -> bool:
    return CONTROL.search(source) is not None or CONTROL.search(target) is not None


def _trained(texts: Texts, options: PairPreparation) -> tuple[Tokenizer, Tokenizer]:
    if options.joint:
        both = options.train([*texts.source, *texts.target])
        return both, both
    return options.train(texts.source), options.train(texts.target)


def _without_unfit(split: PairSplit, options: PairPreparation) -> tuple[PairSplit, dict[str, int]]:
    """The pairs to train on, and how many are left out for which reason."""
    source, target = (side - 1 for side in split.lengths)  # without the end token
    shorter, longer = np.minimum(source, target), np.maximum(source, target)
    reasons = {"with an empty side": shorter == 0}
    if options.max_length is not None:
        reasons[f"longer than {options.max_length:,} tokens"] = longer > options.max_length
    if options.length_ratio is not None:
        reasons[f"with a side more than {options.length_ratio:g} times the other"] = (
            longer > options.length_ratio * shorter
        )
    if options.duplicates == "drop":
        reasons["twice"] = _occurred_before(split)
    kept, dropped = np.ones(len(split), bool), {}
    for reason, unfit in reasons.items():
        dropped[reason] = int((kept & unfit).sum())
        kept &= ~unfit
    if kept.all():
        return split, dropped
    rows = np.flatnonzero(kept)
    texts = Texts(split.source_texts, split.target_texts).take(rows)
    sides = [side if isinstance(side, Ragged) else Ragged.of(side) for side in (split.source, split.target)]
    return PairSplit(sides[0].take(rows), sides[1].take(rows), texts.source, texts.target), dropped


def _occurred_before(split: PairSplit) -> NDArray[np.bool_]:
    pairs = list(zip(split.source_texts, split.target_texts, strict=True))
    first: dict[tuple[str, str], int] = {}
    return np.array([first.setdefault(pair, row) != row for row, pair in enumerate(pairs)], bool)


def unknown_shares(shares: Mapping[str, float], *, things: str = "tokens", examples: Sequence[str] = ()) -> list[str]:
    """A line about what is not in the vocabulary; none where all is known.

    Args:
        shares: of each split, what share of it that is.
        things: what it is a share of.
        examples: some of what is unknown; five of them are told.

    Example:
        >>> unknown_shares({"train": 0.5, "test": 0.0}, examples=["b"])
        ['unknown (such as b): 50.00% of train tokens']
    """
    told = ", ".join(f"{share:.2%} of {name} {things}" for name, share in shares.items() if share)
    such = f" (such as {' '.join(examples[:5])})" if examples else ""
    return [f"unknown{such}: {told}"] if told else []


def unknown_share(ids: Sequence[Sequence[int]] | Ragged) -> float:
    """What share of ids stand for what is not in the vocabulary; 0 of none."""
    flat = ids.flat if isinstance(ids, Ragged) else Ragged.of(ids).flat
    return float((flat == UNKNOWN).mean()) if flat.size else 0.0


def _rows_with_unknown(ids: Sequence[Sequence[int]] | Ragged) -> list[int]:
    ragged = ids if isinstance(ids, Ragged) else Ragged.of(ids)
    rows = np.repeat(np.arange(len(ragged)), ragged.lengths)
    return np.unique(rows[ragged.flat == UNKNOWN]).tolist()


def prepared(read: Callable[..., Data], how: type[TokenizerOptions] = PairPreparation) -> Callable[..., Data]:
    """Gives a function that reads texts the options of `PairPreparation`, or of another such class, beside its own.

    That class is kept as `preparation`; its fields are added to the signature, which recipes are checked against. A
    function that has to know them, too, has an argument `options`, which is not in the signature.
    """
    own, shared = inspect.signature(read), inspect.signature(how)
    parameters = {name: parameter for name, parameter in own.parameters.items() if name != "options"}
    hints = {name: parameter.annotation for name, parameter in shared.parameters.items()}

    @functools.wraps(read)
    def load(*args: Any, **options: Any) -> Data:
        given = how(**{name: options.pop(name) for name in shared.parameters if name in options})
        known = {} if len(parameters) == len(own.parameters) else {"options": given}
        return replace(read(*args, **options, **known), options=given)

    load.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*parameters.values(), *shared.parameters.values()]
    )
    load.preparation = how  # type: ignore[attr-defined]
    load.__annotations__ = hints | {name: hint for name, hint in read.__annotations__.items() if name != "options"}
    return load
