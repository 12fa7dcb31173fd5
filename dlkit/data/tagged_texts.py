"""Tagged texts: a tag for each word. From files of two columns, as those of the CoNLL shared tasks."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit import file_system
from dlkit.data.holdout import HeldOut
from dlkit.data.labelled_texts import check_parts, size_of_part
from dlkit.data.pairs import Ragged, unknown_share, unknown_shares
from dlkit.data.split_files import files_by_role
from dlkit.data.split_names import ROLES
from dlkit.data.text_files import lines_of, read_text, some_at_once
from dlkit.data.tokenizer import SPECIAL, UNKNOWN, Tokenizer, WordTokenizer
from dlkit.errors import DataError, UsageError, not_there, nothing_to_train_on

SUFFIXES = (".conll", ".tsv", ".txt", ".iob", ".iob2", ".bio")
_FORM = "a line is `word<TAB>tag`, and an empty line ends a sentence"


@dataclass(frozen=True)
class Tagged:
    """Raw sentences.

    Args:
        words: of each sentence.
        tags: of each word of each sentence, places in a list of tags.
    """

    words: Sequence[Sequence[str]]
    tags: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: Iterable[int]) -> "Tagged":
        """The sentences at `rows`, in that order."""
        rows = list(rows)
        return Tagged([self.words[row] for row in rows], [self.tags[row] for row in rows])


@dataclass(frozen=True)
class TagSplit:
    """One split as a net reads it: the ids of the words of each sentence, and their tags, one for each id."""

    ids: Ragged
    tags: Ragged
    cut: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Words of each sentence, (n,)."""
        return self.ids.lengths


def encode_words(words: Sequence[str], by: Tokenizer) -> list[int]:
    """One id for each word: one that the tokenizer would cut or drop is `<unk>`, so that tags stay at their words."""
    return [ids[0] if len(ids := by.encode(word)) == 1 else UNKNOWN for word in words]


