"""The two consoles: data on stdout, everything else on stderr, and nothing but visible text on either.

All text passes `safe` here, once, whatever it came from: callers hand over plain strings and never a Rich
object, so no file name, class name or label can carry an escape sequence or markup to the terminal.
"""

import contextlib
import json
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from dlkit.errors import DlkitError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table


@dataclass
class Settings:
    """What the options that every command takes have set, and `silent`, that another process says all but errors."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    silent: bool = False


settings = Settings()

# Control and format characters, surrogates, private use, unassigned, line and paragraph separators: not one of them
# shows as itself, and among them are ESC, the C1 controls, the bidirectional overrides and the zero-width characters.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks that Unicode's Default_Ignorable_Code_Point says to draw as nothing: the grapheme joiner, fillers of
# Hangul, inherent vowels of Khmer, variation selectors of Mongolian and of all scripts. (The blank of Braille takes up
# a cell, so it is a space like others.)
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def is_invisible(character: str) -> bool:
    """Whether a character does not show as itself: it controls, formats, has no meaning or is drawn as nothing."""
    return unicodedata.category(character) in _INVISIBLE or _IGNORABLE.match(character) is not None


def _escape(character: str) -> str:
    code = ord(character)
    if character in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def safe(text: object) -> str:
    r"""Returns `text` with every invisible character written out, such as `\x1b` for ESC.

    Rich's own escaping is about its markup and lets terminal controls pass.

    Example:
        >>> safe("cat\x1b[31m")
        'cat\\x1b[31m'
    """
    string = str(text)
    if string.isascii() and string.isprintable():
        return string
    return "".join(_escape(c) if is_invisible(c) else c for c in string)


class ReaderGone(BrokenPipeError):
    """Nobody reads stdout any longer; `| head` has seen enough."""


class _Guarded:
    """A standard stream whose reader may go away."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as failure:
            self._lost(failure)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as failure:
            self._lost(failure)

    def _lost(self, failure: OSError) -> None:
        """Deals with a write that failed."""
        raise NotImplementedError

    def _discard(self) -> None:
        """Lets all that follows go nowhere: what native code writes, too, and Python's last flush at exit."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class _Stdout(_Guarded):
    """Data that nobody reads need not be made: the work ends."""

    def _lost(self, failure: OSError) -> None:
        if not isinstance(failure, BrokenPipeError):
            raise failure
        self._discard()
        raise ReaderGone(*failure.args) from None


class _Stderr(_Guarded):
    """Notes that nobody reads are dropped: the work goes on."""

    def _lost(self, failure: OSError) -> None:
        self._discard()


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """In the body a broken stdout raises `ReaderGone`, and a broken stderr, whatever writes to it, nothing."""
    stdout, stderr = cast(TextIO, _Stdout(sys.stdout)), cast(TextIO, _Stderr(sys.stderr))
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield


@cache
def _console(name: str) -> "Console":
    """The Rich console of `stdout` or `stderr`; outside a terminal it never wraps or cuts a line."""
    from rich.console import Console

    stream = getattr(sys, name)
    piped = not stream.isatty()
    width = 2**31 if piped else None
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=piped)
    console.on_broken_pipe = _reader_gone  # type: ignore[method-assign]
    return console


def _reader_gone() -> None:
    # Rich would end the process with code 1, but a reader that has seen enough is no failure.
    raise ReaderGone


def width(name: str) -> int:
    """The columns of the terminal behind `stdout` or `stderr`."""
    return _console(name).width


def reset() -> None:
    """Forgets the consoles and the settings, so that the next command looks at the streams anew."""
    _console.cache_clear()
    settings.json = settings.quiet = settings.verbose = settings.debug = settings.silent = False


def is_terminal(name: str = "stderr") -> bool:
    """Whether `stdout` or `stderr` is a terminal that can redraw a line."""
    return bool(getattr(sys, name).isatty()) and os.environ.get("TERM") != "dumb"


def _print(name: str, text: str, style: str = "") -> None:
    from rich.text import Text

    _console(name).print(Text(text, style=style))


def data(text: str) -> None:
    """Prints one line of data on stdout: made safe on a terminal, to the letter into a pipe or file."""
    if is_terminal("stdout"):
        _print("stdout", safe(text))
    else:
        sys.stdout.write(re.sub(r"[\r\n]+", " ", text) + "\n")
        sys.stdout.flush()


def data_row(cells: Sequence[str]) -> None:
    """Prints one line of columns on stdout: apart by two spaces on a terminal, by tabs into a pipe or file."""
    if is_terminal("stdout"):
        _print("stdout", "  ".join(safe(cell) for cell in cells))
    else:
        data(as_row(cells))


def as_row(cells: Sequence[str]) -> str:
    """One line of columns, apart by tabs; what would end a cell or the line within a cell becomes a space."""
    return re.sub(r"[\r\n]+", " ", "\t".join(cell.replace("\t", " ") for cell in cells))


def data_json(value: Any) -> None:
    """Prints one JSON value on stdout, on one line, as `as_json` writes it."""
    sys.stdout.write(as_json(value) + "\n")
    sys.stdout.flush()


def as_json(value: Any) -> str:
    """A JSON value as text on one line; what is invisible stands as a JSON escape.

    Not-a-number and the infinities, which JSON does not have, become null.
    """
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False)
    return "".join(_json_escape(c) if is_invisible(c) else c for c in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def finite(value: Any) -> Any:
    """Replaces not-a-number and the infinities, which JSON does not have, by None, in any nest of dicts and lists."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def note(text: str, style: str = "") -> None:
    """Prints one line about what happens on stderr, unless `--quiet`."""
    if not (settings.quiet or settings.silent):
        _print("stderr", safe(text), style)


