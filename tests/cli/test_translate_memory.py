"""`dlkit translate` as a process of its own, seen from outside: when its answers come, and how much memory it takes."""

import random
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from copying_net import make

from dlkit.data.tokenizer import WordTokenizer

WORDS = ["le", "chat", "dort", "un", "noir"]
MOST_WORDS = 20

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read memory from")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that copies its input."""
    words = WordTokenizer(WORDS)
    return make(tmp_path_factory.mktemp("runs") / "copy", words, words)


@contextmanager
def translating(run, *arguments):
    """The process, which has to end well when its input does."""
    command = [sys.executable, "-m", "dlkit", "translate", "--model", run, "--beam", "5", "-q", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            yield process
            process.stdin.close()
            assert process.stdout.read() == ""
            assert process.wait(60) == 0
        finally:
            process.kill()


def sentences(count):
    """Of 1 to 20 words, so of all shapes."""
    drawn = random.Random(0)
    return [" ".join(drawn.choices(WORDS, k=drawn.randint(1, MOST_WORDS))) for _ in range(count)]


def resident(process):
    """Bytes that a process holds in memory now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


def test_each_line_is_answered_before_the_next_one_comes(run):
    with translating(run) as process:
        for line in sentences(5):
            print(line, file=process.stdin)
            assert process.stdout.readline() == line + "\n"


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--compile"]], ids=["plain", "compiled"])
def test_ten_thousand_lines_take_no_more_memory_than_the_first(run, tmp_path, options):
    lines = sentences(10_000)
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    held = []
    with translating(run, "--file", path, *options) as process:
        for number, line in enumerate(lines, 1):
            assert process.stdout.readline() == line + "\n"
            if number % 100 == 0 and number < len(lines) - 600:  # there may be one more group of 512 on its way
                held.append(resident(process))
    print(" ".join(f"{value / 2**20:.0f}" for value in held), "MiB")
    early, late = max(held[10:20]), max(held[-10:])
    assert late <= early + 8 * 2**20
