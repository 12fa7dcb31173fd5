"""Texts for language models: from files, folders and prepared sets to ids, in one stream or text by text.

A corpus is its texts by split, how to prepare them (`CorpusPreparation`), and a tokenizer. With the units `text` all of
a split is one stream of ids that is cut into blocks; with `lines` each line is a sequence of its own, between a start
and a stop token.
"""

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit import file_system
from dlkit.data import tfds_files, tfds_names
from dlkit.data.pairs import Ragged, inputs_and_targets, padded_length, prepared, unknown_shares
from dlkit.data.split_files import files_by_role
from dlkit.data.split_names import ROLES, check_held_out, own_names
from dlkit.data.text_files import lines_of, read_text, some_at_once
from dlkit.data.tokenizer import END, PAD, START, UNKNOWN, CharacterTokenizer, Kind, Tokenizer
from dlkit.data.tokenizer_options import TokenizerOptions
from dlkit.errors import DataError, UsageError, nothing_to_train_on

Share = Annotated[float, Field(ge=0, lt=1)]
TEXT = ".txt"

# So many characters from where a text is to be divided, another place is still the same; no word has so many.
REACH = 1000


@dataclass(frozen=True, kw_only=True)
class CorpusPreparation(TokenizerOptions):
    """How texts become ids and training sequences. All corpora have these options.

    Args:
        units: `text` is one stream, cut into blocks wherever they end; `lines` are sequences of their own.
        block: tokens of a training sequence, over which gradients flow; of `lines` the most that one has, its stop
            token included, and longer ones are left out of training.
        carry: whether a training sequence begins with the state that the one before it has left (truncated
            back-propagation through time), with batches of parallel streams; by default where a model has a state.
            Without it sequences are shuffled. For `text`.
    """

    tokenizer: Kind = "char"
    min_count: Annotated[int, Field(ge=1)] = 1
    units: Literal["text", "lines"] = "text"
    block: Annotated[int, Field(ge=1)] = 64
    carry: bool | None = None

    @property
    def is_running(self) -> bool:
        """Whether a text is one row of characters, of which line ends are some."""
        return self.tokenizer == "char" and self.units == "text"


# ----------------------------------------------------------------------------------------------------------------- ids


