"""Labelled texts: a class for each text. From tables, from files of one class each, and as token ids for a net.

A dataset is its texts with their labels, how to prepare them (`TextPreparation`), and a tokenizer. The tokenizer is
learned from the training texts alone when it is first asked for.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit import file_system
from dlkit.data.folders import SUFFIXES
from dlkit.data.holdout import HeldOut
from dlkit.data.pairs import Ragged, prepared, unknown_share, unknown_shares
from dlkit.data.split_files import files_by_role
from dlkit.data.split_names import ROLES, check_held_out
from dlkit.data.text_files import lines_of, read_text, some_at_once
from dlkit.data.tokenizer import SPECIAL, Tokenizer
from dlkit.data.tokenizer_options import TokenizerOptions
from dlkit.errors import DataError, UsageError, not_there, nothing_to_train_on

HELD_OUT, MOST_HELD_OUT = 0.1, 2000  # of the training texts, for validation and for test where there are none
TABLE = ".tsv"
LABEL_NAMES, TEXT_NAMES = ("label", "class"), ("text", "sentence")
# What stands after the last dot of a file without being the name of a class.
_FORMATS = {"txt", "tsv", "csv", "md", "json", "jsonl", "py", "sh", "zip", "tar", "bak"}
_NO_CLASSES = re.compile(r"(readme|licen[cs]e|notice|changelog|vocab).*", re.IGNORECASE)

# ----------------------------------------------------------------------------------------------------------- in memory


@dataclass(frozen=True)
class Labelled:
    """Raw texts and their labels.

    Args:
        texts: n texts.
        labels: (n,) int32, places in a list of classes.
    """

    texts: Sequence[str]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> "Labelled":
        """The texts at `rows`, in that order."""
        rows = list(rows)
        return Labelled([self.texts[row] for row in rows], self.labels[rows])


@dataclass(frozen=True)
class TextSplit:
    """One split as a net reads it.

    Args:
        ids: the tokens of each text, without start and end, none beyond the largest length.
        labels: (n,) int32.
        texts: what they are made of.
        cut: how many texts had more tokens.
    """

    ids: Ragged
    labels: NDArray[np.int32]
    texts: Sequence[str]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, (n,)."""
        return self.ids.lengths


@dataclass(frozen=True, kw_only=True)
class TextPreparation(TokenizerOptions):
    """How texts become ids. All datasets of labelled texts that come as files have these options.

    Args:
        tokenizer: `word` takes what is apart by white space, `unigram` and `bpe` learn pieces of words, which suits
            texts whose punctuation touches the words, `char` takes single characters.
        max_length: tokens of a text that are read; what comes after them is not, in training as in prediction.
    """

    vocabulary: Annotated[int, Field(ge=8)] = 30_000
    lower: bool = True
    max_length: Annotated[int, Field(ge=1)] = 512


