"""One example to look at: of the data, an image file, or a text."""

from dataclasses import dataclass
from typing import Any

from dlkit.data.batching import Batch
from dlkit.data.tokenizer import Tokenizer
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
    if subject.text is not None:
        batch, called = _of_text(subject, subject.text)
    elif subject.image is not None or subject.task_name in IMAGES:
        image, called = subject.one_image()
        batch = subject.task.batch_of_image(subject.model, image)
    else:
        batch, called = subject.one_example()
    return Example(batch, called, *_words(subject, batch))


def pieces(tokenizer: Tokenizer, ids: Any) -> list[str]:
    """Tokens as people read them: without the mark of a space, and with something to see for each."""
    texts = (text.replace("\u2581", " ").replace("\n", "\\n") for text in tokenizer.pieces([int(one) for one in ids]))
    return [text.strip() or "_" for text in texts]


def _words(subject: Subject, batch: Batch) -> tuple[list[str], list[str]]:
    info = subject.task_info
    if not (info.reads or info.writes):
        return [], []
    reads, writes = subject.task.tokenizers
    return (
        pieces(reads, batch[info.reads][0]) if info.reads else [],
        pieces(writes, batch[info.writes][0]) if info.writes else [],
    )


def _of_text(subject: Subject, text: str) -> tuple[Batch, str]:
    if subject.index is not None or subject.split is not None:
        raise UsageError("--text is a text, --index and --split name one of the data", "choose one of the two")
    task = subject.task
    if not task.tokenizers[0].encode(text):
        raise UsageError("there is no token in that text", "give a text with some words")
    return task.batch_of_text(subject.model, text), f"`{text}`"
