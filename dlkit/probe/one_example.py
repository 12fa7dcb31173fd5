"""One example to look at: of the data, an image file, or a text."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dlkit.data.batching import Batch
from dlkit.data.tokenizer import END, START, Tokenizer
from dlkit.errors import UsageError
from dlkit.probe.views import IMAGES, Subject


@dataclass(frozen=True)
class Example:
    """One example.

    Args:
        batch: of one row, without padding.
        called: what to call it.
        source: the words that the model reads; empty where it reads none.
        target: the words that it writes, the end included; empty where it writes none.
    """

    batch: Batch
    called: str
    source: list[str]
    target: list[str]


def example(subject: Subject) -> Example:
    """The example that a subject is about: `text`, `image`, or number `index` of its split.

    A text to be translated gets the model's own translation, an image to be captioned its own caption, by greedy
    search.

    Raises:
        dlkit.errors.UsageError: what is given does not fit the model's task, or the split has no such example.
        dlkit.errors.DataError: an image cannot be read.
    """
    info = subject.task_info
    if subject.text is not None and not info.reads:
        raise UsageError(f"{subject.operand} reads no text", "leave out --text")
    if subject.image is not None and info.shown != "images":
        raise UsageError(f"{subject.operand} looks at no image file", "leave out --image")
    if subject.task_name in IMAGES:
        image, called = subject.one_image()
        return Example({"images": image[np.newaxis], "labels": np.zeros(1, np.int32)}, called, [], [])
    if subject.text is not None:
        if subject.index is not None or subject.split is not None:
            raise UsageError("--text is a text, --index and --split name one of the data", "choose one of the two")
        return _of_text(subject, subject.text)
    if subject.image is not None:
        return _of_file(subject)
    batch, called = subject.one_example()
    return Example(batch, called, *_words(subject, batch))


def tokenizers(subject: Subject) -> tuple[Tokenizer, Tokenizer]:
    """Of what the model reads and of what it writes, or says the next token of."""
    task: Any = subject.task
    if subject.task_name == "translation":
        return task.tokenizers
    return task.tokenizer, task.tokenizer


def pieces(tokenizer: Tokenizer, ids: Any) -> list[str]:
    """Tokens as people read them: without the mark of a space, and with something to see for each."""
    texts = (text.replace("\u2581", " ").replace("\n", "\\n") for text in tokenizer.pieces([int(one) for one in ids]))
    return [text.strip() or "_" for text in texts]


def _words(subject: Subject, batch: Batch) -> tuple[list[str], list[str]]:
    info = subject.task_info
    if not (info.reads or info.writes):
        return [], []
    reads, writes = tokenizers(subject)
    return (
        pieces(reads, batch[info.reads][0]) if info.reads else [],
        pieces(writes, batch[info.writes][0]) if info.writes else [],
    )


def _of_text(subject: Subject, text: str) -> Example:
    reads, _ = tokenizers(subject)
    ids = reads.encode(text)
    if not ids:
        raise UsageError("there is no token in that text", "give a text with some words")
    name = subject.task_name
    batch: Batch
    if name == "translation":
        translator = subject.task.translator(subject.model)  # type: ignore[attr-defined]
        from dlkit.tasks.translator import Search

        (found,) = translator.each([[text]], Search(method="greedy"))
        if isinstance(found, Exception):
            raise found
        said = found.hypotheses[0].ids
        batch = {"source": np.array([[*ids, END]], np.int32), **_shifted(said)}
    elif name == "language_modelling":
        first = subject.info["first"]
        if len(ids) < 2 and first is None:
            raise UsageError("a language model needs two tokens, one to read and one to foresee", "give a longer text")
        whole = ids if first is None else [*([first] if isinstance(first, int) else first), *ids]
        batch = {"inputs": np.array([whole[:-1]], np.int32), "targets": np.array([whole[1:]], np.int32)}
    else:
        read = np.array([ids[: int(subject.info["max_length"])]], np.int32)
        batch = {"ids": read, "labels": np.zeros((1,) if name == "text_classification" else read.shape, np.int32)}
    return Example(batch, f"`{text}`", *_words(subject, batch))


def _of_file(subject: Subject) -> Example:
    from dlkit.tasks.translator import Search

    image, called = subject.one_image()
    captioner = subject.task.captioner(subject.model)  # type: ignore[attr-defined]
    decoded = captioner.writer.decode(image[np.newaxis], [1], Search(method="greedy"))
    (said, *_) = captioner.writer.hypotheses(decoded, 0, 0, Search(method="greedy"))
    batch = {"images": image[np.newaxis], **_shifted(said.ids)}
    return Example(batch, called, *_words(subject, batch))


def _shifted(said: list[int]) -> Batch:
    """What a decoder reads and is to say, for the tokens of an output."""
    return {"target_in": np.array([[START, *said[:-1]]], np.int32), "target_out": np.array([said], np.int32)}
