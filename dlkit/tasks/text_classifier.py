"""Says what class a text is of, or which tag each of its words has, with a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dlkit import runs
from dlkit.data.buckets import TOKENS_READ, longest_first
from dlkit.data.pairs import pad
from dlkit.data.tagged_texts import encode_words
from dlkit.data.tokenizer import Tokenizer
from dlkit.tasks.classifier import Guesses, Models, open_alike
from dlkit.tasks.run_files import load_tokenizer

Tags = list[tuple[str, str]]  # (word, tag), a pair for each word
# Of a text that is not read to its end: how many tokens it has, those of a tagger being words, and how many are read.
Cut = tuple[int, int] | None


class _Net:
    """The model of a run, and the way from ids to probabilities."""

    def __init__(self, name: str | Path, run: runs.Run) -> None:
        self.most = int(run.info["data"]["max_length"])  # tokens of a text that are read
        self.tokenizer = load_tokenizer(run.path, run.info["data"])
        self.model = runs.load_model(name)
        ids = tf.TensorSpec((None, None), tf.int32)  # one graph for batches of any size and length
        self._probabilities = tf.function(self._of_ids, input_signature=[ids], autograph=False)

    def _of_ids(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.cast(self.model(ids, training=False), tf.float32))

    def each(self, texts: Sequence[Sequence[int]], batch_size: int) -> list[NDArray[np.float32]]:
        """What the model says of each text, in their order; texts of like length go together."""
        cut = [text[: self.most] for text in texts]
        lengths = np.array([max(1, len(text)) for text in cut], np.int64)
        found: list[Any] = [None] * len(cut)
        for rows in longest_first(lengths, batch_size, most_tokens=TOKENS_READ):
            ids = pad([cut[row] for row in rows], length=int(lengths[rows].max()))
            for row, probabilities in zip(rows.tolist(), self._probabilities(ids).numpy(), strict=True):
                found[row] = probabilities
        return found


class _Reader:
    """One or several models of a task, whose probabilities are averaged."""

    task: str
    what: str

    def __init__(self, model: Models) -> None:
        opened = open_alike(model, task=self.task, what=self.what)
        self.names = list(opened[0][1].info["data"]["classes"])
        self._nets = [_Net(name, run) for name, run in opened]

    def _encoded(self, texts: Sequence[str], own: Tokenizer) -> Sequence[Sequence[int]]:
        """The ids of the texts, by the tokenizer of a model."""
        raise NotImplementedError

    def _each(self, texts: Sequence[str], batch_size: int) -> list[tuple[NDArray[np.float32], Cut]]:
        """What the models say of each text, in their order, and what they leave unread.

        Something is said of as many words as all of them read; what is left unread is told of the one that leaves most.
        """
        of_texts, of_nets = [], []
        for net in self._nets:
            encoded = self._encoded(texts, net.tokenizer)
            of_texts.append([(len(ids), net.most) for ids in encoded])
            of_nets.append(net.each(encoded, batch_size))
        found: list[tuple[NDArray[np.float32], Cut]] = []
        for said, sizes in zip(zip(*of_nets, strict=True), zip(*of_texts, strict=True), strict=True):
            has, read = max(sizes, key=lambda pair: pair[0] - pair[1])
            mean = np.mean([own[: min(map(len, said))] for own in said], axis=0)
            found.append((mean, (has, read) if has > read else None))
        return found


class TextClassifier(_Reader):
    """Classifies texts with a run; with several, their probabilities are averaged.

    Args:
        model: a run or a checkpoint, or several.

    Raises:
        dlkit.errors.UsageError: one is a run of another task, or they tell other classes apart.

    Example:
        >>> TextClassifier("runs/text_bag_rt-polarity-1")("a moving film")
        [{'class': 'pos', 'probability': 0.97}]
    """

    task = "text_classification"
    what = "text classifier"

    @overload  # a text, too, is a sequence of texts
    def __call__(self, texts: str, *, top: int = 1, batch_size: int = 64) -> Guesses: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, texts: Sequence[str], *, top: int = 1, batch_size: int = 64) -> list[Guesses]: ...
    def __call__(self, texts: str | Sequence[str], *, top: int = 1, batch_size: int = 64) -> Guesses | list[Guesses]:
        """The most probable classes of a text, the most probable first; of several texts a list of that.

        Args:
            texts: one or several; an empty one has an answer, too.
            top: how many classes to name.
            batch_size: texts at a time; does not change the result.
        """
        if isinstance(texts, str):
            return self([texts], top=top)[0]
        return [answer for answer, _ in self.answers(texts, top=top, batch_size=batch_size)]

    def answers(self, texts: Sequence[str], *, top: int = 1, batch_size: int = 64) -> list[tuple[Guesses, Cut]]:
        """The same of several texts, each with what is left unread of it."""
        names = self.names
        return [
            ([{"class": names[at], "probability": float(row[at])} for at in np.argsort(-row, kind="stable")[:top]], cut)
            for row, cut in self._each(texts, batch_size)
        ]

    def _encoded(self, texts: Sequence[str], own: Tokenizer) -> Sequence[Sequence[int]]:
        return own.encode_all(texts)


class Tagger(_Reader):
    """Tags the words of sentences, which white space parts, with a run; with several, probabilities are averaged.

    Args:
        model: a run or a checkpoint, or several.

    Raises:
        dlkit.errors.UsageError: one is a run of another task, or they know other tags.

    Example:
        >>> Tagger("runs/tagger_lstm_next_marker-1")("a b x")
        [('a', 'next x'), ('b', 'next x'), ('x', 'next x')]
    """

    task = "tagging"
    what = "tagger"

    @overload
    def __call__(self, texts: str, *, batch_size: int = 64) -> Tags: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, texts: Sequence[str], *, batch_size: int = 64) -> list[Tags]: ...
    def __call__(self, texts: str | Sequence[str], *, batch_size: int = 64) -> Tags | list[Tags]:
        """The words of a sentence, each with its most probable tag; of several sentences a list of that.

        Words beyond the most that are read have no tag and are left out; `answers` says of which sentences.

        Args:
            texts: one or several.
            batch_size: sentences at a time; does not change the result.
        """
        if isinstance(texts, str):
            return self([texts])[0]
        return [answer for answer, _ in self.answers(texts, batch_size=batch_size)]

    def answers(self, texts: Sequence[str], *, batch_size: int = 64) -> list[tuple[Tags, Cut]]:
        """The same of several sentences, each with what is left unread of it."""
        return [
            ([(word, self.names[at]) for word, at in zip(text.split(), row.argmax(axis=-1), strict=False)], cut)
            for text, (row, cut) in zip(texts, self._each(texts, batch_size), strict=True)
        ]

    def _encoded(self, texts: Sequence[str], own: Tokenizer) -> Sequence[Sequence[int]]:
        return [encode_words(text.split(), own) for text in texts]
