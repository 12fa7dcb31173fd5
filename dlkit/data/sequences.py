"""Sequences of numbers: a number to be told at the end of each, or a label at each of its steps.

Two of them ask for nothing but memory, the adding problem and the copying problem. What a sequence holds depends on
(seed, split, index) alone: asking for more, or for another split, changes none.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from dlkit.data.augment import example_keys, uniform
from dlkit.errors import UsageError

SPLITS = ("train", "validation", "test")
CHUNK = 1 << 22  # so many numbers are looked at together when statistics are taken
NUMBERS, MARKS = 0, 1  # the channels of the adding problem

Indices = NDArray[np.int64]


class Examples(NamedTuple):
    """Some sequences of a split.

    Args:
        inputs: (n, time, features) float32, 0 behind the end of each.
        lengths: (n,) int32, steps of each.
        targets: (n, outputs) float32, the numbers to be told at the end; or (n, time) int32, a label at each step.
    """

    inputs: NDArray[np.float32]
    lengths: NDArray[np.int32]
    targets: NDArray


@dataclass(frozen=True)
class SequenceSplit:
    """One split, whose sequences are made when they are wanted.

    Args:
        count: how many sequences there are.
        make: takes the positions of some and returns them.
    """

    count: int
    make: Callable[[Indices], Examples]

    def __len__(self) -> int:
        return self.count

    def fetch(self, indices: ArrayLike) -> Examples:
        """The sequences at `indices`, in that order."""
        return self.make(np.asarray(indices, dtype=np.int64))


@dataclass(frozen=True)
class SequenceData:
    """A dataset of sequences of numbers.

    Args:
        name: the name it is loaded by.
        splits: split name -> sequences.
        longest: steps of the longest sequence; all are padded to it.
        lengths_vary: whether there are shorter ones.
        measured: for each channel of the inputs, whether it holds measurements, which are standardized, or marks and
            one-hot symbols, which stay as they are.
        outputs: how many numbers are told at the end of a sequence; 0 where each step has a label.
        classes: the names of the labels; empty where numbers are told.
        blank: the label that says nothing, as long as there is nothing to be recalled; None when all labels count.
        source: text that names the sequences, such that others have another.
        memoryless: metric -> what the best model gets that remembers nothing of the sequence.
    """

    name: str
    splits: Mapping[str, SequenceSplit]
    longest: int
    lengths_vary: bool
    measured: tuple[bool, ...]
    outputs: int = 0
    classes: list[str] = field(default_factory=list)
    blank: int | None = None
    source: str = ""
    memoryless: Mapping[str, float] = field(default_factory=dict)

    @property
    def features(self) -> int:
        """Channels of the inputs."""
        return len(self.measured)

    def fingerprint(self) -> str:
        """sha256 of what stands for the training sequences, and of the first of them."""
        first = self.splits["train"].fetch(np.arange(min(100, len(self.splits["train"]))))
        digest = hashlib.sha256(f"{self.name}\n{self.source}\n{len(self.splits['train'])}\n".encode())
        for array in first:
            digest.update(array.tobytes())
        return digest.hexdigest()


class Statistics(NamedTuple):
    """What inputs and outputs are standardized with: mean and standard deviation of each channel and output."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    output_mean: NDArray[np.float64]
    output_std: NDArray[np.float64]


def statistics(data: SequenceData, split: str = "train") -> Statistics:
    """Mean and standard deviation over all steps that are no padding; of the outputs over all sequences.

    Channels that are not measured keep mean 0 and deviation 1; what never changes is divided by 1.
    """
    if not any(data.measured) and not data.outputs:
        return Statistics(np.zeros(data.features), np.ones(data.features), np.zeros(0), np.ones(0))
    steps = rows = 0
    of_inputs, of_outputs = (np.zeros((2, size)) for size in (data.features, data.outputs))
    for examples in _chunks(data, split):
        real = np.arange(data.longest) < examples.lengths[:, np.newaxis]
        values = examples.inputs[real].astype(np.float64)  # (steps, features)
        steps += len(values)
        of_inputs += values.sum(0), (values**2).sum(0)
        if data.outputs:
            targets = examples.targets.astype(np.float64)
            rows += len(targets)
            of_outputs += targets.sum(0), (targets**2).sum(0)
    mean, std = _moments(of_inputs, steps)
    is_measured = np.array(data.measured)
    outputs = _moments(of_outputs, rows) if data.outputs else (np.zeros(0), np.ones(0))
    return Statistics(np.where(is_measured, mean, 0.0), np.where(is_measured, std, 1.0), *outputs)


