"""Whatever a file, a class or a label is called: only visible text reaches the terminal, and all of it does."""

import contextlib
import errno
import io
import json
import math
import re
import subprocess
import sys
import threading
import time
import unicodedata

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlkit import console
from dlkit.errors import DlkitError

# What a hostile or careless name may hold: SGR, OSC 8 and OSC 52, C1 controls, bidi overrides, markup, a bell, a null.
HOSTILE = [
    "\x1b[31mred\x1b[0m", "\x1b]8;;http://evil\x07click\x1b]8;;\x07", "\x1b]52;c;ZXZpbA==\x07", "\x9b2J", "\x90q\x9c",
    "\u202etxt.exe", "\u2066x\u2069", "zero\u200bwidth", "\ufeffbom", "\u2028", "\udcff", "\U000e0041", "\x7f",
    "[/x]", "[bold]x[/bold]", "src/[id].tsx", ":smile:", "[link=http://evil]x[/link]", "a\rb", "a\nb", "a\tb", "\0",
    "Hangul\u3164\uffa0\u115f\u1160", "\u2764\ufe0f", "a\U000e0100", "\u034f", "\u17b4\u17b5", "\u180b\u180f",
]  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(), max_size=30),
    st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=5)), max_size=4).map("".join),
)
SGR = re.compile(r"\x1b\[[0-9;]*m")
many = settings(max_examples=150, deadline=None)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@contextlib.contextmanager
def streams(stream=Terminal, columns="100000", **environment):
    """Gives stdout and stderr as streams of that kind, of a terminal so wide that no line is wrapped."""
    out, err = stream(), stream()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
            patch.delenv(name, raising=False)
        for name, value in {"TERM": "xterm-256color", "COLUMNS": columns, **environment}.items():
            patch.setenv(name, value)
        console.reset()
        yield out, err
    console.reset()


def is_visible(character):
    """Python's own idea of printable, and the wide and narrow spaces, less what Unicode says to draw as nothing."""
    if regex.match(r"\p{Default_Ignorable_Code_Point}", character):
        return False
    return character.isprintable() or unicodedata.category(character) == "Zs"


def written_out(text):
    """The text with each invisible character replaced by an escape, by the rules of Python's own string literals."""
    return "".join(c if is_visible(c) else c.encode("unicode_escape").decode() for c in text)


def printed(stream):
    """The text on a stream without the styles that Rich added; an escape in the data would be missing from it, too."""
    return SGR.sub("", stream.getvalue())


@many
@given(TEXTS)
def test_safe_text_is_visible_and_complete(text):
    assert all(is_visible(character) for character in console.safe(text))
    assert console.safe(text) == written_out(text)


def test_nothing_that_unicode_draws_as_nothing_is_left():
    """By the property of another library, over all of Unicode; letters, accents, emoji and spaces stay."""
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    ignorable = regex.findall(r"\p{Default_Ignorable_Code_Point}", every)
    assert len(ignorable) > 4000
    assert not [character for character in ignorable if console.safe(character) == character]
    for text in ("e\u0301", "\uac00", "\u1100\u1161\u11a8", "\u1780\u17b6", "\U0001f600", "\u2801\u2800", "\u3000"):
        assert console.safe(text) == text


@many
@given(TEXTS)
def test_printable_ascii_is_left_alone(text):
    plain = "".join(character for character in text if " " <= character <= "~")
    assert console.safe(plain) == plain


def printing(text):
    """Every function that prints, with the line that it should print."""
    shown = written_out(text)
    return [
        (lambda: console.data(text), "stdout", shown),
        (lambda: console.note(text), "stderr", shown),
        (lambda: console.note(text, "red"), "stderr", shown),
        (lambda: console.warn(text), "stderr", f"warning: {shown}"),
        (lambda: console.error(DlkitError(text)), "stderr", f"error: {shown}"),
        (lambda: console.error(DlkitError("m", f"h{text}")), "stderr", f"error: m\nhint: h{shown}"),
        (lambda: console.labelled([("data", text)]), "stderr", f"data    {shown}"),
    ]


@many
@given(TEXTS)
@example("src/[id].tsx")
@example("[/x]")
def test_a_line_on_a_terminal_is_the_text_and_nothing_else(text):
    for call, name, expected in printing(text):
        with streams() as (out, err):
            call()
        used, other = (out, err) if name == "stdout" else (err, out)
        assert printed(used).rstrip() == expected.rstrip()
        assert other.getvalue() == ""


@many
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=3), TEXTS)
def test_tables_hold_the_text_and_nothing_else(rows, title):
    with streams() as (out, _):
        console.table([title, "b"], rows, right=["b"])
    text = printed(out)
    assert all(is_visible(character) for character in text.replace("\n", ""))
    assert len(text.splitlines()) == 1 + len(rows)
    for line, cells in zip(text.split("\n"), [(title, "b"), *rows], strict=False):
        for cell in cells:
            assert written_out(cell).strip() in line


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@many
@given(JSON)
def test_json_comes_back_as_it_was_and_is_one_visible_line(value):
    with streams() as (out, _):
        console.data_json(value)
    line = out.getvalue()
    assert json.loads(line) == value
    assert line.endswith("\n")
    assert all(is_visible(character) for character in line[:-1])


