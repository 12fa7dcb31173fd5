"""Texts for language models: from files, folders and prepared sets to ids, in one stream or text by text.

A corpus is its texts by split, how to prepare them (`Preparation`), and a tokenizer. With the units `text` all of a
split is one stream of ids that is cut into blocks; with `lines` each line is a sequence of its own, between a start and
a stop token.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlkit.data import tfds_files, tfds_names, tokenizer
from dlkit.data.pairs import Ragged, prepared
from dlkit.data.split_files import files_by_role
from dlkit.data.split_names import ROLES, own_names
from dlkit.data.tokenizer import END, PAD, START, UNKNOWN, CharacterTokenizer, Kind, Normalization, Tokenizer
from dlkit.errors import DataError, UsageError, not_there, unreadable
from dlkit.runtime import memory

Share = Annotated[float, Field(ge=0, lt=1)]

# A text needs about so many bytes of memory for each of its own: as text, as ids, and while one becomes the other.
BYTES_EACH = 12
CHUNK = 1 << 24
LINES_AT_ONCE = 50_000


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How texts become ids and training sequences. All corpora have these options.

    Args:
        tokenizer: `char` single characters, `word` what is apart by white space, `unigram` and `bpe` pieces of words.
        vocabulary: most ids of a tokenizer, the four special ones included.
        min_count: words that occur less often in training are `<unk>`; for `word`.
        coverage: share of the training text that the known characters make up; not for `word`.
        normalization: `nmt_nfkc` takes compatible characters and all white space as the same, `identity` leaves text
            alone; for `unigram` and `bpe`.
        lower: turn texts into lower case.
        units: `text` is one stream, cut into blocks wherever they end; `lines` are sequences of their own.
        block: tokens of a training sequence, over which gradients flow; of `lines` the most that one has, its stop
            token included, and longer ones are left out of training.
        carry: whether a training sequence begins with the state that the one before it has left (truncated
            back-propagation through time), with batches of parallel streams; by default where a model has a state.
            Without it sequences are shuffled. For `text`.
    """

    tokenizer: Kind = "char"
    vocabulary: Annotated[int, Field(ge=8)] = 8000
    min_count: Annotated[int, Field(ge=1)] = 1
    coverage: Annotated[float, Field(gt=0.9, le=1)] = 1.0
    normalization: Normalization = "nmt_nfkc"
    lower: bool = False
    units: Literal["text", "lines"] = "text"
    block: Annotated[int, Field(ge=1)] = 64
    carry: bool | None = None


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
        lengths = self.rows.lengths[indices]
        time = min(-(int(lengths.max(initial=0)) + 1) // step * -step, self.longest)
        inputs, targets = np.full((2, len(indices), time), PAD, np.int32)
        inputs[:, 0] = START
        for row, at in enumerate(indices.tolist()):
            ids = self.rows[at]
            inputs[row, 1 : len(ids) + 1] = ids
            targets[row, : len(ids)] = ids
            targets[row, len(ids)] = END
        return inputs, targets


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
    options: Preparation = field(default_factory=Preparation)
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
            raise UsageError(
                f"{self.name} has nothing to train on: it has only {' and '.join(self.texts)}",
                "`dlkit evaluate RUN --data NAME` tests a run on such data",
            )
        if not any(map(str.strip, self.texts["train"])):
            raise DataError(f"{self.name} has no text to train on", "the file is empty, or has white space only")
        options = self.options
        # Of characters the line ends are some, too.
        whole = options.tokenizer == "char" and options.units == "text"
        texts = self.texts["train"] if whole else [line for line in text_lines(self.texts["train"]) if line]
        return tokenizer.train(
            options.tokenizer, texts, size=options.vocabulary, min_count=options.min_count, coverage=options.coverage,
            normalization=options.normalization, lower=options.lower,
        )  # fmt: skip

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
        notes = [*self.notes, *self._encoded[1]]
        shares = []
        for name, split in self.splits.items():
            ids = split.ids if isinstance(split, Stream) else split.rows.flat
            if ids.size and (share := float((ids == UNKNOWN).mean())):
                shares.append(f"{share:.2%} of {name}")
        return notes + ([f"unknown tokens: {', '.join(shares)}"] if shares else [])

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
        lines = [line for line in text_lines(texts) if line.strip()]
        of_each = np.fromiter(map(len, lines), np.int64, len(lines)) + 1
        return Lines(Ragged.of(self.tokenizer.encode_all(lines)), of_each)

    def _stream_of(self, texts: Sequence[str]) -> Stream:
        """Texts with a stop token between two of them; but for characters one also before each line."""
        if self.keeps_lines:
            between = np.array([END], np.int32)
            parts = [part for text in texts for part in (between, self._characters(text))][1:]
            ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
            return Stream(ids, max(0, len(ids) - 1), self.options.block)
        parts, characters, lines = [], 0, list(text_lines(texts))
        for at in range(0, len(lines), LINES_AT_ONCE):
            some = lines[at : at + LINES_AT_ONCE]
            encoded = self.tokenizer.encode_all(some)
            parts += [np.array([END, *row], np.int32) for row in encoded]
            characters += sum(map(len, some)) + len(some)
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


def text_lines(texts: Iterable[str]) -> Iterable[str]:
    r"""The lines of texts: they end with `\n` and nothing else, the last one perhaps without it."""
    for text in texts:
        yield from text.removesuffix("\n").split("\n")


# ------------------------------------------------------------------------------------------------------------- corpora


@partial(prepared, how=Preparation)
def shakespeare() -> CorpusData:
    """Forty thousand lines of Shakespeare's plays, 1.1 million characters; the last tenth is to validate on.

    The text of Karpathy's "The unreasonable effectiveness of recurrent neural networks" (2015), divided as usual: after
    nine tenths of its characters.

    Example:
        >>> shakespeare().texts["train"][0][:14]
        'First Citizen:'
    """
    with resources.files("dlkit.data").joinpath("files/shakespeare.txt.gz").open("rb") as file:
        text = gzip.decompress(file.read()).decode()
    cut = int(0.9 * len(text))
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
    return CorpusData("three_sentences", {"train": [text]}, Preparation(tokenizer="word", units="lines", block=8))


@partial(prepared, how=Preparation)
def text(name: str, *, validation: Share | None = None, test: Share | Literal["all"] | None = None) -> CorpusData:
    """Text in UTF-8, plain or `.gz`: any file, or a folder with `train.txt` and perhaps `val.txt` and `test.txt`.

    `valid`, `dev` and `validation` mean the same as `val`. What is held out is the end of the text: shuffled pieces of
    it would stand between what was trained on.

    Args:
        name: the file or the folder.
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
    path = Path(name).expanduser()
    found = _of_folder(path) if path.is_dir() else {"train": read(path)}
    if test == "all":
        if set(found) != {"train"}:
            raise UsageError(f"data.test=all is for data without splits, not {', '.join(found)}", "leave it out")
        return CorpusData(name, {"test": [found["train"]]})
    for role, share in (("validation", validation), ("test", test)):
        if share and role in found:
            raise UsageError(f"data.{role} is for data without such a split, and these have one", "leave it out")
    held = {"validation": 0.1 if validation is None else validation, "test": test or 0.0}
    held = {role: share for role, share in held.items() if share and role not in found}
    if sum(held.values()) >= 1:
        raise UsageError("data.validation and data.test leave nothing to train on", "lower one of them")
    whole = found["train"]
    start = cut = len(whole) - sum(round(share * len(whole)) for share in held.values())
    for role, share in held.items():
        stop = start + round(share * len(whole))
        found[role] = whole[start:stop]
        start = stop
    found["train"] = whole[:cut]
    return CorpusData(name, {role: [found[role]] for role in ROLES if role in found})


def _of_folder(root: Path) -> dict[str, str]:
    found = files_by_role(root, [".txt"])
    if "train" not in found:
        raise DataError(f"{root} has no train.txt", "and perhaps val.txt and test.txt beside it, plain or .gz")
    return {role: read(path) for role, path in found.items()}


@partial(prepared, how=Preparation)
def tfds_text(
    name: str,
    *,
    dir: Path | None = None,  # noqa: A002 - the recipe's key is data.dir
    validation: Share | None = None,
) -> CorpusData:
    """The texts of a set of TensorFlow Datasets that has one text a record, prepared with `dlkit data prepare`.

    Args:
        name: `lm1b`, `wiki40b/en`, `imdb_reviews`, `tiny_shakespeare`.
        dir: the folder of prepared data; by default TFDS_DATA_DIR, else `~/tensorflow_datasets`.
        validation: share of the training records to validate on where there is no such split; by default 0.1.

    Raises:
        dlkit.errors.DataError: the set is not prepared, or only half.
        dlkit.errors.UsageError: its records have no text or several, or nothing is there to train on.
    """
    from dlkit.data.tfds_prepare import obtain

    found = obtain(name, tfds_names.data_dir(dir), wanted=feature_of)
    feature = feature_of(name, found.features, found.supervised)
    roles = own_names(found.splits)
    if "train" not in roles:
        raise UsageError(f"{name} has nothing to train on: its splits are {', '.join(found.splits)}")
    if validation and "validation" in roles:
        raise UsageError("data.validation is for data without such a split, and these have one", "leave it out")
    texts: dict[str, Sequence[str]] = {}
    for role, split in roles.items():
        (texts[role],) = tfds_files.texts(found, split, [feature])
    if "validation" not in roles:
        records = texts["train"]
        if len(records) == 1:  # one long text
            cut = len(records[0]) - round((0.1 if validation is None else validation) * len(records[0]))
            texts["train"], texts["validation"] = [records[0][:cut]], [records[0][cut:]]
        elif held := round((0.1 if validation is None else validation) * len(records)):
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
    if len(found) != 1:
        has = ", ".join(f"{key} ({value['kind']})" if key else value["kind"] for key, value in features.items())
        raise UsageError(f"{name} has not one text a record: it has {has}", "sets that do: lm1b, imdb_reviews")
    return found[0]


def read(path: Path) -> str:
    r"""A text in UTF-8, plain or `.gz`, without a BOM; `\r\n` ends a line as `\n` does.

    Raises:
        dlkit.errors.DataError: the file is missing, unreadable, no UTF-8, binary, or too large for the memory.
    """
    there = memory()
    most = there // BYTES_EACH if there else None
    try:
        with path.open("rb") as plain:
            if path.suffix == ".gz":  # what it holds is only known once it is unpacked, and that is done bit by bit
                content = _within(gzip.GzipFile(fileobj=plain), path, most)
            else:
                _check_fits(os.fstat(plain.fileno()).st_size, path, most)
                content = _within(plain, path, most)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path} is no whole gzip file", "it is damaged or cut short: get it again") from None
    except FileNotFoundError:
        raise not_there("file", path) from None
    except OSError as failure:
        raise unreadable(str(path), failure) from None
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        raise DataError(f"{path} is no text: it has zero bytes", "a binary file, or UTF-16: save it as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        raise DataError(f"{path} line {line:,} is not UTF-8", "save it as UTF-8, with `iconv` for example") from None
    return text.replace("\r\n", "\n")


def _within(file: BinaryIO | gzip.GzipFile, path: Path, most: int | None) -> bytes:
    """The content, of which no more is read than shows that it is too large."""
    chunks, size = [], 0
    while chunk := file.read(CHUNK if most is None else min(CHUNK, most + 1 - size)):
        size += len(chunk)
        _check_fits(size, path, most)
        chunks.append(chunk)
    return b"".join(chunks)


def _check_fits(size: int, path: Path, most: int | None) -> None:
    if most is not None and size > most:
        raise DataError(
            f"{path} is too large for the memory of this machine: of more than {most / 2**30:.1f} GiB of text",
            "train on a part of it: `head -c 1G`",
        )
