"""Files of text, plain or packed, read no further than the memory of the machine goes."""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from dlkit.errors import DataError, not_there, unreadable
from dlkit.runtime import memory

# A text needs about so many bytes of memory for each of its own: as text, which takes four bytes a character where one
# needs them, as ids, and while one becomes the other.
BYTES_EACH = 20
CHUNK = 1 << 24
# As strings and lists short lines take many times the memory of their text, so never all of them are that at once.
CHARACTERS_AT_ONCE, LINES_AT_ONCE = 1 << 20, 50_000

Item = TypeVar("Item")


def most_bytes() -> int | None:
    """The size of the largest text that the memory is enough for; None where the system does not tell."""
    there = memory()
    return there // BYTES_EACH if there else None


def check_fits(size: int, what: str | Path, most: int | None) -> None:
    """Whether a text of so many bytes is no larger than `most_bytes`.

    Args:
        size: bytes that are known to be there, or characters where nobody has counted the bytes.
        what: the file or the set, for people.
        most: bytes, None for no limit.

    Raises:
        dlkit.errors.DataError: it is.
    """
    if most is not None and size > most:
        raise DataError(
            f"{what} is too large for the memory of this machine: of more than {most / 2**30:.2g} GiB of text",
            "take a part of its lines, or a machine with more memory",
        )


def read_content(path: Path) -> bytes:
    """What is in a file of text, plain or `.gz`, without a BOM.

    Raises:
        dlkit.errors.DataError: the file is missing, unreadable, no whole gzip file, or too large for the memory.
    """
    most = most_bytes()
    try:
        with path.open("rb") as plain:
            if path.suffix == ".gz":  # what it holds is only known once it is unpacked, and that is done bit by bit
                content = _within(gzip.GzipFile(fileobj=plain), path, most)
            else:
                check_fits(os.fstat(plain.fileno()).st_size, path, most)
                content = _within(plain, path, most)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path} is no whole gzip file", "it is damaged or cut short: get it again") from None
    except FileNotFoundError:
        raise not_there("file", path) from None
    except OSError as failure:
        raise unreadable(str(path), failure) from None
    return content.removeprefix(b"\xef\xbb\xbf")


def read_text(path: Path, *, zero_bytes: bool = True) -> str:
    """The same as text.

    Args:
        path: the file.
        zero_bytes: whether there may be some. In texts of the web a single one may stand; a file with many is none.

    Raises:
        dlkit.errors.DataError: as `read_content` and `decoded`, or there are zero bytes where there may be none.
    """
    content = read_content(path)
    if not zero_bytes and b"\0" in content:
        raise DataError(f"{path} is no text: it has zero bytes", "a binary file, or UTF-16: save it as UTF-8")
    return decoded(content, path)


def read_lines(path: Path, *, zero_bytes: bool = True) -> list[str]:
    r"""The lines of a text in UTF-8, plain or `.gz`, without their ends, `\n` or `\r\n`, and without a BOM.

    Raises:
        dlkit.errors.DataError: as `read_text`; of what is no UTF-8 it has the number of the line.
    """
    return [line.removesuffix("\r") for line in lines_of(read_text(path, zero_bytes=zero_bytes))]


def lines_of(text: str) -> Iterator[str]:
    r"""The lines of a text, none of an empty one: they end with `\n` and nothing else, the last one perhaps without it.

    Example:
        >>> list(lines_of("to be\n\nor not"))
        ['to be', '', 'or not']
    """
    start = 0
    while start < len(text):
        stop = text.find("\n", start + CHARACTERS_AT_ONCE) + 1 or len(text)
        yield from text[start:stop].removesuffix("\n").split("\n")
        start = stop


def some_at_once(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lines or texts in lists of `LINES_AT_ONCE`, so that what is made of each need not be in memory of all."""
    items = iter(items)
    while some := list(islice(items, LINES_AT_ONCE)):
        yield some


def decoded(content: bytes, path: Path) -> str:
    """What is in a file as text.

    Raises:
        dlkit.errors.DataError: it is no UTF-8; the message has the number of the line.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        raise DataError(f"{path} line {line:,} is not UTF-8", "save it as UTF-8, with `iconv` for example") from None


def _within(file: BinaryIO | gzip.GzipFile, path: Path, most: int | None) -> bytes:
    """The content, of which no more is read than shows that it is too large."""
    chunks, size = [], 0
    while chunk := file.read(CHUNK if most is None else min(CHUNK, most + 1 - size)):
        size += len(chunk)
        check_fits(size, path, most)
        chunks.append(chunk)
    return b"".join(chunks)