def test_json_has_null_for_what_is_no_number():
    with streams() as (out, _):
        console.data_json({"loss": math.nan, "best": [math.inf, -math.inf, 1.5], "pair": (1, 2)})
    assert json.loads(out.getvalue()) == {"loss": None, "best": [None, None, 1.5], "pair": [1, 2]}


@many
@given(TEXTS)
def test_data_goes_into_a_pipe_to_the_letter_and_on_one_line(text):
    with streams(io.StringIO) as (out, _):
        console.data(text)
    assert out.getvalue() == re.sub("[\r\n]+", " ", text) + "\n"


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(environment):
    with streams(**environment) as (_, err):
        console.error(DlkitError("bad"))
        console.warn("hm")
    codes = {code for match in SGR.findall(err.getvalue()) for code in re.findall(r"\d+", match)}
    assert codes <= {"0", "1"}, "bold at most"
    assert printed(err) == "error: bad\nwarning: hm\n"


def test_colour_on_a_terminal_and_none_in_a_pipe():
    with streams() as (_, err):
        console.error(DlkitError("bad"))
    assert "\x1b[1;31m" in err.getvalue()
    with streams(io.StringIO) as (_, err):
        console.error(DlkitError("bad"))
    assert err.getvalue() == "error: bad\n"


def say_everything():
    console.note("a note")
    console.labelled([("label", "text")])
    console.warn("a warning")
    console.error(DlkitError("an error"))


def test_quiet_leaves_out_notes_but_no_warning_and_no_error():
    with streams(io.StringIO) as (out, err):
        console.settings.quiet = True
        say_everything()
        console.data("data")
    assert err.getvalue() == "warning: a warning\nerror: an error\n"
    assert out.getvalue() == "data\n"


def test_a_process_for_which_another_one_speaks_says_errors_alone():
    with streams(io.StringIO) as (_, err):
        console.settings.silent = True
        say_everything()
    assert err.getvalue() == "error: an error\n"


def test_long_lines_stay_one_line_in_a_pipe():
    with streams(io.StringIO, columns="40") as (out, err):
        console.data("x" * 20_000)
        console.note("y " * 10_000)
        console.table(["name"], [["z" * 12_000], ["word " * 3_000]])
    assert len(out.getvalue().splitlines()) == 4
    assert len(err.getvalue().splitlines()) == 1


# ------------------------------------------------------------------------------------------------ nobody reads any more


class Broken(Terminal):
    """A terminal that takes some writes and fails from then on."""

    def __init__(self, failure=errno.EPIPE, after=0):
        super().__init__()
        self.failure, self.left = failure, after

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise OSError(self.failure, "broken")  # Python makes it a BrokenPipeError for EPIPE
        return super().write(text)

    def flush(self):
        if self.left < 0:
            raise OSError(self.failure, "broken")


@pytest.mark.parametrize("failure", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_a_broken_stderr_drops_notes_and_nothing_else(failure):
    with streams(lambda: Broken(failure)) as (_, _), console.guarded_streams():
        console.note("a note")
        console.warn("a warning")
        console.error(DlkitError("an error", "a hint"))
        print("of a library", file=sys.stderr, flush=True)


def test_a_broken_stderr_stops_no_bar(monkeypatch):
    died = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    with streams(lambda: Broken(errno.EIO, after=3)) as (_, err), console.guarded_streams():
        bar = console.progress("epoch", 10)
        with bar:
            for step in range(5):
                bar.update(bar.task_ids[0], completed=step)
                console.note(f"step {step}")
                time.sleep(0.12)  # the thread of the bar redraws ten times a second
            thread = bar.live._refresh_thread
            assert thread.is_alive()
    assert err.left < -2
    assert died == []


@pytest.mark.parametrize("stream", [Broken, type("Pipe", (Broken,), {"isatty": lambda self: False})])
@pytest.mark.parametrize("call", [console.data, console.data_json, lambda text: console.table([text], [])])
def test_a_broken_stdout_is_told_from_all_other_broken_pipes(stream, call):
    with streams(stream), console.guarded_streams(), pytest.raises(console.ReaderGone):
        call("x")


def test_a_full_disk_behind_stdout_is_a_failure():
    with (
        streams(lambda: Broken(errno.ENOSPC)),
        console.guarded_streams(),
        pytest.raises(OSError, match="broken") as got,
    ):
        console.data_json({})
    assert got.value.errno == errno.ENOSPC


def test_reset_forgets_the_settings():
    console.settings.json = console.settings.debug = console.settings.silent = True
    console.reset()
    assert console.settings == console.Settings()


def test_printing_needs_no_tensorflow_and_no_rich_to_import():
    code = "import sys, dlkit.console; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