@dataclass(frozen=True)
class TaggedTexts:
    """A dataset of tagged sentences; ids and the tokenizer are made when they are first asked for.

    Args:
        name: the name it is loaded by.
        tags: the names of the tags.
        texts: split name -> raw sentences; without `train` they are for tests only.
        own: the tokenizer; None to take the words of the training sentences.
        vocabulary: most ids, the four special ones included.
        min_count: words that occur less often in training are `<unk>`.
        lower: turn words into lower case.
        max_length: words of a sentence that are read.
        notes: lines for people.
    """

    name: str
    tags: Sequence[str]
    texts: Mapping[str, Tagged]
    own: Tokenizer | None = None
    vocabulary: int = 30_000
    min_count: int = 2
    lower: bool = False
    max_length: int = 512
    notes: tuple[str, ...] = ()

    def as_trained(self, tags: Sequence[str], own: Tokenizer, max_length: int) -> "TaggedTexts":
        """The same sentences read as a run does: with its tokenizer, and its numbers of the tags.

        Raises:
            dlkit.errors.UsageError: a word has a tag that the run does not know.
        """
        if odd := [tag for tag in self.tags if tag not in tags]:
            raise UsageError(
                f"{self.name} has a tag that the run was not trained on: {odd[0]}",
                f"the run knows {', '.join(tags[:5])}{', ...' * (len(tags) > 5)}",
            )
        order = [list(tags).index(tag) for tag in self.tags]
        texts = {
            split: Tagged(each.words, [[order[tag] for tag in row] for row in each.tags])
            for split, each in self.texts.items()
        }
        return replace(self, tags=list(tags), texts=texts, own=own, max_length=max_length)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Makes the ids."""
        if self.own is not None:
            return self.own
        if "train" not in self.texts:
            raise nothing_to_train_on(self.name, self.texts)
        lines = (" ".join(words) for words in self.texts["train"].words)
        made = WordTokenizer.train(lines, size=self.vocabulary, min_count=self.min_count, lower=self.lower)
        if made.size == len(SPECIAL):
            raise DataError(f"no word of {self.name} occurs {self.min_count} times in training", "lower data.min_count")
        return made

    @cached_property
    def splits(self) -> dict[str, TagSplit]:
        """Split name -> sentences as ids."""
        return {name: self._encoded(each) for name, each in self.texts.items()}

    def _encoded(self, split: Tagged) -> TagSplit:
        most = self.max_length
        ids = Ragged.joined(
            Ragged.of([encode_words(words[:most], self.tokenizer) for words in some])
            for some in some_at_once(split.words)
        )
        tags = Ragged.joined(Ragged.of([row[:most] for row in some]) for some in some_at_once(split.tags))
        return TagSplit(ids, tags, sum(len(words) > most for words in split.words))

    def remarks(self, of: str | None = None) -> list[str]:
        """What a user should know of the sentences: of one split, or of all and what else there is to say."""
        lines = [] if of else list(self.notes)
        splits = {name: split for name, split in self.splits.items() if of in (None, name)}
        lines += [
            f"{split.cut:,} of {len(split):,} {name} sentences have more than {self.max_length:,} words: the rest is "
            "neither read nor counted"
            for name, split in splits.items()
            if split.cut
        ]
        unknown = {name: unknown_share(split.ids) for name, split in splits.items()}
        return [*lines, *unknown_shares(unknown, things="words")]

    def fingerprint(self) -> str:
        """sha256 of the training sentences and their tags."""
        digest, train = hashlib.sha256(), self.texts["train"]
        for words, tags in zip(train.words, train.tags, strict=True):
            lines = (f"{word}\t{self.tags[tag]}\n" for word, tag in zip(words, tags, strict=True))
            digest.update(("".join(lines) + "\n").encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


# --------------------------------------------------------------------------------------------------------------- files


def tagged_texts(
    name: str,
    *,
    tag_column: Annotated[int, Field(ge=2)] | None = None,
    validation: HeldOut = None,
    test: HeldOut | Literal["all"] = None,
    seed: Annotated[int, Field(ge=0)] = 0,
    vocabulary: Annotated[int, Field(ge=8)] = 30_000,
    min_count: Annotated[int, Field(ge=1)] = 2,
    lower: bool = False,
    max_length: Annotated[int, Field(ge=1)] = 512,
) -> TaggedTexts:
    """Tagged sentences from files in UTF-8, plain or `.gz`: a word a line with its tag, an empty line after a sentence.

    `name` is a file, or a folder with `train.conll` and perhaps `validation.conll` (`valid`, `val`, `dev`) and
    `test.conll`; the suffix may also be .tsv, .txt, .iob, .iob2 or .bio. Columns are parted by tabs, or where a line
    has none by spaces. Lines that begin with `-DOCSTART-` are passed over.

    Args:
        name: see above.
        tag_column: number of the column with the tags, from 1, the words being in column 1; by default there are two.
        validation: size of the validation part where there is none, below 1 as a share; by default a tenth, at most
            2,000.
        test: the same for the test part where there is none; by default none is held out of data that have another
            split. `all` leaves none to train on, where there are no splits at all.
        seed: chooses the parts.
        vocabulary: most ids of the words, the four special ones included.
        min_count: words that occur less often in training are `<unk>`.
        lower: turn words into lower case.
        max_length: words of a sentence that are read and counted.

    Raises:
        dlkit.errors.DataError: a file is missing, unreadable, empty or no UTF-8, or a line has other columns.
        dlkit.errors.UsageError: options that do not fit the data.

    Example:
        >>> tagged_texts("conll2000").texts["train"].words[0][:3]
        ['Confidence', 'in', 'the']
    """
    root = file_system.expanded(name)
    files = _files(root) if file_system.is_folder(root) else {"train": root}
    seen: dict[str, int] = {}
    read = {role: _sentences(path, tag_column, seen) for role, path in files.items()}
    tags = sorted(seen)
    place = {seen[tag]: at for at, tag in enumerate(tags)}
    for _, numbers in read.values():
        for row in numbers:
            row[:] = [place[number] for number in row]
    texts = {role: Tagged(*words_and_tags) for role, words_and_tags in read.items()}
    texts = _with_parts(texts, validation=validation, test=test, seed=seed)
    return TaggedTexts(
        name, tags, texts, vocabulary=vocabulary, min_count=min_count, lower=lower, max_length=max_length
    )  # fmt: skip


def is_tagged(path: Path) -> bool:
    """Whether a file says by its name that it holds tagged sentences; tables and plain texts do not."""
    return path.name.removesuffix(".gz").casefold().endswith(SUFFIXES[:1] + SUFFIXES[3:])


def is_undivided(name: str) -> bool:
    """Whether a data name means tagged sentences in one file, or a folder with nothing but those to train on."""
    path = file_system.expanded(name)
    return file_system.is_file(path) or (file_system.is_folder(path) and set(_files(path)) == {"train"})


def _files(root: Path) -> dict[str, Path]:
    """Split -> file of a folder."""
    found = files_by_role(root, SUFFIXES)
    if "train" not in found:
        raise DataError(f"{root} has no tagged sentences to train on, such as train.conll", _FORM)
    return found


def _sentences(path: Path, tag_column: int | None, seen: dict[str, int]) -> tuple[list[list[str]], list[list[int]]]:
    """The words of each sentence of a file, and numbers of their tags.

    Of each word one string alone is kept: one for each time that it occurs would take too much memory.

    Args:
        path: the file.
        tag_column: see `tagged_texts`.
        seen: tag -> its number, in the order in which they occur; new ones are added.
    """
    if not file_system.exists(path):
        raise not_there("file", path)
    words: list[list[str]] = []
    tags: list[list[int]] = []
    known: dict[str, str] = {}
    begins = True
    for number, line in enumerate(lines_of(read_text(path, zero_bytes=False)), 1):
        if not line.strip():
            begins = True
            continue
        if line.startswith("-DOCSTART-"):
            continue
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        if tag_column is None and len(cells) != 2:
            hint = f"`--set data.tag_column={len(cells)}` takes the last one" if len(cells) > 2 else _FORM
            raise DataError(f"{path} line {number:,} has {len(cells)} column{'s' * (len(cells) != 1)}, not 2", hint)
        at = (tag_column or 2) - 1
        if len(cells) <= at or not cells[0] or not cells[at]:
            raise DataError(f"{path} line {number:,} has no word or no tag in column {at + 1}", _FORM)
        if begins:
            words.append([])
            tags.append([])
            begins = False
        words[-1].append(known.setdefault(cells[0], cells[0]))
        tags[-1].append(seen.setdefault(cells[at], len(seen)))
    if not words:
        raise DataError(f"{path} has no sentences: it is empty", _FORM)
    return words, tags


def _with_parts(
    texts: dict[str, Tagged], *, validation: HeldOut, test: HeldOut | Literal["all"], seed: int
) -> dict[str, Tagged]:
    """Holds validation and test sentences out of `train` where there are none."""
    check_parts(texts, validation=validation, test=test, seed=seed)
    if test == "all":
        return {"test": texts["train"]}
    undivided, count = set(texts) == {"train"}, len(texts["train"])
    wanted = {
        "test": size_of_part(test, count) if "test" not in texts and (undivided or test is not None) else 0,
        "validation": size_of_part(validation, count) if "validation" not in texts else 0,
    }
    if sum(wanted.values()) >= count:
        raise UsageError(
            f"{sum(wanted.values()):,} sentences for validation and test leave nothing of {count:,} to train on",
            "lower data.validation or data.test",
        )
    mixed = np.random.default_rng(seed).permutation(count)
    parts, start = dict(texts), 0
    for role, size in wanted.items():
        if size:
            parts[role] = texts["train"].take(np.sort(mixed[start : start + size]).tolist())
        start += size
    parts["train"] = texts["train"].take(np.sort(mixed[start:]).tolist())
    return {role: parts[role] for role in ROLES if role in parts}
