"""Tokenizers: text to ids and back. A run keeps its own as a JSON file, so raw text goes in and raw text comes out.

Four kinds: `unigram` (Kudo 2018) and `bpe` (Sennrich et al. 2016) cut words into learned pieces with SentencePiece,
`word` parts text by white space, `char` knows single characters. What reads like a special token in a text, such as
`</s>`, is plain text to all of them.
"""

import base64
import binascii
import hashlib
import io
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from dlkit import durable
from dlkit.errors import DataError, UsageError

# The first ids of every tokenizer.
PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")

Kind = Literal["unigram", "bpe", "word", "char"]
Normalization = Literal["nmt_nfkc", "identity"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# The most texts that a tokenizer of subwords learns from, for the sake of memory: evenly spaced ones of more.
MOST_TEXTS = 1_000_000

# Longer texts are cut before SentencePiece learns from them: it passes over all that is longer than 4,192 bytes.
MOST_CHARACTERS = 1000

# Control characters, and what Python makes of a byte that is no UTF-8.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Tokenizer(ABC):
    """What all kinds have. Ids are those of the text alone: no start and no end is added.

    Args:
        lower: turn texts into lower case before anything else.
    """

    kind: Kind

    def __init__(self, *, lower: bool = False) -> None:
        self.lower = lower

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of ids, the special ones included."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` up to the first `</s>`; `<pad>` and `<s>` are left out."""

    @abstractmethod
    def unknown(self, text: str) -> list[str]:
        """What of `text` becomes `<unk>`, each once, in its order."""

    @abstractmethod
    def pieces(self, ids: Iterable[int]) -> list[str]:
        """How each id is written where tokens are shown one by one."""

    @abstractmethod
    def id_of(self, piece: str) -> int:
        """The id that `pieces` writes so, none of the special ones; that of `<unk>` where there is none."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that `load` needs, as JSON values."""

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode`, of many texts."""
        return [self.encode(text) for text in texts]

    def save(self, path: Path) -> None:
        """Writes the tokenizer as one file of JSON."""
        durable.write(path, json.dumps(self.to_json(), ensure_ascii=False) + "\n")

    def digest(self) -> str:
        """sha256 of all that makes it what it is: equal tokenizers have the same one."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.kind, self.size, self.lower))


def _until_end(ids: Iterable[int]) -> list[int]:
    """The ids before the first `</s>`, without `<pad>` and `<s>`."""
    kept = []
    for i in ids:
        if i == END:
            break
        if i not in {PAD, START}:
            kept.append(int(i))
    return kept


# ------------------------------------------------------------------------------------------------- words and characters


class _Table(Tokenizer):
    """A fixed vocabulary of units that a text is cut into; any other unit is `<unk>`."""

    glue: str  # what stands between two units in a text

    def __init__(self, units: Iterable[str], *, lower: bool = False) -> None:
        super().__init__(lower=lower)
        self.units = tuple(units)
        self._tokens = SPECIAL + self.units
        self._ids = {unit: i for i, unit in enumerate(self.units, len(SPECIAL))}

    def _cut(self, text: str) -> Sequence[str]:
        raise NotImplementedError

    @property
    def size(self) -> int:
        return len(self._tokens)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(unit, UNKNOWN) for unit in self._cut(text)]

    def decode(self, ids: Iterable[int]) -> str:
        return self.glue.join(self.pieces(_until_end(ids)))

    def unknown(self, text: str) -> list[str]:
        return [unit for unit in dict.fromkeys(self._cut(text)) if unit not in self._ids]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._tokens[i] for i in ids]

    def id_of(self, piece: str) -> int:
        return self._ids.get(piece, UNKNOWN)


class WordTokenizer(_Table):
    """Words apart by white space, each from a fixed vocabulary; any other word is `<unk>`.

    Args:
        words: the vocabulary; the ids of the words follow those of `<pad> <s> </s> <unk>`.
        lower: turn texts into lower case first.

    Raises:
        dlkit.errors.DataError: a word is empty, has white space in it, occurs twice or is one of the four special ones.

    Example:
        >>> WordTokenizer(["je", "pense"]).encode("je pense donc")
        [4, 5, 3]
    """

    kind: Kind = "word"
    glue = " "

    def __init__(self, words: Iterable[str], *, lower: bool = False) -> None:
        super().__init__(words, lower=lower)
        taken = set(SPECIAL)
        for word in self.units:
            if word in taken or _words(word) != [word]:
                problem = "occurs twice or is special" if word in taken else "is not one word"
                raise DataError(f"no vocabulary: {word!r} {problem}")
            taken.add(word)

    @classmethod
    def train(cls, texts: Iterable[str], *, size: int, min_count: int = 1, lower: bool = False) -> "WordTokenizer":
        """The most frequent words of `texts`, in this order; of equally frequent ones the first by code points.

        Args:
            texts: the training text.
            size: most ids, the four special ones included.
            min_count: words that occur less often are left out, so that training sees `<unk>`.
            lower: turn texts into lower case first.
        """
        counts = Counter(word for text in texts for word in _words(text.lower() if lower else text))
        return cls(_most_frequent(counts, size=size, min_count=min_count), lower=lower)

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary, without the special tokens."""
        return self.units

    def _cut(self, text: str) -> list[str]:
        return _words(text.lower() if self.lower else text)

    def to_json(self) -> dict[str, Any]:
        """All that `load` needs, as JSON values."""
        return {"kind": self.kind, "lower": self.lower, "words": list(self.words)}


def _words(text: str) -> list[str]:
    return CONTROL.sub(" ", text).split()


def _most_frequent(counts: Counter[str], *, size: int, min_count: int) -> list[str]:
    enough = [unit for unit, count in counts.items() if count >= min_count and unit not in SPECIAL]
    return sorted(enough, key=lambda unit: (-counts[unit], unit))[: max(size - len(SPECIAL), 0)]


class CharacterTokenizer(_Table):
    """Single characters, white space among them, each from a fixed vocabulary; any other one is `<unk>`.

    Args:
        characters: the vocabulary.
        lower: turn texts into lower case first.

    Raises:
        dlkit.errors.DataError: a character occurs twice, or is not one.

    Example:
        >>> CharacterTokenizer("abc").decode([6, 4, 5])
        'cab'
    """

    kind: Kind = "char"
    glue = ""

    def __init__(self, characters: Iterable[str], *, lower: bool = False) -> None:
        super().__init__(characters, lower=lower)
        if any(len(unit) != 1 for unit in self.units) or len(self._ids) != len(self.units):
            raise DataError("no vocabulary: a character occurs twice or is not one")

    @classmethod
    def train(
        cls, texts: Iterable[str], *, size: int, coverage: float = 1.0, lower: bool = False
    ) -> "CharacterTokenizer":
        """The most frequent characters of `texts`, in this order.

        Args:
            texts: the training text.
            size: most ids, the four special ones included.
            coverage: share of the text that they have to make up; the rarest ones above it are left out.
            lower: turn texts into lower case first.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.lower() if lower else text)
        wanted, covered, chosen = coverage * sum(counts.values()), 0, []
        for character in _most_frequent(counts, size=size, min_count=1):
            if covered >= wanted:
                break
            covered += counts[character]
            chosen.append(character)
        return cls(chosen, lower=lower)

    @property
    def characters(self) -> str:
        """The vocabulary, without the special tokens."""
        return "".join(self.units)

    def _cut(self, text: str) -> str:
        return text.lower() if self.lower else text

    def to_json(self) -> dict[str, Any]:
        """All that `load` needs, as JSON values."""
        return {"kind": self.kind, "lower": self.lower, "characters": self.characters}


# ------------------------------------------------------------------------------------------------------------- subwords


class SubwordTokenizer(Tokenizer):
    """Pieces of words, learned by SentencePiece (Kudo and Richardson 2018); spaces are part of the pieces.

    Runs of spaces count as one, those at both ends as none, and control characters are spaces. The normalization that
    it was trained with is part of the model: `nmt_nfkc` also makes compatible characters the same (a no-break space is
    a space, U+FB01 is `fi`), `identity` changes nothing else. So `decode(encode(text))` is the text itself when it has
    single spaces and known characters that the normalization leaves alone, and the normalized text when it has others.
    U+2581, by which SentencePiece marks spaces, comes back as a space.

    Args:
        model: the bytes of a SentencePiece model with the special ids of this module.
        kind: `unigram` or `bpe`.
        lower: turn texts into lower case first.

    Raises:
        dlkit.errors.DataError: the bytes are no such model.
    """

    def __init__(self, model: bytes, *, kind: Kind, lower: bool = False) -> None:
        super().__init__(lower=lower)
        import sentencepiece

        self.model = model
        self.kind = kind
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.load_from_serialized_proto(model)
        except Exception:  # RuntimeError of the library, and what its binding raises
            raise DataError("no SentencePiece model: its bytes are damaged") from None
        ids = [getattr(self._processor, f"{name}_id")() for name in ("pad", "bos", "eos", "unk")]
        if ids != [PAD, START, END, UNKNOWN]:
            raise DataError(f"a SentencePiece model with other special ids: {ids}, not [0, 1, 2, 3]")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: Kind = "unigram",
        size: int,
        coverage: float = 1.0,
        normalization: Normalization = "nmt_nfkc",
        lower: bool = False,
    ) -> "SubwordTokenizer":
        """Learns the pieces from `texts`, in one thread, so the same texts give the same bytes on any machine.

        Args:
            texts: the training text.
            kind: `unigram` or `bpe`.
            size: most ids, the four special ones included; a small text yields fewer.
            coverage: share of the text that the known characters have to make up.
            normalization: see the class.
            lower: turn texts into lower case first.

        Raises:
            dlkit.errors.DataError: there is no text.
            dlkit.errors.UsageError: the text has more characters than `size`.
        """
        import sentencepiece

        cleaned = [CONTROL.sub(" ", text.lower() if lower else text) for text in texts]
        learned_from = cleaned[:: -(-len(cleaned) // MOST_TEXTS) or 1]
        written = io.BytesIO()
        # The names of the special pieces begin with a control character, which no cleaned text has. By their usual
        # names SentencePiece would cut "</s>" out of the training text, and then not know its characters.
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=chain.from_iterable(map(_parts, learned_from)),
                model_writer=written,
                model_type=kind,
                vocab_size=size,
                hard_vocab_limit=False,
                character_coverage=coverage,
                normalization_rule_name=normalization,
                num_threads=1,
                pad_id=PAD, bos_id=START, eos_id=END, unk_id=UNKNOWN,
                pad_piece="\x01pad", bos_piece="\x01start", eos_piece="\x01end", unk_piece="\x01unknown",
                unk_surface=SPECIAL[UNKNOWN],
                minloglevel=2,
            )  # fmt: skip
        except RuntimeError as failure:
            if counts := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(failure)):
                raise UsageError(
                    f"data.vocabulary {size} is less than the characters of the text and the special tokens",
                    f"give at least {counts[1]}, or lower data.coverage",
                ) from None
            if any(text.strip() for text in cleaned):
                raise
            raise DataError("there is no text that a tokenizer could learn from") from None
        return cls(written.getvalue(), kind=kind, lower=lower)

    @property
    def size(self) -> int:
        """Number of ids, the special ones included."""
        return self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """The ids of the pieces of `text`."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode`, of many texts."""
        return self._processor.encode([CONTROL.sub(" ", text.lower() if self.lower else text) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` up to the first `</s>`; `<pad>` and `<s>` are left out."""
        return self._processor.decode(_until_end(ids))

    def unknown(self, text: str) -> list[str]:
        """The runs of unknown characters in `text`, each once, in their order."""
        cleaned = CONTROL.sub(" ", text.lower() if self.lower else text)
        pieces = zip(self._processor.encode(cleaned, out_type=str), self._processor.encode(cleaned), strict=True)
        return list(dict.fromkeys(piece for piece, i in pieces if i == UNKNOWN))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """How each id is written, with U+2581 for a space."""
        return [SPECIAL[i] if i < len(SPECIAL) else self._processor.id_to_piece(int(i)) for i in ids]

    def id_of(self, piece: str) -> int:
        """The id of a piece, with U+2581 for a space; that of `<unk>` where there is none."""
        found = self._processor.piece_to_id(piece)
        return found if found >= len(SPECIAL) else UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """All that `load` needs, as JSON values; the checksum tells a damaged model before it is read."""
        return {
            "kind": self.kind,
            "lower": self.lower,
            "sha256": hashlib.sha256(self.model).hexdigest(),
            "model": base64.b64encode(self.model).decode(),
        }


def _parts(text: str) -> Iterator[str]:
    """A text in parts that SentencePiece takes, cut at spaces, which no piece contains; only a longer word is cut."""
    start = 0
    while len(text) - start > MOST_CHARACTERS:
        end = text.rfind(" ", start + 1, start + MOST_CHARACTERS + 1)
        end = end if end > 0 else start + MOST_CHARACTERS
        yield text[start:end]
        start = end
    yield text[start:]


# ------------------------------------------------------------------------------------------------- making and reading


def train(
    kind: Kind,
    texts: Iterable[str],
    *,
    size: int,
    min_count: int = 1,
    coverage: float = 1.0,
    normalization: Normalization = "nmt_nfkc",
    lower: bool = False,
) -> Tokenizer:
    """A tokenizer of any kind, made from training text; see the classes for arguments and errors.

    Example:
        >>> train("word", ["je pense", "donc je suis"], size=6).words
        ('je', 'donc')
    """
    if kind == "word":
        return WordTokenizer.train(texts, size=size, min_count=min_count, lower=lower)
    if kind == "char":
        return CharacterTokenizer.train(texts, size=size, coverage=coverage, lower=lower)
    return SubwordTokenizer.train(
        texts, kind=kind, size=size, coverage=coverage, normalization=normalization, lower=lower
    )


def load(path: Path) -> Tokenizer:
    """Reads a tokenizer that `save` has written.

    Raises:
        dlkit.errors.DataError: the file is missing, unreadable or no tokenizer.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise DataError(f"cannot read the tokenizer {path}: {failure.strerror}") from None
    except (ValueError, RecursionError):  # not UTF-8, or not JSON
        content = None
    try:
        match content:
            case {"kind": "word" | "words", "words": [*words]} if all(isinstance(word, str) for word in words):
                return WordTokenizer(words, lower=content.get("lower") is True)
            case {"kind": "char", "lower": bool(lower), "characters": str(characters)}:
                return CharacterTokenizer(characters, lower=lower)
            case {
                "kind": "unigram" | "bpe" as kind,
                "lower": bool(lower),
                "sha256": str(checksum),
                "model": str(encoded),
            }:
                model = base64.b64decode(encoded, validate=True)
                if hashlib.sha256(model).hexdigest() == checksum:
                    return SubwordTokenizer(model, kind=kind, lower=lower)
    except (DataError, binascii.Error, ValueError):
        pass
    raise DataError(f"{path} is not a tokenizer", "it is damaged, or a newer version of dlkit has written it")
