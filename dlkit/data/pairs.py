"""Pairs of sequences in memory, and their batches for teacher forcing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlkit.data.tokenizer import END, PAD, START, WordTokenizer
from dlkit.errors import DataError

# Batches are padded to multiples of this, so that few shapes occur: each costs a trace of the training step.
LENGTH_STEP = 8


@dataclass(frozen=True)
class PairSplit:
    """One split: `target[i]` belongs to `source[i]`. Token ids without start and end.

    Raises:
        dlkit.errors.DataError: there are not as many targets as sources.
    """

    source: Sequence[Sequence[int]]
    target: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target):
            raise DataError(f"{len(self.source)} sources but {len(self.target)} targets")

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Tokens of the longest source and of the longest target, the end token included."""
        return max(map(len, self.source)) + 1, max(map(len, self.target)) + 1


@dataclass(frozen=True)
class PairData:
    """A dataset of pairs of sequences.

    Args:
        name: the name it is loaded by.
        splits: split name -> pairs, `train` among them.
        source_tokenizer: makes the ids of the sources.
        target_tokenizer: makes those of the targets.
    """

    name: str
    splits: dict[str, PairSplit]
    source_tokenizer: WordTokenizer
    target_tokenizer: WordTokenizer


class PairBatch(NamedTuple):
    """A batch for teacher forcing, int32 ids padded with 0: the decoder reads `<s> y` and has to say `y </s>`."""

    source: NDArray[np.int32]  # (batch, source time), x </s>
    target_in: NDArray[np.int32]  # (batch, target time), <s> y
    target_out: NDArray[np.int32]  # (batch, target time), y </s>


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


def batch(split: PairSplit, indices: Iterable[int]) -> PairBatch:
    """The pairs at `indices`, in that order, for teacher forcing.

    Both lengths are the next multiple of 8, or the longest of the whole split where that is less.
    """
    indices = list(indices)
    sources = [[*split.source[i], END] for i in indices]
    starts = [[START, *split.target[i]] for i in indices]
    ends = [[*split.target[i], END] for i in indices]
    source_length, target_length = (
        min(-max(map(len, sequences)) // LENGTH_STEP * -LENGTH_STEP, longest)
        for sequences, longest in zip((sources, ends), split.longest, strict=True)
    )
    return PairBatch(
        pad(sources, length=source_length), pad(starts, length=target_length), pad(ends, length=target_length)
    )
