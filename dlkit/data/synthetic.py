"""Generated datasets: tasks whose answer is known, of any size, the same for the same seed."""

from typing import Annotated

import numpy as np
from pydantic import Field

from dlkit.data.pairs import PairData, PairSplit
from dlkit.data.tokenizer import SPECIAL, WordTokenizer
from dlkit.errors import UsageError

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def reverse(
    *,
    length: Annotated[int, Field(ge=1)] = 10,
    symbols: Annotated[int, Field(ge=1, le=len(LETTERS))] = 26,
    train: Annotated[int, Field(ge=1)] = 20_000,
    validation: Annotated[int, Field(ge=1)] = 1_000,
    test: Annotated[int, Field(ge=1)] = 1_000,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> PairData:
    """Random sequences of letters and the same letters from back to front; all sources differ, over all splits too.

    A length from 1 to `length` is drawn first, each as likely, then the letters; what was drawn before is dropped.

    Args:
        length: most letters of a sequence.
        symbols: number of different letters.
        train: number of pairs to train on.
        validation: number of pairs for choosing.
        test: number of pairs for reporting.
        seed: chooses the sequences.

    Raises:
        dlkit.errors.UsageError: there are not as many different sequences.
    """
    count = train + validation + test
    existing = sum(symbols**n for n in range(1, length + 1))
    if count > existing:
        raise UsageError(
            f"synthetic:reverse has {existing} different sequences of up to {length} out of {symbols} letters, "
            f"and {count} are asked for",
            "raise `length` or `symbols`, or lower `train`, `validation` or `test`",
        )
    sources = _distinct_sequences(np.random.default_rng(seed), count, length, symbols)
    pairs = PairSplit(sources, [source[::-1] for source in sources])
    splits, start = {}, 0
    for name, size in (("train", train), ("validation", validation), ("test", test)):
        splits[name] = PairSplit(pairs.source[start : start + size], pairs.target[start : start + size])
        start += size
    tokenizer = WordTokenizer(LETTERS[:symbols])
    return PairData("synthetic:reverse", splits, tokenizer, tokenizer)


def _distinct_sequences(random: np.random.Generator, count: int, length: int, symbols: int) -> list[list[int]]:
    first = len(SPECIAL)
    found: dict[bytes, list[int]] = {}
    while len(found) < count:
        lengths = random.integers(1, length + 1, size=count)
        rows = random.integers(first, first + symbols, size=(count, length))
        for row, n in zip(rows, lengths, strict=True):
            found.setdefault(row[:n].tobytes(), row[:n].tolist())
    sequences = list(found.values())[:count]
    # Short ones are soon used up and stand in front: mixed, so that every split has its share of them.
    return [sequences[i] for i in random.permutation(count)]