def _chunks(data: SequenceData, split: str) -> Iterator[Examples]:
    count, size = len(data.splits[split]), max(1, CHUNK // (data.longest * data.features))
    for start in range(0, count, size):
        yield data.splits[split].fetch(np.arange(start, min(start + size, count)))


def _moments(sums: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, square = sums / count
    std = np.sqrt(np.maximum(square - mean**2, 0))
    constant = std <= 1e-6 * np.maximum(1, np.abs(mean))  # rounding leaves as much of what never changes
    return mean, np.where(constant, 1.0, std)


def _splits(sizes: tuple[int, int, int], make: Callable[..., Examples], *, seed: int) -> dict[str, SequenceSplit]:
    """The three splits of a generator that takes keys; no key belongs to two of them."""

    def of_split(place: int, indices: Indices) -> Examples:
        return make(example_keys(seed, 0, len(SPLITS) * indices + place))

    return {
        name: SequenceSplit(count, partial(of_split, place))
        for place, (name, count) in enumerate(zip(SPLITS, sizes, strict=True))
    }


# -------------------------------------------------------------------------------------------------- the adding problem


def adding(
    *,
    length: Annotated[int, Field(ge=2, le=10_000)] = 200,
    shortest: Annotated[int, Field(ge=2)] | None = None,
    train: Annotated[int, Field(ge=1)] = 50_000,
    validation: Annotated[int, Field(ge=1)] = 1_000,
    test: Annotated[int, Field(ge=1)] = 2_000,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> SequenceData:
    """The adding problem: numbers from 0 to 1 go by, two of them are marked, and at the end their sum is asked for.

    Hochreiter and Schmidhuber 1997, section 5.4, as Le, Jaitly and Hinton 2015, section 4.1, have it: one mark in each
    half of the sequence. Whoever always says 1, the mean, has a mean squared error of 1/6 = 0.1667: twice the variance
    of a uniform number. To be better one has to remember the first number over half of the sequence on average.

    Args:
        length: steps of a sequence.
        shortest: draw each sequence's length from this one to `length`, each as likely; none makes all equally long.
        train: number of sequences to train on.
        validation: number of sequences for choosing.
        test: number of sequences for reporting.
        seed: chooses the sequences.

    Raises:
        dlkit.errors.UsageError: the shortest is longer than the longest.

    Example:
        >>> adding(length=4).splits["test"].fetch([0]).inputs.shape
        (1, 4, 2)
    """
    least = length if shortest is None else shortest
    if least > length:
        raise UsageError(
            f"data.shortest {least} is more than data.length {length}", "sequences are from `shortest` to `length` long"
        )
    return SequenceData(
        "synthetic:adding",
        _splits((train, validation, test), partial(_adding, length=length, shortest=least), seed=seed),
        longest=length,
        lengths_vary=least < length,
        measured=(True, False),
        outputs=1,
        source=f"length {least} to {length}, seed {seed}",
        memoryless={"mse": 1 / 6},
    )


def _adding(keys: NDArray[np.uint64], *, length: int, shortest: int) -> Examples:
    rows, draws = np.arange(len(keys)), uniform(keys, 3, purpose="marks")
    lengths = shortest + (draws[:, 2] * (length - shortest + 1)).astype(np.int64)
    half = lengths // 2
    first = (draws[:, 0] * half).astype(np.int64)
    second = half + (draws[:, 1] * (lengths - half)).astype(np.int64)
    inputs = np.zeros((len(keys), length, 2), np.float32)
    inputs[..., NUMBERS] = uniform(keys, length, purpose="numbers")
    inputs[..., NUMBERS] *= np.arange(length) < lengths[:, np.newaxis]
    for at in (first, second):
        inputs[rows, at, MARKS] = 1
    marked = inputs[rows, first, NUMBERS] + inputs[rows, second, NUMBERS]
    return Examples(inputs, lengths.astype(np.int32), marked[:, np.newaxis])


# ------------------------------------------------------------------------------------------------- the copying problem


def copy_delay(
    *,
    delay: Annotated[int, Field(ge=1, le=10_000)] = 100,
    symbols: Annotated[int, Field(ge=2, le=100)] = 8,
    remembered: Annotated[int, Field(ge=1, le=1_000)] = 10,
    train: Annotated[int, Field(ge=1)] = 50_000,
    validation: Annotated[int, Field(ge=1)] = 1_000,
    test: Annotated[int, Field(ge=1)] = 1_000,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> SequenceData:
    """The copying problem: some symbols are shown, then nothing for a long time, then they are asked for in order.

    Arjovsky, Shah and Bengio 2016, section 4.1, after Hochreiter and Schmidhuber 1997: `remembered` symbols, `delay`
    steps of which the last one is the sign to begin, and as many steps as there were symbols. What is to be said is the
    blank until the sign has been seen, then the symbols. Whoever remembers nothing and knows when to guess has a loss
    of remembered * ln(symbols) / (delay + 2 * remembered) a step.

    Args:
        delay: steps between the last symbol and the first that is asked for, the sign included.
        symbols: number of different symbols.
        remembered: how many of them are shown.
        train: number of sequences to train on.
        validation: number of sequences for choosing.
        test: number of sequences for reporting.
        seed: chooses the sequences.

    Example:
        >>> copy_delay(delay=3, symbols=2, remembered=1).splits["test"].fetch([0]).inputs.shape
        (1, 5, 4)
    """
    length = delay + 2 * remembered
    guess = remembered * math.log(symbols) / length
    return SequenceData(
        "synthetic:copy_delay",
        _splits(
            (train, validation, test),
            partial(_copy_delay, delay=delay, symbols=symbols, remembered=remembered),
            seed=seed,
        ),
        longest=length,
        lengths_vary=False,
        measured=(False,) * (symbols + 2),
        classes=["blank", *(f"symbol {number}" for number in range(1, symbols + 1))],
        blank=0,
        source=f"delay {delay}, {remembered} of {symbols} symbols, seed {seed}",
        memoryless={"loss": guess, "recalled": 1 / symbols},
    )


def _copy_delay(keys: NDArray[np.uint64], *, delay: int, symbols: int, remembered: int) -> Examples:
    count, length = len(keys), delay + 2 * remembered
    shown = 1 + (uniform(keys, remembered, purpose="symbols") * symbols).astype(np.int32)
    ids = np.zeros((count, length), np.int32)  # 0 is the blank, 1 to `symbols` are symbols
    ids[:, :remembered] = shown
    ids[:, remembered + delay - 1] = symbols + 1  # the sign to begin
    labels = np.zeros((count, length), np.int32)
    labels[:, remembered + delay :] = shown
    one_hot = np.zeros((count, length, symbols + 2), np.float32)
    np.put_along_axis(one_hot, ids[..., np.newaxis], 1, axis=2)
    return Examples(one_hot, np.full(count, length, np.int32), labels)