def labelled(rows: Iterable[tuple[str, str]]) -> None:
    """Prints `label  text` lines on stderr, the labels in one column, unless `--quiet`."""
    for label, text in rows:
        note(f"{label:<7} {text}")


def warn(text: str) -> None:
    """Prints a warning on stderr, even with `--quiet`."""
    if not settings.silent:
        _print("stderr", f"warning: {safe(text)}", "yellow")


def error(failure: DlkitError) -> None:
    """Prints what went wrong and what to do, each on one line of stderr."""
    _print("stderr", f"error: {safe(failure.message)}", "bold red")
    if failure.hint:
        _print("stderr", f"hint: {safe(failure.hint)}")


def trace(failure: BaseException) -> None:
    """Prints the traceback of a failure on stderr."""
    for line in "".join(traceback.format_exception(failure)).splitlines():
        _print("stderr", safe(line), "dim")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> None:
    """Prints a table on stdout: a header line and one line a row, columns apart by two spaces.

    Args:
        columns: the titles.
        rows: one cell a column; None is an empty cell.
        right: titles of the columns that are aligned to the right, as numbers are.
    """
    grid = _grid(columns, rows, right)
    console = _console("stdout")
    with console.capture() as capture:
        console.print(grid)
    for line in capture.get().splitlines():  # Rich fills up the last column with spaces
        sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


def _grid(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    on_the_right = set(right)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        grid.add_column(
            Text(safe(column)), justify="right" if column in on_the_right else "left", overflow="fold", no_wrap=False
        )
    for row in rows:
        grid.add_row(*(Text("" if cell is None else safe(cell)) for cell in row))
    return grid


class LiveTable:
    """A table on stderr that is drawn anew, above a line of text; a context manager, gone at its end.

    Args:
        columns: the titles.
        right: titles of the columns that are aligned to the right.
    """

    def __init__(self, columns: Sequence[str], *, right: Iterable[str] = ()) -> None:
        from rich.live import Live

        self.columns, self.right = columns, list(right)
        self.live = Live(console=_console("stderr"), transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.live.stop()

    def update(self, rows: Iterable[Sequence[object]], below: str) -> None:
        """Shows these rows, and the line below them."""
        from rich.console import Group
        from rich.text import Text

        line = Text(safe(below), no_wrap=True, overflow="ellipsis")
        self.live.update(Group(_grid(self.columns, rows, self.right), line), refresh=True)


def progress(place: str, total: int) -> "Progress":
    """A live bar on stderr: where the work stands, the bar, the figures. Update it with `place=` and `figures=`."""
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    bar = Progress(
        TextColumn("{task.fields[place]}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True)),
        console=_console("stderr"),
        transient=True,
        expand=True,
    )
    bar.add_task("", total=total, place=safe(place), figures="")
    return bar
