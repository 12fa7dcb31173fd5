"""Generated datasets: tasks whose answer is known, of any size, the same for the same seed."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from dlkit.data.pairs import PairData, PairPreparation, Texts
from dlkit.data.tokenizer import WordTokenizer
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
    sizes = {"train": train, "validation": validation, "test": test}
    return _letters("synthetic:reverse", lambda text: text[::-1], sizes, length=length, symbols=symbols, seed=seed)


def copy(
    *,
    length: Annotated[int, Field(ge=1)] = 10,
    symbols: Annotated[int, Field(ge=1, le=len(LETTERS))] = 26,
    train: Annotated[int, Field(ge=1)] = 20_000,
    validation: Annotated[int, Field(ge=1)] = 1_000,
    test: Annotated[int, Field(ge=1)] = 1_000,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> PairData:
    """Random sequences of letters and the same once more: `synthetic:reverse`, with the same sources, as they are.

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
    sizes = {"train": train, "validation": validation, "test": test}
    return _letters("synthetic:copy", lambda text: text, sizes, length=length, symbols=symbols, seed=seed)


def _letters(
    name: str, answer: Callable[[str], str], sizes: dict[str, int], *, length: int, symbols: int, seed: int
) -> PairData:
    """Pairs of a text and its answer, letters with spaces between."""
    count = sum(sizes.values())
    existing = sum(symbols**n for n in range(1, length + 1))
    if count > existing:
        raise UsageError(
            f"{name} has {existing} different sequences of up to {length} out of {symbols} letters, "
            f"and {count} are asked for",
            "raise `length` or `symbols`, or lower `train`, `validation` or `test`",
        )
    sources = iter(_distinct_sequences(np.random.default_rng(seed), count, length, symbols))
    texts = {}
    for split, size in sizes.items():
        source = [next(sources) for _ in range(size)]
        texts[split] = Texts(source, [answer(text) for text in source])
    tokenizer = WordTokenizer(LETTERS[:symbols])
    return PairData(name, texts, PairPreparation(max_length=None, duplicates="keep"), (tokenizer, tokenizer))


def _distinct_sequences(random: np.random.Generator, count: int, length: int, symbols: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        lengths = random.integers(1, length + 1, size=count)
        rows = random.integers(0, symbols, size=(count, length))
        for row, n in zip(rows.tolist(), lengths.tolist(), strict=True):
            found.setdefault(" ".join([LETTERS[letter] for letter in row[:n]]))
    sequences = list(found)[:count]
    # Short ones are soon used up and stand in front: mixed, so that every split has its share of them.
    return [sequences[i] for i in random.permutation(count)]
