"""Validation and test parts of pairs of texts that come without: `strict`, so that nothing leaks, or `random`.

Collections of sentences hold many translations of one sentence. A random split leaves half of its test pairs with one
side in training, and what it measures is partly memory. The strict split deals out whole groups of pairs that share a
side, and leaves out test pairs that are a word away from a training sentence.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dlkit.data.pairs import Texts
from dlkit.data.split_names import NumberOrShare
from dlkit.errors import UsageError

HeldOut = NumberOrShare | None  # None for 5 %, at most 2,000
How = Literal["strict", "random"]


def hold_out(
    texts: Texts,
    *,
    validation: HeldOut = None,
    test: HeldOut = None,
    how: How = "strict",
    seed: int = 0,
    read_side: Literal["source", "target"] = "source",
) -> tuple[dict[str, Texts], tuple[str, ...]]:
    """Divides pairs into train, validation and test; pairs keep their order within each.

    `strict`: pairs whose sources or whose targets are equal after lower-casing and without punctuation and spaces
    belong together, and so do pairs that are joined by others; such groups go to one part as a whole, in a random
    order, as long as they fit. Then the test pairs are left out whose source is a training source but for one word
    that is inserted, deleted or substituted (again lower-cased, without punctuation), so the test part is smaller than
    asked for.

    Args:
        texts: the pairs.
        validation: size of the validation part.
        test: size of the test part, before near pairs are left out of it.
        how: see above; `random` draws pair by pair.
        seed: chooses the parts.
        read_side: the side that is compared word by word.

    Returns:
        The parts, without empty ones but for `train`, and a line for people where test pairs were left out.

    Raises:
        dlkit.errors.UsageError: nothing would be left to train on, or too few pairs stand apart from the others.
    """
    sizes = {"test": _count(test, len(texts)), "validation": _count(validation, len(texts))}
    if sum(sizes.values()) >= max(len(texts), 1):
        raise UsageError(
            f"{sum(sizes.values()):,} pairs for validation and test leave nothing of {len(texts):,} to train on",
            "lower data.validation or data.test",
        )
    groups = _groups(texts) if how == "strict" else np.arange(len(texts))
    part = _dealt(groups, list(sizes.values()), np.random.default_rng(seed))
    rows = {name: np.flatnonzero(part == number) for number, name in enumerate([*sizes, "train"])}
    notes: tuple[str, ...] = ()
    if how == "strict":
        for name, size in sizes.items():
            if len(rows[name]) < size / 2:
                raise UsageError(
                    f"only {len(rows[name]):,} pairs for {name} share no sentence with the rest: {size:,} are wanted",
                    "`--set data.split=random` does not look at that; or lower data.validation and data.test",
                )
        side = texts.source if read_side == "source" else texts.target
        near = _one_word_away([side[i] for i in rows["test"].tolist()], [side[i] for i in rows["train"].tolist()])
        if near.any():
            notes = (f"left {near.sum():,} of {len(near):,} test pairs out: one word away from a training sentence",)
        rows["test"] = rows["test"][~near]
    kept = {name: rows[name] for name in ("train", "validation", "test") if name == "train" or len(rows[name])}
    return {name: texts.take(at.tolist()) for name, at in kept.items()}, notes


def _count(part: HeldOut, total: int) -> int:
    if part is None:
        return min(total // 20, 2000)
    return round(part * total) if part < 1 else int(part)


def _dealt(groups: NDArray[np.int64], sizes: Sequence[int], random: np.random.Generator) -> NDArray[np.int64]:
    """For each pair the part that its group goes to; the last part, number `len(sizes)`, takes what fits nowhere."""
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    part_of = np.full(len(counts), len(sizes))
    waiting = random.permutation(len(counts)).tolist()
    for part, size in enumerate(sizes):
        room, rest = size, []
        for number in waiting:
            if counts[number] <= room:
                part_of[number] = part
                room -= int(counts[number])
            else:
                rest.append(number)
        waiting = rest
    return part_of[group]


def _groups(texts: Texts) -> NDArray[np.int64]:
    """For each pair the first pair of its connected component: equal sources or equal targets connect."""
    first = list(range(len(texts)))

    def root(row: int) -> int:
        while first[row] != row:
            first[row] = row = first[first[row]]
        return row

    for side in (texts.source, texts.target):
        seen: dict[str, int] = {}
        # Spaces go, too: "rendez-vous" and "rendez vous" are one sentence whatever punctuation is replaced by.
        for row, key in enumerate(_bare(side, "PSZC")):
            if (other := seen.setdefault(key, row)) != row:
                one, two = root(row), root(other)
                first[max(one, two)] = min(one, two)
    return np.array([root(row) for row in range(len(texts))], np.int64)


def _bare(texts: Sequence[str], categories: str, *, replacement: str = "") -> list[str]:
    """Texts in lower case without the characters of these Unicode categories: punctuation, symbols, separators, ..."""
    if not texts:
        return []
    joined = "\n".join(text.replace("\n", " ") for text in texts).lower()
    dropped = [c for c in set(joined) - {"\n"} if unicodedata.category(c)[0] in categories]
    return (re.sub(f"[{re.escape(''.join(dropped))}]+", replacement, joined) if dropped else joined).split("\n")


def _one_word_away(candidates: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """Which candidates are one of the others, but for at most one word inserted, deleted or substituted.

    Two texts are a substitution apart when deleting the word at one place makes them equal, and an insertion or a
    deletion when deleting a word of the longer one gives the other. So it is noted which candidates deletion turns into
    what, and the others are looked up. "L'eau" is both one word and two: punctuation is dropped as well as replaced by
    a space, and near by either is near.
    """
    near = np.zeros(len(candidates), bool)
    for replacement in ("", " "):
        whole: defaultdict[str, list[int]] = defaultdict(list)
        shortened: defaultdict[str, list[int]] = defaultdict(list)
        at_place: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        halves: set[tuple[bool, str]] = set()
        for row, text in enumerate(_bare(candidates, "PSC", replacement=replacement)):
            words = text.split()
            halves.update((True, " ".join(words[:i])) for i in range(len(words) + 1))
            halves.update((False, " ".join(words[i:])) for i in range(len(words) + 1))
            whole[" ".join(words)].append(row)
            for place, shorter in enumerate(_deletions(words)):
                shortened[shorter].append(row)
                at_place[place, shorter].append(row)
        for text in set(_bare(others, "PSC", replacement=replacement)):
            words = text.split()
            half = len(words) // 2
            if (True, " ".join(words[:half])) not in halves and (False, " ".join(words[half:])) not in halves:
                continue
            joined = " ".join(words)
            near[whole.get(joined, []) + shortened.get(joined, [])] = True
            for place, shorter in enumerate(_deletions(words)):
                if shorter in shortened or shorter in whole:
                    near[whole.get(shorter, []) + at_place.get((place, shorter), [])] = True
    return near


def _deletions(words: Sequence[str]) -> list[str]:
    return [" ".join([*words[:i], *words[i + 1 :]]) for i in range(len(words))]
