"""Lines of text from arguments, a file or standard input, in groups as they come; and where results go."""

import gzip
import queue
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

from dlkit import console, durable
from dlkit.errors import DataError, UsageError

Line = str | DataError

# Lines are taken up to so many batches at a time, to put those of like length together. The first groups are smaller,
# so that the first results come soon.
MOST_BATCHES = 16


def groups(arguments: Sequence[str] | None, file: Path | None, *, batch_size: int) -> Iterator[list[Line]]:
    """Lines to work on: the arguments, or a file's, or those of standard input.

    A group from standard input is what has come by then: a line that somebody types, or a slow program prints, is
    answered at once, and a file in a pipe is taken in large groups. Those of a file are the same each time. Lines end
    with a line feed; a carriage return before it is dropped. A line that is not UTF-8 comes as the error that says so.

    Args:
        arguments: given texts, if any.
        file: a file of lines, if any, plain or `.gz`.
        batch_size: of how many lines the worker makes a batch.

    Raises:
        dlkit.errors.DataError: the file cannot be opened; or, while groups are drawn, it is a damaged `.gz`.
    """
    if arguments:
        return iter([list(arguments)])
    if file is not None:
        try:
            stream = cast(BinaryIO, gzip.GzipFile(file)) if file.suffix == ".gz" else file.open("rb")
        except OSError as failure:
            raise DataError(f"cannot read {file}: {str(failure.strerror).lower()}") from None
        return _grouped(stream, str(file), batch_size, whole=True)
    if sys.stdin is None:
        return iter(())
    typed = sys.stdin.isatty()
    if typed:
        console.note("type a line and press Enter; Ctrl-D ends")
    return _grouped(cast(BinaryIO, sys.stdin.buffer), "standard input", batch_size)


def _grouped(stream: BinaryIO, name: str, batch_size: int, *, whole: bool = False) -> Iterator[list[Line]]:
    """Takes what has come, at least one line, until the stream ends; holds no more lines than the largest group.

    Args:
        stream: the lines.
        name: of the stream, for messages.
        batch_size: the size of the first group, which doubles from group to group.
        whole: whether to wait until a group is full.
    """
    waiting: queue.Queue[Line | BaseException | None] = queue.Queue(maxsize=MOST_BATCHES * batch_size)

    def read() -> None:
        try:
            with nullcontext() if stream is getattr(sys.stdin, "buffer", None) else stream:
                for number, line in enumerate(stream, 1):
                    waiting.put(_decoded(line, number, name))
            waiting.put(None)
        except BaseException as failure:
            waiting.put(failure)

    threading.Thread(target=read, name="dlkit-lines", daemon=True).start()
    size, number = batch_size, 0
    while (first := _next(waiting, name)) is not None:
        group, ended = [first], False
        while len(group) < size and not ended and (whole or not waiting.empty()):
            line = _next(waiting, name)
            if line is None:
                ended = True
            else:
                group.append(line)
        number += len(group)
        yield group
        if ended:
            return
        size = min(2 * size, MOST_BATCHES * batch_size)
    if number == 0:
        console.note(f"{name} is empty")


def _next(waiting: "queue.Queue[Line | BaseException | None]", name: str) -> Line | None:
    item = waiting.get()
    if isinstance(item, gzip.BadGzipFile | EOFError | zlib.error):
        raise DataError(f"{name} is no whole gzip file", "it is damaged or cut short: get it again")
    if isinstance(item, BaseException) and not isinstance(item, DataError):
        raise item
    return item


def _decoded(line: bytes, number: int, name: str) -> Line:
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    try:
        return (text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text).decode("utf-8")
    except UnicodeDecodeError:
        return DataError(f"line {number} of {name} is not UTF-8", "convert it first, with `iconv` for example")


def check_output(output: Path | None) -> None:
    """Says before any work is done that a file cannot be written where it is to be.

    Raises:
        dlkit.errors.UsageError: it is a folder, or lies in none.
    """
    if output is None:
        return
    if output.is_dir():
        raise UsageError(f"cannot write {output}: it is a folder", "name a file")
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: there is no folder {output.parent}", "make it first")


@contextmanager
def writer(output: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes a line: to stdout at once, or to a file, which appears when all is written.

    Raises:
        OSError: the file cannot be written.
    """
    if output is None:
        yield console.data
        return
    with durable.stream(output) as file:

        def write(line: str) -> None:
            file.write(re.sub(r"[\r\n]+", " ", line) + "\n")

        yield write