@dataclass(frozen=True)
class LabelledTexts:
    """A dataset of labelled texts; ids and the tokenizer are made when they are first asked for.

    Args:
        name: the name it is loaded by.
        classes: the names of the classes.
        texts: split name -> raw texts; without `train` they are for tests only.
        options: how the texts become ids.
        own: the tokenizer; None to learn one from the training texts.
        notes: lines for people.

    Raises:
        dlkit.errors.UsageError: there is nothing to learn a tokenizer from, or its vocabulary is too small.
        dlkit.errors.DataError: the texts have no words.
    """

    name: str
    classes: Sequence[str]
    texts: Mapping[str, Labelled]
    options: TextPreparation = field(default_factory=TextPreparation)
    own: Tokenizer | None = None
    notes: tuple[str, ...] = ()

    def as_trained(self, classes: Sequence[str], own: Tokenizer, max_length: int) -> "LabelledTexts":
        """The same texts read as a run does: with its tokenizer, and labels that count its classes.

        Raises:
            dlkit.errors.UsageError: a text is of a class that the run does not know.
        """
        if odd := [label for label in self.classes if label not in classes]:
            raise UsageError(
                f"{self.name} has a class that the run was not trained on: {odd[0]}",
                f"the run knows {', '.join(classes[:5])}{', ...' * (len(classes) > 5)}",
            )
        order = np.array([classes.index(label) for label in self.classes], np.int32)
        texts = {split: Labelled(each.texts, order[each.labels]) for split, each in self.texts.items()}
        options = replace(self.options, max_length=max_length)
        return replace(self, classes=list(classes), texts=texts, own=own, options=options)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Makes the ids."""
        if self.own is not None:
            return self.own
        if "train" not in self.texts:
            raise nothing_to_train_on(self.name, self.texts)
        if not len(self.texts["train"]):
            raise DataError(f"{self.name} has no text to train on", "a text a line, its label before it and a tab")
        options = self.options
        made = options.train(self.texts["train"].texts)
        if made.size == len(SPECIAL):
            raise DataError(
                f"no word of {self.name} occurs {options.min_count} times in the training texts",
                "lower data.min_count" if options.min_count > 1 else "its texts are empty",
            )
        return made

    @cached_property
    def splits(self) -> dict[str, TextSplit]:
        """Split name -> texts as ids."""
        return {name: self._encoded(each) for name, each in self.texts.items()}

    def _encoded(self, split: Labelled) -> TextSplit:
        parts, cut, most = [], 0, self.options.max_length
        for texts in some_at_once(split.texts):
            ids = self.tokenizer.encode_all(texts)
            cut += sum(len(each) > most for each in ids)
            parts.append(Ragged.of([each[:most] for each in ids]))
        return TextSplit(Ragged.joined(parts), split.labels, split.texts, cut)

    def remarks(self, of: str | None = None) -> list[str]:
        """What a user should know of the texts: duplicates, what is unknown, and what is not read of long ones.

        Args:
            of: the split; None for all of them, and what else there is to say.
        """
        lines = [] if of else list(self.notes)
        splits = {name: split for name, split in self.splits.items() if of in (None, name)}
        for name, split in splits.items():
            if split.cut:
                lines.append(
                    f"{split.cut:,} of {len(split):,} {name} texts have more than {self.options.max_length:,} tokens: "
                    "the rest of them is not read"
                )
        return [*lines, *unknown_shares({name: unknown_share(split.ids) for name, split in splits.items()})]

    def fingerprint(self) -> str:
        """sha256 of the training texts and their classes, whatever the tokenizer."""
        digest, train = hashlib.sha256(), self.texts["train"]
        for text, label in zip(train.texts, train.labels.tolist(), strict=True):
            digest.update(f"{self.classes[label]}\t{text}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def duplicates(texts: Mapping[str, Labelled]) -> list[str]:
    """What is to be told of texts that occur in several splits, or in training with several labels, a line each."""
    if "train" not in texts:
        return []
    train = texts["train"]
    label_of: dict[str, int] = {}  # a set of labels for each would take more memory than the texts
    several = set()
    for text, label in zip(train.texts, train.labels.tolist(), strict=True):
        plain = _plain(text)
        if label_of.setdefault(plain, label) != label:
            several.add(plain)
    lines = []
    for name, split in texts.items():
        if name != "train" and (again := sum(_plain(text) in label_of for text in split.texts)):
            lines.append(f"{again:,} of {len(split):,} {name} texts are training texts, too")
    if several:
        lines.append(f"{len(several):,} training texts have several labels")
    return lines


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


# --------------------------------------------------------------------------------------------------------------- parts


def stratified(labels: NDArray[np.int32], count: int, *, seed: int) -> NDArray[np.int64]:
    """Deals examples out to `count` parts, those of each class as evenly as can be; returns the part of each, (n,).

    Example:
        >>> np.bincount(stratified(np.zeros(10, np.int32), 5, seed=0)).tolist()
        [2, 2, 2, 2, 2]
    """
    part = np.empty(len(labels), np.int64)
    part[_by_class(labels, seed=seed)] = np.arange(len(labels)) % count
    return part


def _by_class(labels: NDArray[np.int32], *, seed: int) -> NDArray[np.int64]:
    """The examples class by class, those of each in an order that is drawn, (n,)."""
    mixed = np.random.default_rng(seed).permutation(len(labels))
    return mixed[np.argsort(labels[mixed], kind="stable")]


def size_of_part(size: HeldOut, count: int) -> int:
    """How many of so many texts are held out."""
    if size is None:
        return min(round(HELD_OUT * count), MOST_HELD_OUT)
    return round(size * count) if size < 1 else int(size)


def _held_out(labels: NDArray[np.int32], size: HeldOut, *, seed: int, what: str) -> NDArray[np.bool_]:
    """Which examples make a part of the given size, of each class its share, (n,)."""
    count = len(labels)
    wanted = size_of_part(size, count)
    if size and wanted >= count:
        raise UsageError(f"{wanted:,} texts for {what} leave nothing of {count:,} to train on", f"lower data.{what}")
    chosen = np.zeros(count, bool)
    if wanted:  # evenly spaced in an order by class
        chosen[_by_class(labels, seed=seed)[np.linspace(0, count - 1, wanted).round().astype(int)]] = True
    return chosen


def check_parts(
    texts: Collection[str],
    *,
    validation: HeldOut,
    test: HeldOut | Literal["all"],
    seed: int,
    folds: int | None = None,
    fold: int = 0,
) -> None:
    """Raises a UsageError when an option does not fit the splits that are there, or another option."""
    check_held_out(texts, validation=validation, test=test)
    there, undivided = ", ".join(texts), set(texts) == {"train"}
    if folds is not None and not undivided:
        raise UsageError(f"data.folds is for data without splits, not {there}", "leave it out")
    if folds is not None and test is not None:
        raise UsageError("data.folds and data.test exclude each other: the fold is the test part", "give one of them")
    if fold and folds is None:
        raise UsageError("data.fold is for data.folds, and that is not given", "such as `--set data.folds=10`")
    if folds is not None and fold >= folds:
        raise UsageError(f"data.fold is {fold}, and of {folds} folds the last is {folds - 1}", "they count from 0")
    if seed and "validation" in texts and ("test" in texts or test is None):
        raise UsageError(f"data.seed changes nothing: the data have the splits {there}", "leave it out")


def with_parts(
    texts: dict[str, Labelled],
    *,
    validation: HeldOut,
    test: HeldOut | Literal["all"],
    folds: int | None,
    fold: int,
    seed: int,
) -> dict[str, Labelled]:
    """Holds validation and test texts out of `train` where there are none; with `folds` one fold is the test part.

    Raises:
        dlkit.errors.UsageError: something is given for a part that is there, or nothing would be left to train on.
    """
    check_parts(texts, validation=validation, test=test, folds=folds, fold=fold, seed=seed)
    undivided = set(texts) == {"train"}
    if test == "all":
        return {"test": texts["train"]}
    parts = dict(texts)
    if folds is not None:
        everything = texts["train"]
        if len(everything) < folds:
            raise UsageError(f"{len(everything):,} texts do not make {folds} folds", "lower data.folds")
        in_fold = stratified(everything.labels, folds, seed=seed) == fold
        parts = {"train": everything.take(np.flatnonzero(~in_fold)), "test": everything.take(np.flatnonzero(in_fold))}
    elif "test" not in texts and (undivided or test is not None):
        held = _held_out(texts["train"].labels, test, seed=seed, what="test")
        parts |= {
            "train": texts["train"].take(np.flatnonzero(~held)),
            "test": texts["train"].take(np.flatnonzero(held)),
        }
    if "validation" not in texts:
        train = parts["train"]
        # Not the draw of the test part again; each fold has its own.
        held = _held_out(train.labels, validation, seed=seed + 1 + fold, what="validation")
        parts |= {"train": train.take(np.flatnonzero(~held)), "validation": train.take(np.flatnonzero(held))}
    return {role: parts[role] for role in (*ROLES, *parts) if role in parts and (role == "train" or len(parts[role]))}


# --------------------------------------------------------------------------------------------------------------- files


@partial(prepared, how=TextPreparation)
def labelled_texts(
    name: str,
    *,
    label_column: str | None = None,
    text_column: str | None = None,
    validation: HeldOut = None,
    test: HeldOut | Literal["all"] = None,
    folds: Annotated[int, Field(ge=2)] | None = None,
    fold: Annotated[int, Field(ge=0)] = 0,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> LabelledTexts:
    """Labelled texts from files in UTF-8, each plain or `.gz`, a text a line.

    `name` is one of: a table `x.tsv` with a tab between its columns; a folder with `train.tsv` and perhaps
    `validation.tsv` (`valid`, `val`, `dev`) and `test.tsv`; a folder with one file for each class, whose name is what
    the files differ in: `rt-polarity.neg` and `rt-polarity.pos`, or `neg.txt` and `pos.txt`.

    The first line of a table is a heading when it names a column `label` (or `class`) and a column `text` (or
    `sentence`), or those that `label_column` and `text_column` say. Without a heading there are two columns, the label
    first. Empty lines are passed over, in tables only.

    Args:
        name: see above.
        label_column: name of the column with the labels.
        text_column: name of the column with the texts.
        validation: size of the validation part where there is none, below 1 as a share; by default a tenth, at most
            2,000. Each class gives its share.
        test: the same for the test part where there is none; by default none is held out of data that have another
            split. `all` leaves none to train on, where there are no splits at all.
        folds: divide the texts into so many folds, of which one is the test part: for cross-validation.
        fold: which one, from 0.
        seed: chooses the parts.

    Raises:
        dlkit.errors.DataError: a file is missing, unreadable, empty or no UTF-8, or a line has other columns.
        dlkit.errors.UsageError: options that do not fit the data.

    Example:
        >>> labelled_texts("rt-polarity", folds=10, fold=3).classes
        ['neg', 'pos']
    """
    path = file_system.expanded(name)
    columns = (label_column, text_column)
    notes: list[str] = []
    if file_system.is_folder(path):
        tables = _tables_of(path)
        if not tables and any(columns):
            raise UsageError("data.label_column and data.text_column are for tables", "leave them out")
        by_class = _files_of_classes(path, notes) if not tables else {}
        found = (
            {role: _table(file, *columns, notes) for role, file in tables.items()}
            if tables
            else {"train": _of_classes(by_class)}
        )
    else:
        found = {"train": _table(path, *columns, notes)}
    # As in `ls`: a number is no name, so 10 comes after 9.
    every = {label for rows in found.values() for label in rows.labels}
    classes = sorted(every, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))
    place = {label: at for at, label in enumerate(classes)}
    texts = {
        role: Labelled(rows.texts, np.fromiter((place[label] for label in rows.labels), np.int32, len(rows.labels)))
        for role, rows in found.items()
    }
    for role, split in texts.items():
        if not len(split):
            raise DataError(f"{name} has no {role} texts" if len(texts) > 1 else f"{name} has no texts: it is empty")
    if len(classes) < 2 and test != "all":
        raise DataError(f"{name} has one class, {classes[0]}: there is nothing to tell apart", _LAYOUTS)
    texts = with_parts(texts, validation=validation, test=test, folds=folds, fold=fold, seed=seed)
    return LabelledTexts(name, classes, texts, notes=(*notes, *duplicates(texts)))


_LAYOUTS = "a table has `label<TAB>text` a line; of files a folder has one for each class, such as neg.txt and pos.txt"


def is_labelled(root: Path) -> bool:
    """Whether a folder holds labelled texts, and no folders or images."""
    entries = [path for path in file_system.entries(root) if not path.name.startswith(".")]
    if any(file_system.is_folder(path) or path.name.casefold().endswith(SUFFIXES) for path in entries):
        return False
    try:
        return bool(_tables_of(root) or _files_of_classes(root, []))
    except DataError:
        return False


def is_undivided(name: str) -> bool:
    """Whether a data name means labelled texts in files that are in no splits."""
    path = file_system.expanded(name)
    return file_system.is_file(path) or (file_system.is_folder(path) and set(_tables_of(path)) <= {"train"})


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, made as they are wanted: short ones take many times the memory of their text."""
    try:
        text = read_text(path, zero_bytes=False)
    except DataError as failure:
        if "is not UTF-8" not in failure.message:
            raise
        new = path.with_suffix("") if path.suffix == ".gz" else path
        hint = f"of a text in Latin-1 `iconv -f latin1 -t utf-8 {new.name} > new.{new.name}` makes one in UTF-8"
        raise DataError(failure.message, hint) from None
    return (line.removesuffix("\r") for line in lines_of(text))


