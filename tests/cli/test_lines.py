"""Lines in groups as they come, and where results go; pipes of this process stand for other programs."""

import errno
import gzip
import io
import itertools
import os
import pty
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from dlkit.cli import lines
from dlkit.errors import DataError


def test_what_has_come_is_answered_before_more_comes(monkeypatch):
    reading, writing = os.pipe()
    with io.TextIOWrapper(os.fdopen(reading, "rb"), encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        groups = lines.groups(None, None, batch_size=8)
        for line in (b"one\n", b"two\r\n", b"\n"):
            os.write(writing, line)
            assert next(groups) == [line.decode().rstrip("\r\n")]
        os.close(writing)
        assert list(groups) == []


def test_who_types_is_told_what_to_do(monkeypatch, capsys):
    keyboard, terminal = pty.openpty()
    with os.fdopen(keyboard, "wb", buffering=0) as keys, os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        groups = lines.groups(None, None, batch_size=8)
        assert capsys.readouterr() == ("", "type a line and press Enter; Ctrl-D ends\n")
        for line in ("one", "two"):
            keys.write(f"{line}\n".encode())
            assert next(groups) == [line]
        keys.write(b"\x04")
        assert list(groups) == []
    assert capsys.readouterr() == ("", "")


ANSWERING = """
import signal, sys
from dlkit.cli import lines
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
try:
    for (line,) in lines.groups(None, None, batch_size=1):
        print(line, flush=True)
        if line != "go on":
            sys.exit(int(line))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("code", [0, 3, 130])
def test_the_process_can_end_while_its_input_is_open(code):
    """By itself, with an error and by Ctrl-C: always with its own exit code, though a thread waits for more lines."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", ANSWERING], **pipes, text=True, bufsize=1) as process:
        line = "go on" if code == 130 else str(code)
        print(line, file=process.stdin)
        assert process.stdout.readline() == line + "\n"
        if code == 130:
            process.send_signal(signal.SIGINT)
        assert (process.wait(30), process.stderr.read()) == (code, "")


def test_a_long_input_comes_in_growing_groups_and_in_order(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{number}\n" for number in range(1000)))
    groups = list(lines.groups(None, path, batch_size=2))
    assert [line for group in groups for line in group] == [str(number) for number in range(1000)]
    # The same each time, however fast the file is read: what becomes of a line may depend on the lines beside it.
    assert lines.MOST_BATCHES == 16
    assert list(map(len, groups)) == [2, 4, 8, 16, *[32] * 30, 10]


def test_no_more_is_read_ahead_than_the_largest_group(monkeypatch):
    """A slow worker holds back whoever writes, rather than filling the memory."""
    drawn = []

    def endless():
        for number in itertools.count():
            drawn.append(number)
            yield b"x\n"

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=endless(), isatty=lambda: False))
    groups = lines.groups(None, None, batch_size=2)
    next(groups)
    before = None
    while before != len(drawn):  # until the reader waits
        before = len(drawn)
        time.sleep(0.1)
    assert len(drawn) <= 2 * 2 * lines.MOST_BATCHES + 2


def test_the_last_line_needs_no_line_feed_and_a_mark_of_utf_8_is_dropped(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfone\ntwo")
    assert [line for group in lines.groups(None, tmp_path / "x", batch_size=8) for line in group] == ["one", "two"]


def test_what_is_no_text_keeps_its_place(tmp_path):
    (tmp_path / "x").write_bytes(b"one\n\xff\xfe\nthree\n")
    first, second, third = (line for group in lines.groups(None, tmp_path / "x", batch_size=1) for line in group)
    assert (first, third) == ("one", "three")
    assert isinstance(second, DataError)
    assert "line 2" in second.message


def test_arguments_come_first(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert list(lines.groups(["a b", "c"], None, batch_size=1)) == [["a b", "c"]]
    assert list(lines.groups(None, None, batch_size=1)) == []


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none"):
        lines.groups(None, tmp_path / "none", batch_size=1)


def test_an_output_file_appears_when_all_is_written(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("before\n")
    with lines.writer(path) as write:
        write("é")
        assert path.read_text() == "before\n"
        write("")
    assert path.read_bytes() == "é\n\n".encode()


def test_a_failure_leaves_the_output_file_as_it_was(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("before\n")
    with pytest.raises(ZeroDivisionError), lines.writer(path) as write:
        write("after")
        raise ZeroDivisionError
    assert path.read_text() == "before\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_is_a_line(tmp_path):
    """Also where a vocabulary of characters has line ends or tabs in it."""
    with lines.writer(tmp_path / "out.txt") as write:
        write("a\r\nb\nc")
        write("-1.5", "d\te\nf", "")
    assert (tmp_path / "out.txt").read_bytes() == b"a b c\n-1.5\td e f\t\n"


def test_the_rest_of_a_damaged_archive_is_told(tmp_path):
    for number, content in enumerate((b"no gzip", gzip.compress(b"x\n" * 99)[:-9], gzip.compress(b"x\n" * 99)[:-4])):
        (tmp_path / f"{number}.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"\.gz is no whole gzip file"):
            list(lines.groups(None, tmp_path / f"{number}.gz", batch_size=8))


def drawn_until(failing):
    """The lines of all groups before one cannot be drawn, and why."""
    drawn = []
    with pytest.raises(DataError) as caught:
        for group in failing:
            drawn += group
    return drawn, caught.value


def test_what_can_be_read_of_a_damaged_archive_is_given(tmp_path):
    """Without compression the first bytes of an archive are a header of 15, and then the text: 64 lines and a half."""
    text = [f"line {number:03}" for number in range(99)]
    archive = gzip.compress("".join(f"{line}\n" for line in text).encode(), compresslevel=0)
    (tmp_path / "cut.gz").write_bytes(archive[: 15 + 64 * 9 + 4])
    drawn, failure = drawn_until(lines.groups(None, tmp_path / "cut.gz", batch_size=8))
    assert drawn == text[:64]
    assert "cut.gz is no whole gzip file" in failure.message


def test_what_came_before_a_read_failed_is_given(monkeypatch):
    def failing():
        yield from (b"one\n", b"two\n", b"three\n")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=failing(), isatty=lambda: False))
    drawn, failure = drawn_until(lines.groups(None, None, batch_size=8))
    assert drawn == ["one", "two", "three"]
    assert failure.message == "cannot read standard input: input/output error"