@dataclass(frozen=True)
class Stream:
    """One split as a single run of ids; an example is a block of them.

    Args:
        ids: (n,) int32. The first one is given, all others are to be predicted.
        characters: that all ids but the first stand for, line ends included.
        block: tokens of an example.
    """

    ids: NDArray[np.int32]
    characters: int
    block: int

    def __len__(self) -> int:
        """Blocks, the last one perhaps shorter than the others."""
        return (self.predicted + self.block - 1) // self.block

    @property
    def predicted(self) -> int:
        """Ids that are to be predicted."""
        return max(0, len(self.ids) - 1)

    @property
    def unknown(self) -> int:
        """How many of them stand for what is not in the vocabulary."""
        return int((self.ids[1:] == UNKNOWN).sum())

    def limited(self, blocks: int) -> "Stream":
        """The first so many blocks, with their share of the characters."""
        ids = self.ids[: blocks * self.block + 1]
        share = (len(ids) - 1) / max(1, self.predicted)
        return replace(self, ids=ids, characters=round(share * self.characters))

    def batch(self, offsets: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The blocks that begin at some places: inputs, and as targets the ids after them; 0 behind the end.

        Args:
            offsets: (n,) places in `ids`.

        Returns:
            Two of (n, block) int32.
        """
        places = offsets[:, np.newaxis] + np.arange(self.block)
        there = places < self.predicted
        inputs = np.where(there, self.ids[np.where(there, places, 0)], PAD)
        targets = np.where(there, self.ids[np.where(there, places + 1, 0)], PAD)
        return inputs.astype(np.int32), targets.astype(np.int32)


@dataclass(frozen=True)
class Lines:
    """One split as sequences that know nothing of each other.

    Args:
        rows: their ids, without start and stop.
        of_each: (n,) characters of each line, its end included.
    """

    rows: Ragged
    of_each: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.rows)

    @property
    def predicted(self) -> int:
        """Ids that are to be predicted, the stop tokens included."""
        return int(self.rows.lengths.sum()) + len(self.rows)

    @property
    def unknown(self) -> int:
        """How many of them stand for what is not in the vocabulary."""
        return int((self.rows.flat == UNKNOWN).sum())

    @property
    def characters(self) -> int:
        """Of all lines, their ends included."""
        return int(self.of_each.sum())

    @cached_property
    def longest(self) -> int:
        """Ids of the longest one, its stop token included."""
        return int(self.rows.lengths.max(initial=0)) + 1

    def take(self, rows: NDArray[np.int64]) -> "Lines":
        """The sequences at `rows`, in that order."""
        return Lines(self.rows.take(rows), self.of_each[rows])

    def no_longer(self, most: int) -> NDArray[np.int64]:
        """Which ones have at most so many ids, the stop token included, rising."""
        return np.flatnonzero(self.rows.lengths < most)

    def limited(self, rows: int) -> "Lines":
        """The first so many."""
        return self.take(np.arange(min(rows, len(self))))

    def batch(self, indices: NDArray[np.int64], *, step: int = 1) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The sequences at `indices`: inputs `<s> y` and targets `y </s>`, padded with 0 to a multiple of `step`."""
        longest = int(self.rows.lengths[indices].max(initial=0)) + 1
        rows = [self.rows[at] for at in indices.tolist()]
        return inputs_and_targets(rows, length=padded_length(longest, most=self.longest, step=step))


# -------------------------------------------------------------------------------------------------------------- corpus


@dataclass(frozen=True)
class CorpusData:
    """A corpus; ids and the tokenizer are made when they are first asked for.

    Args:
        name: the name it is loaded by.
        texts: split name -> its texts; without `train` they are for tests only.
        options: how the texts become ids.
        own: the tokenizer of a run; None to train one on the training texts.
        notes: lines for people.

    Raises:
        dlkit.errors.DataError: there is nothing to train or to test on.
        dlkit.errors.UsageError: the vocabulary is too small for the text, or there is no text to learn it from.
    """

    name: str
    texts: Mapping[str, Sequence[str]]
    options: CorpusPreparation = field(default_factory=CorpusPreparation)
    own: Tokenizer | None = None
    notes: tuple[str, ...] = ()

    def with_tokenizer(self, own: Tokenizer) -> "CorpusData":
        """The same texts with the tokenizer of a run, so that none is trained."""
        return replace(self, own=own)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Makes the ids."""
        if self.own is not None:
            return self.own
        if "train" not in self.texts:
            raise nothing_to_train_on(self.name, self.texts)
        self._check_text()
        options = self.options
        texts: Iterable[str] = self.texts["train"]
        if not options.is_running:  # else the line ends are characters, too
            texts = (line for line in text_lines(texts) if line)
        return options.train(texts)

    def _check_text(self) -> None:
        if all(map(_is_blank, self.texts["train"])):
            raise DataError(f"{self.name} has no text to train on", "the file is empty, or has white space only")

    @property
    def keeps_lines(self) -> bool:
        """Whether line ends are characters among others in a stream; else each is a stop token."""
        return isinstance(self.tokenizer, CharacterTokenizer)

    @cached_property
    def splits(self) -> dict[str, Stream | Lines]:
        """Split name -> ids; splits in which nothing is to be predicted are left out."""
        return self._encoded[0]

    @cached_property
    def _encoded(self) -> tuple[dict[str, Stream | Lines], list[str]]:
        if "train" in self.texts:
            self._check_text()
        encode = self._lines_of if self.options.units == "lines" else self._stream_of
        splits = {name: encode(texts) for name, texts in self.texts.items()}
        notes = []
        train = splits.get("train")
        if isinstance(train, Lines):
            fit = train.no_longer(self.options.block)
            if len(fit) < len(train):
                notes.append(
                    f"left {len(train) - len(fit):,} of {len(train):,} training lines out: "
                    f"more than {self.options.block:,} tokens with the stop token (data.block)"
                )
                splits["train"] = train = train.take(fit)
        if train is not None and not train.predicted:
            raise DataError(f"{self.name} has nothing to train on", "there is no token whose next one is known")
        empty = [name for name, split in splits.items() if not split.predicted]
        if len(empty) == len(splits):
            raise DataError(
                f"{self.name} has no text to {' or '.join(empty)} on", "there is no token whose next one is known"
            )
        notes += [f"no {name} split: nothing would be predicted in it" for name in empty]
        return {name: split for name, split in splits.items() if name not in empty}, notes

    def remarks(self) -> list[str]:
        """What became of the texts, a line each."""
        shares = {name: split.unknown / split.predicted for name, split in self.splits.items()}
        return [*self.notes, *self._encoded[1], *unknown_shares(shares)]

    @property
    def first(self) -> int:
        """The id that comes before all text: the start of a line, or what stands between lines or texts."""
        if self.options.units == "lines":
            return START
        if not self.keeps_lines or len(self.texts["train"]) > 1:
            return END
        (newline,) = self.tokenizer.encode("\n")
        return newline if newline != UNKNOWN else int(self.tokenizer.encode(self.texts["train"][0][:1])[0])

    def fingerprint(self) -> str:
        """sha256 of the training ids."""
        train, digest = self.splits["train"], hashlib.sha256()
        digest.update(train.ids.tobytes() if isinstance(train, Stream) else train.rows.flat.tobytes())
        if isinstance(train, Lines):
            digest.update(train.rows.lengths.tobytes())
        return digest.hexdigest()

    def _lines_of(self, texts: Sequence[str]) -> Lines:
        parts, of_each = [], [np.zeros(0, np.int64)]
        for lines in some_at_once(line for line in text_lines(texts) if line.strip()):
            parts.append(Ragged.of(self.tokenizer.encode_all(lines)))
            of_each.append(np.fromiter(map(len, lines), np.int64, len(lines)) + 1)
        return Lines(Ragged.joined(parts), np.concatenate(of_each))

    def _stream_of(self, texts: Sequence[str]) -> Stream:
        """Texts with a stop token between two of them; but for characters one also before each line."""
        if self.keeps_lines:
            between = np.array([END], np.int32)
            parts = [part for text in texts for part in (between, self._characters(text))][1:]
            ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
            return Stream(ids, max(0, len(ids) - 1), self.options.block)
        parts, characters = [], 0
        for lines in some_at_once(text_lines(text for text in texts if not _is_blank(text))):
            encoded = ((END, *row) for row in self.tokenizer.encode_all(lines))
            parts.append(np.fromiter(chain.from_iterable(encoded), np.int32))
            characters += sum(map(len, lines)) + len(lines)
        if parts:
            parts.append(np.array([END], np.int32))
        return Stream(np.concatenate(parts) if parts else np.zeros(0, np.int32), characters, self.options.block)

    def _characters(self, text: str) -> NDArray[np.int32]:
        """The ids of single characters by way of a table of code points, which takes 8 bytes a character, not 50."""
        assert isinstance(self.tokenizer, CharacterTokenizer)
        if self.tokenizer.lower:
            text = text.lower()
        known = self.tokenizer.characters
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = np.full(max([*map(ord, known), int(codes.max(initial=0))]) + 1, UNKNOWN, np.int32)
        ids[[ord(character) for character in known]] = self.tokenizer.encode(known)
        return ids[codes]


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def text_lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of several texts, see `text_files.lines_of`."""
    return chain.from_iterable(map(lines_of, texts))


# ------------------------------------------------------------------------------------------------------------- corpora


@partial(prepared, how=CorpusPreparation)
def shakespeare(*, options: CorpusPreparation) -> CorpusData:
    """Forty thousand lines of Shakespeare's plays, 1.1 million characters; the last tenth is to validate on.

    The text of Karpathy's "The unreasonable effectiveness of recurrent neural networks" (2015), divided as usual: after
    nine tenths of its characters, and where lines or words are read at the end of the line.

    Args:
        options: how it is read.

    Example:
        >>> shakespeare().texts["train"][0][:14]
        'First Citizen:'
    """
    with resources.files("dlkit.data").joinpath("files/shakespeare.txt.gz").open("rb") as file:
        text = gzip.decompress(file.read()).decode()
    cut = _seam(text, int(0.9 * len(text)), options)
    return CorpusData("shakespeare", {"train": [text[:cut]], "validation": [text[cut:]]})


SENTENCES = ("I think therefore I am", "I like machine learning", "I am not just a neural network")


def three_sentences() -> CorpusData:
    r"""Three sentences that begin alike, to see why a model has to read what it has said.

    Trained on them, a language model knows at each step what words come there. Drawn step by step from that alone they
    make nonsense; with each word fed back they make one of the three. There is nothing to validate or test on.

    Example:
        >>> three_sentences().texts["train"][0]
        'I think therefore I am\nI like machine learning\nI am not just a neural network\n'
    """
    text = "".join(f"{sentence}\n" for sentence in SENTENCES)
    return CorpusData("three_sentences", {"train": [text]}, CorpusPreparation(tokenizer="word", units="lines", block=8))


@partial(prepared, how=CorpusPreparation)
def text(
    name: str,
    *,
    options: CorpusPreparation,
    validation: Share | None = None,
    test: Share | Literal["all"] | None = None,
) -> CorpusData:
    """Text in UTF-8, plain or `.gz`: any file, or a folder with `train.txt` and perhaps `val.txt` and `test.txt`.

    `valid`, `dev` and `validation` mean the same as `val`. What is held out is the end of the text: shuffled pieces of
    it would stand between what was trained on. Running text of characters is divided at the character, all else at the
    nearest line end, or of running text between two words where none is near; of lines each is in one part.

    Args:
        name: the file or the folder.
        options: how it is read.
        validation: share of the text to validate on where there is no such file; by default 0.1.
        test: share of the text to test on where there is no such file; by default none. `all` leaves none to train on,
            where there are no splits.

    Raises:
        dlkit.errors.DataError: a file is missing, unreadable, no UTF-8, binary, or too large for the memory.
        dlkit.errors.UsageError: a share is given for a split that is there.

    Example:
        >>> text("novel.txt").texts.keys()
        dict_keys(['train', 'validation'])
    """
    path = file_system.expanded(name)
    found = _of_folder(path) if file_system.is_folder(path) else {"train": read(path)}
    check_held_out(found, validation=validation, test=test)
    if test == "all":
        return CorpusData(name, {"test": [found["train"]]})
    held = {"validation": 0.1 if validation is None else validation, "test": test or 0.0}
    held = {role: share for role, share in held.items() if share and role not in found}
    if sum(held.values()) >= 1:
        raise UsageError("data.validation and data.test leave nothing to train on", "lower one of them")
    if "train" in found:
        found |= _divided(found["train"], held, options)
    elif validation or test:
        role = "validation" if validation else "test"
        raise UsageError(f"{name} has no train.txt that data.{role} could be held out of", "leave it out")
    return CorpusData(name, {role: [found[role]] for role in ROLES if role in found})


def is_undivided(name: str) -> bool:
    """Whether a data name means text in one file, or a folder with nothing but `train.txt`."""
    path = file_system.expanded(name)
    return not file_system.is_folder(path) or set(files_by_role(path, [TEXT])) == {"train"}


def _divided(whole: str, held: Mapping[str, float], options: CorpusPreparation) -> dict[str, str]:
    """A text as `train` and what is held out of its end: role -> share, in their order."""
    place, cuts = len(whole) - sum(round(share * len(whole)) for share in held.values()), [0]
    for share in held.values():
        cuts.append(max(cuts[-1], _seam(whole, place, options)))
        place += round(share * len(whole))
    stops = [*cuts[1:], len(whole)]
    return {role: whole[start:stop] for role, start, stop in zip(("train", *held), cuts, stops, strict=True)}


def _seam(text: str, place: int, options: CorpusPreparation) -> int:
    """Where a text is divided that is to be so at `place`: there, or where it tears no line, or at least no word.

    That is the nearest line end. Where none is near, or that is the end of the text, so that nothing would be held out,
    running text is divided at a line end before it or a space that is not far away.
    """
    if options.is_running or place == len(text):
        return place
    before, after = text.rfind("\n", 0, place) + 1, text.find("\n", place) + 1 or len(text)
    nearest = before if before and place - before <= after - place else after
    if options.units == "lines" or (nearest < len(text) and abs(nearest - place) <= REACH):
        return nearest
    if before and place - before <= REACH:
        return before
    start, stop = max(0, place - REACH), min(len(text), place + REACH)
    ends = [start + space.end() for space in re.finditer(r"\s", text[start:stop])]
    if not ends:  # one word, or writing that has no spaces between them
        return len(text) if options.tokenizer == "word" else place
    return min([*ends, *([stop] if stop == len(text) else [])], key=lambda end: abs(end - place))


def _of_folder(root: Path) -> dict[str, str]:
    found = files_by_role(root, [TEXT])
    if not found:
        raise DataError(f"{root} has no train.txt", "and perhaps val.txt and test.txt beside it, plain or .gz")
    return {role: read(path) for role, path in found.items()}


@partial(prepared, how=CorpusPreparation)
def tfds_text(
    name: str,
    *,
    options: CorpusPreparation,
    dir: Path | None = None,  # noqa: A002 - the recipe's key is data.dir
    validation: Share | None = None,
) -> CorpusData:
    """The texts of a set of TensorFlow Datasets that has one text a record, prepared with `dlkit data prepare`.

    Of several texts a record it is the one that is called `text`.

    Args:
        name: `lm1b`, `wiki40b/en`, `imdb_reviews`, `tiny_shakespeare`.
        options: how they are read.
        dir: the folder of prepared data; by default TFDS_DATA_DIR, else `~/tensorflow_datasets`.
        validation: share of the training records to validate on where there is no such split; by default 0.1.

    Raises:
        dlkit.errors.DataError: the set is not prepared, or only half, or too large for the memory.
        dlkit.errors.UsageError: its records have no text or several, or nothing is there to train on.
    """
    from dlkit.data.tfds_prepare import obtain

    found = obtain(name, tfds_names.data_dir(dir), wanted=feature_of)
    feature = feature_of(name, found.features, found.supervised)
    roles = own_names(found.splits)
    if "train" not in roles:
        raise UsageError(f"{name} has nothing to train on: its splits are {', '.join(found.splits)}")
    check_held_out(roles, validation=validation)
    texts: dict[str, Sequence[str]] = {}
    for role, split in roles.items():
        (texts[role],) = tfds_files.texts(found, split, [feature])
    if "validation" not in roles:
        records, share = texts["train"], 0.1 if validation is None else validation
        if len(records) == 1:  # one long text
            texts |= {role: [part] for role, part in _divided(records[0], {"validation": share}, options).items()}
        elif held := round(share * len(records)):
            texts["train"], texts["validation"] = records[:-held], records[-held:]
    return CorpusData(name, texts)


def feature_of(name: str, features: dict[str, Any], supervised: tuple[str, str] | None) -> str:
    """The feature that is the text of a record.

    Args:
        name: of the set.
        features: as in `tfds_files.Prepared`.
        supervised: not looked at.

    Raises:
        dlkit.errors.UsageError: there is none, or several; it says what the set has.
    """
    found = [key for key, value in features.items() if value["kind"] == "text"]
    if "text" in found:  # beside it there may be names and numbers, as in wiki40b
        found = ["text"]
    if len(found) != 1:
        has = ", ".join(f"{key} ({value['kind']})" if key else value["kind"] for key, value in features.items())
        raise UsageError(f"{name} has not one text a record: it has {has}", "sets that do: lm1b, imdb_reviews")
    return found[0]


def read(path: Path) -> str:
    r"""A text in UTF-8, plain or `.gz`, without a BOM; `\r\n` ends a line as `\n` does.

    Raises:
        dlkit.errors.DataError: the file is missing, unreadable, no UTF-8, binary, or too large for the memory.
    """
    return read_text(path, zero_bytes=False).replace("\r\n", "\n")