def _entries(root: Path) -> list[Path]:
    return [path for path in file_system.entries(root) if file_system.is_file(path) and not path.name.startswith(".")]


def _tables_of(root: Path) -> dict[str, Path]:
    """Split -> table of a folder with `train.tsv`; empty for other folders."""
    found = files_by_role(root, [TABLE])
    if found and "train" not in found:
        raise DataError(f"{root} has {', '.join(path.name for path in found.values())} and no train{TABLE}", _LAYOUTS)
    return found


def _files_of_classes(root: Path, notes: list[str]) -> dict[str, Path]:
    """Class -> file: the suffixes of files that are called the same but for them, else the names of `.txt` files."""
    by_stem: dict[str, dict[str, list[Path]]] = {}
    named: dict[str, list[Path]] = {}
    entries = _entries(root)
    for path in entries:
        name = path.name.removesuffix(".gz")
        stem, dot, suffix = name.rpartition(".")
        if _NO_CLASSES.fullmatch(name):
            continue
        if dot and stem and suffix.lower() not in _FORMATS:
            by_stem.setdefault(stem, {}).setdefault(suffix, []).append(path)
        elif suffix.lower() == "txt":
            named.setdefault(stem, []).append(path)
    groups = {stem: files for stem, files in by_stem.items() if len(files) > 1}
    if len(groups) > 1:
        first, second = list(groups)[:2]
        raise DataError(f"{root} has files of classes under several names: {first} and {second}", _LAYOUTS)
    files = next(iter(groups.values())) if groups else named
    if len(files) < 2:
        raise DataError(f"{root} has no labelled texts", _LAYOUTS)
    for label, paths in files.items():
        if len(paths) > 1:
            raise DataError(f"{root} has the class {label} twice: {paths[0].name} and {paths[1].name}", "remove one")
    chosen = {label: paths[0] for label, paths in files.items()}
    if others := [path.name for path in entries if path not in chosen.values()]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        notes.append(f"left out {', '.join(others[:3])}{more}: the classes are {', '.join(chosen)}")
    return chosen


