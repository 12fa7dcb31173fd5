"""The two consoles: data on stdout, everything else on stderr, and nothing but visible text on either.

All text passes `safe` here, once, whatever it came from: callers hand over plain strings and never a Rich
object, so no file name, class name or label can carry an escape sequence or markup to the terminal.
"""

import json
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from dlkit.errors import DlkitError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


@dataclass
class Settings:
    """What the options that every command takes have set."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False


settings = Settings()

# Control and format characters, surrogates, private use, unassigned, line and paragraph separators: not one of them
# shows as itself, and among them are ESC, the C1 controls, the bidirectional overrides and the zero-width characters.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


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
    return "".join(_escape(c) if unicodedata.category(c) in _INVISIBLE else c for c in string)


@cache
def _console(name: str) -> "Console":
    """The Rich console of `stdout` or `stderr`; outside a terminal it never wraps or cuts a line."""
    from rich.console import Console

    stream = getattr(sys, name)
    piped = not stream.isatty()
    width = 2**31 if piped else None
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=piped)
    console.on_broken_pipe = _raise_broken_pipe  # type: ignore[method-assign]
    return console


def _raise_broken_pipe() -> None:
    # Rich would end the process with code 1, but a reader that has seen enough is no failure.
    raise BrokenPipeError


def reset() -> None:
    """Forgets the consoles and the settings, so that the next command looks at the streams anew."""
    _console.cache_clear()
    settings.json = settings.quiet = settings.verbose = settings.debug = False


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


def data_json(value: Any) -> None:
    """Prints one JSON value on stdout, on one line; what is invisible stands as a JSON escape.

    Not-a-number and the infinities, which JSON does not have, become null.
    """
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False)
    escaped = "".join(_json_escape(c) if unicodedata.category(c) in _INVISIBLE else c for c in text)
    sys.stdout.write(escaped + "\n")
    sys.stdout.flush()


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
    if not settings.quiet:
        _print("stderr", safe(text), style)


def labelled(rows: Iterable[tuple[str, str]]) -> None:
    """Prints `label  text` lines on stderr, the labels in one column, unless `--quiet`."""
    for label, text in rows:
        note(f"{label:<7} {text}")


def warn(text: str) -> None:
    """Prints a warning on stderr, even with `--quiet`."""
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
    console = _console("stdout")
    with console.capture() as capture:
        console.print(grid)
    for line in capture.get().splitlines():  # Rich fills up the last column with spaces
        sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


def progress(place: str, total: int) -> "Progress":
    """A live bar on stderr: where the work stands, the bar, the figures. Update it with `place=` and `figures=`."""
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.fields[place]}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[figures]}", markup=False),
        console=_console("stderr"),
        transient=True,
        expand=True,
    )
    bar.add_task("", total=total, place=safe(place), figures="")
    return bar
