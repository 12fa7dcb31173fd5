"""Lines of text from arguments, a file or standard input, in groups as they come; and where results go."""

import gzip
import queue
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import typer

from dlkit import console, durable
from dlkit.errors import DataError

Line = str | DataError
Stream = AbstractContextManager[Iterable[bytes]]

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
        dlkit.errors.DataError: the file cannot be opened; or, once all lines before that are given, it cannot be read
            any further, or is a damaged `.gz`.
    """
    if arguments:
        return iter([list(arguments)])
    if file is not None:
        try:
            stream: Stream = gzip.GzipFile(file) if file.suffix == ".gz" else file.open("rb")
        except OSError as failure:
            raise _unreadable(str(file), failure) from None
        return _grouped(stream, str(file), batch_size, whole=True)
    if sys.stdin is None:
        return iter(())
    if sys.stdin.isatty():
        console.note("type a line and press Enter; Ctrl-D ends")
    return _grouped(_standard_input(), "standard input", batch_size)


def _standard_input() -> Stream:
    # Not `sys.stdin.buffer`: when the interpreter ends it takes that one's lock, and aborts if a thread sits in a read.
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (AttributeError, OSError):  # what stands in for it has no descriptor
        return nullcontext(sys.stdin.buffer)


@dataclass
class _End:
    """Of a stream: regular, or by a failure."""

    failure: BaseException | None = None


def _grouped(stream: Stream, name: str, batch_size: int, *, whole: bool = False) -> Iterator[list[Line]]:
    """Takes what has come, at least one line, until the stream ends; holds no more lines than the largest group.

    Args:
        stream: the lines.
        name: of the stream, for messages.
        batch_size: the size of the first group, which doubles from group to group.
        whole: whether to wait until a group is full.
    """
    waiting: queue.Queue[Line | _End] = queue.Queue(maxsize=MOST_BATCHES * batch_size)

    def read() -> None:
        end = _End()
        try:
            with stream as opened:
                for number, line in enumerate(opened, 1):
                    waiting.put(_decoded(line, number, name))
        except (gzip.BadGzipFile, EOFError, zlib.error):
            end.failure = DataError(f"{name} is no whole gzip file", "it is damaged or cut short: get it again")
        except OSError as failure:
            end.failure = _unreadable(name, failure)
        except BaseException as failure:
            end.failure = failure
        waiting.put(end)

    threading.Thread(target=read, name="dlkit-lines", daemon=True).start()
    size, number = batch_size, 0
    end = None
    while not end:
        group: list[Line] = []
        while len(group) < size and not end and (whole or not group or not waiting.empty()):
            item = waiting.get()
            if isinstance(item, _End):
                end = item
            else:
                group.append(item)
        if group:
            yield group
        number += len(group)
        size = min(2 * size, MOST_BATCHES * batch_size)
    if end.failure:
        raise end.failure
    if number == 0:
        console.note(f"{name} is empty")


def _unreadable(name: str, failure: OSError) -> DataError:
    return DataError(f"cannot read {name}: {str(failure.strerror or failure).lower()}")


def _decoded(line: bytes, number: int, name: str) -> Line:
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    try:
        return (text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text).decode("utf-8")
    except UnicodeDecodeError:
        return DataError(f"line {number} of {name} is not UTF-8", "convert it first, with `iconv` for example")


class Failures:
    """What came of lines that could not be worked on, while the others still are."""

    def __init__(self) -> None:
        self._last: DataError | None = None
        self._hints: set[str] = set()

    def tell(self, failure: DataError) -> None:
        """Prints what is wrong with a line, and what to do about it the first time."""
        known = failure.hint in self._hints
        console.error(DataError(failure.message) if known else failure)
        self._last = failure
        self._hints.add(failure.hint)

    def end(self) -> None:
        """Ends the command with the exit code of what failed, if anything did."""
        if self._last:
            raise typer.Exit(self._last.code)


@contextmanager
def writer(output: Path | None) -> Iterator[Callable[..., None]]:
    """A function that writes a line of such cells: to stdout at once, or to a file, which appears when all is written.

    Raises:
        OSError: the file cannot be written.
    """
    if output is None:
        yield lambda *cells: console.data_row(cells)
        return
    with durable.stream(output) as file:

        def write(*cells: str) -> None:
            file.write(console.as_row(cells) + "\n")

        yield write