class Rows(NamedTuple):
    """The labels of texts, and the texts."""

    labels: list[str]
    texts: list[str]


def _of_classes(files: Mapping[str, Path]) -> Rows:
    """The lines of files, of which each is one class."""
    rows = Rows([], [])
    for label, file in files.items():
        rows.texts.extend(_lines(file))
        rows.labels.extend([label] * (len(rows.texts) - len(rows.labels)))
    return rows


def _table(path: Path, label: str | None, text: str | None, notes: list[str]) -> Rows:
    """What is in a table."""
    if not file_system.exists(path):
        raise not_there("file", path)
    if not path.name.removesuffix(".gz").casefold().endswith((TABLE, ".txt")):
        raise DataError(f"{path} is no table of labelled texts: its name does not end in {TABLE}", _LAYOUTS)
    lines = _lines(path)
    if (first := next(lines, None)) is None:
        raise DataError(f"{path} is empty", _LAYOUTS)
    cells = [cell.strip().casefold() for cell in first.split("\t")]
    wanted = [(label, LABEL_NAMES, "label"), (text, TEXT_NAMES, "text")]
    at: list[int] = []
    for own, usual, what in wanted:
        known = [own.strip().casefold()] if own is not None else usual
        places = [cells.index(name) for name in known if name in cells]
        if own is not None and not places:
            raise DataError(f"{path} has no column {own}: its first line is {_shown(first)}", f"see data.{what}_column")
        at += places[:1]
    has_heading = len(at) == 2 and at[0] != at[1]
    if not has_heading:
        at = [0, 1]
    columns = len(cells) if has_heading else 2
    rows, empty = Rows([], []), 0
    names: dict[str, str] = {}
    for number, line in enumerate(lines if has_heading else chain([first], lines), 1 + has_heading):
        if not line.strip():
            empty += 1
            continue
        parts = line.split("\t")
        if len(parts) != columns:
            raise DataError(
                f"{path} line {number:,} has {len(parts)} column{'s' * (len(parts) != 1)}, not {columns}",
                "as its first line has" if has_heading else f"{_LAYOUTS}; a first line may name the columns",
            )
        if not (name := parts[at[0]].strip()):
            raise DataError(f"{path} line {number:,} has no label", _LAYOUTS)
        rows.labels.append(names.setdefault(name, name))  # of each label one string alone is kept
        rows.texts.append(parts[at[1]])
    if empty:
        notes.append(f"passed over {empty:,} empty line{'s' * (empty > 1)} of {path.name}")
    if len(names) > max(1000, len(rows.texts) // 2):
        ((most, _),) = Counter(rows.labels).most_common(1)
        raise DataError(
            f"{path} has {len(rows.texts):,} texts and nearly as many labels, such as {_shown(most)}", _LAYOUTS
        )
    return rows


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
