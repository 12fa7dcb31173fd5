"""Tokenizers: text to ids and back. A run keeps its own as a JSON file."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlkit import durable
from dlkit.errors import DataError

# The first ids of every tokenizer.
PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


class WordTokenizer:
    """Words apart by white space, each from a fixed vocabulary; any other word is `<unk>`.

    Args:
        words: the vocabulary; the ids of the words follow those of `<pad> <s> </s> <unk>`.

    Raises:
        dlkit.errors.DataError: a word is empty, has white space in it, occurs twice or is one of the four special ones.

    Example:
        >>> WordTokenizer(["je", "pense"]).encode("je pense donc")
        [4, 5, 3]
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        taken = set(SPECIAL)
        for word in self.words:
            if word in taken or word.split() != [word]:
                problem = "occurs twice or is special" if word in taken else "is not one word"
                raise DataError(f"no vocabulary: {word!r} {problem}")
            taken.add(word)
        self._tokens = SPECIAL + self.words
        self._ids = {word: i for i, word in enumerate(self.words, len(SPECIAL))}

    @property
    def size(self) -> int:
        """Number of ids, the special ones included."""
        return len(self._tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of the words of `text`. What reads like a special token in it is an unknown word."""
        return [self._ids.get(word, UNKNOWN) for word in text.split()]

    def unknown(self, text: str) -> list[str]:
        """The words of `text` that are not in the vocabulary, each once, in their order."""
        return [word for word in dict.fromkeys(text.split()) if word not in self._ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` up to the first `</s>`; `<pad>` and `<s>` are left out.

        Example:
            >>> WordTokenizer(["je", "pense"]).decode([1, 4, 5, 2, 4])
            'je pense'
        """
        words = []
        for i in ids:
            if i == END:
                break
            if i not in {PAD, START}:
                words.append(self._tokens[i])
        return " ".join(words)

    def save(self, path: Path) -> None:
        """Writes the vocabulary as JSON."""
        durable.write(path, json.dumps({"kind": "words", "words": self.words}, ensure_ascii=False) + "\n")


def load(path: Path) -> WordTokenizer:
    """Reads a tokenizer that `save` has written.

    Raises:
        dlkit.errors.DataError: the file is missing, unreadable or no tokenizer.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise DataError(f"cannot read the tokenizer {path}: {failure.strerror}") from None
    except ValueError:  # not UTF-8, or not JSON
        content = None
    match content:
        case {"kind": "words", "words": [*words]} if all(isinstance(word, str) for word in words):
            return WordTokenizer(words)
    raise DataError(f"{path} is not a tokenizer", "it is damaged, or a newer version of dlkit has written it")
